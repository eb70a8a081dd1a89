"""RR intervals -> the probability of atrial fibrillation at every beat -> episodes; and all episodes of a recording.

A small convolutional network sees only when beats came, so any lead, device or rate will do, and a day of beats takes
about a second. What it says of a beat depends on `REACH_BEATS` beats to either side and on nothing else: a recording
cut into chunks that overlap by that much gives the same answer as one pass.

Atrial flutter is not among its answers, nor told from anything else: the databases at hand have 0.2 hours of it, with
fixed conduction its RR intervals are regular, and a detector of its waves misses the marked episodes (the row
``flutter`` of the benchmarks).
"""

import numpy as np

from anyecg.heads import Head
from anyecg.record import Annotation, runs_of
from anyecg.tasks.episodes import covered_until, find_beat_episodes, intact_intervals, seconds_of
from anyecg.tasks.fibrillation import vf_episodes

HEAD = "rr_rhythm"
N_FEATURES = 4

SHORTEST_AF_S = 30.0
"""Shorter stretches are no episode: ESC guideline 2020, doi:10.1093/eurheartj/ehaa612, 30 s by convention."""

RR_PLAUSIBLE_S = (0.2, 3.0)
"""Intervals outside 300..20 beats a minute are taken as unknown: a missed beat, a false one, or a pause."""

MEDIAN_BEATS = 61
"""The local RR level is the median of so many intervals."""

USUAL_RR_S = 0.8
NETWORK_REACH_BEATS = 254
"""Beats to either side that the network's convolutions see (see `anyecg.training.rhythm.RRNetwork`)."""

REACH_BEATS = NETWORK_REACH_BEATS + MEDIAN_BEATS // 2 + 1
"""Beats to either side that an answer depends on: the network's, the median's, and one for the difference."""

CHUNK_BEATS = 16384
"""Beats that go through the network at once: bounds the memory, not the answer."""


def rr_features(r_peaks_s: np.ndarray, unusable_s: np.ndarray | None = None) -> np.ndarray:
    """Describe each beat by the RR interval that ends with it.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds, ascending.
    unusable_s : ndarray, shape (n, 2), optional
        Stretches (start, end) in which no beat could have been found.

    Returns
    -------
    ndarray of float32, shape (4, n_beats)
        log of the interval over its local median; log of that median over 0.8 s; log of the interval over the one
        before; 1 where the interval is known. Unknown intervals are 0.
    """
    from scipy.ndimage import median_filter

    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    features = np.zeros((N_FEATURES, len(beats_s)), dtype=np.float32)
    if len(beats_s) < 2:
        return features
    rr_s = np.diff(beats_s)
    known = (rr_s >= RR_PLAUSIBLE_S[0]) & (rr_s <= RR_PLAUSIBLE_S[1]) & intact_intervals(beats_s, unusable_s)
    log_rr = np.log(np.clip(rr_s, *RR_PLAUSIBLE_S))
    level = median_filter(log_rr, MEDIAN_BEATS, mode="nearest")  # an unknown interval in 61 hardly moves the median
    features[0, 1:] = np.where(known, log_rr - level, 0)
    features[1, 1:] = np.where(known, level - np.log(USUAL_RR_S), 0)
    features[2, 2:] = np.where(known[1:] & known[:-1], np.diff(log_rr), 0)
    features[3, 1:] = known
    return features


def af_probability(head: Head, r_peaks_s: np.ndarray, unusable_s: np.ndarray | None = None) -> np.ndarray:
    """Return the calibrated probability that each beat is in atrial fibrillation.

    Parameters
    ----------
    head : Head
        The checkpoint's head `HEAD`.
    r_peaks_s, unusable_s
        As for `rr_features`.

    Returns
    -------
    ndarray of float32, shape (n_beats,)
    """
    features = rr_features(r_peaks_s, unusable_s)
    n_beats = features.shape[1]
    probability = np.zeros(n_beats, dtype=np.float32)
    for start in range(0, n_beats, CHUNK_BEATS):
        stop = min(start + CHUNK_BEATS, n_beats)
        first, last = max(start - NETWORK_REACH_BEATS, 0), min(stop + NETWORK_REACH_BEATS, n_beats)
        (seen,) = head.run(features=features[None, :, first:last])
        probability[start:stop] = seen[0, start - first : stop - first]
    return probability


