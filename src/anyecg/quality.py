"""Record, raw and prepared -> how far each lead can be trusted, and why not.

Classical signal quality indices, no learning. Each is a number that grows as the lead gets worse; between a *good* and
a *bad* value it turns, on a logarithmic scale, into a factor from 1 to 0. A lead's score is the product of its factors,
its problems are the factors below one half.

References
----------
Li, Mark, Clifford 2008, doi:10.1088/0967-3334/29/1/002 (kSQI, the kurtosis; pSQI, QRS power over total power)
Clifford, Behar, Li, Rezek 2012, doi:10.1088/0967-3334/33/9/1419 (basSQI; flat lines; single indices combined, cinc2011)
Behar, Oster, Li, Clifford 2013, doi:10.1109/TBME.2013.2240452 (the same indices on abnormal rhythms)
"""

from dataclasses import dataclass

import numpy as np

from anyecg.record import Record
from anyecg.result import LeadQuality, Quality
from anyecg.signals import MAINS_HZ, bridge_gaps, power_spectrum

DISABLING = frozenset({"flat", "lead off", "too short"})
"""Problems that leave nothing to analyse in a lead."""

PROBLEMS = (
    *("flat", "lead off", "saturated", "noise", "wander", "mains", "gaps", "implausible amplitude", "too short"),
)
"""All of them, in the order in which they are named."""

USABLE_SCORE = 0.1
"""A lead below this score does not make a record usable, whatever its problems are called."""

WINDOW_S = 10.0
"""Indices are computed over windows of this length, that of a standard resting ECG; a day has 8,640 of them."""

PROBLEM_SHARE = 0.2
"""A problem is named if at least this share of the windows has it: a short burst in a day is none. A compromise."""

SHORTEST_S = 2.0
"""A shorter record holds too few beats for any index below."""

FLAT_MV = 0.005
"""A second whose peak-to-peak value stays below this is flat; 5 uV is the usual resolution of a recorder."""

OFF_MV = 5.0
"""A flat line this far from zero is a lead that is off, at the rail of the converter, not asystole."""

RAIL_RUN_S = 0.008
"""A sample repeated at a lead's own extreme for this long (and at least 4 samples) is a plateau, not an R peak."""

ONE_S, PIECE_S = 1.0, 2.0
"""Flatness is looked for in pieces of one second; in two there is a QRS complex at any rate above 30 a minute."""


@dataclass(frozen=True)
class _Index:
    """One index: the problem it shows, and the values at which its factor is 1 and 0."""

    problem: str
    good: float
    bad: float


# Tuned by hand on training records only: cinc2011 (acceptable / unacceptable), PTB-XL (nearly all usable) and the noisy
# class of cinc2017; "good" lies near the 95th-99th percentile of acceptable leads. Compromises, all of them.
_INDICES = {
    "flat_share": _Index("flat", 0.05, 0.6),
    "off_share": _Index("lead off", 0.05, 0.6),
    "rail_share": _Index("saturated", 0.005, 0.2),
    "unrecorded_share": _Index("gaps", 0.02, 0.6),
    "roughness": _Index("noise", 0.020, 0.08),  # median |second difference| over QRS height: muscle noise
    "background": _Index("noise", 0.07, 0.22),  # median |signal| over QRS height
    "flatness": _Index("noise", 1 / 5.0, 1 / 2.2),  # 1 / kurtosis (kSQI): 1/3 for Gaussian noise
    "unsteadiness": _Index("noise", 1.6, 8.0),  # tallest over typical 2 s piece: bursts, electrode motion
    "hf_share": _Index("noise", 0.15, 0.60),  # power 40-75 Hz over power 5-75 Hz
    "lf_share": _Index("wander", 0.20, 0.70),  # prepared power below 1 Hz over power below 40 Hz: 1 - basSQI
    "wander": _Index("wander", 0.20, 2.5),  # amplitude of the raw lead below 0.5 Hz over QRS height
    "mains": _Index("mains", 0.10, 1.0),  # amplitude of the raw mains line over QRS height
    "too_tall": _Index("implausible amplitude", 6.0, 20.0),  # QRS height, mV
    "too_small": _Index("implausible amplitude", 1 / 0.15, 1 / 0.03),  # 1 / QRS height, 1/mV
}

_LEAST_MV = 0.02
"""QRS heights below this do not count as denominators: the quotients would measure the converter."""


def assess(record: Record, prepared: Record) -> Quality:
    """Judge every lead of a record.

    Parameters
    ----------
    record : Record
        As read: offset, wander and hum still in it.
    prepared : Record
        The same record after `anyecg.prepare`.

    Returns
    -------
    Quality
        A score from 0 to 1 and named problems for each lead; usable if at least one lead is.

    Notes
    -----
    Amplitudes of a record of unknown gain are not judged, and its flatness is relative to its own range.
    """
    if record.duration_s < SHORTEST_S:
        return Quality(False, {name: LeadQuality(0.0, ("too short",)) for name in record.leads})
    leads = {name: LeadQuality(0.0, ("gaps",)) for name in record.leads}
    rows = np.flatnonzero(np.isfinite(record.signal).any(axis=1))
    if len(rows):
        leads |= zip([record.leads[row] for row in rows], _assess_leads(record, prepared, rows), strict=True)
    usable = any(lead.score >= USABLE_SCORE and not DISABLING.intersection(lead.problems) for lead in leads.values())
    return Quality(usable, leads)


