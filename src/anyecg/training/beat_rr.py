"""Boosted trees -> what RR intervals alone say of a beat, learned from day-long annotations without a signal.

There are more patients than with signals by far, and among them those whose supraventricular beats come by the
thousand, in runs and in pairs, and those in fibrillation all day, whose beats come early all the time and are none.

    n beats, R features, K = 4 verdicts
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.tasks.beat_rr import N_RR_FEATURES, rr_features
from anyecg.training.beat_series import BeatSeries, load_series
from anyecg.training.datasets import RR_DATABASES
from anyecg.training.forests import Forest

VERDICTS = ("N", "S", "V", "N in fibrillation")
"""The other classes are too rare, or not told, in the day-long annotations."""

STRETCH_BEATS = 2000
"""About half an hour, what an analysis looks at."""

EVEN_STRETCHES = 5
RICH_STRETCHES, RICH = 6, 0.08
"""Of a day: so many stretches evenly spread, and so many of those richest in S beats if they hold such a share.
Neighbouring hours of one heart say little new."""

CUT_BEATS = 12
CUTS, CUTS_WITH_S = 60, 40
"""Cuts as short as ten seconds: so many anywhere, and so many where an S beat is."""

SHARES = (0.35, 0.25, 0.15, 0.25)
"""Of the beats learned from, by verdict; within one a patient counts by the root of its beats."""

N_DRAWN = 120_000
ROUNDS, LEAVES, RATE = 120, 8, 0.08
PENALTY, LEAST_IN_A_LEAF, SHARE_OF_FEATURES = 5.0, 200, 0.3


@dataclass(frozen=True, eq=False)
class Intervals:
    """Beats of day-long annotations.

    Parameters
    ----------
    rr : ndarray of float32, shape (n, R)
        As `anyecg.tasks.beat_rr.rr_features` describes them.
    verdicts : ndarray of int, shape (n,)
        Counted in `VERDICTS`.
    records : ndarray of str, shape (n,)
    """

    rr: np.ndarray
    verdicts: np.ndarray
    records: np.ndarray


def load_rr(data: Path, splits: Path, progress: Callable[[str], None], split: str = "train") -> Intervals:
    """Describe beats of the day-long annotations of a split by their RR intervals."""
    rng = np.random.default_rng(0)
    rr, verdicts, names = [np.empty((0, N_RR_FEATURES), dtype=np.float32)], [np.empty(0, dtype=np.int64)], []
    for series in load_series(data, splits, split, RR_DATABASES):
        progress(f"RR intervals: {series.database} {series.record}")
        told = _verdicts(series)
        for chosen in _stretches(told, rng):
            known = told[chosen] >= 0
            rr.append(rr_features(series.beats_s[chosen])[known])
            verdicts.append(told[chosen][known])
            names.append(np.full(known.sum(), f"{series.database} {series.record}"))
    return Intervals(np.concatenate(rr), np.concatenate(verdicts), np.concatenate([np.empty(0, dtype=str), *names]))


def _verdicts(series: BeatSeries) -> np.ndarray:
    """Return the verdict of each beat, int (n,); -1 = not told, or in a rhythm that is not learned."""
    told = np.full(len(series.classes), -1)
    for k, name in enumerate(VERDICTS[:3]):
        told[series.classes == name] = k
    fibrillation = series.labels()
    told[(told == 0) & (fibrillation == 1)] = 3
    return np.where(fibrillation < 0, -1, told)


def _stretches(told: np.ndarray, rng: np.random.Generator) -> list[slice]:
    """Return the stretches of a day's beats that are learned from."""
    last = max(len(told) - STRETCH_BEATS, 0)
    starts = ((np.arange(EVEN_STRETCHES) + 0.5) / EVEN_STRETCHES * last).astype(int).tolist()
    blocks = np.arange(0, last, STRETCH_BEATS)
    n_s = np.concatenate([[0], np.cumsum(told == 1)])
    share = (n_s[blocks + STRETCH_BEATS] - n_s[blocks]) / STRETCH_BEATS
    starts += [int(blocks[i]) for i in np.argsort(-share, kind="stable")[:RICH_STRETCHES] if share[i] > RICH]
    cuts = rng.integers(0, len(told) - CUT_BEATS, CUTS)
    at_s = np.flatnonzero(told == 1)
    if len(at_s) > CUTS_WITH_S / 2:
        with_s = rng.choice(at_s, CUTS_WITH_S) - rng.integers(0, CUT_BEATS, CUTS_WITH_S)
        cuts = np.concatenate([cuts, np.clip(with_s, 0, len(told) - CUT_BEATS)])
    return [
        *(slice(a, a + STRETCH_BEATS) for a in starts),
        *(slice(a, a + CUT_BEATS) for a in cuts.tolist()),
    ]


@dataclass(frozen=True, eq=False)
class RRTrees:
    """Fitted trees: a scikit-learn classifier of `VERDICTS`."""

    model: Any

    def verdicts(self, rr: np.ndarray) -> np.ndarray:
        """Return how likely each verdict is: logits of mean 0, float32 (n, K)."""
        log_odds = np.asarray(self.model.decision_function(rr))
        return (log_odds - log_odds.mean(axis=1, keepdims=True)).astype(np.float32)

    def forests(self) -> list[Forest]:
        """Return the trees of each verdict, as scikit-learn keeps them (see `anyecg.training.forests.forest_of`)."""
        bases = self.model._baseline_prediction.ravel()
        stages = self.model._predictors
        return [Forest(float(base), tuple(stage[k].nodes for stage in stages)) for k, base in enumerate(bases)]


def fit_rr(intervals: Intervals, rounds: int = ROUNDS) -> RRTrees | None:
    """Fit trees to RR features; None without day-long annotations."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    if not len(intervals.verdicts):
        return None
    weight = class_weights(intervals.verdicts, intervals.records, SHARES)
    rows = np.random.default_rng(0).choice(len(weight), N_DRAWN, p=weight)
    with threadpool_limits(limits=1):
        model = HistGradientBoostingClassifier(
            max_iter=rounds,
            max_leaf_nodes=LEAVES,
            learning_rate=RATE,
            l2_regularization=PENALTY,
            min_samples_leaf=min(LEAST_IN_A_LEAF, max(2, len(weight) // 20)),
            max_features=SHARE_OF_FEATURES,
            early_stopping=False,
            random_state=0,
        ).fit(intervals.rr[rows], intervals.verdicts[rows])
    return RRTrees(model)


def class_weights(classes: np.ndarray, records: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return how likely each beat (n,) is drawn: ``shares`` by class; within one a record counts by the root of n."""
    weight = np.zeros(len(classes))
    for k, share in enumerate(shares):
        rows = np.flatnonzero(classes == k)
        if len(rows):
            _, inverse, counts = np.unique(records[rows], return_inverse=True, return_counts=True)
            each = 1 / np.sqrt(counts[inverse])
            weight[rows] = share * each / each.sum()
    return weight / weight.sum()
