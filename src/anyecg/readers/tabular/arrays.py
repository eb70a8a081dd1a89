"""NumPy files: NPY, one array whose longer axis is time; NPZ, named arrays (see `anyecg.readers.tabular.named`)."""

import math
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.slices import VALUES_FREE, Extent
from anyecg.readers.tabular.columns import Table, extent_of, numbered, read_table, rows_of
from anyecg.readers.tabular.named import table_of
from anyecg.record import Record

NAME = "numpy"

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

MAX_UNPACKED_BYTES = 2_000_000_000
"""Of all arrays of an NPZ file together."""

TOKENS_KEYS = {"codes", "codebook_size"}
"""In what ``anyecg tokenize`` writes."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is NPY, or a zip whose first member is."""
    n_name = int.from_bytes(head[26:28], "little")
    return head.startswith(NPY_MAGIC) or (head.startswith(ZIP_MAGIC) and head[30 : 30 + n_name].endswith(b".npy"))


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read an array, or named ones.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD_BYTES)
        is_npy = head.startswith(NPY_MAGIC)
        # A record's own layout, perhaps: read at once, nothing is copied. Else a map is, stretch by stretch.
        array = _read_at_once(file, head) if is_npy and start_s is None and end_s is None else None
    if is_npy:
        rows = rows_of(str(path), _mapped(path) if array is None else array)
        table = Table(rows, list(numbered(len(rows))))
    else:
        table = table_of(str(path), _named(path))
    return read_table(path, table, "npy" if is_npy else "npz", start_s, end_s, fs, unit)


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long an NPY array is; None of NPZ, which is unpacked as a whole.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    if not _is_npy(path):
        return None
    rows = rows_of(str(path), _mapped(path))
    return extent_of(path, Table(rows, list(numbered(len(rows)))), fs, unit)


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(NPY_MAGIC)) == NPY_MAGIC


def _read_at_once(file: BinaryIO, head: bytes) -> np.ndarray | None:
    """Return the array of an NPY file if it is float32 in C order and whole; None of any other, for `_mapped`.

    numpy would take more time for the header of ten seconds than for their samples. Of the file the head was read.
    """
    header = _OWN_LAYOUT.match(head)
    if header is None or header.end() != 10 + int.from_bytes(header[1], "little"):
        return None
    shape = tuple(int(n) for n in header.groups()[1:] if n)
    n_values = math.prod(shape)
    # So many are free, whatever the file's size: asking for that takes longer than it seems.
    if n_values == 0 or (n_values > VALUES_FREE and 4 * n_values > os.fstat(file.fileno()).st_size - header.end()):
        return None
    array = np.empty(shape, np.dtype("<f4"))
    if header.end() != len(head):
        file.seek(header.end())
    return array if file.readinto(array.data.cast("B")) == 4 * n_values else None  # type: ignore[attr-defined]


_HEAD_BYTES = 128
"""What numpy fills a header up to, so that the values begin at a multiple of 64 bytes."""


_OWN_LAYOUT = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d{1,15}),(?: (\d{1,15}))?\), \} *\n",
    re.DOTALL,
)
"""The header that numpy writes of leads as a record has them (NEP 1, format version 1.0); its length comes first."""


def _mapped(path: Path) -> np.ndarray:
    """Return the array of an NPY file, mapped, so that a file that is too short is refused unread."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        text = " ".join(str(error).split())
        raise ReadError(f"{path}: not a whole NPY array ({text}), expected numbers. Save it again.") from error


def _named(path: Path) -> dict[str, Any]:
    """Return the arrays of an NPZ file that may be read without running code from it."""
    try:
        with zipfile.ZipFile(path) as packed:
            total = sum(member.file_size for member in packed.infolist())
        if total > MAX_UNPACKED_BYTES:
            raise ReadError(f"{path}: {total} bytes unpacked, expected at most {MAX_UNPACKED_BYTES}. Save less in it.")
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) >= TOKENS_KEYS:
                raise ReadError(f"{path}: rhythm codes, expected samples. Name the recording they were made from.")
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ReadError(f"{path}: not a whole NPZ file ({text}), expected arrays of numbers. Save it again.") from error