def problem_bits(lead: LeadQuality) -> int:
    """Return the problems of a lead as bits, the first of `PROBLEMS` the lowest."""
    return sum(1 << PROBLEMS.index(problem) for problem in lead.problems)


def joint_quality(leads: tuple[str, ...], scores: np.ndarray, problems: np.ndarray, usable: np.ndarray) -> Quality:
    """Join the quality of consecutive pieces of a recording.

    Parameters
    ----------
    leads : tuple of str
    scores : ndarray, shape (n_pieces, n_leads)
    problems : ndarray of int, shape (n_pieces, n_leads)
        As `problem_bits` returns them.
    usable : ndarray of bool, shape (n_pieces,)

    Returns
    -------
    Quality
        Mean scores; problems that at least `PROBLEM_SHARE` of the pieces have; usable if any piece is.
    """
    has = (problems[..., None] >> np.arange(len(PROBLEMS))) & 1  # (n_pieces, n_leads, n_problems)
    named = has.mean(axis=0) >= PROBLEM_SHARE
    joint = {
        lead: LeadQuality(float(score), _without_consequences(tuple(np.array(PROBLEMS)[row].tolist())))
        for lead, score, row in zip(leads, scores.mean(axis=0), named, strict=True)
    }
    return Quality(bool(usable.any()), joint)


def _assess_leads(record: Record, prepared: Record, rows: np.ndarray) -> list[LeadQuality]:
    """Judge the leads in some rows, all of which are recorded somewhere."""
    raw, filtered = record.signal[rows], prepared.signal[rows]
    units = np.array([[1.0 if record.gain_known else _unit(lead)] for lead in filtered])
    # float32, as the samples are: half the time of float64, and no index needs more
    raw_windows = _windows((bridge_gaps(raw) / units).astype(np.float32), record.fs)
    clean_windows = _windows((bridge_gaps(filtered) / units).astype(np.float32), prepared.fs)
    kept = _windows(np.isfinite(raw), record.fs)
    kept_clean = _windows(np.isfinite(filtered), prepared.fs)

    factors: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(raw_windows), 128):  # bounds the memory a day takes
        part = slice(start, start + 128)
        values = _raw_indices(raw_windows[part], kept[part], record.fs)
        values |= _clean_indices(clean_windows[part], kept_clean[part], prepared.fs)
        height = np.maximum(values.pop("qrs_mv"), _LEAST_MV)
        values |= _relative_indices(raw_windows[part], record.fs, height)
        values["unrecorded_share"] = 1 - kept[part].mean(axis=1)
        if record.gain_known:
            values |= {"too_tall": height, "too_small": 1 / height}
        for name, value in values.items():
            factors.setdefault(name, []).append(_factor(value, _INDICES[name]))
    joined = {name: np.concatenate(parts).reshape(len(rows), -1) for name, parts in factors.items()}  # (lead, window)
    scores = np.prod(list(joined.values()), axis=0).mean(axis=1)
    has = {name: (factor < 0.5).mean(axis=1) >= PROBLEM_SHARE for name, factor in joined.items()}
    found = [dict.fromkeys(_INDICES[name].problem for name in has if has[name][k]) for k in range(len(rows))]
    return [LeadQuality(float(score), _without_consequences(tuple(f))) for score, f in zip(scores, found, strict=True)]


def _without_consequences(problems: tuple[str, ...]) -> tuple[str, ...]:
    """Name the cause only: a lead that is off is also flat, and a flat one has every other problem."""
    if "lead off" in problems:
        return tuple(p for p in problems if p in ("lead off", "gaps"))
    if "flat" in problems:
        return tuple(p for p in problems if p in ("flat", "gaps"))
    return problems


def _factor(value: np.ndarray, index: _Index) -> np.ndarray:
    position = np.log(np.maximum(value, 1e-9) / index.good) / np.log(index.bad / index.good)
    return 1 - np.clip(position, 0, 1)


def _unit(filtered: np.ndarray) -> float:
    """Return what to divide a lead of unknown gain by, so that its QRS complexes are about 1 high."""
    height = np.nanpercentile(filtered, 99.5) - np.nanpercentile(filtered, 0.5) if np.isfinite(filtered).any() else 0
    return float(height) or 1.0


