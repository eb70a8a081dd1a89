"""Regression of any leads on any others, a few neighbours in time included: one table of covariances answers all.

The best linear guess of a lead from others needs nothing but covariances. They are stored for pairs of leads at lags:
``R[k, i, j] = E x_i(t) x_j(t + k STEP)``. Limb leads are two independent ones, so eight leads tell all.

Hearts lie differently in chests, and one covariance for all patients is a compromise. So there are many: the
components of a mixture, fitted on training patients. A record chooses among them by how its present leads covary (the
Wishart likelihood, tempered); the mixture's mean covariance does the rest. A lead that is missing only for a while has
shown in this patient how it follows from the others: its normal equations are added, with the mixture's as prior.

Regression on a dipole's leads: Frank 1956 (doi:10.1161/01.CIR.13.5.737) for why it works. Lags, mixture and updating
are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS

INDEPENDENT = ("I", "II", *PRECORDIAL_LEADS)

# Each limb lead as (weight of I, weight of II): Einthoven 1913, Goldberger 1942.
LIMB_WEIGHTS = {
    **{"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0)},
    **{"aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)},
}

STEP = 4
"""Samples between two lags: 13 ms."""

REACH = (25, 12, 4, 2)
"""How many steps to each side are looked at with 1, 2, 3, and more independent leads: 333, 160, 53 and 27 ms. Few
leads have to make up by time what they lack in space."""

N_LAGS = 2 * max(REACH) + 1

LOOK = (3, 1, 0, 0)
"""Likewise for choosing among components: how many steps of the present leads' covariance are compared."""

TEMPER = 5.0
"""Independent samples that a record counts as when it chooses among components; its thousands all but repeat."""

SHRUNK = 0.1
"""Share of the whole population's covariance in whatever was chosen."""

RIDGE, FLOOR = 1e-3, 0.02
"""Added to variances, in units of their mean: when regressing, and when comparing covariances."""

PRIOR_SAMPLES = 1000.0
"""Samples of a record that weigh as much as the mixture, where a lead is missing only for a while."""

MOST_SAMPLES = 30_000
"""At most so many are stacked at a time, or looked at to choose."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Components of lagged covariances of the independent leads, each scaled to a mean variance of 1 over 12 leads.

    Parameters
    ----------
    share : ndarray of float64, shape (K,)
    lagged : ndarray of float32, shape (K, N_LAGS, 8, 8)
    """

    share: np.ndarray
    lagged: np.ndarray

    def chosen(self, leads: tuple[str, ...], found: np.ndarray) -> np.ndarray:
        """Return the covariance (N_LAGS, 8, 8) for a record in which leads covary as ``found`` (n_lags, n, n)."""
        look = LOOK[min(len(leads), len(LOOK)) - 1]
        mean = np.tensordot(self.share, self.lagged, 1)
        near = slice(2 * look + 1)
        rows = weights_of(leads)
        components = _of_mean_one(stacked(_seen(self.lagged[:, near], rows), look))
        population = _of_mean_one(stacked(_seen(mean[near], rows), look))
        components = (1 - SHRUNK) * components + SHRUNK * population + FLOOR * np.eye(len(population))
        record = _of_mean_one(stacked(found[near], look))
        misfit = np.linalg.slogdet(components)[1] + np.einsum("kij,ij->k", np.linalg.inv(components), record)
        log_p = np.log(self.share) - 0.5 * TEMPER * misfit
        p = np.exp(log_p - log_p.max())
        return np.asarray((1 - SHRUNK) * np.tensordot(p / p.sum(), self.lagged, 1) + SHRUNK * mean)


@dataclass(frozen=True, eq=False)
class Regressed:
    """``mean`` and ``spread`` in mV, float32 (12, n_samples), NaN where nothing is there to regress on.

    ``n_used`` (n_samples,): how many independent leads were.
    """

    mean: np.ndarray
    spread: np.ndarray
    n_used: np.ndarray


