"""Source file -> Record. One file a format or family; the content decides which, the suffix only where it cannot."""

import threading
import warnings as python_warnings
from pathlib import Path
from types import ModuleType

from anyecg.errors import MissingDependency, ReadError
from anyecg.readers import dicom, edf, tables, vendor, wfdb_files
from anyecg.readers.audit import audit
from anyecg.readers.slices import check_seconds
from anyecg.readers.sources import HEAD_BYTES, find_files, locate, unknown
from anyecg.readers.units import check_arguments
from anyecg.record import Record

READERS: list[ModuleType] = [wfdb_files, dicom, edf, tables, vendor]
"""The first whose ``sniff(head, path)`` says yes reads the file."""

__all__ = ["READERS", "find_files", "read"]

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
) -> Record:
    """Read an ECG of any format that one of `READERS` knows.

    Parameters
    ----------
    path : str or Path
        The file; of a WFDB record the header, a signal file, or the name without suffix.
    start_s, end_s : float, optional
        Read only this slice, in seconds from the first sample; an end beyond the record's end is the record's end.
    fs : float, optional
        Sampling rate in Hz, for a file that does not state it.
    unit : {"mV", "uV", "V", "nV"}, optional
        Of the numbers, for a file that does not state it.

    Returns
    -------
    Record
        Its ``warnings`` say what had to be bent.

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
    file, head = locate(Path(path))
    reader = next((reader for reader in READERS if reader.sniff(head[:HEAD_BYTES], file)), None)
    if reader is None:
        raise unknown(file, head)
    with _WARNING_FILTERS, python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        record = _run(reader, file, start_s, end_s, fs, unit)
    messages = dict.fromkeys(_one_line(str(w.message)) for w in caught if _about_the_file(w))
    record = record.with_warning(*list(messages)[:MAX_WARNINGS])
    return audit(str(path), record)


def _run(
    reader: ModuleType, file: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None
) -> Record:
    """Call a reader; whatever its library raises about the file becomes a ReadError here, and only here."""
    try:
        return reader.read(file, start_s, end_s, fs, unit)
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


def _one_line(text: str) -> str:
    """Return text on one line, at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


def _about_the_file(warning: python_warnings.WarningMessage) -> bool:
    """Return whether a library's warning tells the user something about the file, not a developer about code."""
    developers = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning)
    # Said by pydicom of any odd identifier, and by ecgdatakit of what the vendor reader asked for.
    noise = ("Invalid value for VR", "auto_scale=False")
    return not issubclass(warning.category, developers) and not str(warning.message).startswith(noise)
