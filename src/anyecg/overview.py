"""Overview: what a recording of any length comes to, hour by hour; ready for JSON and for the report.

`anyecg.tasks.long.summarize` makes it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anyecg.codes import table
from anyecg.record import Annotation

MINUTE_S = 60.0


@dataclass(frozen=True)
class Hour:
    """One row of the table.

    Rates in beats a minute, None where too few intervals are known. ``n_v`` and ``n_s``, beats of ventricular and
    supraventricular origin, are None where beats have no classes. ``quality_mean`` is over leads and minutes, 0 to 1;
    ``st_mean_mv`` by lead, None where the level is unknown.
    """

    start_s: float
    end_s: float
    usable_share: float
    n_beats: int
    hr_mean_bpm: float | None
    hr_min_bpm: float | None
    hr_max_bpm: float | None
    n_v: int | None
    n_s: int | None
    n_pauses: int
    af_minutes: float
    quality_mean: float | None = None
    st_mean_mv: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RRStatistics:
    """Of RR intervals between normal beats, or between any where beats have no classes; ms, None with too few.

    ``sdann_ms`` needs two five-minute stretches. ``longest_ms`` is of any two beats with usable signal between them.
    """

    n_intervals: int
    mean_ms: float | None = None
    sdnn_ms: float | None = None
    sdann_ms: float | None = None
    rmssd_ms: float | None = None
    pnn50_percent: float | None = None
    longest_ms: float | None = None


@dataclass(frozen=True)
class HRV:
    """Heart-rate variability of normal-to-normal intervals by the Task Force 1996 (doi:10.1161/01.CIR.93.5.1043).

    `anyecg.tasks.hrv.hrv` makes it and says how. Powers in ms^2; None is what the recording is too short for.

    Parameters
    ----------
    n_segments : int
        Stretches of five minutes that it rests on.
    sdnn_index_ms : float
        Mean over the segments of the standard deviation within each.
    triangular_index : float or None
        Number of intervals over the highest column of their histogram, columns of 1/128 s; of 20 minutes and more.
    vlf_ms2, lf_ms2, hf_ms2, total_ms2 : float or None
        Mean over the segments of the power in 0.0033-0.04, 0.04-0.15, 0.15-0.4 Hz, and in all three.
    ulf_ms2 : float or None
        Power up to 0.0033 Hz, of 24 hours.
    lf_hf : float or None
        Ratio of the mean powers.
    sd1_ms, sd2_ms, sd1_sd2, dfa_alpha1, sample_entropy : float or None
        Medians over the segments.
    """

    n_segments: int
    sdnn_index_ms: float
    triangular_index: float | None = None
    ulf_ms2: float | None = None
    vlf_ms2: float | None = None
    lf_ms2: float | None = None
    hf_ms2: float | None = None
    total_ms2: float | None = None
    lf_hf: float | None = None
    sd1_ms: float | None = None
    sd2_ms: float | None = None
    sd1_sd2: float | None = None
    dfa_alpha1: float | None = None
    sample_entropy: float | None = None


@dataclass(frozen=True)
class EpisodeCount:
    """The episodes of one code: how many, seconds in all, seconds of the longest."""

    n: int
    total_s: float
    longest_s: float


@dataclass(frozen=True)
class Strip:
    """A stretch worth a look, at most about half a minute, and the codes that point to it, the first look's first."""

    start_s: float
    end_s: float
    reasons: tuple[str, ...]


