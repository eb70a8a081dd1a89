"""Packed files (gzip, bzip2, xz) and archives (zip, tar, packed tar): the recording in them, unpacked and read.

Of an archive only the files of the one recording that is meant are written, under their own names, into a new folder
that is gone afterwards. Whatever the archive claims, no more than `MAX_UNPACKED_BYTES` are unpacked, and no more than
`LARGEST_RATIO` bytes from one; links and devices are never made, and archives in archives are not opened.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from anyecg.errors import ReadError
from anyecg.readers import arrays
from anyecg.readers.sources import (
    ANNOTATION_SUFFIXES,
    ARCHIVE_SUFFIXES,
    PACKED_SUFFIXES,
    SIGNAL_SUFFIXES,
    WAVES_FOLDER,
    is_source_name,
    locate,
    split_inner,
)
from anyecg.record import Record

NAME = "archive"

SEVERAL = True
"""An archive may hold several recordings."""

MAX_UNPACKED_BYTES = 2_000_000_000
MAX_MEMBERS = 10_000
LARGEST_RATIO = 50
"""ECGs pack to a tenth, flat lines to a thousandth: see `FREE_BYTES`."""

FREE_BYTES = 4_000_000
"""So many unpacked bytes are free, so that a short flat line may be packed; the ratio counts for what is beyond. As
text they take a second to read."""

MAX_DIRECTORY_BYTES = 8_000_000
"""Of a zip's list of members: 800 bytes a member."""

MAX_NAME_BYTES = 1_000_000
"""Of a tar's header with a long name or attributes."""

HEADER_BYTES = 65_536
"""What is looked at of a WFDB header while the members are listed."""

MAX_XZ_BYTES = 256_000_000
"""Of memory to unpack xz; its strongest setting takes 65 MB."""

_ZIP, _GZIP, _BZIP2, _XZ = b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0"
_PACKED = (_GZIP, _BZIP2, _XZ)
_OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError),
    *(NotImplementedError, struct.error, UnicodeError, ValueError),
)


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is packed or an archive, by its mark."""
    return head.startswith((_ZIP, *_PACKED, *_OTHERS)) or _is_tar(head)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


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
            opened, head = locate(target)
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
    with _explained(path), _archive(path) as archive:
        return [] if archive is None else _recordings(path, archive.members())


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its size when unpacked, and its first bytes where they tell something."""

    size: int
    head: bytes = b""


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
    with _archive(file) as archive:
        if archive is None:
            name = file.stem if file.suffix.lower() in PACKED_SUFFIXES else file.name
            target = folder / (name or "recording")
            with file.open("rb") as packed, target.open("xb") as out:
                _copy(_unpacking(file, packed), out)
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


def _companions(archive: "_Zip | _Tar", name: str, folder: Path) -> set[str]:
    """Return the members beside a WFDB header that the headers written so far name."""
    named = set()
    for header in folder.glob("*.hea") if name.endswith(".hea") else ():
        for line in header.read_bytes()[: 16 * HEADER_BYTES].decode("utf-8", errors="replace").splitlines():
            word = line.split(maxsplit=1)[0] if line.strip() else "#"
            if not word.startswith("#"):
                named |= {word, f"{word}.hea"}
    beside = PurePosixPath(name).parent
    return {member for word in named if (member := str(beside / word)) in archive.members()}


def _chosen(path: Path, file: Path, archive: "_Zip | _Tar", inner: str) -> tuple[str, str]:
    """Return the member that is meant, and what is meant inside it.

    Raises
    ------
    ReadError
        There is none, or several and none was named, or not the one that was.
    """
    members = archive.members()
    found = _recordings(file, members)
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


def _recordings(file: Path, members: dict[str, _Member]) -> list[str]:
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


def _alone(visible: dict[str, _Member]) -> list[str]:
    """Return the only file of an archive, whatever it is called, unless it is an archive itself."""
    return [name for name in visible if not name.lower().endswith((*ARCHIVE_SUFFIXES, *PACKED_SUFFIXES))]


def _is_segment(header: PurePosixPath, members: dict[str, _Member]) -> bool:
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
def _archive(file: Path) -> Iterator["_Zip | _Tar | None"]:
    """Open a zip or a tar; yield None for a single packed file.

    Raises
    ------
    ReadError
        It is of a kind that is not read.
    """
    with file.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
        if other:
            raise ReadError(f"{file}: a {other} archive, expected zip, tar, gzip, bzip2 or xz. Unpack it first.")
        if head.startswith(_ZIP):
            _check_directory(file, stream)
            with zipfile.ZipFile(stream) as members:
                yield _Zip(file, members)
            return
        if head.startswith(_PACKED):
            head = _unpacking(file, stream).read(512)
        yield _Tar(file) if _is_tar(head) else None


