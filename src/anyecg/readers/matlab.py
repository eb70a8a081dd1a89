"""MATLAB files of versions 4 to 7 (Level 4 and Level 5 MAT-Files), read by scipy. Version 7.3 is `anyecg.readers.hdf5`.

A matrix ``val`` as PhysioNet writes it is whole numbers without rate and unit: these stand in the .hea beside it, and
where that is, the WFDB reader reads both. Structs are opened (``ECG.data``, CPSC 2018).
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.columns import read_table
from anyecg.readers.named import table_of
from anyecg.record import Record

NAME = "mat"

MAX_BYTES = 2_000_000_000
"""Read as a whole; also what a compressed file may come to."""

LARGEST_RATIO = 50
FREE_BYTES = 16_000_000
"""So many unpacked bytes are free; beyond them a byte may unpack to no more than `LARGEST_RATIO`."""

_LEVEL4_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}
"""Bytes of a value by the second last digit of a Level 4 matrix's type."""

_COMPRESSED = 15
"""Data type miCOMPRESSED (MAT-File Format, table 1-1)."""

_HEADER_BYTES = 128


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file has the text of Level 5 at its start, or a header of Level 4."""
    return (head.startswith(b"MATLAB 5.0 MAT-file") and head[126:128] in (b"IM", b"MI")) or _is_level4(head)


def _is_level4(head: bytes) -> bool:
    """Return whether a file starts with a matrix header of Level 4: type, rows, columns, imaginary, length of name."""
    if len(head) < 21:
        return False
    for order in "<>":
        kind, rows, columns, imaginary, n_name = struct.unpack(f"{order}5i", head[:20])
        # The type's digits: 1000 byte order, 10 number format, 1 numeric, text or sparse.
        known = (
            kind // 1000 in (0, 1) and kind // 100 % 10 == 0 and kind // 10 % 10 <= 5 and kind % 10 <= 2 and kind >= 0
        )
        name = head[20 : 20 + n_name] if 1 < n_name <= 64 else b""
        if known and rows > 0 and columns > 0 and imaginary in (0, 1) and name.endswith(b"\0"):
            return name[:-1].decode("ascii", errors="replace").isidentifier()
    return False


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a file of named values.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    from scipy.io import loadmat

    where = str(path)
    _check(path)
    try:
        variables = loadmat(path, mat_dtype=False, verify_compressed_data_integrity=True)
    except (ValueError, TypeError, KeyError, OSError, zlib.error, NotImplementedError) as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(f"{where}: not a whole MAT file ({text}), expected matrices. Save it again.") from error
    values: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith("__"):
            values |= _opened(name, value)
    table = table_of(where, values)
    if fs is None and "fs_hz" not in table.meta and not table.times:
        raise ReadError(
            f"{where}: no sampling rate in the file, expected one. Give it with --fs (fs=) and the unit with --unit "
            f"(unit=), or put its header {path.with_suffix('.hea').name} beside it."
        )
    return read_table(path, table, NAME, start_s, end_s, fs, unit)


def _opened(name: str, value: Any, depth: int = 0) -> dict[str, Any]:
    """Return a variable, or the fields of a struct; cells of texts become lists."""
    if not isinstance(value, np.ndarray):
        return {name: value}
    if value.dtype.names and value.size == 1 and depth < 8:
        fields: dict[str, Any] = {}
        for field in value.dtype.names:
            fields |= _opened(field, value.ravel()[0][field], depth + 1)
        return fields
    if value.dtype == object:
        cells = [item for item in value.ravel().tolist() if isinstance(item, np.ndarray) and item.dtype.kind == "U"]
        return {name: ["".join(cell.ravel().tolist()) for cell in cells]} if len(cells) == value.size else {}
    if value.dtype.kind == "U":
        return {name: [text.strip() for text in value.ravel().tolist()]}
    return {name: value}


def _check_level4(path: Path, head: bytes, size: int) -> None:
    """Refuse a matrix that claims more values than the file has bytes left, before they are allocated.

    Raises
    ------
    ReadError
    """
    order = "<" if struct.unpack("<i", head[:4])[0] in range(5000) else ">"
    at = 0
    with path.open("rb") as file:
        while len(header := file.read(20)) == 20:
            kind, rows, columns, imaginary, n_name = struct.unpack(f"{order}5i", header)
            width = _LEVEL4_BYTES.get(kind // 10 % 10)
            if width is None or min(kind, rows, columns, n_name) < 0 or imaginary not in (0, 1):
                raise ReadError(f"{path}: no matrix at byte {at}, expected one or the end. The file is damaged.")
            at += 20 + n_name + rows * columns * width * (1 + imaginary)
            if at > size:
                raise ReadError(
                    f"{path}: a matrix of {rows} x {columns} values in {size} bytes, expected no more than these can "
                    "hold. The file is cut short; copy it again."
                )
            file.seek(at)


def _check(path: Path) -> None:
    """Refuse a file that unpacks to far more than it is.

    Raises
    ------
    ReadError
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: {size} bytes, expected at most {MAX_BYTES}. Save it in parts.")
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        if not head.startswith(b"MATLAB 5.0"):
            _check_level4(path, head, size)  # not compressed
            return
        order = "<" if head[126:128] == b"IM" else ">"
        n_unpacked = 0
        while len(tag := file.read(8)) == 8:
            kind, n_bytes = struct.unpack(f"{order}2I", tag)
            if kind != _COMPRESSED:
                file.seek(n_bytes, 1)
                continue
            unpacker, left = zlib.decompressobj(), n_bytes
            while left > 0 and (piece := file.read(min(left, 65536))):
                left -= len(piece)
                while piece:
                    try:
                        n_unpacked += len(unpacker.decompress(piece, 1 << 20))
                    except zlib.error as error:
                        raise ReadError(
                            f"{path}: not a whole MAT file ({error}), expected matrices. Save it again."
                        ) from error
                    piece = unpacker.unconsumed_tail
                    if n_unpacked > min(MAX_BYTES, FREE_BYTES + LARGEST_RATIO * size):
                        raise ReadError(
                            f"{path}: {size} bytes that unpack to more than {n_unpacked}, expected an ECG. Do not open "
                            "this file."
                        )
