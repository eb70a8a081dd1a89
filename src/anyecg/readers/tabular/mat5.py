"""MATLAB's Level 5 files (versions 5 to 7), read by ourselves: in bounds, whatever their tags claim.

scipy's reader trusts the data types it finds: a damaged one ends the process. Source: MathWorks, "MAT-File Format",
chapter 1. Numbers, texts, cells and structs are read; complex numbers, sparse matrices, objects and
functions are passed over.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from anyecg.errors import ReadError

MAX_BYTES = 2_000_000_000
"""What a file, packed or unpacked, may come to."""

LARGEST_RATIO = 50
FREE_BYTES = 16_000_000
"""So many unpacked bytes are free; beyond them a byte may unpack to no more than `LARGEST_RATIO`."""

HEADER_BYTES = 128

MAPPED_FROM_BYTES = 1_000_000
"""A smaller file is read at once: for ten seconds a map takes longer to make and to undo than the samples to read."""

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Data types of numbers (table 1-1) to numpy."""

_DTYPES = {order: {kind: np.dtype(order + name) for kind, name in _NUMBERS.items()} for order in "<>"}
"""The same by byte order."""

_MATRIX, _COMPRESSED = 14, 15

_TEXTS = {1: "latin-1", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Data types of characters to codecs; the byte order is added."""

_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
"""Array types (table 1-3)."""

_COMPLEX = 0x0800
"""A flag beside the array type: the numbers have imaginary parts, as no ECG has."""

_MOST_DEPTH = 8
_MOST_PARTS = 100_000
"""Of cells and structs together: more are no names of leads."""


class _Damaged(ValueError):
    """What the bytes say cannot be."""


def read_level5(path: Path, data: memoryview) -> dict[str, Any]:
    """Return the variables of a Level 5 file.

    Parameters
    ----------
    path : Path
        For messages.
    data : memoryview
        What the file holds, see `bytes_of`.

    Returns
    -------
    dict
        Of numbers an array in its stored type, of a text a list of its rows, of a cell a list, of a struct of one a
        dict; None for what is passed over. Numbers that are not compressed are views of the data.

    Raises
    ------
    ReadError
        The file is damaged, or unpacks to far more than it is.
    """
    order: Literal["<", ">"] = "<" if bytes(data[126:128]) == b"IM" else ">"
    reader = _Reader(order)
    found: dict[str, Any] = {}
    budget = min(MAX_BYTES, FREE_BYTES + LARGEST_RATIO * len(data))
    at = HEADER_BYTES
    try:
        while at + 8 <= len(data):
            kind, n_bytes = reader.tag(data, at)
            body = data[at + 8 : at + 8 + n_bytes]
            if len(body) < n_bytes:
                raise _Damaged(f"a variable of {n_bytes} bytes at byte {at}, where {len(body)} are left")
            at += 8 + n_bytes
            if kind == _COMPRESSED:
                unpacked = _unpacked(path, body, budget, len(data))
                budget -= len(unpacked)
                kind, _, body, _ = reader.element(memoryview(unpacked), 0)
            if kind == _MATRIX:
                name, value = reader.matrix(body, 0)
                found[name] = value
    except (_Damaged, zlib.error, RecursionError) as error:
        raise ReadError(f"{path}: not a whole MAT file ({error}), expected matrices. Save it again.") from error
    return found


def bytes_of(file: BinaryIO, size: int) -> memoryview:
    """Return what an open file of so many bytes holds, unread if that is much."""
    if size >= MAPPED_FROM_BYTES:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return memoryview(file.read(size))


def is_packed(path: Path) -> bool:
    """Return whether some variable of the file is compressed, or the file is not of Level 5."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        if not head.startswith(b"MATLAB 5.0"):
            return True
        order = "<" if head[126:128] == b"IM" else ">"
        while len(tag := file.read(8)) == 8:
            kind, n_bytes = struct.unpack(f"{order}2I", tag)
            if kind == _COMPRESSED:
                return True
            file.seek(n_bytes, 1)
    return False


def _unpacked(path: Path, body: memoryview, budget: int, size: int) -> bytes:
    """Return what a compressed variable unpacks to; its checksum is verified.

    Raises
    ------
    ReadError
        It is more than the budget.
    """
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(body, budget + 1)
    if len(unpacked) > budget:
        raise ReadError(
            f"{path}: {size} bytes that unpack to more than {budget}, expected an ECG. Do not open this file."
        )
    if not unpacker.eof:
        raise _Damaged("a compressed variable that is cut short")
    return unpacked


class _Reader:
    """Reads matrices out of memory; every length is checked against what is there."""

    def __init__(self, order: Literal["<", ">"]) -> None:
        self.order = order
        self.tag = struct.Struct(f"{order}2I").unpack_from
        self.n_parts = 0

    def element(self, data: memoryview, at: int) -> tuple[int, int, memoryview, int]:
        """Return an element's data type, its length, its bytes, and where the next one begins."""
        if at + 8 > len(data):
            raise _Damaged(f"an element at byte {at} of {len(data)}")
        kind, n_bytes = self.tag(data, at)
        if kind >> 16:  # a small element: its length in the upper half of the tag, and its data in the tag
            kind, n_bytes = kind & 0xFFFF, kind >> 16
            if n_bytes > 4:
                raise _Damaged(f"a small element of {n_bytes} bytes")
            return kind, n_bytes, data[at + 4 : at + 4 + n_bytes], at + 8
        end = at + 8 + n_bytes
        if end > len(data):
            raise _Damaged(f"an element of {n_bytes} bytes at byte {at} of {len(data)}")
        padded = end if kind == _MATRIX else end + -n_bytes % 8
        return kind, n_bytes, data[at + 8 : end], padded

    def numbers(self, data: memoryview, at: int) -> tuple[np.ndarray, int]:
        """Return an element of numbers, and where the next one begins."""
        kind, n_bytes, body, end = self.element(data, at)
        if (dtype := _DTYPES[self.order].get(kind)) is None:
            raise _Damaged(f"numbers of data type {kind}")
        return np.frombuffer(body, dtype, n_bytes // dtype.itemsize), end

    def text(self, data: memoryview, at: int) -> tuple[bytes, int]:
        """Return the bytes of an element of 8-bit characters, and where the next one begins."""
        kind, _, body, end = self.element(data, at)
        if kind not in (1, 2, 16):
            raise _Damaged(f"a name of data type {kind}")
        return bytes(body), end

    def matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Return the name and the value in the bytes of a matrix element."""
        if len(data) == 0:
            return "", np.empty((0, 0))
        flags, at = self.numbers(data, 0)
        dims, at = self.numbers(data, at)
        name, at = self.text(data, at)
        if len(flags) < 1 or flags.dtype.itemsize != 4 or not 1 < len(dims) <= 32 or dims.dtype.kind == "f":
            raise _Damaged(f"a matrix of {len(dims)} dimensions")
        shape = tuple(dims.tolist())
        if min(shape) < 0:
            raise _Damaged(f"a matrix of shape {shape}")
        value = None if int(flags[0]) & _COMPLEX else self.value(data, at, int(flags[0]) & 0xFF, shape, depth)
        return name.rstrip(b"\0").decode("utf-8", errors="replace"), value

    def value(self, data: memoryview, at: int, kind: int, shape: tuple[int, ...], depth: int) -> Any:
        """Return the value of a matrix of an array type and a shape, whose data begin at a byte."""
        n = math.prod(shape)
        if kind in _NUMERIC:
            values, _ = self.numbers(data, at)
            if len(values) != n:
                raise _Damaged(f"{len(values)} numbers in a matrix of shape {shape}")
            return values.reshape(shape, order="F")
        if kind == _CHAR:
            return self.characters(data, at, shape)
        if kind == _CELL:
            return [value for _, value in self.matrices(data, at, n, depth)]
        if kind == _STRUCT:
            lengths, at = self.numbers(data, at)
            names, at = self.text(data, at)
            n_name = int(lengths[0]) if len(lengths) and lengths.dtype.kind != "f" else 0
            if n_name < 1:
                raise _Damaged("a struct whose fields have no names")
            fields = [names[i : i + n_name].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), n_name)]
            found = [value for _, value in self.matrices(data, at, n * len(fields), depth)]
            return dict(zip(fields, found, strict=True)) if n == 1 else None
        return None

    def matrices(self, data: memoryview, at: int, n: int, depth: int) -> Iterator[tuple[str, Any]]:
        """Yield so many matrices, one after the other."""
        self.n_parts += n
        if depth >= _MOST_DEPTH or self.n_parts > _MOST_PARTS:
            raise _Damaged(f"{self.n_parts} matrices within matrices")
        for _ in range(n):
            kind, _, body, at = self.element(data, at)
            if kind != _MATRIX:
                raise _Damaged(f"data type {kind}, not a matrix in a matrix")
            yield self.matrix(body, depth + 1)

    def characters(self, data: memoryview, at: int, shape: tuple[int, ...]) -> list[str]:
        """Return the rows of a matrix of characters; they are stored column by column."""
        kind, _, body, _ = self.element(data, at)
        if kind not in _TEXTS:
            raise _Damaged(f"characters of data type {kind}")
        order = {"<": "-le", ">": "-be"}[self.order] if kind in (4, 17, 18) else ""
        text = bytes(body).decode(_TEXTS[kind] + order, errors="replace")
        n_rows = shape[0]
        if n_rows * math.prod(shape[1:]) != len(text):
            raise _Damaged(f"{len(text)} characters in a matrix of shape {shape}")
        return [text[row::n_rows].strip() for row in range(n_rows)]