def af_episodes(
    r_peaks_s: np.ndarray,
    probability: np.ndarray,
    threshold: float,
    join_s: float,
    shortest_s: float = SHORTEST_AF_S,
) -> list[Annotation]:
    """Merge beats in atrial fibrillation to episodes.

    Parameters
    ----------
    r_peaks_s, probability : ndarray, shape (n_beats,)
    threshold : float
        A beat from here on is in atrial fibrillation.
    join_s : float
        Stretches with less than this between them are one. A longer time without beats ends an episode.
    shortest_s : float
        Shorter episodes are dropped, after joining.

    Returns
    -------
    list of Annotation
        Kind ``"rhythm"``, code ``"AFIB"``, score = mean probability of its beats.
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    if len(beats_s) < 2:
        return []
    inside = np.asarray(probability) >= threshold
    together = inside[:-1] & inside[1:] & (np.diff(beats_s) <= max(join_s, RR_PLAUSIBLE_S[1]))
    runs = np.array(runs_of(together), dtype=np.int64).reshape(-1, 2)  # first and last beat of each
    apart = beats_s[runs[1:, 0]] - beats_s[runs[:-1, 1]] >= join_s
    first = runs[np.concatenate(([True], apart)), 0] if len(runs) else runs[:, 0]
    last = runs[np.concatenate((apart, [True])), 1] if len(runs) else runs[:, 1]
    total = np.concatenate(([0.0], np.cumsum(probability, dtype=np.float64)))
    episodes = []
    for i in np.flatnonzero(beats_s[last] - beats_s[first] >= shortest_s).tolist():
        score = float((total[last[i] + 1] - total[first[i]]) / (last[i] + 1 - first[i]))
        episodes.append(Annotation(float(beats_s[first[i]]), float(beats_s[last[i]]), "rhythm", "AFIB", score=score))
    return episodes


def find_episodes(
    r_peaks_s: np.ndarray,
    classes: np.ndarray | None = None,
    *,
    head: Head | None = None,
    unusable_s: np.ndarray | None = None,
    vf_scores: np.ndarray | None = None,
) -> tuple[Annotation, ...]:
    """Find every rhythm episode of a recording.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds, ascending.
    classes : ndarray of str, shape (n_beats,), optional
        EC57 classes ``N S V F Q``; without them no ectopy is told.
    head : Head, optional
        The checkpoint's head `HEAD`; without it no atrial fibrillation is told.
    unusable_s : ndarray, shape (n, 2), optional
        Stretches (start, end) in which no beat could have been found.
    vf_scores : ndarray, shape (n_windows,), optional
        As `anyecg.tasks.fibrillation.vf_windows` returns it; without it no ventricular fibrillation is told.

    Returns
    -------
    tuple of Annotation
        In time order; codes of kind rhythm in `anyecg.codes`.

    Notes
    -----
    Runs and patterns of supraventricular beats that begin inside atrial fibrillation are left out: no beat is premature
    where none is due.
    """
    found = find_beat_episodes(r_peaks_s, classes, unusable_s)
    if head is not None:
        probability = af_probability(head, r_peaks_s, unusable_s)
        fibrillation = af_episodes(r_peaks_s, probability, head.labels[0].threshold, head.config["join_s"])
        inside_s = seconds_of(fibrillation, "AFIB")
        starts_s = np.array([a.start_s for a in found])
        within = np.diff(covered_until(inside_s, np.stack([starts_s, starts_s + 1e-3])), axis=0)[0] > 0
        found = [a for a, inside in zip(found, within, strict=True) if not (inside and a.code in ("SVTA", "AB"))]
        found += fibrillation
    if vf_scores is not None:
        found += vf_episodes(vf_scores)
    return tuple(sorted(found, key=lambda a: (a.start_s, a.end_s)))
