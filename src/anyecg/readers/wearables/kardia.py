"""KardiaMobile's ATC files, after AliveCor's "ATC File Format Specification 1.7" (github.com/alivecor/ATCpy, docs).

    "ALIVE" 0 0 0, version u32, then blocks: name of 4 bytes, length u32, data, checksum u32; little endian
    info  time (32 bytes of text), then identifiers and device, which are not read
    fmt   format u8 (1 = int16), rate in Hz u16, nV of one unit u16, flags u8, 2 bytes
    ecg, ecg2 ... ecg9, ecga ecgb ecgc   int16 of I, II, III, aVR, aVL, aVF, V1 ... V6
    ann   ticks a second u32, then for each beat its tick u32 and its type u16

The specification calls the checksum a CRC-32, AliveCor's own reader and writer add up the bytes: either is accepted.
"""

import struct
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers.slices import sample_range
from anyecg.readers.units import rate_of, unit_of
from anyecg.record import Annotation, Record

NAME = "atc"

MAGIC = b"ALIVE\0\0\0"

MAX_BYTES = 200_000_000
"""Read as a whole; five minutes of twelve leads have 2 MB."""

LEAD_BLOCKS = {
    name: lead
    for name, lead in zip(
        (b"ecg ", *(f"ecg{i:x}".encode() for i in range(2, 13))),
        STANDARD_LEADS,
        strict=True,
    )
}

BEAT_SYMBOLS = {0: "Q", 1: "N", 2: "V", 3: "A", 4: "F", 5: "J", 6: "/"}
"""MIT-BIH symbols of the beat types of table "Annotation Block"."""

NOT_RECORDED = -32768


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file starts with the signature."""
    return head.startswith(MAGIC)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the leads and the beats of a recording.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where, warnings = str(path), []  # type: tuple[str, list[str]]
    blocks = _blocks(path)
    if len(blocks.get(b"fmt ", b"")) < 6:
        raise ReadError(f"{where}: no block 'fmt ' with rate and scale, expected one. Export it again.")
    kind, hz, nanovolts = struct.unpack_from("<BHH", blocks[b"fmt "])
    if kind != 1 or nanovolts == 0:
        raise ReadError(
            f"{where}: samples of format {kind} with {nanovolts} nV a unit, expected format 1 and a scale. Export it "
            "as PDF or CSV."
        )
    rate = rate_of(where, float(hz), fs)
    factor = nanovolts * unit_of(where, "nV", unit)
    counts = {lead: np.frombuffer(blocks[name], "<i2") for name, lead in LEAD_BLOCKS.items() if blocks.get(name)}
    if not counts:
        raise ReadError(f"{where}: no block of samples, expected at least lead I. Export it again.")
    n_samples = max(map(len, counts.values()))
    if len({len(row) for row in counts.values()}) > 1:
        warnings.append("leads differ in length: the shorter ones are filled up as not recorded")
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    signal = np.full((len(counts), last - first), np.nan, np.float32)
    for out, row in zip(signal, counts.values(), strict=True):
        part = row[first:last]
        out[: len(part)] = np.where(part == NOT_RECORDED, np.nan, part * factor)
    if any(name.startswith((b"avg", b"med")) for name in blocks):
        warnings.append("the file's median beats were not read")
    time = _time(blocks.get(b"info", b""), warnings)
    return Record(
        signal=signal,
        fs=rate,
        leads=tuple(counts),
        id=path.stem,
        format=NAME,
        start_time=time + timedelta(seconds=first / rate) if time else None,
        start_s=first / rate,
        annotations=_beats(blocks.get(b"ann ", b""), first / rate, last / rate),
        warnings=tuple(warnings),
    )


def _blocks(path: Path) -> dict[bytes, bytes]:
    """Return the data of each block; of two with one name the first.

    Raises
    ------
    ReadError
        The file ends within a block, or a checksum is wrong.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: {size} bytes, expected at most {MAX_BYTES}. Export the recording again.")
    data = path.read_bytes()
    blocks: dict[bytes, bytes] = {}
    at = len(MAGIC) + 4
    while at < len(data):
        if at + 8 > len(data) or at + 12 + (length := struct.unpack_from("<I", data, at + 4)[0]) > len(data):
            raise ReadError(f"{path}: ends within a block at byte {at}, expected all of it. Copy the file again.")
        whole = data[at : at + 8 + length]
        (checksum,) = struct.unpack_from("<I", data, at + 8 + length)
        added = int(np.frombuffer(whole, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF
        if checksum not in (added, zlib.crc32(whole)):
            raise ReadError(f"{path}: block {whole[:4]!r} has a wrong checksum, expected {added}. Copy the file again.")
        blocks.setdefault(whole[:4], whole[8:])
        at += 12 + length
    return blocks


def _time(info: bytes, warnings: list[str]) -> datetime | None:
    text = info[:32].split(b"\0")[0].decode("ascii", errors="replace").strip()
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        warnings.append(f"the time {text!r} is none and was left out")
        return None


def _beats(block: bytes, begin_s: float, end_s: float) -> tuple[Annotation, ...]:
    """Return the beats between two times."""
    if len(block) < 4 or not (ticks := struct.unpack_from("<I", block)[0]):
        return ()
    marks = np.frombuffer(block[4 : 4 + (len(block) - 4) // 6 * 6], np.dtype([("tick", "<u4"), ("type", "<u2")]))
    times = [(float(mark["tick"]) / ticks, BEAT_SYMBOLS.get(int(mark["type"]), "Q")) for mark in marks]
    return tuple(Annotation(t - begin_s, t - begin_s, "beat", code) for t, code in times if begin_s <= t < end_s)
