"""The lines that the pages of a PDF draw (ISO 32000-1): objects, pages, content streams, stroked paths.

Only what a page strokes itself is returned, as points in 1/72 inch with y upwards. Passed over are text, images, fills,
forms (``Do``), what a dictionary of graphics state sets (``gs``), and paths through infinity. Encrypted files and other
filters than Flate are refused. The cross-reference table is not used: every object is found where it stands, and the
last of a number counts.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError

MAX_BYTES = 50_000_000
"""A report of five minutes and six leads has some MB."""

MAX_CONTENT_BYTES = 30_000_000
"""Of all pages and object streams together, unpacked."""

MAX_DEPTH = 40
"""Of arrays and dictionaries in one another, and of the tree of pages."""

MAX_PAGES = 500

_BLANKS = rb"[\x00\t\n\x0c\r ]"
_REGULAR = rb"[^\x00\t\n\x0c\r /\[\]<>(){}%]"
_TOKEN = re.compile(
    rb"%b*(?:%%[^\r\n]*%b*)*"
    rb"(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?!%b))|(?P<word>%b+)|(?P<name>/%b*)|(?P<mark><<|>>|[\[\](){}<>]))"
    % (_BLANKS, _BLANKS, _REGULAR, _REGULAR, _REGULAR)
)
_OBJECT = re.compile(rb"(\d{1,10})%b+\d{1,5}%b+obj\b" % (_BLANKS, _BLANKS))
_REFERENCE = re.compile(rb"%b+\d{1,5}%b+R(?!%b)" % (_BLANKS, _BLANKS, _REGULAR))
_STREAM = re.compile(rb"%b*stream(?:\r\n|\n|\r)" % _BLANKS)
_PARENTHESES = re.compile(rb"[()\\]")
_END_OF_IMAGE = re.compile(rb"%bEI(?!%b)" % (_BLANKS, _REGULAR))

_N_COLOURS = {b"G": 1, b"RG": 3, b"K": 4}


@dataclass(frozen=True)
class Stroke:
    """A path that a page strokes.

    Parameters
    ----------
    lines : list of ndarray of float64, shape (n_points, 2)
        x and y of each of its polygons, 1/72 inch from the lower left corner; curves only by their ends.
    colour : tuple of float
        Red, green and blue from 0 to 1.
    width : float
        1/72 inch.
    """

    lines: list[np.ndarray]
    colour: tuple[float, ...]
    width: float


@dataclass(frozen=True)
class _Reference:
    number: int


@dataclass
class _State:
    """What ``q`` saves and ``Q`` restores, as far as it matters here."""

    matrix: tuple[float, ...]
    colour: tuple[float, ...] = (0.0, 0.0, 0.0)
    width: float = 1.0

    def copy(self) -> "_State":
        return _State(self.matrix, self.colour, self.width)


def pages(path: Path) -> Iterator[list[Stroke]]:
    """Yield the strokes of each page; none if no page is found.

    Raises
    ------
    ReadError
        The file is too large, encrypted, or packed in an unknown way.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: a PDF of {size} bytes, expected at most {MAX_BYTES}. Export the recording as data.")
    data = path.read_bytes()
    if re.search(rb"/Encrypt%b*(?:\d|<<)" % _BLANKS, data):
        raise ReadError(f"{path}: an encrypted PDF, expected one that is not. Print it to a new PDF.")
    file = _File(str(path), data)
    for page in file.pages():
        scale = page.get("UserUnit")
        yield list(_strokes(file.content(page), float(scale) if isinstance(scale, int | float) and scale > 0 else 1.0))


