"""Which codes are hidden: a mixture of masks, so that gaps, whole leads and almost everything can be guessed.

The kinds: scattered fragments, time spans over all leads, whole leads, all but a few leads. The last two
make lead generation a native skill of the encoder.
"""

import numpy as np

from anyecg.training.recipe import MaskSection


def mixed_mask(valid: np.ndarray, section: MaskSection, rng: np.random.Generator) -> np.ndarray:
    """Draw one kind of mask for each window.

    Parameters
    ----------
    valid : ndarray of bool, shape (B, L, P)
    section : MaskSection
        Weights of the kinds, and the range of the share hidden.
    rng : Generator

    Returns
    -------
    ndarray of bool, shape (B, L, P)
        True = hidden. Hidden tokens are valid ones; each window keeps at least one visible valid token.
    """
    kinds = (scattered, spans, whole_leads, all_but_few)
    weights = np.array([section.fragments, section.spans, section.leads, section.all_but_few])
    mask = np.zeros_like(valid)
    for window, hidden in zip(valid, mask, strict=True):
        if window.sum() < 2:
            continue
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        n_present = int(window.any(axis=1).sum())
        if n_present < 2 and kind in (whole_leads, all_but_few):
            kind = spans  # a single lead cannot be hidden whole
        hidden[:] = kind(window, rng.uniform(*section.ratio), rng) & window
        if not hidden.any() or (hidden == window).all():
            hidden[:] = scattered(window, 0.4, rng) & window
    return mask


def scattered(window: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hide single fragments."""
    return rng.random(window.shape) < ratio


def spans(window: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hide stretches of 1 to 3 s (at half-second fragments) in all leads at once."""
    n_positions = window.shape[1]
    hidden = np.zeros(n_positions, dtype=bool)
    while hidden.mean() < ratio:
        length = int(rng.integers(2, 7))
        start = int(rng.integers(max(1, n_positions - length + 1)))
        hidden[start : start + length] = True
    return np.broadcast_to(hidden, window.shape)


def whole_leads(window: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hide some leads from end to end; at least one goes, at least one stays."""
    present = np.flatnonzero(window.any(axis=1))
    n_hidden = int(np.clip(round(ratio * len(present)), 1, len(present) - 1))
    hidden = np.zeros(window.shape, dtype=bool)
    hidden[rng.choice(present, n_hidden, replace=False)] = True
    return hidden


def all_but_few(window: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hide all leads but one to three."""
    present = np.flatnonzero(window.any(axis=1))
    n_kept = int(rng.integers(1, min(4, len(present))))
    hidden = np.ones(window.shape, dtype=bool)
    hidden[rng.choice(present, n_kept, replace=False)] = False
    return hidden
