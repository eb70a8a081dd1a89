"""A long recording in a few numbers: hour by hour, minute by minute, burdens, and the strips worth a look first.

Hierarchical: fragments -> windows of ten seconds -> minutes and hours -> the record. The same function serves ten
seconds and two weeks; a ten-second recording has one short hour. Time without usable signal counts for nothing: not as
a slow heart, not as a pause, not in the denominator of a burden. Everything is linear in beats, fragments and episodes.
"""

from dataclasses import replace

import numpy as np

from anyecg.overview import EpisodeCount, Hour, Overview, RRStatistics, Strip
from anyecg.record import Annotation
from anyecg.tasks.episodes import RATE_BEATS, covered_until, intact_intervals, merged, seconds_of
from anyecg.tasks.hrv import SEGMENT_S, hrv, normal_intervals
from anyecg.tasks.rhythm import RR_PLAUSIBLE_S

HOUR_S, MINUTE_S = 3600.0, 60.0
WINDOW_S = 10.0
LEAST_INTERVALS = 3
"""RR intervals that a rate needs."""

MOST_STRIPS = 20
LONGEST_STRIP_S = 30.0
STRIP_MARGIN_S = 3.0
TURN = 3
"""Strips are dealt in turns: the three worst of each kind in the order of `FIRST_LOOK`, then the next three."""

FIRST_LOOK = (
    *("VF", "VT", "PAUSE", "AFIB", "AFL", "SVTA", "IVR", "anomaly"),
    *("VCOUPLET", "BRADY", "TACHY", "B", "T", "AB"),
)
"""What is worth a look first; the order is ours. Of a kind, the longest, or the most surprising, comes first."""


