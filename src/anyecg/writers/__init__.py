"""Record -> file. One file a format; nothing is replaced without being told to, and nothing is left half-written."""

import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from anyecg.errors import WriteError
from anyecg.record import Record
from anyecg.writers import csv_table, wfdb_record

WRITERS: dict[str, ModuleType] = {"wfdb": wfdb_record, "csv": csv_table}
"""Each has ``files(record, path) -> list of Path`` and ``write(record, folder, path)``: the same names, in folder."""

SUFFIXES = {".hea": "wfdb", ".dat": "wfdb", ".atr": "wfdb", "": "wfdb", ".csv": "csv", ".tsv": "csv"}

__all__ = ["WRITERS", "write"]


def write(record: Record, path: str | Path, *, format: str | None = None, force: bool = False) -> list[Path]:
    """Write a record.

    Parameters
    ----------
    record : Record
    path : str or Path
        ``NAME.hea``, ``NAME.dat`` or ``NAME`` for WFDB, ``NAME.csv`` or ``NAME.tsv`` for a table.
    format : {"wfdb", "csv"}, optional
        Instead of what the suffix says.
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
        A file exists already, or the folder cannot be written to.
    """
    path = Path(path)
    chosen = format if format is not None else SUFFIXES.get(path.suffix.lower())
    if chosen not in WRITERS:
        said = f"format is {format!r}" if format is not None else f"the suffix of {path.name} is {path.suffix!r}"
        allowed = ", ".join(suffix or "none" for suffix in SUFFIXES)
        raise ValueError(f"{said}, allowed are the formats {', '.join(WRITERS)} and the suffixes {allowed}")
    writer = WRITERS[chosen]
    targets: list[Path] = writer.files(record, path)
    for target in targets:
        if target.exists() and (target.is_dir() or not force):
            raise WriteError(f"{target}: exists already, expected a new name. Choose another name or pass --force.")
    try:
        return _write_beside(writer, record, path, targets)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}), expected a folder that is there and has room. "
            "Choose another folder."
        ) from error


def _write_beside(writer: ModuleType, record: Record, path: Path, targets: list[Path]) -> list[Path]:
    """Write into a new folder beside the targets, then move the files into place; the folder goes in any case."""
    folder = Path(tempfile.mkdtemp(prefix=".anyecg-", dir=path.parent))
    try:
        writer.write(record, folder, path)
        for target in targets:
            os.replace(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return targets
