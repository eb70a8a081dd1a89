"""Which files an archive (zip, tar, packed tar) holds, and which of them are recordings.

Links and devices in an archive are never made, and a name that points out of it is an error.
"""

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from anyecg.errors import ReadError
from anyecg.readers.packed.unpacking import PACKED, Bounded, copy, limit_of, too_large, unpacking
from anyecg.readers.sources import (
    ANNOTATION_SUFFIXES,
    ARCHIVE_SUFFIXES,
    PACKED_SUFFIXES,
    SIGNAL_SUFFIXES,
    WAVES_FOLDER,
    is_source_name,
)

MAX_MEMBERS = 10_000

MAX_DIRECTORY_BYTES = 8_000_000
"""Of a zip's list of members: 800 bytes a member."""

MAX_NAME_BYTES = 1_000_000
"""Of a tar's header with a long name or attributes."""

HEADER_BYTES = 65_536
"""What is looked at of a WFDB header while the members are listed."""

ZIP, EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


def is_tar(head: bytes) -> bool:
    """Return whether the first bytes are those of a tar, by its mark."""
    return head[257:262] == b"ustar"


@dataclass(frozen=True)
class Member:
    """A file in an archive: its size when unpacked, and its first bytes where they tell something."""

    size: int
    head: bytes = b""


def recordings_among(file: Path, members: dict[str, Member]) -> list[str]:
    """Return the members that are recordings; a WFDB record counts once, by its header.

    Raises
    ------
    ReadError
        It is a document of an office program.
    """
    if "[Content_Types].xml" in members or "mimetype" in members:
        raise ReadError(f"{file}: a document or spreadsheet, expected an archive of ECGs. Save the table as CSV.")
    visible = {
        name: member
        for name, member in members.items()
        if not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
    }
    waves = {str(PurePosixPath(name).parent.parent) for name in visible if f"{WAVES_FOLDER}/" in name}
    found = []
    for name, member in sorted(visible.items()):
        path = PurePosixPath(name)
        lower = name.lower()
        if not is_source_name(path.name) or lower.endswith((*ARCHIVE_SUFFIXES, *PACKED_SUFFIXES)):
            if path.suffix or member.head[128:132] != b"DICM":
                continue
        elif lower.endswith((*SIGNAL_SUFFIXES, *ANNOTATION_SUFFIXES)) and str(path.with_suffix(".hea")) in visible:
            continue
        elif lower.endswith(".xml") and str(path.parent) in waves:
            continue
        elif path.suffix == ".hea" and _is_segment(path, visible):
            continue
        found.append(name)
    return found if found or len(visible) != 1 else _alone(visible)


def _alone(visible: dict[str, Member]) -> list[str]:
    """Return the only file of an archive, whatever it is called, unless it is an archive itself."""
    return [name for name in visible if not name.lower().endswith((*ARCHIVE_SUFFIXES, *PACKED_SUFFIXES))]


def _is_segment(header: PurePosixPath, members: dict[str, Member]) -> bool:
    """Return whether a header is only a segment of another record in the archive."""
    base, mark, _ = header.stem.rpartition("_")
    whole = members.get(str(header.with_name(f"{base}.hea"))) if mark else None
    return whole is not None and any(line.split()[:1] == [header.stem.encode()] for line in whole.head.splitlines())


def _wants_head(name: str) -> int:
    """Return how many bytes of a member tell what it is."""
    suffix = PurePosixPath(name).suffix
    return HEADER_BYTES if suffix == ".hea" else 132 if not suffix else 0