def summarize(
    r_peaks_s: np.ndarray,
    duration_s: float,
    *,
    classes: np.ndarray | None = None,
    episodes: tuple[Annotation, ...] = (),
    unusable_s: np.ndarray | None = None,
    anomalies: tuple[Annotation, ...] = (),
    surprise_bits: np.ndarray | None = None,
    most_strips: int = MOST_STRIPS,
    leads: tuple[str, ...] = (),
    st_mv: np.ndarray | None = None,
    quality: np.ndarray | None = None,
) -> Overview:
    """Sum up a recording.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds from the start of the recording, ascending.
    duration_s : float
    classes : ndarray of str, shape (n_beats,), optional
        EC57 classes ``N S V F Q``.
    episodes : tuple of Annotation
        As `anyecg.tasks.rhythm.find_episodes` returns them.
    unusable_s : ndarray, shape (n, 2), optional
        Stretches without any usable lead, seconds.
    anomalies : tuple of Annotation
        Kind ``"anomaly"``, with scores: as `anyecg.tasks.anomaly` finds them.
    surprise_bits : ndarray, shape (n_windows,), optional
        As `window_surprise` returns it.
    most_strips : int
    leads : tuple of str
        The rows of ``st_mv`` and ``quality``.
    st_mv : ndarray, shape (n_leads, n_minutes), optional
        As `anyecg.tasks.st.st_levels` returns it, a minute a column.
    quality : ndarray, shape (n_leads, n_minutes), optional
        0 to 1.

    Returns
    -------
    Overview

    Raises
    ------
    ValueError
        Not one class a beat, or not one row a lead.
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    by_minute = {"st_mv": _by_minute(st_mv, leads), "quality": _by_minute(quality, leads)}
    if classes is not None and len(classes) != len(beats_s):
        raise ValueError(f"{len(classes)} classes for {len(beats_s)} beats; give each beat one")
    letters = None if classes is None else np.asarray(classes).astype("U1")
    unusable = merged(np.clip(merged(unusable_s), 0.0, duration_s))
    usable_s = duration_s - float(np.diff(unusable, axis=1).sum())
    fibrillation = seconds_of(episodes, "AFIB")
    af_s = float(_covered_outside(fibrillation, unusable, np.array([duration_s]))[0])
    rr_s, ends_s = _known_intervals(beats_s, unusable)
    return Overview(
        duration_s=float(duration_s),
        usable_s=usable_s,
        n_beats=len(beats_s),
        hours=_with_levels(
            _hours(beats_s, letters, float(duration_s), unusable, fibrillation, episodes), leads, **by_minute
        ),
        hr_trend_bpm=_rates(rr_s, ends_s, _edges(duration_s, MINUTE_S))[0],
        af_burden_percent=100 * af_s / usable_s if usable_s > 0 else None,
        v_percent=_percent(letters, "V"),
        s_percent=_percent(letters, "S"),
        episodes=tuple(episodes),
        counts=_counts(episodes),
        rr=_rr_statistics(beats_s, letters, unusable),
        surprise_bits=np.empty(0, dtype=np.float32) if surprise_bits is None else surprise_bits,
        strips=worth_a_look((*episodes, *anomalies), float(duration_s), most_strips),
        hrv=hrv(beats_s, letters, unusable),
        leads=leads,
        **by_minute,
    )


def worth_a_look(found: tuple[Annotation, ...], duration_s: float, most: int = MOST_STRIPS) -> tuple[Strip, ...]:
    """Choose the strips to look at first, from episodes and anomalies together.

    Each kind has its turn (see `TURN`), so that a thousand couplets do not bury one long pause. Of a long episode the
    strip shows the onset. What lies close together shares a strip.
    """
    dealt: list[tuple[int, int, int, Annotation]] = []
    for place, code in enumerate(FIRST_LOOK):
        of_kind = [a for a in found if (a.kind if a.kind == "anomaly" else a.code) == code]
        weight = {True: lambda a: a.score or 0.0, False: lambda a: a.end_s - a.start_s}[code == "anomaly"]
        worst = sorted(of_kind, key=lambda a: (-weight(a), a.start_s))[: 2 * most]
        dealt += [(rank // TURN, place, rank, a) for rank, a in enumerate(worst)]
    strips: list[Strip] = []
    for _, place, _, a in sorted(dealt, key=lambda item: item[:3]):
        start_s = max(a.start_s - STRIP_MARGIN_S, 0.0)
        end_s = min(a.end_s + STRIP_MARGIN_S, start_s + LONGEST_STRIP_S, duration_s)
        near = next((i for i, s in enumerate(strips) if start_s < s.end_s and s.start_s < end_s), None)
        if near is not None:
            old = strips[near]
            reasons = old.reasons if FIRST_LOOK[place] in old.reasons else (*old.reasons, FIRST_LOOK[place])
            first_s, last_s = min(old.start_s, start_s), max(old.end_s, end_s)
            if last_s - first_s > LONGEST_STRIP_S:
                first_s, last_s = old.start_s, old.end_s
            strips[near] = Strip(first_s, last_s, reasons)
        elif len(strips) < most:
            strips.append(Strip(start_s, end_s, (FIRST_LOOK[place],)))
    return tuple(strips)


def window_surprise(surprise: np.ndarray, fragment_s: float, window_s: float = WINDOW_S) -> np.ndarray:
    """Return the mean surprise of each window, over its fragments and leads.

    Parameters
    ----------
    surprise : ndarray, shape (n_leads, n_fragments)
        Bits; NaN where not recorded.
    fragment_s, window_s : float

    Returns
    -------
    ndarray of float32, shape (n_windows,)
        NaN where nothing was recorded.
    """
    known = _in_windows(np.isfinite(surprise), fragment_s, window_s)
    total = _in_windows(np.nan_to_num(surprise), fragment_s, window_s)
    return np.where(known > 0, total / np.maximum(known, 1), np.nan).astype(np.float32)


def _edges(duration_s: float, step_s: float) -> np.ndarray:
    """Return the borders of consecutive stretches of a length; the last may be shorter, but not empty."""
    return np.append(np.arange(0, max(np.ceil(duration_s / step_s), 1)) * step_s, duration_s)


def _known_intervals(beats_s: np.ndarray, unusable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the RR intervals that are plausible and free of gaps, and the times they end, seconds."""
    rr_s = np.diff(beats_s)
    known = intact_intervals(beats_s, unusable) & (rr_s >= RR_PLAUSIBLE_S[0]) & (rr_s <= RR_PLAUSIBLE_S[1])
    return rr_s[known], beats_s[1:][known]


