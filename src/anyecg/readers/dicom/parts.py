"""A part of a long DICOM waveform, as a short file of the same elements: pydicom reads an element as a whole only.

Of one multiplex group, in Explicit or Implicit VR Little Endian (PS3.5, 7.1 and 7.5); other files are read whole.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import IO

UNDEFINED = 0xFFFFFFFF

TRANSFER_SYNTAX, WAVEFORMS, ITEM, END_OF_ITEM, END_OF_SEQUENCE = (
    *(0x00020010, 0x54000100),
    *(0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD),
)
N_CHANNELS, N_SAMPLES, RATE, BITS, DATA = 0x003A0005, 0x003A0010, 0x003A001A, 0x54001004, 0x54001010

LONG_FORMS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes, after two that are reserved (PS3.5, 7.1.2)."""

EXPLICIT, IMPLICIT = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2"

MAX_ELEMENTS = 10_000
DEEPEST = 16


@dataclass(frozen=True)
class Waves:
    """Where a file has its samples, and the numbers that depend on how many there are.

    Parameters
    ----------
    lengths_at : tuple of int
        Where the lengths of all that holds the samples are, and that of themselves.
    n_samples_at, data_at, n_bytes : int
    n_samples, frame_bytes : int
    rate_hz : float
    """

    path: Path
    lengths_at: tuple[int, ...]
    n_samples_at: int
    data_at: int
    n_bytes: int
    n_samples: int
    frame_bytes: int
    rate_hz: float

    def part(self, first: int, last: int) -> bytes:
        """Return a file with the samples from ``first`` to ``last`` alone."""
        with self.path.open("rb") as file:
            head = bytearray(file.read(self.data_at))
            file.seek(first * self.frame_bytes, 1)
            data = file.read((last - first) * self.frame_bytes)
            file.seek(self.data_at + self.n_bytes)
            tail = file.read()
        data += b"\0" * (len(data) % 2)
        for at in self.lengths_at:
            length = int.from_bytes(head[at : at + 4], "little")
            if length != UNDEFINED:
                struct.pack_into("<I", head, at, length - self.n_bytes + len(data))
        struct.pack_into("<I", head, self.n_samples_at, last - first)
        return bytes(head) + data + tail


def waves_of(path: Path) -> Waves | None:
    """Return where a file has its samples, or None if it has several groups of them, or is not written plainly."""
    found = path.stat()
    return _waves_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2)
def _waves_of(path: Path, size: int, changed_ns: int) -> Waves | None:
    try:
        with path.open("rb") as file:
            return _find(path, file, size)
    except (struct.error, ValueError):
        return None


def _find(path: Path, file: IO[bytes], size: int) -> Waves | None:
    file.seek(132)
    explicit, syntax = True, b""
    for _ in range(MAX_ELEMENTS):
        at = file.tell()
        tag = _tag(file)
        if tag >> 16 != 2 and syntax == b"":
            return None
        if tag >> 16 != 2 and explicit and syntax == IMPLICIT:
            explicit = False
        file.seek(at)
        tag, length, length_at = _element(file, explicit)
        if tag == TRANSFER_SYNTAX:
            syntax = file.read(length).rstrip(b"\0 ")
            if syntax not in (EXPLICIT, IMPLICIT):
                return None
        elif tag == WAVEFORMS:
            return _group(path, file, explicit, length, length_at, size)
        else:
            _skip(file, length, explicit, 0)
    return None


def _group(path: Path, file: IO[bytes], explicit: bool, length: int, length_at: int, size: int) -> Waves | None:
    """Return what is in the only group of a Waveform Sequence; None if there are more, or something is missing."""
    begin = file.tell()
    tag, item_length, item_at = _element(file, explicit)
    if tag != ITEM:
        return None
    item_begin = file.tell()
    places: dict[int, tuple[int, int, int]] = {}
    for _ in range(MAX_ELEMENTS):
        if item_length != UNDEFINED and file.tell() >= item_begin + item_length:
            break
        tag, n_bytes, at = _element(file, explicit)
        if tag == END_OF_ITEM:
            break
        places[tag] = (file.tell(), n_bytes, at)
        _skip(file, n_bytes, explicit, 0)
    more = file.tell() < begin + length if length != UNDEFINED else _tag(file) == ITEM
    if more or not {N_CHANNELS, N_SAMPLES, RATE, BITS, DATA} <= set(places):
        return None
    numbers = {}
    for tag in (N_CHANNELS, N_SAMPLES, BITS):
        file.seek(places[tag][0])
        numbers[tag] = int.from_bytes(file.read(places[tag][1]), "little")
    file.seek(places[RATE][0])
    rate_hz = float(file.read(places[RATE][1]))
    data_at, n_bytes, data_length_at = places[DATA]
    frame_bytes = numbers[N_CHANNELS] * numbers[BITS] // 8
    whole = places[N_SAMPLES][0] < data_at and places[N_SAMPLES][1] == 4 and data_at + n_bytes <= size
    if (
        not (whole and isfinite(rate_hz) and rate_hz > 0 and frame_bytes > 0)
        or not 0 < numbers[N_SAMPLES] <= n_bytes // frame_bytes
        or n_bytes == UNDEFINED
    ):
        return None
    lengths_at = (length_at, item_at, data_length_at)
    return Waves(path, lengths_at, places[N_SAMPLES][0], data_at, n_bytes, numbers[N_SAMPLES], frame_bytes, rate_hz)


def _tag(file: IO[bytes]) -> int:
    group, element = struct.unpack("<HH", file.read(4))
    return int(group) << 16 | int(element)


def _element(file: IO[bytes], explicit: bool) -> tuple[int, int, int]:
    """Read up to an element's value; return its tag, its length, and where four bytes of length are (-1: two)."""
    tag = _tag(file)
    if tag >> 16 == 0xFFFE or (not explicit and tag >> 16 != 2):
        return tag, struct.unpack("<I", file.read(4))[0], file.tell() - 4
    form = file.read(2)
    if form in LONG_FORMS:
        return tag, struct.unpack("<2xI", file.read(6))[0], file.tell() - 4
    return tag, struct.unpack("<H", file.read(2))[0], -1


def _skip(file: IO[bytes], length: int, explicit: bool, depth: int) -> None:
    """Go to the end of a value.

    Raises
    ------
    ValueError
        It does not end.
    """
    if length != UNDEFINED:
        file.seek(length, 1)
        return
    for _ in range(MAX_ELEMENTS if depth < DEEPEST else 0):
        tag, n_bytes, _ = _element(file, explicit)
        if tag in (END_OF_ITEM, END_OF_SEQUENCE):
            return
        _skip(file, n_bytes, explicit, depth + 1)
    raise ValueError("nested too deeply, or without an end")
