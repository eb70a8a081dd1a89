"""Prepared piece + R peaks -> the ST level of each lead, mV: 60 ms after the J point, against the PR segment.

A trend over a day, one value a minute and lead: it shows when a level moves, not what a level means. Posture, rate and
conduction move it too; it was not validated against an annotated ST database, since none is at hand.
"""

import numpy as np

from anyecg.ranks import median
from anyecg.record import Record

BEFORE_S, AFTER_S = 0.20, 0.30
"""A beat's window about its R peak: the PR segment before it, ST after the widest QRS."""

FEWEST_BEATS = 5
AFTER_J_S = 0.06
"""Exercise and Holter practice measures at J + 60 or J + 80 ms; the European ST-T database at J + 80, and at J + 60
where the rate is above 120 (Taddei 1992, doi:10.1093/oxfordjournals.eurheartj.a060332). One rule at all rates keeps a
trend free of steps."""

PR_S = 0.016
"""Length of the PR segment's end that is the level; it ends `GUARD_S` before QRS."""
GUARD_S = 0.012
HALF_WIDTH_S = 0.01
"""The ST level is a mean over so much to both sides: a whole period of 50 Hz, a little more than one of 60."""

CALM_SHARE, CALM_S = 0.06, 0.012
"""Outside QRS the slope stays below this share of the steepest one for so long."""

ONSET_S, OFFSET_S = (-0.12, -0.02), (0.03, 0.14)
"""Where QRS begins and ends, about the R peak, at the extremes; where the slope shows no end, the usual 45 ms before
and 50 ms after it (a normal QRS lasts 80 to 110 ms)."""
USUAL_ONSET_S, USUAL_OFFSET_S = -0.045, 0.05


def st_levels(piece: Record, r_peaks_s: np.ndarray) -> np.ndarray:
    """Measure the ST level of each lead of a piece.

    Parameters
    ----------
    piece : Record
        As `anyecg.prepare` returns it: mV, NaN where not recorded; about a minute.
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds from the first sample of the piece.

    Returns
    -------
    ndarray of float32, shape (n_leads,)
        mV; NaN with fewer than five whole beats, in a lead that was not recorded, and where the gain is unknown.

    Notes
    -----
    QRS onset and J point are those of the median beat, from its root-mean-square slope over the leads, so every lead is
    measured at the same time. The level is the median over beats of each beat's ST less its own PR level: what slow
    wander the zero-phase band-pass left is the same in both, and an ectopic beat is outvoted.
    """
    levels = np.full(piece.n_leads, np.nan, dtype=np.float32)
    if not piece.gain_known:
        return levels
    fs = piece.fs
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    at = np.rint(np.asarray(r_peaks_s, dtype=np.float64) * fs).astype(np.int64)
    at = at[(at >= before) & (at + after < piece.n_samples)]
    if len(at) < FEWEST_BEATS:
        return levels
    beats = piece.signal[:, at[:, None] + np.arange(-before, after + 1)].astype(np.float64)  # (L, beats, window)
    whole = np.isfinite(beats.sum(axis=2))
    rows = np.flatnonzero(whole.sum(axis=1) >= FEWEST_BEATS)
    if not len(rows):
        return levels
    onset, j = _qrs(np.stack([median(beats[row, whole[row]], axis=0) for row in rows]), before, fs)
    pr = slice(max(onset - round((PR_S + GUARD_S) * fs), 0), max(onset - round(GUARD_S * fs), 1))
    middle, half = j + round(AFTER_J_S * fs), round(HALF_WIDTH_S * fs)
    st = slice(middle - half, middle + half + 1)
    for row in rows.tolist():
        own = beats[row, whole[row]]
        levels[row] = median(own[:, st].mean(axis=1) - own[:, pr].mean(axis=1))
    return levels


def _qrs(beat: np.ndarray, r: int, fs: float) -> tuple[int, int]:
    """Return the samples at which QRS of a median beat (n_leads, n_window), R at sample ``r``, begins and ends."""
    slope = np.sqrt(np.square(np.gradient(beat, axis=1)).mean(axis=0))
    slope = np.convolve(slope, np.ones(3) / 3, mode="same")
    steepest = slope[r - round(0.06 * fs) : r + round(0.08 * fs)].max()
    size = max(round(CALM_S * fs), 2)
    calm = (
        np.convolve(slope < CALM_SHARE * steepest, np.ones(size), mode="full") >= size
    )  # of the `size` samples up to i
    first, last = (r + round(s * fs) for s in ONSET_S)
    ends = np.flatnonzero(calm[first:last])  # a calm stretch ends here, QRS begins after it
    onset = first + int(ends[-1]) + 1 if len(ends) else r + round(USUAL_ONSET_S * fs)
    first, last = (r + round(s * fs) for s in OFFSET_S)
    begins = np.flatnonzero(calm[first + size - 1 : last + size - 1])  # a calm stretch begins here
    return onset, first + int(begins[0]) if len(begins) else r + round(USUAL_OFFSET_S * fs)
