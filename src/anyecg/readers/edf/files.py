"""EDF, EDF+ and BDF (https://www.edfplus.info/specs), a slice at a time; EDF+D by `anyecg.readers.edf.gaps`."""

from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.edf import gaps
from anyecg.readers.edf.layout import Channel, Layout, after, blocks, counts_of, data_records, onsets_in, parse_layout
from anyecg.readers.edf.notes import MISSING_COUNT, EdfNotes, is_ours, notes_between, read_notes
from anyecg.readers.notes import with_notes
from anyecg.readers.patient import age_at, sex_from_text
from anyecg.readers.slices import OWN_COUNT, Extent, between, check_size, sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record

NAME = "edf"
GROWS = True
"""Its size tells its length: it can be read while it is written."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file starts with the version field of EDF or BDF."""
    return head.startswith((b"0       ", b"\xffBIOSEMI"))


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the ECG channels; those of a lower rate are brought to the highest one among them.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    warnings: list[str] = []
    layout = parse_layout(path)
    _compare(layout, warnings)
    channels = choose_channels(where, list(layout.channels), warnings)
    ours = is_ours(path)
    if layout.discontinuous:
        return gaps.read(layout, channels, _names(channels, ours), warnings, start_s, end_s, fs, unit)
    notes = read_notes(layout) if ours else EdfNotes(zero_s=_zero_s(layout, warnings))
    factors = [unit_of(where, channel.dimension or None, unit) for channel in channels]
    rate = rate_of(where, max(c.rate_hz for c in channels), fs)
    first, last = sample_range(where, _n_samples(layout, channels, notes, rate), rate, start_s, end_s, warnings)
    check_size(where, len(channels) * (last - first), path.stat().st_size)
    signal = _signal(layout, channels, factors, rate, (first, last), ours)
    start_time = after(layout.start_time, notes.zero_s)
    if slow := [c.label for c in channels if c.rate_hz < rate]:
        warnings.append(f"recorded at a lower rate and brought to {rate:g} Hz: {', '.join(slow)}")
    if ours:
        annotations = between(notes.annotations, first / rate, last / rate)
    else:
        annotations = notes_between(layout, notes.zero_s, first / rate, last / rate)
    record = Record(
        signal=signal,
        fs=rate,
        leads=rows_with_names(_names(channels, ours), warnings),
        id=path.stem,
        format=NAME,
        age=age_at(layout.birth_date, start_time),
        sex=sex_from_text(layout.sex),
        start_time=after(start_time, first / rate),
        start_s=first / rate,
        annotations=annotations,
        warnings=tuple(warnings),
    )
    return with_notes(record, notes.remarks)


def extent(path: Path, fs: float | None, unit: str | None) -> Extent:
    """Return how long a file is, by its size.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    layout = parse_layout(path)
    channels = choose_channels(where, list(layout.channels), [])
    rate = rate_of(where, max(c.rate_hz for c in channels), fs)
    ours = is_ours(path)
    names = rows_with_names(_names(channels, ours), [])
    if layout.discontinuous:
        return Extent(gaps.n_samples_of(layout, rate), rate, names)
    notes = read_notes(layout) if ours else EdfNotes()
    return Extent(_n_samples(layout, channels, notes, rate), rate, names)


def _names(channels: list[Channel], ours: bool) -> list[str]:
    """Return the leads' names; our writer put the kind of signal before each, as EDF+ asks."""
    return [c.label.removeprefix("ECG ") if ours else c.label for c in channels]


def _compare(layout: Layout, warnings: list[str]) -> None:
    """Say it if the file holds another number of data records than its header says: it is read as far as it goes."""
    if layout.stated_records != layout.n_records:
        why = "cut short" if layout.n_records < layout.stated_records else "not closed by the recorder"
        warnings.append(
            f"the file was {why}: it has {layout.n_records} data records, {layout.stated_records} {OWN_COUNT}"
        )


def _zero_s(layout: Layout, warnings: list[str]) -> float:
    """Return when the first data record begins, counted from the start time: EDF+ says it to a fraction of a second."""
    if not layout.annotations:
        return 0.0
    try:
        return float(onsets_in(layout, data_records(layout, 0, 1), 0)[0])
    except ReadError as error:
        warnings.append(f"annotations not read: {str(error).removeprefix(f'{layout.path}: ')}")
        return 0.0


def _n_samples(layout: Layout, channels: list[Channel], notes: EdfNotes, rate: float) -> int:
    """Return the samples at a rate of a continuous file."""
    n_samples = round(max(c.n_samples * layout.n_records / c.rate_hz for c in channels) * rate)
    if notes.end_s is not None:  # the last data record is filled up
        n_samples = min(n_samples, round(notes.end_s * rate))
    return n_samples


def _signal(
    layout: Layout, channels: list[Channel], factors: list[float], rate: float, span: tuple[int, int], ours: bool
) -> np.ndarray:
    """Return the samples of a span, counted at ``rate``, of all channels as float32 mV, (n_channels, n)."""
    n_wanted = span[1] - span[0]
    spans = [(round(span[0] * c.rate_hz / rate), round(span[1] * c.rate_hz / rate)) for c in channels]
    one_rate = all(end - begin == n_wanted for begin, end in spans)
    signal = np.empty((len(channels) if one_rate else 0, n_wanted), dtype=np.float32)
    rows = list(signal) if one_rate else [np.empty(end - begin, dtype=np.float32) for begin, end in spans]
    for row, channel, (begin, _) in zip(rows, channels, spans, strict=True):
        row[max(0, channel.n_samples * layout.n_records - begin) :] = np.nan
    first = min(begin // c.n_samples for c, (begin, _) in zip(channels, spans, strict=True))
    last = max(-(-end // c.n_samples) for c, (_, end) in zip(channels, spans, strict=True))
    for number, records in blocks(layout, first, last):
        for row, channel, factor, (begin, end) in zip(rows, channels, factors, spans, strict=True):
            at = number * channel.n_samples
            counts = counts_of(layout, channel, records).reshape(-1)
            low, high = max(begin, at), min(end, at + len(counts))
            if low < high:
                _to_mv(counts[low - at : high - at], channel, factor, ours, row[low - begin : high - begin])
    return signal if one_rate else to_one_rate(rows, [c.rate_hz for c in channels], n_wanted)


def _to_mv(counts: np.ndarray, channel: Channel, factor: float, ours: bool, out: np.ndarray) -> None:
    """Write counts as mV into ``out``."""
    values = (counts - channel.digital_min) * channel.step + channel.physical_min
    if ours:
        values[counts == MISSING_COUNT] = np.nan
    np.multiply(values, factor, out=out, casting="unsafe")


def choose_channels(where: str, channels: list[Channel], warnings: list[str]) -> list[Channel]:
    """Return the channels that say ECG or name a lead; if none does, all voltages that say nothing else.

    Raises
    ------
    ReadError
        There is none.
    """
    voltages = [c for c in channels if not c.dimension or mv_per(c.dimension) is not None]
    chosen = [c for c in voltages if says_ecg(c.label)]
    if not chosen:
        chosen = [c for c in voltages if c.dimension and not says_other(c.label)]
        if chosen:
            warnings.append(f"no channel says that it is an ECG: taken as one: {', '.join(c.label for c in chosen)}")
    skipped = [c.label or f"signal {c.index + 1}" for c in channels if c not in chosen]
    if not chosen:
        raise ReadError(f"{where}: no ECG among {', '.join(skipped)}, expected at least one lead. Choose another file.")
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    return chosen
