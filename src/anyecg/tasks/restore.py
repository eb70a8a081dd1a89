"""Corrupted lead generation: what is missing is computed where algebra allows, and generated where it does not.

Of the six limb leads any two determine the others (Einthoven's and Goldberger's equations); those are computed. For
the rest the masked-code encoder guesses the codes of the hidden fragments from all others; several draws are decoded:
their mean is the restored signal, their spread its uncertainty. Method: AnyECG (arXiv 2411.17711), corrupted lead
generation; computing limb leads, drawing, and the band are ours.

What is measured stays measured: only missing samples are filled.
"""

from dataclasses import dataclass, replace

import numpy as np

from anyecg.engine import Model
from anyecg.errors import SignalError
from anyecg.leads import LIMB_LEADS, STANDARD_LEADS, display_order
from anyecg.quality import DISABLING, USABLE_SCORE, assess
from anyecg.record import Record

DRAWS = 16
BAND = (5.0, 95.0)
"""Percentiles of the draws that bound the uncertainty band."""

# Each limb lead as (weight of I, weight of II): Einthoven 1913, Goldberger 1942.
LIMB_WEIGHTS = {
    **{"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0)},
    **{"aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)},
}


@dataclass(frozen=True, eq=False)
class Restored:
    """A record with nothing missing in the leads asked for.

    Parameters
    ----------
    record : Record
        Prepared: the model's rate and band. ``derived`` and ``restored`` name the leads that were computed and
        generated, in full or in part.
    low_mv, high_mv : ndarray of float32, shape (n_leads, n_samples)
        The 5th and 95th percentile of the draws; NaN where nothing was generated.
    """

    record: Record
    low_mv: np.ndarray
    high_mv: np.ndarray


def restore(
    record: Record, model: Model, leads: list[str] | tuple[str, ...], *, draws: int = DRAWS, seed: int = 0
) -> Restored:
    """Fill leads that are missing, in full or in part.

    Parameters
    ----------
    record : Record
        Any rate. A lead that cannot be trusted is to be left out or set to NaN beforehand.
    model : Model
    leads : sequence of str
        Standard leads to fill; those the record lacks are added.
    draws : int
    seed : int

    Returns
    -------
    Restored

    Raises
    ------
    ValueError
        A lead to fill is not one of the standard twelve.
    SignalError
        Nothing is left to restore from.
    """
    unknown = [name for name in leads if name not in STANDARD_LEADS]
    if unknown:
        raise ValueError(f"cannot restore {', '.join(unknown)}; allowed are {', '.join(STANDARD_LEADS)}")
    prepared = by_algebra(with_leads(model.prepare(record), leads), leads)
    fragment = model.checkpoint.grid.fragment_samples
    asked = np.array([name in leads for name in prepared.leads])
    missing = ~np.isfinite(prepared.signal) & asked[:, None]
    hidden = _any_in_fragment(missing, fragment)
    low = np.full(prepared.signal.shape, np.nan, dtype=np.float32)
    high = low.copy()
    if not missing.any():
        return Restored(prepared, low, high)

    # A fragment that lost some samples is hidden whole: its code would stand for what is left of it.
    seen = prepared.with_(
        signal=np.where(np.repeat(hidden, fragment, axis=1)[:, : prepared.n_samples], np.nan, prepared.signal)
    )
    if not np.isfinite(seen.signal).any():
        raise SignalError(f"{record.id}: no fragment is left to restore from, expected at least one. Keep more leads.")
    tokens = model.tokenize(seen)
    tokens = replace(tokens, valid=tokens.valid | hidden)
    drawn = model.generate(tokens, hidden, draws=draws, seed=seed)
    filled = np.where(missing, drawn.mean(axis=0), prepared.signal)
    low[missing], high[missing] = np.percentile(drawn, BAND, axis=0).astype(np.float32)[:, missing]
    restored = frozenset(name for name, row in zip(prepared.leads, missing, strict=True) if row.any())
    return Restored(
        prepared.with_(signal=filled, restored=prepared.restored | restored, derived=prepared.derived - restored),
        low,
        high,
    )


def unusable_leads(record: Record, prepared: Record) -> list[str]:
    """Return the standard leads that `anyecg.quality` disables, or scores below its limit."""
    quality = assess(record, prepared)
    return [
        name
        for name, lead in quality.leads.items()
        if name in STANDARD_LEADS and (lead.score < USABLE_SCORE or DISABLING.intersection(lead.problems))
    ]


def without(record: Record, leads: list[str] | tuple[str, ...]) -> Record:
    """Return the record with NaN in some of its leads: corrupted, so not to be restored from."""
    taken = np.array([name in leads for name in record.leads])
    return record.with_(signal=np.where(taken[:, None], np.float32(np.nan), record.signal))


def with_leads(record: Record, leads: list[str] | tuple[str, ...]) -> Record:
    """Return the record with rows of NaN for the leads it lacks, all in display order."""
    added = tuple(name for name in leads if name not in record.leads)
    names = record.leads + added
    rows = np.full((len(added), record.n_samples), np.nan, dtype=np.float32)
    order = display_order(names)
    return record.with_(signal=np.concatenate([record.signal, rows])[order], leads=tuple(names[i] for i in order))


def by_algebra(record: Record, leads: list[str] | tuple[str, ...]) -> Record:
    """Compute missing samples of the limb leads asked for wherever two other limb leads were recorded."""
    signal = record.signal.copy()
    limb = [name for name in record.leads if name in LIMB_WEIGHTS]
    measured = np.isfinite(record.signal)
    derived = set(record.derived)
    for name in leads:
        if name not in limb:
            continue
        row = record.leads.index(name)
        for first, second in _pairs(tuple(other for other in limb if other != name)):
            rows = [record.leads.index(first), record.leads.index(second)]
            fillable = ~np.isfinite(signal[row]) & measured[rows].all(axis=0)
            if not fillable.any():
                continue
            weights = np.linalg.solve(np.array([LIMB_WEIGHTS[first], LIMB_WEIGHTS[second]]).T, LIMB_WEIGHTS[name])
            signal[row, fillable] = weights @ record.signal[rows][:, fillable]
            derived.add(name)
    return record.with_(signal=signal, derived=frozenset(derived))


def _pairs(limb: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return pairs of limb leads, those measured by devices (I, II, III) first."""
    order = sorted(limb, key=LIMB_LEADS.index)
    return [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]


def _any_in_fragment(mask: np.ndarray, fragment: int) -> np.ndarray:
    """Return whether any sample of each fragment is in a mask: (L, n_samples) -> (L, n_fragments)."""
    n_leads, n_samples = mask.shape
    n_fragments = -(-n_samples // fragment)
    padded = np.zeros((n_leads, n_fragments * fragment), dtype=bool)
    padded[:, :n_samples] = mask
    return np.asarray(padded.reshape(n_leads, n_fragments, fragment).any(axis=2))
