"""Beats and their classes -> heart-rate variability of a recording of any length: time, frequency, non-linear.

Everything rests on stretches of five minutes on the recording's clock and is averaged over them, so it is linear in the
number of beats, and a day is comparable with five minutes. Standards: Task Force 1996 (doi:10.1161/01.CIR.93.5.1043).
"""

from itertools import pairwise

import numpy as np

from anyecg.overview import HRV
from anyecg.tasks.episodes import intact_intervals
from anyecg.tasks.rhythm import RR_PLAUSIBLE_S

SEGMENT_S = 300.0
"""The Task Force's short-term recording."""

LEAST_COVER = 0.8
"""A segment counts if normal intervals fill so much of it: a spectrum bridges what is missing by a curve."""

RATE_HZ = 4.0
"""The tachogram is sampled at this rate for its spectrum: well above twice the highest band."""

WINDOW_S = 150.0
"""Welch's windows, half over each other: three a segment steady the powers of LF and HF; VLF is seen in five steps."""

BANDS_HZ = (0.0033, 0.04, 0.15, 0.4)
"""Borders of VLF, LF and HF; below the first is ULF."""

DAY_S = 23 * 3600.0
"""ULF is of "24 hours"; a day's recording is often a little shorter."""

TREND_S = 10.0
"""ULF is computed from means over so many seconds."""

TRIANGULAR_S = 1200.0
TRIANGULAR_STEP_S = 1 / 128
"""The Task Force wants 20 minutes at least, preferably a day, and columns of 1/128 s."""

DFA_BEATS = np.arange(4, 12)
"""Window lengths of the short-term scaling exponent (Peng 1995, doi:10.1063/1.166141)."""

ENTROPY_LENGTH, ENTROPY_TOLERANCE = 2, 0.2
"""Length of a pattern, and the tolerance in standard deviations (Richman 2000,
doi:10.1152/ajpheart.2000.278.6.H2039)."""


