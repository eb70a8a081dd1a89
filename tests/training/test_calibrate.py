"""Probabilities that mean what they say, thresholds that find what is there."""

import numpy as np
import pytest

from anyecg.metrics import calibration_error
from anyecg.tasks.arrhythmia import calibrated, to_probability
from anyecg.training.calibrate import best_thresholds, calibrate, log_loss
from anyecg.training.label_scores import chance_error


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


def test_a_label_that_is_less_sure_than_the_others_gets_a_slope_of_its_own() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (4000, 3))
    labels = (rng.random(logits.shape) < to_probability(logits, exclusive=False)).astype(float)
    said = logits * [1.0, 1.0, 3.0]
    found = calibrate(said, labels, exclusive=False)
    assert found.slopes[2] / found.slopes[0] == pytest.approx(1 / 3, rel=0.15)
    few = calibrate(said[:60], labels[:60], exclusive=False)
    assert few.slopes == pytest.approx(np.ones(3), abs=0.15)  # sixty records are too few for one
    config = {**found.config, "exclusive": False}
    assert calibrated(said, config) == pytest.approx(to_probability(found.logits(said), False), abs=1e-3)
    assert log_loss(said, labels, config) < log_loss(said, labels, {**config, "slopes": [1.0, 1.0, 1.0]})
    assert log_loss(said, np.full_like(labels, np.nan), config) == 0


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_few_records_told_apart_do_not_make_answers_certain(exclusive: bool) -> None:
    truth = np.array([1, 0, 1, 0, 1, 0, 1, 0.0])
    labels = np.stack([truth, 1 - truth], axis=1)
    logits = (2 * labels - 1) * np.linspace(2, 3, 8)[:, None]
    found = to_probability(calibrate(logits, labels, exclusive).logits(logits), exclusive)
    assert ((found > 0.5) == (labels == 1)).all()
    assert 0.8 < found[labels == 1].max() < 0.97
    many = np.tile(logits, (200, 1)), np.tile(labels, (200, 1))
    assert to_probability(calibrate(*many, exclusive).logits(logits), exclusive).max() > 0.99


def test_a_right_answer_has_a_calibration_error_by_chance() -> None:
    rng = np.random.default_rng(0)
    p = to_probability(rng.normal(0, 2, 350), exclusive=False)
    mean, high = chance_error(p)
    assert 0.03 < mean < 0.06 and mean < high < 0.09
    errors = [calibration_error(rng.random(350) < p, p) for _ in range(100)]
    assert np.mean(errors) == pytest.approx(mean, abs=0.004)
    assert chance_error(np.tile(p, 40))[0] < mean / 4


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
