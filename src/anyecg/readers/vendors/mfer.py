"""A part of a long MFER file, as a small file of the same definitions: ecgdatakit parses files as a whole only.

Source: ISO 22077-1:2022, 5.1 (tag, length, value) and 5.2 (frames: for each sequence, each channel's block).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

ORDER, BLOCK, CHANNELS, SEQUENCES, POINTER, TYPE = 0x01, 0x04, 0x05, 0x06, 0x07, 0x0A
WAVE, ATTRIBUTE, END = 0x1E, 0x3F, 0x80
"""Tags: MWF_BLE, BLK, CHN, SEQ, PNT, DTP, WAV, ATT and END."""

LAYOUT = (BLOCK, SEQUENCES, POINTER)
"""Definitions that are written anew for a part."""

BEHIND = frozenset({*LAYOUT, WAVE, *(0x15, 0x16, 0x41, 0x42, 0x44, 0x45, 0x46, 0x86, 0x87)})
"""What may stand behind the first samples: they, their layout, and remarks."""

UNLIKE = frozenset({BLOCK, SEQUENCES, TYPE, 0x0B})
"""What one channel may not have for itself, for a part to be cut out: then all have the same rate and length."""

SAMPLE_BYTES = {0: 2, 1: 2, 2: 4, 3: 1, 4: 2, 5: 1, 6: 4, 7: 4, 8: 8}
"""By data type (MWF_DTP)."""

MAX_DEFINITIONS = 100_000
"""Tags; a file of more is not cut."""


@dataclass(frozen=True)
class Frame:
    """Samples of all channels that lie together: ``n_sequences`` times a block of ``n_block`` samples a channel."""

    at: int
    n_block: int
    n_sequences: int

    @property
    def n_samples(self) -> int:
        """Of each channel."""
        return self.n_block * self.n_sequences


@dataclass(frozen=True)
class Layout:
    """Where a file has its definitions and its samples."""

    path: Path
    definitions: bytes
    remarks: bytes
    little_endian: bool
    n_channels: int
    sample_bytes: int
    frames: tuple[Frame, ...]

    @property
    def n_samples(self) -> int:
        """Of each channel."""
        return sum(frame.n_samples for frame in self.frames)


def layout_of(path: Path) -> Layout | None:
    """Return a file's layout, or None if a part of it cannot be cut out: it is none, damaged, or has gaps or rates."""
    found = path.stat()
    return _layout_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2)
def _layout_of(path: Path, size: int, changed_ns: int) -> Layout | None:
    state = {BLOCK: 1, SEQUENCES: 0, CHANNELS: 1, TYPE: 0}
    definitions, remarks, frames = b"", b"", list[Frame]()
    little, pointer = False, None
    with path.open("rb") as file:
        for _ in range(MAX_DEFINITIONS):
            head = _tag(file)
            if head is None:
                return None
            tag, raw, length = head
            if tag == END:
                break
            if frames and tag not in BEHIND:
                return None
            if tag == WAVE:
                n_sequence = state[BLOCK] * state[CHANNELS] * SAMPLE_BYTES[state[TYPE]]
                n_sequences, left = divmod(length, n_sequence) if n_sequence else (0, 1)
                n_before = sum(frame.n_samples for frame in frames)
                apart = pointer is not None and frames and pointer != n_before
                if left or not n_sequences or state[SEQUENCES] not in (0, n_sequences) or apart:
                    return None
                frames.append(Frame(file.tell(), state[BLOCK], n_sequences))
                pointer = None
                file.seek(length, 1)
                if file.tell() > size:
                    return None
                continue
            value = file.read(length)
            if len(value) < length or (tag == ATTRIBUTE and not _alike(value)):
                return None
            number = int.from_bytes(value, "little" if little else "big", signed=tag == POINTER)
            if tag == ORDER:
                little = number == 1
            elif tag == POINTER:
                pointer = number if value else None
                if not frames and pointer:
                    return None
            elif tag in state:
                state[tag] = number if value else {BLOCK: 1, CHANNELS: 1}.get(tag, 0)
                if tag == TYPE and number not in SAMPLE_BYTES:
                    return None
            if tag not in LAYOUT and not frames:
                definitions += raw + value
            elif tag not in LAYOUT:
                remarks += raw + value
            if file.tell() >= size:
                break
    if not frames:
        return None
    return Layout(path, definitions, remarks, little, state[CHANNELS], SAMPLE_BYTES[state[TYPE]], tuple(frames))


