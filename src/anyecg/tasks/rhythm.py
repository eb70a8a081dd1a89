"""RR intervals -> the probability of atrial fibrillation at every beat -> episodes; and all episodes of a recording.

Two small convolutional networks, of which one sees the sample entropy around a beat, answer together. They see only
when beats came, so any lead, device or rate will do, and a day of beats takes less than a second. What they say of a
beat depends on `REACH_BEATS` beats to either side and on nothing else: a recording cut into chunks that overlap by that
much gives the same answer as one pass.

The networks take many premature beats, or deep breathing, for fibrillation at times. An episode as a whole tells them
apart: regular intervals between the premature ones, or slow waves, lower its sample entropy. So an episode counts if
its entropy and the networks' certainty together reach a least evidence (`EpisodeRule`).

Atrial flutter is not among its answers: with 2:1 conduction its intervals are regular, and a rule tells it
(`anyecg.tasks.flutter`); with varying conduction they are those of fibrillation, and fibrillation is what is told.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from anyecg.heads import Head
from anyecg.record import Annotation, runs_of
from anyecg.tasks.episodes import covered_until, find_beat_episodes, intact_intervals, seconds_of
from anyecg.tasks.fibrillation import vf_episodes
from anyecg.tasks.flutter import flutter_episodes

HEAD = "rr_rhythm"
N_FEATURES = 5

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
"""Beats to either side that an answer depends on: the network's, the median's (the entropy needs fewer), and one for
the difference."""

CHUNK_BEATS, CHUNK_WINDOWS = 16384, 4096
"""Beats that go through the network, and windows of the entropy, at once: bounds the memory, not the answer."""

COSEN_INTERVALS, COSEN_MATCHES, COSEN_TOLERANCE_S = 12, 5, 0.03
"""Intervals in a window of the entropy, pairs that must match, and the least tolerance, seconds."""

COSEN_MIDDLE, COSEN_FAR = -1.5, 2.0
"""Between regular rhythms and fibrillation; a network sees how far from it an entropy is, this far at most."""


class EpisodeRule(NamedTuple):
    """How scores of beats become episodes of atrial fibrillation; split val and patients left out choose it.

    Parameters
    ----------
    threshold : float
        A beat with this score or more is inside.
    join_s : float
        Stretches with less than this between them are one.
    log_odds_weight, least_evidence : float
        An episode counts if its mean `irregularity` plus so many times its mean log odds is this or more.
    """

    threshold: float
    join_s: float
    log_odds_weight: float = 0.0
    least_evidence: float = -math.inf

    @classmethod
    def of(cls, head: Head) -> "EpisodeRule":
        """Return a head's; heads of version 1 ask for no evidence."""
        return cls(head.labels[0].threshold, head.config["join_s"], **head.config.get("evidence", {}))


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
    ndarray of float32, shape (5, n_beats)
        log of the interval over its local median; log of that median over 0.8 s; log of the interval over the one
        before; 1 where the interval is known; how far the `irregularity` of the 6 intervals that end with the beat or
        before it, and of the 6 that follow, is from `COSEN_MIDDLE`. What is unknown is 0.
    """
    from scipy.ndimage import median_filter

    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    features = np.zeros((N_FEATURES, len(beats_s)), dtype=np.float32)
    if len(beats_s) < 2:
        return features
    rr_s, known = _intervals(beats_s, unusable_s)
    log_rr = np.log(np.clip(rr_s, *RR_PLAUSIBLE_S))
    level = median_filter(log_rr, MEDIAN_BEATS, mode="nearest")  # an unknown interval in 61 hardly moves the median
    features[0, 1:] = np.where(known, log_rr - level, 0)
    features[1, 1:] = np.where(known, level - np.log(USUAL_RR_S), 0)
    features[2, 2:] = np.where(known[1:] & known[:-1], np.diff(log_rr), 0)
    features[3, 1:] = known
    around = COSEN_INTERVALS // 2
    entropy = irregularity(beats_s, unusable_s)[:-around] - COSEN_MIDDLE
    features[4, around:] = np.nan_to_num(np.clip(entropy, -COSEN_FAR, COSEN_FAR))
    return features


def _intervals(beats_s: np.ndarray, unusable_s: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the RR intervals (n_beats - 1,), seconds, and whether each is known."""
    rr_s = np.diff(beats_s)
    plausible = (rr_s >= RR_PLAUSIBLE_S[0]) & (rr_s <= RR_PLAUSIBLE_S[1])
    return rr_s, plausible & intact_intervals(beats_s, unusable_s)


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
    n_beats, n_seen = features.shape[1], head.config.get("n_features", 4)  # heads of version 1 and 2 see no entropy
    probability = np.zeros(n_beats, dtype=np.float32)
    for start in range(0, n_beats, CHUNK_BEATS):
        stop = min(start + CHUNK_BEATS, n_beats)
        first, last = max(start - NETWORK_REACH_BEATS, 0), min(stop + NETWORK_REACH_BEATS, n_beats)
        (seen,) = head.run(features=features[None, :n_seen, first:last])
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