class _Zip:
    """The members of a zip file."""

    def __init__(self, file: Path, opened: zipfile.ZipFile) -> None:
        self.file, self.opened = file, opened
        self.infos: dict[str, zipfile.ZipInfo] = {}
        if len(opened.infolist()) > MAX_MEMBERS:
            raise too_many(file)
        for info in opened.infolist():
            mode = info.external_attr >> 16
            if not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode)):
                self.infos[_safe_name(file, info.filename)] = info
        self.limit = _limit(file)
        self.found: dict[str, _Member] | None = None

    def members(self) -> dict[str, _Member]:
        """Return the files by name."""
        if self.found is None:
            self.found = {name: _Member(info.file_size, self._head(name, info)) for name, info in self.infos.items()}
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
                self.limit -= _copy(_Bounded(self.file, packed, self.limit), out)


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
        raise too_many(file)


class _Tar:
    """The members of a tar file, packed or not; each look at them goes through the whole file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, _Member] | None = None

    def members(self) -> dict[str, _Member]:
        """Return the files by name."""
        if self.found is None:
            self.found = {}
            for name, info, opened in self._walk():
                n = _wants_head(name)
                packed = opened.extractfile(info) if n else None
                self.found[name] = _Member(info.size, packed.read(n) if packed else b"")
        return self.found

    def extract(self, names: set[str], folder: Path) -> None:
        """Write files under their own names into a folder."""
        left = set(names)
        for name, info, opened in self._walk() if left else ():
            if name in left and (packed := opened.extractfile(info)):
                left.remove(name)
                with (folder / PurePosixPath(name).name).open("xb") as out:
                    _copy(_Bounded(self.file, packed, _limit(self.file)), out)
            if not left:
                return

    def _walk(self) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        with self.file.open("rb") as stream:
            head = stream.read(8)
            stream.seek(0)
            source = _unpacking(self.file, stream) if head.startswith(_PACKED) else stream
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as opened:
                for n, info in enumerate(opened, 1):
                    if n > MAX_MEMBERS:
                        raise too_many(self.file)
                    if info.size > _limit(self.file):
                        raise too_large(self.file, _limit(self.file))
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


def _limit(file: Path) -> int:
    """Return how many bytes a file may unpack to."""
    return min(MAX_UNPACKED_BYTES, FREE_BYTES + LARGEST_RATIO * file.stat().st_size)


def too_large(file: Path, limit: int) -> ReadError:
    """Return the error for what would unpack to too much."""
    return ReadError(
        f"{file}: {file.stat().st_size} bytes that unpack to more than {limit}, expected an ECG. Do not open it; if "
        "you trust it, unpack it first."
    )


def too_many(file: Path) -> ReadError:
    """Return the error for too many members."""
    return ReadError(f"{file}: more than {MAX_MEMBERS} members, expected fewer. Unpack it first.")


class _Bounded(io.RawIOBase):
    """A stream that ends in an error when it gives more than it may."""

    def __init__(self, file: Path, stream: Any, limit: int) -> None:
        self.file, self.stream, self.limit, self.n_read = file, stream, limit, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most a megabyte."""
        data: bytes = self.stream.read(1 << 20 if size < 0 else min(size, 1 << 20))
        self.n_read += len(data)
        if self.n_read > self.limit:
            raise too_large(self.file, self.limit)
        return data


def _unpacking(file: Path, stream: IO[bytes]) -> _Bounded:
    """Return a stream of what a packed file holds."""
    head = stream.read(8)
    stream.seek(0)
    unpacked: Any
    if head.startswith(_GZIP):
        unpacked = gzip.GzipFile(fileobj=stream)
    elif head.startswith(_BZIP2):
        unpacked = bz2.BZ2File(stream)
    else:
        unpacked = _Xz(stream)
    return _Bounded(file, unpacked, _limit(file))


class _Xz:
    """A stream of what an xz file holds, within a bound of memory, which lzma's own file has not."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.decoder = stream, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_BYTES)

    def read(self, size: int) -> bytes:
        """Return the next bytes, or none at the end."""
        while True:
            if self.decoder.eof:
                rest = self.decoder.unused_data or self.stream.read(1 << 16)
                rest = rest.lstrip(b"\0")  # padding between streams (xz format, 2.2)
                if not rest:
                    return b""
                self.decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_BYTES)
                data = self.decoder.decompress(rest, size)
            else:
                packed = self.stream.read(1 << 16) if self.decoder.needs_input else b""
                if self.decoder.needs_input and not packed:
                    raise EOFError("the file ends within its data")
                data = self.decoder.decompress(packed, size)
            if data:
                return data


def _copy(source: _Bounded, out: IO[bytes]) -> int:
    """Copy a stream to its end; return how many bytes it had."""
    n = 0
    while data := source.read(1 << 20):
        n += out.write(data)
    return n
