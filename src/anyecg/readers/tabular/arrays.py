"""NumPy files: NPY, one array whose longer axis is time; NPZ, named arrays (see `anyecg.readers.tabular.named`)."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.slices import Extent
from anyecg.readers.tabular.columns import Table, extent_of, read_table, rows_of
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
    if is_npy := _is_npy(path):
        array = _mapped(path)
        rows = rows_of(str(path), array)
        if start_s is None and end_s is None and array.dtype == np.float32 and array.flags.c_contiguous:
            # A record's own layout, perhaps: read at once, nothing is copied. Else the map is, stretch by stretch.
            at = array.offset if isinstance(array, np.memmap) else 0
            rows = rows_of(str(path), np.fromfile(path, np.float32, array.size, offset=at).reshape(array.shape))
        table = Table(rows, [f"lead{i + 1}" for i in range(len(rows))])
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
    return extent_of(path, Table(rows, [f"lead{i + 1}" for i in range(len(rows))]), fs, unit)


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(NPY_MAGIC)) == NPY_MAGIC


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
