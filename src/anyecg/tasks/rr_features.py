"""What RR intervals say in a few numbers: rate, spread, irregularity. Given to heads beside the tokens.

Fragments of half a second hold the shape of a beat well and the time between beats only across fragments; and
irregularity, the mark of atrial fibrillation, is easier said than learned from few records.
"""

import numpy as np

from anyecg.ranks import median

FEATURE_NAMES = (
    "beats a second",
    "mean RR",
    "log spread of RR",
    "log mean absolute change of RR",
    "shortest RR over median",
    "longest RR over median",
    "median absolute deviation over median",
    "share of changes over 10 %",
    "share of changes over 50 ms",
    "lag-1 correlation of RR",
    "entropy of changes",
    "known",
)
LEAST_BEATS = 4
"""Three intervals: fewer say nothing of irregularity."""

_CHANGE_EDGES = np.array([-0.25, -0.1, -0.03, 0.03, 0.1, 0.25])


def rr_features(r_peaks_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """Describe the RR intervals between two times.

    Parameters
    ----------
    r_peaks_s : ndarray, shape (n_beats,)
    start_s, end_s : float

    Returns
    -------
    ndarray of float32, shape (12,)
        As `FEATURE_NAMES`; all 0, "known" too, with fewer than `LEAST_BEATS` beats.
    """
    peaks = r_peaks_s[(r_peaks_s >= start_s) & (r_peaks_s < end_s)]
    if len(peaks) < LEAST_BEATS:
        return np.zeros(len(FEATURE_NAMES), dtype=np.float32)
    rr = np.diff(peaks)
    middle = float(median(rr))
    change = np.diff(rr)
    relative = change / middle
    share = np.bincount(np.searchsorted(_CHANGE_EDGES, relative, side="right")) / len(relative)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    spread = rr.std()
    lag = float(np.mean((rr[1:] - rr.mean()) * (rr[:-1] - rr.mean())) / (spread**2 + 1e-6))
    return np.array(
        [
            len(peaks) / (end_s - start_s),
            rr.mean(),
            np.log(spread + 5e-3),
            np.log(np.abs(change).mean() + 5e-3),
            rr.min() / middle,
            rr.max() / middle,
            float(median(np.abs(rr - middle))) / middle,
            (np.abs(relative) > 0.1).mean(),
            (np.abs(change) > 0.05).mean(),
            lag,
            entropy,
            1.0,
        ],
        dtype=np.float32,
    )
