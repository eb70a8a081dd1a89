"""Packed files (gzip, bzip2, xz) and archives (zip, tar, packed tar): the recording in them, unpacked and read.

Of an archive only the files of the one recording that is meant are written, under their own names, into a new folder
that is gone afterwards, within the limits of `anyecg.readers.packed.unpacking`; links and devices are never made, and
archives in archives are not opened. What an archive holds is listed in `anyecg.readers.packed.archive_members`.
"""

import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from anyecg.errors import ReadError
from anyecg.readers.packed.archive_members import (
    EMPTY_ZIP,
    HEADER_BYTES,
    OTHERS,
    ZIP,
    Tar,
    Zip,
    is_tar,
    open_archive,
    recordings_among,
)
from anyecg.readers.packed.unpacking import PACKED, copy, unpacking
from anyecg.readers.sources import (
    ANNOTATION_SUFFIXES,
    ARCHIVE_SUFFIXES,
    PACKED_SUFFIXES,
    SIGNAL_SUFFIXES,
    locate,
    split_inner,
)
from anyecg.readers.tabular import arrays
from anyecg.record import Record

NAME = "archive"

SEVERAL = True
"""An archive may hold several recordings."""

_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError),
    *(NotImplementedError, struct.error, UnicodeError, ValueError),
)


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is packed or an archive, by its mark."""
    return head.startswith((ZIP, EMPTY_ZIP, *PACKED, *OTHERS)) or is_tar(head)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the recording in an archive or a packed file.

    Raises
    ------
    ReadError
        There is none, or several and none was named; the archive is damaged, unsafe or too large; or see
        `anyecg.readers.read`.
    """
    from anyecg.readers import read_source

    file, inner = split_inner(path)
    with tempfile.TemporaryDirectory(prefix="anyecg-") as folder, _explained(file):
        target, label, rest = _unpacked(path, file, inner, Path(folder))
        meant = target.with_name(target.name + rest) if rest.startswith("#") else target / rest if rest else target

        def relabelled(text: str) -> str:
            return text.replace(str(target), label).replace(folder, str(file))

        try:
            opened, _, head = locate(target)
            if sniff(head, opened) and not arrays.sniff(head, opened):
                raise ReadError(f"{label}: an archive in an archive, expected a recording. Unpack it first.")
            record = read_source(meant, start_s, end_s, fs, unit)
        except ReadError as error:
            raise ReadError(relabelled(str(error))) from error
    return record.with_(warnings=tuple(map(relabelled, record.warnings)))


def recordings(path: Path) -> list[str]:
    """Return the recordings in an archive, each by the name of its first file.

    Raises
    ------
    ReadError
        It is damaged, unsafe or too large.
    """
    with _explained(path), open_archive(path) as archive:
        return [] if archive is None else recordings_among(path, archive.members())


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what the libraries raise about a damaged archive into a ReadError."""
    try:
        yield
    except ReadError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(f"{file}: a damaged archive ({text}), expected a whole one. Copy it again.") from error


def _unpacked(path: Path, file: Path, inner: str, folder: Path) -> tuple[Path, str, str]:
    """Write the files of one recording into a folder.

    Returns
    -------
    target : Path
        The one to open.
    label : str
        What to call it in messages.
    rest : str
        Which recording inside the target is meant.
    """
    with open_archive(file) as archive:
        if archive is None:
            name = file.stem if file.suffix.lower() in PACKED_SUFFIXES else file.name
            target = folder / (name or "recording")
            with file.open("rb") as packed, target.open("xb") as out:
                copy(unpacking(file, packed), out)
            return target, str(file), inner
        name, rest = _chosen(path, file, archive, inner)
        wanted, written = {name}, set[str]()
        if name.endswith(".hea"):
            wanted |= {n for n in archive.members() if n.rpartition(".")[0] == name[: -len(".hea")]}
        for _ in range(4):  # a header names segments, their headers name signal files
            archive.extract(wanted - written, folder)
            written |= wanted
            wanted = _companions(archive, name, folder) - written
            if not wanted:
                break
        return folder / PurePosixPath(name).name, f"{file}/{name}", rest


def _companions(archive: Zip | Tar, name: str, folder: Path) -> set[str]:
    """Return the members beside a WFDB header that the headers written so far name."""
    named = set()
    for header in folder.glob("*.hea") if name.endswith(".hea") else ():
        for line in header.read_bytes()[: 16 * HEADER_BYTES].decode("utf-8", errors="replace").splitlines():
            word = line.split(maxsplit=1)[0] if line.strip() else "#"
            if not word.startswith("#"):
                named |= {word, f"{word}.hea"}
    beside = PurePosixPath(name).parent
    return {member for word in named if (member := str(beside / word)) in archive.members()}


def _chosen(path: Path, file: Path, archive: Zip | Tar, inner: str) -> tuple[str, str]:
    """Return the member that is meant, and what is meant inside it.

    Raises
    ------
    ReadError
        There is none, or several and none was named, or not the one that was.
    """
    members = archive.members()
    found = recordings_among(file, members)
    some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    if inner.startswith("#") and int(inner[1:]) < len(found):
        return found[int(inner[1:])], ""
    if inner:
        for name in sorted(members, key=len, reverse=True):
            if inner == name or inner.startswith((f"{name}/", f"{name}#")):
                header = f"{name.rpartition('.')[0]}.hea"
                is_companion = name.lower().endswith((*SIGNAL_SUFFIXES, *ANNOTATION_SUFFIXES)) and header in members
                return (header if is_companion else name), inner[len(name) :].removeprefix("/")
        if f"{inner}.hea" in members:
            return f"{inner}.hea", ""
        raise ReadError(f"{path}: no such file in the archive (it holds {some or 'no recording'}). Check the name.")
    if not found:
        nested = [name for name in members if name.lower().endswith((*ARCHIVE_SUFFIXES, *PACKED_SUFFIXES))]
        what = f"only archives in it ({nested[0]})" if nested else f"no recording among {len(members)} files"
        raise ReadError(f"{file}: {what}, expected one. Unpack it, or name a file in it: {file}/NAME.")
    if len(found) > 1:
        raise ReadError(f"{file}: {len(found)} recordings ({some}), expected one. Name it: {file}/{found[0]}.")
    return found[0], ""
