"""What answers a question about a half hour without a second level: votes of its windows, their mean, its RR intervals.

Every fit is called with recordings, labels and an option, and returns what gives other recordings their probabilities.
Linear classifiers are scikit-learn's logistic regression (penalty L2) on standardised inputs; boosting is its histogram
gradient boosting.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from scipy.signal import welch

from anyecg.tasks.rr_features import rr_features
from anyecg.training.paroxysmal import INPUTS, WINDOW_S, Recordings

LINEAR_GRID = tuple(product(INPUTS, (1e-4, 1e-3, 1e-2, 1e-1)))
"""What a window shows; inverse strength of the penalty."""
BOOSTING_GRID = tuple(product((2, 4), (20, 60)))
"""Leaves of a tree; rounds."""

PREMATURE, LATE = 0.85, 1.6
"""An interval below or above these shares of the local median is premature, or a pause."""
MEDIAN_BEATS = 21
BANDS_HZ = {"low": (0.04, 0.15), "high": (0.15, 0.4)}

Scorer = Callable[[Recordings], np.ndarray]


def majority(recordings: Recordings, labels: np.ndarray, _: Any = None) -> Scorer:
    """Answer with the share of positives among the recordings, whatever is asked."""
    share = float(labels.mean())
    return lambda others: np.full(len(others.names), share)


def voting_mean(recordings: Recordings, labels: np.ndarray, option: tuple[str, float]) -> Scorer:
    """Mean over its windows of what a linear probe says of each."""
    probe = _window_probe(recordings, labels, option)
    return lambda others: _over_windows(probe(others), others.known)


def voting_share(recordings: Recordings, labels: np.ndarray, option: tuple[str, float]) -> Scorer:
    """Share of its windows that a linear probe finds positive."""
    probe = _window_probe(recordings, labels, option)
    return lambda others: _over_windows(probe(others) >= 0.5, others.known)


def pooled_linear(recordings: Recordings, labels: np.ndarray, option: tuple[str, float]) -> Scorer:
    """Classify the mean over a recording's windows, linearly."""
    kind, strength = option

    def pooled(some: Recordings) -> np.ndarray:
        weight = some.known[..., None] / np.maximum(some.known.sum(axis=1), 1)[:, None, None]
        return (some.inputs(kind) * weight).sum(axis=1)

    classify = _linear(pooled(recordings), labels, strength)
    return lambda others: classify(pooled(others))


def boosted_rr(recordings: Recordings, labels: np.ndarray, option: tuple[int, int]) -> Scorer:
    """Gradient boosting on the RR intervals of the whole recording."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    def described(some: Recordings) -> np.ndarray:
        return np.stack([half_hour_features(peaks_s) for peaks_s in some.r_peaks_s])

    leaves, rounds = option
    trees = HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_iter=rounds,
        max_leaf_nodes=leaves,
        l2_regularization=1.0,
        min_samples_leaf=max(2, len(labels) // 10),  # of so few recordings, the usual 20 would never be split
        max_features=0.3,
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(limits=1):
        trees.fit(described(recordings), labels)
    return lambda others: np.asarray(trees.predict_proba(described(others))[:, 1])


def half_hour_features(r_peaks_s: np.ndarray) -> np.ndarray:
    """Describe the RR intervals of a whole recording: float64 (F,); NaN = not measurable.

    Counts of premature beats, couplets, runs and pauses an hour, as the 2001 challenge's entrants counted. Quantiles,
    SDNN, SDANN, RMSSD, pNN50 and the spectrum of the intervals between ordinary beats; the twelve numbers of a window,
    their mean, spread and maximum over windows.
    """
    rr_s = np.diff(r_peaks_s)
    if len(rr_s) < 4 * MEDIAN_BEATS:
        return np.full(N_FEATURES, np.nan)
    relative = rr_s / median_filter(rr_s, MEDIAN_BEATS, mode="nearest")
    early, late = relative < PREMATURE, relative > LATE
    ordinary = ~early & ~late & ~np.roll(early, 1)  # nor the interval after a premature beat
    hours = (r_peaks_s[-1] - r_peaks_s[0]) / 3600
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate(([0], early.astype(int), [0])))))[::2]
    counts = [(runs == 1).sum(), (runs == 2).sum(), (runs >= 3).sum(), late.sum()]
    change_s = np.diff(rr_s)[ordinary[1:] & ordinary[:-1]]
    normal_s = rr_s[ordinary]
    starts_s = np.arange(r_peaks_s[0], r_peaks_s[-1] - WINDOW_S, WINDOW_S)
    windows = np.stack([rr_features(r_peaks_s, start, start + WINDOW_S) for start in starts_s])
    fives = np.array_split(normal_s, max(1, round(hours * 12)))
    return np.concatenate(
        [
            np.array(counts) / hours,
            [relative[early].mean() if early.any() else 1.0],
            np.quantile(normal_s, (0.05, 0.25, 0.5, 0.75, 0.95)),
            [normal_s.std(), np.std([part.mean() for part in fives])],
            [np.sqrt(np.mean(change_s**2)), (np.abs(change_s) > 0.05).mean()],
            _spectrum(r_peaks_s[1:][ordinary], normal_s),
            windows.mean(axis=0),
            windows.std(axis=0),
            windows.max(axis=0),
        ]
    )


N_FEATURES = 4 + 1 + 5 + 2 + 2 + 3 + 36


def _spectrum(at_s: np.ndarray, rr_s: np.ndarray) -> list[float]:
    """Return log power at low and at high frequencies, s^2, and their difference."""
    rate_hz = 4.0
    even = np.interp(np.arange(at_s[0], at_s[-1], 1 / rate_hz), at_s, rr_s)
    frequency, power = welch(even, rate_hz, nperseg=min(1024, len(even)), detrend="linear")
    low, high = (np.log(power[(frequency >= a) & (frequency < b)].sum() + 1e-9) for a, b in BANDS_HZ.values())
    return [float(low), float(high), float(low - high)]


def _window_probe(recordings: Recordings, labels: np.ndarray, option: tuple[str, float]) -> Scorer:
    """Fit a linear probe on single windows, each with its recording's label: probabilities (N, W)."""
    kind, strength = option
    each = np.broadcast_to(labels[:, None], recordings.known.shape)[recordings.known]
    classify = _linear(recordings.inputs(kind)[recordings.known], each, strength)

    def probe(others: Recordings) -> np.ndarray:
        windows = others.inputs(kind)
        return classify(windows.reshape(-1, windows.shape[-1])).reshape(windows.shape[:2])

    return probe


def _linear(x: np.ndarray, labels: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, std = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-2)
    with threadpool_limits(limits=1):
        fitted = LogisticRegression(
            C=strength,
            class_weight="balanced",
            solver="newton-cholesky",  # many windows, few inputs: a few exact steps
        ).fit((x - mean) / std, labels)
    return lambda others: np.asarray(fitted.predict_proba((others - mean) / std)[:, 1])


def _over_windows(each: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.asarray((each * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1))