def _tag(file: IO[bytes]) -> tuple[int, bytes, int] | None:
    """Return the next tag, its bytes with those of its length, and the length; None at a damaged or unlimited one."""
    tag = file.read(1)
    while tag == b"\0":
        tag = file.read(1)
    if not tag or tag[0] == END:
        return END, b"", 0
    raw = tag
    if tag[0] == ATTRIBUTE:
        while (byte := file.read(1)) and byte[0] & 0x80:
            raw += byte
        raw += byte
    first = file.read(1)
    if not first or first == b"\x80" or first[0] > 0x84:
        return None
    if first[0] < 0x80:
        return tag[0], raw + first, first[0]
    rest = file.read(first[0] & 0x7F)
    return tag[0], raw + first + rest, int.from_bytes(rest, "big")


def _alike(attributes: bytes) -> bool:
    """Return whether a channel's own definitions leave it as long and as fast as the others."""
    at = 0
    while at + 1 < len(attributes):
        if attributes[at] in UNLIKE or attributes[at + 1] >= 0x80:
            return False
        at += 2 + attributes[at + 1]
    return True


def write_part(layout: Layout, first: int, last: int, path: Path) -> None:
    """Write the samples from ``first`` to ``last`` as a file of its own, in one block a channel.

    Raises
    ------
    EOFError
        The file has become shorter.
    """
    n, width = last - first, layout.sample_bytes
    part = np.empty((layout.n_channels, n * width), dtype=np.uint8)
    at = 0
    for frame in layout.frames:
        begin, end = max(first - at, 0), min(last - at, frame.n_samples)
        if begin < end:
            out = part[:, (at + begin - first) * width : (at + end - first) * width]
            _fill(out, layout, frame, begin * width, end * width)
        at += frame.n_samples
    order = "little" if layout.little_endian else "big"
    with path.open("wb") as file:
        file.write(layout.definitions)
        file.write(bytes([BLOCK, 4]) + n.to_bytes(4, order) + bytes([SEQUENCES, 1, 1]))  # type: ignore[arg-type]
        file.write(bytes([WAVE, 0x84]) + part.size.to_bytes(4, "big"))
        part.tofile(file)
        file.write(layout.remarks + bytes([END, 0]))


def _fill(out: np.ndarray, layout: Layout, frame: Frame, begin: int, end: int) -> None:
    """Fill an array (n_channels, n_bytes) with some bytes of each channel of a frame."""
    n_block = frame.n_block * layout.sample_bytes
    n_sequence = n_block * layout.n_channels
    if end - begin >= n_block:  # many blocks: whole sequences are read
        low, high = begin // n_block, -(-end // n_block)
        raw = np.fromfile(layout.path, np.uint8, (high - low) * n_sequence, offset=frame.at + low * n_sequence)
        if len(raw) < (high - low) * n_sequence:
            raise EOFError("it ends within its samples")
        blocks = raw.reshape(high - low, layout.n_channels, n_block).transpose(1, 0, 2).reshape(layout.n_channels, -1)
        out[:] = blocks[:, begin - low * n_block : end - low * n_block]
        return
    for number in range(begin // n_block, -(-end // n_block)):
        low, high = max(begin, number * n_block), min(end, (number + 1) * n_block)
        for channel, row in enumerate(out):
            at = frame.at + number * n_sequence + channel * n_block + low - number * n_block
            raw = np.fromfile(layout.path, np.uint8, high - low, offset=at)
            if len(raw) < high - low:
                raise EOFError("it ends within its samples")
            row[low - begin : high - begin] = raw
