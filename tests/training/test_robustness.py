"""Robustness: what must not change codes does not, what must cost decoding does."""

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import snr_db
from anyecg.record import Record
from anyecg.training.card import tables
from anyecg.training.robustness import POLARITY, _agreement, _of_leads, _with_noise, wavelet_denoised


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


def test_codes_are_kept_under_gain_and_lost_under_noise(model, record):
    tokens = model.tokenize(record)
    louder = _agreement(model, [tokens], [record.with_(signal=3 * record.signal)])["codes_kept"]
    assert louder[0] > 0.99
    noise = np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32)
    little, much = (_with_noise(model, [record], [tokens], noise, snr)["codes_kept"][0] for snr in (40.0, -6.0))
    assert much < little


def test_a_lead_alone_keeps_its_codes(model, record):
    leads = ("II", "V2")
    kept = _agreement(model, [_of_leads(model.tokenize(record), leads)], [record.pick(leads)])["codes_kept"]
    assert min(kept) > 0.99


def test_the_table_shows_every_condition():
    row = {"r": 0.9, "snr_gain_db": 7.0, "wavelet_snr_gain_db": 1.0, "codes_kept": [0.71, 0.5]}
    measured = {
        **{"split": "test", "n_records": 2, "n_patients": 2, "noise": {"em": {"6": row}}},
        **{"rates": {"250": row}, "gains": {"3": row}, "subsets": {"II": row}, "polarity": {"as recorded": {"r": 0.9}}},
    }
    text = tables("robustness", measured)
    assert "| em | 6 | 7.0 | 1.0 | 0.900 | 71 / 50 |" in text
    for part in ("Hz: 250", "gain x 3", "only II", "as recorded"):
        assert part in text
