"""Prepared Record -> R peaks, RR intervals, heart rate."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anyecg.beat_check import FEWEST, REFRACTORY_S, beats_among
from anyecg.quality import DISABLING
from anyecg.ranks import quantiles
from anyecg.record import Record, runs_of
from anyecg.result import Quality, Rhythm
from anyecg.signals import bridge_gaps

MOST_VOTERS = 3
"""Leads that vote on each beat. Three make a majority; more cost time and bring worse leads in."""

SAME_BEAT_S = 0.15
"""Peaks of two leads nearer than this are one beat: the tolerance of ANSI/AAMI EC57 for beat-by-beat comparison."""

T_WAVE_S, T_WAVE_SHARE = 0.36, 0.5
"""See `_without_doubles`. Chosen on the training records of MIT-BIH."""

REFINE_S = 0.05
"""A peak moves to the extremum within this distance, half the length of a normal QRS complex."""

LONGEST_BRIDGE_S = 0.2
"""A gap up to this long is bridged by a straight line; a longer one splits the lead, since it could hide a QRS."""

SHORTEST_STRETCH_S = 1.0
"""The detector's thresholds learn from the first two seconds; below one there is hardly one beat to learn from."""

RR_PLAUSIBLE_MS = (250.0, 3000.0)
"""RR intervals outside 240..20 beats a minute are missed or false detections, not rhythm."""

FAVOUR = 2.0
"""Another lead must be so much better to take over from the one that gave the times so far."""

SCALE_S = 10.0
"""The height of QRS complexes is measured over stretches of this length, as in `_compressed`."""

SMALLEST_QRS_MV = 0.02
"""A lead whose 5-30 Hz signal stays below this peak value holds no QRS complex: flat, or quantisation noise."""


@dataclass(frozen=True, eq=False)
class _Voter:
    """One lead, ready to vote: its 5-30 Hz signal, where it was recorded, and the peaks found in it (samples)."""

    lead: str
    band: np.ndarray
    recorded: np.ndarray
    peaks: np.ndarray


@dataclass(frozen=True, eq=False)
class Detected:
    """R peaks in seconds, the stretches (n, 2) in which none could be found, the lead that gave most of their times."""

    r_peaks_s: np.ndarray
    gaps_s: np.ndarray
    lead: str | None = None


def import_detector() -> None:
    """Import what `detect_beats` imports when it first runs: a fifth of the time of ten seconds' analysis."""
    import scipy.signal  # noqa: F401
    import sleepecg  # noqa: F401


def find_beats(prepared: Record, quality: Quality | None = None) -> Rhythm:
    """Find the R peaks of a record, and the heart rate that follows from them.

    Parameters
    ----------
    prepared : Record
        As `anyecg.prepare` returns it: mV, zero-phase filtered, NaN where not recorded.
    quality : Quality, optional
        Leads with a disabling problem do not vote, unless every lead has one.

    Returns
    -------
    Rhythm
        ``r_peaks_s`` in seconds from the first sample; no beats for a flat line, never an exception.
    """
    return rhythm_of(detect_beats(prepared, quality))


def detect_beats(prepared: Record, quality: Quality | None = None, favoured: str | None = None) -> Detected:
    """Find the R peaks of a record.

    Parameters
    ----------
    prepared, quality
        As for `find_beats`.
    favoured : str, optional
        The lead that gave the times so far: it goes on doing so unless another is much better, lest the R peaks of a
        long recording jump from lead to lead.

    Notes
    -----
    Detector: Pan and Tompkins (doi:10.1109/TBME.1985.325532) as modified and implemented in C by SleepECG. Departures:
    it runs on each gap-free stretch alone, on the 5-30 Hz signal whose amplitude is compressed (on 22 MIT-BIH records
    this halves the missed beats), in up to three leads. Every peak of any of them is a candidate, and
    `anyecg.beat_check` says which are beats beside the others; of fewer than `FEWEST` candidates one counts if two of
    three leads have it within 150 ms (where fewer are recorded, if the best of them has). Each peak is moved to the
    largest deflection, up or down, of the best lead's 5-30 Hz signal, with a parabola through three samples for the
    time between samples.
    """
    voters = _voters(prepared, quality, favoured)
    if not voters:
        return Detected(np.empty(0), np.array([[0.0, prepared.duration_s]]))
    peaks, voted = _merged(voters, prepared.fs)
    if len(peaks) >= FEWEST:
        peaks = peaks[beats_among(peaks, np.array([voter.band for voter in voters]), voted, prepared.fs)]
    else:
        peaks = peaks[_elected(peaks, voted, voters)]
    recorded = np.any([voter.recorded for voter in voters], axis=0)
    gaps_s = np.array(runs_of(~recorded), dtype=np.float64).reshape(-1, 2) / prepared.fs
    return Detected(_refine(peaks, voters, prepared.fs), gaps_s, voters[0].lead)


