"""RR intervals of beats: what stays told when most beats come early, and runs of them."""

import numpy as np
import pytest

from anyecg.tasks.beat_rr import N_RR_FEATURES, N_RUN_FEATURES, QUANTILES, REACHES, RR_NEAR, rr_features

BEFORE = -RR_NEAR[0]
N_LAST = 1 + N_RUN_FEATURES + 2 * len(REACHES)
RUN = slice(N_RR_FEATURES - 1 - N_RUN_FEATURES, N_RR_FEATURES - 1)
LENGTH, PLACE, LEFT, DEPTH, SPREAD, ONSET, OFFSET = range(N_RUN_FEATURES)


def peaks(rr_s: list[float]) -> np.ndarray:
    return np.cumsum([0.0, *rr_s])


def test_where_most_beats_are_early_high_quantiles_means_and_the_longest_still_tell_them() -> None:
    features = rr_features(peaks(([0.6] * 4 + [1.5]) * 200))  # four early beats, then one after a pause
    early, rested = 502, 505  # beat k ends interval k - 1
    assert features[early, BEFORE] == pytest.approx(0, abs=1e-6)  # beside the median nothing is early
    mean_of_301 = len(RR_NEAR) + 17 + 2
    assert features[early, mean_of_301] == pytest.approx(np.log(0.6 / 0.78), abs=0.01)
    first_quantile = len(RR_NEAR) + 17 + 6
    high = first_quantile + QUANTILES.index(90)
    assert features[early, high] == pytest.approx(np.log(0.6 / 1.5), abs=1e-5)
    assert features[rested, high] == pytest.approx(0, abs=1e-5)
    longest = N_RR_FEATURES - N_LAST
    assert features[early, longest] == pytest.approx(np.log(0.6 / 1.5), abs=1e-5)


def test_a_run_is_described_by_length_place_depth_and_how_abruptly_it_begins_and_ends() -> None:
    features = rr_features(peaks([0.9] * 100 + [0.5] * 8 + [1.2] + [0.9] * 100))[:, RUN]
    assert not features[:101].any() and not features[110:].any()
    inside = features[101:109]
    np.testing.assert_allclose(inside[:, LENGTH], np.log1p(8), atol=1e-6)
    np.testing.assert_allclose(inside[:, PLACE], np.log1p(np.arange(8)), atol=1e-6)
    np.testing.assert_allclose(inside[:, LEFT], np.log1p(np.arange(8, 0, -1)), atol=1e-6)
    np.testing.assert_allclose(inside[:, DEPTH], np.log(0.5 / 0.9), atol=1e-5)
    np.testing.assert_allclose(inside[:, SPREAD], 0, atol=1e-5)
    np.testing.assert_allclose(inside[:, ONSET], np.log(0.5 / 0.9), atol=1e-5)
    np.testing.assert_allclose(inside[:, OFFSET], np.log(1.2 / 0.5), atol=1e-5)


def test_each_of_several_runs_has_its_own_numbers_and_one_may_reach_to_the_end() -> None:
    features = rr_features(peaks([0.9] * 50 + [0.6] + [0.9] * 50 + [0.5, 0.6] + [0.9] * 50 + [0.5] * 3))[:, RUN]
    lengths = np.expm1(features[:, LENGTH])
    np.testing.assert_allclose(lengths[[51, 102, 103, 154, 155, 156]], [1, 2, 2, 4, 4, 4], atol=1e-5)
    assert features[102, SPREAD] == pytest.approx(np.log(0.6 / 0.5) / 2, abs=1e-5)
    assert features[51, DEPTH] == pytest.approx(np.log(0.6 / 0.9), abs=1e-5)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 12])
def test_any_number_of_beats_has_finite_numbers(n: int) -> None:
    features = rr_features(np.arange(n) * 0.8)
    assert features.shape == (n, N_RR_FEATURES)
    assert np.isfinite(features).all()


def test_distant_beats_change_nothing() -> None:
    rng = np.random.default_rng(0)
    at_s = np.cumsum(rng.normal(0.9, 0.15, 4000))
    whole, part = rr_features(at_s)[1500:2500], rr_features(at_s[500:3500])[1000:2000]
    np.testing.assert_allclose(part, whole, atol=1e-6)
