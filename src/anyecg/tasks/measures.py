"""Prepared Record + R peaks -> classical measures: what a rule-based electrocardiograph measures, as a vector.

A measure that cannot be taken (a lead that is not there, too few beats) is NaN. Intervals and waves are those of the
median beat. They serve statistics over many records; they are not validated as single measurements.

The list (`MEASURES`)
---------------------
rhythm
    ``rate_bpm``; RR intervals: ``rr_mean_ms rr_sd_ms rr_cv rr_rmssd_ms rr_pnn50 rr_shortest rr_longest`` (the last two
    over the median), ``rr_early`` (share of intervals 15 % shorter than the one before), ``rr_entropy`` (bits, steps
    of 50 ms), ``rr_steps_scatter`` (SD1 / SD2 of the Poincare plot), ``beats``
beats
    Correlation of each beat with the median beat, on the lead of the rhythm: ``alike_median alike_low`` (10th
    percentile), ``odd_beats`` (share below 0.8); ``f_waves`` (4-9 Hz share of the power between T and QRS)
intervals
    From all leads at once: ``pr_ms p_ms qrs_ms qt_ms qtc_ms`` (Bazett), ``t_peak_end_ms``
axes
    ``qrs_axis t_axis`` (degrees, as ``_sin`` and ``_cos``), ``qrs_t_angle`` (frontal)
voltages
    ``sokolow_mv`` (S V1 + R V5), ``cornell_mv`` (R aVL + S V3), ``transition`` (the first precordial lead with R > S,
    1 to 7)
spectrum
    Mean over leads of the share of power in 0.5-5, 5-15, 15-40, 40-75 Hz, and ``spectral_entropy`` (0 to 1)
each lead
    For the 12 standard leads, then for ``best``, the lead the rhythm was found in, whatever its name: in the median
    beat, mV about the level of the PQ segment, ``p q r s qrs_net`` (R - Q - S) ``qrs_area st_j st_60 st_slope t t_area
    rms``; ``q_ms`` (time below the level before R) and ``r_at_ms`` (onset to R peak)

`RELATIVE`: what each lead has in millivolts over its ``rms``, its shape whatever its size or gain.
"""

from statistics import NormalDist

import numpy as np

from anyecg.leads import STANDARD_LEADS
from anyecg.ranks import median, quantiles
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.signals import bridge_gaps

LEVELS = np.linspace(0.02, 0.98, 25)
"""Shares of normal records at which the quantiles of their measures are kept."""

NORMAL_SCORES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])

MOST_SPREADS = 3.0
"""A measure further out counts as this far: a misplaced mark must not outweigh everything else."""

MOST_UNUSUAL = 0.07
"""Share of the measures that `log_size` looks at, where it is not told how they go together."""

BEFORE_S, AFTER_S = 0.30, 0.55
"""A beat's window about its R peak: a P wave before it, a T wave after it."""

MOST_BEATS = 200
"""Beats the median is taken over: a day needs no more."""

ODD_BEAT = 0.8
"""Correlation with the median beat below which a beat counts as odd."""

BANDS_HZ = ((0.5, 5.0), (5.0, 15.0), (15.0, 40.0), (40.0, 75.0))

RHYTHM = (
    *("rate_bpm", "rr_mean_ms", "rr_sd_ms", "rr_cv", "rr_rmssd_ms", "rr_pnn50", "rr_shortest", "rr_longest"),
    *("rr_early", "rr_entropy", "rr_steps_scatter", "beats"),
)
BEATS = ("alike_median", "alike_low", "odd_beats", "f_waves")
INTERVALS = ("pr_ms", "p_ms", "qrs_ms", "qt_ms", "qtc_ms", "t_peak_end_ms")
AXES = ("qrs_axis_sin", "qrs_axis_cos", "t_axis_sin", "t_axis_cos", "qrs_t_angle")
VOLTAGES = ("sokolow_mv", "cornell_mv", "transition")
SPECTRUM = (*(f"power_{low:g}_{high:g}_hz" for low, high in BANDS_HZ), "spectral_entropy")
EACH_LEAD = (
    *("p", "q", "r", "s", "qrs_net", "qrs_area", "st_j", "st_60", "st_slope", "t", "t_area", "rms", "q_ms", "r_at_ms"),
)
MEASURES: tuple[str, ...] = (
    *(RHYTHM + BEATS + INTERVALS + AXES + VOLTAGES + SPECTRUM),
    *(f"{lead}_{name}" for lead in (*STANDARD_LEADS, "best") for name in EACH_LEAD),
)
"""Names of the measures, in their order."""