def _voters(prepared: Record, quality: Quality | None, favoured: str | None = None) -> list[_Voter]:
    """Return what is found in the leads that vote, the best first; leads without any QRS complex do not."""
    voters = [_detect(prepared, row) for row in _best_leads(prepared, quality, favoured)]
    return [voter for voter in voters if np.abs(voter.band).max() > 0]


def _best_leads(prepared: Record, quality: Quality | None, favoured: str | None = None) -> list[int]:
    """Return up to three rows, the one with the most prominent QRS complexes first."""
    rows = list(range(prepared.n_leads))
    if quality is not None:
        sound = [
            row
            for row in rows
            if (lead := quality.leads.get(prepared.leads[row])) and not DISABLING.intersection(lead.problems)
        ]
        rows = sound or rows

    def merit(row: int) -> float:
        lead = quality.leads.get(prepared.leads[row]) if quality else None
        trust = (0.1 + lead.score if lead else 1.0) * (FAVOUR if prepared.leads[row] == favoured else 1.0)
        return _prominence(prepared.signal[row], prepared.fs) * trust

    return sorted(rows, key=merit, reverse=True)[:MOST_VOTERS]


def _prominence(lead: np.ndarray, fs: float) -> float:
    """Return how far QRS complexes stand out of a lead: the height of its steepest parts over its typical steepness."""
    slope = np.abs(np.diff(lead, n=max(1, round(fs / 300))))
    slope = slope[np.isfinite(slope)]
    if len(slope) < fs / 2:
        return 0.0
    steep, typical = np.percentile(slope, [98, 50])
    recorded = len(slope) / max(len(lead) - 1, 1)
    return float(recorded * steep / (typical + 1e-3))  # 1 uV a sample, lest a nearly flat lead win


def _detect(prepared: Record, row: int) -> _Voter:
    """Detect beats in one lead, each gap-free stretch alone."""
    from scipy.signal import sosfiltfilt
    from sleepecg import detect_heartbeats

    fs = prepared.fs
    lead = prepared.signal[row]
    floor = SMALLEST_QRS_MV if prepared.gain_known else 1e-9  # of an unknown unit: only a flat line is below
    recorded = _without_short_gaps(np.isfinite(lead), round(LONGEST_BRIDGE_S * fs))
    bridged = bridge_gaps(lead[None])[0]
    sos = qrs_band(fs)
    band = np.zeros(len(lead))
    peaks = [np.empty(0, dtype=np.int64)]
    for start, stop in runs_of(recorded):
        if stop - start < SHORTEST_STRETCH_S * fs:
            continue
        stretch = bridged[start:stop]
        filtered = sosfiltfilt(sos, stretch, padlen=min(round(fs), len(stretch) - 1))
        if np.abs(filtered).max() < floor:
            continue
        band[start:stop] = filtered
        found = np.asarray(detect_heartbeats(_compressed(filtered, fs, floor), fs), dtype=np.int64)
        peaks.append(start + _without_doubles(found, filtered, fs))
    return _Voter(prepared.leads[row], band, recorded, np.concatenate(peaks))


