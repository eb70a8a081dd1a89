"""JSON files of our own layout, and of others that use its words.

    {"format": "anyecg json 1", "fs_hz": 500, "unit": "mV", "leads": ["I", "II"],
     "signal": [[0.01, null], [0.02, 0.03]],
     "age": 61, "sex": "female", "start_time": "2020-05-04T03:02:01"}

``signal`` holds a list a lead; ``null`` is a sample that was not recorded. Instead of ``signal`` and ``leads`` each
lead may have a list under its own name, at the top or inside ``"signal": {"I": [...]}``. The other spellings that are
understood are those of `anyecg.readers.tabular.named`. FHIR goes to `anyecg.readers.fhir`, Kardia to
`anyecg.readers.vendors.devices`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers import fhir
from anyecg.readers.sources import split_inner
from anyecg.readers.tabular.columns import read_table
from anyecg.readers.tabular.named import meaning_of, table_of
from anyecg.record import Record

NAME = "json"

SEVERAL = True
"""FHIR may: see there."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is a JSON object."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="ignore").encode()
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a JSON object of named values.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    file, inner = split_inner(path)
    document = fhir.parse_json(file)
    if "resourceType" in document:
        return fhir.read_document(path, document, start_s, end_s, fs, unit)
    if inner:
        raise ReadError(f"{file}: a file of one recording, expected no {inner!r} behind it. Name the file alone.")
    if "anyecg_version" in document:
        raise ReadError(f"{where}: a report of anyecg, expected samples. Name the recording that it is on.")
    table = table_of(where, _arrays(where, document))
    return read_table(path, table, "json", start_s, end_s, fs, unit)


def _arrays(where: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return the values with lists of numbers as arrays; objects of a known meaning are opened.

    Raises
    ------
    ReadError
        The lists of a signal differ in length, or hold something else than numbers and null.
    """
    values: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            inner = _arrays(where, value) if meaning_of(key) in ("signal", "leads") or _is_patient(key) else {}
            values |= {name: item for name, item in inner.items() if name not in values}
        elif isinstance(value, list) and value and _is_numeric(value):
            try:
                values[key] = np.array(value, dtype=np.float64)
            except (ValueError, TypeError):
                raise ReadError(
                    f"{where}: {key!r} is not a table of numbers, expected lists of one length, of numbers and null. "
                    "Correct the file."
                ) from None
        else:
            values[key] = value
    return values


def _is_patient(key: str) -> bool:
    return key.lower() in ("patient", "subject", "metadata", "meta", "header")


def _is_numeric(value: list[Any]) -> bool:
    """Return whether the first thing in nested lists that is not null is a number."""
    for item in value:
        if isinstance(item, list):
            if item:
                return _is_numeric(item)
        elif item is not None:
            return isinstance(item, int | float) and not isinstance(item, bool)
    return True