def regress(mixture: Mixture, signal: np.ndarray) -> Regressed:
    """Guess what is NaN in the standard leads, float32 (12, n_samples), mV; limb leads are complete by algebra.

    What is finite is returned as it is, with a spread of NaN.
    """
    finite = np.isfinite(signal)
    mean, spread = signal.copy(), np.full(signal.shape, np.nan, dtype=np.float32)
    n_used = np.zeros(signal.shape[1], dtype=np.int64)
    solved: dict[tuple[object, ...], _Solution] = {}
    for start, stop in _runs(finite):
        missing = np.flatnonzero(~finite[:, start])
        leads, reach = _predictors(finite, start, stop)
        if not len(missing) or not leads:
            continue
        key = (leads, *missing)
        if key not in solved:
            solved[key] = _solve(mixture, signal, leads, reach, missing)
        n_used[start:stop] = len(leads)
        for first in range(start, stop, MOST_SAMPLES):
            last = min(stop, first + MOST_SAMPLES)
            x = _taps(signal[[STANDARD_LEADS.index(name) for name in leads]], reach, first, last)
            mean[missing, first:last] = solved[key].weights.T @ x
        power = _local_power(mean[missing, start:stop])
        # Errors are larger where there is more to guess: half constant, half with the local power.
        local = 0.5 + 0.5 * power / solved[key].variance[:, None]
        spread[missing, start:stop] = np.sqrt(solved[key].unexplained[:, None] * local)
    return Regressed(mean, spread, n_used)


@dataclass(frozen=True, eq=False)
class _Solution:
    """``weights`` (n_taps, n_missing); ``variance`` and its ``unexplained`` part, mV^2, (n_missing,)."""

    weights: np.ndarray
    variance: np.ndarray
    unexplained: np.ndarray


def _solve(mixture: Mixture, signal: np.ndarray, leads: tuple[str, ...], reach: int, missing: np.ndarray) -> _Solution:
    rows = [STANDARD_LEADS.index(name) for name in leads]
    found = lagged_covariance(signal[rows], 2 * max(LOOK) + 1)
    chosen = mixture.chosen(leads, found)
    seen, wanted = weights_of(leads), weights_of(tuple(STANDARD_LEADS[i] for i in missing))
    scale = np.trace(found[0]) / np.trace(_seen(chosen[0], seen))
    own = stacked(_seen(chosen, seen), reach) * scale
    # E x_i(t + k) y(t): R[k] read backwards for k > 0.
    cross = [seen @ (chosen[k].T if k >= 0 else chosen[-k]) @ wanted.T for k in range(-reach, reach + 1)]
    both = np.concatenate(cross) * scale
    variance = np.diag(wanted @ chosen[0] @ wanted.T) * scale
    own = own + np.eye(len(own)) * RIDGE * np.trace(own) / len(own)
    weights = np.linalg.solve(own, both)
    for column, row in enumerate(missing):
        known = _known_here(signal, rows, reach, int(row))
        if known is not None:
            x, y = known
            weights[:, column] = np.linalg.solve(own * PRIOR_SAMPLES + x @ x.T, both[:, column] * PRIOR_SAMPLES + x @ y)
    explained = np.einsum("tm,tm->m", weights, both)
    return _Solution(weights.astype(np.float32), variance, np.clip(variance - explained, 0.01 * variance, variance))