def irregularity(
    r_peaks_s: np.ndarray, unusable_s: np.ndarray | None = None, wanted: np.ndarray | None = None
) -> np.ndarray:
    """Return the coefficient of sample entropy (CoSEn) of the 12 RR intervals that follow each beat.

    Parameters
    ----------
    r_peaks_s, unusable_s
        As for `rr_features`.
    wanted : ndarray of bool, shape (n_beats,), optional
        Beats to answer for; by default all.

    Returns
    -------
    ndarray of float64, shape (n_beats,)
        Natural logarithm, no unit; in fibrillation mostly above -1. NaN where not wanted, or where one of the 12
        intervals is unknown or missing.

    Notes
    -----
    Lake and Moorman 2011, doi:10.1152/ajpheart.00561.2010: m = 1, the tolerance grows from 30 ms until 5 pairs match.
    Departure: a pair of windows of one interval counts only where the interval after it lies in the 12, too.
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    values = np.full(len(beats_s), np.nan)
    if len(beats_s) <= COSEN_INTERVALS:
        return values
    rr_s, known = _intervals(beats_s, unusable_s)
    windows = sliding_window_view(rr_s, COSEN_INTERVALS)
    asked = np.asarray(sliding_window_view(known, COSEN_INTERVALS).all(axis=1))
    if wanted is not None:
        asked &= wanted[: len(asked)]
    matches, wider = _matches(rr_s)
    steady = asked & (matches >= COSEN_MATCHES)  # the least tolerance will do: of most windows outside fibrillation
    of_mean = 2 * COSEN_TOLERANCE_S / windows.mean(axis=1)[steady]  # of a view: a copy has twelve times the beats
    values[: len(windows)][steady] = np.log(wider[steady] / matches[steady] * of_mean)
    starts = np.flatnonzero(asked & ~steady)
    for begin in range(0, len(starts), CHUNK_WINDOWS):
        at = starts[begin : begin + CHUNK_WINDOWS]
        values[at] = cosen_of(windows[at])
    return values


def _matches(rr_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs, of two and of one interval, that match by the least tolerance in each window, (n - 11,) each.

    Windows share their pairs, so each lag is compared once, for all of them together.
    """
    n_windows, longest = len(rr_s) - COSEN_INTERVALS + 1, COSEN_INTERVALS - 2
    partners, counts = np.zeros((2, len(rr_s)), dtype=np.uint8), np.zeros((2, n_windows), dtype=np.uint8)
    for lag in range(1, longest + 1):
        near = np.abs(rr_s[lag:] - rr_s[:-lag]) <= COSEN_TOLERANCE_S
        partners[0, : len(near) - 1] += near[:-1] & near[1:]
        partners[1, : len(near) - 1] += near[:-1]
        first = longest - lag  # from here on in a window, an interval has its partners up to this lag away in it
        counts += partners[:, first : first + n_windows]
    return counts[0], counts[1]


