"""SCP-ECG (EN 1064:2005+A1:2007, ISO 11073-91064:2009): sections 0, 1, 3 and 6, uncompressed, all leads simultaneous.

A record is a CRC and its length, then sections, each behind a head of 16 bytes with its own CRC; numbers are little
endian. What the format allows bounds what is written: one step in whole nanovolts for all leads, one interval in whole
microseconds, and 65535 bytes a lead, that is 32767 samples.

SCP-ECG has no value for "not recorded". The smallest count is written, as devices do for a lead that is off, and as
our reader takes it.
"""

import struct
from binascii import crc_hqx
from math import ceil
from pathlib import Path

import numpy as np

from anyecg import __version__
from anyecg.errors import SignalError, WriteError
from anyecg.record import Record
from anyecg.writers import limits, notes
from anyecg.writers.codes import SCP_CODES
from anyecg.writers.counts import LARGEST_COUNT, MISSING_COUNT, ranges_mv

PROTOCOL = 20
"""Version 2.0, in tenths: of the sections and of the protocol."""

N_POINTERS = 12
"""Section 0 lists sections 0 to 11, those that are absent with length 0 (5.3)."""

MAX_SAMPLES = 32767
MAX_LEADS = 255

LARGEST_RATE_ERROR = 1e-3
"""A rate that whole microseconds miss by more is refused: a second in a quarter of an hour."""

LARGEST_STEP_NV = 65535

STEPS_NV = (100, 125, 200, 250, 400, 500, 800, *(1000 * n for n in (1, 2, 3, 4, 5, 8)))
"""What the step is chosen from before it is fitted to the range."""

COMMENT_WIDTH = 79
"""Bytes of a free text field before its zero byte."""


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what SCP-ECG does not hold of the record, a line each."""
    lines = limits.coarse_steps(record, [step_nv(record) / 1e6] * record.n_leads)
    lines += limits.gaps(record, f"{MISSING_COUNT}: other programs show a rail")
    lines += limits.stored_rate(record, 1e6 / interval_us(record), "SCP-ECG counts whole microseconds a sample")
    lines += limits.lead_names(record, [lead if lead in SCP_CODES else "Unspecified" for lead in record.leads])
    lines += limits.start_time(record, whole_seconds=True, zone=True)
    if record.start_time is None:
        lines.append("the start time is not known, but SCP-ECG asks for one: it is left out")
    return lines + limits.source_rate(record) + limits.annotations(record)


def interval_us(record: Record) -> int:
    """Return the whole microseconds between two samples that are nearest to the record's."""
    return max(1, round(1e6 / record.fs))


def step_nv(record: Record) -> int:
    """Return the finest of the round steps, or else the finest of all, with which every lead fits into 16 bits.

    Raises
    ------
    SignalError
        None does.
    """
    largest_nv = max(max(abs(low), abs(high)) for low, high in ranges_mv(record)) * 1e6
    step = next((step for step in STEPS_NV if step * LARGEST_COUNT >= largest_nv), ceil(largest_nv / LARGEST_COUNT))
    if step > LARGEST_STEP_NV:
        raise SignalError(
            f"{record.id}: an amplitude of {largest_nv / 1e6:.4g} mV, expected at most "
            f"{LARGEST_STEP_NV * LARGEST_COUNT / 1e6:.0f} mV in SCP-ECG. Check the unit."
        )
    return step


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the record into ``folder`` under the name of ``path``.

    Raises
    ------
    WriteError
        The record is longer, faster or has more leads than SCP-ECG can say.
    SignalError
        There is no sample, or an amplitude is too large.
    """
    _refuse(record, path)
    sections = {1: _person_and_recording(record), 3: _leads(record), 6: _rhythm(record)}
    (folder / path.name).write_bytes(assemble(sections))


def _refuse(record: Record, path: Path) -> None:
    """Raise for what SCP-ECG cannot say."""
    if record.n_samples > MAX_SAMPLES:
        raise WriteError(
            f"{path}: {record.n_samples} samples a lead, expected at most {MAX_SAMPLES} in SCP-ECG "
            f"({MAX_SAMPLES / record.fs:.0f} s here). Choose a slice with a start and an end, or another format."
        )
    if record.n_leads > MAX_LEADS:
        raise WriteError(f"{path}: {record.n_leads} leads, expected at most {MAX_LEADS} in SCP-ECG. Choose leads.")
    interval = interval_us(record)
    if interval > 65535 or abs(1e6 / interval / record.fs - 1) > LARGEST_RATE_ERROR:
        raise WriteError(
            f"{path}: {record.fs:g} Hz, expected a rate that whole microseconds a sample give in SCP-ECG. "
            "Choose another format."
        )


def assemble(sections: dict[int, bytes]) -> bytes:
    """Return the whole record of some sections' bodies, with section 0, lengths and CRCs."""
    bodies = {number: body + b"\x00" * (len(body) % 2) for number, body in sections.items()}  # of even length: 5.2
    at = 6 + 16 + 10 * N_POINTERS + 1  # the first byte has number 1
    pointers = struct.pack("<HII", 0, 16 + 10 * N_POINTERS, 7)
    for number in range(1, N_POINTERS):
        length = 16 + len(bodies[number]) if number in bodies else 0
        pointers += struct.pack("<HII", number, length, at if length else 0)
        at += length
    content = _section(0, pointers, b"SCPECG") + b"".join(_section(number, bodies[number]) for number in sorted(bodies))
    sized = struct.pack("<I", 6 + len(content)) + content
    return struct.pack("<H", _crc(sized)) + sized


