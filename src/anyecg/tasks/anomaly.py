"""How far a record lies from normal ones, and where it does: fitted on normal training records alone.

Two distances, each from held-out normal records *seen through the same leads*, so that a 3-lead recording is not called
odd for lacking nine:

- of the embeddings: each lead's mean over a window, all leads side by side, by a Gaussian whose covariance is a few
  factors and one noise level (probabilistic principal components, Tipping and Bishop 1999, doi:10.1111/1467-9868.00196;
  such a model knows the distribution of any subset of its leads);
- of the classical measures (`anyecg.tasks.measures`): each becomes a normal score by the quantiles it has among normal
  records (a Gaussian copula's margins), and the distance is the mean size of the few most unusual of them. An illness
  shows in a few measures, which a distance over all of them drowns. They see what a mean over time does not: irregular
  intervals, odd beats. Of one or two leads, and of leads without a name, whose waves may point anywhere, what goes with
  what says more: there the Mahalanobis distance of the normal scores counts as much (covariance shrunk after Ledoit and
  Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

A distance's logarithm, in spreads of normal records from their median, is a level; the score of a window is a weighted
mean of both levels on the same scale, that of a record the upper decile of its windows. Windows are as long as those
normal records were seen in, so that a day's score compares with that of 10 s.

The map says where: for each fragment of each lead the mean of two levels, of its surprise under the masked model and of
its embedding's Mahalanobis distance from normal fragments of that lead.

Five references are kept, since context changes embeddings: known leads among many (9 and more), some (3 to 8) and few
(1 or 2), and unknown leads among 3 and more, and few. Where a record has known leads, its unknown leads do not count in
its score.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Embedding
from anyecg.errors import CheckpointError
from anyecg.record import Annotation, Record, runs_of
from anyecg.result import Anomaly, Rhythm
from anyecg.tasks.measures import (
    IN_MILLIVOLTS,
    MEASURES,
    RELATIVE,
    log_size,
    normal_scores,
    relative,
)
from anyecg.tasks.window_measures import RR, RR_BASIC, Measured

FILE = "anomaly.npz"
FILE_VERSION = 3
MOST_SEGMENTS = 20

UPPER = 0.9
"""A record's score is this quantile of its windows': a tenth of it may make it abnormal, one window of many may not."""

UNKNOWN = "unknown"

ROWS_AT_ONCE = 4
"""Fragments whitened in one product. OpenBLAS shares a product of more than 2**18 terms among all cores, and its
helpers then wait with eyes open: on two cores that was a third of a day's processor time."""

ALL_MEASURES = (*MEASURES, *RELATIVE, *RR_BASIC, *RR)
"""The names of all that `measure_all` takes."""

CONTEXTS = {"many": "many", "some": "many", "few": "few"}
"""The contexts, and the one whose reference of unknown leads serves each."""


