"""From what the user names to the files to read: companions, folders, globs."""

import glob
from pathlib import Path

from anyecg.errors import ReadError

HEAD_BYTES = 8192
"""What the readers see of a file to say whether it is theirs."""

SIGNAL_SUFFIXES = (".dat", ".mat", ".flac")
"""Signal files of WFDB records: NAME.hea beside them is opened instead."""

ANNOTATION_SUFFIXES = (".atr", ".qrs", ".ari", ".ecg", ".apn", ".i", ".ii", ".pu", ".man", ".epi", ".xws")

NOT_ECG_SUFFIXES = (".txt", ".md", ".pdf", ".png", ".jpg", ".html", ".py", ".zip", ".gz", ".sha256")
"""Skipped in a folder, though not when named: a README is not a damaged ECG."""

SOURCE_SUFFIXES = (
    *(".hea", ".dcm", ".edf", ".bdf", ".csv", ".tsv", ".npy"),
    *(".xml", ".scp", ".ecg", ".mwf", ".mfer", ".mfr", ".json", ".xle", ".arc"),
)
"""What is taken from a folder; a file without suffix is taken too if it looks like DICOM."""


def locate(path: Path) -> tuple[Path, bytes]:
    """Return the file to open for what the user named, and its first bytes.

    Raises
    ------
    ReadError
        There is none, it is a folder, it is empty, or it cannot be opened.
    """
    try:
        header = path.with_name(f"{path.name}.hea") if path.name else path
        if not path.is_file() and header.is_file():
            path = header  # a WFDB record name
        elif path.suffix.lower() in SIGNAL_SUFFIXES and _header_names(path.with_suffix(".hea"), path.name):
            path = path.with_suffix(".hea")
        if path.is_dir():
            raise ReadError(f"{path}: a folder, expected a file. Name one of its files.")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file, expected an ECG. Check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ReadError(f"{str(path)!r}: cannot be opened ({error}), expected a readable file. Check it.") from error
    if not head:
        raise ReadError(f"{path}: an empty file, expected an ECG. Copy it again.")
    return path, head


def _header_names(header: Path, signal_file: str) -> bool:
    """Return whether a WFDB header is there and names this signal file."""
    if not header.is_file():
        return False
    with header.open("rb") as file:
        lines = file.read(1_000_000).splitlines()
    return any(line.split(maxsplit=1)[:1] == [signal_file.encode()] for line in lines)


def unknown(path: Path, head: bytes) -> ReadError:
    """Return the error for a file that no reader knows, with a hint if it is a companion of another file."""
    header = path.with_suffix(".hea")
    if path.suffix != ".hea" and header.is_file():
        return ReadError(
            f"{path}: a companion of a WFDB record (such as annotations), expected the record. Open the .hea: {header}."
        )
    if path.suffix.lower() in (".dat", ".atr", ".mat"):
        return ReadError(
            f"{path}: looks like a part of a WFDB record, expected {header.name} beside it. Copy the .hea and open it."
        )
    start = head[:16].decode("ascii", errors="replace")
    return ReadError(
        f"{path}: no known ECG format (it starts with {start!r}), expected WFDB, DICOM, EDF/BDF, CSV/NPY, SCP-ECG, "
        "HL7 aECG, MUSE, Philips, Mortara, ISHNE or MFER. Convert it to one of these."
    )


def find_files(sources: list[str] | list[Path] | list[str | Path]) -> list[Path]:
    """Return the files to read for paths, folders (searched to the bottom) and globs.

    A WFDB record counts once, by its header: signal and annotation files beside it are left out, and so are the
    segments of a longer record. A file that is named itself is always returned, whatever it is.

    Raises
    ------
    ReadError
        A path or a glob leads to nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        text = str(source)
        path = Path(text)
        if path.is_dir():
            members = sorted(p for p in path.rglob("*") if p.is_file() and _is_source(p))
        elif path.is_file() or not glob.has_magic(text):
            members = [locate(path)[0]]
        else:
            members = []
            for name in sorted(glob.glob(text, recursive=True)):
                members += find_files([name]) if Path(name).is_dir() else [_record_of(Path(name))]
        if not members:
            raise ReadError(f"{text}: no ECG there, expected at least one file. Check the path.")
        found |= dict.fromkeys(members)
    return [path for path in found if not _is_segment(path, found)]


def _record_of(path: Path) -> Path:
    """Return the header that a companion belongs to, or the file itself."""
    header = path.with_suffix(".hea")
    companion = path.suffix.lower() in (*SIGNAL_SUFFIXES, *ANNOTATION_SUFFIXES)
    return header if companion and header.is_file() else path


def _is_source(path: Path) -> bool:
    """Return whether a file of a folder is to be read: by its suffix, or by DICOM's mark if it has none."""
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in SOURCE_SUFFIXES:
        return _record_of(path) == path
    if path.suffix:
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_segment(path: Path, among: dict[Path, None]) -> bool:
    """Return whether a header is only a segment (NAME_0001, NAME_layout) of another record that is also there."""
    if path.suffix != ".hea" or "_" not in path.stem:
        return False
    base, _, tail = path.stem.rpartition("_")
    if not (tail.isdigit() or tail == "layout") or path.with_name(f"{base}.hea") not in among:
        return False
    lines = path.with_name(f"{base}.hea").read_bytes().splitlines()
    return any(line.split()[:1] == [path.stem.encode()] for line in lines)
