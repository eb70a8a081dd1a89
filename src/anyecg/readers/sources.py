"""From what the user names to the files to read: companions, folders, globs, and records inside a file."""

import glob
import os
from pathlib import Path

from anyecg.errors import ReadError

HEAD_BYTES = 8192
"""What the readers see of a file to say whether it is theirs."""

SIGNAL_SUFFIXES = (".dat", ".mat", ".flac")
"""Signal files of WFDB records: NAME.hea beside them is opened instead."""

ANNOTATION_SUFFIXES = (".atr", ".qrs", ".ari", ".ecg", ".apn", ".i", ".ii", ".pu", ".man", ".epi", ".xws")

SOURCE_SUFFIXES = (
    *(".hea", ".dcm", ".edf", ".bdf", ".csv", ".tsv", ".npy", ".npz", ".mat", ".parquet", ".hdf5", ".h5", ".atc"),
    *(".xml", ".aecg", ".scp", ".ecg", ".mwf", ".mfer", ".mfr", ".json", ".xle", ".arc"),
)
"""What is taken from a folder; a file without suffix is taken too if it looks like DICOM. A .txt is not: a README is
not a damaged ECG, though it is read when it is named."""

PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
"""A packed file is taken from a folder if the name below such a suffix is."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
"""An archive is taken from a folder if recordings are in it."""

SEVERAL_SUFFIXES = (".hdf5", ".h5", ".hdf")
"""Files that may hold several recordings."""

WAVES_FOLDER = "electrocardiograms"
"""What Apple Health calls the folder of its ECGs, in every language; the XML files beside it hold no waveform."""


def split_inner(path: Path) -> tuple[Path, str]:
    """Return the file on disk, and which recording inside it is meant: "" for the file as a whole.

    A recording is named by what follows the file's name: ``records.zip/ward/a.edf``, ``exams.hdf5/1234`` (its name or
    number in the file) or ``exams.hdf5#3`` (its place, from 0).

    Examples
    --------
    >>> split_inner(Path("absent.zip/a.edf"))[1]
    ''
    """
    if path.exists():
        return path, ""
    head, mark, number = path.name.rpartition("#")
    if mark and number.isdigit() and head and path.with_name(head).is_file():
        return path.with_name(head), f"#{number}"
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return path, ""


def locate(path: Path) -> tuple[Path, Path, bytes]:
    """Return what to read for what the user named, the file on disk that holds it, and the first bytes of that.

    The two are the same object but for a recording inside a file.

    Raises
    ------
    ReadError
        There is none, it is a folder, it is empty, or it cannot be opened.
    """
    try:
        is_file = os.path.isfile(path)
        if not is_file and path.name and (header := path.with_name(f"{path.name}.hea")).is_file():
            path, is_file = header, True  # a WFDB record name
        elif (suffix := path.suffix).lower() in SIGNAL_SUFFIXES:
            beside = str(path).removesuffix(suffix) + ".hea"
            if os.path.isfile(beside) and _header_names(Path(beside), path.name):
                path = Path(beside)
        if not is_file:
            _refuse_others(path)
        on_disk = path if is_file else split_inner(path)[0]
        head = _first_bytes(on_disk)
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file, expected an ECG. Check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ReadError(f"{str(path)!r}: cannot be opened ({error}), expected a readable file. Check it.") from error
    if not head:
        raise ReadError(f"{path}: an empty file, expected an ECG. Copy it again.")
    return path, on_disk, head


def _first_bytes(path: Path) -> bytes:
    """Return what the readers see of a file; by the system's own calls, which is half the time of a file object."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # Windows would change line ends
    try:
        return os.read(handle, HEAD_BYTES)
    finally:
        os.close(handle)


def _refuse_others(path: Path) -> None:
    """Refuse what is there but no file.

    Raises
    ------
    ReadError
    """
    if path.is_dir():
        if reason := _unlistable(path):
            raise ReadError(
                f"{path}: a folder that cannot be listed ({reason}), expected to search it. Allow it to be read."
            )
        raise ReadError(f"{path}: a folder, expected a file. Name one of its files.")
    if path.exists():  # reading a pipe may wait for ever, and /dev/zero never ends
        raise ReadError(f"{path}: a pipe, a socket or a device, expected a file. Save the recording to a file.")


def _header_names(header: Path, signal_file: str) -> bool:
    """Return whether a WFDB header names this signal file."""
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
    picture = next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)
    if picture:
        return ReadError(
            f"{path}: {picture}, expected a file of samples: what is drawn is not read. Export the recording as data "
            "(Kardia: .atc; Apple Health: export all health data; carts: XML, DICOM or SCP-ECG)."
        )
    start = head[:16].decode("ascii", errors="replace")
    return ReadError(
        f"{path}: no known ECG format (it starts with {start!r}), expected WFDB, DICOM, EDF/BDF, CSV, NPY/NPZ, MAT, "
        "HDF5, Parquet, JSON, FHIR, ATC, SCP-ECG, HL7 aECG, MUSE, Philips, Mortara, ISHNE or MFER. Convert it to one "
        "of these."
    )


_PICTURES = {b"%PDF": "a PDF page", b"\x89PNG": "a picture (PNG)", b"\xff\xd8\xff": "a picture (JPEG)"}


