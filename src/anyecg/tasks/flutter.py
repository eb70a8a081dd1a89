"""Beats -> episodes that are atrial flutter, or look like it: fast, regular to the millisecond, begun or ended at once.

The atria flutter at 260 to 350 a minute, and mostly every second wave is conducted: the heart beats 130 to 175 times a
minute, as even as a clock (the textbooks' rule: a regular tachycardia near 150 is flutter until shown otherwise). The
sinus node gets there, too, but comes and goes step by step, so a stretch counts only between two jumps of the rate.

What it cannot do. Other supraventricular tachycardias of that rate look the same. With 3:1 or 4:1 conduction the rate
is an ordinary one, and with varying conduction the intervals are those of fibrillation, which is then told instead.
Flutter waves are not asked for: no detector of them found the marked episodes at hand (the row ``flutter`` of the
benchmarks, which also says how often this rule is wrong).
"""

import numpy as np

from anyecg.record import Annotation, runs_of
from anyecg.tasks.episodes import RATE_BEATS, SUSTAINED_S, intact_intervals

CODE = "AFL"

RATE_BPM = (130.0, 175.0)
"""Half of 260 to 350 waves a minute. The sinus node of an adult at rest does not get there."""

JUMP, REACH_BEATS = 0.10, 8
"""The rate jumps where it changes by this share from so many beats before to so many after."""

MOST_CHANGE = 0.08
"""Between two jumps the rate may change by this share, first and last fiftieth not counted."""

STEADY_S, STEADY_SHARE = 0.010, 0.7
"""So many of the RR intervals lie this near to the running median. One sample is 8 ms in many Holter recordings."""

WITHOUT_JUMP_S = 600.0
"""A stretch that the recording, or a gap in it, cuts off on both sides must last as long: nothing but flutter does."""

RR_WITHIN_S = (0.2, 3.0)


def flutter_episodes(
    r_peaks_s: np.ndarray, classes: np.ndarray | None = None, unusable_s: np.ndarray | None = None
) -> list[Annotation]:
    """Find stretches of a regular tachycardia that is likely atrial flutter with 2:1 conduction.

    Parameters
    ----------
    r_peaks_s, classes, unusable_s
        As for `anyecg.tasks.episodes.find_beat_episodes`. A stretch of mostly ventricular beats is none; what is
        unusable cuts, and is no jump of the rate.

    Returns
    -------
    list of Annotation
        Kind ``"rhythm"``, code ``"AFL"``, no score, in time order; 30 s and more each.

    Notes
    -----
    Rates of flutter and 2:1 conduction: Wellens 2002, doi:10.1161/01.CIR.0000027590.29169.52. Jumps, steadiness and
    their limits are ours, set on split train: 1,958 hours of beats.
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    if len(beats_s) < 2 * REACH_BEATS:
        return []
    from scipy.ndimage import median_filter

    rr_s = np.diff(beats_s)
    level = np.log(median_filter(np.clip(rr_s, *RR_WITHIN_S), RATE_BEATS, mode="nearest"))
    known = intact_intervals(beats_s, unusable_s) & (rr_s <= RR_WITHIN_S[1])
    padded = np.pad(level, REACH_BEATS, mode="edge")
    jumps = np.abs(padded[2 * REACH_BEATS :] - padded[: -2 * REACH_BEATS]) >= np.log1p(JUMP)
    ventricular = np.zeros(len(beats_s), dtype=bool) if classes is None else np.asarray(classes) == "V"
    found = []
    for start, stop in runs_of(known & ~jumps):
        typical = float(np.median(level[start:stop]))
        if not 60 / RATE_BPM[1] <= np.exp(typical) <= 60 / RATE_BPM[0]:
            continue
        begins, ends = start > 0 and known[start - 1], stop < len(rr_s) and known[stop]
        first, last = _widened(rr_s, known, start, stop, float(np.exp(typical)))
        lasts_s = beats_s[last] - beats_s[first]
        low, high = np.quantile(level[start:stop], [0.02, 0.98])
        steady = np.abs(rr_s[start:stop] - np.exp(level[start:stop])) <= STEADY_S
        if (
            lasts_s >= (SUSTAINED_S if begins or ends else WITHOUT_JUMP_S)
            and high - low <= MOST_CHANGE
            and steady.mean() >= STEADY_SHARE
            and ventricular[first : last + 1].mean() < 0.5
        ):
            found.append(Annotation(float(beats_s[first]), float(beats_s[last]), "rhythm", CODE))
    return found


def _widened(rr_s: np.ndarray, known: np.ndarray, start: int, stop: int, typical_s: float) -> tuple[int, int]:
    """Return first and last beat of a stretch of intervals and of those like it up to the jumps on both sides."""
    like = known & (np.abs(rr_s - typical_s) <= MOST_CHANGE * typical_s)
    first, last = start, stop
    while first > max(start - 2 * REACH_BEATS, 0) and like[first - 1]:
        first -= 1
    while last < min(stop + 2 * REACH_BEATS, len(rr_s)) and like[last]:
        last += 1
    return first, last
