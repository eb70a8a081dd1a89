"""Gradient boosting on measured features: what is reached without any representation learning.

The features are `baselines.classical_features`; for a single lead those that need no named lead, and more of RR
intervals, of the spectrum and of the shape of the signal, after what entrants of the 2017 challenge used (Clifford
2017, doi:10.22489/CinC.2017.065-469). Histogram gradient boosting of scikit-learn; its size and the number of rounds
are chosen on validation records, class by class.
"""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
from baselines.classical_features import FEATURE_NAMES, record_features
from scipy.signal import welch
from scipy.stats import kurtosis, skew

from anyecg.beats import find_beats
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import auroc
from anyecg.record import Record
from anyecg.signals import bridge_gaps
from anyecg.tasks.rr_features import rr_features

GRID = tuple(product((7, 15), (0.0, 5.0)))
"""Leaves of a tree, L2 penalty."""

RATE, ROUNDS = 0.06, 150
BANDS_HZ = (0.5, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 75.0)


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
    beats = find_beats(prepared)
    peaks = beats.r_peaks_s
    classical = record_features(prepared, peaks)[_ANY_LEAD]
    signal = bridge_gaps(prepared.signal)[0].astype(np.float64)
    signal = np.nan_to_num(signal)
    return np.concatenate(
        [classical, rr_features(peaks, 0.0, prepared.n_samples / prepared.fs), _rr(peaks), _shape(signal, prepared.fs)]
    ).astype(np.float32)


_NAMED = (
    *(f"{lead}_" for lead in STANDARD_LEADS),
    "qrs_axis",
    "t_axis",
    "qrs_t_angle",
    "sokolow",
    "cornell",
    "transition",
)
_ANY_LEAD = [i for i, name in enumerate(FEATURE_NAMES) if not name.startswith(_NAMED)]
"""Features that need no named lead; the others are NaN in every record of an unnamed one."""


def _rr(peaks: np.ndarray) -> np.ndarray:
    """Describe RR intervals further: quantiles, shares of changes, runs, sample entropy, a Lorenz plot's cells."""
    rr = np.diff(peaks)
    rr = rr[(rr > 0.25) & (rr < 3.0)]
    if len(rr) < 4:
        return np.full(28, np.nan)
    median = np.median(rr)
    change = np.diff(rr) / median
    quantiles = np.quantile(rr / median, (0.05, 0.25, 0.75, 0.95))
    steps = np.quantile(np.abs(change), (0.25, 0.5, 0.75, 0.9))
    pairs = np.stack([change[:-1], change[1:]])
    # A Lorenz plot of changes: a beat too early and its pause lie far from the middle, fibrillation is spread all over.
    cells, _, _ = np.histogram2d(*np.clip(pairs, -0.499, 0.499), bins=4, range=[[-0.5, 0.5]] * 2)
    early = (rr[1:-1] < 0.85 * rr[:-2]) & (rr[2:] > 1.1 * rr[1:-1])
    return np.concatenate(
        [
            *(quantiles, steps, cells.ravel() / max(pairs.shape[1], 1)),
            [early.mean(), _sample_entropy(rr, 0.1 * median), rr.min(), rr.max()],
        ]
    )


def _sample_entropy(x: np.ndarray, tolerance: float) -> float:
    """Return -log of the share of pairs alike at two places in a row that stay so at the third."""
    if len(x) < 5:
        return np.nan
    places = np.lib.stride_tricks.sliding_window_view(x, 3)
    apart = np.abs(places[:, None] - places[None])
    others = ~np.eye(len(places), dtype=bool)
    two, three = (apart[..., :n].max(axis=-1)[others] < tolerance for n in (2, 3))
    return float(-np.log((three.sum() + 1) / (two.sum() + 1)))


def _shape(signal: np.ndarray, fs: float) -> np.ndarray:
    """Describe a lead without its beats: spectrum, moments, noise in its noisiest stretches."""
    hz, power = welch(signal, fs, nperseg=min(len(signal), round(4 * fs)))
    share = power / (power[(hz >= BANDS_HZ[0]) & (hz < BANDS_HZ[-1])].sum() + 1e-12)
    bands = [share[(hz >= low) & (hz < high)].sum() for low, high in pairwise(BANDS_HZ)]
    size = round(2 * fs)
    pieces = signal[: len(signal) // size * size].reshape(-1, size)
    spread = pieces.std(axis=1)
    steep = np.abs(np.diff(pieces, axis=1)).mean(axis=1) / (spread + 1e-9)
    height = np.ptp(pieces, axis=1)
    return np.array(
        [
            *bands,
            hz[power.argmax()],
            *(skew(signal), kurtosis(signal), signal.std(), np.abs(signal).max()),
            *(spread.min(), spread.max(), spread.max() / (np.median(spread) + 1e-9)),
            *(steep.min(), np.median(steep), steep.max()),
            *(np.median(height), height.max() / (np.median(height) + 1e-9)),
            *np.quantile(signal / (signal.std() + 1e-9), (0.01, 0.05, 0.95, 0.99)),
            len(signal) / fs,
        ]
    )
