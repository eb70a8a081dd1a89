"""Robustness: what must not change codes does not, what must cost decoding does."""

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import snr_db
from anyecg.record import Record
from anyecg.training.card import tables
from anyecg.training.robustness import (
    EXCHANGES,
    GAINS,
    POLARITY,
    _agreement,
    _alone,
    _inverted,
    _with_noise,
    wavelet_denoised,
    with_noise,
)


@pytest.fixture(scope="module")
def model():
    return load("nano", threads=1)


@pytest.fixture(scope="module")
def record(make_ecg):
    one, two, *chest = make_ecg(8, 3000, 0)
    rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
    return Record(np.stack(rows), 300.0, STANDARD_LEADS, source_fs=500.0)


def test_wavelet_denoising_takes_noise_away():
    clean = np.interp(np.arange(3000), np.arange(0, 3001, 50), np.random.default_rng(0).normal(size=61))
    noisy = clean + 0.3 * np.random.default_rng(1).normal(size=3000)
    noisy[100:120] = np.nan
    denoised = wavelet_denoised(noisy)
    assert np.isnan(denoised[100:120]).all()
    assert snr_db(clean, denoised) > snr_db(clean, noisy) + 5


@pytest.mark.parametrize("name", ["arms exchanged", "left arm and leg exchanged"])
def test_exchanged_electrodes_keep_einthovens_law(record, name):
    swapped = POLARITY[name](record)
    one, two, three, avr, avl, avf = swapped.signal[:6]
    np.testing.assert_allclose(three, two - one, atol=1e-5)
    np.testing.assert_allclose(avr, -(one + two) / 2, atol=1e-5)
    np.testing.assert_allclose(avl, one - two / 2, atol=1e-5)
    np.testing.assert_allclose(avf, two - one / 2, atol=1e-5)
    assert not np.allclose(swapped.signal, record.signal)
    np.testing.assert_allclose(POLARITY[name](swapped).signal, record.signal, atol=1e-5)


def test_noise_has_the_ratio_asked_for_and_spares_gaps(record):
    noise = np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32)
    gappy = record.with_(signal=record.signal.copy())
    gappy.signal[2, 100:200] = np.nan
    noisy = with_noise(gappy, noise, 6.0, np.random.default_rng(1))
    assert np.isnan(noisy.signal[2, 100:200]).all()
    added = noisy.signal - gappy.signal
    ratio_db = 10 * np.log10(np.nanmean(gappy.signal**2, axis=1) / np.nanmean(added**2, axis=1))
    np.testing.assert_allclose(ratio_db, 6.0, atol=0.6)  # scaled to all of a stretch's power, gaps and all
    again = with_noise(gappy, noise, 6.0, np.random.default_rng(1))
    np.testing.assert_array_equal(again.signal, noisy.signal)


def test_codes_are_kept_under_gain_and_lost_under_noise(model, record):
    tokens = model.tokenize(record)
    for change in GAINS.values():
        changed = _agreement(model, [tokens], [record], [change(record)])
        assert changed["codes_kept"][0] > 0.99
    assert not GAINS["unknown"](record).gain_known
    noise = np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32)
    little, much = (_with_noise(model, [record], [tokens], noise, snr) for snr in (40.0, -6.0))
    assert much["codes_kept"][0] < little["codes_kept"][0]
    assert much["wavelet_codes_kept"][0] < little["wavelet_codes_kept"][0]
    assert much["wavelet_r"] < little["wavelet_r"]


def test_a_lead_alone_keeps_its_codes(model, record):
    kept = _alone(model, [model.tokenize(record)], [record], ("II", "V2"))["codes_kept"]
    assert min(kept) > 0.99


def test_waveforms_are_compared_with_themselves_under_their_old_names(model, record):
    tokens = [model.tokenize(record)]
    same = _inverted(model, tokens, [record], *EXCHANGES["as recorded"])
    assert min(same["codes_kept"]) == 1.0
    exchanged, upside_down = (
        _inverted(model, tokens, [record], *EXCHANGES[name])["codes_kept"][0]
        for name in ("arms exchanged", "all leads inverted")
    )
    # Seven leads are untouched and four have only changed names; upside down none is what it was.
    assert exchanged > 7 / 12
    assert upside_down < exchanged


def test_the_table_shows_every_condition():
    row = {
        **{"r": 0.9, "snr_gain_db": 7.0, "codes_kept": [0.71, 0.5]},
        **{"wavelet_r": 0.8, "wavelet_snr_gain_db": 1.0, "wavelet_codes_kept": [0.3, 0.1]},
    }
    measured = {
        **{"split": "test", "n_records": 2, "n_patients": 2, "noise": {"em": {"6": row}}},
        **{"rates": {"250": row}, "gains": {"3": row}, "subsets": {"II": row}, "polarity": {"as recorded": row}},
    }
    text = tables("robustness", measured)
    assert "| em | 6 | 7.0 | 0.900 | 71 / 50 | 1.0 | 0.800 | 30 / 10 |" in text
    for part in ("Hz: 250", "gain, times: 3", "only II", "as recorded"):
        assert f"| {part} | 71 / 50 | 0.900 |" in text
