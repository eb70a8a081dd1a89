"""EDF+C (https://www.edfplus.info/specs/edfplus.html), a signal a lead, annotations and remarks as TALs.

Our own writer, since pyedflib 0.1.42 cuts annotations at 40 characters and drops those that exceed one a data record.

EDF has no value for "not recorded", and EDF+D, with gaps in time, only one for all leads at once, which few programs
read. Here a sample that was not recorded is the digital minimum, which no recorded sample of ours takes, and each
stretch is named by an annotation: ``Not recorded@@ECG V1``. Other programs show a lead at its lower rail there.
A last data record that the signal does not fill is filled likewise, after the annotation ``Recording ends``.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from fractions import Fraction
from math import ceil, floor, isfinite, isqrt, log10
from pathlib import Path

import numpy as np

from anyecg.errors import SignalError, WriteError
from anyecg.record import Annotation, Record, runs_of
from anyecg.writers import limits, notes
from anyecg.writers.counts import LARGEST_COUNT, MISSING_COUNT, ranges_mv

EQUIPMENT = "AnyECG"
"""In the recording field: the reader trusts the remarks of such a file."""

MAX_SIGNALS = 639
"""What EDFlib, which most programs use, holds beside the annotations."""

MAX_RECORD_BYTES = 61440
"""Of one data record (EDF, 1992); EDF+ keeps it as advice."""

SHORTEST_RECORD_S, LONGEST_RECORD_S = 0.1, 60.0

NARROWEST_UV = 65.535
"""A physical range below it would have steps below a nanovolt."""

LARGEST_UV = 999_999.0
"""Above a volt the range is written in mV: its ends have eight characters."""

_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what EDF+ does not hold of the record, a line each."""
    units, ranges = _physical_ranges(record)
    steps_mv = [(high - low) / 65535 * unit_mv for (_, unit_mv), (low, high) in zip(units, ranges, strict=True)]
    n_samples, duration = _data_record(record)
    lines = limits.coarse_steps(record, steps_mv)
    lines += limits.gaps(record, "the digital minimum, and named by annotations: other programs show a rail")
    lines += limits.stored_rate(record, n_samples / float(duration), "a data record lasts a number of 8 characters")
    if record.n_samples % n_samples:
        n_filled = -record.n_samples % n_samples
        lines.append(f"the last data record is filled up: other programs show {n_filled} samples more")
    lines += limits.lead_names(record, [label.removeprefix("ECG ") for label in _labels(record)])
    lines += limits.start_time(record) + limits.source_rate(record)
    return lines


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the file into ``folder`` under the name of ``path``.

    Raises
    ------
    WriteError
        There are more leads than EDF programs hold.
    SignalError
        There is no sample, or an amplitude that eight characters cannot say.
    """
    if record.n_leads > MAX_SIGNALS:
        raise WriteError(f"{path}: {record.n_leads} leads, expected at most {MAX_SIGNALS} in EDF. Choose leads.")
    units, ranges = _physical_ranges(record)
    n_per_record, duration = _data_record(record)
    n_records = ceil(record.n_samples / n_per_record)
    listed = _lists(record, n_records, n_per_record, duration)
    n_bytes = max(len(chunk) for chunk in listed)
    n_bytes += n_bytes % 2
    with (folder / path.name).open("wb") as file:
        file.write(_header(record, units, ranges, n_records, n_per_record, duration, n_bytes // 2))
        for index in range(n_records):
            first = index * n_per_record
            block = record.signal[:, first : first + n_per_record]
            counts = np.full((record.n_leads, n_per_record), MISSING_COUNT, dtype="<i2")
            for out, row, (_, unit_mv), (low, high) in zip(counts, block, units, ranges, strict=True):
                _digitise(row.astype(np.float64) / unit_mv, low, high, out[: len(row)])
            file.write(counts.tobytes())
            file.write(listed[index].ljust(n_bytes, b"\x00"))


def _digitise(values: np.ndarray, low: float, high: float, out: np.ndarray) -> None:
    """Write the counts of one lead's values into ``out``; what was not recorded stays as it is."""
    recorded = np.isfinite(values)
    counts = np.round((values[recorded] - low) / (high - low) * 65535) + MISSING_COUNT
    # Rounding at the very ends must meet neither the mark for "not recorded" nor an overflow.
    out[recorded] = np.clip(counts, MISSING_COUNT + 1, LARGEST_COUNT)