def cosen_of(windows: np.ndarray) -> np.ndarray:
    """Return the entropy (see `irregularity`) of windows of RR intervals, (n, `COSEN_INTERVALS`) seconds -> (n,)."""
    rr_s = np.ascontiguousarray(windows.T)
    first, second = np.triu_indices(len(rr_s) - 1, 1)
    apart = np.abs(rr_s[first] - rr_s[second])  # templates of length 1, (pairs, n)
    both = np.maximum(apart, np.abs(rr_s[first + 1] - rr_s[second + 1]))  # of length 2
    least: list[Any] = [np.inf] * COSEN_MATCHES  # the nearest pairs of each window, in order; sorting all takes longer
    for other in both:
        for k, before in enumerate(least):
            least[k], other = np.minimum(before, other), np.maximum(before, other)
    tolerance = np.maximum(least[-1], COSEN_TOLERANCE_S)
    matches, wider = (both <= tolerance).sum(axis=0), (apart <= tolerance).sum(axis=0)
    return np.asarray(np.log(wider / matches * 2 * tolerance / windows.mean(axis=1)))


def evidence_of(
    episodes: list[Annotation], r_peaks_s: np.ndarray, probability: np.ndarray, irregular: np.ndarray
) -> np.ndarray:
    """Return what speaks for each episode: its mean log odds, and its mean `irregularity`.

    Parameters
    ----------
    episodes : list of Annotation
        Of `af_episodes`: they begin and end with a beat.
    r_peaks_s, probability, irregular : ndarray, shape (n_beats,)
        The last as `irregularity` returns it, at least for beats inside episodes.

    Returns
    -------
    ndarray of float64, shape (n_episodes, 2)
        The second is NaN where no 12 intervals in a row are known.
    """
    edges_s = np.array([(a.start_s, a.end_s) for a in episodes]).reshape(-1, 2)
    first, last = np.searchsorted(r_peaks_s, edges_s).T
    odds = np.clip(np.asarray(probability, dtype=np.float64), 1e-6, 1 - 1e-6)
    log_odds = np.concatenate(([0.0], np.cumsum(np.log(odds / (1 - odds)))))
    total = np.concatenate(([0.0], np.cumsum(np.nan_to_num(irregular))))
    number = np.concatenate(([0], np.cumsum(np.isfinite(irregular))))
    stop = np.maximum(last + 1 - COSEN_INTERVALS, first)  # beats whose 12 intervals end inside
    with np.errstate(invalid="ignore"):
        mean = (total[stop] - total[first]) / (number[stop] - number[first])
    return np.column_stack([(log_odds[last + 1] - log_odds[first]) / (last + 1 - first), mean])


def convincing(evidence: np.ndarray, rule: EpisodeRule) -> np.ndarray:
    """Return whether the evidence (n, 2) of each episode is enough; the network alone decides where none is known."""
    irregular = evidence[:, 1] + rule.log_odds_weight * evidence[:, 0]
    return ~(irregular < rule.least_evidence)


def af_episodes_by(
    rule: EpisodeRule, r_peaks_s: np.ndarray, probability: np.ndarray, unusable_s: np.ndarray | None = None
) -> list[Annotation]:
    """Merge beats to episodes, as `af_episodes` does, and return those that are `convincing`."""
    episodes = af_episodes(r_peaks_s, probability, rule.threshold, rule.join_s)
    if not episodes or rule.least_evidence == -math.inf:
        return episodes
    edges_s = np.array([(a.start_s, a.end_s) for a in episodes])
    inside = covered_until(edges_s, np.append(r_peaks_s[1:], np.inf)) > covered_until(edges_s, r_peaks_s)
    irregular = irregularity(r_peaks_s, unusable_s, inside)
    kept = convincing(evidence_of(episodes, r_peaks_s, probability, irregular), rule)
    return [episode for episode, enough in zip(episodes, kept, strict=True) if enough]


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
    found = find_beat_episodes(r_peaks_s, classes, unusable_s) + flutter_episodes(r_peaks_s, classes, unusable_s)
    if head is not None:
        probability = af_probability(head, r_peaks_s, unusable_s)
        fibrillation = af_episodes_by(EpisodeRule.of(head), r_peaks_s, probability, unusable_s)
        inside_s = seconds_of(fibrillation, "AFIB")
        starts_s = np.array([a.start_s for a in found])
        within = np.diff(covered_until(inside_s, np.stack([starts_s, starts_s + 1e-3])), axis=0)[0] > 0
        found = [a for a, inside in zip(found, within, strict=True) if not (inside and a.code in ("SVTA", "AB"))]
        found += fibrillation
    if vf_scores is not None:
        found += vf_episodes(vf_scores)
    return tuple(sorted(found, key=lambda a: (a.start_s, a.end_s)))
