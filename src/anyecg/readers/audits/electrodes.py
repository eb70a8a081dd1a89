"""Electrodes in the wrong place: which interchange would make of a twelve-lead beat one that hearts usually have.

The limb leads fit together whichever arm the electrode is on, so no equation tells (`anyecg.readers.audits.limbs`).
But P, QRS and T have usual directions in each lead, and these go together: of the median beat, 24 numbers are taken (P,
QRS and T of I, II and V1 to V6), and the distance to those of the usual beat is Mahalanobis's. Where an interchange,
taken back, brings the beat much nearer, it is said; only as possible, since a heart may be so.

``usual_beat.json`` beside this module holds mean and inverse covariance over the training split; the row ``audits`` of
``benchmarks/quality`` makes it again, and measures what is found and how often good records are complained about.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from anyecg.ranks import median
from anyecg.readers.audits.heartbeats import Heartbeats
from anyecg.readers.audits.pieces import most_recorded
from anyecg.record import Record

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The eight that are measured; the others follow from them."""

FROM_S, UNTIL_S = -0.25, 0.40
"""Of a beat around its QRS complex."""

GRID_HZ = 250.0
"""The beat is thinned to about this rate."""

P_S, PR_S, QRS_S, T_S = (-0.22, -0.10), (-0.10, -0.05), (-0.06, 0.06), (0.12, 0.36)
"""Where the waves are looked for; the PR segment is the zero line."""

P_SCALE, QRS_SCALE, T_SCALE = 0.03, 0.6, 0.06
"""Shares of the QRS complex's height at which a wave clearly points up or down: larger ones say no more (tanh)."""

SMALLEST_QRS_MV = 0.05

NEARER = 16.0
"""Half the squared distance that an interchange must save: chosen on split val, where from 12 on it complains about
less than one record in a hundred; 16 leaves a margin for other hospitals."""

FLAT = 0.1
"""Of the largest limb lead's QRS complex. Between electrodes on the two legs there is hardly any voltage; of 2,327
records of the splits train and val, one has a lead II or III below this."""

FEWEST_BEATS = 3


def _limbs(one: tuple[int, int], two: tuple[int, int]) -> np.ndarray:
    """Return the matrix whose I and II are sums of the I and II that were recorded."""
    matrix = np.eye(len(LEADS))
    matrix[:2, :2] = one, two
    return matrix


def _inverted(row: int) -> np.ndarray:
    matrix = np.eye(len(LEADS))
    matrix[row, row] = -1
    return matrix


INTERCHANGES = {
    "every lead is possibly inverted": -np.eye(len(LEADS)),
    "lead I is possibly inverted: arm electrodes interchanged?": _limbs((-1, 0), (-1, 1)),
    "lead II is possibly inverted: electrodes of right arm and left leg interchanged?": _limbs((1, -1), (0, -1)),
    **{f"{LEADS[row]} is possibly inverted": _inverted(row) for row in range(2, 8)},
    "V1 to V6 are possibly in reverse order": np.eye(len(LEADS))[[0, 1, 7, 6, 5, 4, 3, 2]],
}
"""What to say, and what takes it back: each is its own inverse. Left arm against left leg is missing: lead I and II
change places, and many hearts look so."""

_CHANGES = np.array(list(INTERCHANGES.values()))


def misplaced_electrodes(record: Record, beats: Heartbeats) -> list[str]:
    """Return a warning if the beat is far from the usual and an interchange of electrodes would make it usual."""
    beat = median_beat(record, beats)
    if beat is None:
        return []
    if flat := _between_legs(beat):
        return flat
    mean, precision = _usual()
    as_it_is = _distance(features(beat), mean, precision)
    if as_it_is < NEARER:  # none can save more than all
        return []
    saved = as_it_is - _distance(features(_CHANGES @ beat), mean, precision)
    best = int(saved.argmax())
    return [list(INTERCHANGES)[best]] if saved[best] > NEARER else []


def median_beat(record: Record, beats: Heartbeats) -> np.ndarray | None:
    """Return the median beat of `LEADS` in mV, shape (8, n) from `FROM_S` to `UNTIL_S`, 0 at the PR segment.

    None if a lead is missing, stands still, or there are too few beats.
    """
    if not set(LEADS) <= set(record.leads):
        return None
    piece = most_recorded(record, [record.leads.index(name) for name in LEADS])
    step = max(1, int(record.fs / GRID_HZ))
    first, last = round(FROM_S * record.fs), round(UNTIL_S * record.fs)
    at = beats.samples[(beats.samples >= -first) & (beats.samples < piece.shape[1] - last)]
    if len(at) < FEWEST_BEATS:
        return None
    beat = median(piece[:, at[:, None] + np.arange(first, last, step)], axis=1).astype(np.float64)  # (8, n)
    if not np.isfinite(beat).all() or not (np.ptp(beat, axis=1) > 0).all():
        return None
    zero: np.ndarray = median(beat[:, _part(beat, PR_S)])
    return beat - zero[:, None]


def features(beat: np.ndarray) -> np.ndarray:
    """Return where P, QRS and T point, from -1 (down) to 1 (up), shape (..., 24): P of all leads, then QRS, then T.

    Parameters
    ----------
    beat : ndarray of float, shape (..., 8, n)
        As `median_beat` returns it.
    """
    qrs = beat[..., _part(beat, QRS_S)]
    high, low = qrs.max(axis=-1), qrs.min(axis=-1)
    height = np.maximum(high - low, SMALLEST_QRS_MV)
    p, t = (beat[..., _part(beat, span)].mean(axis=-1) for span in (P_S, T_S))
    return np.tanh(
        np.concatenate((p / height / P_SCALE, (high + low) / height / QRS_SCALE, t / height / T_SCALE), axis=-1)
    )


def _part(beat: np.ndarray, span_s: tuple[float, float]) -> slice:
    """Return which samples of a beat lie in a span."""
    per_s = beat.shape[-1] / (UNTIL_S - FROM_S)
    return slice(round((span_s[0] - FROM_S) * per_s), round((span_s[1] - FROM_S) * per_s))


def _between_legs(beat: np.ndarray) -> list[str]:
    """Return a warning if lead II or III is nearly flat, as it is between two electrodes on the legs."""
    one, two = beat[:2, _part(beat, QRS_S)]
    heights = {"I": np.ptp(one), "II": np.ptp(two), "III": np.ptp(two - one)}
    for name, arm in (("II", "right"), ("III", "left")):
        if heights[name] < FLAT * max(heights.values()):
            return [f"lead {name} is nearly flat: electrodes of {arm} arm and right leg interchanged?"]
    return []


def _distance(found: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return half the squared Mahalanobis distance of features (..., 24) to the usual beat's."""
    off = found - mean
    distance: np.ndarray = 0.5 * ((off @ precision) * off).sum(axis=-1)
    return distance


@lru_cache(maxsize=1)
def _usual() -> tuple[np.ndarray, np.ndarray]:
    """Return mean (24,) and inverse covariance (24, 24) of the usual beat's features."""
    stored = json.loads(Path(__file__).with_name("usual_beat.json").read_text())
    return np.array(stored["mean"]), np.array(stored["precision"])
