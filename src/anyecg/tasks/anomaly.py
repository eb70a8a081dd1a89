"""First anomaly score: how far a record's embeddings lie from those of normal training records.

Each lead's mean embedding is compared with the mean of that lead in normal records, by Mahalanobis distance (one
covariance shared by all leads, Ledoit-Wolf shrunk: arXiv cond-mat/0306519); the record's score is the mean over its
leads. Its percentile is among normal validation records *seen through the same leads*, so that a 3-lead recording is
not called odd for lacking nine.

Two references are kept, since context changes embeddings: ``many`` (3 leads and more) and ``few`` (1 or 2).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Embedding
from anyecg.errors import CheckpointError
from anyecg.record import Annotation, runs_of
from anyecg.result import Anomaly

FILE = "anomaly.npz"
MOST_SEGMENTS = 20


@dataclass(frozen=True, eq=False)
class NormalReference:
    """What is normal, in one context.

    Parameters
    ----------
    leads : tuple of str
        Known leads; the first is "unknown" and serves all others.
    means : ndarray, shape (n_known, width)
    whitening : ndarray, shape (width, width)
        ``norm((x - mean) @ whitening)`` is the Mahalanobis distance.
    distances : ndarray, shape (n_records, n_known)
        Of normal validation records.
    surprise_limit_bits : float
        99 % of the fragments of normal validation records are less surprising.
    """

    leads: tuple[str, ...]
    means: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray
    surprise_limit_bits: float

    def columns(self, leads: tuple[str, ...]) -> list[int]:
        """Return the column of each lead; 0 for unknown ones."""
        return [self.leads.index(name) if name in self.leads else 0 for name in leads]

    def distance(self, per_lead: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
        """Return the Mahalanobis distance of each lead's mean embedding: (n_leads, width) -> (n_leads,)."""
        centred = per_lead - self.means[self.columns(leads)]
        return np.linalg.norm(centred @ self.whitening, axis=-1)


def load_reference(folder: Path, n_leads: int) -> NormalReference:
    """Read the reference for a number of leads from a checkpoint folder."""
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, expected the normal reference. Write it with anyecg export.")
    context = context_of(n_leads)
    with np.load(path, allow_pickle=False) as stored:
        return NormalReference(
            leads=tuple(str(name) for name in stored["leads"]),
            means=stored[f"{context}_means"].astype(np.float32),
            whitening=stored[f"{context}_whitening"].astype(np.float32),
            distances=stored[f"{context}_distances"].astype(np.float32),
            surprise_limit_bits=float(stored[f"{context}_surprise_limit_bits"]),
        )


def save_references(folder: Path, references: dict[str, NormalReference]) -> Path:
    """Write the references of both contexts."""
    arrays: dict[str, Any] = {"leads": np.array(next(iter(references.values())).leads)}
    for context, reference in references.items():
        arrays[f"{context}_means"] = reference.means.astype(np.float32)
        arrays[f"{context}_whitening"] = reference.whitening.astype(np.float32)
        arrays[f"{context}_distances"] = reference.distances.astype(np.float32)
        arrays[f"{context}_surprise_limit_bits"] = reference.surprise_limit_bits
    np.savez_compressed(folder / FILE, **arrays)
    return folder / FILE


def context_of(n_leads: int) -> str:
    """Return the context a number of leads belongs to."""
    return "few" if n_leads <= 2 else "many"


def find_anomaly(
    embedding: Embedding, surprise: np.ndarray, usable: list[str], reference: NormalReference
) -> Anomaly | None:
    """Score a record, and mark the stretches that the masked model did not expect.

    Parameters
    ----------
    embedding : Embedding
    surprise : ndarray, shape (n_leads, n_fragments)
        Bits; NaN where not recorded.
    usable : list of str
        Leads good enough to be judged.
    reference : NormalReference

    Returns
    -------
    Anomaly or None
        None if no lead can be judged.
    """
    per_lead = embedding.per_lead()
    judged = [i for i, name in enumerate(embedding.leads) if name in usable and np.isfinite(per_lead[i, 0])]
    if not judged:
        return None
    leads = tuple(embedding.leads[i] for i in judged)
    score = float(reference.distance(per_lead[judged], leads).mean())
    normal = reference.distances[:, reference.columns(leads)].mean(axis=1)
    percentile = 100.0 * float((normal < score).mean())
    segments = surprising_segments(surprise, embedding.leads, set(leads), embedding.fragment_s, reference)
    return Anomaly(score, percentile, segments)


def surprising_segments(
    surprise: np.ndarray, leads: tuple[str, ...], judged: set[str], fragment_s: float, reference: NormalReference
) -> tuple[Annotation, ...]:
    """Return runs of fragments above the reference's limit, lead by lead, the most surprising first."""
    found = []
    for row, lead in zip(surprise, leads, strict=True):
        if lead not in judged:
            continue
        high = np.nan_to_num(row, nan=-np.inf) > reference.surprise_limit_bits
        for start, end in runs_of(high):
            score = float(row[start:end].mean())
            found.append(Annotation(start * fragment_s, end * fragment_s, "anomaly", "surprising", lead, score))
    found.sort(key=lambda a: -(a.score or 0.0))
    return tuple(found[:MOST_SEGMENTS])
