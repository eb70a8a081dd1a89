"""Record -> file. One file a format; nothing is replaced without being told to, and nothing is left half-written."""

import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from anyecg.errors import WriteError
from anyecg.record import Record
from anyecg.writers import (
    aecg,
    csv_table,
    dicom_ecg,
    edf_plus,
    fhir,
    parquet,
    scp_ecg,
    wfdb_flac,
    wfdb_record,
)

WRITERS: dict[str, ModuleType] = {
    "wfdb": wfdb_record,
    "wfdb-flac": wfdb_flac,
    "csv": csv_table,
    "edf": edf_plus,
    "dicom": dicom_ecg,
    "scp": scp_ecg,
    "aecg": aecg,
    "parquet": parquet,
    "fhir": fhir,
}
"""Each has three functions.

``files(record, path) -> list of Path`` says what will be written; ``write(record, folder, path)`` writes it, under the
same names, into ``folder``; ``losses(record) -> list of str`` says what the format cannot hold of the record, a line
each. A writer raises for what must not be written; it never drops a thing that ``losses`` does not name.
"""

SUFFIXES = {
    **{".hea": "wfdb", ".dat": "wfdb", ".atr": "wfdb", "": "wfdb", ".csv": "csv", ".tsv": "csv", ".edf": "edf"},
    **{".dcm": "dicom", ".scp": "scp", ".xml": "aecg", ".aecg": "aecg", ".parquet": "parquet", ".json": "fhir"},
}

__all__ = ["WRITERS", "losses", "write"]


def losses(record: Record, path: str | Path, *, format: str | None = None) -> list[str]:
    """Return what `write` with the same arguments would not keep of a record, a line each; empty if it keeps all.

    Parameters
    ----------
    record : Record
    path : str or Path
    format : str, optional
        As for `write`.

    Raises
    ------
    ValueError
        The format or the suffix is unknown.
    SignalError
        There is no sample, or an amplitude that the format cannot say.
    """
    lines: list[str] = _writer(Path(path), format).losses(record)
    return lines


def write(record: Record, path: str | Path, *, format: str | None = None, force: bool = False) -> list[Path]:
    """Write a record.

    Parameters
    ----------
    record : Record
    path : str or Path
        Its suffix says the format: ``NAME.hea``, ``NAME.dat`` or ``NAME`` WFDB, ``.csv`` and ``.tsv`` a table, ``.edf``
        EDF+, ``.dcm`` DICOM, ``.scp`` SCP-ECG, ``.xml`` and ``.aecg`` HL7 aECG, ``.parquet`` Parquet, ``.json`` a FHIR
        Observation.
    format : str, optional
        A key of `WRITERS`, instead of what the suffix says; ``"wfdb-flac"`` is WFDB with compressed signals.
    force : bool
        Replace files that exist already.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        The format or the suffix is unknown.
    WriteError
        A file exists already, the folder cannot be written to, or the format cannot hold such a record.
    SignalError
        There is no sample, or an amplitude that the format cannot say.
    """
    path = Path(path)
    writer = _writer(path, format)
    targets: list[Path] = writer.files(record, path)
    # Annotations of another record would pass for this one's.
    stale: list[Path] = [file for file in getattr(writer, "stale", _nothing)(record, path) if file.exists()]
    for target in (*targets, *stale):
        if target.exists() and (target.is_dir() or not force):
            raise WriteError(f"{target}: exists already, expected a new name. Choose another name or pass --force.")
    try:
        return _write_beside(writer, record, path, targets, stale)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}), expected a folder that is there and has room. "
            "Choose another folder."
        ) from error


def _writer(path: Path, format: str | None) -> ModuleType:
    """Return the writer of a format, or else of a path's suffix."""
    chosen = format if format is not None else SUFFIXES.get(path.suffix.lower())
    if chosen not in WRITERS:
        said = f"format is {format!r}" if format is not None else f"the suffix of {path.name} is {path.suffix!r}"
        allowed = ", ".join(suffix or "none" for suffix in SUFFIXES)
        raise ValueError(f"{said}, allowed are the formats {', '.join(WRITERS)} and the suffixes {allowed}")
    return WRITERS[chosen]


def _nothing(record: Record, path: Path) -> list[Path]:
    return []


def _write_beside(writer: ModuleType, record: Record, path: Path, targets: list[Path], stale: list[Path]) -> list[Path]:
    """Write into a new folder beside the targets, then move the files into place; the folder goes in any case."""
    folder = Path(tempfile.mkdtemp(prefix=".anyecg-", dir=path.parent))
    try:
        writer.write(record, folder, path)
        for file in stale:
            file.unlink()
        for target in targets:
            os.replace(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return targets
