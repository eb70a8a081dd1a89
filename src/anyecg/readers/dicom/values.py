"""Plain values out of a data set by their tags, without what pydicom makes of them first.

A keyword costs it a search, and a raw element its checks and an object: most of the time that reading took us.
"""

from typing import Any

import numpy as np


def text(dataset: Any, tag: int) -> str:
    """Return an element of characters that any character set has, such as a code; empty if it is not there."""
    element = dataset.get_item(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    return "" if value is None else str(value).strip()


def number(dataset: Any, tag: int) -> float | None:
    """Return the one number of an element of decimal strings (DS); None if it is not there, or empty.

    Raises
    ------
    ValueError
        It is no number, or there are several.
    """
    said = text(dataset, tag)
    return float(said) if said else None


def integers(dataset: Any, tag: int, size: int) -> list[int]:
    """Return the numbers of an element of unsigned integers (US or UL) of ``size`` bytes each."""
    element = dataset.get_item(tag)
    value = None if element is None else element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        dtype = np.dtype(f"u{size}").newbyteorder("<" if element.is_little_endian else ">")
        return np.frombuffer(value, dtype, len(value) // size).tolist()
    return [int(one) for one in value] if hasattr(value, "__iter__") else [int(value)]
