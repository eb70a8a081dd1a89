"""Candidate beats of a long stretch -> how likely each is a beat.

A detector whose threshold follows the signal finds nearly every beat and, in noise, much else: bursts of muscle, jumps
of an electrode, P waves of a heart that pauses. What tells them apart is the company: a QRS complex is about as tall as
those around it, looks like them, comes when it is due, and is seen in other leads. A logistic regression weighs that.

The numbers were fitted by ``python -m anyecg.training.beat_check data`` on training patients (DS1 of the MIT-BIH
Arrhythmia Database), as recorded and with electrode motion and muscle noise of the noise stress test database mixed in.

    V leads that vote, N samples, n candidates
"""

import numpy as np

from anyecg.ranks import median, quantiles

LEAST_S = 65.0
"""Shorter stretches are not checked: too few beats to say what is usual. The last minute of a long recording is, with
what is known before it."""

FEWEST = 12
"""Candidates, as few of which leave nothing to compare with."""

LEAST_PROBABILITY = 0.25
"""What is less likely is no beat. Chosen on left-out training patients: of true beats it costs one in a thousand."""

REACH_S = 0.05
"""A candidate's height is sought so far to both sides."""

WAVE_S = 0.1
"""So much to both sides of its extremum is a candidate's wave."""

NOISE_STEP_S = 0.1
NEAR, NEAR_RR = 21, 31
"""How many neighbours, in candidates or steps of noise, say what is usual."""

WEIGHTS = {
    "height": 0.2189,
    "likeness": 0.1173,
    "likeness to neighbours": 0.2679,
    "noise": -0.7147,
    "votes": 3.2912,
    "interval before": -0.1570,
    "interval after": 1.9566,
    "seconds before": 4.6824,
    "seconds after": 0.7352,
    "height beside the one before": 1.5978,
    "height beside the one after": 1.5829,
    "usual likeness": 1.0102,
    "usual noise": -1.3110,
    "voters": 1.1044,
}
"""By feature, see `candidate_features`."""

BIAS = -9.7595


def beat_probability(peaks: np.ndarray, bands: np.ndarray, voted: np.ndarray, fs: float) -> np.ndarray:
    """Return the probability that each candidate is a beat, (n,); parameters as for `candidate_features`."""
    features = candidate_features(peaks, bands, voted, fs)
    return np.asarray(1 / (1 + np.exp(-(features @ np.array(list(WEIGHTS.values())) + BIAS))))


def candidate_features(peaks: np.ndarray, bands: np.ndarray, voted: np.ndarray, fs: float) -> np.ndarray:
    """Describe candidate beats beside those around them.

    Parameters
    ----------
    peaks : ndarray of int, shape (n,)
        Samples, in time order; at least `FEWEST`.
    bands : ndarray, shape (V, N)
        Each lead's 5-30 Hz signal, 0 where not recorded.
    voted : ndarray of bool, shape (V, n)
        Which leads have a peak there.
    fs : float

    Returns
    -------
    ndarray of float64, shape (n, len(WEIGHTS))
        Means over leads of: the log of the *height* over the 0.7 quantile of the heights near; the correlation of the
        wave with the median wave of the taller half (*likeness*), and with the three most alike of the three candidates
        to each side; the log of the *noise*, the median of the mean size near, over the height. The share of leads that
        *voted*. The logs of the *intervals* over the median of those near, and in seconds, at most two. The difference
        of its height from its neighbours'. What likeness and noise are *usual* near; how many leads vote.
    """
    height, likeness, alike, noise = np.mean([_in_one_lead(peaks, band, fs) for band in bands], axis=0)
    rr_s = np.diff(peaks) / fs
    usual_s = _near(np.append(rr_s, rr_s[-1]), 0.5, NEAR_RR)
    middle_s = median(rr_s)
    before_s, after_s = np.concatenate([[middle_s], rr_s]), np.concatenate([rr_s, [middle_s]])
    return np.stack(
        [
            height,
            likeness,
            alike,
            noise,
            voted.mean(axis=0),
            np.log(before_s / usual_s),
            np.log(after_s / usual_s),
            np.minimum(before_s, 2.0),
            np.minimum(after_s, 2.0),
            np.diff(height, prepend=0.0),
            -np.diff(height, append=0.0),
            _near(likeness, 0.5, NEAR),
            _near(noise, 0.5, NEAR),
            np.full(len(peaks), float(len(bands))),
        ],
        axis=1,
    )


def _in_one_lead(peaks: np.ndarray, band: np.ndarray, fs: float) -> np.ndarray:
    """Return height, likeness, likeness to neighbours and noise of the candidates in one lead, (4, n)."""
    reach, half, step = round(REACH_S * fs), round(WAVE_S * fs), round(NOISE_STEP_S * fs)
    at = np.clip(peaks[:, None] + np.arange(-reach, reach + 1), 0, len(band) - 1)
    sizes = np.abs(band[at])
    top = sizes.argmax(axis=1)
    rows = np.arange(len(peaks))
    heights = sizes[rows, top] + 1e-6
    waves = band[np.clip(at[rows, top][:, None] + np.arange(-half, half + 1), 0, len(band) - 1)]
    waves = waves / (np.linalg.norm(waves, axis=1, keepdims=True) + 1e-9)
    usual = median(waves[heights >= median(heights)], axis=0)
    usual = usual / (np.linalg.norm(usual) + 1e-9)
    beside = np.full((len(peaks), 6), -1.0)
    for k in (1, 2, 3):
        beside[k:, k - 1] = beside[:-k, k + 2] = (waves[:-k] * waves[k:]).sum(axis=1)
    size = np.abs(band[: len(band) // step * step]).reshape(-1, step).mean(axis=1)
    steps = np.clip(peaks[:, None] // step + np.arange(NEAR) - NEAR // 2, 0, len(size) - 1)
    return np.stack(
        [
            np.log(heights / _near(heights, 0.7, NEAR)),
            waves @ usual,
            np.sort(beside, axis=1)[:, 3:].mean(axis=1),
            np.log((median(size[steps]) + 1e-6) / heights),
        ]
    )


def _near(values: np.ndarray, fraction: float, n: int) -> np.ndarray:
    """Return a quantile of each value's n nearest neighbours, itself among them: (n_values,) -> (n_values,)."""
    half = min(n // 2, len(values) - 1)
    padded = np.pad(values, half, mode="reflect")
    return quantiles(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), (fraction,))[:, 0]
