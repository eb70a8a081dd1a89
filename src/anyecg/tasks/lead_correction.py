"""Regressed leads, corrected by a small U-Net that sees what was given and the regressed guess.

The network (`anyecg.models.unet.Corrector`, in the head's graph) works on windows of ten seconds, as it was trained;
where windows of a long record overlap they are cross-faded. What it guesses and what was regressed are mixed, by
shares chosen on validation records for each number of given leads. Restored limb leads are made to obey Einthoven's and
Goldberger's equations, together with a limb lead that was measured.

U-Net: Ronneberger 2015 (arXiv 1505.04597). To correct a regression with it is ours.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from anyecg.leads import LIMB_LEADS, STANDARD_LEADS
from anyecg.tasks.lead_regression import Regressed, weights_of

STRIDE = 16
"""The network halves the rate four times."""

WINDOW_SAMPLES, HOP_SAMPLES = 3008, 2400

Network = Callable[[np.ndarray], np.ndarray]
"""Input (B, 36, WINDOW_SAMPLES) -> restored leads and the logarithm of their expected error, (B, 24, ...)."""


def correct(network: Network, signal: np.ndarray, regressed: Regressed, shares: np.ndarray) -> Regressed:
    """Correct the regressed guess.

    Parameters
    ----------
    network : callable
    signal : ndarray of float32, shape (12, n_samples)
        The standard leads in mV, NaN = missing.
    regressed : Regressed
    shares : ndarray of float64, shape (9,)
        Of the network's guess, by the number of independent leads that were regressed on.

    Returns
    -------
    Regressed
        ``spread`` is the network's expected error wherever something was guessed.
    """
    guessed = np.isfinite(regressed.spread)
    rows = np.flatnonzero(guessed.any(axis=1))
    n_samples = signal.shape[1]
    total = np.zeros((2, len(rows), n_samples), dtype=np.float32)
    weight = np.zeros(n_samples, dtype=np.float32)
    for start in window_starts(n_samples):
        window = slice(start, min(n_samples, start + WINDOW_SAMPLES))
        here = guessed[:, window]
        if not here.any():
            continue
        x, scale = network_input(signal[:, window], np.where(here, regressed.mean[:, window], np.nan))
        x = np.pad(x, ((0, 0), (0, WINDOW_SAMPLES - x.shape[1])))
        mean, log_spread = np.split(network(x[None])[0][:, : window.stop - window.start], 2)
        fade = _fade(window, n_samples)
        total[:, :, window] += fade * scale * np.stack([mean[rows], np.exp(log_spread[rows])])
        weight[window] += fade
    total /= np.where(weight > 0, weight, 1)
    corrected = regressed.mean.copy()
    corrected[rows] = np.where(guessed[rows], total[0], corrected[rows])
    _obey_einthoven(corrected, guessed)
    spread = np.full_like(regressed.spread, np.nan)
    spread[rows] = np.where(guessed[rows], total[1], np.nan)
    # What is measured is the same in both, and stays.
    mixed = regressed.mean + shares[regressed.n_used].astype(np.float32) * (corrected - regressed.mean)
    return replace(regressed, mean=np.where(guessed, mixed, regressed.mean), spread=spread)


def leads_input(given: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return leads (12, n) in mV, NaN = missing, as (24, n) in units of their RMS: 0 where missing, then the mask.

    n is filled up to a multiple of `STRIDE`; the RMS, in mV, is returned besides.
    """
    there = np.isfinite(given)
    filled = np.where(there, given, np.float32(0))
    power = np.square(given[there], dtype=np.float64).mean() if there.any() else 0.0
    scale = np.float32(max(1e-3, np.sqrt(power)))
    beyond = ((0, 0), (0, -given.shape[1] % STRIDE))
    return np.pad(np.concatenate([filled / scale, there.astype(np.float32)]), beyond), scale


def network_input(given: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return `leads_input` and besides the guess (12, n), mV, NaN where there is none or none is needed: (36, n)."""
    x, scale = leads_input(given)
    room = ((0, 0), (0, x.shape[1] - guess.shape[1]))
    return np.concatenate([x, np.pad(np.nan_to_num(guess, nan=0.0) / scale, room)]).astype(np.float32), scale


def window_starts(n_samples: int) -> list[int]:
    """Return where windows begin: evenly spaced, the first at the record's begin, the last at its end."""
    beyond = max(0, n_samples - WINDOW_SAMPLES)
    count = 1 + -(-beyond // HOP_SAMPLES)
    return np.linspace(0, beyond, count).round().astype(int).tolist()


def _fade(window: slice, n_samples: int) -> np.ndarray:
    """Return the weight of a window's samples: it rises from either end, but not where the record itself ends."""
    at = np.arange(window.start, window.stop)
    before = np.full(len(at), np.inf) if window.start == 0 else at - window.start + 1
    after = np.full(len(at), np.inf) if window.stop == n_samples else window.stop - at
    return np.minimum(np.minimum(before, after), WINDOW_SAMPLES - HOP_SAMPLES).astype(np.float32)


def _obey_einthoven(mean: np.ndarray, guessed: np.ndarray) -> None:
    """Let the guessed limb leads of (12, n) follow from two, in place.

    They become those nearest to what was guessed; where one limb lead was measured, among those that agree with it.
    """
    rows = np.array([STANDARD_LEADS.index(name) for name in LIMB_LEADS])
    at = np.flatnonzero(guessed[rows].sum(axis=0) >= len(rows) - 1)
    if not len(at):
        return
    limb, free = mean[rows][:, at], guessed[rows][:, at]
    to_limb = weights_of(LIMB_LEADS)[:, :2]
    two = np.linalg.pinv(to_limb) @ limb
    for weights, measured, is_free in zip(to_limb, limb, free, strict=True):
        two[:, ~is_free] += np.outer(weights, (measured - weights @ two)[~is_free]) / (weights @ weights)
    mean[np.ix_(rows, at)] = np.where(free, to_limb @ two, limb)