def _section(number: int, body: bytes, reserved: bytes = b"\x00" * 6) -> bytes:
    """Return a section behind its head: CRC, number, length, two versions, six reserved bytes."""
    rest = struct.pack("<HIBB6s", number, 16 + len(body), PROTOCOL, PROTOCOL, reserved) + body
    return struct.pack("<H", _crc(rest)) + rest


def _crc(data: bytes) -> int:
    """Return the CRC-CCITT, polynomial 0x1021 from 0xFFFF on (5.2)."""
    return crc_hqx(data, 0xFFFF)


def _person_and_recording(record: Record) -> bytes:
    """Return section 1: tag, length and value of each field, then tag 255 (5.4)."""
    fields: list[tuple[int, bytes]] = [(2, b"\x00")]  # an identifier is asked for: empty
    if record.age is not None:
        fields.append((4, _age(record.age)))
    if record.weight_kg is not None and 0 <= round(record.weight_kg) <= 65535:
        fields.append((7, struct.pack("<HB", round(record.weight_kg), 1)))  # 1: kilogram
    fields.append((8, bytes([{"male": 1, "female": 2}.get(record.sex or "", 0)])))
    comments = _comments(record)
    fields.append((14, _device(plain=all(line.isascii() for line in comments))))
    time = record.start_time
    if time is not None:
        fields.append((25, struct.pack("<HBB", time.year, time.month, time.day)))
        fields.append((26, bytes([time.hour, time.minute, time.second])))
    fields += [(30, line.encode()[:COMMENT_WIDTH] + b"\x00") for line in comments]
    zone = time.utcoffset() if time is not None else None
    if zone is not None:
        fields.append((34, struct.pack("<hH", round(zone.total_seconds() / 60), 0) + b"\x00"))
    return b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in fields) + b"\xff\x00\x00"


def _age(years: float) -> bytes:
    """Return an age in years, or in the coarser of months and days that says it to a thousandth of a year."""
    units = ((1, 1.0), (2, 12.0), (4, 365.25))
    unit, per_year = next(((u, n) for u, n in units if abs(round(years * n) / n - years) < 1e-3), units[0])
    return struct.pack("<HB", min(65535, round(years * per_year)), unit)


def _comments(record: Record) -> list[str]:
    """Return the free text: what the fields do not say, or say in whole numbers only."""
    whole = {
        "age": record.age is None or record.age == round(record.age),
        "weight_kg": record.weight_kg is None or record.weight_kg == round(record.weight_kg),
    }
    return notes.signed(
        record, person=tuple(key for key, is_whole in whole.items() if not is_whole), width=COMMENT_WIDTH
    )


def _device(*, plain: bool) -> bytes:
    """Return tag 14, the acquiring device: not known, so that only the writing program is named (5.4)."""
    fixed = struct.pack(
        "<HHHBB6sBBBBB16s",
        *(0, 0, 0),  # institution, department, device
        *(1, 255),  # type: a system or host; manufacturer: named in the text
        b"\x00" * 6,  # model
        PROTOCOL,
        0x90,  # compatibility category I: rhythm without loss, no reference beat
        0x00 if plain else 0x37,  # texts are ASCII, or UTF-8
        0x00,  # capabilities
        0x00,  # mains frequency: not known
        b"\x00" * 16,
    )
    analysis = b"\x00"
    software = f"AnyECG {__version__}".encode()[:24] + b"\x00"
    texts = [analysis, b"\x00", software, b"AnyECG\x00", b"AnyECG\x00"]  # program, serial, software, SCP, manufacturer
    return fixed + bytes([len(analysis)]) + b"".join(texts)


def _leads(record: Record) -> bytes:
    """Return section 3: how many leads, that they are simultaneous, and first sample, last sample and code of each."""
    simultaneous = 0x04 | (min(record.n_leads, 31) << 3)
    spans = (struct.pack("<IIB", 1, record.n_samples, SCP_CODES.get(lead, 0)) for lead in record.leads)
    return bytes([record.n_leads, simultaneous]) + b"".join(spans)


def _rhythm(record: Record) -> bytes:
    """Return section 6: step, interval, no differences, no reference beats; length, then samples of each lead."""
    step = step_nv(record)
    head = struct.pack("<HHBB", step, interval_us(record), 0, 0)
    lengths = struct.pack(f"<{record.n_leads}H", *([2 * record.n_samples] * record.n_leads))
    rows = []
    for row in record.signal:
        counts = np.full(len(row), MISSING_COUNT, dtype="<i2")
        recorded = np.isfinite(row)
        counts[recorded] = np.round(row[recorded].astype(np.float64) * 1e6 / step)
        rows.append(counts.tobytes())
    return head + lengths + b"".join(rows)
