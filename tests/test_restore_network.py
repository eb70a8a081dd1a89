"""The network that corrects regressed leads: its windows, its input, Einthoven's law, and how much of it is taken."""

from itertools import pairwise

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.metrics import pearson_r
from anyecg.readers import read
from anyecg.tasks.lead_correction import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    correct,
    leads_input,
    network_input,
    window_starts,
)
from anyecg.tasks.lead_regression import Regressed, regress, weights_of
from anyecg.tasks.restore import has_network, mixture_of, restore, restorer_of, with_leads

NOTHING, ALL = np.zeros(9), np.ones(9)


def regressed_of(signal, guess, n_used=2):
    """Return a regression that guessed ``guess`` wherever the signal is missing."""
    missing = ~np.isfinite(signal)
    spread = np.where(missing, np.float32(0.1), np.float32(np.nan))
    return Regressed(np.where(missing, guess, signal), spread, np.full(signal.shape[1], n_used))


def saying(value, log_spread=-1.0):
    """Return a network that says the same everywhere, in units of its input."""

    def network(x):
        assert x.shape == (1, 36, WINDOW_SAMPLES)
        return np.concatenate([np.full((1, 12, x.shape[2]), value), np.full((1, 12, x.shape[2]), log_spread)], axis=1)

    return network


def limb_and_v1(n_samples, seed=0):
    """Return limb leads that obey Einthoven, V1, and no other lead."""
    rng = np.random.default_rng(seed)
    signal = np.full((12, n_samples), np.nan, dtype=np.float32)
    signal[:6] = weights_of(LIMB_LEADS)[:, :2] @ rng.normal(size=(2, n_samples))
    signal[6] = rng.normal(size=n_samples)
    return signal


def test_the_input_is_leads_mask_and_guess_in_units_of_what_is_there():
    signal = limb_and_v1(100) * 3
    guess = np.where(np.isfinite(signal), np.nan, np.float32(2.0))
    x, scale = network_input(signal, guess)
    assert x.shape == (36, 112) and x.dtype == np.float32
    assert scale == pytest.approx(np.sqrt(np.square(signal[:7]).mean()), rel=1e-5)
    np.testing.assert_allclose(x[:7, :100] * scale, signal[:7], rtol=1e-5)
    assert (x[7:12] == 0).all() and (x[12:19, :100] == 1).all() and (x[19:24] == 0).all()
    assert (x[24:31] == 0).all()
    np.testing.assert_allclose(x[31:, :100] * scale, 2.0, rtol=1e-5)
    assert (x[:, 100:] == 0).all()
    np.testing.assert_array_equal(leads_input(signal)[0], x[:24])


@pytest.mark.parametrize("n_samples", [1, WINDOW_SAMPLES, WINDOW_SAMPLES + 1, 6900, 100_000])
def test_windows_cover_the_record_and_overlap(n_samples):
    starts = window_starts(n_samples)
    assert starts[0] == 0
    assert starts[-1] == max(0, n_samples - WINDOW_SAMPLES)
    assert all(0 < b - a <= HOP_SAMPLES for a, b in pairwise(starts))


def test_what_is_measured_stays_and_the_rest_is_mixed_by_share():
    signal = limb_and_v1(7000)
    scale = leads_input(signal[:, :WINDOW_SAMPLES])[1]
    regressed = regressed_of(signal, np.float32(2.0))
    shares = np.zeros(9)
    shares[2] = 0.25
    found = correct(saying(5.0), signal, regressed, shares)
    np.testing.assert_array_equal(found.mean[:7], signal[:7])
    np.testing.assert_allclose(found.mean[7:], 0.75 * 2 + 0.25 * 5 * scale, rtol=0.05)
    np.testing.assert_allclose(found.spread[7:], np.exp(-1) * scale, rtol=0.05)
    assert np.isnan(found.spread[:7]).all()
    unmixed = correct(saying(5.0), signal, regressed, NOTHING)
    np.testing.assert_allclose(unmixed.mean[7:], 2.0, rtol=1e-6)