IN_MILLIVOLTS = tuple(
    name
    for name in MEASURES
    if name in ("sokolow_mv", "cornell_mv") or (name.partition("_")[2] in EACH_LEAD and not name.endswith("_ms"))
)
"""Measures that mean nothing where the gain is unknown."""

_WAVES = tuple(name for name in EACH_LEAD if name != "rms" and not name.endswith("_ms"))
RELATIVE: tuple[str, ...] = tuple(f"{lead}_{name}_over_rms" for lead in (*STANDARD_LEADS, "best") for name in _WAVES)
"""Names of the measures `relative` makes of `MEASURES`."""

FLAT_MV = 0.005
"""A lead of this RMS and less is noise: its shape is not blown up."""

_RMS_AT = [MEASURES.index(f"{lead}_rms") for lead in (*STANDARD_LEADS, "best")]
_WAVES_AT = [[at + EACH_LEAD.index(name) - EACH_LEAD.index("rms") for name in _WAVES] for at in _RMS_AT]


def measure(prepared: Record, rhythm: Rhythm) -> np.ndarray:
    """Measure one record.

    Parameters
    ----------
    prepared : Record
        As `anyecg.prepare` returns it; any leads.
    rhythm : Rhythm
        Of the same record: its R peaks, and the lead they were found in.

    Returns
    -------
    ndarray of float32, shape (len(MEASURES),)
        NaN where a measure cannot be taken.
    """
    peaks_s = rhythm.r_peaks_s
    recorded = np.isfinite(prepared.signal).any(axis=1)
    rows = [i for i in range(prepared.n_leads) if recorded[i]]
    found: dict[str, float] = _rhythm(peaks_s)
    if rows:
        best = prepared.leads.index(rhythm.lead) if rhythm.lead in prepared.leads else _steepest(prepared, rows)
        signal = bridge_gaps(prepared.signal).astype(np.float64)
        found |= _spectrum(signal[rows], prepared.fs)
        beats = _beats(signal, peaks_s, prepared.fs)
        if len(beats) > 0:
            rr_s = float(median(np.diff(peaks_s))) if len(peaks_s) > 1 else 0.8
            found |= _alike(beats[:, best], prepared.fs, rr_s)
            found |= _median_beat(median(beats, axis=0), prepared, rows, best, rr_s)
    return np.array([found.get(name, np.nan) for name in MEASURES], dtype=np.float32)


def relative(measured: np.ndarray) -> np.ndarray:
    """Divide each lead's waves by its RMS: float32 (len(MEASURES),) -> (len(RELATIVE),); NaN stays NaN."""
    found: np.ndarray = (measured[_WAVES_AT] / (measured[_RMS_AT] + np.float32(FLAT_MV))[:, None]).ravel()
    return found


