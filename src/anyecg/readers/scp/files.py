"""SCP-ECG, versions 1 to 3 (EN 1064:2005+A1:2007; ISO 11073-91064:2009; EN 1064:2020 for version 3).

Clause numbers are those of EN 1064:2005: 5.2 is the structure, section n is described in 5.(n + 3). They follow its
published table of contents; the standard's text was not at hand, and what a section holds was learnt from public
programs (ecgdatakit, BioSig, the C# ECG Toolkit) and files.

ecgdatakit 2.0 reads most files, but refuses residuals that were decimated outside the QRS complexes (bimodal
compression), and sections that a device cut, misnumbered or miscounted; and it takes twice as long. Here the samples
are those of section 6, with the reference beat of section 5 added where it was subtracted.

Departures: samples between decimated ones are interpolated linearly; a reference beat on its own is not read; nor is
the long-term recording of version 3 (section 12) where there is a section 6, too (see `anyecg.readers.scp.long`).
"""

import binascii
import struct
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import display_order
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_other
from anyecg.readers.notes import is_signed, with_notes
from anyecg.readers.patient import age_at, plausible_age
from anyecg.readers.scp import long as long_term
from anyecg.readers.scp.codes import Huffman, parse_tables
from anyecg.readers.slices import sample_range
from anyecg.readers.units import rate_of, unit_of
from anyecg.readers.vendors.devices import LEAD_OFF, MAX_BYTES, complete_twelve
from anyecg.record import Record

NAME = "scp"

HEADER_BYTES = 16
"""Of each section: CRC, number, length, two versions, reserved (5.2)."""

VALUES_PER_BYTE = 128
VALUES_FREE = 1_000_000
"""Samples that a section may hold for each of its bytes, and besides."""

LEAD_NAMES = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 10: "V2R", 11: "V3R"},
    **{12: "V4R", 13: "V5R", 14: "V6R", 15: "V7R", 16: "X", 17: "Y", 18: "Z", 19: "CC5", 20: "CM5", 61: "III"},
    **{62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR", 66: "V8", 67: "V9", 68: "V8R", 69: "V9R", 70: "D", 71: "A"},
    72: "J",
}
"""Lead codes of 5.6 that are recorded at rest or on exercise; DICOM lists them as 5.6.3-9-N (PS3.16, CID 3001)."""

