"""Scores -> probabilities that mean what they say, and the thresholds above which a finding counts as present.

Both are fitted on validation records only. Calibration: one temperature a head (Guo 2017, arXiv 1706.04599), and for
labels that do not exclude each other a shift of each label (Platt scaling with a shared slope): rare labels need it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from anyecg.metrics import f1_score
from anyecg.tasks.arrhythmia import to_probability

SHIFT_PENALTY = 1.0
"""Of a shift of 1 (in logits), in units of one record's loss: a label with few validation positives keeps its own."""


@dataclass(frozen=True)
class Calibration:
    """``probability = sigmoid(logit / temperature + shift)``, or softmax of the same."""

    temperature: float
    shifts: np.ndarray

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated logits of (R, C)."""
        return logits / self.temperature + self.shifts


def calibrate(logits: np.ndarray, labels: np.ndarray, exclusive: bool) -> Calibration:
    """Fit temperature and shifts to validation records: logits (R, C), labels (R, C), NaN = not known."""
    n_labels = logits.shape[1]
    known = np.isfinite(labels)
    wanted = np.where(known, labels, 0.0)

    def loss(parameters: np.ndarray) -> float:
        scaled = logits * np.exp(-parameters[0]) + parameters[1:]
        probability = np.clip(to_probability(scaled, exclusive), 1e-7, 1 - 1e-7)
        if exclusive:
            nll = -(wanted * np.log(probability)).sum()
        else:
            nll = -(known * (wanted * np.log(probability) + (1 - wanted) * np.log(1 - probability))).sum()
        return float(nll + SHIFT_PENALTY * np.square(parameters[1:]).sum())

    best = minimize(loss, np.zeros(1 + n_labels), method="L-BFGS-B").x
    return Calibration(float(np.exp(best[0])), best[1:])


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
