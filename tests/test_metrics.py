"""Metrics: against closed forms and scikit-learn, golden to 1e-12."""

import numpy as np
import pytest

from anyecg import metrics


def test_r_and_prd_against_closed_forms():
    x = np.sin(np.linspace(0, 20, 500))
    assert metrics.pearson_r(x, 3 * x + 2) == pytest.approx(1.0, abs=1e-12)
    assert metrics.pearson_r(x, -x) == pytest.approx(-1.0, abs=1e-12)
    assert metrics.prd(x, x) == 0.0
    assert metrics.prd(x - x.mean(), 0 * x) == pytest.approx(100.0, abs=1e-9)
    assert metrics.snr_db(x, x * 1.1) == pytest.approx(20.0, abs=1e-9)


def test_what_is_not_recorded_is_left_out():
    x = np.sin(np.linspace(0, 20, 500))
    y = x + 0.1
    x[:100], y[50:200] = np.nan, np.nan
    assert metrics.pearson_r(x, y) == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(metrics.pearson_r(np.full(9, np.nan), np.ones(9)))
    assert np.isnan(metrics.pearson_r(np.ones(9), np.arange(9.0)))
    assert np.isnan(metrics.prd(np.ones(9), np.arange(9.0)))


def test_auroc_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, scores = rng.random(300) < 0.3, np.round(rng.normal(size=300), 1)  # rounded: many ties
    assert metrics.auroc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    assert np.isnan(metrics.auroc(np.ones(5, dtype=bool), np.arange(5)))


def test_average_precision_and_f1_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    labels, scores = rng.random(300) < 0.2, np.round(rng.normal(size=300), 1)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        sklearn.average_precision_score(labels, scores), abs=1e-12
    )
    assert metrics.f1_score(labels, scores > 0.5) == pytest.approx(sklearn.f1_score(labels, scores > 0.5), abs=1e-12)
    assert np.isnan(metrics.average_precision(np.zeros(4, dtype=bool), np.arange(4.0)))
    assert np.isnan(metrics.f1_score(np.zeros(4, dtype=bool), np.zeros(4, dtype=bool)))


def test_the_calibration_error_of_bins():
    # two bins: .9 said of four records of which two are positive, .1 of six of which none is
    positive = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    said = np.array([0.9] * 4 + [0.1] * 6)
    assert metrics.calibration_error(positive, said) == pytest.approx((4 * 0.4 + 6 * 0.1) / 10, abs=1e-12)
    assert metrics.calibration_error(positive, positive.astype(float)) == 0.0


def test_macro_auroc_skips_classes_without_both_labels():
    labels = np.array([[True, False], [False, False], [True, False]])
    scores = np.array([[2.0, 0], [1, 0], [3, 0]])
    assert metrics.macro_auroc(labels, scores) == 1.0


def test_events_are_matched_once_and_to_the_nearest():
    pairs = metrics.match_events(np.array([1.0, 2.0, 3.0]), np.array([0.95, 1.02, 2.6, 3.1]), tolerance_s=0.15)
    assert pairs.tolist() == [[0, 1], [2, 3]]
    assert metrics.match_events(np.array([]), np.array([1.0]), 0.1).shape == (0, 2)


def test_the_bootstrap_draws_patients_not_records():
    values = np.repeat([0.0, 1.0], 500)
    patients = np.repeat(["a", "b"], 500)  # a thousand records, but only two patients
    low, high = metrics.patient_bootstrap(lambda rows: float(values[rows].mean()), patients)
    assert (low, high) == (0.0, 1.0)


def test_usage_and_perplexity():
    usage, perplexity = metrics.usage_and_perplexity(np.array([0, 1, 2, 3]), 8)
    assert usage == 0.5
    assert perplexity == pytest.approx(4.0)
