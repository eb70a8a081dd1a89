"""Roughly where QRS complexes are and how wide: enough to ask whether a rate or a polarity can be right, in NumPy.

`anyecg.beats` finds beats well, but it takes a prepared record and imports SciPy; a reader should do neither.
"""

from dataclasses import dataclass

import numpy as np

from anyecg.ranks import median, quantiles

SAMPLE_HZ = 250.0
"""The signal is thinned to about this rate; the slopes of a QRS complex survive."""

REFRACTORY_S = 0.2
SLOWEST_HZ = 50.0
"""Below this rate a QRS complex has two or three samples."""

WIDTH_REACH_S = 0.25


@dataclass(frozen=True, eq=False)
class Heartbeats:
    """What a short piece shows of its beats.

    Parameters
    ----------
    samples : ndarray of int, shape (n_beats,)
        Where the QRS complexes are, in samples of the piece.
    rate_bpm : float
        From the median interval.
    width_s : float
        In which the middle 80 % of a QRS complex's squared slope lie; about a third of its duration.
    """

    samples: np.ndarray
    rate_bpm: float
    width_s: float


def find_heartbeats(piece: np.ndarray, fs: float) -> Heartbeats | None:
    """Return the beats of a piece, or None if there are fewer than four.

    Parameters
    ----------
    piece : ndarray of float, shape (n_leads, n_samples)
        Without NaN. Beats are where the slopes of all leads together are steep.
    fs : float
        Hz.
    """
    if fs < SLOWEST_HZ:
        return None
    thin = max(1, int(fs / SAMPLE_HZ))
    piece, fs_thin = piece[:, ::thin], fs / thin
    step = max(1, round(0.012 * fs_thin))
    slopes = np.abs(piece[:, step:] - piece[:, :-step])
    if slopes.shape[1] < 2 * fs_thin:
        return None
    scales = quantiles(slopes[:, ::2], (0.99,)).astype(slopes.dtype)
    moving = scales[:, 0] > 0
    if not moving.any():
        return None
    slopes = slopes[moving] / scales[moving]
    window = max(1, round(0.08 * fs_thin))
    envelope = np.convolve(slopes.mean(axis=0), np.full(window, 1 / window), mode="same")
    n_two = round(2 * fs_thin)
    tops = envelope[: len(envelope) // n_two * n_two].reshape(-1, n_two).max(axis=1)
    peaks = _peaks(envelope, 0.5 * float(median(tops)), round(REFRACTORY_S * fs_thin))
    if len(peaks) < 4:
        return None
    width_s = _width_s((slopes**2).mean(axis=0), peaks, fs_thin)
    if width_s is None:
        return None
    rate_bpm = 60 * fs_thin / float(median(np.diff(peaks)))
    return Heartbeats((peaks + step // 2) * thin, rate_bpm, width_s)


def _peaks(envelope: np.ndarray, threshold: float, n_apart: int) -> np.ndarray:
    """Return the tops above a threshold; of two that are too near the higher one."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], envelope > threshold, [False]))))
    peaks: list[int] = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        top = start + int(envelope[start:stop].argmax())
        if peaks and top - peaks[-1] < n_apart:
            if envelope[top] > envelope[peaks[-1]]:
                peaks[-1] = top
        else:
            peaks.append(top)
    return np.asarray(peaks, dtype=np.int64)


def _width_s(energy: np.ndarray, peaks: np.ndarray, fs: float) -> float | None:
    reach = min(round(WIDTH_REACH_S * fs), int(0.4 * float(median(np.diff(peaks)))))
    inside = peaks[(peaks > reach) & (peaks < len(energy) - reach)]
    if len(inside) < 2:
        return None
    beat = median(energy[inside[:, None] + np.arange(-reach, reach)], axis=0)
    if len(beat) == 0:
        return None
    total = np.cumsum(np.maximum(beat - quantiles(beat, (0.2,))[0], 0))
    if total[-1] <= 0:
        return None
    # Between samples: at 100 Hz a width of one sample more or less would be a third of it.
    first, last = np.interp([0.1 * total[-1], 0.9 * total[-1]], total, np.arange(len(total)))
    return float(last - first) / fs
