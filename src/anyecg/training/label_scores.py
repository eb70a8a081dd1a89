"""How well probabilities of labels fit what is known: one row a label; NaN = not known of that record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from anyecg.metrics import auroc, average_precision, calibration_error, f1_score

DRAWS = 200
"""How often labels are drawn for `chance_error`."""


def each_label(labels: np.ndarray, scores: np.ndarray, decided: np.ndarray) -> list[dict[str, Any]]:
    """Return of every label how many records know it and show it, AUROC, average precision, F1 and calibration error.

    Parameters
    ----------
    labels : ndarray, shape (R, C)
        1, 0 or NaN.
    scores : ndarray, shape (R, C)
        Probabilities.
    decided : ndarray of bool, shape (R, C)
    """
    rows = []
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        truth, score = labels[known, k] == 1, scores[known, k]
        rows.append(
            {
                "n": int(known.sum()),
                "positive": int(truth.sum()),
                "auroc": rounded(auroc(truth, score)),
                "average_precision": rounded(average_precision(truth, score)),
                "f1": rounded(f1_score(truth, decided[known, k])),
                "calibration_error": rounded(calibration_error(truth, score)) if len(truth) else None,
            }
        )
    return rows


def measured(
    labels: np.ndarray,
    patients: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    named: list[dict[str, Any]],
    exclusive: bool,
) -> dict[str, Any]:
    """Return the macro AUROC, and how well every label is told: what a head's JSON says of a split.

    Parameters
    ----------
    labels, probabilities : ndarray, shape (R, C)
    patients : sequence of str
        Of the records.
    named : list of dict
        The head's labels: ``code`` and ``threshold``.
    """
    decided = probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1])
    if not exclusive:
        decided = probabilities >= np.array([label["threshold"] for label in named])
    rows = each_label(labels, probabilities, decided)
    return {
        "records": len(labels),
        "patients": len(set(patients)),
        "macro_auroc": rounded(known_macro_auroc(labels, probabilities)),
        "labels": [{"code": label["code"], **row} for label, row in zip(named, rows, strict=True)],
    }


def chance_error(probabilities: np.ndarray) -> tuple[float, float]:
    """Return the calibration error that probabilities (n,) have if they are *right*: its mean and 95 % quantile.

    Labels are drawn from them. The bins' shares scatter, and the error is a mean of absolute differences: of 350
    records it is .04 for a perfect answer to a frequent label.
    """
    rng = np.random.default_rng(0)
    each = [calibration_error(rng.random(len(probabilities)) < probabilities, probabilities) for _ in range(DRAWS)]
    return float(np.mean(each)), float(np.quantile(each, 0.95))


def known_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the AUROC of one label (R,) over the records that know it."""
    known = np.isfinite(labels)
    return auroc(labels[known] == 1, scores[known])


def known_macro_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUROC of the labels that have both kinds of records; 0.5 if none has."""
    each = [known_auroc(labels[:, k], scores[:, k]) for k in range(labels.shape[1])]
    return float(np.nanmean(each)) if np.isfinite(each).any() else 0.5


def rounded(value: float | np.floating) -> float | None:
    """Return four digits; None for what is not a number."""
    return None if not np.isfinite(value) else round(float(value), 4)