def _no_rows() -> np.ndarray:
    return np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Overview:
    """What a recording of any length comes to.

    Parameters
    ----------
    duration_s, usable_s : float
    n_beats : int
    hours : tuple of Hour
    hr_trend_bpm : ndarray of float64, shape (n_minutes,)
        Mean heart rate of each minute; NaN where too few intervals are known.
    af_burden_percent : float or None
        Share of the usable time in atrial fibrillation; None without usable time.
    v_percent, s_percent : float or None
        Share of beats; None where beats have no classes.
    episodes : tuple of Annotation
        All of them, in time order.
    counts : dict of str to EpisodeCount
        By code, what is worth a look first leading.
    rr : RRStatistics
    surprise_bits : ndarray of float32, shape (n_windows,)
        Of ten seconds each, NaN where nothing was recorded; empty if not given.
    strips : tuple of Strip
        The first is to be looked at first.
    hrv : HRV or None
        None with less than five minutes of normal intervals in a row.
    leads : tuple of str
        The rows of ``st_mv`` and ``quality``.
    st_mv : ndarray of float32, shape (n_leads, n_minutes)
        ST level of each minute, NaN where unknown; no row if not given.
    quality : ndarray of float32, shape (n_leads, n_minutes)
        0 to 1; no row if not given.
    """

    duration_s: float
    usable_s: float
    n_beats: int
    hours: tuple[Hour, ...]
    hr_trend_bpm: np.ndarray
    af_burden_percent: float | None
    v_percent: float | None
    s_percent: float | None
    episodes: tuple[Annotation, ...]
    counts: dict[str, EpisodeCount]
    rr: RRStatistics
    surprise_bits: np.ndarray
    strips: tuple[Strip, ...]
    hrv: HRV | None = None
    leads: tuple[str, ...] = ()
    st_mv: np.ndarray = field(default_factory=_no_rows)
    quality: np.ndarray = field(default_factory=_no_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain, JSON-ready Python: the section ``long``. Episodes are left to ``findings``."""
        return {
            "duration_s": round(self.duration_s, 3),
            "usable_s": round(self.usable_s, 3),
            "n_beats": self.n_beats,
            "af_burden_percent": rounded(self.af_burden_percent, 2),
            "v_percent": rounded(self.v_percent, 3),
            "s_percent": rounded(self.s_percent, 3),
            "rr": {name: rounded(value, 1) for name, value in vars(self.rr).items()},
            "episodes": {
                code: {
                    "name": table()[code].name if code in table() else code,
                    "n": c.n,
                    "total_s": round(c.total_s, 1),
                }
                | {"longest_s": round(c.longest_s, 1)}
                for code, c in self.counts.items()
            },
            "hrv": None if self.hrv is None else {name: rounded(value, 3) for name, value in vars(self.hrv).items()},
            "hours": [_plain(hour) for hour in self.hours],
            "hr_trend_bpm": [rounded(value, 1) for value in self.hr_trend_bpm.tolist()],
            "st_mv": {
                lead: [rounded(v, 3) for v in row] for lead, row in zip(self.leads, self.st_mv.tolist(), strict=False)
            },
            "quality": {
                lead: [rounded(v, 2) for v in row] for lead, row in zip(self.leads, self.quality.tolist(), strict=False)
            },
            "surprise_bits": {
                "per_s": MINUTE_S,
                "highest": [rounded(value, 3) for value in _highest(self.surprise_bits, 6).tolist()],
            },
            "strips": [
                {"start_s": round(s.start_s, 3), "end_s": round(s.end_s, 3), "reasons": list(s.reasons)}
                for s in self.strips
            ],
        }


def _plain(hour: Hour) -> dict[str, Any]:
    """Return an hour with its numbers rounded."""
    return {
        name: {lead: rounded(level, 3) for lead, level in value.items()}
        if isinstance(value, dict)
        else rounded(value, 3)
        for name, value in vars(hour).items()
    }


def _highest(values: np.ndarray, size: int) -> np.ndarray:
    """Return the highest of each ``size`` values, NaN where all are: for a plot of a day, one point a minute."""
    if not len(values):
        return values
    highest = np.maximum.reduceat(np.nan_to_num(values, nan=-np.inf), np.arange(0, len(values), size))
    return np.where(np.isfinite(highest), highest, np.nan)


def rounded(value: float | int | None, digits: int) -> float | int | None:
    """Return a number with so many digits, a whole one as it is; None for what is not a number."""
    if value is None or isinstance(value, int):
        return value
    return round(float(value), digits) if np.isfinite(value) else None
