"""The rate of flutter waves followed over half a minute: what tells flutter from fibrillation is that it stays.

Per window of ten seconds, every five: the spectrum of what is left of each lead without its beats. Over half a minute:
the best path through the rates of the windows, a rate moving by no more than 0.06 Hz from one window to the next; in
fibrillation the peaks wander and average out (Stridh 2001, doi:10.1109/10.915708, follows the rate of fibrillation
likewise). Then the beats: RR intervals are multiples of the cycle of flutter, and of no cycle in fibrillation.
"""

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.signal import butter, sosfiltfilt

WINDOW_S, STEP_S = 10.0, 5.0
STRETCH_WINDOWS = 5
"""Windows of a path: 30 s."""

STRETCH_S = WINDOW_S + (STRETCH_WINDOWS - 1) * STEP_S
DRIFT_BINS = 2
RATE_HZ, BAND_HZ = (4.0, 6.0), (2.5, 13.0)
"""240 to 360 a minute. From 3.7 Hz on, the T and P waves of sinus rhythm at 100 to 120 a minute are taken for it."""

HALF_WIDTH_HZ = 0.15
HIGH_PASS_HZ = 2.0
N_FFT = 2048
CLIP = 4.0
"""Times the median size of a window: ectopic beats and steps are cut off there."""

MEAN_BEATS = 8
"""To each side, whose mean is taken away from a beat."""

BEAT_S = (-0.2, 0.6)
QRS_S = (-0.07, 0.09)
LOCKED_BPM, LOCKED_STEP = (130.0, 175.0), 0.03
"""Regular beats so fast may be 2:1 conduction, whose mean beat holds the flutter: the beats stay, and only twice their
rate counts."""


def followed(waves: np.ndarray, beats_s: np.ndarray, fs: float) -> dict[str, np.ndarray]:
    """Score every half minute of a recording, one begun every `STEP_S`.

    Parameters
    ----------
    waves : ndarray, shape (n_leads, n_samples)
    beats_s : ndarray, shape (n_beats,)
    fs : float
        Hz, at least 30.

    Returns
    -------
    dict of ndarray, shape (n_stretches,)
        ``path``: 0 to 1, the mean over the windows of the share of the power within 0.15 Hz of the path and of its
        double, in the mean of the two best leads. ``locked``: the same times the mean cosine of the phases that RR
        intervals have in the cycle, at least 0.
    """
    share, hz = _evidence(waves, beats_s, fs)
    n = len(share) - STRETCH_WINDOWS + 1
    if n <= 0:
        return {"path": np.empty(0), "locked": np.empty(0)}
    best = share[:n]
    for k in range(1, STRETCH_WINDOWS):
        best = maximum_filter1d(best, 2 * DRIFT_BINS + 1, axis=1) + share[k : n + k]
    path, rate_hz = best.max(axis=1) / STRETCH_WINDOWS, hz[best.argmax(axis=1)]
    lock = [_lock(beats_s, k * STEP_S, float(f)) for k, f in enumerate(rate_hz)]
    return {"path": path, "locked": path * np.array(lock)}


