"""EDF+D and BDF+D: data records that lie apart in time, put where their time says; between them nothing is recorded."""

import numpy as np

from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import to_one_rate
from anyecg.readers.edf.layout import (
    Channel,
    Layout,
    after,
    annotations_of,
    counts_of,
    data_records,
    record_onsets_s,
)
from anyecg.readers.patient import age_at, sex_from_text
from anyecg.readers.slices import between, check_size, sample_range
from anyecg.readers.units import rate_of, unit_of
from anyecg.record import Record


def read(
    layout: Layout,
    channels: list[Channel],
    names: list[str],
    warnings: list[str],
    start_s: float | None,
    end_s: float | None,
    fs: float | None,
    unit: str | None,
) -> Record:
    """Read channels of a discontinuous file; only the data records of the slice are touched.

    Parameters
    ----------
    layout : Layout
    channels : list of Channel
    names : list of str
        What the leads are called, one a channel.
    warnings : list of str
        What was said so far.
    start_s, end_s, fs, unit
        See `anyecg.readers.read`.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    path, where = layout.path, str(layout.path)
    factors = [unit_of(where, channel.dimension or None, unit) for channel in channels]
    rate = rate_of(where, max(c.rate_hz for c in channels), fs)
    onsets_s = record_onsets_s(layout)
    zero_s = float(onsets_s[0])
    begins_s = onsets_s - zero_s
    n_samples = n_samples_of(layout, rate)
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    check_size(where, len(channels) * (last - first), path.stat().st_size)

    inside = (begins_s < last / rate) & (begins_s + layout.duration_s > first / rate)
    chosen = np.flatnonzero(inside)
    wanted = slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0, 0)
    records = data_records(layout, wanted.start, wanted.stop)
    rows = [
        _row(layout, channel, records, begins_s[wanted], first / rate, last / rate) * np.float32(factor)
        for channel, factor in zip(channels, factors, strict=True)
    ]
    if slow := [c.label for c in channels if c.rate_hz < rate]:
        warnings.append(f"recorded at a lower rate and brought to {rate:g} Hz: {', '.join(slow)}")
    start_time = after(layout.start_time, zero_s)
    notes = annotations_of(layout, records)
    return Record(
        signal=to_one_rate(rows, [c.rate_hz for c in channels], last - first),
        fs=rate,
        leads=rows_with_names(names, warnings),
        id=path.stem,
        format="edf",
        age=age_at(layout.birth_date, start_time),
        sex=sex_from_text(layout.sex),
        start_time=after(start_time, first / rate),
        start_s=first / rate,
        annotations=between(notes, zero_s + first / rate, zero_s + last / rate),
        warnings=tuple(warnings),
    )


def n_samples_of(layout: Layout, rate: float) -> int:
    """Return the samples of a discontinuous file at a rate, its gaps counted.

    Raises
    ------
    ReadError
        A data record has no time.
    """
    onsets_s = record_onsets_s(layout)
    return round((float(onsets_s[-1] - onsets_s[0]) + layout.duration_s) * rate)


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
