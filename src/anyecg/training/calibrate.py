"""Scores -> probabilities that mean what they say, and the thresholds above which a finding counts as present.

Both are fitted on validation records only. Calibration: one temperature a head (Guo 2017, arXiv 1706.04599), and for
labels that do not exclude each other a slope and a shift of each label (Platt scaling, 1999), both held near the
common ones by penalties: rare labels need a shift, and have too few records for a slope of their own. Labels are
softened much as Platt's are, so that a few validation records that are all told apart do not make every answer certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from anyecg.metrics import f1_score
from anyecg.tasks.arrhythmia import calibrated, to_probability
from anyecg.training.label_scores import known_auroc, measured, rounded

SHIFT_PENALTY = 1.0
"""Of a shift of 1 (in logits), in units of one record's loss: a label with few validation positives keeps its own."""

SLOPE_PENALTY = 30.0
"""Of a slope e times the common one. Cross-validated on the validation records of the
diagnosis head, slopes bring the mean calibration error down a little (.0315 -> .0301 of ten labels) for .2 % of log
loss; held less, they cost more."""

LEAST_AUROC = 0.8
"""A label that single leads of validation records tell no better is not told of records of one or two leads."""


@dataclass(frozen=True)
class Calibration:
    """``probability = sigmoid(slope * logit / temperature + shift)``, or softmax of the same; slopes are about 1."""

    temperature: float
    shifts: np.ndarray
    slopes: np.ndarray

    @property
    def config(self) -> dict[str, Any]:
        """What a head's JSON says of it (see `anyecg.tasks.arrhythmia.calibrated`)."""
        return {
            "temperature": self.temperature,
            "slopes": self.slopes.round(4).tolist(),
            "shifts": self.shifts.tolist(),
        }

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated logits of (R, C)."""
        return logits * self.slopes / self.temperature + self.shifts


def calibrate(logits: np.ndarray, labels: np.ndarray, exclusive: bool) -> Calibration:
    """Fit temperature, slopes and shifts to validation records: logits (R, C), labels (R, C), NaN = not known.

    Labels that exclude each other have the temperature and shifts alone.
    """
    n_labels = logits.shape[1]
    known = np.isfinite(labels)
    wanted = softened(labels, exclusive)

    def unpacked(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        temperature, shifts, slopes = np.split(parameters, [1, 1 + n_labels])
        return temperature, shifts, slopes if len(slopes) else np.zeros(n_labels)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        temperature, shifts, slopes = unpacked(parameters)
        factor = np.exp(slopes - temperature)
        scaled = logits * factor + shifts
        probability = to_probability(scaled, exclusive)
        if exclusive:
            nll = -(wanted * np.log(np.maximum(probability, 1e-12))).sum()
            missed = wanted.sum(axis=1, keepdims=True) * probability - wanted
        else:
            nll = (known * (np.logaddexp(0, scaled) - wanted * scaled)).sum()
            missed = known * (probability - wanted)
        penalty = SHIFT_PENALTY * np.square(shifts).sum() + SLOPE_PENALTY * np.square(slopes).sum()
        by_slope = (missed * logits * factor).sum(axis=0)
        gradient = [[-by_slope.sum()], missed.sum(axis=0) + 2 * SHIFT_PENALTY * shifts]
        if not exclusive:
            gradient.append(by_slope + 2 * SLOPE_PENALTY * slopes)
        return float(nll + penalty), np.concatenate(gradient)

    start = np.zeros(1 + n_labels * (1 if exclusive else 2))
    temperature, shifts, slopes = unpacked(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    return Calibration(float(np.exp(temperature[0])), shifts, np.exp(slopes))


def softened(labels: np.ndarray, exclusive: bool) -> np.ndarray:
    """Return what (R, C) labels are worth, 0 where it is not known: as if each answer had been half seen once more.

    Of n records a positive is worth (n + 1/2) / (n + 1) and a negative (1/2) / (n + 1). Departure from Platt, who
    counts each kind apart and adds one: that made answers about rare labels too timid, and lost log loss.
    """
    n = np.isfinite(labels).sum(axis=0)
    kinds = labels.shape[1] if exclusive else 2
    return np.where(np.isfinite(labels), (np.nan_to_num(labels) * n + 0.5) / (n + 0.5 * kinds), 0.0)


def log_loss(logits: np.ndarray, labels: np.ndarray, config: dict[str, Any]) -> float:
    """Return the summed log loss of known labels (R, C) under a head's calibration."""
    known = np.isfinite(labels)
    p = np.clip(calibrated(logits, config), 1e-7, 1 - 1e-7)
    return -float(np.log(np.where(labels[known] == 1, p[known], 1 - p[known])).sum())


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each label the probability that gives validation records the best F1: (R, C), (R, C) -> (C,).

    0.5 for a label without a validation positive.
    """
    thresholds = np.full(labels.shape[1], 0.5)
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        truth, score = labels[known, k] == 1, probabilities[known, k]
        if truth.any():
            tried = np.unique(np.quantile(score, np.linspace(0, 1, 201)))
            between = (tried[1:] + tried[:-1]) / 2  # no record lies on its threshold
            candidates = between if len(between) else tried
            thresholds[k] = candidates[np.argmax([f1_score(truth, score >= t) for t in candidates])]
    return thresholds


def decided_and_measured(
    named: list[dict[str, Any]],
    splits: Mapping[str, tuple[np.ndarray, Sequence[str] | np.ndarray, np.ndarray]],
    exclusive: bool,
) -> dict[str, Any]:
    """Return what a head's JSON says of its ``labels``, thresholds chosen on ``val``, and what is ``measured``.

    Parameters
    ----------
    named : list of dict
        The head's labels; a threshold they have is replaced.
    splits : dict
        ``val``, and ``test`` if there is one: labels (R, C), 1, 0 or NaN; patients (R,); probabilities (R, C).
    exclusive : bool
        Whether labels exclude each other.
    """
    labels, _, probabilities = splits["val"]
    thresholds = best_thresholds(probabilities, labels)
    named = [{**label, "threshold": round(float(t), 4)} for label, t in zip(named, thresholds, strict=True)]
    return {"labels": named, "measured": {s: measured(*known, named, exclusive) for s, known in splits.items()}}


def decided_for_few_leads(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Return the thresholds of a head for records of one or two leads, and which labels so few can tell.

    Both (R, C), of validation records seen through single leads; a label of an AUROC under `LEAST_AUROC` is not told.
    """
    each = [known_auroc(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])]
    return {
        "thresholds": best_thresholds(probabilities, labels).round(4).tolist(),
        "validation_auroc": [rounded(value) for value in each],
        "told": [bool(np.isfinite(value) and value >= LEAST_AUROC) for value in each],
    }
