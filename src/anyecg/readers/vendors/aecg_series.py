"""The rhythm series of an HL7 annotated ECG that holds several: one of them, in a document of its own.

A series is a rhythm unless its code is REPRESENTATIVE_BEAT (the median beats of a program); derived series hang on the
series that they come from.
"""

import copy
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ElementTree as Tree

from anyecg.errors import ReadError

_TAG = re.compile(rb"<(?:[\w.-]+:)?series[\s/>]")
_COMPONENT, _SERIES, _CODE = "{*}component", "{*}series", "{*}code"


def rhythms(path: Path) -> list[Any]:
    """Return the components of a document that hold a rhythm series, in its order; none of one that has one series.

    Raises
    ------
    ReadError
        The document is damaged.
    """
    if len(_TAG.findall(path.read_bytes().replace(b"\x00", b""))) < 2:  # UTF-16 without its zero bytes
        return []
    return _components(_root(path))


def write_one(path: Path, place: int, target: Path) -> None:
    """Write a document in which only the rhythm series of this place, from 0, is left, and what it is made of.

    Raises
    ------
    ReadError
        There is none.
    """
    root = _root(path)
    found = _components(root)
    if place >= len(found):
        raise ReadError(f"{path}#{place}: an aECG of {len(found)} rhythm series, expected a place from 0. Check it.")
    for component in found:
        if component is not found[place]:
            root.remove(component)
    # The document's own time is that of all series.
    times = [root.find("{*}effectiveTime"), found[place].find(f"{_SERIES}/{{*}}effectiveTime")]
    if all(time is not None for time in times):
        times[0][:] = copy.deepcopy(list(times[1]))
    Tree(root).write(target, encoding="utf-8", xml_declaration=True)


def _root(path: Path) -> Any:
    from defusedxml import ElementTree

    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise ReadError(f"{path}: damaged XML ({error}), expected a whole file. Export it again.") from error


def _components(root: Any) -> list[Any]:
    """Return the components with a rhythm."""
    found = []
    for component in root.findall(_COMPONENT):
        code = component.find(f"{_SERIES}/{_CODE}")
        is_beat = code is not None and (code.get("code") or "").upper() == "REPRESENTATIVE_BEAT"
        if component.find(_SERIES) is not None and not is_beat:
            found.append(component)
    return found
