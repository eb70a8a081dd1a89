"""Classical measures of made-up beats whose waves are known."""

import numpy as np
import pytest

from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.tasks.measures import (
    LEVELS,
    MEASURES,
    MOST_SPREADS,
    NORMAL_SCORES,
    RELATIVE,
    measure,
    normal_scores,
    relative,
)

FS = 300.0
PEAKS_S = np.arange(0.6, 9.5, 0.8)
# mV of P, Q, R, S, T; seconds from R; width (standard deviation), seconds
WAVES = {"p": (0.15, -0.16, 0.02), "q": (-0.1, -0.03, 0.006), "r": (1.0, 0.0, 0.009), "t": (0.3, 0.25, 0.035)}


def beats(peaks_s, wide=1.0, height=1.0, t_sign=1.0):
    time_s = np.arange(round(10 * FS)) / FS
    signal = np.zeros(len(time_s))
    for name, (mv, at_s, width_s) in WAVES.items():
        width_s *= wide if name in "qr" else 1.0
        mv *= t_sign if name == "t" else height
        for peak_s in peaks_s:
            signal += mv * np.exp(-0.5 * ((time_s - peak_s - at_s) / width_s) ** 2)
    return signal + np.random.default_rng(0).normal(0, 0.003, len(signal))


def measured(signal, leads, peaks_s=PEAKS_S, lead=None):
    record = Record(np.atleast_2d(signal), FS, leads, source_fs=500.0)
    return dict(zip(MEASURES, measure(record, Rhythm(peaks_s, lead=lead or leads[0])), strict=True))


def test_waves_and_intervals_are_found():
    found = measured(beats(PEAKS_S), ("II",))
    assert found["rate_bpm"] == pytest.approx(75, abs=0.1)
    assert found["II_r"] == pytest.approx(1.0, abs=0.06)
    assert found["II_t"] == pytest.approx(0.3, abs=0.03)
    assert found["II_p"] == pytest.approx(0.15, abs=0.03)
    assert found["pr_ms"] == pytest.approx(150, abs=40)
    assert 330 < found["qt_ms"] < 400
    assert found["best_r"] == found["II_r"]
    assert found["odd_beats"] == 0


def test_a_wide_complex_is_wider_and_an_inverted_t_negative():
    narrow, wide = (measured(beats(PEAKS_S, wide=w), ("V1",))["qrs_ms"] for w in (1.0, 2.0))
    assert wide > narrow + 20
    assert measured(beats(PEAKS_S, t_sign=-1.0), ("V5",))["V5_t"] == pytest.approx(-0.3, abs=0.03)


def test_irregular_intervals_and_odd_beats_show():
    steady = measured(beats(PEAKS_S), ("II",))
    early = PEAKS_S.copy()
    early[[3, 7]] -= 0.3
    found = measured(beats(early), ("II",), early)
    assert found["rr_early"] > steady["rr_early"]
    assert found["rr_rmssd_ms"] > 10 * max(steady["rr_rmssd_ms"], 1)
    odd = beats(PEAKS_S)
    cut = slice(round(3.5 * FS), round(4.2 * FS))
    odd[cut] = -2 * beats(PEAKS_S, wide=4.0)[cut]
    assert measured(odd, ("II",))["odd_beats"] > 0


def test_the_axis_follows_the_limb_leads():
    found = measured(np.stack([beats(PEAKS_S), beats(PEAKS_S, height=0.0)]), ("I", "aVF"))
    assert np.degrees(np.arctan2(found["qrs_axis_sin"], found["qrs_axis_cos"])) == pytest.approx(0, abs=8)


def test_what_cannot_be_measured_is_nan_and_the_length_is_fixed():
    single = measured(beats(PEAKS_S), ("ES",))
    assert all(np.isnan(single[f"{lead}_r"]) for lead in STANDARD_LEADS)
    assert np.isfinite(single["best_r"])
    for signal in (np.full((2, 600), np.nan), np.zeros((2, 600)), np.zeros((2, 30))):
        empty = measured(signal, ("I", "ES"), np.empty(0))
        assert np.isnan(empty["rate_bpm"])
        assert len(empty) == len(MEASURES)


# -- normal scores ---------------------------------------------------------------------------------------------------


def test_scores_of_skewed_measures_are_gaussian():
    rng = np.random.default_rng(0)
    normal = np.exp(rng.normal(size=(4000, 3))) * [1, 50, 0.01]
    scores = normal_scores(normal, np.quantile(normal, LEVELS, axis=0))
    assert np.quantile(scores, [0.1, 0.5, 0.9], axis=0) == pytest.approx(np.tile([[-1.28], [0], [1.28]], 3), abs=0.05)
    assert scores.mean(axis=0) == pytest.approx(0, abs=0.05)


def test_scores_grow_with_the_measure_and_end_somewhere():
    quantiles = 10 + 2 * NORMAL_SCORES[:, None]
    x = np.linspace(-40, 60, 2001)[:, None]
    scores = normal_scores(x, quantiles)[:, 0]
    assert (np.diff(scores) >= 0).all()
    assert scores[[0, -1]].tolist() == [-MOST_SPREADS, MOST_SPREADS]
    inside = np.abs(scores) < MOST_SPREADS
    assert scores[inside] == pytest.approx((x[inside, 0] - 10) / 2, abs=1e-6)  # beyond the outer quantiles too


def test_what_most_normal_records_share_is_not_odd():
    normal = np.zeros((200, 1))
    normal[:40, 0] = np.linspace(0.1, 1, 40)  # four fifths have no odd beat
    quantiles = np.quantile(normal, LEVELS, axis=0).astype(np.float32)
    found = normal_scores(np.array([[0.0], [0.5], [5.0], [np.nan]], dtype=np.float32), quantiles)[:, 0]
    assert abs(found[0]) < 1.0 < found[1] < found[2] == MOST_SPREADS
    assert found[3] == 0


def test_shapes_are_waves_over_the_size_of_their_lead():
    record = Record(np.stack([beats(PEAKS_S), 3 * beats(PEAKS_S)]), FS, ("V4", "V5"), source_fs=500.0)
    found = measure(record, Rhythm(PEAKS_S, lead="V5"))
    plain, shape = dict(zip(MEASURES, found, strict=True)), dict(zip(RELATIVE, relative(found), strict=True))
    assert shape["V5_r_over_rms"] == pytest.approx(plain["V5_r"] / (plain["V5_rms"] + 0.005))
    assert shape["V5_t_over_rms"] == pytest.approx(shape["V4_t_over_rms"], rel=0.05)
    assert shape["best_qrs_net_over_rms"] == shape["V5_qrs_net_over_rms"]
    assert np.isnan(shape["I_r_over_rms"])
