"""Metrics as pure functions, with their conventions stated. NumPy in, floats out.

Conventions
-----------
- Waveforms are compared where both are finite, each lead by itself, after nothing: no shift, no scale, no detrending.
- ``prd`` is the percentage root-mean-square difference normalised by the reference's power *about its mean* (PRD1),
  since the pass-band has removed the baseline.
- ``auroc`` is the probability that a positive scores higher than a negative, ties counting one half.
- Intervals are 95 % percentile bootstrap intervals that resample *patients*, not records.
"""

from collections.abc import Callable

import numpy as np


def pearson_r(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return Pearson's correlation of two waveforms (n_samples,); NaN if either is constant or under two samples."""
    both = np.isfinite(reference) & np.isfinite(estimate)
    x, y = reference[both].astype(np.float64), estimate[both].astype(np.float64)
    if len(x) < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def prd(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the percentage root-mean-square difference of two waveforms (n_samples,)."""
    both = np.isfinite(reference) & np.isfinite(estimate)
    x, y = reference[both].astype(np.float64), estimate[both].astype(np.float64)
    power = np.square(x - x.mean()).sum() if len(x) else 0.0
    return float(100 * np.sqrt(np.square(x - y).sum() / power)) if power > 0 else float("nan")


def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Return the signal-to-noise ratio of an estimate (n_samples,), dB."""
    both = np.isfinite(reference) & np.isfinite(estimate)
    x, y = reference[both].astype(np.float64), estimate[both].astype(np.float64)
    error = np.square(x - y).sum()
    return float(10 * np.log10(np.square(x).sum() / error)) if error > 0 else float("inf")


def match_events(reference_s: np.ndarray, found_s: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Return the pairs (reference index, found index), shape (n, 2): in time order, each event used once."""
    pairs, j = [], 0
    for i, time_s in enumerate(reference_s):
        while j < len(found_s) and found_s[j] < time_s - tolerance_s:
            j += 1
        if j < len(found_s) and found_s[j] <= time_s + tolerance_s:
            later_is_nearer = (
                j + 1 < len(found_s)
                and abs(found_s[j + 1] - time_s) < abs(found_s[j] - time_s)
                and (i + 1 == len(reference_s) or abs(found_s[j + 1] - reference_s[i + 1]) > tolerance_s)
            )
            j += later_is_nearer
            pairs.append((i, j))
            j += 1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve for bool labels (n,) and scores (n,); NaN if a class is empty."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    _, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks[order] = (last - (counts - 1) / 2)[inverse]  # mean rank of ties
    rank_sum = ranks[positive.astype(bool)].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def macro_auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUROC of the classes that have both labels: bool (n, n_classes), scores (n, n_classes)."""
    each = [auroc(positive[:, k], scores[:, k]) for k in range(positive.shape[1])]
    return float(np.nanmean(each))


def f1_score(positive: np.ndarray, found: np.ndarray) -> float:
    """Return 2 TP / (2 TP + FP + FN) for bool labels and decisions (n,); NaN if there is neither a label nor a find."""
    denominator = int(positive.sum() + found.sum())
    return float(2 * (positive & found).sum() / denominator) if denominator else float("nan")


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the precision-recall curve, as a sum of steps, bool labels (n,), scores (n,); NaN if empty.

    Records of equal score count together. The baseline is the prevalence.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(positive[order])[last_of_equals]
    looked_at = np.flatnonzero(last_of_equals) + 1
    recall_step = np.diff(found, prepend=0) / positive.sum()
    return float((recall_step * found / looked_at).sum())


def calibration_error(positive: np.ndarray, probabilities: np.ndarray, n_bins: int = 10) -> float:
    """Return the expected calibration error of probabilities (n,) for bool labels (n,): bins of equal width.

    The mean over records of |share of positives in the record's bin - mean probability of the bin| (arXiv 1706.04599).
    """
    bins = np.minimum((probabilities * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    gap = np.bincount(bins, positive, n_bins) - np.bincount(bins, probabilities, n_bins)
    return float(np.abs(gap).sum() / count.sum())


def patient_bootstrap(
    metric: Callable[[np.ndarray], float], patients: np.ndarray, n_rounds: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of ``metric(rows)`` when patients are drawn with replacement.

    Parameters
    ----------
    metric : callable
        From row indices (n,) to a float.
    patients : ndarray, shape (n_rows,)
        The patient of each row.
    """
    rng = np.random.default_rng(seed)
    _, inverse = np.unique(patients, return_inverse=True)
    rows_of = [np.flatnonzero(inverse == k) for k in range(inverse.max() + 1)]
    values = []
    for _ in range(n_rounds):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        values.append(metric(np.concatenate([rows_of[k] for k in drawn])))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def usage_and_perplexity(codes: np.ndarray, codebook_size: int) -> tuple[float, float]:
    """Return the share of a codebook in use and the perplexity of its codes (n,)."""
    counts = np.bincount(codes.ravel(), minlength=codebook_size)
    share = counts[counts > 0] / counts.sum()
    return float((counts > 0).mean()), float(np.exp(-(share * np.log(share)).sum()))