def _physical_ranges(record: Record) -> tuple[list[tuple[str, float]], list[tuple[float, float]]]:
    """Return unit (name, mV of one) and physical minimum and maximum of each lead, the narrowest that hold it.

    The minimum lies one step below the lowest sample, since its count means "not recorded".
    """
    units, ranges = [], []
    for low, high in ranges_mv(record):
        unit, unit_mv = ("uV", 1e-3) if max(abs(low), abs(high)) * 1000 < LARGEST_UV else ("mV", 1.0)
        low, high = low / unit_mv, high / unit_mv
        narrowest = NARROWEST_UV * 1e-3 / unit_mv
        if high - low < narrowest:
            middle = (low + high) / 2
            low, high = middle - narrowest / 2, middle + narrowest / 2
        units.append((unit, unit_mv))
        ranges.append((_eight(low - 1.5 * (high - low) / 65533, floor), _eight(high, ceil)))
    for lead, (low, high) in zip(record.leads, ranges, strict=True):
        if not (max(len(_decimal(low)), len(_decimal(high))) <= 8 and low < high):
            raise SignalError(
                f"{record.id}: lead {lead} from {low:g} to {high:g} mV, expected what eight characters can say. "
                "Check the unit."
            )
    return units, ranges


def _eight(value: float, rounded: Callable[[float], int]) -> float:
    """Return a number of at most eight characters, rounded down (``floor``) or up (``ceil``)."""
    digits = 1 if abs(value) < 1 else floor(log10(abs(value))) + 1
    n_decimals = max(0, 8 - digits - 1 - (value < 0))
    scale = 10**n_decimals
    return rounded(value * scale) / scale


def _decimal(value: float) -> str:
    """Return a number without exponent and trailing zeros."""
    return np.format_float_positional(value, unique=True, trim="-")


def _data_record(record: Record) -> tuple[int, Fraction]:
    """Return samples and seconds of a data record: their ratio is the rate, and the signal fills the records if it can.

    A rate of a/b Hz has a samples in b seconds: whole seconds, as the standard advises. If the signal does not fill
    those, a divisor of its length near a second is taken. A rate that has no duration in eight characters gets the
    one nearest to it.
    """
    rate = Fraction(repr(record.fs))
    plain = (rate.numerator, Fraction(rate.denominator))
    whole = plain if rate.denominator <= LONGEST_RECORD_S else None

    def small(n_samples: int) -> bool:
        return 2 * n_samples * record.n_leads <= MAX_RECORD_BYTES

    if whole and record.n_samples % whole[0] == 0 and small(whole[0]):
        return whole
    divisors = [
        n
        for n in _divisors(record.n_samples)
        if SHORTEST_RECORD_S <= n / rate <= LONGEST_RECORD_S and small(n) and _has_eight(n / rate)
    ]
    if divisors:
        n_samples = min(divisors, key=lambda n: abs(log10(n / rate)))
        return n_samples, n_samples / rate
    if whole:
        return whole
    rounded = [(n, Fraction(_decimal(_eight(n / record.fs, round)))) for n in _near_seconds(record.fs)]
    return min(rounded, key=lambda choice: abs(choice[0] / choice[1] / rate - 1))


def _near_seconds(fs: float) -> list[int]:
    """Return the samples of 1 s, 2 s ... 59 s, rounded."""
    return [max(1, round(seconds * fs)) for seconds in range(1, int(LONGEST_RECORD_S))]


