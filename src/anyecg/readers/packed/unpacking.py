"""What packed data may cost: streams of gzip, bzip2 and xz that end in an error instead of filling the disk.

Whatever a file claims, no more than `MAX_UNPACKED_BYTES` are unpacked from it, and no more than `LARGEST_RATIO` bytes
from one.
"""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import IO, Any

from anyecg.errors import ReadError

MAX_UNPACKED_BYTES = 2_000_000_000
LARGEST_RATIO = 50
"""ECGs pack to a tenth, flat lines to a thousandth: see `FREE_BYTES`."""

FREE_BYTES = 4_000_000
"""So many unpacked bytes are free, so that a short flat line may be packed; the ratio counts for what is beyond. As
text they take a second to read."""

MAX_XZ_BYTES = 256_000_000
"""Of memory to unpack xz; its strongest setting takes 65 MB."""

GZIP, BZIP2, XZ = b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0"
PACKED = (GZIP, BZIP2, XZ)


def limit_of(file: Path) -> int:
    """Return how many bytes a file may unpack to."""
    return min(MAX_UNPACKED_BYTES, FREE_BYTES + LARGEST_RATIO * file.stat().st_size)


def too_large(file: Path, limit: int) -> ReadError:
    """Return the error for what would unpack to too much."""
    return ReadError(
        f"{file}: {file.stat().st_size} bytes that unpack to more than {limit}, expected an ECG. Do not open it; if "
        "you trust it, unpack it first."
    )


class Bounded(io.RawIOBase):
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


def unpacking(file: Path, stream: IO[bytes]) -> Bounded:
    """Return a stream of what a packed file holds."""
    head = stream.read(8)
    stream.seek(0)
    unpacked: Any
    if head.startswith(GZIP):
        unpacked = gzip.GzipFile(fileobj=stream)
    elif head.startswith(BZIP2):
        unpacked = bz2.BZ2File(stream)
    else:
        unpacked = _Xz(stream)
    return Bounded(file, unpacked, limit_of(file))


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


def copy(source: Bounded, out: IO[bytes]) -> int:
    """Copy a stream to its end; return how many bytes it had."""
    n = 0
    while data := source.read(1 << 20):
        n += out.write(data)
    return n