@lru_cache(maxsize=8)
def qrs_band(fs: float) -> np.ndarray:
    """Design the band-pass that leaves QRS complexes, 5 to 30 Hz, as second-order sections."""
    from scipy.signal import butter

    return np.asarray(butter(2, [5.0, min(30.0, 0.45 * fs)], btype="bandpass", fs=fs, output="sos"))


def _without_doubles(peaks: np.ndarray, band: np.ndarray, fs: float) -> np.ndarray:
    """Leave out the second peak of a wide QRS complex, and T waves taken for beats.

    Of two peaks nearer than `REFRACTORY_S` the larger stays. A peak within `T_WAVE_S` of the one before, and less than
    `T_WAVE_SHARE` of its height, is its T wave (Pan and Tompkins have a rule of this kind, on the slope).
    """
    reach = round(REFINE_S * fs)
    about = np.clip(peaks[:, None] + np.arange(-reach, reach + 1), 0, len(band) - 1)
    heights = np.abs(band[about]).max(axis=1)
    kept: list[tuple[int, float]] = []
    for peak, height in zip(peaks.tolist(), heights.tolist(), strict=True):
        if kept:
            apart_s, before = (peak - kept[-1][0]) / fs, kept[-1][1]
            if apart_s < REFRACTORY_S:
                if height > before:
                    kept[-1] = (peak, height)
                continue
            if apart_s < T_WAVE_S and height < T_WAVE_SHARE * before:
                continue
        kept.append((peak, height))
    return np.array([peak for peak, _ in kept], dtype=np.int64)


def _compressed(band: np.ndarray, fs: float, floor: float) -> np.ndarray:
    """Return the 5-30 Hz signal with QRS complexes of about one height: tanh of the signal over its local scale.

    The detector's threshold follows the tallest beats; without this, small beats among tall ectopic ones are missed.
    """
    piece = min(round(SCALE_S * fs), len(band))
    n_pieces = len(band) // piece
    pieces = np.abs(band[: n_pieces * piece]).reshape(n_pieces, piece)
    scale = quantiles(pieces, (0.98,))[:, 0]
    around = np.pad(scale, 1, mode="edge")
    scale = np.median([around[:-2], around[1:-1], around[2:]], axis=0)
    scale = np.maximum(scale, floor)
    local = np.interp(np.arange(len(band)), (np.arange(n_pieces) + 0.5) * piece, scale)
    compressed: np.ndarray = np.tanh((band / local).astype(np.float32))  # twenty times as fast as in 64 bits
    return compressed


def _without_short_gaps(recorded: np.ndarray, longest: int) -> np.ndarray:
    filled = recorded.copy()
    for start, stop in runs_of(~recorded):
        if stop - start <= longest and start > 0 and stop < len(recorded):
            filled[start:stop] = True
    return filled