def normal_scores(measured: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return what a Gaussian has at the place a measure has among normal records.

    (..., Q) measures and (len(LEVELS), Q) quantiles of normal records -> (..., Q).

    Beyond the outer quantiles it goes on in proportion, half of it by the spread of that side; what many records share
    (no odd beat) is in the middle of its quantiles. NaN is taken to be normal: 0.
    """
    last, columns = len(quantiles) - 1, np.arange(quantiles.shape[1])
    below = (quantiles < measured[..., None, :]).sum(axis=-2)
    upto = (quantiles <= measured[..., None, :]).sum(axis=-2)
    first, then = np.clip(below - 1, 0, last), np.minimum(below, last)
    left, right = quantiles[first, columns], quantiles[then, columns]
    share = (measured - left) / np.maximum(right - left, 1e-9)
    found = NORMAL_SCORES[first] + share * (NORMAL_SCORES[then] - NORMAL_SCORES[first])
    shared = (NORMAL_SCORES[then] + NORMAL_SCORES[np.maximum(upto - 1, 0)]) / 2
    found = np.where(upto > below, shared, found)
    both = (quantiles[-1] - quantiles[0]) / 2
    for end, outside in ((0, below + upto == 0), (last, below > last)):
        side = np.abs(quantiles[end] - quantiles[last // 2])
        slope = NORMAL_SCORES[-1] / ((side + both) / 2 + 1e-6)
        found = np.where(outside, NORMAL_SCORES[end] + (measured - quantiles[end]) * slope, found)
    result: np.ndarray = np.clip(np.nan_to_num(found), -MOST_SPREADS, MOST_SPREADS)
    return result


def log_size(scores: np.ndarray, precision: np.ndarray | None = None) -> np.ndarray:
    """Return the logarithm of a distance of normal scores from 0, (..., Q) -> (...).

    With their precision (Q, Q) the Mahalanobis distance; without, the mean size of the most unusual of them.
    """
    if precision is not None:
        return np.asarray(0.5 * np.log(np.einsum("...q,...q->...", scores @ precision, scores) + 1e-6))
    n = max(1, round(MOST_UNUSUAL * scores.shape[-1]))
    return np.asarray(np.log(np.partition(np.abs(scores), -n, axis=-1)[..., -n:].mean(axis=-1) + 1e-6))


def _steepest(prepared: Record, rows: list[int]) -> int:
    slope = [float(np.nanpercentile(np.abs(np.diff(prepared.signal[row])), 98)) for row in rows]
    return rows[int(np.argmax(slope))]


def _rhythm(peaks_s: np.ndarray) -> dict[str, float]:
    """Measure RR intervals of 0.25 to 3 s."""
    rr = np.diff(peaks_s) * 1000
    rr = rr[(rr > 250) & (rr < 3000)]
    found = {"beats": float(len(peaks_s))}
    if len(rr) < 2:
        return found
    steps, middle = np.diff(rr), float(median(rr))
    counts = np.bincount((rr // 50).astype(int))
    shares = counts[counts > 0] / len(rr)
    sd1, sd2 = np.std(steps) / np.sqrt(2), np.std(rr[1:] + rr[:-1]) / np.sqrt(2)
    return found | {
        "rate_bpm": 60_000 / middle,
        "rr_mean_ms": float(rr.mean()),
        "rr_sd_ms": float(rr.std()),
        "rr_cv": float(rr.std() / rr.mean()),
        "rr_rmssd_ms": float(np.sqrt(np.square(steps).mean())),
        "rr_pnn50": float((np.abs(steps) > 50).mean()),
        "rr_shortest": float(rr.min() / middle),
        "rr_longest": float(rr.max() / middle),
        "rr_early": float((rr[1:] < 0.85 * rr[:-1]).mean()),
        "rr_entropy": float(-(shares * np.log2(shares)).sum()),
        "rr_steps_scatter": float(sd1 / (sd2 + 1.0)),
    }


def _spectrum(signal: np.ndarray, fs: float) -> dict[str, float]:
    """Return mean shares of power over leads (n_leads, n_samples), from Hann windows of 4 s."""
    size = min(signal.shape[1], round(4 * fs))
    if size < fs:
        return {}
    n = signal.shape[1] // size
    pieces = signal[:, : n * size].reshape(len(signal), n, size) * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(pieces))).mean(axis=1)  # (n_leads, n_frequencies)
    hz = np.fft.rfftfreq(size, 1 / fs)
    inside = (hz >= BANDS_HZ[0][0]) & (hz <= BANDS_HZ[-1][1])
    share = power[:, inside] / (power[:, inside].sum(axis=1, keepdims=True) + 1e-12)
    found = {
        f"power_{low:g}_{high:g}_hz": float(share[:, (hz[inside] >= low) & (hz[inside] < high)].sum(axis=1).mean())
        for low, high in BANDS_HZ
    }
    entropy = -(share * np.log(share + 1e-12)).sum(axis=1) / np.log(inside.sum())
    return found | {"spectral_entropy": float(entropy.mean())}


def _beats(signal: np.ndarray, peaks_s: np.ndarray, fs: float) -> np.ndarray:
    """Cut beats about their R peaks: (n_beats, n_leads, n_window); those at the record's ends are left out."""
    before, after = round(BEFORE_S * fs), round(AFTER_S * fs)
    at = np.round(peaks_s * fs).astype(np.int64)
    at = at[(at >= before) & (at + after <= signal.shape[1])][:MOST_BEATS]
    cuts = [signal[:, peak - before : peak + after] for peak in at]
    return np.stack(cuts) if cuts else np.zeros((0, len(signal), before + after))


def _alike(beats: np.ndarray, fs: float, rr_s: float) -> dict[str, float]:
    """Compare the beats (n_beats, n_window) of one lead with their median, from -0.2 to 0.3 s; look for f waves."""
    middle = beats[:, round((BEFORE_S - 0.2) * fs) : round((BEFORE_S + 0.3) * fs)]
    middle = middle - middle.mean(axis=1, keepdims=True)
    usual = median(middle, axis=0)
    norm = np.linalg.norm(middle, axis=1) * np.linalg.norm(usual) + 1e-9
    alike = middle @ usual / norm
    found = {
        "alike_median": float(median(alike)),
        "alike_low": float(quantiles(alike, (0.1,))[0]),
        "odd_beats": float((alike < ODD_BEAT).mean()),
    }
    quiet = beats[:, : round((BEFORE_S - 0.06) * fs)]  # from the end of T, in most rhythms, to the QRS
    if rr_s > 0.5:
        power = np.square(np.abs(np.fft.rfft(quiet - quiet.mean(axis=1, keepdims=True), n=512))).mean(axis=0)
        hz = np.fft.rfftfreq(512, 1 / fs)
        found["f_waves"] = float(power[(hz >= 4) & (hz < 9)].sum() / (power[hz > 0.5].sum() + 1e-12))
    return found


def _median_beat(beat: np.ndarray, prepared: Record, rows: list[int], best: int, rr_s: float) -> dict[str, float]:
    """Measure the median beat (n_leads, n_window): intervals, each lead's waves, axes, voltages."""
    fs = prepared.fs
    (onset, offset, t_end), found = _intervals(beat[rows], fs, rr_s)
    level = median(beat[:, max(0, onset - round(0.03 * fs)) : max(1, onset - 1)], axis=1)[:, None]
    beat = beat - level
    waves = {}
    for row in rows:
        waves[prepared.leads[row]] = _waves(beat[row], onset, offset, t_end, fs)
    for lead in STANDARD_LEADS:
        found |= {f"{lead}_{name}": value for name, value in waves.get(lead, {}).items()}
    found |= {f"best_{name}": value for name, value in waves[prepared.leads[best]].items()}
    return found | _axes(waves) | _voltages(waves)


def _intervals(beat: np.ndarray, fs: float, rr_s: float) -> tuple[tuple[int, int, int], dict[str, float]]:
    """Delineate a median beat (n_leads, n_window) by its root-mean-square slope and height over leads.

    Returns the samples at which QRS begins and ends and T ends, and the intervals.
    """
    r = round(BEFORE_S * fs)
    slope = np.sqrt(np.square(np.gradient(beat, axis=1)).mean(axis=0))
    slope = np.convolve(slope, np.ones(3) / 3, mode="same")
    calm = slope < 0.10 * slope[r - round(0.06 * fs) : r + round(0.08 * fs)].max()
    lasting = np.convolve(calm, np.ones(4), mode="same") >= 4
    earlier = np.flatnonzero(lasting[r - round(0.14 * fs) : r - round(0.01 * fs)])
    later = np.flatnonzero(lasting[r + round(0.02 * fs) : r + round(0.18 * fs)])
    onset = int(r - round(0.14 * fs) + earlier[-1]) if len(earlier) else int(r - round(0.06 * fs))
    offset = int(r + round(0.02 * fs) + later[0]) if len(later) else int(r + round(0.08 * fs))

    level = median(beat[:, max(0, onset - round(0.03 * fs)) : max(1, onset - 1)], axis=1)[:, None]
    height = np.sqrt(np.square(beat - level).mean(axis=0))
    last = min(beat.shape[1], r + round(min(AFTER_S, 0.7 * rr_s) * fs))
    start_t = min(offset + round(0.06 * fs), last - 2)
    t_peak = start_t + int(height[start_t:last].argmax())
    below = np.flatnonzero(height[t_peak:last] < 0.2 * height[t_peak])
    t_end = t_peak + int(below[0]) if len(below) else last - 1
    ms = 1000 / fs
    found = {"qrs_ms": (offset - onset) * ms, "qt_ms": (t_end - onset) * ms, "t_peak_end_ms": (t_end - t_peak) * ms}
    found["qtc_ms"] = float(found["qt_ms"] / np.sqrt(max(rr_s, 0.25)))
    first, stop = max(0, onset - round(0.24 * fs)), onset - round(0.03 * fs)
    if stop - first > 5:
        p_peak = first + int(height[first:stop].argmax())
        high = height[first:stop] > 0.3 * height[p_peak]
        start = p_peak - first
        while start > 0 and high[start - 1]:
            start -= 1
        end = p_peak - first
        while end + 1 < len(high) and high[end + 1]:
            end += 1
        found |= {"pr_ms": (onset - first - start) * ms, "p_ms": (end - start + 1) * ms}
    return (onset, offset, t_end), found


def _waves(lead: np.ndarray, onset: int, offset: int, t_end: int, fs: float) -> dict[str, float]:
    """Measure one lead of the median beat (n_window,), mV about the PQ level."""
    qrs = lead[onset : offset + 1]
    peak = int(qrs.argmax())
    q, s = float(min(qrs[: peak + 1].min(), 0)), float(min(qrs[peak:].min(), 0))
    r = float(max(qrs.max(), 0))
    before = lead[max(0, onset - round(0.22 * fs)) : max(1, onset - round(0.03 * fs))]
    st_60 = float(lead[min(offset + round(0.06 * fs), len(lead) - 1)])
    wave_t = lead[min(offset + round(0.06 * fs), len(lead) - 2) : max(t_end, offset + round(0.08 * fs)) + 1]
    return {
        "p": float(before[np.abs(before).argmax()]),
        **{"q": q, "r": r, "s": s, "qrs_net": r + q + s, "qrs_area": float(qrs.sum() / fs)},
        **{"st_j": float(lead[offset]), "st_60": st_60, "st_slope": st_60 - float(lead[offset])},
        "t": float(wave_t[np.abs(wave_t).argmax()]),
        "t_area": float(wave_t.sum() / fs),
        "rms": float(np.sqrt(np.square(lead).mean())),
        "q_ms": float((qrs[:peak] < -0.02).sum() * 1000 / fs),
        "r_at_ms": peak * 1000 / fs,
    }


def _axes(waves: dict[str, dict[str, float]]) -> dict[str, float]:
    if "I" not in waves or "aVF" not in waves:
        return {}
    found: dict[str, float] = {}
    angles = []
    for name, wave in (("qrs_axis", "qrs_area"), ("t_axis", "t_area")):
        # aVF is 2 / sqrt(3) too small for a right angle with I
        angle = np.arctan2(waves["aVF"][wave] * 2 / np.sqrt(3), waves["I"][wave])
        angles.append(angle)
        found |= {f"{name}_sin": float(np.sin(angle)), f"{name}_cos": float(np.cos(angle))}
    apart = np.abs(np.angle(np.exp(1j * (angles[0] - angles[1]))))
    return found | {"qrs_t_angle": float(np.degrees(apart))}


def _voltages(waves: dict[str, dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    if {"V1", "V5"} <= waves.keys():
        found["sokolow_mv"] = waves["V5"]["r"] - waves["V1"]["s"]
    if {"aVL", "V3"} <= waves.keys():
        found["cornell_mv"] = waves["aVL"]["r"] - waves["V3"]["s"]
    if {f"V{i}" for i in range(1, 7)} <= waves.keys():
        later = [i for i in range(1, 7) if waves[f"V{i}"]["r"] > -waves[f"V{i}"]["s"]]
        found["transition"] = float(later[0] if later else 7)
    return found