class _File:
    """The objects of a file by their numbers, with the bytes of those that are streams."""

    def __init__(self, where: str, data: bytes) -> None:
        self.where, self.left = where, MAX_CONTENT_BYTES
        self.objects: dict[int, Any] = {}
        self.streams: dict[int, bytes] = {}
        at = 0
        while found := _OBJECT.search(data, at):
            number = int(found[1])
            value, at = _value(data, found.end(), MAX_DEPTH)
            self.objects[number] = value
            self.streams.pop(number, None)
            if isinstance(value, dict) and (begin := _STREAM.match(data, at)):
                end = _end_of_stream(data, begin.end(), value.get("Length"))
                self.streams[number] = data[begin.end() : end]
                at = end
        for number in [n for n in self.streams if self._get(self.objects[n], "Type") == "ObjStm"]:
            self._unpack_objects(number)

    def _unpack_objects(self, number: int) -> None:
        """Take the objects out of an object stream (7.5.7); what stands in the file itself comes first."""
        head, body = self.objects[number], self._unpacked(number)
        first, count = self._get(head, "First"), self._get(head, "N")
        if not isinstance(first, int) or not isinstance(count, int):
            return
        places = [int(text) for text in re.findall(rb"\d{1,10}", body[:first])][: 2 * count]
        for inner, offset in zip(places[::2], places[1::2], strict=False):
            self.objects.setdefault(inner, _value(body, first + offset, MAX_DEPTH)[0])

    def _get(self, holder: Any, key: str) -> Any:
        """Return a value of a dictionary, behind its references."""
        value = holder.get(key) if isinstance(holder, dict) else None
        for _ in range(MAX_DEPTH):
            if not isinstance(value, _Reference):
                return value
            value = self.objects.get(value.number)
        return None

    def pages(self) -> list[dict[str, Any]]:
        """Return the pages in their order."""
        catalogs = [value for value in self.objects.values() if self._get(value, "Type") == "Catalog"]
        found: list[dict[str, Any]] = []
        seen: set[int] = set()

        def walk(node: Any, depth: int) -> None:
            if not isinstance(node, dict) or id(node) in seen or depth == 0 or len(found) >= MAX_PAGES:
                return
            seen.add(id(node))
            kids = self._get(node, "Kids")
            if not isinstance(kids, list):
                found.append(node)
                return
            for kid in kids:
                walk(self.objects.get(kid.number) if isinstance(kid, _Reference) else kid, depth - 1)

        if catalogs:
            walk(self._get(catalogs[-1], "Pages"), MAX_DEPTH)
        return found

    def content(self, page: dict[str, Any]) -> bytes:
        """Return what draws a page, its parts one after the other (7.8.2)."""
        value = page.get("Contents")
        if isinstance(value, _Reference) and isinstance(self.objects.get(value.number), list):
            value = self.objects[value.number]
        parts = value if isinstance(value, list) else [value]
        numbers = [part.number for part in parts if isinstance(part, _Reference) and part.number in self.streams]
        return b"\n".join(self._unpacked(number) for number in numbers)

    def _unpacked(self, number: int) -> bytes:
        """Return the bytes of a stream."""
        head, packed = self.objects[number], self.streams[number]
        filters = self._get(head, "Filter")
        names = filters if isinstance(filters, list) else [] if filters is None else [filters]
        parameters = self._get(head, "DecodeParms")
        if any(name not in ("FlateDecode", "Fl") for name in names) or self._get(parameters, "Predictor") not in (
            None,
            1,
        ):
            raise ReadError(f"{self.where}: a PDF packed by {names}, expected FlateDecode. Print it to a new PDF.")
        for _ in names:
            unpacker = zlib.decompressobj()
            try:
                packed = unpacker.decompress(packed, self.left + 1)
            except zlib.error as error:
                raise ReadError(f"{self.where}: damaged data in a PDF ({error}). Export it again.") from error
        self.left -= len(packed)
        if self.left < 0:
            raise ReadError(f"{self.where}: a PDF that unpacks to over {MAX_CONTENT_BYTES} bytes. Do not open it.")
        return packed