def _windows(leads: np.ndarray, fs: float) -> np.ndarray:
    """Cut leads (L, n) into windows of ten seconds, (L W, n_window): the last is moved back to fit, or is all there is.

    The windows of a lead follow each other.
    """
    n = leads.shape[1]
    n_window = min(round(WINDOW_S * fs), n)
    starts = np.minimum(np.arange(0, n, n_window), n - n_window)
    return np.lib.stride_tricks.sliding_window_view(leads, n_window, axis=1)[:, starts].reshape(-1, n_window)


def _pieces(windows: np.ndarray, n_piece: int) -> np.ndarray:
    n_piece = min(max(n_piece, 1), windows.shape[1])
    n_pieces = windows.shape[1] // n_piece
    return windows[:, : n_pieces * n_piece].reshape(len(windows), n_pieces, n_piece)


def _raw_indices(windows: np.ndarray, recorded: np.ndarray, fs: float) -> dict[str, np.ndarray]:
    """Flat lines and plateaus, per window, shape (n_windows,); a bridged gap is neither."""
    pieces = _pieces(windows, round(ONE_S * fs))
    known = _pieces(recorded, round(ONE_S * fs)).mean(axis=2) >= 0.5
    flat = (np.ptp(pieces, axis=2) < FLAT_MV) & known  # (n_windows, n_pieces)
    off = flat & (np.abs(np.median(pieces, axis=2)) > OFF_MV) if flat.any() else flat
    n_known = np.maximum(known.sum(axis=1), 1)
    n_run = max(4, round(RAIL_RUN_S * fs))
    rail_share = np.zeros(len(windows))
    for extreme in (windows.max(axis=1), windows.min(axis=1)):
        # a running sum of "at the extreme": a plateau is where the last n_run samples all are
        at = np.cumsum(np.abs(windows - extreme[:, None]) < 1e-6 + 1e-6 * np.abs(extreme[:, None]), axis=1)
        plateau = ((at[:, n_run:] - at[:, :-n_run]) == n_run) & recorded[:, n_run:]
        rail_share += plateau.mean(axis=1)
    return {
        "flat_share": (flat & ~off).sum(axis=1) / n_known,
        "off_share": off.sum(axis=1) / n_known,
        "rail_share": rail_share,
    }


def _clean_indices(windows: np.ndarray, recorded: np.ndarray, fs: float) -> dict[str, np.ndarray]:
    """QRS height and noise, from the prepared lead, per window."""
    heights = np.ptp(_pieces(windows, round(PIECE_S * fs)), axis=2)
    known = _pieces(recorded, round(PIECE_S * fs)).mean(axis=2) >= 0.5
    known |= ~known.any(axis=1, keepdims=True)
    heights = np.where(known, heights, np.nan)
    height = np.median(heights, axis=1) if known.all() else np.nanmedian(heights, axis=1)
    safe = np.maximum(height, _LEAST_MV)
    centred = windows - windows.mean(axis=1, keepdims=True)
    squared = np.square(centred)
    variance = np.maximum(squared.mean(axis=1), 1e-9)
    kurtosis = np.square(squared).mean(axis=1) / variance**2
    # the step of the second difference is 3.3 ms whatever the rate, so that the index means the same band
    step = max(1, round(fs / 300))
    bend = windows[:, 2 * step :] - 2 * windows[:, step:-step] + windows[:, : -2 * step]
    frequencies, power = power_spectrum(centred, fs)

    def band(low: float, high: float) -> np.ndarray:
        return power[:, (frequencies >= low) & (frequencies < high)].sum(axis=1)

    return {
        "qrs_mv": height,
        "roughness": np.median(np.abs(bend), axis=1) / safe,
        "background": np.median(np.abs(windows - np.median(windows, axis=1, keepdims=True)), axis=1) / safe,
        "flatness": 1 / np.maximum(kurtosis, 1e-3),
        "unsteadiness": np.nanmax(heights, axis=1) / safe,
        "hf_share": band(40, 75) / np.maximum(band(5, 75), 1e-12),
        "lf_share": band(0, 1) / np.maximum(band(0, 40), 1e-12),
    }


def _relative_indices(windows: np.ndarray, fs: float, height_mv: np.ndarray) -> dict[str, np.ndarray]:
    """Wander and hum of the raw lead, as amplitudes over the QRS height, per window."""
    frequencies, power = power_spectrum(windows - windows.mean(axis=1, keepdims=True), fs)
    wander = np.sqrt(2 * power[:, (frequencies > 0) & (frequencies < 0.5)].sum(axis=1))
    hum = np.zeros(len(windows))
    for mains_hz in MAINS_HZ:
        if mains_hz + 6 > fs / 2:
            continue
        distance = np.abs(frequencies - mains_hz)
        near, beside = distance <= 0.75, (distance > 1.5) & (distance <= 6)
        line = power[:, near].sum(axis=1) - near.sum() * np.median(power[:, beside], axis=1)
        hum = np.maximum(hum, np.sqrt(2 * np.maximum(line, 0)))
    return {"wander": wander / height_mv, "mains": hum / height_mv}
