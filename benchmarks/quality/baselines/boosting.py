"""Gradient boosting on measured features: what is reached without any representation learning.

The features are `baselines.classical_features`; for a single lead those of `anyecg.tasks.window_measures.ONE_LEAD`, of
the whole record: what heads that ship measure, too. Histogram gradient boosting of scikit-learn; its size and the
number of rounds are chosen on validation records, class by class.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from baselines.classical_features import record_features

from anyecg.beats import find_beats
from anyecg.metrics import auroc
from anyecg.record import Record
from anyecg.tasks.window_measures import ONE_LEAD, window_measures

GRID = tuple(product((7, 15), (0.0, 5.0)))
"""Leaves of a tree, L2 penalty."""

RATE, ROUNDS = 0.06, 150


def boosted_scores(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], others: list[np.ndarray]
) -> list[np.ndarray]:
    """Fit one classifier a label; return log odds (n, C) of the validation records and of each of ``others``.

    Parameters
    ----------
    train, validation : (features (N, F), NaN = not measured; labels (N, C), 1 or 0)
    others : list of ndarray (n, F)
    """
    columns = [_one_label(train[0], y, validation, k, others) for k, y in enumerate(train[1].T)]
    return [np.stack(parts, axis=1) for parts in zip(*columns, strict=True)]


def _one_label(
    x: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray], k: int, others: list[np.ndarray]
) -> list[np.ndarray]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    best, reached, rounds = None, -1.0, 0
    with threadpool_limits(limits=1):
        for leaves, penalty in GRID:
            model = HistGradientBoostingClassifier(
                learning_rate=RATE,
                max_iter=ROUNDS,
                max_leaf_nodes=leaves,
                l2_regularization=penalty,
                # 20 is the usual number; of 14 records none would ever be split
                min_samples_leaf=min(20, max(2, len(x) // 10)),
                max_features=0.5,
                early_stopping=False,
                random_state=0,
            ).fit(x, y)
            for n, staged in enumerate(model.staged_predict_proba(validation[0]), start=1):
                score = auroc(validation[1][:, k] == 1, staged[:, 1])
                if n % 5 == 0 and score > reached:
                    best, reached, rounds = model, score, n
        assert best is not None
        return [_log_odds_after(best, part, rounds) for part in (validation[0], *others)]


def _log_odds_after(model: object, x: np.ndarray, rounds: int) -> np.ndarray:
    for n, staged in enumerate(model.staged_predict_proba(x), start=1):  # type: ignore[attr-defined]
        if n == rounds:
            p = np.clip(staged[:, 1], 1e-6, 1 - 1e-6)
            return np.log(p / (1 - p))
    raise AssertionError("more rounds than were fitted")


def filled(train: np.ndarray, others: list[np.ndarray]) -> list[np.ndarray]:
    """Replace what was not measured by the median of the training records, for methods that need numbers."""
    known = np.isfinite(train).any(axis=0)
    median = np.where(known, np.nanmedian(np.where(known, train, 0.0), axis=0), 0.0)
    return [np.where(np.isfinite(x), x, median) for x in (train, *others)]


def features_of(records: list[Record], of_one: Callable[[Record], np.ndarray] = record_features) -> np.ndarray:
    """Measure prepared records: float32 (N, F)."""
    return np.stack([of_one(record) for record in records])


def single_lead_features(prepared: Record) -> np.ndarray:
    """Measure a prepared single-lead record: float32 (F,); NaN = not measurable."""
    return window_measures(ONE_LEAD, prepared, find_beats(prepared), 0.0, prepared.duration_s)
