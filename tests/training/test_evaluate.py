"""Evaluation's parts: baselines and errors against cases whose answer is known."""

import numpy as np
import pytest
import torch

from anyecg.metrics import pearson_r, prd
from anyecg.record import Record
from anyecg.training.evaluate import beat_errors, copied_from_left, evaluate, wavelet_coded
from anyecg.training.probe import fit_probe, lead_means


def test_wavelet_coding_gets_better_with_bits_and_exact_with_many():
    rng = np.random.default_rng(0)
    x = np.convolve(rng.normal(size=3000), np.hanning(31), mode="same")
    by_rate = [prd(x, wavelet_coded(x, bits, 300.0)) for bits in (20, 80, 320, 20_000)]
    assert by_rate == sorted(by_rate, reverse=True)
    assert by_rate[-1] < 2
    assert pearson_r(x, wavelet_coded(x, 80, 300.0)) > 0.3


def test_wavelet_coding_keeps_gaps():
    x = np.sin(np.arange(3000) / 20)
    x[100:200] = np.nan
    np.testing.assert_array_equal(np.isnan(wavelet_coded(x, 80, 300.0)), np.isnan(x))


def test_copy_left_takes_the_nearest_visible_code():
    codes = torch.tensor([[[[5], [6], [7], [8]]]])
    visible = torch.tensor([[[False, True, False, True]]])
    assert copied_from_left(codes, visible).flatten().tolist() == [-1, 6, 6, 8]


def test_beat_errors_of_a_shifted_copy(toy_record):
    signal = toy_record.signal[:, : 60 * 360]
    measured = Record(signal, 360.0, ("MLII",))
    same = beat_errors(measured, measured)
    assert same["r_peak_error_ms"].max() == 0
    assert same["st_level_error_mv"].max() == 0
    later = beat_errors(measured, measured.with_(signal=np.roll(signal, 4, axis=1)))
    assert np.median(later["r_peak_error_ms"]) == pytest.approx(1000 * 4 / 360, abs=1)
    taller = beat_errors(measured, measured.with_(signal=1.1 * signal))
    assert np.median(taller["qrs_amplitude_error_percent"]) == pytest.approx(10, abs=0.1)
    cut = measured.signal.copy()
    cut[:, 5000:5100] = np.nan  # a fragment without a code
    assert np.isfinite(beat_errors(measured, measured.with_(signal=cut))["st_level_error_mv"]).all()
    assert taller["heart_rate_error_bpm"] == pytest.approx([0.0], abs=1e-6)


def test_lead_means_leave_out_what_is_not_valid():
    tokens = torch.tensor([[[[1.0], [3.0], [100.0]], [[7.0], [7.0], [7.0]]]])
    valid = torch.tensor([[[True, True, False], [False, False, False]]])
    assert lead_means(tokens, valid).tolist() == [[2.0, 0.0]]


def test_the_probe_finds_what_is_linear_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(600, 5)), rng.normal(size=(600, 5))
    y = (x[:, :2] + 0.3 * rng.normal(size=(600, 2))) > 0
    parts = [slice(0, 300), slice(300, 450), slice(450, 600)]
    good = fit_probe((x[parts[0]], y[parts[0]]), (x[parts[1]], y[parts[1]]), x[parts[2]])
    none = fit_probe((noise[parts[0]], y[parts[0]]), (noise[parts[1]], y[parts[1]]), noise[parts[2]])
    assert good.validation > 0.95
    assert good.scores.shape == (150, 2)
    assert none.validation < 0.65


def test_a_wrong_name_lists_what_is_allowed():
    with pytest.raises(ValueError, match="allowed are tokenizer, pretraining"):
        evaluate("everything", "nano")
