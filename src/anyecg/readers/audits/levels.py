"""One pass over a record: the extremes of each lead, and ten values a second, on which most questions are decided.

Later questions look at all samples of a lead only where these figures leave them open.
"""

from dataclasses import dataclass

import numpy as np

from anyecg.record import Record

THIN_HZ = 10.0
"""Of a standstill of one second, eight values in a row remain equal."""

BLOCK_VALUES = 128_000
"""So many samples of a lead stay in the processor's cache from one reduction to the next."""


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
    stride = max(1, int(record.fs / THIN_HZ))
    if record.n_samples <= BLOCK_VALUES:
        low, high, thin = signal.min(axis=1), signal.max(axis=1), np.ascontiguousarray(signal[:, ::stride])
    else:
        low, high, thin = _by_blocks(signal, stride)
    whole = ~np.isnan(low)
    for row in np.flatnonzero(~whole):  # minimum and maximum are several times faster, but NaN if one sample is
        low[row], high[row] = np.fmin.reduce(signal[row]), np.fmax.reduce(signal[row])
    return Levels(low, high, whole, thin, stride)


def _by_blocks(signal: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return minimum, maximum and every ``stride``-th sample of each lead; memory is read once for all three."""
    n_leads, n_samples = signal.shape
    n_block = max(1, BLOCK_VALUES // stride) * stride
    starts = range(0, n_samples, n_block)
    low, high = (np.empty((n_leads, len(starts)), np.float32) for _ in range(2))
    thin = np.empty((n_leads, len(range(0, n_samples, stride))), np.float32)
    for at, row in enumerate(signal):
        for i, begin in enumerate(starts):
            block = row[begin : begin + n_block]
            low[at, i], high[at, i] = block.min(), block.max()
            first = begin // stride
            thin[at, first : first + n_block // stride] = block[::stride]
    return low.min(axis=1), high.max(axis=1), thin
