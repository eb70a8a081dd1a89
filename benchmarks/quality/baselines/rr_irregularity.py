"""Atrial fibrillation from the irregularity of RR intervals, window by window, the windows over a beat voting.

Three detectors, each a function from beat times to a score at every beat; thresholds are chosen as for the model.

- RMSSD over the mean RR interval (Dash 2009, doi:10.1007/s10439-009-9740-z, one of its three statistics), windows of
  32, 64 or 128 beats.
- CoSEn, the coefficient of sample entropy (Lake and Moorman 2011, doi:10.1152/ajpheart.00561.2010): m = 1, windows of
  12 intervals, r from 30 ms up until 5 pairs match. Departures: the scores of the windows over a beat, and over some
  of its neighbours, are averaged; there is a window every 4 beats.
- Gradient boosting on both, Dash's turning points and entropy, and the rate, of windows of 64 beats: the same training
  records as the model.

The vote is soft: the mean score of the windows that hold a beat.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from anyecg.tasks.rhythm import COSEN_INTERVALS, cosen_of

RR_S = (0.2, 3.0)
RMSSD_BEATS = (32, 64, 128)
COSEN_STRIDE = 4
COSEN_SPANS = (1, 30, 100)
BOOST_BEATS, BOOST_STRIDE = 64, 8
AT_ONCE = 20_000


def intervals(beats_s: np.ndarray) -> np.ndarray:
    """Return the RR interval that ends at each beat (n_beats,), seconds; the first is taken twice."""
    rr_s = np.clip(np.diff(beats_s), *RR_S)
    return np.concatenate([rr_s[:1], rr_s])


def voted(of_window: np.ndarray, size: int, n_beats: int) -> np.ndarray:
    """Return the mean score of the windows of ``size`` consecutive beats, one a beat, that hold each beat."""
    total = np.concatenate(([0.0], np.cumsum(of_window, dtype=np.float64)))
    at = np.arange(n_beats)
    first, last = np.clip(at - size + 1, 0, len(of_window) - 1), np.clip(at, 0, len(of_window) - 1)
    return (total[last + 1] - total[first]) / (last + 1 - first)


def rmssd(beats_s: np.ndarray, size: int) -> np.ndarray:
    """Return the voted RMSSD over mean RR interval at each beat."""
    if len(beats_s) < size:
        return np.zeros(len(beats_s))
    rr_s = intervals(beats_s)
    steps = np.square(np.diff(rr_s, prepend=rr_s[0]))
    mean_step = sliding_window_view(steps, size).mean(axis=1)
    mean_rr = sliding_window_view(rr_s, size).mean(axis=1)
    return voted(np.sqrt(mean_step) / mean_rr, size, len(beats_s))


def cosen_of_windows(rr_s: np.ndarray) -> np.ndarray:
    """Return CoSEn of windows of 12 consecutive intervals, one every 4: (n,) -> (ceil((n - 11) / 4),)."""
    windows = sliding_window_view(rr_s, COSEN_INTERVALS)[::COSEN_STRIDE]
    parts = [cosen_of(windows[start : start + AT_ONCE]) for start in range(0, len(windows), AT_ONCE)]
    return np.concatenate(parts)


def cosen(beats_s: np.ndarray, span: int) -> np.ndarray:
    """Return the voted CoSEn at each beat, of the windows over it and over ``span`` beats around it."""
    if len(beats_s) < COSEN_INTERVALS + span:
        return np.full(len(beats_s), -10.0)
    of_window = np.repeat(cosen_of_windows(intervals(beats_s)), COSEN_STRIDE)[: len(beats_s) - COSEN_INTERVALS + 1]
    scores = voted(of_window, COSEN_INTERVALS, len(beats_s))
    return voted(sliding_window_view(scores, span).mean(axis=1), span, len(beats_s))


def window_features(beats_s: np.ndarray) -> np.ndarray:
    """Return what boosting sees of windows of 64 beats, one every 8 beats: (n_windows, 7)."""
    rr_s = intervals(beats_s)
    windows = sliding_window_view(rr_s, BOOST_BEATS)[::BOOST_STRIDE]
    steps = np.diff(windows, axis=1)
    mean = windows.mean(axis=1)
    turning = (np.sign(steps[:, 1:]) != np.sign(steps[:, :-1])).mean(axis=1)
    relative = np.clip(np.floor((windows / np.median(windows, axis=1, keepdims=True) - 0.5) * 16), 0, 15).astype(int)
    share = np.stack([(relative == k).mean(axis=1) for k in range(16)], axis=1)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
    inside = (BOOST_BEATS - COSEN_INTERVALS) // COSEN_STRIDE  # CoSEn windows that lie in one of 64 beats
    of_twelve = sliding_window_view(cosen_of_windows(rr_s), inside)[:: BOOST_STRIDE // COSEN_STRIDE][: len(windows)]
    return np.column_stack(
        [
            np.sqrt(np.square(steps).mean(axis=1)) / mean,
            turning,
            entropy,
            of_twelve.mean(axis=1),
            mean,
            np.median(np.abs(steps), axis=1) / mean,
            (np.abs(steps) > 0.05).mean(axis=1),
        ]
    )


class BoostedWindows:
    """Gradient boosting on windows."""

    def __init__(self, seed: int = 0) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self.trees = HistGradientBoostingClassifier(max_iter=150, random_state=seed)
        self.rng = np.random.default_rng(seed)

    def fit(self, beats: list[np.ndarray], labels: list[np.ndarray], each: int = 1500) -> "BoostedWindows":
        """Fit on up to ``each`` windows of each recording, labelled by the middle beat; unknown is -1."""
        features, wanted = [], []
        for beats_s, of_beat in zip(beats, labels, strict=True):
            if len(beats_s) < BOOST_BEATS:
                continue
            some = window_features(beats_s)
            middle = of_beat[BOOST_BEATS // 2 : len(beats_s) - BOOST_BEATS // 2 + 1 : BOOST_STRIDE][: len(some)]
            known = self.rng.permutation(np.flatnonzero(middle >= 0))[:each]
            features.append(some[known])
            wanted.append(middle[known])
        self.trees.fit(np.concatenate(features), np.concatenate(wanted))
        return self

    def score(self, beats_s: np.ndarray) -> np.ndarray:
        """Return the voted probability at each beat."""
        if len(beats_s) < BOOST_BEATS:
            return np.zeros(len(beats_s))
        of_window = np.repeat(self.trees.predict_proba(window_features(beats_s))[:, 1], BOOST_STRIDE)
        return voted(of_window[: len(beats_s) - BOOST_BEATS + 1], BOOST_BEATS, len(beats_s))
