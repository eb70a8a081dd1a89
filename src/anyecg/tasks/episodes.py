"""Beats and their classes -> rhythm episodes, by rules: pauses, slow and fast stretches, runs and patterns of ectopy.

A rule says what it says and no more: ``BRADY`` is a rate, not a sinus node. Codes are MIT-BIH rhythm labels where there
is one; ``BRADY``, ``TACHY``, ``PAUSE`` and ``VCOUPLET`` are ours.

Times are those of R peaks: an episode lasts from its first R peak to its last. A stretch in which nothing usable was
recorded breaks every pattern, and is never a pause. All rules are vectorised: the only loops are over episodes found.
"""

import numpy as np

from anyecg.codes import table
from anyecg.record import Annotation, runs_of
from anyecg.result import Finding

RULES = "rules"
"""The source of findings that follow from beats by rules."""

WAVEFORM = "waveform"
"""The source of findings that follow from the signal between beats (see `anyecg.tasks.fibrillation`)."""

PAUSE_S = 2.0
"""Long-term reports commonly list pauses from 2 s; those over 3 s are sinus node dysfunction (ACC/AHA/HRS guideline
2018, doi:10.1161/CIR.0000000000000628)."""

SLOW_BPM = 50.0
"""Bradycardia: below this (ACC/AHA/HRS 2018, as above)."""

FAST_BPM = 100.0
"""Tachycardia: above this; for runs of ectopic beats: at least this (ACC/AHA/HRS guideline 2015,
doi:10.1161/CIR.0000000000000311)."""

SUSTAINED_S = 30.0
"""Slow and fast stretches count from this length. No guideline gives one for rates; 30 s is where tachycardias are
called sustained."""

RATE_BEATS = 9
"""The rate is the median of so many RR intervals: one premature beat with its pause does not end a stretch."""

RUN_BEATS = 3
"""Ectopic beats that make a run, a bigeminy (V N V N V) or a trigeminy, as the annotators of MIT-BIH have it."""


POSSIBLE = ("AFL",)
"""Episodes that something else may look like (see `anyecg.tasks.flutter`): the finding's name says so."""


def find_beat_episodes(
    r_peaks_s: np.ndarray, classes: np.ndarray | None = None, unusable_s: np.ndarray | None = None
) -> list[Annotation]:
    """Find every episode that beat times and beat classes alone tell.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds, ascending.
    classes : ndarray of str, shape (n_beats,), optional
        EC57 classes ``N S V F Q``, one letter a beat. Without them there are only pauses and rates.
    unusable_s : ndarray, shape (n, 2), optional
        Stretches (start, end) in which no beat could have been found.

    Returns
    -------
    list of Annotation
        Kind ``"rhythm"``, in time order, ``lead`` and ``score`` None.

    Raises
    ------
    ValueError
        Not one class a beat.

    Examples
    --------
    >>> [(a.code, a.start_s, a.end_s) for a in find_beat_episodes(np.array([0.0, 0.8, 1.6, 4.0, 4.8]))]
    [('PAUSE', 1.6, 4.0)]
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    if classes is not None and len(classes) != len(beats_s):
        raise ValueError(f"{len(classes)} classes for {len(beats_s)} beats; give each beat one")
    if len(beats_s) < 2:
        return []
    intact = intact_intervals(beats_s, unusable_s)
    found = [*_pauses(beats_s, intact), *_rates(beats_s, intact)]
    if classes is not None:
        letters = np.asarray(classes).astype("U1")
        found += _runs(beats_s, letters == "V", intact, ventricular=True)
        found += _runs(beats_s, letters == "S", intact, ventricular=False)
        found += _patterns(beats_s, letters == "V", intact, {2: "B", 3: "T"})
        found += _patterns(beats_s, letters == "S", intact, {2: "AB"})
    return sorted(found, key=lambda a: (a.start_s, a.end_s))


def intact_intervals(beats_s: np.ndarray, unusable_s: np.ndarray | None) -> np.ndarray:
    """Return whether each RR interval, bool (n_beats - 1,), is free of unusable stretches."""
    return np.diff(covered_until(unusable_s, beats_s)) <= 0


def merged(stretches_s: np.ndarray | None) -> np.ndarray:
    """Return stretches (n, 2) in order, those that touch or overlap as one; empty ones are dropped."""
    if stretches_s is None or len(stretches_s) == 0:
        return np.empty((0, 2))
    stretches = np.asarray(stretches_s, dtype=np.float64)
    stretches = stretches[stretches[:, 1] > stretches[:, 0]]
    stretches = stretches[np.argsort(stretches[:, 0], kind="stable")]
    if not len(stretches):
        return np.empty((0, 2))
    until = np.maximum.accumulate(stretches[:, 1])
    first = np.concatenate(([True], stretches[1:, 0] > until[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack([stretches[first, 0], until[last]])


def covered_until(stretches_s: np.ndarray | None, at_s: np.ndarray) -> np.ndarray:
    """Return how many seconds of the stretches (n, 2) lie before each time (m,); overlaps count once."""
    at_s = np.asarray(at_s, dtype=np.float64)
    edges = merged(stretches_s)
    if not len(edges):
        return np.zeros(at_s.shape)
    total = np.concatenate(([0.0], np.cumsum(edges[:, 1] - edges[:, 0])))
    # Between the edges the total is piecewise linear: it grows inside a stretch and rests between two.
    return np.asarray(np.interp(at_s, edges.ravel(), np.column_stack([total[:-1], total[1:]]).ravel()))


def seconds_of(episodes: list[Annotation] | tuple[Annotation, ...], code: str) -> np.ndarray:
    """Return the stretches (n, 2) of the episodes with a code."""
    return np.array([(a.start_s, a.end_s) for a in episodes if a.code == code], dtype=np.float64).reshape(-1, 2)


def as_finding(episode: Annotation, leads: tuple[str, ...] = (), threshold: float | None = None) -> Finding:
    """Return an episode as a finding; a rule's has neither score nor threshold."""
    code = table()[episode.code]
    source = RULES if episode.score is None else WAVEFORM if episode.code == "VF" else "rr_rhythm"
    name = f"possible {code.name}" if episode.code in POSSIBLE else code.name
    return Finding(
        **{**vars(episode), "snomed": code.snomed, "name": name, "threshold": threshold},
        present=True,
        leads=leads,
        source=source,
    )


