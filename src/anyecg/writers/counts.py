"""mV -> 16-bit counts: each lead with the finest round step its range allows, and one count for "not recorded"."""

from pathlib import Path

import numpy as np

from anyecg.errors import SignalError, WriteError
from anyecg.record import Record

LARGEST_COUNT = 32767
MISSING_COUNT = -32768
"""No sample. So in WFDB's format 16 (signal-5); devices write it for a lead that is off (ISHNE 1998; MUSE)."""

FINEST_UNITS_PER_MV = 1_000_000.0
"""A nanovolt: finer than any device, and than float32 from 8 mV on."""

MAX_TEXT_VALUES = 30_000_000
"""Of a record in one XML or JSON document, about 200 MB: readers parse it as a whole, to several times its size."""

_DECIMALS = (1.0, 2.0, 2.5, 4.0, 5.0, 8.0)
"""Their inverses are short decimals too, so that a step is written exactly: 1, 0.5, 0.4, 0.25, 0.2, 0.125."""


def to_counts(record: Record) -> tuple[np.ndarray, list[float], list[int]]:
    """Return counts, and the gain (units per mV) and baseline of each lead: mV = (count - baseline) / gain.

    Returns
    -------
    counts : ndarray of int16, shape (n_leads, n_samples)
    gains : list of float
    baselines : list of int

    Raises
    ------
    SignalError
        There is no sample, or a lead is beyond what 16 bits hold at one count a volt.
    """
    counts = np.full(record.signal.shape, MISSING_COUNT, dtype=np.int16)
    gains, baselines = [], []
    for out, row, (low, high) in zip(counts, record.signal, ranges_mv(record), strict=True):
        gain, baseline = gain_for(low, high)
        recorded = np.isfinite(row)
        out[recorded] = np.round(row[recorded].astype(np.float64) * gain).astype(np.int64) + baseline
        gains.append(gain)
        baselines.append(baseline)
    return counts, gains, baselines


def ranges_mv(record: Record) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of each lead in mV; zeros where nothing was recorded.

    Raises
    ------
    SignalError
        There is no sample.
    """
    if record.n_samples == 0 or record.n_leads == 0:
        raise SignalError(f"{record.id}: no sample to write, expected at least one. Choose another record.")
    ranges = []
    for row in record.signal:
        recorded = row[np.isfinite(row)]
        ranges.append((float(recorded.min()), float(recorded.max())) if len(recorded) else (0.0, 0.0))
    return ranges


def gains_of(record: Record) -> list[float]:
    """Return the gain that `to_counts` will choose for each lead, in units per mV."""
    return [gain_for(low, high)[0] for low, high in ranges_mv(record)]


def refuse_long_text(record: Record, path: Path) -> None:
    """Refuse a record that would make a document too long to be read again.

    Raises
    ------
    WriteError
    """
    if record.signal.size > MAX_TEXT_VALUES:
        raise WriteError(
            f"{path}: {record.signal.size} values, expected at most {MAX_TEXT_VALUES} in a text document. Choose a "
            "slice with a start and an end, or WFDB or EDF."
        )


def gain_for(low_mv: float, high_mv: float) -> tuple[float, int]:
    """Return the finest round gain and a baseline with which a range of mV fits into 16 bits.

    Examples
    --------
    >>> gain_for(-1.0, 2.0)
    (10000.0, 0)
    >>> gain_for(0.0, 0.0)
    (1000.0, 0)
    """
    largest = max(abs(low_mv), abs(high_mv))
    if largest == 0:
        return 1000.0, 0
    centre = 0.0
    if largest > high_mv - low_mv:  # mostly an offset: its middle becomes count 0, rather than lose resolution to it
        centre = (low_mv + high_mv) / 2
        largest = (high_mv - low_mv) / 2
    power = 10.0 ** np.arange(-3, 7)
    allowed = np.sort(np.outer(power, _DECIMALS).ravel())
    fitting = allowed[(allowed * max(largest, 1e-9) + 1 <= LARGEST_COUNT) & (allowed <= FINEST_UNITS_PER_MV)]
    # The baseline is an int32 for wfdb: a large offset limits the gain too.
    fitting = fitting[fitting * abs(centre) < 2**31 - 2]
    if len(fitting) == 0:
        raise SignalError(f"{low_mv:.4g} to {high_mv:.4g} mV do not fit into 16 bits. Check the unit.")
    gain = float(fitting[-1])
    return gain, -round(centre * gain)
