"""Amplitudes that no heart has: a unit mistaken for another, and the power of 1000 that mends it."""

from math import log

import numpy as np

from anyecg.ranks import median, quantiles
from anyecg.readers.audits.levels import Levels
from anyecg.record import Record

LARGEST_MV = 1000**0.5
"""31.6 mV: half of the leads together never span more. A paced or athletic heart stays below 15 mV. Above it, a
thousandth is nearer to the 1 mV of a usual QRS complex, on a logarithmic scale, than the number itself."""

SMALLEST_MV = 0.02
"""A recorded lead spans more: 20 uV is the noise of an amplifier."""

PEAKED = 4.5
"""Span over the interquartile range: Gaussian noise has 3.8, 99 % of 140 records of CinC 2017 5.2 and more."""

MOST_SECONDS = 60
"""Seconds that are looked at, spread over the record."""

SAMPLE_HZ = 125
"""What is looked at of a second: enough to meet the tops of QRS complexes now and then."""

_MEANT = {
    1: "microvolts read as millivolts",
    2: "nanovolts read as millivolts",
    -1: "volts read as millivolts, or millivolts as microvolts",
    -2: "volts read as microvolts",
}


def implausible_gain(record: Record, levels: Levels, *, fix: bool) -> tuple[Record, list[str]]:
    """Return the record and a warning if its amplitudes look like a wrong unit; with ``fix``, corrected.

    The span of a lead is that between the 0.5th and the 99.5th percentile, so that a spike does not count; the wander
    is taken out with the median of each second. A record is too large if the median of its leads is, so that a lead
    that is off does not count, and too small if all its leads are. It is corrected only if it is peaked as an ECG is.
    """
    if not record.gain_known:
        return record, []
    # Without the wander, no lead spans more than twice its range: few records are worth a closer look at every lead.
    if not (2 * (levels.high - levels.low) > LARGEST_MV).any() and any(
        (found := _span_and_peakedness(row, record.fs)) is not None and found[0] >= SMALLEST_MV for row in record.signal
    ):
        return record, []
    measured = [found for row in record.signal if (found := _span_and_peakedness(row, record.fs)) is not None]
    spans = [span for span, _ in measured if span > 0]
    if not spans:
        return record, []
    largest, middle = max(spans), float(np.median(spans))
    if middle <= LARGEST_MV and largest >= SMALLEST_MV:
        return record, []
    span = middle if middle > LARGEST_MV else largest
    power = round(log(span, 1000)) or (1 if span > 1 else -1)
    peaked = float(np.median([value for _, value in measured])) >= PEAKED
    meant = _MEANT.get(power)
    text = f"an amplitude of {span:.4g} mV is implausible: probably a unit error"
    if meant is None or not peaked:
        return record, [f"{text}, leads that are off, or nothing was connected"]
    if not fix:
        # A message of one line that both the caller of `read` and the user of a command can follow.
        return record, [f"{text} ({meant}); --fix-units (fix_units=True) corrects it"]
    factor = 1000.0**-power
    fixed = record.with_(signal=(record.signal * np.float32(factor)).astype(np.float32))
    return fixed, [f"{text} ({meant}): multiplied by {factor:g} as asked for"]


def _span_and_peakedness(row: np.ndarray, fs: float) -> tuple[float, float] | None:
    """Return the robust span of one lead in mV, wander removed, and how peaked it is; None if nothing was recorded."""
    n_second = max(1, round(fs))
    n_whole = len(row) // n_second
    if n_whole:
        seconds = row[: n_whole * n_second].reshape(-1, n_second)[:: max(1, n_whole // MOST_SECONDS)]
        seconds = seconds[:, :: max(1, n_second // SAMPLE_HZ)]
        recorded = np.isfinite(seconds).all(axis=1)
        if recorded.any():
            seconds = seconds[recorded]
            row = (seconds - median(seconds)[:, None]).ravel()
    row = row[: 2 * MOST_SECONDS * n_second]  # where no second is whole
    row = row[np.isfinite(row)]
    if len(row) == 0:
        return None
    low, lower, upper, high = quantiles(row, (0.005, 0.25, 0.75, 0.995)).tolist()
    return high - low, (high - low) / max(upper - lower, 1e-9)
