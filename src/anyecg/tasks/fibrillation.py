"""Prepared piece -> how much each four seconds of it look like ventricular fibrillation or flutter; and episodes.

Three classical measures of an oscillation without QRS complexes, without training: how little a narrow stop filter at
the mean frequency leaves (Kuo and Dillman 1978, *Computers in Cardiology*, 347-349), how long the signal stays away
from the baseline (TCSC; Arafat 2011, doi:10.1007/s11760-009-0136-1), and how narrow the spectrum is. Fast, regular
ventricular tachycardia without a pause between its complexes looks the same, and so does a strong tremor of 3 to 9 Hz.

How often it is wrong is known (the row ``fibrillation`` of the benchmarks), how often it is right is not: of the
databases at hand one patient has flutter, 2.4 minutes, in split train, and none has fibrillation. Its episodes are a
reason to look, and their absence says nothing. Atrial flutter is not told by it, but by beats
(`anyecg.tasks.flutter`).
"""

import numpy as np

from anyecg.ranks import quantiles
from anyecg.record import Annotation, Record, runs_of

CODE = "VF"
WINDOW_S = 4.0
SHORTEST_S = 8.0
THRESHOLD = 0.55
"""Above the highest pair of windows without flutter on split train (0.52 in 58 hours), below four of five windows with
flutter there (0.57 and more)."""

BAND_HZ = (1.0, 30.0)
"""What is looked at: below is wander, above is muscle."""

RATE_HZ = (2.25, 9.0)
"""Where the highest peak of the spectrum may be: flutter from 150 a minute, fibrillation up to 9 Hz."""

PEAK_HALF_WIDTH_HZ = 0.8
TAPER_S = 0.25
TCSC_LEVEL = 0.2
"""Share of the window's largest deflection, as Arafat has it; so is the taper."""

SMALLEST_MV = 0.15
"""From top to bottom. Finer fibrillation cannot be told from noise."""

FLAT_MV = 0.01
"""A lead below it says nothing: it may be off."""


def vf_windows(piece: Record) -> np.ndarray:
    """Score each window of a piece.

    Parameters
    ----------
    piece : Record
        As `anyecg.prepare` returns it: mV, NaN where not recorded.

    Returns
    -------
    ndarray of float32, shape (n_windows,)
        0 to 1, the mean over leads, for each `WINDOW_S` from the first sample; NaN where the window is not whole or no
        lead of it was recorded and moves.

    Notes
    -----
    Of a lead: the geometric mean of 1 - leakage, TCSC's share, and the share of the power within 0.8 Hz of the peak of
    the spectrum; 0 if the peak lies outside `RATE_HZ` or the signal is small. Departures: one window length for all
    three; the band is cut in the spectrum of the window; TCSC is of the whole window, not a mean over three-second
    steps.
    """
    fs, size = piece.fs, round(WINDOW_S * piece.fs)
    n_whole = piece.n_samples // size
    scores = np.full(-(-piece.n_samples // size), np.nan, dtype=np.float32)
    if not n_whole:
        return scores
    windows = piece.signal[:, : n_whole * size].reshape(piece.n_leads, n_whole, size).astype(np.float64)
    recorded = np.asarray(np.isfinite(windows).all(axis=2))
    spectrum = np.fft.rfft(np.where(recorded[..., None], windows, 0.0), axis=2)
    hz = np.fft.rfftfreq(size, 1 / fs)
    spectrum[..., (hz < BAND_HZ[0]) | (hz > BAND_HZ[1])] = 0
    waves = np.fft.irfft(spectrum, size, axis=2)
    power = np.square(np.abs(spectrum))
    peak_hz = hz[power.argmax(axis=2)]
    near = np.abs(hz - peak_hz[..., None]) <= PEAK_HALF_WIDTH_HZ
    concentration = (power * near).sum(axis=2) / (power.sum(axis=2) + 1e-12)
    score = np.cbrt((1 - leakage(waves)) * time_away(waves, fs) * concentration)
    height = np.ptp(quantiles(waves, (0.01, 0.99)), axis=-1)
    tall = height >= SMALLEST_MV if piece.gain_known else np.ones_like(recorded)
    score = np.where(tall & (peak_hz >= RATE_HZ[0]) & (peak_hz <= RATE_HZ[1]), score, 0.0)
    heard = recorded & (height >= FLAT_MV if piece.gain_known else height > 0)
    n_heard = heard.sum(axis=0)
    scores[:n_whole] = np.where(n_heard > 0, (score * heard).sum(axis=0) / np.maximum(n_heard, 1), np.nan)
    return scores


def vf_episodes(scores: np.ndarray, window_s: float = WINDOW_S, threshold: float = THRESHOLD) -> list[Annotation]:
    """Merge windows to episodes.

    Parameters
    ----------
    scores : ndarray, shape (n_windows,)
        Of consecutive windows from the start of the recording; NaN is no fibrillation.
    window_s, threshold : float

    Returns
    -------
    list of Annotation
        Kind ``"rhythm"``, code ``"VF"``, score = mean of its windows: runs of `SHORTEST_S` and more; two with one
        window between them are one.
    """
    fewest = int(np.ceil(SHORTEST_S / window_s))
    with np.errstate(invalid="ignore"):
        runs = [run for run in runs_of(np.asarray(scores) >= threshold) if run[1] - run[0] >= fewest]
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first - joined[-1][1] <= 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return [
        Annotation(first * window_s, last * window_s, "rhythm", CODE, score=float(np.nanmean(scores[first:last])))
        for first, last in joined
    ]


def leakage(waves: np.ndarray) -> np.ndarray:
    """Return what adding each wave (..., n) to itself half a mean period later leaves of it: 0 for a sine."""
    shape, n = waves.shape[:-1], waves.shape[-1]
    waves = waves.reshape(-1, n)
    size, steps = np.abs(waves).sum(axis=1), np.abs(np.diff(waves, axis=1)).sum(axis=1)
    half = np.floor(np.pi * size / (steps + 1e-12) + 0.5).astype(np.int64).clip(1, n - 1)
    behind_zeros = np.pad(waves, ((0, 0), (n, 0)))
    earlier = np.lib.stride_tricks.sliding_window_view(behind_zeros, n, axis=1)[np.arange(len(waves)), n - half]
    here = np.where(np.arange(n) >= half[:, None], waves, 0)  # where there is something half a period earlier
    left = np.abs(here + earlier).sum(axis=1)
    whole = (np.abs(here) + np.abs(earlier)).sum(axis=1)
    return np.asarray(left / (whole + 1e-12)).reshape(shape)


def time_away(waves: np.ndarray, fs: float) -> np.ndarray:
    """Return the share of the time that a tapered wave (..., n) is farther from 0 than `TCSC_LEVEL` of its peak."""
    n_edge = round(TAPER_S * fs)
    edge = (1 - np.cos(np.pi * np.arange(n_edge) / n_edge)) / 2
    taper = np.concatenate([edge, np.ones(waves.shape[-1] - 2 * n_edge), edge[::-1]])
    size = np.abs(waves) * taper
    return np.asarray((size > TCSC_LEVEL * size.max(axis=-1, keepdims=True)).mean(axis=-1))
