"""Corrupted lead generation: what is missing is computed where algebra allows, and generated where it does not.

Of the six limb leads any two determine the others (Einthoven's and Goldberger's equations); those are computed. For
the rest there are two ways, and their mixture.

- The masked-code encoder guesses the codes of the hidden fragments from all others; several draws are decoded. This is
  AnyECG's own method (arXiv 2411.17711, corrupted lead generation).
- The checkpoint has the head ``restorer``: missing leads are regressed on present ones, as
  `anyecg.tasks.lead_regression` says. With one or two independent leads a mean of both ways is better than either, so
  they are averaged, by weights chosen on validation records. With more, regression alone is better, and nothing is
  drawn. Where no standard lead is recorded, codes alone answer.

Computing limb leads, drawing, regression and the band are ours.

What is measured stays measured: only missing samples are filled.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from anyecg.engine import Model
from anyecg.errors import SignalError
from anyecg.heads import FOLDER, Head, open_head
from anyecg.leads import LIMB_LEADS, STANDARD_LEADS, display_order
from anyecg.quality import DISABLING, USABLE_SCORE, assess
from anyecg.record import Record
from anyecg.tasks.lead_regression import LIMB_WEIGHTS, Mixture, Regressed, regress

HEAD = "restorer"

DRAWS = 16
BAND = (5.0, 95.0)
"""Percentiles that bound the uncertainty band."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A record with nothing missing in the leads asked for.

    Parameters
    ----------
    record : Record
        Prepared: the model's rate and band. ``derived`` and ``restored`` name the leads that were computed and
        generated, in full or in part.
    low_mv, high_mv : ndarray of float32, shape (n_leads, n_samples)
        5th and 95th percentile of what may have been there; NaN where nothing was generated. They hold 90 % of the
        samples of validation records.
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
    draws, seed : int
        For generation by codes; the head draws nothing.

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
    head = restorer_of(model.checkpoint.folder)
    found = np.full((3, *missing.shape), np.nan, dtype=np.float32)
    codes_share = np.ones(prepared.n_samples)
    if head is not None:
        regressed = regress_leads(head, prepared)
        found = with_band(head, prepared.leads, regressed)
        codes_share = np.array([1.0, *head.config["codes_shares"]])[regressed.n_used]
    if (codes_share * missing > 0).any():
        drawn = _by_codes(model, seen, hidden, draws, seed)
        shift = np.where(np.isfinite(found[0]), codes_share * (drawn[0] - found[0]), 0)
        found = np.where(np.isfinite(found), found + shift, drawn)
    filled = np.where(missing, found[0], prepared.signal)
    low[missing], high[missing] = found[1][missing], found[2][missing]
    restored = frozenset(name for name, row in zip(prepared.leads, missing, strict=True) if row.any())
    generated = ", ".join(name for name in prepared.leads if name in restored)
    whole = prepared.with_(signal=filled, restored=prepared.restored | restored, derived=prepared.derived - restored)
    return Restored(whole.with_warning(f"generated by the model, not measured: {generated}"), low, high)


def _by_codes(model: Model, seen: Record, hidden: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Generate by drawing codes; return mean, low and high, float32 (3, n_leads, n_samples)."""
    tokens = model.tokenize(seen)
    tokens = replace(tokens, valid=tokens.valid | hidden)
    drawn = model.generate(tokens, hidden, draws=draws, seed=seed)
    return np.stack([drawn.mean(axis=0), *np.percentile(drawn, BAND, axis=0)]).astype(np.float32)


def restorer_of(checkpoint: Path) -> Head | None:
    """Return the head of a checkpoint folder that restores leads; None if it has none."""
    config = checkpoint / FOLDER / f"{HEAD}.json"
    return _opened(checkpoint, config.stat().st_mtime_ns) if config.is_file() else None


@lru_cache(maxsize=2)
def _opened(checkpoint: Path, _written_ns: int) -> Head | None:
    return open_head(checkpoint, HEAD)


@lru_cache(maxsize=2)
def mixture_of(head: Head) -> Mixture:
    """Return the components the head's graph holds: its graph mixes them, here by shares of 0 and 1."""
    share = np.array(head.config["shares"])
    (lagged,) = head.run(shares=np.eye(len(share), dtype=np.float32))
    return Mixture(share, lagged)


def regress_leads(head: Head, prepared: Record) -> Regressed:
    """Regress what is missing of the standard leads on what is there; rows as `STANDARD_LEADS`."""
    whole = by_algebra(with_leads(prepared, STANDARD_LEADS), STANDARD_LEADS)
    return regress(mixture_of(head), whole.pick(STANDARD_LEADS).signal)


def with_band(head: Head, leads: tuple[str, ...], regressed: Regressed) -> np.ndarray:
    """Return mean, low and high, float32 (3, n_leads, n_samples); NaN in what is no standard lead."""
    factor = np.array([np.nan, *head.config["band_factors"]])[regressed.n_used]
    reach = regressed.spread * factor
    rows = np.stack([regressed.mean, regressed.mean - reach, regressed.mean + reach]).astype(np.float32)
    rows[:, ~np.isfinite(regressed.spread)] = np.nan
    found = np.full((3, len(leads), rows.shape[2]), np.nan, dtype=np.float32)
    for number, name in enumerate(leads):
        if name in STANDARD_LEADS:
            found[:, number] = rows[:, STANDARD_LEADS.index(name)]
    return found


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