def _known_here(signal: np.ndarray, rows: list[int], reach: int, row: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return taps and values of a lead where it and the predictors are recorded; None if it never is."""
    stretch = signal[:, :MOST_SAMPLES]
    if not np.isfinite(stretch[row]).any():
        return None
    x = _taps(stretch[rows], reach, 0, stretch.shape[1])
    good = np.isfinite(stretch[row]) & np.isfinite(x).all(axis=0)
    return (x[:, good].astype(np.float64), stretch[row, good].astype(np.float64)) if good.any() else None


def _runs(finite: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each stretch with the same leads missing."""
    changes = np.flatnonzero((finite[:, 1:] != finite[:, :-1]).any(axis=0)) + 1
    edges = [0, *changes.tolist(), finite.shape[1]]
    yield from pairwise(edges)


def _predictors(finite: np.ndarray, start: int, stop: int) -> tuple[tuple[str, ...], int]:
    """Return the independent leads recorded throughout a stretch and as far round it as is looked, and that reach."""
    leads = _independent(finite[:, start:stop])
    while leads:
        reach = REACH[min(len(leads), len(REACH)) - 1]
        wide = finite[:, max(0, start - reach * STEP) : stop + reach * STEP]
        kept = tuple(name for name in leads if wide[STANDARD_LEADS.index(name)].all())
        if kept == leads:
            return leads, reach
        leads = kept
    return (), 0


def _independent(finite: np.ndarray) -> tuple[str, ...]:
    """Return I and II if both are recorded throughout, else one limb lead, and the precordial leads that are."""
    there = [name for name, row in zip(STANDARD_LEADS, finite, strict=True) if row.all()]
    limb = [name for name in there if name in LIMB_LEADS]
    limb = ["I", "II"] if {"I", "II"} <= set(limb) else limb[:1]
    return (*limb, *(name for name in there if name in PRECORDIAL_LEADS))


def weights_of(leads: tuple[str, ...]) -> np.ndarray:
    """Return the standard leads (n, 8) as weights of the independent ones."""
    rows = np.zeros((len(leads), len(INDEPENDENT)))
    for row, name in zip(rows, leads, strict=True):
        if name in LIMB_WEIGHTS:
            row[:2] = LIMB_WEIGHTS[name]
        else:
            row[INDEPENDENT.index(name)] = 1
    return rows


def lagged_covariance(signal: np.ndarray, n_lags: int = N_LAGS) -> np.ndarray:
    """Return ``R[k, i, j]``, the mean of x_i(t) x_j(t + k STEP) where both are finite: (n_lags, n_leads, n_leads)."""
    middle = max(0, (signal.shape[1] - MOST_SAMPLES) // 2)
    x = signal[:, middle : middle + MOST_SAMPLES].astype(np.float64)
    good = np.asarray(np.isfinite(x).all(axis=0))
    x = np.where(good, x, 0)
    n = x.shape[1]
    products = []
    for lag in range(0, n_lags * STEP, STEP):
        count = max(1, int(np.count_nonzero(good[: max(0, n - lag)] & good[lag:])))
        products.append(x[:, : max(0, n - lag)] @ x[:, lag:].T / count)
    return np.stack(products)


def stacked(lagged: np.ndarray, reach: int) -> np.ndarray:
    """Return the covariance of taps -reach ... reach, tap after tap: (..., n_lags, n, n) -> (..., T n, T n)."""
    n_taps = 2 * reach + 1
    rows = []
    for a in range(n_taps):
        blocks = [
            lagged[..., b - a, :, :] if b >= a else lagged[..., a - b, :, :].swapaxes(-1, -2) for b in range(n_taps)
        ]
        rows.append(np.concatenate(blocks, axis=-1))
    return np.concatenate(rows, axis=-2)


def _taps(rows: np.ndarray, reach: int, start: int, stop: int) -> np.ndarray:
    """Return rows (n, N) at steps -reach ... reach about start ... stop, tap after tap: (T n, stop - start).

    Beyond the record's ends its first and last sample go on.
    """
    at = np.arange(start, stop)
    last = rows.shape[1] - 1
    return np.concatenate([rows[:, np.clip(at + k * STEP, 0, last)] for k in range(-reach, reach + 1)])


def _seen(lagged: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return covariances (..., 8, 8) of independent leads as those of leads with weights (n, 8)."""
    return np.asarray(rows @ lagged @ rows.T)


def _of_mean_one(covariance: np.ndarray) -> np.ndarray:
    scale = np.trace(covariance, axis1=-2, axis2=-1) / covariance.shape[-1]
    return covariance / np.maximum(scale, 1e-12)[..., None, None]


def _local_power(x: np.ndarray, width: int = 31) -> np.ndarray:
    """Return the mean square of each row over ``width`` samples (0.1 s)."""
    square = np.pad(np.square(x, dtype=np.float64), ((0, 0), (width // 2 + 1, width // 2)), mode="edge")
    total = np.cumsum(square, axis=1)
    return np.asarray((total[:, width:] - total[:, :-width]) / width)
