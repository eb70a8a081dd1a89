"""Fitting the head that restores leads: the mixture, the band, the graph."""

import numpy as np
import onnxruntime
import pytest

from anyecg.leads import PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.record import Record
from anyecg.tasks.lead_regression import N_LAGS, Mixture, lagged_covariance, regress
from anyecg.training.restorer import COVERED, calibrate, fit_mixture, graph_of, lagged_of

LIMB = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])


@pytest.fixture(scope="module")
def blocks():
    """Return blocks of patients of two kinds, that is with chests of two shapes, and a little noise."""
    rng = np.random.default_rng(0)
    chests = rng.normal(size=(2, 6, 3))
    made = []
    for number in range(24):
        moment = np.cumsum(rng.normal(size=(3, 1500)), axis=1)
        moment -= moment.mean(axis=1, keepdims=True)
        noise = rng.normal(0, 1, (8, 1500))
        signal = np.concatenate([LIMB @ (moment[:2] + noise[:2]), chests[number % 2] @ moment + noise[2:]])
        made.append(Record(signal, 300.0, STANDARD_LEADS, source_fs=300.0))
    return made


@pytest.fixture(scope="module")
def lagged(blocks):
    return lagged_of(iter(blocks))


def test_lagged_covariances_are_those_of_shifted_signals():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4000))
    x[1] = np.roll(x[0], 8)
    found = lagged_covariance(x, 4)
    assert found[2, 0, 1] == pytest.approx(1, abs=0.1)
    assert abs(found[2, 1, 0]) < 0.1
    with_gap = x.copy()
    with_gap[0, 1000:1500] = np.nan
    np.testing.assert_allclose(lagged_covariance(with_gap, 4), found, atol=0.1)


def test_the_mixture_tells_two_kinds_of_chests_apart(lagged):
    mixture = fit_mixture(lagged, 2)
    assert mixture.lagged.shape == (2, N_LAGS, 8, 8)
    assert mixture.share.sum() == pytest.approx(1)
    apart = [min(np.square(mixture.lagged[:, 0] - one[0]).sum(axis=(1, 2))) for one in lagged]
    single = [np.square(lagged.mean(axis=0)[0] - one[0]).sum() for one in lagged]
    assert np.mean(apart) < 0.9 * np.mean(single)


def test_the_band_holds_nine_tenths(blocks, lagged):
    mixture = fit_mixture(lagged, 4)

    def doubting(x):
        """Return what was regressed, and the same doubt about all of it."""
        return np.concatenate([x[:, 24:], np.zeros_like(x[:, 24:])], axis=1)

    factors = calibrate(mixture, doubting, blocks)["band_factors"]
    assert len(factors) == 8
    inside = []
    for block in blocks:
        chest = np.array([name in PRECORDIAL_LEADS for name in STANDARD_LEADS])
        found = regress(mixture, np.where(chest[:, None], np.float32(np.nan), block.signal))
        doubt = np.sqrt(np.square(block.signal[~chest]).mean())
        inside.append(np.abs(found.mean - block.signal)[chest] < factors[1] * doubt)
    assert np.mean(inside) == pytest.approx(COVERED, abs=0.02)


def test_the_graph_holds_the_components():
    rng = np.random.default_rng(3)
    mixture = Mixture(np.array([0.25, 0.75]), rng.normal(size=(2, 3, 8, 8)).astype(np.float16).astype(np.float32))
    session = onnxruntime.InferenceSession(graph_of(mixture))
    (found,) = session.run(None, {"shares": np.eye(2, dtype=np.float32)})
    np.testing.assert_array_equal(found, mixture.lagged)
    (mean,) = session.run(None, {"shares": mixture.share[None].astype(np.float32)})
    np.testing.assert_allclose(mean[0], np.tensordot(mixture.share, mixture.lagged, 1), atol=1e-5)