def _safe_name(file: Path, name: str) -> str:
    """Return a member's name without a leading ``./``.

    Raises
    ------
    ReadError
        It points out of the archive.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        raise ReadError(f"{file}: the member {name[:100]!r} points out of it, expected names inside. Do not open it.")
    return str(path)


@contextmanager
def open_archive(file: Path) -> Iterator["Zip | Tar | None"]:
    """Open a zip or a tar; yield None for a single packed file.

    Raises
    ------
    ReadError
        It is of a kind that is not read.
    """
    with file.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        other = next((name for magic, name in OTHERS.items() if head.startswith(magic)), None)
        if other:
            raise ReadError(f"{file}: a {other} archive, expected zip, tar, gzip, bzip2 or xz. Unpack it first.")
        if head.startswith((ZIP, EMPTY_ZIP)):
            _check_directory(file, stream)
            with zipfile.ZipFile(stream) as members:
                yield Zip(file, members)
            return
        if head.startswith(PACKED):
            head = unpacking(file, stream).read(512)
        yield Tar(file) if is_tar(head) else None


class Zip:
    """The members of a zip file."""

    def __init__(self, file: Path, opened: zipfile.ZipFile) -> None:
        self.file, self.opened = file, opened
        self.infos: dict[str, zipfile.ZipInfo] = {}
        if len(opened.infolist()) > MAX_MEMBERS:
            raise _too_many(file)
        for info in opened.infolist():
            mode = info.external_attr >> 16
            if not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode)):
                self.infos[_safe_name(file, info.filename)] = info
        self.limit = limit_of(file)
        self.found: dict[str, Member] | None = None

    def members(self) -> dict[str, Member]:
        """Return the files by name."""
        if self.found is None:
            self.found = {name: Member(info.file_size, self._head(name, info)) for name, info in self.infos.items()}
        return self.found

    def _head(self, name: str, info: zipfile.ZipInfo) -> bytes:
        if not (n := _wants_head(name)) or info.flag_bits & 1 or info.compress_type not in _ZIP_METHODS:
            return b""
        with self.opened.open(info) as packed:
            return packed.read(n)

    def extract(self, names: set[str], folder: Path) -> None:
        """Write files under their own names into a folder."""
        for name in sorted(names):
            info = self.infos[name]
            if info.flag_bits & 1:
                raise ReadError(f"{self.file}/{name}: encrypted, expected a file that is not. Unpack it first.")
            if info.compress_type not in _ZIP_METHODS:
                raise ReadError(
                    f"{self.file}/{name}: packed by method {info.compress_type}, expected deflate. Repack it."
                )
            if info.file_size > self.limit:
                raise too_large(self.file, self.limit)
            with self.opened.open(info) as packed, (folder / PurePosixPath(name).name).open("xb") as out:
                self.limit -= copy(Bounded(self.file, packed, self.limit), out)


def _check_directory(file: Path, stream: IO[bytes]) -> None:
    """Refuse a zip whose list of members is too long, before it is read (APPNOTE 6.3.10, 4.3.14 and 4.3.16).

    Raises
    ------
    ReadError
    """
    end = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, end - 65_557))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        stream.seek(min(end, int.from_bytes(tail[at - 12 : at - 4], "little")))
        size = max(size if size != 0xFFFFFFFF else 0, int.from_bytes(stream.read(56)[40:48], "little"))
    stream.seek(0)
    if size > MAX_DIRECTORY_BYTES:
        raise _too_many(file)


class Tar:
    """The members of a tar file, packed or not; each look at them goes through the whole file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, Member] | None = None

    def members(self) -> dict[str, Member]:
        """Return the files by name."""
        if self.found is None:
            self.found = {}
            for name, info, opened in self._walk():
                n = _wants_head(name)
                packed = opened.extractfile(info) if n else None
                self.found[name] = Member(info.size, packed.read(n) if packed else b"")
        return self.found

    def extract(self, names: set[str], folder: Path) -> None:
        """Write files under their own names into a folder."""
        left = set(names)
        for name, info, opened in self._walk() if left else ():
            if name in left and (packed := opened.extractfile(info)):
                left.remove(name)
                with (folder / PurePosixPath(name).name).open("xb") as out:
                    copy(Bounded(self.file, packed, limit_of(self.file)), out)
            if not left:
                return

    def _walk(self) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        with self.file.open("rb") as stream:
            head = stream.read(8)
            stream.seek(0)
            source = unpacking(self.file, stream) if head.startswith(PACKED) else stream
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as opened:
                for n, info in enumerate(opened, 1):
                    if n > MAX_MEMBERS:
                        raise _too_many(self.file)
                    if info.size > limit_of(self.file):
                        raise too_large(self.file, limit_of(self.file))
                    if info.isreg():
                        yield _safe_name(self.file, info.name), info, opened
                    opened.members = []  # type: ignore[attr-defined]  # in a stream tarfile keeps them for nothing


class _Header(tarfile.TarInfo):
    """A tar header whose long name or attributes are not longer than anyone's."""

    @classmethod
    def frombuf(cls, *arguments: Any, **keywords: Any) -> Any:
        """Return a header, checked before tarfile reads what belongs to it into memory."""
        header = super().frombuf(*arguments, **keywords)
        if header.type in (b"x", b"g", b"X", b"L", b"K") and header.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a name of {header.size} bytes")
        return header


def _too_many(file: Path) -> ReadError:
    """Return the error for too many members."""
    return ReadError(f"{file}: more than {MAX_MEMBERS} members, expected fewer. Unpack it first.")