def _merged(voters: list[_Voter], fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Take peaks of several leads nearer than `SAME_BEAT_S` for one.

    Returns
    -------
    peaks : ndarray of int, shape (n,)
        The sample of the best lead that has it.
    voted : ndarray of bool, shape (V, n)
        Which leads have it.
    """
    times = np.concatenate([voter.peaks for voter in voters])
    owner = np.concatenate([np.full(len(voter.peaks), i) for i, voter in enumerate(voters)])
    order = np.argsort(times, kind="stable")
    at, who = times[order].tolist(), owner[order].tolist()
    reach = round(SAME_BEAT_S * fs)
    peaks, voted = [], []
    start = 0
    while start < len(at):
        stop = start + 1
        while stop < len(at) and at[stop] <= at[start] + reach:
            stop += 1
        having = who[start:stop]
        peaks.append(at[start + having.index(min(having))])
        voted.append([i in having for i in range(len(voters))])
        start = stop
    return np.array(peaks, dtype=np.int64), np.array(voted, dtype=bool).reshape(-1, len(voters)).T


def _elected(peaks: np.ndarray, voted: np.ndarray, voters: list[_Voter]) -> np.ndarray:
    """Return whether two of three leads have each peak, or the best recorded lead where there are fewer, (n,)."""
    recorded = np.array([voter.recorded[peaks] for voter in voters])
    by_best = np.take_along_axis(voted, recorded.argmax(axis=0)[None], axis=0)[0]
    return np.where(recorded.sum(axis=0) >= MOST_VOTERS, voted.sum(axis=0) >= 2, by_best)


def candidates(prepared: Record, quality: Quality | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `anyecg.beat_check` is asked of: its ``peaks``, ``bands`` and ``voted``."""
    voters = _voters(prepared, quality)
    if not voters:
        return np.empty(0, dtype=np.int64), np.empty((0, prepared.n_samples)), np.empty((0, 0), dtype=bool)
    peaks, voted = _merged(voters, prepared.fs)
    return peaks, np.array([voter.band for voter in voters]), voted


def _refine(peaks: np.ndarray, voters: list[_Voter], fs: float) -> np.ndarray:
    """Move each peak to the largest deflection nearby, in the best lead recorded there; return seconds."""
    if len(peaks) == 0:
        return np.empty(0)
    reach = round(REFINE_S * fs)
    about = peaks[:, None] + np.arange(-reach, reach + 1)  # (beats, samples)
    n = len(voters[0].band)
    best = np.array([voter.recorded[peaks] for voter in voters]).argmax(axis=0)
    height = np.abs(np.array([voter.band for voter in voters])[best[:, None], np.clip(about, 0, n - 1)])
    height[(about < 0) | (about >= n)] = -1
    top = height.argmax(axis=1)
    # A parabola through the largest sample and its neighbours, where it has both, tells the time between samples.
    before, at, after = (height[np.arange(len(peaks)), np.clip(top + k, 0, 2 * reach)] for k in (-1, 0, 1))
    bend = before - 2 * at + after
    peaked = (top > 0) & (top < 2 * reach) & (before >= 0) & (after >= 0) & (bend < 0)
    shift = np.where(peaked, 0.5 * (before - after) / np.where(peaked, bend, 1), 0)
    return np.unique((peaks - reach + top + shift) / fs)


def rhythm_of(found: Detected) -> Rhythm:
    """Compute the RR statistics; intervals across a gap or of impossible length do not count."""
    r_peaks_s = found.r_peaks_s
    rr_ms = np.diff(r_peaks_s) * 1000
    gaps_before = np.searchsorted(found.gaps_s[:, 0], r_peaks_s)
    counts = (np.diff(gaps_before) == 0) & (rr_ms >= RR_PLAUSIBLE_MS[0]) & (rr_ms <= RR_PLAUSIBLE_MS[1])
    usable = rr_ms[counts]
    steps = np.diff(rr_ms)[counts[1:] & counts[:-1]] if len(rr_ms) > 1 else np.empty(0)
    return Rhythm(
        r_peaks_s=r_peaks_s,
        hr_bpm=float(60_000 / np.median(usable)) if len(usable) else None,
        rr_mean_ms=float(usable.mean()) if len(usable) else None,
        sdnn_ms=float(usable.std(ddof=1)) if len(usable) > 1 else None,
        rmssd_ms=float(np.sqrt(np.square(steps).mean())) if len(steps) else None,
        lead=found.lead,
    )


def within(found: Detected, start_s: float, end_s: float, last_s: float) -> Detected:
    """Return what belongs to one stretch of several that reach a little into each other.

    Parameters
    ----------
    found : Detected
    start_s, end_s : float
        The stretch; infinite where no other one comes before or behind it.
    last_s : float
        The last R peak of the stretch before. A beat at the border, on whose time both disagree by a few milliseconds,
        counts once.
    """
    peaks = found.r_peaks_s
    peaks = peaks[(peaks >= start_s - REFINE_S) & (peaks < end_s + REFINE_S) & (peaks > last_s + SAME_BEAT_S)]
    gaps_s = np.clip(found.gaps_s, start_s, end_s)
    return Detected(peaks, gaps_s[gaps_s[:, 1] > gaps_s[:, 0]], found.lead)
