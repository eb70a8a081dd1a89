"""Source file -> Record. A folder a family of formats; the content decides which, the suffix only where it cannot."""

import re
import threading
import warnings as python_warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from anyecg.errors import MissingDependency, ReadError
from anyecg.readers.audit import audit
from anyecg.readers.growing import follow
from anyecg.readers.slices import Extent, check_seconds
from anyecg.readers.sources import find_files, locate, split_inner, unknown
from anyecg.readers.stretches import extent, stretches
from anyecg.readers.units import check_arguments
from anyecg.record import Record

READERS = [
    *("wfdb", "dicom", "edf", "scp", "vendors.ishne", "vendors.xml_exports"),
    # arrays before archives: NPZ is a zip
    *("tabular.arrays", "packed.archives", "tabular.hdf5", "tabular.matlab", "tabular.parquet"),
    *("wearables.kardia", "wearables.kardia_pdf", "fhir", "wearables.apple"),
    # what is known by little comes after what is known by a mark: any text, any JSON
    *("tabular.tables", "vendors", "tabular.json_files"),
]
"""Modules of this package; the first whose ``sniff(head, path)`` says yes reads the file. Those behind it are not even
imported: all together that takes longer than reading ten seconds."""

MARKS = {b"\x93NUMPY": "tabular.arrays", b"\x89HDF\r\n": "tabular.hdf5", b"MATLAB": "tabular.matlab"}
"""First bytes of a file, and the reader that is asked first: these are read in less time than a dozen others say no."""

__all__ = ["READERS", "extent", "find_files", "follow", "read", "stretches"]

MAX_WARNINGS = 20
"""Of a library, in one record."""

# Python's warning filters are global: two threads that change them at once would leave them changed.
_WARNING_FILTERS = threading.RLock()


def read(
    path: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    fs: float | None = None,
    unit: str | None = None,
    fix_units: bool = False,
) -> Record:
    """Read an ECG of any format that one of `READERS` knows.

    Parameters
    ----------
    path : str or Path
        The file; of a WFDB record the header, a signal file, or the name without suffix. A recording inside a file
        of several is named behind it: ``records.zip/ward/a.edf``, ``exams.hdf5/1234``, ``exams.hdf5#3``.
    start_s, end_s : float, optional
        Read only this slice, in seconds from the first sample; an end beyond the record's end is the record's end.
    fs : float, optional
        Sampling rate in Hz, for a file that does not state it.
    unit : {"mV", "uV", "V", "nV"}, optional
        Of the numbers, for a file that does not state it.
    fix_units : bool
        Correct amplitudes that no heart has by the power of 1000 that makes them plausible; a warning says so. Without
        it they are only warned of.

    Returns
    -------
    Record
        Its ``warnings`` say what had to be bent, and what looks wrong (`anyecg.readers.audit`).

    Raises
    ------
    ReadError
        The file is missing, damaged, unsafe or of no known format; or it lacks a rate or a unit, or states another
        than was given.
    ValueError
        An argument is no number of seconds, no rate or no unit.

    Examples
    --------
    >>> record = read("holter.edf", start_s=3600, end_s=3660)  # doctest: +SKIP
    """
    check_seconds(start_s, end_s)
    check_arguments(fs, unit)
    return audit(str(path), read_source(Path(path), start_s, end_s, fs, unit), fix_units=fix_units)


def read_source(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a file without the audits: for readers of files in which others lie.

    Raises
    ------
    ReadError
        See `read`.
    """
    reader, file = reader_of(path)
    record, messages = _run(reader, file, reader.read, file, start_s, end_s, fs, unit)
    return record.with_warning(*messages)


def cheap_extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a recording is, or None if its reader can read a slice only for the price of the whole.

    A reader that can do better has a function ``extent(path, fs, unit)``; it returns None for files of which it cannot.

    Raises
    ------
    ReadError
        See `read`.
    """
    reader, file = reader_of(path)
    if not hasattr(reader, "extent"):
        return None
    found: Extent | None = _run(reader, file, reader.extent, file, fs, unit)[0]
    return found


def reader_of(path: Path) -> tuple[ModuleType, Path]:
    """Return the module that reads a file, and the file to give it.

    Raises
    ------
    ReadError
        There is none.
    """
    file, on_disk, head = locate(path)
    likely = MARKS.get(head[:6])
    for name in READERS if likely is None else (likely, *READERS):
        reader = _module(name)
        if reader.sniff(head, on_disk):
            break
    else:
        raise unknown(on_disk, head)
    if on_disk is not file and not getattr(reader, "SEVERAL", False):
        inner = split_inner(file)[1]
        raise ReadError(f"{on_disk}: a file of one recording, expected no {inner!r} behind it. Name the file alone.")
    return reader, file


@cache
def _module(name: str) -> ModuleType:
    return import_module(f"anyecg.readers.{name}")


def _run(reader: ModuleType, file: Path, function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[str]]:
    """Return what a reader's function returns, and what its library warned of.

    Whatever a library raises about the file becomes a ReadError here, and only here.
    """
    try:
        with _WARNING_FILTERS, python_warnings.catch_warnings(record=True) as caught:
            python_warnings.simplefilter("always")
            found = function(*arguments)
    except (ReadError, MissingDependency):
        raise
    except ImportError as error:
        raise MissingDependency(f"{file}: the {reader.NAME} reader needs a library ({error}). Install it.") from error
    except MemoryError as error:
        raise ReadError(
            f"{file}: too long for this machine's memory, expected less. Read a slice with a start and an end."
        ) from error
    except Exception as error:
        raise ReadError(
            f"{file}: the {reader.NAME} reader failed ({type(error).__name__}: {_one_line(str(error))}), "
            "expected a complete, well-formed file. Check the file."
        ) from error
    messages = dict.fromkeys([_one_line(str(w.message)) for w in caught if _about_the_file(w)])
    return found, list(messages)[:MAX_WARNINGS]


def _one_line(text: str) -> str:
    """Return text on one line, at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


def _about_the_file(warning: python_warnings.WarningMessage) -> bool:
    """Return whether a library's warning tells the user something about the file, not a developer about code."""
    return not issubclass(warning.category, _DEVELOPERS) and not _NOISE.match(str(warning.message))


_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning)

# Said by pydicom of any odd identifier, and by ecgdatakit of what the vendor reader asked for, or puts right.
_NOISE = re.compile(r"Invalid value for VR|auto_scale=False|Sampling rate [\d.]+ Hz is not an integer; rounded")