def test_windows_of_a_long_record_are_joined_without_a_step():
    signal = limb_and_v1(9000)
    level = iter(range(1, 100))

    def network(x):
        scale = np.sqrt(np.square(x[0, :12]).sum() / x[0, 12:24].sum())
        assert scale == pytest.approx(1, rel=1e-3)
        return np.full((1, 24, x.shape[2]), next(level))

    found = correct(network, signal, regressed_of(signal, np.float32(0.0)), ALL)
    steps = np.abs(np.diff(found.mean[8]))
    assert steps.max() < 0.05  # windows differ by 1 and fade over 600 samples
    assert found.mean[8, -1] / found.mean[8, 0] == pytest.approx(len(window_starts(9000)), rel=0.1)


def test_windows_without_a_gap_are_not_run():
    signal = np.concatenate([limb_and_v1(20_000)[:7], np.ones((5, 20_000), dtype=np.float32)])
    signal[8, 12_000:12_300] = np.nan
    runs = []

    def network(x):
        runs.append(x)
        return np.zeros((1, 24, x.shape[2]))

    found = correct(network, signal, regressed_of(signal, np.float32(1.0)), ALL)
    assert 1 <= len(runs) <= 2
    kept = np.isfinite(signal)
    np.testing.assert_array_equal(found.mean[kept], signal[kept])
    assert (found.mean[~kept] == 0).all()


@pytest.mark.parametrize("given", [(), ("aVL",), ("II",)])
def test_guessed_limb_leads_obey_einthoven_and_agree_with_a_measured_one(given):
    rng = np.random.default_rng(3)
    signal = limb_and_v1(600)
    for row, name in enumerate(STANDARD_LEADS):
        if name in LIMB_LEADS and name not in given:
            signal[row] = np.nan
    noise = rng.normal(size=(1, 24, WINDOW_SAMPLES))
    found = correct(lambda _x: noise, signal, regressed_of(signal, np.float32(0.0), 1), ALL)
    limb = found.mean[:6]
    np.testing.assert_allclose(limb, weights_of(LIMB_LEADS)[:, :2] @ limb[:2], atol=1e-4)
    for name in given:
        row = STANDARD_LEADS.index(name)
        np.testing.assert_array_equal(found.mean[row], signal[row])
    if not given:
        assert np.corrcoef(limb[0], noise[0, 0, :600])[0, 1] > 0.5


VAL_RECORDS = ("00000/00010_hr", "00000/00027_hr", "00000/00033_hr")
"""Of split val: this holds the code, not a claim."""


@pytest.mark.data
def test_the_shipped_network_is_nearer_than_regression_from_one_lead(database):
    model = load("nano", threads=1)
    folder = database("ptb-xl") / "records500"
    head = restorer_of(model.checkpoint.folder)
    assert head is not None and has_network(head)
    r, inside = [], []
    for name in VAL_RECORDS:
        whole = model.prepare(read(folder / f"{name}.hea"))
        truth = whole.pick(PRECORDIAL_LEADS).signal
        found = restore(whole.pick(["I"]), model, PRECORDIAL_LEADS)
        rows = [found.record.leads.index(lead) for lead in PRECORDIAL_LEADS]
        one = with_leads(whole.pick(["I"]), STANDARD_LEADS).pick(STANDARD_LEADS).signal
        guesses = found.record.signal[rows], regress(mixture_of(head), one).mean[6:]
        r.append([np.mean([pearson_r(x, y) for x, y in zip(truth, guess, strict=True)]) for guess in guesses])
        inside.append(np.mean((found.low_mv[rows] <= truth) & (truth <= found.high_mv[rows])))
    corrected, regressed = np.mean(r, axis=0)
    assert corrected > regressed + 0.02
    assert np.mean(inside) > 0.7