def _end_of_stream(data: bytes, begin: int, length: Any) -> int:
    """Return where a stream ends: by its length if that fits, or else before ``endstream``."""
    if isinstance(length, int) and data[begin + length : begin + length + 20].lstrip().startswith(b"endstream"):
        return begin + length
    end = data.find(b"endstream", begin)
    return end if end >= 0 else len(data)


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the object that begins at a place, and where it ends; names and words are str, strings are left out."""
    found = _TOKEN.match(data, at)
    if found is None or depth == 0:
        return None, at + 1
    at = found.end()
    if found["number"]:
        number = found["number"]
        if number.isdigit() and len(number) <= 10:
            reference = _REFERENCE.match(data, at)
            return (_Reference(int(number)), reference.end()) if reference else (int(number), at)
        return float(number), at
    if found["name"]:
        return found["name"][1:].decode("latin-1"), at
    if found["word"]:
        return {b"true": True, b"false": False, b"null": None}.get(found["word"], found["word"].decode("latin-1")), at
    if found["mark"] == b"(":
        return "", _end_of_string(data, at)
    if found["mark"] == b"<":
        return "", data.find(b">", at) + 1 or len(data)
    close = {b"[": b"]", b"<<": b">>"}.get(found["mark"])
    if close is None:
        return None, at
    values: list[Any] = []
    while (found := _TOKEN.match(data, at)) and found["mark"] != close:
        value, at = _value(data, at, depth - 1)
        values.append(value)
    at = found.end() if found else len(data)
    if close == b"]":
        return values, at
    return {key: value for key, value in zip(values[::2], values[1::2], strict=False) if isinstance(key, str)}, at


def _end_of_string(data: bytes, at: int) -> int:
    """Return what comes after a string whose opening parenthesis is before ``at``."""
    depth = 1
    while depth and (found := _PARENTHESES.search(data, at)):
        depth += {b"(": 1, b")": -1}.get(found[0], 0)
        at = found.end() + (found[0] == b"\\")
    return at if depth == 0 else len(data)


def _tokens(content: bytes) -> Iterator[tuple[bytes, list[float]]]:
    """Yield each operator with the numbers before it; strings, names and inline images are passed over."""
    numbers: list[float] = []
    at = 0
    while found := _TOKEN.match(content, at):
        at = found.end()
        if found["number"]:
            numbers.append(float(found["number"]))
        elif found["word"]:
            yield found["word"], numbers
            numbers = []
            if found["word"] == b"ID":
                image = _END_OF_IMAGE.search(content, at)
                at = image.end() if image else len(content)
        elif found["mark"] == b"(":
            at = _end_of_string(content, at)
        elif found["mark"] == b"<":
            at = content.find(b">", at) + 1 or len(content)


def _strokes(content: bytes, scale: float) -> Iterator[Stroke]:
    """Yield the strokes of a content stream (8.4 and 8.5)."""
    state = _State((scale, 0.0, 0.0, scale, 0.0, 0.0))
    saved: list[_State] = []
    lines: list[list[tuple[float, float]]] = []
    for word, numbers in _tokens(content):
        if word in (b"m", b"l", b"c", b"v", b"y") and len(numbers) >= 2:
            point = _placed(state.matrix, numbers[-2], numbers[-1])
            if word == b"m" or not lines:
                lines.append([point])
            else:
                lines[-1].append(point)
        elif word == b"h" and lines:
            lines[-1].append(lines[-1][0])
        elif word == b"re" and len(numbers) == 4:
            x, y, w, h = numbers
            corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y))
            lines.append([_placed(state.matrix, *corner) for corner in corners])
        elif word in (b"S", b"s", b"B", b"B*", b"b", b"b*"):
            a, b, c, d = state.matrix[:4]
            if word in (b"s", b"b", b"b*") and lines:
                lines[-1].append(lines[-1][0])
            width = state.width * abs(a * d - b * c) ** 0.5
            points = [np.array(line) for line in lines]
            if points and all(np.isfinite(line).all() for line in points):
                yield Stroke(points, state.colour, width)
            lines = []
        elif word in (b"f", b"F", b"f*", b"n"):
            lines = []
        elif word == b"q":
            saved.append(state.copy())
        elif word == b"Q" and saved:
            state = saved.pop()
        else:
            _set(state, word, numbers)


def _set(state: _State, word: bytes, numbers: list[float]) -> None:
    """Change the matrix, the line width or the stroke colour."""
    if word == b"cm" and len(numbers) == 6:
        state.matrix = _product(numbers, state.matrix)
    elif word == b"w" and numbers:
        state.width = numbers[-1]
    elif word in (b"SC", b"SCN") or len(numbers) == _N_COLOURS.get(word):
        if len(numbers) == 1:
            state.colour = (numbers[0],) * 3
        elif len(numbers) == 3:
            state.colour = tuple(numbers)
        elif len(numbers) == 4:
            state.colour = tuple((1 - ink) * (1 - numbers[3]) for ink in numbers[:3])


def _placed(matrix: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _product(first: list[float], then: tuple[float, ...]) -> tuple[float, ...]:
    """Return the matrix that does the first, then the other (8.3.4)."""
    a, b, c, d, e, f = first
    u, v, w, x, y, z = then
    return a * u + b * w, a * v + b * x, c * u + d * w, c * v + d * x, e * u + f * w + y, e * v + f * x + z
