"""Probabilities that mean what they say, thresholds that find what is there."""

import numpy as np
import pytest

from anyecg.metrics import calibration_error
from anyecg.tasks.arrhythmia import calibrated, to_probability
from anyecg.training.calibrate import best_thresholds, calibrate


def test_logits_that_are_too_sure_and_too_high_are_brought_back() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, (4000, 2))
    labels = (rng.random(logits.shape) < to_probability(logits, exclusive=False)).astype(float)
    labels[::7, 1] = np.nan  # not known
    said = 3 * logits + np.array([0.0, 2.0])
    found = calibrate(said, labels, exclusive=False)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.shifts == pytest.approx([0, -2 / 3], abs=0.15)
    after = to_probability(found.logits(said), exclusive=False)
    before = to_probability(said, exclusive=False)
    for k in range(2):
        known = np.isfinite(labels[:, k])
        truth = labels[known, k] == 1
        assert calibration_error(truth, after[known, k]) < 0.035 < calibration_error(truth, before[known, k])


def test_exclusive_labels_share_one_probability() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (3000, 3))
    cumulative = to_probability(logits, exclusive=True).cumsum(axis=1)
    drawn = (rng.random((3000, 1)) > cumulative).sum(axis=1)
    labels = np.eye(3)[np.minimum(drawn, 2)]
    found = calibrate(4 * logits, labels, exclusive=True)
    assert found.temperature == pytest.approx(4, rel=0.1)
    config = {"temperature": found.temperature, "shifts": found.shifts.tolist(), "exclusive": True}
    probabilities = calibrated(4 * logits, config)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3000))
    assert probabilities == pytest.approx(to_probability(found.logits(4 * logits), exclusive=True))


def test_thresholds_lie_between_negatives_and_positives() -> None:
    labels = np.array([[0, np.nan], [0, 0], [1, 0], [1, 0.0]])
    scores = np.array([[0.1, 0.9], [0.2, 0.2], [0.6, 0.3], [0.9, 0.4]])
    thresholds = best_thresholds(scores, labels)
    assert 0.2 < thresholds[0] < 0.6
    assert thresholds[1] == 0.5  # no positive to learn from
