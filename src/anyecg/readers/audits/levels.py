"""One pass over a record: the extremes of each lead, and ten values a second, on which most questions are decided.

Later questions look at all samples of a lead only where these figures leave them open.
"""

from dataclasses import dataclass

import numpy as np

from anyecg.record import Record

THIN_HZ = 10.0
"""Of a standstill of one second, eight values in a row remain equal."""

BLOCK_VALUES = 200_000
"""So many samples stay in the processor's cache between the two reductions."""


@dataclass(frozen=True, eq=False)
class Levels:
    """What one pass over a record shows.

    Parameters
    ----------
    low, high : ndarray of float32, shape (n_leads,)
        Extremes of the recorded samples, mV; NaN where nothing is recorded.
    whole : ndarray of bool, shape (n_leads,)
        No sample of the lead is missing.
    thin : ndarray of float32, shape (n_leads, n_thin)
        Every ``stride``-th sample, about `THIN_HZ` or all.
    stride : int
    """

    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    thin: np.ndarray
    stride: int


def levels_of(record: Record) -> Levels:
    """Return the levels of a record."""
    signal = record.signal
    n_block = max(1, BLOCK_VALUES // max(1, record.n_leads))
    low, high = np.full(record.n_leads, np.inf, np.float32), np.full(record.n_leads, -np.inf, np.float32)
    for begin in range(0, record.n_samples, n_block):
        block = signal[:, begin : begin + n_block]
        np.minimum(low, block.min(axis=1), out=low)
        np.maximum(high, block.max(axis=1), out=high)
    whole = ~np.isnan(low)
    for row in np.flatnonzero(~whole):  # minimum and maximum are several times faster, but NaN if one sample is
        low[row], high[row] = np.fmin.reduce(signal[row]), np.fmax.reduce(signal[row])
    stride = max(1, int(record.fs / THIN_HZ))
    return Levels(low, high, whole, np.ascontiguousarray(signal[:, ::stride]), stride)