def joined(waves: np.ndarray, beats_s: np.ndarray, fs: float, seconds: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Repeat a strip from its first beat to its last; None if it has fewer than four. To choose by, never to claim."""
    if len(beats_s) < 4:
        return None
    first, last = round(beats_s[0] * fs), round(beats_s[-1] * fs)
    times = int(np.ceil(seconds * fs / (last - first)))
    laid = np.tile(waves[:, first:last], times)[:, : round(seconds * fs)]
    begins_s = np.arange(times) * (last - first) / fs
    beats_s = (begins_s[:, None] + (beats_s[:-1] - beats_s[0])).ravel()
    return laid, beats_s[beats_s < seconds]


def without_qrs(waves: np.ndarray, beats_s: np.ndarray, fs: float) -> np.ndarray:
    """Bridge the QRS complexes of waves (n_leads, n) by straight lines."""
    inside = np.zeros(waves.shape[1], dtype=bool)
    for at_s in beats_s:
        inside[max(round((at_s + QRS_S[0]) * fs), 0) : round((at_s + QRS_S[1]) * fs)] = True
    if inside.all():
        return waves
    bridged, at = waves.copy(), np.arange(waves.shape[1])
    for lead in bridged:
        lead[inside] = np.interp(at[inside], at[~inside], lead[~inside])
    return bridged


def _evidence(waves: np.ndarray, beats_s: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of the power is at each rate in each window (n_windows, n_rates), and the rates."""
    bridged = without_qrs(waves, beats_s, fs)
    left, hz = _shares(without_qrs(_without_running_mean(waves, beats_s, fs), beats_s, fs), fs)
    whole, _ = _shares(bridged, fs)
    for k in range(left.shape[1]):
        rr_s = np.diff(beats_s[(beats_s >= k * STEP_S) & (beats_s < k * STEP_S + WINDOW_S)])
        if len(rr_s) < 5:
            left[:, k] = 0
            continue
        usual_s = float(np.median(rr_s))
        steady = float(np.quantile(np.abs(rr_s - usual_s), 0.8)) / usual_s < LOCKED_STEP
        if steady and LOCKED_BPM[0] <= 60 / usual_s <= LOCKED_BPM[1]:
            left[:, k] = np.where(np.abs(hz * usual_s - 2) < 0.12, whole[:, k], 0)
    return np.sort(left, axis=0)[-2:].mean(axis=0), hz


def _without_running_mean(waves: np.ndarray, beats_s: np.ndarray, fs: float) -> np.ndarray:
    """Subtract from each beat of waves (n_leads, n) the mean of those around it, its ends brought to 0."""
    first, last = (round(s * fs) for s in BEAT_S)
    at = np.round(beats_s * fs).astype(int)
    at = at[(at + first >= 0) & (at + last <= waves.shape[1])]
    if len(at) < 3:
        return waves
    beats = waves[:, at[:, None] + np.arange(first, last)]  # (L, B, T)
    total = np.cumsum(np.pad(beats, ((0, 0), (1, 0), (0, 0))), axis=1)
    here = np.arange(len(at))
    low, high = np.maximum(here - MEAN_BEATS, 0), np.minimum(here + MEAN_BEATS + 1, len(at))
    mean = (total[:, high] - total[:, low]) / (high - low)[:, None]
    ramp = np.linspace(0, 1, last - first)
    mean -= mean[..., :1] * (1 - ramp) + mean[..., -1:] * ramp
    left = waves.copy()
    until = np.minimum(at + last, np.append(at[1:] + first, waves.shape[1]))
    for k, (start, stop) in enumerate(zip(at + first, until, strict=True)):
        if stop > start:
            left[:, start:stop] -= mean[:, k, : stop - start]
    return left


def _shares(waves: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the power near each rate and its double, (n_leads, n_windows, n_rates), and the rates."""
    size, step = round(WINDOW_S * fs), round(STEP_S * fs)
    waves = sosfiltfilt(butter(3, HIGH_PASS_HZ, "high", fs=fs, output="sos"), waves, axis=1)
    n_windows = max(0, (waves.shape[1] - size) // step + 1)
    windows = waves[:, (np.arange(n_windows) * step)[:, None] + np.arange(size)]
    limit = CLIP * np.median(np.abs(windows), axis=2, keepdims=True)
    spectrum = np.fft.rfft(np.clip(windows, -limit, limit) * np.hanning(size), N_FFT, axis=2)
    hz = np.fft.rfftfreq(N_FFT, 1 / fs)
    below = np.cumsum(np.pad(np.square(np.abs(spectrum)), ((0, 0), (0, 0), (1, 0))), axis=2)

    def within(low_hz: np.ndarray, high_hz: np.ndarray) -> np.ndarray:
        first, last = (np.round(edge / hz[1]).astype(int) for edge in (low_hz, high_hz))
        return np.asarray(below[..., last + 1] - below[..., first])

    rates = hz[(hz >= RATE_HZ[0]) & (hz <= RATE_HZ[1])]
    near = sum(within(k * rates - HALF_WIDTH_HZ, k * rates + HALF_WIDTH_HZ) for k in (1, 2))
    return near / (within(np.array([BAND_HZ[0]]), np.array([BAND_HZ[1]])) + 1e-9), rates


def _lock(beats_s: np.ndarray, start_s: float, rate_hz: float) -> float:
    """Return how well RR intervals are multiples of the cycle, 0 to 1; the rate may be off by 2 %."""
    rr_s = np.diff(beats_s[(beats_s >= start_s) & (beats_s < start_s + STRETCH_S)])
    rr_s = rr_s[(rr_s > 0.25) & (rr_s < 2)]
    if len(rr_s) < 8:
        return 0.0
    tried_hz = rate_hz * np.linspace(0.98, 1.02, 9)
    return max(0.0, float(np.cos(2 * np.pi * rr_s[:, None] * tried_hz).mean(axis=0).max()))
