"""EDF+D and BDF+D: data records that lie apart in time, put where their time says; between them nothing is recorded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import to_one_rate
from anyecg.readers.edf.layout import (
    Channel,
    Layout,
    after,
    annotations_of,
    counts_of,
    data_records,
    parse_layout,
    record_onsets_s,
)
from anyecg.readers.edf.notes import between
from anyecg.readers.patient import age_at, sex_from_text
from anyecg.readers.slices import check_size, sample_range
from anyecg.readers.units import rate_of, unit_of
from anyecg.record import Annotation, Record


def read(
    path: Path,
    start_s: float | None,
    end_s: float | None,
    fs: float | None,
    unit: str | None,
    *,
    choose: Callable[[str, list[Channel], list[str]], list[Channel]],
) -> Record:
    """Read the ECG channels of a discontinuous file; only the data records of the slice are touched.

    Parameters
    ----------
    path, start_s, end_s, fs, unit
        See `anyecg.readers.read`.
    choose : callable
        ``(where, channels, warnings) -> channels``: which of them are ECG.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    warnings: list[str] = []
    layout = parse_layout(path)
    channels = choose(where, list(layout.channels), warnings)
    factors = [unit_of(where, channel.dimension or None, unit) for channel in channels]
    rate = rate_of(where, max(c.rate_hz for c in channels), fs)
    records = data_records(layout)
    onsets_s = record_onsets_s(layout, records)
    zero_s = float(onsets_s[0])
    begins_s = onsets_s - zero_s
    n_samples = round((float(begins_s[-1]) + layout.duration_s) * rate)
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    check_size(where, len(channels) * (last - first), path.stat().st_size)

    inside = (begins_s < last / rate) & (begins_s + layout.duration_s > first / rate)
    chosen = np.flatnonzero(inside)
    wanted = slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0, 0)
    rows = [
        _row(layout, channel, records[wanted], begins_s[wanted], first / rate, last / rate) * np.float32(factor)
        for channel, factor in zip(channels, factors, strict=True)
    ]
    if slow := [c.label for c in channels if c.rate_hz < rate]:
        warnings.append(f"recorded at a lower rate and brought to {rate:g} Hz: {', '.join(slow)}")
    start_time = after(layout.start_time, zero_s)
    notes = annotations_of(layout, records[wanted])
    return Record(
        signal=to_one_rate(rows, [c.rate_hz for c in channels], last - first),
        fs=rate,
        leads=rows_with_names(where, [c.label for c in channels], warnings),
        id=path.stem,
        format="edf",
        age=age_at(layout.birth_date, start_time),
        sex=sex_from_text(layout.sex),
        start_time=after(start_time, first / rate),
        start_s=first / rate,
        annotations=between(notes, zero_s + first / rate, zero_s + last / rate),
        warnings=tuple(warnings),
    )


def _row(
    layout: Layout, channel: Channel, records: np.ndarray, begins_s: np.ndarray, from_s: float, to_s: float
) -> np.ndarray:
    """Return a channel between two seconds in its own unit, at its own rate; NaN where no data record lies."""
    first, last = round(from_s * channel.rate_hz), round(to_s * channel.rate_hz)
    row = np.full(last - first, np.nan, dtype=np.float32)
    counts = counts_of(layout, channel, records)
    end = 0
    for values, begin_s in zip(counts, begins_s, strict=True):
        # Records that follow each other stay so where their times are rounded.
        at = round(begin_s * channel.rate_hz)
        at = end if abs(at - end) <= 1 and end else at
        end = at + len(values)
        low, high = max(at, first), min(end, last)
        if low < high:
            found = values[low - at : high - at]
            row[low - first : high - first] = (found - channel.digital_min) * channel.step + channel.physical_min
    return row


def notes_between(path: Path, start_s: float, end_s: float, warnings: list[str]) -> tuple[Annotation, ...]:
    """Return the annotations of a continuous file that stand in the data records of a slice, counted from its start.

    A file whose annotations cannot be read keeps its signal: that is reported in ``warnings``.
    """
    try:
        layout = parse_layout(path)
        if not layout.annotations or layout.duration_s <= 0:
            return ()
        records = data_records(layout)
        zero_s = float(record_onsets_s(layout, records[:1])[0])
    except ReadError as error:
        warnings.append(f"annotations not read: {str(error).removeprefix(f'{path}: ')}")
        return ()
    wanted = slice(int(start_s // layout.duration_s), int(end_s // layout.duration_s) + 1)
    return between(annotations_of(layout, records[wanted]), zero_s + start_s, zero_s + end_s)
