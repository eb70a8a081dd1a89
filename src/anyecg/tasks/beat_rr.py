"""R peaks -> what the RR intervals say of each beat: early or late, beside what is usual, and in what kind of run.

The numbers of the head ``beats`` that need no signal: day-long annotations without one can teach what they mean.

    n beats, R features
"""

import numpy as np

RR_LIMITS_S = (0.15, 4.0)
"""RR intervals are clipped here: shorter is a false beat, longer a gap or a pause; how long does not matter."""

RR_NEAR = tuple(range(-5, 7))
"""RR intervals about a beat that are features: 0 is the one before it, 1 the one after."""

RR_WINDOWS = (11, 61, 301, 1801)
"""Beats about a beat whose median RR is what is usual: ten seconds to half an hour."""

QUANTILES = (10, 25, 75, 90, 97)
"""Per cent of the RR intervals of 301 beats. Where most beats are early the median is theirs; high ones are not."""

LONG, LONG_WINDOW = 90, 301
"""The quantile, and the beats, whose RR is long: that of the sinus node, though nine beats in ten be early."""

SHORT = 0.12
"""Intervals shorter than a long one by so much, in logarithms, follow one another in a run: 11 %."""

REACHES = (4, 12, 40)
"""RR intervals to one side whose longest is compared with."""

LIMIT = 1.5
"""Logarithms of ratios to single intervals are clipped here: a gap is no pause."""


def rr_features(r_peaks_s: np.ndarray) -> np.ndarray:
    """Return what the RR intervals say of each beat.

    Parameters
    ----------
    r_peaks_s : ndarray of float, shape (n,)
        Seconds, ascending.

    Returns
    -------
    ndarray of float32, shape (n, R)
        Logarithms of ratios, so that a fast heart and a slow one look alike, and of numbers of beats; the last is the
        usual RR itself, log s.
    """
    from scipy.ndimage import percentile_filter, uniform_filter1d

    n = len(r_peaks_s)
    if n < 2:
        return np.zeros((n, N_RR_FEATURES), dtype=np.float32)
    rr = np.log(np.clip(np.diff(r_peaks_s), *RR_LIMITS_S))
    rr = np.concatenate([rr[:1], rr, rr[-1:]])  # rr[i] is before beat i, rr[i + 1] after it

    def usual(percent: float, beats: int) -> np.ndarray:
        return np.asarray(percentile_filter(rr, percent, size=min(beats, len(rr)), mode="nearest"))

    def mean(values: np.ndarray, beats: int) -> np.ndarray:
        return np.asarray(uniform_filter1d(values, min(beats, len(rr)), mode="nearest"))

    median = {beats: usual(50, beats) for beats in RR_WINDOWS}
    long = usual(LONG, LONG_WINDOW)
    reach = -min(RR_NEAR)
    padded = np.pad(rr, (reach, max(RR_NEAR)), mode="edge")
    near = np.stack([padded[reach + k : reach + k + n] for k in RR_NEAR])
    step = np.abs(np.diff(rr, prepend=rr[0]))
    early = (rr < median[61] - 0.15).astype(np.float64)
    means = [np.log(mean(np.exp(rr), beats)) for beats in RR_WINDOWS]  # of seconds: a pause counts for what it is
    columns = [
        *np.clip(near - median[61][:n], -LIMIT, LIMIT),
        *(rr[:n] - median[beats][:n] for beats in RR_WINDOWS),
        *(rr[1:] - median[beats][1:] for beats in RR_WINDOWS[:2]),
        *(rr[:n] - usual(80, beats)[:n] for beats in RR_WINDOWS[:3]),
        *(mean(step, beats)[:n] for beats in RR_WINDOWS[:3]),
        *(usual(90, beats)[:n] - usual(10, beats)[:n] for beats in RR_WINDOWS[1:3]),
        *(mean(early, beats)[:n] for beats in RR_WINDOWS[:3]),
        *(rr[:n] - m[:n] for m in means),
        *(rr[1:] - m[1:] for m in means[:2]),
        *(rr[:n] - usual(percent, LONG_WINDOW)[:n] for percent in QUANTILES),
        *(rr[:n] - usual(LONG, beats)[:n] for beats in (61, 1801)),
        rr[1:] - long[1:],
        *_longest_near(rr),
        *_runs(rr, long),
        median[61][:n],
    ]
    return np.stack(columns, axis=1).astype(np.float32)


N_RUN_FEATURES = 7
N_RR_FEATURES = len(RR_NEAR) + 4 + 2 + 3 + 3 + 2 + 3 + 4 + 2 + len(QUANTILES) + 2 + 1
N_RR_FEATURES += 2 * len(REACHES) + N_RUN_FEATURES + 1


def _longest_near(rr: np.ndarray) -> list[np.ndarray]:
    """Return each beat's RR beside the longest of those before it, and of those after it, near and farther off."""
    from scipy.ndimage import maximum_filter1d

    n = len(rr) - 1
    columns = []
    for reach in REACHES:
        half = reach // 2
        longest = maximum_filter1d(np.pad(rr, reach, mode="edge"), 2 * half + 1)  # of reach + 1, about each
        before = longest[reach - 1 - half :][:n]
        after = longest[reach + 1 + half :][:n]
        columns += [np.clip(rr[:n] - before, -LIMIT, LIMIT), np.clip(rr[:n] - after, -LIMIT, LIMIT)]
    return columns


def _runs(rr: np.ndarray, long: np.ndarray) -> list[np.ndarray]:
    """Describe the run of short intervals that each beat's RR is part of; 0 where it is part of none.

    Its length, how far in the beat stands and how far before its end, log beats; how short and how uneven its intervals
    are; and how abruptly it begins and ends: a tachycardia jumps, a sinus node that hastens does not.
    """
    n = len(rr) - 1
    short = rr < long - SHORT
    edges = np.flatnonzero(np.diff(short.astype(np.int8), prepend=0, append=0))
    first, end = edges[::2], edges[1::2]  # a run is rr[first:end]
    if len(first) == 0:
        return [np.zeros(n)] * N_RUN_FEATURES
    number = np.maximum(np.searchsorted(first, np.arange(len(rr)), side="right") - 1, 0)
    length = end - first
    mean = _sums(rr, first, end) / length
    away = np.square(np.where(short, rr - mean[number], 0))
    spread = np.sqrt(_sums(away, first, end) / length)
    onset = rr[first] - rr[np.maximum(first - 1, 0)]
    offset = rr[np.minimum(end, len(rr) - 1)] - rr[end - 1]
    at = np.arange(len(rr))
    columns = [
        np.log1p(length[number]),
        np.log1p(np.maximum(at - first[number], 0)),
        np.log1p(np.maximum(end[number] - at, 0)),
        mean[number] - long,
        *(values[number] for values in (spread, onset, offset)),
    ]
    return [np.where(short, column, 0)[:n] for column in columns]


def _sums(values: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the sum of each ``values[first:end]``."""
    edges = np.stack([first, end], axis=1).ravel()
    return np.asarray(np.add.reduceat(np.append(values, 0.0), edges)[::2])
