"""Candidate beats -> those that are beats.

A detector whose threshold follows the signal finds nearly every beat in one lead or another and, in noise, much else:
bursts of muscle, jumps of an electrode, P waves of a heart that pauses. What tells them apart is the company: a QRS
complex is about as tall as those around it, looks like them, comes when it is due, and is seen in other leads. A
logistic regression weighs that, twice: first what is hardly a beat is left out, then the rest are looked at again in
the company that remains.

The numbers were fitted by ``python -m anyecg.training.beat_check data`` on training patients (DS1 of the MIT-BIH
Arrhythmia Database), as recorded and with electrode motion and muscle noise of the noise stress test database mixed in.

    V leads that vote, N samples, n candidates
"""

from typing import NamedTuple

import numpy as np

from anyecg.ranks import median, quantiles

FEWEST = 5
"""So many candidates can be compared with each other. Asking for more was worse on five seconds of training records."""

REFRACTORY_S = 0.2
"""No ventricle is excited again so soon."""

REACH_S = 0.05
"""A candidate's height is sought so far to both sides."""

WAVE_S = 0.1
"""So much to both sides of its extremum is a candidate's wave."""

NOISE_STEP_S = 0.1
NEAR, NEAR_RR = 21, 31
"""How many neighbours, in candidates or steps of noise, say what is usual."""

SHADOW_S = 0.45
"""A taller candidate as near may be the beat that this one is a part of: its P or T wave, the end of its QRS."""

FEATURES = (
    *("height", "likeness", "likeness to neighbours", "noise", "width", "votes"),
    *("interval before", "interval after", "seconds before", "seconds after"),
    *("height beside the one before", "height beside the one after"),
    *("height in the shadow of the one before", "height in the shadow of the one after"),
    *("usual likeness", "usual noise", "voters"),
)
"""See `candidate_features`."""


class Round(NamedTuple):
    """One look at all candidates.

    Parameters
    ----------
    least_probability : float
        What is less likely is left out. Chosen on left-out training patients.
    bias : float
    weights : tuple of float
        One for each of `FEATURES`.
    """

    least_probability: float
    bias: float
    weights: tuple[float, ...]


ROUNDS = (
    Round(
        0.2,
        -10.4051,
        (
            1.6743,
            0.2267,
            0.6544,
            -0.5446,
            5.4588,
            1.8942,
            1.0537,
            0.9393,
            2.9128,
            2.7784,
            1.4992,
            0.8100,
            0.5911,
            1.2364,
            1.2602,
            -1.5677,
            0.7262,
        ),
    ),
    Round(
        0.4,
        -7.6472,
        (
            1.6088,
            0.4324,
            0.4953,
            -1.4745,
            6.3158,
            0.8829,
            1.3954,
            3.6624,
            2.4556,
            -2.2937,
            1.0150,
            0.5295,
            0.9552,
            1.7712,
            0.4698,
            -1.5784,
            1.3274,
        ),
    ),
)


def beats_among(
    peaks: np.ndarray, bands: np.ndarray, voted: np.ndarray, fs: float, rounds: tuple[Round, ...] = ROUNDS
) -> np.ndarray:
    """Return which candidates are beats, as their numbers in order; parameters as for `candidate_features`.

    Fewer than `FEWEST` are not asked.
    """
    kept = np.arange(len(peaks))
    for one in rounds:
        if len(kept) < FEWEST:
            break
        features = candidate_features(peaks[kept], bands, voted[:, kept], fs)
        likely = 1 / (1 + np.exp(-(features @ np.array(one.weights) + one.bias)))
        likely[np.isnan(likely)] = 1.0  # nothing to compare it with
        kept = kept[left_standing(peaks[kept] / fs, likely, one.least_probability)]
    return kept