def hrv(r_peaks_s: np.ndarray, classes: np.ndarray | None = None, unusable_s: np.ndarray | None = None) -> HRV | None:
    """Measure heart-rate variability.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
        Seconds from the start of the recording, ascending.
    classes : ndarray of str, shape (n_beats,), optional
        EC57 classes ``N S V F Q``; without them every plausible interval counts as normal.
    unusable_s : ndarray, shape (n, 2), optional
        Stretches (start, end) in which no beat could have been found.

    Returns
    -------
    HRV or None
        None without one segment of five minutes that normal intervals fill to 80 %.

    Notes
    -----
    Departures from the Task Force: no editing by hand; intervals beside a beat that is not normal are replaced, for the
    spectrum, by the curve through their neighbours, for the non-linear measures left out. In atrial fibrillation the
    numbers describe the fibrillation, not the sinus node. The power of VLF is a sum over all its steps of frequency;
    libraries that integrate by trapezia leave out half of the lowest, which holds most of it.
    """
    beats_s = np.asarray(r_peaks_s, dtype=np.float64)
    normal = normal_intervals(beats_s, classes, unusable_s)
    if not normal.any():
        return None
    nn_s, ends_s = np.diff(beats_s)[normal], beats_s[1:][normal]
    pairs = normal[1:] & normal[:-1]
    # A pair of successive normal intervals belongs to the segment in which its second one ends.
    first_s, second_s, pair_ends_s = np.diff(beats_s)[:-1][pairs], np.diff(beats_s)[1:][pairs], beats_s[2:][pairs]
    segment = (ends_s // SEGMENT_S).astype(np.int64)
    covered = np.bincount(segment, weights=nn_s) >= LEAST_COVER * SEGMENT_S
    numbers = np.flatnonzero(covered)
    if not len(numbers):
        return None
    edges_s = np.arange(len(covered) + 1) * SEGMENT_S
    of_nn, of_pair = np.searchsorted(ends_s, edges_s), np.searchsorted(pair_ends_s, edges_s)
    rows = np.full((len(numbers), 9), np.nan)
    for row, k in zip(rows, numbers.tolist(), strict=True):
        own, both = slice(of_nn[k], of_nn[k + 1]), slice(of_pair[k], of_pair[k + 1])
        nn_ms = 1000 * nn_s[own]
        row[0] = nn_ms.std(ddof=1)
        row[1:4] = _powers(ends_s[own], nn_ms, k * SEGMENT_S)
        row[4:7] = _poincare(1000 * first_s[both], 1000 * second_s[both])
        row[7:] = scaling_exponent(nn_ms), sample_entropy(nn_ms)
    vlf, lf, hf = rows[:, 1:4].mean(axis=0).tolist()
    middle = [_median(column) for column in rows[:, 4:].T]
    return HRV(
        n_segments=len(rows),
        sdnn_index_ms=float(rows[:, 0].mean()),
        triangular_index=_triangular(nn_s) if nn_s.sum() >= TRIANGULAR_S else None,
        ulf_ms2=_ulf(ends_s, 1000 * nn_s),
        **{"vlf_ms2": vlf, "lf_ms2": lf, "hf_ms2": hf, "total_ms2": vlf + lf + hf},
        lf_hf=lf / hf if hf > 0 else None,
        **dict(zip(("sd1_ms", "sd2_ms", "sd1_sd2", "dfa_alpha1", "sample_entropy"), middle, strict=True)),
    )


def normal_intervals(
    beats_s: np.ndarray, classes: np.ndarray | None = None, unusable_s: np.ndarray | None = None
) -> np.ndarray:
    """Return whether each RR interval, bool (n_beats - 1,), is plausible, whole, and between two normal beats."""
    rr_s = np.diff(beats_s)
    normal = intact_intervals(beats_s, unusable_s) & (rr_s >= RR_PLAUSIBLE_S[0]) & (rr_s <= RR_PLAUSIBLE_S[1])
    if classes is not None:
        letters = np.asarray(classes).astype("U1")
        normal &= (letters[:-1] == "N") & (letters[1:] == "N")
    return np.asarray(normal)


def scaling_exponent(nn_ms: np.ndarray) -> float:
    """Return the short-term exponent alpha 1 of detrended fluctuation analysis; NaN for a constant or short series.

    Parameters
    ----------
    nn_ms : ndarray, shape (n,)

    Notes
    -----
    Peng 1995, with windows side by side, from the start, and mean squares over all windows of a length.
    """
    profile = np.cumsum(nn_ms - nn_ms.mean())
    fluctuation = np.full(len(DFA_BEATS), np.nan)
    for i, size in enumerate(DFA_BEATS.tolist()):
        windows = profile[: len(profile) // size * size].reshape(-1, size)
        if not len(windows):
            return float("nan")
        time = np.arange(size) - (size - 1) / 2
        level, slope = windows.mean(axis=1, keepdims=True), windows @ time / np.square(time).sum()
        fluctuation[i] = np.sqrt(np.square(windows - level - slope[:, None] * time).mean())
    if not (fluctuation > 1e-9).all():
        return float("nan")
    return float(np.polyfit(np.log(DFA_BEATS), np.log(fluctuation), 1)[0])


def sample_entropy(nn_ms: np.ndarray) -> float:
    """Return sample entropy; NaN where no two patterns are alike.

    Parameters
    ----------
    nn_ms : ndarray, shape (n,)
        Of five minutes: every pattern is compared with every other.
    """
    spread = nn_ms.std(ddof=1) if len(nn_ms) > ENTROPY_LENGTH + 1 else 0.0
    if not spread > 0:
        return float("nan")
    alike = np.abs(nn_ms[:, None] - nn_ms) <= ENTROPY_TOLERANCE * spread
    n = len(nn_ms) - ENTROPY_LENGTH
    short = np.ones((n, n), dtype=bool)
    for k in range(ENTROPY_LENGTH):
        short &= alike[k : k + n, k : k + n]
    long = short & alike[ENTROPY_LENGTH:, ENTROPY_LENGTH:]
    n_short, n_long = int(short.sum()) - n, int(long.sum()) - n  # without each pattern's likeness to itself
    return float(np.log(n_short / n_long)) if n_long > 0 else float("nan")


def _powers(ends_s: np.ndarray, nn_ms: np.ndarray, start_s: float) -> list[float]:
    """Return the power, ms^2, of VLF, LF and HF in one segment."""
    from scipy.interpolate import CubicSpline
    from scipy.signal import welch

    at_s = start_s + np.arange(round(SEGMENT_S * RATE_HZ)) / RATE_HZ
    inside = np.clip(at_s, ends_s[0], ends_s[-1])
    # Over a gap of some seconds a spline may swing far out; between neighbours it hardly leaves their range.
    reach_ms = 0.1 * np.ptp(nn_ms)
    course = np.clip(CubicSpline(ends_s, nn_ms)(inside), nn_ms.min() - reach_ms, nn_ms.max() + reach_ms)
    hz, density = welch(course, RATE_HZ, nperseg=round(WINDOW_S * RATE_HZ), detrend="linear")
    return [float(density[(hz >= low) & (hz < high)].sum() * hz[1]) for low, high in pairwise(BANDS_HZ)]


def _poincare(first_ms: np.ndarray, second_ms: np.ndarray) -> tuple[float, float, float]:
    """Return SD1 and SD2 of the plot of each interval against the one before, and their ratio."""
    if len(first_ms) < 3:
        return (float("nan"),) * 3
    sd1 = float((second_ms - first_ms).std(ddof=1) / np.sqrt(2))
    sd2 = float((second_ms + first_ms).std(ddof=1) / np.sqrt(2))
    return sd1, sd2, sd1 / sd2 if sd2 > 0 else float("nan")


def _triangular(nn_s: np.ndarray) -> float:
    return float(len(nn_s) / np.bincount((nn_s / TRIANGULAR_STEP_S).astype(np.int64)).max())


def _ulf(ends_s: np.ndarray, nn_ms: np.ndarray) -> float | None:
    """Return the power, ms^2, below the lowest band, from means over `TREND_S`; None of less than a day."""
    from scipy.signal import periodogram

    if ends_s[-1] - ends_s[0] < DAY_S:
        return None
    place = ((ends_s - ends_s[0]) // TREND_S).astype(np.int64)
    count = np.bincount(place)
    known = np.flatnonzero(count)
    if len(known) < 0.5 * len(count):  # the rest would be straight lines
        return None
    means = np.bincount(place, weights=nn_ms)[known] / count[known]
    course = np.interp(np.arange(len(count)), known, means)
    hz, density = periodogram(course, 1 / TREND_S, detrend="constant")
    return float(density[(hz > 0) & (hz < BANDS_HZ[0])].sum() * hz[1])


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