_AGE_UNITS = {1: 1.0, 2: 1 / 12, 3: 7 / 365.25, 4: 1 / 365.25, 5: 1 / 8766}
_KG_PER = {1: 1.0, 2: 0.001, 3: 0.45359237, 4: 0.45359237 / 16}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether section 0 stands where it must, with itself as the first that it lists (5.3)."""
    if len(head) < 32 or head[8:10] != b"\0\0":
        return False
    length = int.from_bytes(head[10:14], "little")
    if head[16:22] == b"SCPECG":
        return True
    return length >= 26 and (length - HEADER_BYTES) % 10 == 0 and head[22:24] == b"\0\0" and head[28:32] == b"\7\0\0\0"


@dataclass
class _File:
    """The sections of a file, without their headers, and what had to be bent to read them."""

    where: str
    sections: dict[int, bytes] = field(default_factory=dict)
    version: int = 0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Lead:
    """A lead of section 3: its first and last sample, counted from 1 at the rate before decimation."""

    start: int
    end: int
    code: int

    @property
    def n_samples(self) -> int:
        return self.end - self.start + 1


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the rhythm; eight stored leads become twelve, of which four are marked as derived.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: {size} bytes, expected at most {MAX_BYTES}. Export it in parts.")
    file = _sections(str(path), path.read_bytes())
    warnings = file.warnings
    if 12 in file.sections and file.version >= 30:
        if 6 not in file.sections:
            return _long_term(file, path, fs, unit, start_s, end_s)
        warnings.append("the file's long-term recording (section 12) was not read")
    rows, names, rate, nanovolts = _rhythm(file)
    rate = rate_of(file.where, rate, fs)
    if nanovolts > 0:
        factor = unit_of(file.where, "nV", None) * nanovolts
        if unit is not None:
            unit_of(file.where, "nV", unit)
    else:
        factor = 1e-3 if unit is None else unit_of(file.where, None, unit)
        if unit is None:
            warnings.append("no scale in the file, so 1 uV per unit is assumed")
    n_samples = max(len(row) for row in rows)
    if len({len(row) for row in rows}) > 1:
        warnings.append("leads differ in length: the shorter ones are filled up as not recorded")
    first, last = sample_range(file.where, n_samples, rate, start_s, end_s, warnings)
    signal = np.full((len(rows), last - first), np.nan, dtype=np.float32)
    for out, row in zip(signal, rows, strict=True):
        cut = row[first:last]
        out[: len(cut)] = np.where(cut == LEAD_OFF, np.nan, cut * factor)
    person, started, remarks = _person(file)
    leads, derived = rows_with_names(names, warnings), frozenset[str]()
    order = list(range(len(leads)))
    if not is_signed(remarks):
        signal, leads, derived = complete_twelve(signal, leads)
        order = display_order(leads)
    record = Record(
        signal=signal[order],
        fs=rate,
        leads=tuple(leads[i] for i in order),
        id=path.stem,
        format=NAME,
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        gain_known=nanovolts > 0 or unit is not None,
        derived=derived,
        warnings=tuple(warnings),
        **person,  # type: ignore[arg-type]
    )
    return with_notes(record, remarks)


def _long_term(
    file: _File, path: Path, fs: float | None, unit: str | None, start_s: float | None, end_s: float | None
) -> Record:
    """Return the recording of section 12."""
    long = long_term.parse(file.where, file.sections[12], LEAD_NAMES)
    rate = rate_of(file.where, long.fs, fs)
    unit_of(file.where, "nV", unit)
    first, last = sample_range(file.where, len(long.counts), rate, start_s, end_s, file.warnings)
    person, started, remarks = _person(file)
    started = long.started or started
    kept = [i for i, name in enumerate(long.names) if not says_other(name)]
    leads = rows_with_names([long.names[i] for i in kept], file.warnings)
    record = Record(
        signal=long.millivolts(first, last)[kept],
        fs=rate,
        leads=leads,
        id=path.stem,
        format=NAME,
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        warnings=(*file.warnings, *long.warnings),
        **person,  # type: ignore[arg-type]
    )
    return with_notes(record, remarks)


def _sections(where: str, data: bytes) -> _File:
    """Return the sections that section 0 points to; what does not fit is taken as far as it goes, and said.

    Raises
    ------
    ReadError
        Section 0 itself is damaged.
    """
    file = _File(where)
    size, length = struct.unpack_from("<I", data, 2)[0], struct.unpack_from("<I", data, 10)[0]
    if not HEADER_BYTES + 10 <= length <= len(data) - 6:
        raise ReadError(f"{where}: a pointer section of {length} bytes, expected 26 or more. The file is damaged.")
    if size != len(data):
        file.warnings.append(f"the file has {len(data)} bytes, {size} by its own count")
    file.version = data[15]
    bad = [] if binascii.crc_hqx(data[2:size], 0xFFFF) == int.from_bytes(data[:2], "little") else ["the whole file"]
    for at in range(6 + HEADER_BYTES, 6 + length - 9, 10):
        number, n_bytes, index = struct.unpack_from("<HII", data, at)
        if number == 0 or n_bytes == 0:
            continue
        begin = index - 1
        if index == 0 or begin + HEADER_BYTES > len(data):
            file.warnings.append(f"section {number} lies beyond the file's end: the file is cut short")
            continue
        section = data[begin : begin + n_bytes]
        if len(section) < n_bytes:
            file.warnings.append(f"section {number} has {len(section)} of its {n_bytes} bytes: the file is cut short")
        if number <= 12:
            if binascii.crc_hqx(section[2:], 0xFFFF) != int.from_bytes(section[:2], "little"):
                bad.append(f"section {number}")
            if int.from_bytes(section[2:4], "little") != number:
                file.warnings.append(f"the section where {number} should be says it is another: taken as {number}")
        file.sections[number] = section[HEADER_BYTES:]
    if bad:
        file.warnings.append(f"the checksum differs, so the samples may be damaged: {', '.join(bad)}")
    return file


def _needed(file: _File, number: int, n_bytes: int) -> bytes:
    """Return a section that has so many bytes.

    Raises
    ------
    ReadError
    """
    found = len(file.sections.get(number, b""))
    if found < n_bytes:
        raise ReadError(
            f"{file.where}: section {number} of {found} bytes, expected {n_bytes} or more. The file is damaged."
        )
    return file.sections[number]


def _leads(file: _File) -> tuple[list[_Lead], int]:
    """Return the leads of section 3, and its flags (5.6)."""
    body = _needed(file, 3, 2)
    count, flags = body[0], body[1]
    body = _needed(file, 3, 2 + 9 * count)
    leads = [_Lead(*struct.unpack_from("<IIB", body, 2 + 9 * i)) for i in range(count)]
    if not leads or any(not 1 <= lead.start <= lead.end for lead in leads):
        raise ReadError(f"{file.where}: leads that end before they begin, or none, in section 3. The file is damaged.")
    return leads, flags


def _rhythm(file: _File) -> tuple[list[np.ndarray], list[str], float | None, int]:
    """Return samples, lead names, rate in Hz and nV a unit of section 6, decoded (5.9; annex C)."""
    leads, flags = _leads(file)
    body = _needed(file, 6, 6 + 2 * len(leads))
    nanovolts, interval, order, bimodal = struct.unpack_from("<HHBB", body)
    span = max(lead.end for lead in leads) - min(lead.start for lead in leads) + 1
    _check_claim(file, span * len(leads), len(body))
    tables = parse_tables(file.where, file.sections[2]) if len(file.sections.get(2, b"")) >= 2 else None
    zones, protected, reference_ms, fiducial = _zones(file)
    # The "bimodal" byte is reserved from version 3 on.
    beat_interval = struct.unpack_from("<H", file.sections[5], 2)[0] if len(file.sections.get(5, b"")) >= 4 else 0
    rate_factor = _decimation(file, interval, beat_interval) if bimodal and file.version < 30 else 1
    counts = [_n_stored(lead, protected, rate_factor) for lead in leads]
    rows = _decoded(file, 6, leads, counts, tables, order)
    if rate_factor > 1:
        rows = [_full_rate(row, lead, protected, rate_factor) for row, lead in zip(rows, leads, strict=True)]
        interval = beat_interval
    if flags & 1 and zones:
        rows = _with_reference_beat(file, rows, leads, tables, zones, reference_ms, fiducial, nanovolts, interval)
    elif flags & 1:
        file.warnings.append("a reference beat was subtracted, but where is not said: QRS complexes may be missing")
    names = [LEAD_NAMES.get(lead.code, f"lead{lead.code}") for lead in leads]
    kept = [i for i, name in enumerate(names) if not says_other(name)]
    # All leads count their samples from the same instant: one that starts late was not recorded before.
    earliest = min(leads[i].start for i in kept)
    padded = [np.concatenate([np.full(leads[i].start - earliest, np.nan), rows[i]]) for i in kept]
    return padded, [names[i] for i in kept], _rate(interval), nanovolts


def _check_claim(file: _File, n_values: int, n_bytes: int) -> None:
    """Refuse more samples than a section can hold at one bit each, decimated by 8, even if half of it is missing.

    Raises
    ------
    ReadError
    """
    if n_values > VALUES_PER_BYTE * n_bytes + VALUES_FREE:
        raise ReadError(
            f"{file.where}: the header claims {n_values} samples in a section of {n_bytes} bytes, expected a plausible "
            "count. The file is damaged."
        )


def _zones(file: _File) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int]], int, int]:
    """Return QRS zones (type, start, fiducial, end), protected zones, reference beat's ms and fiducial (5.7)."""
    body = file.sections.get(4, b"")
    if len(body) < 6:
        return [], [], 0, 0
    length_ms, fiducial, count = struct.unpack_from("<HHH", body)
    n_zones = min(count, (len(body) - 6) // 14)
    n_protected = min(count, max(0, len(body) - 6 - 14 * count) // 8)
    zones = [struct.unpack_from("<HIII", body, 6 + 14 * i) for i in range(n_zones)]
    protected = [struct.unpack_from("<II", body, 6 + 14 * count + 8 * i) for i in range(n_protected)]
    if n_zones < count:
        file.warnings.append(f"section 4 has {n_zones} of its {count} QRS complexes")
    return zones, protected, length_ms, fiducial


def _decimation(file: _File, interval: int, beat_interval: int) -> int:
    """Return by what residuals outside the protected zones were decimated: section 6's interval over section 5's.

    Raises
    ------
    ReadError
        It is no whole number from 1 to 8.
    """
    factor = interval // beat_interval if beat_interval else 0
    if not 1 <= factor <= 8 or factor * beat_interval != interval:
        raise ReadError(
            f"{file.where}: residuals every {interval} us beside a reference beat every {beat_interval} us, expected a "
            "small multiple. The file is damaged, or bends the standard in an unknown way."
        )
    return factor


def _stretches(lead: _Lead, protected: list[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """Return (start, stop, protected) of the stretches of a lead, in samples from its first."""
    stretches = []
    at = 0
    for begin, end in sorted(protected):
        begin, end = max(begin - lead.start, at), min(end - lead.start + 1, lead.n_samples)
        if begin < end:
            if begin > at:
                stretches.append((at, begin, False))
            stretches.append((begin, end, True))
            at = end
    if at < lead.n_samples:
        stretches.append((at, lead.n_samples, False))
    return stretches


def _n_stored(lead: _Lead, protected: list[tuple[int, int]], factor: int) -> int:
    """Return how many samples of a lead are stored: all of protected zones, one in ``factor`` of the others."""
    if factor == 1:
        return lead.n_samples
    return sum((b - a) if kept else -(-(b - a) // factor) for a, b, kept in _stretches(lead, protected))


def _full_rate(row: np.ndarray, lead: _Lead, protected: list[tuple[int, int]], factor: int) -> np.ndarray:
    """Return a lead at its full rate; a decimated sample is the mean of ``factor`` samples, so lies amid them."""
    full = np.empty(lead.n_samples)
    at = 0
    for begin, end, kept in _stretches(lead, protected):
        n_stored = end - begin if kept else -(-(end - begin) // factor)
        values = row[at : at + n_stored]
        at += n_stored
        if kept:
            full[begin:end] = values
        else:
            centres = np.minimum(np.arange(n_stored) * factor + (factor - 1) / 2, end - begin - 1)
            full[begin:end] = np.interp(np.arange(end - begin), centres, values)
    return full


def _decoded(
    file: _File, number: int, leads: list[_Lead], counts: list[int], tables: list[Huffman] | None, order: int
) -> list[np.ndarray]:
    """Return the samples of each lead of section 5 or 6; where the section ends early the last ones are NaN."""
    if order > 2:
        raise ReadError(f"{file.where}: differences of order {order}, expected 0 to 2. The file is damaged.")
    body = _needed(file, number, 6 + 2 * len(leads))
    sizes = struct.unpack_from(f"<{len(leads)}H", body, 6)
    at = 6 + 2 * len(leads)
    rows, short = [], []
    for lead, count, n_bytes in zip(leads, counts, sizes, strict=True):
        chunk = body[at : at + n_bytes]
        at += n_bytes
        if tables is None:
            values = np.frombuffer(chunk[: 2 * count], dtype="<i2", count=min(count, len(chunk) // 2)).astype(np.int64)
        else:
            values = tables[0].decode(chunk, count, tables)
        row = np.full(count, np.nan)
        row[: len(values)] = _undo_differences(values, order)
        if len(values) < count:
            short.append(f"{LEAD_NAMES.get(lead.code, lead.code)} ({len(values)} of {count})")
        rows.append(row)
    if len(short) == len(leads) and all(np.isnan(row).all() for row in rows):
        raise ReadError(f"{file.where}: no sample can be decoded from section {number}. The file is damaged.")
    if short:
        file.warnings.append(f"section {number} ends early, the rest is taken as not recorded: {', '.join(short)}")
    return rows


def _undo_differences(values: np.ndarray, order: int) -> np.ndarray:
    """Return samples from their differences of order 0, 1 or 2, in the 16 bits that devices count in."""
    if order == 0 or len(values) == 0:
        return values
    if order == 1:
        samples = np.cumsum(values)
    else:  # x[n] = d[n] + 2 x[n-1] - x[n-2]; the first two are stored as they are
        slopes = values.copy()
        slopes[1:2] -= values[:1]
        samples = np.concatenate([values[:1], values[0] + np.cumsum(np.cumsum(slopes[1:]))])
    return samples.astype(np.int16)


def _with_reference_beat(
    file: _File,
    rows: list[np.ndarray],
    leads: list[_Lead],
    tables: list[Huffman] | None,
    zones: list[tuple[int, int, int, int]],
    reference_ms: int,
    fiducial: int,
    nanovolts: int,
    interval: int,
) -> list[np.ndarray]:
    """Return residuals with reference beat 0 added where it was subtracted, fiducial point on fiducial point (5.7)."""
    body = _needed(file, 5, 6 + 2 * len(leads))
    beat_nanovolts, beat_interval, order, _ = struct.unpack_from("<HHBB", body)
    if not nanovolts or not beat_nanovolts or not interval or beat_interval != interval:
        raise ReadError(
            f"{file.where}: a reference beat of {beat_nanovolts} nV and {beat_interval} us beside residuals of "
            f"{nanovolts} nV and {interval} us, expected the same interval. The file is damaged."
        )
    n_beat = round(reference_ms * 1000 / interval)
    _check_claim(file, n_beat * len(leads), len(body))
    beats = _decoded(file, 5, leads, [n_beat] * len(leads), tables, order)
    for row, lead, beat in zip(rows, leads, beats, strict=True):
        for kind, begin, at, end in zones:
            if kind == 0:
                shift = at - fiducial + 1  # the sample, counted from 1, under the beat's first
                first, last = max(begin, lead.start, shift), min(end, lead.end, shift + n_beat - 1)
                if first <= last:
                    part = beat[first - shift : last - shift + 1]
                    row[first - lead.start : last - lead.start + 1] += part * (beat_nanovolts / nanovolts)
    return rows


def _rate(interval_us: int) -> float | None:
    """Return the rate of an interval in whole microseconds: 3333 us are meant as 300 Hz."""
    if interval_us == 0:
        return None
    whole = round(1e6 / interval_us)
    return float(whole) if whole and round(1e6 / whole) == interval_us else 1e6 / interval_us


def _person(file: _File) -> tuple[dict[str, float | str | None], datetime | None, list[str]]:
    """Return age, sex and weight_kg, when the recording began, and remarks (5.4); no name is looked at."""
    tags: dict[int, bytes] = {}
    remarks: list[str] = []
    body, at = file.sections.get(1, b""), 0
    while at + 3 <= len(body) and body[at] != 255:
        n_bytes = int.from_bytes(body[at + 1 : at + 3], "little")
        value = body[at + 3 : at + 3 + n_bytes]
        tags.setdefault(body[at], value)
        if body[at] == 30:  # free text
            remarks.append(value.rstrip(b"\x00").decode("utf-8", errors="replace"))
        at += 3 + n_bytes
    age = weight = None
    if len(tags.get(4, b"")) >= 3 and (count := int.from_bytes(tags[4][:2], "little")):
        age = plausible_age(count * _AGE_UNITS[tags[4][2]]) if tags[4][2] in _AGE_UNITS else None
    if len(tags.get(7, b"")) >= 3 and (count := int.from_bytes(tags[7][:2], "little")):
        weight = count * _KG_PER[tags[7][2]] if tags[7][2] in _KG_PER else None
    day, clock = _day(tags.get(25, b"")), tags.get(26, b"")
    started = None
    if day and len(clock) >= 3 and clock[0] < 24 and clock[1] < 60 and clock[2] < 60:
        started = datetime(day.year, day.month, day.day, clock[0], clock[1], clock[2])
    sex = {1: "male", 2: "female"}.get(tags.get(8, b"\0")[0]) if tags.get(8) else None
    age = age if age is not None else age_at(_day(tags.get(5, b"")), day)
    return {"age": age, "sex": sex, "weight_kg": weight}, started, remarks


def _day(value: bytes) -> date | None:
    """Return a date of two bytes for the year, month and day; None if it is none."""
    try:
        return date(int.from_bytes(value[:2], "little"), value[2], value[3]) if len(value) >= 4 else None
    except ValueError:
        return None