def left_standing(at_s: np.ndarray, likely: np.ndarray, least: float) -> np.ndarray:
    """Return the numbers of candidates that are likely enough; of those nearer than `REFRACTORY_S` the likeliest."""
    standing: list[int] = []
    for i in np.flatnonzero(likely >= least).tolist():
        if standing and at_s[i] - at_s[standing[-1]] < REFRACTORY_S:
            if likely[i] > likely[standing[-1]]:
                standing[-1] = i
        else:
            standing.append(i)
    return np.array(standing, dtype=np.int64)


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
    ndarray of float64, shape (n, len(FEATURES))
        Means over leads of: the log of the *height* over the 0.7 quantile of the heights near; the correlation of the
        wave with the median wave of the taller half (*likeness*), and with the three most alike of the three candidates
        to each side; the log of the *noise*, the median of the mean size near, over the height; the mean size of the
        wave over the height (*width*). The share of leads that *voted*. The logs of the *intervals* over the median of
        those near, and in seconds, at most two. The difference of its height from its neighbours', and the same where
        they are nearer than `SHADOW_S`. What likeness and noise are *usual* near; how many leads vote. Leads count
        where they are recorded; NaN where no lead is that has `FEWEST` candidates.
    """
    of_leads = np.full((len(bands), 5, len(peaks)), np.nan)
    for of_lead, band in zip(of_leads, bands, strict=True):
        recorded = _recorded(peaks, band, fs)
        if recorded.sum() >= FEWEST:
            of_lead[:, recorded] = _in_one_lead(peaks[recorded], band, fs)
    counts = np.isfinite(of_leads[:, 0])
    n_voters = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        height, likeness, alike, noise, width = np.where(counts[:, None], of_leads, 0).sum(axis=0) / n_voters
        votes = (voted & counts).sum(axis=0) / n_voters
    usual = np.full((2, len(peaks)), np.nan)
    known = n_voters > 0
    if known.any():
        usual[:, known] = [_near(values[known], 0.5, NEAR) for values in (likeness, noise)]
    rr_s = np.diff(peaks) / fs
    usual_s = _near(np.append(rr_s, rr_s[-1]), 0.5, NEAR_RR)
    middle_s = median(rr_s)
    before_s, after_s = np.concatenate([[middle_s], rr_s]), np.concatenate([rr_s, [middle_s]])
    beside_before, beside_after = np.diff(height, prepend=0.0), -np.diff(height, append=0.0)
    return np.stack(
        [
            height,
            likeness,
            alike,
            noise,
            width,
            votes,
            np.log(before_s / usual_s),
            np.log(after_s / usual_s),
            np.minimum(before_s, 2.0),
            np.minimum(after_s, 2.0),
            beside_before,
            beside_after,
            np.where(before_s < SHADOW_S, beside_before, 0.0),
            np.where(after_s < SHADOW_S, beside_after, 0.0),
            *usual,
            n_voters,
        ],
        axis=1,
    )


def _recorded(peaks: np.ndarray, band: np.ndarray, fs: float) -> np.ndarray:
    """Return whether a lead is recorded at each candidate, (n,)."""
    at = np.clip(peaks[:, None] + np.arange(-1, 2) * round(REACH_S * fs), 0, len(band) - 1)
    return np.asarray(band[at].any(axis=1))


def _in_one_lead(peaks: np.ndarray, band: np.ndarray, fs: float) -> np.ndarray:
    """Return height, likeness, likeness to neighbours, noise and width of the candidates in one lead, (5, n)."""
    reach, half, step = round(REACH_S * fs), round(WAVE_S * fs), round(NOISE_STEP_S * fs)
    at = np.clip(peaks[:, None] + np.arange(-reach, reach + 1), 0, len(band) - 1)
    sizes = np.abs(band[at])
    top = sizes.argmax(axis=1)
    rows = np.arange(len(peaks))
    heights = sizes[rows, top] + 1e-6
    waves = band[np.clip(at[rows, top][:, None] + np.arange(-half, half + 1), 0, len(band) - 1)]
    width = np.abs(waves).mean(axis=1) / heights
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
            width,
        ]
    )


def _near(values: np.ndarray, fraction: float, n: int) -> np.ndarray:
    """Return a quantile of each value's n nearest neighbours, itself among them: (n_values,) -> (n_values,)."""
    half = min(n // 2, len(values) - 1)
    padded = np.pad(values, half, mode="reflect")
    return quantiles(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), (fraction,))[:, 0]