def _divisors(number: int) -> list[int]:
    """Return all divisors."""
    low = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return [*low, *(number // n for n in low)]


def _has_eight(seconds: Fraction) -> bool:
    """Return whether seconds are a decimal of at most eight characters."""
    text = _decimal(float(seconds))
    return len(text) <= 8 and Fraction(text) == seconds


def _labels(record: Record) -> list[str]:
    """Return a unique ASCII label of at most 16 characters for each lead: ``ECG V1`` (EDF+, standard texts)."""
    labels: list[str] = []
    for lead in record.leads:
        label = f"ECG {_ascii(lead)}"[:16].strip()
        count = 1
        while label in labels:
            count += 1
            label = f"{label[: 15 - len(str(count))]}#{count}"
        labels.append(label)
    return labels


def _ascii(text: str) -> str:
    """Return a text in printable ASCII, as EDF's header wants it."""
    return "".join(char if " " <= char <= "~" else "_" for char in " ".join(text.split()))


def _header(
    record: Record,
    units: list[tuple[str, float]],
    ranges: list[tuple[float, float]],
    n_records: int,
    n_per_record: int,
    duration: Fraction,
    n_listed: int,
) -> bytes:
    """Return the header: 256 bytes, then 256 bytes a signal, field by field. The order of fields is the standard's."""
    time = record.start_time
    sex = {"male": "M", "female": "F"}.get(record.sex or "", "X")
    day = f"{time.day:02d}-{_MONTHS[time.month - 1]}-{time.year:04d}" if time else "X"
    seconds = _decimal(float(duration))
    n_leads = record.n_leads
    fixed = [
        ("0", 8),
        (f"X {sex} X X", 80),
        (f"Startdate {day} X X {EQUIPMENT}", 80),
        (_clock_date(time), 8),
        (f"{time:%H.%M.%S}" if time else "00.00.00", 8),
        (str(256 * (n_leads + 2)), 8),
        ("EDF+C", 44),
        (str(n_records), 8),
        (seconds, 8),
        (str(n_leads + 1), 4),
    ]
    columns: list[tuple[list[str], int]] = [
        ([*_labels(record), "EDF Annotations"], 16),
        ([*(_origin(record, lead) for lead in record.leads), ""], 80),
        ([*(unit for unit, _ in units), ""], 8),
        ([*(_decimal(low) for low, _ in ranges), "-1"], 8),
        ([*(_decimal(high) for _, high in ranges), "1"], 8),
        ([str(MISSING_COUNT)] * (n_leads + 1), 8),
        ([str(LARGEST_COUNT)] * (n_leads + 1), 8),
        ([""] * (n_leads + 1), 80),
        ([*([str(n_per_record)] * n_leads), str(n_listed)], 8),
        ([""] * (n_leads + 1), 32),
    ]
    fields = [*fixed, *((text, width) for texts, width in columns for text in texts)]
    assert all(len(text) <= width for text, width in fields), fields
    return "".join(text.ljust(width) for text, width in fields).encode("ascii")


def _clock_date(time: datetime | None) -> str:
    """Return dd.mm.yy; the recording field has the full year.

    Outside 1985 ... 2084 the standard (EDF+, 2.1.3.2) writes the letters ``yy``, which EDFlib refuses to read.
    """
    if time is None:
        return "01.01.85"
    return f"{time.day:02d}.{time.month:02d}.{time.year % 100:02d}"


def _origin(record: Record, lead: str) -> str:
    """Return the transducer field: an electrode, unless no electrode measured the lead."""
    if lead in record.restored:
        return "none: generated by a model, not measured"
    return "none: computed from other leads" if lead in record.derived else ""


def _lists(record: Record, n_records: int, n_per_record: int, duration: Fraction) -> list[bytes]:
    """Return the time-stamped annotations lists (TALs) of each data record: its own time first, then what fits."""
    offset = Fraction(record.start_time.microsecond if record.start_time else 0, 10**6)
    marks = [_tal(offset + Fraction(start), length_s, text) for start, length_s, text in _marks(record, n_per_record)]
    clocks = [_tal(offset + index * duration, None, "") for index in range(n_records)]
    # As much room in each record as an even share takes, and the longest list: then all of them fit in their order.
    room = max((len(mark) for mark in marks), default=0) + ceil(sum(map(len, marks)) / n_records)
    lists, at = [], 0
    for clock in clocks:
        chunk = bytearray(clock)
        while at < len(marks) and len(chunk) - len(clock) + len(marks[at]) <= room:
            chunk += marks[at]
            at += 1
        lists.append(bytes(chunk))
    assert at == len(marks), "annotations left over"
    return lists


def _tal(onset_s: Fraction, length_s: float | None, text: str) -> bytes:
    """Return one time-stamped annotations list (EDF+, 2.2.2)."""
    length = "" if length_s is None else f"\x15{_seconds(length_s)}"
    plain = "".join(char if char >= " " else " " for char in text)
    return f"{'' if onset_s < 0 else '+'}{_seconds(float(onset_s))}{length}\x14{plain}\x14\x00".encode()


def _seconds(value: float) -> str:
    """Return seconds to a microsecond."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _marks(record: Record, n_per_record: int) -> Iterator[tuple[float, float | None, str]]:
    """Yield onset, duration and text: first what is to know of the file, then the annotations and gaps in time."""
    for line in notes.signed(record, person=("age", "weight_kg"), width=100):
        yield 0.0, None, line
    labels = dict(zip(record.leads, _labels(record), strict=True))
    marks = [*_annotated(record, labels), *_gaps(record, labels)]
    if record.n_samples % n_per_record:
        marks.append((record.duration_s, None, "Recording ends"))
    yield from sorted(marks, key=lambda mark: mark[0])


def _annotated(record: Record, labels: dict[str, str]) -> Iterator[tuple[float, float | None, str]]:
    """Yield the record's annotations as ``kind: code``, with a model's score, and ``@@label`` of one lead's."""
    for annotation in record.annotations:
        end_s = annotation.end_s if isfinite(annotation.end_s) else record.duration_s
        length_s = max(0.0, end_s - annotation.start_s) or None
        yield annotation.start_s, length_s, _text(annotation, labels)


def _text(annotation: Annotation, labels: dict[str, str]) -> str:
    score = "" if annotation.score is None else f" (score {annotation.score:g})"
    label = "" if annotation.lead is None else f"@@{labels.get(annotation.lead, annotation.lead)}"
    return f"{annotation.kind}: {annotation.code}{score}{label}"


def _gaps(record: Record, labels: dict[str, str]) -> Iterator[tuple[float, float | None, str]]:
    """Yield what was not recorded: of all leads at once, and then of single ones."""
    missing = np.isnan(record.signal)
    everywhere = missing.all(axis=0)
    for first, stop in runs_of(everywhere):
        yield first / record.fs, (stop - first) / record.fs, "Not recorded"
    if record.n_leads > 1:
        for lead, row in zip(record.leads, missing, strict=True):
            for first, stop in runs_of(row & ~everywhere):
                yield first / record.fs, (stop - first) / record.fs, f"Not recorded@@{labels[lead]}"