def find_files(sources: list[str] | list[Path] | list[str | Path]) -> list[Path]:
    """Return the files to read for paths, folders (searched to the bottom) and globs.

    A WFDB record counts once, by its header: signal and annotation files beside it are left out, and so are the
    segments of a longer record. A file that is named itself is always returned, whatever it is; one that holds several
    recordings is returned as those (see `split_inner`). So is a folder that cannot be listed: reading it tells why.

    Raises
    ------
    ReadError
        A path or a glob leads to nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        text = str(source)
        if not text:  # a shell's variable that is not set; as a path it would be the current folder
            raise ReadError("'': an empty name, expected a file, a folder or a glob. Name one.")
        path = Path(text)
        if path.is_dir():
            inside, unlistable = _walk(path)
            members = [member for p in inside for member in recordings_in(p, whole=not _suffix(p, ARCHIVE_SUFFIXES))]
            members += unlistable
        elif path.is_file() or not glob.has_magic(text):
            members = recordings_in(locate(path)[0], whole=True)
        else:
            members = []
            for name in _expand(text):
                found_here = find_files([name]) if Path(name).is_dir() else recordings_in(_record_of(Path(name)))
                members += found_here
        if not members:
            raise ReadError(f"{text}: no ECG there, expected at least one file. Check the path.")
        found |= dict.fromkeys(members)
    return [path for path in found if not _is_segment(path, found)]


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files to read below a folder, and the folders there that cannot be listed; links are not followed."""
    files: list[Path] = []
    unlistable: list[Path] = []
    for root, _, names in os.walk(folder, onerror=lambda error: unlistable.append(Path(error.filename))):
        for path in (Path(root, name) for name in names):
            try:
                wanted = path.is_file() and _is_source(path)
            except OSError:  # a folder whose names may be read, but nothing else
                wanted = is_source_name(path.name)
            if wanted:
                files.append(path)
    return sorted(files), sorted(unlistable)


def _unlistable(folder: Path) -> str:
    """Return why a folder cannot be listed, or an empty text."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _expand(pattern: str) -> list[str]:
    """Return what a glob finds, sorted; "**" does not follow links to folders, which may lead in circles.

    Folders that "**" would search but that cannot be listed are among it.
    """
    if "**" not in pattern:
        return sorted(glob.glob(pattern))
    path = Path(pattern)
    n_fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    root = Path(*path.parts[:n_fixed])
    rest = Path(*path.parts[n_fixed:])
    found = [*root.glob(str(rest)), *_walk(root)[1]]
    return sorted(str(p) for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


def recordings_in(path: Path, whole: bool = True) -> list[Path]:
    """Return the recordings of a file that may hold several, or the file itself.

    Parameters
    ----------
    path : Path
    whole : bool
        Return the file also if nothing is found in it, so that reading it tells why.
    """
    from anyecg.readers.packed import archives
    from anyecg.readers.tabular import hdf5

    keys: list[str] = []
    try:
        if not path.is_file():
            pass
        elif _suffix(path, ARCHIVE_SUFFIXES):
            keys = archives.recordings(path)
        elif _suffix(path, SEVERAL_SUFFIXES):
            keys = hdf5.recordings(path)
    except (ReadError, OSError):  # told when the file itself is read
        return [path]
    if len(keys) == 1 or (not keys and whole):
        return [path]
    return [path / key if not key.startswith("#") else path.with_name(path.name + key) for key in keys]


def _suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def _record_of(path: Path) -> Path:
    """Return the header that a companion belongs to, or the file itself."""
    header = path.with_suffix(".hea")
    companion = path.suffix.lower() in (*SIGNAL_SUFFIXES, *ANNOTATION_SUFFIXES)
    return header if companion and header.is_file() else path


def is_source_name(name: str) -> bool:
    """Return whether a file is to be read by its name.

    Examples
    --------
    >>> [is_source_name(name) for name in ("a.edf", "a.CSV.gz", "a.zip", "notes.txt", "notes.txt.gz")]
    [True, True, True, False, False]
    """
    lower = name.lower()
    for packed in PACKED_SUFFIXES:
        if lower.endswith(packed) and not lower.endswith(ARCHIVE_SUFFIXES):
            lower = lower.removesuffix(packed)
    return lower.endswith((*SOURCE_SUFFIXES, *ARCHIVE_SUFFIXES))


def _is_source(path: Path) -> bool:
    """Return whether a file of a folder is to be read: by its suffix, or by DICOM's mark if it has none."""
    if path.name.startswith("."):
        return False
    if is_source_name(path.name):
        beside_waves = path.suffix.lower() == ".xml" and path.with_name(WAVES_FOLDER).is_dir()
        return _record_of(path) == path and not beside_waves
    if path.suffix:
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # what cannot be opened is counted as a bad file when it is read, not lost
        return True


def _is_segment(path: Path, among: dict[Path, None]) -> bool:
    """Return whether a header is only a segment (NAME_0001, NAME_layout) of another record that is also there."""
    if path.suffix != ".hea" or "_" not in path.stem:
        return False
    base, _, tail = path.stem.rpartition("_")
    if not (tail.isdigit() or tail == "layout") or path.with_name(f"{base}.hea") not in among:
        return False
    lines = path.with_name(f"{base}.hea").read_bytes().splitlines()
    return any(line.split()[:1] == [path.stem.encode()] for line in lines)