def _rates(rr_s: np.ndarray, ends_s: np.ndarray, edges_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, lowest and highest heart rate of each stretch (n,), NaN with too few intervals.

    The extremes are of the median of `RATE_BEATS` intervals, lest one premature beat or one missed be the day's record.
    """
    from scipy.ndimage import median_filter

    n = len(edges_s) - 1
    if not len(rr_s):
        return (np.full(n, np.nan),) * 3
    at = np.clip(np.searchsorted(edges_s, ends_s, side="right") - 1, 0, n - 1)
    count, total_s = np.bincount(at, minlength=n), np.bincount(at, weights=rr_s, minlength=n)
    enough = count >= LEAST_INTERVALS
    smooth = 60 / median_filter(rr_s, RATE_BEATS, mode="nearest")
    lowest, highest = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(lowest, at, smooth)
    np.maximum.at(highest, at, smooth)
    mean = 60 * count / np.where(enough, total_s, 1)
    return tuple(np.where(enough, values, np.nan) for values in (mean, lowest, highest))  # type: ignore[return-value]


def _hours(
    beats_s: np.ndarray,
    letters: np.ndarray | None,
    duration_s: float,
    unusable: np.ndarray,
    fibrillation: np.ndarray,
    episodes: tuple[Annotation, ...],
) -> tuple[Hour, ...]:
    edges_s = _edges(duration_s, HOUR_S)
    lengths_s = np.maximum(np.diff(edges_s), 1e-9)
    usable = 1 - np.diff(covered_until(unusable, edges_s)) / lengths_s
    af_minutes = np.diff(_covered_outside(fibrillation, unusable, edges_s)) / 60
    rates = _rates(*_known_intervals(beats_s, unusable), edges_s)
    pauses_s = seconds_of(episodes, "PAUSE")[:, 0]

    def counted(times_s: np.ndarray) -> list[int]:
        return np.histogram(times_s, edges_s)[0].tolist()

    beats, pauses = counted(beats_s), counted(pauses_s)
    n_v, n_s = (
        [None] * len(beats) if letters is None else counted(beats_s[letters == letter]) for letter in ("V", "S")
    )
    return tuple(
        Hour(
            start_s=float(edges_s[k]),
            end_s=float(edges_s[k + 1]),
            usable_share=float(usable[k]),
            n_beats=beats[k],
            hr_mean_bpm=_number(rates[0][k]),
            hr_min_bpm=_number(rates[1][k]),
            hr_max_bpm=_number(rates[2][k]),
            n_v=n_v[k],
            n_s=n_s[k],
            n_pauses=pauses[k],
            af_minutes=float(af_minutes[k]),
        )
        for k in range(len(beats))
    )


def _by_minute(values: np.ndarray | None, leads: tuple[str, ...]) -> np.ndarray:
    """Return values (n_leads, n_minutes) as float32; without any, no row."""
    if values is None:
        return np.empty((0, 0), dtype=np.float32)
    if np.ndim(values) != 2 or len(values) != len(leads):
        raise ValueError(f"values of shape {np.shape(values)} for {len(leads)} leads; give each lead a row of minutes")
    return np.asarray(values, dtype=np.float32)


def _with_levels(
    hours: tuple[Hour, ...], leads: tuple[str, ...], st_mv: np.ndarray, quality: np.ndarray
) -> tuple[Hour, ...]:
    """Return the hours with the means of their minutes."""
    size = round(HOUR_S / MINUTE_S)
    found = []
    for k, hour in enumerate(hours):
        own = slice(k * size, (k + 1) * size)
        levels = {lead: _mean(row) for lead, row in zip(leads, st_mv[:, own], strict=False)}
        found.append(replace(hour, quality_mean=_mean(quality[:, own]), st_mean_mv=levels))
    return tuple(found)


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else None


def _covered_outside(stretches: np.ndarray, unusable: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Return how many usable seconds of the stretches lie before each time."""
    return covered_until(np.concatenate([stretches, unusable]), at_s) - covered_until(unusable, at_s)


def _rr_statistics(beats_s: np.ndarray, letters: np.ndarray | None, unusable: np.ndarray) -> RRStatistics:
    rr_s = np.diff(beats_s)
    intact = intact_intervals(beats_s, unusable)
    normal = normal_intervals(beats_s, letters, unusable)
    longest_ms = 1000 * float(rr_s[intact].max()) if intact.any() else None
    if normal.sum() < LEAST_INTERVALS:
        return RRStatistics(int(normal.sum()), longest_ms=longest_ms)
    rr_ms = 1000 * rr_s[normal]
    steps_ms = 1000 * np.diff(rr_s)[normal[1:] & normal[:-1]]
    segment = (beats_s[1:][normal] // SEGMENT_S).astype(np.int64)
    count, total = np.bincount(segment), np.bincount(segment, weights=rr_ms)
    means = total[count >= LEAST_INTERVALS] / count[count >= LEAST_INTERVALS]
    return RRStatistics(
        n_intervals=len(rr_ms),
        mean_ms=float(rr_ms.mean()),
        sdnn_ms=float(rr_ms.std(ddof=1)),
        sdann_ms=float(means.std(ddof=1)) if len(means) > 1 else None,
        rmssd_ms=float(np.sqrt(np.square(steps_ms).mean())) if len(steps_ms) else None,
        pnn50_percent=float(100 * (np.abs(steps_ms) > 50).mean()) if len(steps_ms) else None,
        longest_ms=longest_ms,
    )


def _counts(episodes: tuple[Annotation, ...]) -> dict[str, EpisodeCount]:
    counts = {}
    for code in FIRST_LOOK:
        lengths_s = np.diff(seconds_of(episodes, code), axis=1)
        if len(lengths_s):
            counts[code] = EpisodeCount(len(lengths_s), float(lengths_s.sum()), float(lengths_s.max()))
    return counts


def _percent(letters: np.ndarray | None, letter: str) -> float | None:
    return None if letters is None or not len(letters) else 100 * float((letters == letter).mean())


def _per_window(fragment_s: float, window_s: float) -> int:
    return max(round(window_s / fragment_s), 1)


def _in_windows(values: np.ndarray, fragment_s: float, window_s: float) -> np.ndarray:
    """Return the sum over leads and over the fragments of each window: (n_leads, n_fragments) -> (n_windows,)."""
    size = _per_window(fragment_s, window_s)
    of_fragment = values.sum(axis=0, dtype=np.float64)
    return np.add.reduceat(of_fragment, np.arange(0, len(of_fragment), size)) if len(of_fragment) else of_fragment


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
