"""MATLAB files of versions 4 to 7: Level 4 by scipy, Level 5 by `mat5` beside this module; 7.3 is for `hdf5`.

A matrix ``val`` as PhysioNet writes it is whole numbers without rate and unit: these stand in the .hea beside it, and
where that is, the WFDB reader reads both. Structs are opened (``ECG.data``, CPSC 2018).
"""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.slices import Extent
from anyecg.readers.tabular.columns import Table, extent_of, read_table
from anyecg.readers.tabular.mat5 import MAX_BYTES, bytes_of, is_packed, read_level5
from anyecg.readers.tabular.named import table_of
from anyecg.record import Record

NAME = "mat"

_LEVEL4_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}
"""Bytes of a value by the second last digit of a Level 4 matrix's type."""


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
    return read_table(path, _table(path, fs), NAME, start_s, end_s, fs, unit)


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a Level 5 file is; None of one that is compressed, or of Level 4: they are read as a whole.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    return None if is_packed(path) else extent_of(path, _table(path, fs), fs, unit)


def _table(path: Path, fs: float | None) -> Table:
    """Return what the file holds; the samples of one that is not compressed are mapped, and unread.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    with open(path, "rb", buffering=0) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise ReadError(f"{path}: {size} bytes, expected at most {MAX_BYTES}. Save it in parts.")
        data = bytes_of(file, size)
    head = bytes(data[:20])
    variables = read_level5(path, data) if head.startswith(b"MATLAB 5.0") else _level4(path, head, size)
    values: dict[str, Any] = {}
    for name, value in variables.items():
        values |= _opened(name, value)
    table = table_of(where, values)
    if fs is None and "fs_hz" not in table.meta and not table.times:
        raise ReadError(
            f"{where}: no sampling rate in the file, expected one. Give it with --fs (fs=) and the unit with --unit "
            f"(unit=), or put its header {path.with_suffix('.hea').name} beside it."
        )
    return table


def _opened(name: str, value: Any) -> dict[str, Any]:
    """Return a variable, or the fields of a struct, also of structs in it; cells of texts become lists."""
    if isinstance(value, dict):
        fields: dict[str, Any] = {}
        for field, part in value.items():
            fields |= _opened(field, part)
        return fields
    if isinstance(value, list):
        texts = ["".join(part) if isinstance(part, list) else part for part in value]
        return {name: texts} if all(isinstance(text, str) for text in texts) else {}
    return {} if value is None else {name: value}


def _level4(path: Path, head: bytes, size: int) -> dict[str, Any]:
    """Return the variables of a Level 4 file: numbers, and texts as lists of their rows.

    Raises
    ------
    ReadError
        The file is damaged.
    """
    from scipy.io import loadmat

    _check_level4(path, head, size)
    try:
        variables = loadmat(path, mat_dtype=False)
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(f"{path}: not a whole MAT file ({text}), expected matrices. Save it again.") from error
    found = {name: value for name, value in variables.items() if isinstance(value, np.ndarray)}
    return {name: value.ravel().tolist() if value.dtype.kind == "U" else value for name, value in found.items()}


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