def _episode(beats_s: np.ndarray, first: int, last: int, code: str) -> Annotation:
    return Annotation(float(beats_s[first]), float(beats_s[last]), "rhythm", code)


def _pauses(beats_s: np.ndarray, intact: np.ndarray) -> list[Annotation]:
    long = np.flatnonzero((np.diff(beats_s) > PAUSE_S) & intact)
    return [_episode(beats_s, i, i + 1, "PAUSE") for i in long.tolist()]


def _rates(beats_s: np.ndarray, intact: np.ndarray) -> list[Annotation]:
    """Find sustained slow and fast stretches from the running median of the RR interval."""
    from scipy.ndimage import median_filter

    rr_s = median_filter(np.diff(beats_s), RATE_BEATS, mode="nearest")
    found = []
    for code, mask in (("BRADY", rr_s > 60 / SLOW_BPM), ("TACHY", rr_s < 60 / FAST_BPM)):
        for start, stop in runs_of(mask & intact):
            if beats_s[stop] - beats_s[start] >= SUSTAINED_S:
                found.append(_episode(beats_s, start, stop, code))
    return found


def _runs(beats_s: np.ndarray, ectopic: np.ndarray, intact: np.ndarray, *, ventricular: bool) -> list[Annotation]:
    """Find couplets and runs of consecutive ectopic beats; a run's rate is that of the intervals inside it."""
    found = []
    for start, stop in runs_of(ectopic[:-1] & ectopic[1:] & intact):  # intervals between two ectopic beats
        n_beats = stop - start + 1
        bpm = 60 * (n_beats - 1) / max(beats_s[stop] - beats_s[start], 1e-9)
        if n_beats < RUN_BEATS:
            code = "VCOUPLET" if ventricular else None
        elif bpm >= FAST_BPM:
            code = "VT" if ventricular else "SVTA"
        else:
            code = "IVR" if ventricular else None
        if code:
            found.append(_episode(beats_s, start, stop, code))
    return found


def _patterns(
    beats_s: np.ndarray, ectopic: np.ndarray, intact: np.ndarray, code_of: dict[int, str]
) -> list[Annotation]:
    """Find stretches in which every second, or every third, beat is ectopic."""
    at = np.flatnonzero(ectopic)
    breaks = np.concatenate(([0], np.cumsum(~intact)))[at]
    steps = np.where(np.diff(breaks) == 0, np.diff(at), 0)
    return [
        _episode(beats_s, int(at[start]), int(at[stop]), code)
        for step, code in code_of.items()
        for start, stop in runs_of(steps == step)
        if stop - start + 1 >= RUN_BEATS
    ]