@dataclass(frozen=True, eq=False)
class NormalReference:
    """What is normal, in one context: C leads, D width, F factors, N held-out normal records, M sets of Q measures.

    Parameters
    ----------
    leads : tuple of str
        The C leads; only ``"unknown"``, or those known by name.
    window_fragments : int
        Length of the windows normal records were seen in.
    means, spreads : ndarray of float32, shape (C, D)
        Of a lead's mean embedding over normal training records.
    loadings : ndarray of float32, shape (C, D, F)
        Factors of all leads together, each at its standard deviation, in units of ``spreads``.
    noise : float
        Variance of what the factors leave.
    power : ndarray of float32, shape (N, C)
        Squared length of each held-out normal record's standardised embedding.
    factors : ndarray of float32, shape (N, C, F)
        Its products with the loadings: all that a distance needs.
    measure_names : tuple of str
        The Q measures.
    measure_quantiles : ndarray of float32, shape (M, len(LEVELS), Q)
        Of normal training records; NaN where too few have the measure. M is C where leads were measured one at a time,
        else 1.
    measures : ndarray of float32, shape (N, M, Q)
        Normal scores of the held-out normal records.
    measure_covariances : ndarray of float32, shape (M or 0, Q, Q)
        Of the normal scores; none where the most unusual measures alone tell more.
    embedding_share : float
        Weight of the embeddings' level in the score; the rest is that of the measures.
    fragment_means : ndarray of float32, shape (C, D)
    fragment_whitening : ndarray of float32, shape (D, D)
        ``norm((x - mean) @ whitening)`` is the Mahalanobis distance of a fragment.
    fragment_levels : ndarray of float32, shape (2, 2)
        Median and spread over held-out normal fragments of the surprise (bits) and of the distance's logarithm.
    map_limit : float
        99 % of the held-out normal fragments lie below it in the map.
    """

    leads: tuple[str, ...]
    window_fragments: int
    means: np.ndarray
    spreads: np.ndarray
    loadings: np.ndarray
    noise: float
    power: np.ndarray
    factors: np.ndarray
    measure_names: tuple[str, ...]
    measure_quantiles: np.ndarray
    measures: np.ndarray
    measure_covariances: np.ndarray
    embedding_share: float
    fragment_means: np.ndarray
    fragment_whitening: np.ndarray
    fragment_levels: np.ndarray
    map_limit: float

    def standardised(self, per_lead: np.ndarray, columns: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return squared lengths (..., L) and products with the loadings (..., L, F) of mean embeddings (..., L, D)."""
        z = (per_lead - self.means[columns]) / self.spreads[columns]
        return np.square(z).sum(axis=-1), (z[..., None, :] @ self.loadings[columns])[..., 0, :]

    def log_distance(self, power: np.ndarray, factors: np.ndarray, columns: list[int]) -> np.ndarray:
        """Return the logarithm of the Mahalanobis distance of some leads together: (..., L), (..., L, F) -> (...)."""
        inner = _inner(self, tuple(columns))
        along = factors.sum(axis=-2)
        squared = (power.sum(axis=-1) - np.einsum("...f,...f->...", along @ inner, along)) / self.noise
        result: np.ndarray = 0.5 * np.log(np.maximum(squared, 1e-6))
        return result

    def embedding_levels(self, per_lead: np.ndarray, columns: list[int]) -> tuple[float, np.ndarray]:
        """Return the level of one window's mean embeddings (L, D), and those of the normal records (N,)."""
        power, factors = self.standardised(per_lead, columns)
        if self.leads == (UNKNOWN,):  # any number of them, each by itself
            own = float(np.mean([self.log_distance(power[[i]], factors[[i]], [0]) for i in range(len(power))]))
            normal, median, spread = _normal_embeddings(self, (0,))
        else:
            own = float(self.log_distance(power, factors, columns))
            normal, median, spread = _normal_embeddings(self, tuple(columns))
        return (own - median) / spread, normal

    def measure_levels(self, measured: np.ndarray, column: int) -> tuple[float, np.ndarray] | None:
        """Return the level of one window's measures (Q,), and those of the normal records; None if there are none."""
        column = column if len(self.measure_quantiles) > 1 else 0
        quantiles = self.measure_quantiles[column]
        there = np.isfinite(measured) & np.isfinite(quantiles[0])
        if not there.any():
            return None
        scores = normal_scores(measured[there], quantiles[:, there])
        normal, scales = _normal_measures(self, column, there.tobytes())
        own = [(float(log_size(scores, precision)) - median) / spread for precision, median, spread in scales]
        return float(np.mean(own)), normal


# What normal records say through the same leads and measures is the same for every window of a day. Few are kept: a
# cache holds on to its reference, and each recording has its own.


@lru_cache(maxsize=4)
def _inner(reference: NormalReference, columns: tuple[int, ...]) -> np.ndarray:
    # Woodbury: (W W' + noise)^-1 = (1 - W (noise + W' W)^-1 W') / noise
    w = reference.loadings[list(columns)].reshape(-1, reference.loadings.shape[-1])
    return np.asarray(np.linalg.inv(reference.noise * np.eye(w.shape[1]) + w.T @ w))


@lru_cache(maxsize=4)
def _normal_embeddings(reference: NormalReference, columns: tuple[int, ...]) -> tuple[np.ndarray, float, float]:
    """Return the levels of the normal records (N,), and the median and spread they had before they were levels."""
    rows = list(columns)
    distances = reference.log_distance(reference.power[:, rows], reference.factors[:, rows], rows)
    median, spread = median_and_spread(distances)
    return (distances - median) / spread, median, spread


Scale = tuple[np.ndarray | None, float, float]
"""Of a distance of measures: its precision (None: the most unusual), and normal records' median and spread of it."""


@lru_cache(maxsize=8)
def _normal_measures(reference: NormalReference, column: int, there: bytes) -> tuple[np.ndarray, tuple[Scale, ...]]:
    """Return the levels of the normal records (N,) by some measures, and the scales; ``there``: bool (Q,) as bytes."""
    some = np.frombuffer(there, dtype=bool)
    scores = reference.measures[:, column][:, some]
    precisions = [None, *(np.linalg.inv(c[np.ix_(some, some)]) for c in reference.measure_covariances[column:][:1])]
    scales, levels = [], []
    for precision in precisions:
        sizes = log_size(scores, precision)
        median, spread = median_and_spread(sizes)
        scales.append((precision, median, spread))
        levels.append((sizes - median) / spread)
    return np.mean(levels, axis=0), tuple(scales)


@lru_cache(maxsize=8)
def _columns(names: tuple[str, ...]) -> list[int]:
    """Return where some measures stand in `ALL_MEASURES`."""
    return [ALL_MEASURES.index(name) for name in names]


@dataclass(frozen=True, eq=False)
class References:
    """The references for a number of leads: known by name, and unknown."""

    known: NormalReference
    unknown: NormalReference

    def of(self, lead: str) -> tuple[NormalReference, int]:
        """Return the reference of a lead and its column there."""
        return (self.known, self.known.leads.index(lead)) if lead in self.known.leads else (self.unknown, 0)


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the distance from it to the 84th percentile: one standard deviation, of the upper half."""
    median, upper = np.nanpercentile(values, [50, 84])
    return float(median), float(max(upper - median, 1e-6))


def context_of(n_leads: int) -> str:
    """Return the context a number of leads belongs to."""
    return "few" if n_leads <= 2 else "some" if n_leads <= 8 else "many"


def load_reference(folder: Path, n_leads: int) -> References:
    """Read the references for a number of leads from a checkpoint folder.

    Raises
    ------
    CheckpointError
        There is none, or it was written by another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, expected the normal reference. Write it with anyecg export.")
    context = context_of(n_leads)
    with np.load(path, allow_pickle=False) as stored:
        version = int(stored["version"]) if "version" in stored else 1
        if version != FILE_VERSION:
            raise CheckpointError(f"{path}: version {version}, expected {FILE_VERSION}. Write it with anyecg export.")
        known = _from_arrays(stored, f"{context}_known_")
        return References(known, _from_arrays(stored, f"{CONTEXTS[context]}_{UNKNOWN}_"))


def _from_arrays(stored: Any, prefix: str) -> NormalReference:
    found: dict[str, Any] = {}
    for field in fields(NormalReference):
        value = stored[prefix + field.name]
        if field.type is np.ndarray:
            found[field.name] = value.astype(np.float32)
        else:
            found[field.name] = tuple(str(name) for name in value) if value.ndim else value.item()
    return NormalReference(**found)


def save_references(folder: Path, references: dict[str, References]) -> Path:
    """Write the references of all contexts, arrays as float16: quantiles alone must stay equal to what they were."""
    arrays: dict[str, Any] = {"version": FILE_VERSION}
    for context, both in references.items():
        kinds = {"known": both.known} | ({UNKNOWN: both.unknown} if CONTEXTS[context] == context else {})
        for kind, reference in kinds.items():
            for field in fields(NormalReference):
                value = getattr(reference, field.name)
                half = isinstance(value, np.ndarray) and field.name != "measure_quantiles"
                arrays[f"{context}_{kind}_{field.name}"] = value.astype(np.float16) if half else np.array(value)
    np.savez_compressed(folder / FILE, **arrays)
    return folder / FILE


def find_anomaly(
    embedding: Embedding,
    surprise: np.ndarray,
    usable: list[str],
    reference: References,
    prepared: Record | None = None,
    rhythm: Rhythm | None = None,
) -> Anomaly | None:
    """Score a record, and mark the stretches that stand out.

    Parameters
    ----------
    embedding : Embedding
    surprise : ndarray, shape (n_leads, n_fragments)
        Bits; NaN where not recorded.
    usable : list of str
        Leads good enough to be judged.
    reference : References
    prepared : Record, optional
        The same leads, as the model saw them.
    rhythm : Rhythm, optional
        Of ``prepared``. Without both, the score rests on the embeddings alone.

    Returns
    -------
    Anomaly or None
        None if no lead can be judged. ``score``: 0 is the median of normal records, 1 their 84th percentile.
    """
    measured = Measured(prepared, rhythm) if prepared is not None and rhythm is not None else None
    windows = score_windows(embedding, usable, reference, measured)
    if not len(windows):
        return None
    segments = unusual_segments(anomaly_map(embedding, surprise, reference), embedding, set(usable), reference)
    return anomaly_of(windows, segments)


def anomaly_of(windows: np.ndarray, segments: tuple[Annotation, ...]) -> Anomaly:
    """Sum up a recording from the score and percentile of its windows (n, 2), and its unusual segments."""
    score, percentile = np.quantile(windows, UPPER, axis=0).tolist()
    ranked = sorted(segments, key=lambda a: (-(a.score or 0.0), a.start_s))
    return Anomaly(score, percentile, tuple(ranked[:MOST_SEGMENTS]))


def score_windows(
    embedding: Embedding,
    usable: list[str],
    reference: References,
    measured: Measured | None = None,
    only: int | None = None,
) -> np.ndarray:
    """Score the windows of a record; the first three parameters are those of `find_anomaly`.

    Parameters
    ----------
    measured : Measured, optional
        The same record and its beats. Without it the scores rest on the embeddings alone.
    only : int, optional
        Score this window alone (counted round and round): what a long recording affords each of its pieces.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Score and percentile of each window in which a lead can be judged.
    """
    there = np.isfinite(embedding.per_fragment[..., 0])
    judged = [lead for lead, row in zip(embedding.leads, there, strict=True) if lead in usable and row.any()]
    if not judged:
        return np.empty((0, 2))
    by_name = any(lead in reference.known.leads for lead in judged)
    wanted = (reference.known if by_name else reference.unknown).measure_names
    best = None if measured is None else measured.rhythm.lead
    found = []
    windows = _windows(embedding.per_fragment.shape[1], reference.known.window_fragments)
    for start, end in windows if only is None else [windows[only % len(windows)]]:
        start_s, end_s = start * embedding.fragment_s, end * embedding.fragment_s
        measures = None if measured is None else measure_all(measured, start_s, end_s, tuple(judged), wanted)
        rows = {lead: there[embedding.leads.index(lead), start:end].mean() for lead in judged}
        leads = tuple(lead for lead in judged if rows[lead] >= 0.5 * max(rows.values()) > 0)
        if leads:
            window = embedding.per_fragment[[embedding.leads.index(lead) for lead in leads], start:end]
            found.append(score_window(np.nanmean(window, axis=1), leads, measures, best, reference))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _windows(n_fragments: int, length: int) -> list[tuple[int, int]]:
    """Cut a record evenly into windows of about a length."""
    edges = np.linspace(0, n_fragments, max(1, round(n_fragments / length)) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def measure_all(
    measured: Measured,
    start_s: float,
    end_s: float,
    leads: tuple[str, ...] | None = None,
    wanted: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Return all that a stretch is compared by, (len(ALL_MEASURES),): classical measures, each lead's shape, intervals.

    The shape of a lead does not need its gain. Further measures of intervals are NaN if none of them is ``wanted``.
    """
    intervals = (*RR_BASIC, *RR) if wanted is None or not set(wanted).isdisjoint((*RR_BASIC, *RR)) else ()
    found = measured.window((*MEASURES, *intervals), start_s, end_s, leads, any_gain=True)
    classical, of_intervals = np.split(found, [len(MEASURES)])
    shapes = relative(classical)
    if not measured.prepared.gain_known:
        classical[_columns(IN_MILLIVOLTS)] = np.nan
    missing = np.full(len(RR_BASIC) + len(RR) - len(of_intervals), np.nan, dtype=np.float32)
    return np.concatenate([classical, shapes, of_intervals, missing])


def score_window(
    per_lead: np.ndarray,
    leads: tuple[str, ...],
    measures: np.ndarray | None,
    best: str | None,
    reference: References,
) -> tuple[float, float]:
    """Score one window.

    Parameters
    ----------
    per_lead : ndarray, shape (n_leads, width)
        Mean embeddings over the window.
    leads : tuple of str
    measures : ndarray, shape (len(ALL_MEASURES),), optional
    best : str, optional
        The lead whose beats were measured.
    reference : References

    Returns
    -------
    score, percentile : float
        The percentile is among the held-out normal records, through the same leads and measures.
    """
    known = [i for i, lead in enumerate(leads) if lead in reference.known.leads]
    normal = reference.known if known else reference.unknown
    rows = known or list(range(len(leads)))
    columns = [normal.leads.index(leads[i]) if known else 0 for i in rows]
    level, normal_levels = normal.embedding_levels(per_lead[rows], columns)
    if measures is not None:
        names = [leads[i] for i in rows]
        column = columns[names.index(best)] if best in names else columns[0]
        of_measures = normal.measure_levels(measures[_columns(normal.measure_names)], column)
        if of_measures is not None:
            share = normal.embedding_share
            level = share * level + (1 - share) * of_measures[0]
            normal_levels = share * normal_levels + (1 - share) * of_measures[1]
    median, spread = median_and_spread(normal_levels)
    return (level - median) / spread, 100.0 * float((normal_levels < level).mean())


def anomaly_map(
    embedding: Embedding, surprise: np.ndarray, reference: References, distances: np.ndarray | None = None
) -> np.ndarray:
    """Return how unusual each fragment of each lead is.

    Parameters
    ----------
    embedding : Embedding
    surprise : ndarray, shape (n_leads, n_fragments)
        Bits.
    reference : References
    distances : ndarray, shape (n_leads, n_fragments), optional
        The embedding's `distance_levels`, where they are known.

    Returns
    -------
    ndarray of float32, shape (n_leads, n_fragments)
        In spreads of normal fragments above their median; NaN where not recorded, or where surprise was not asked for.
    """
    distances = distance_levels(embedding, reference) if distances is None else distances
    levels = np.empty_like(distances)
    for row, lead in enumerate(embedding.leads):
        median, spread = reference.of(lead)[0].fragment_levels[0]
        levels[row] = (distances[row] + (surprise[row] - median) / spread) / 2
    return levels


def distance_levels(embedding: Embedding, reference: References) -> np.ndarray:
    """Return the part of `anomaly_map` that the embeddings tell, float32 (n_leads, n_fragments)."""
    levels = np.empty(embedding.per_fragment.shape[:2], dtype=np.float32)
    for row, lead in enumerate(embedding.leads):
        normal, column = reference.of(lead)
        distances = fragment_log_distances(
            embedding.per_fragment[row], normal.fragment_means[column], normal.fragment_whitening
        )
        median, spread = normal.fragment_levels[1]
        levels[row] = (distances - median) / spread
    return levels


def fragment_log_distances(fragments: np.ndarray, mean: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    """Return the logarithm of the Mahalanobis distance of fragments (..., D)."""
    *shape, width = fragments.shape
    n = prod(shape)
    away = (fragments - mean).reshape(n, width)
    few = np.zeros((ceil(n / ROWS_AT_ONCE), ROWS_AT_ONCE, width), dtype=away.dtype)
    few.reshape(-1, width)[:n] = away
    whitened = (few @ whitening).reshape(-1, width)[:n]
    result: np.ndarray = np.log(np.linalg.norm(whitened, axis=-1) + 1e-6)
    return result.reshape(shape)


def unusual_segments(
    levels: np.ndarray, embedding: Embedding, judged: set[str], reference: References
) -> tuple[Annotation, ...]:
    """Return runs of fragments of the map above the reference's limit, lead by lead."""
    found = []
    for row, lead in zip(levels, embedding.leads, strict=True):
        if lead not in judged:
            continue
        high = np.nan_to_num(row, nan=-np.inf) > reference.of(lead)[0].map_limit
        for start, end in runs_of(high):
            score = float(row[start:end].mean())
            found.append(
                Annotation(start * embedding.fragment_s, end * embedding.fragment_s, "anomaly", "unusual", lead, score)
            )
    return tuple(found)
