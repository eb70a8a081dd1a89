"""Measures of a window that heads ask for by name."""

import numpy as np
import pytest
from scipy.signal import welch
from scipy.stats import kurtosis, skew

from anyecg.beats import find_beats
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.signals import Preparation, prepare
from anyecg.tasks import window_measures as wm
from anyecg.tasks.measures import MEASURES, measure
from anyecg.tasks.window_measures import KNOWN, ONE_LEAD, RR, SHAPE, Measured, window_measures


@pytest.fixture(scope="module")
def prepared(toy_record):
    return prepare(toy_record.with_(signal=toy_record.signal[:, : 60 * 360]), Preparation(300.0, 0.5, 75.0))


def by_name(names, *arguments):
    return dict(zip(names, window_measures(names, *arguments).tolist(), strict=True))


def test_classical_measures_are_those_of_the_window_alone(prepared):
    rhythm = find_beats(prepared)
    found = window_measures(MEASURES, prepared, rhythm, 10.0, 20.0)
    cut = prepared.with_(signal=prepared.signal[:, 3000:6000])
    inside = rhythm.r_peaks_s[(rhythm.r_peaks_s >= 10) & (rhythm.r_peaks_s < 20)] - 10
    np.testing.assert_array_equal(found, measure(cut, Rhythm(inside, lead=rhythm.lead)))


def test_names_choose_and_order(prepared):
    rhythm = find_beats(prepared)
    everything = by_name(ONE_LEAD, prepared, rhythm, 0.0, 30.0)
    some = ("shape: kurtosis", "rate_bpm", "rr: early, then late")
    assert window_measures(some, prepared, rhythm, 0.0, 30.0).tolist() == [everything[name] for name in some]
    assert len(set(ONE_LEAD)) == len(ONE_LEAD) and set(ONE_LEAD) <= KNOWN
    assert not any(name.startswith(("V1_", "aVR_", "qrs_axis", "transition")) for name in ONE_LEAD)


def test_what_two_tasks_ask_for_is_measured_once(prepared, monkeypatch):
    calls = []
    monkeypatch.setattr(wm, "measure", lambda *asked: calls.append(asked) or measure(*asked))
    measured, rhythm = Measured(prepared, find_beats(prepared)), find_beats(prepared)
    for names in (MEASURES, ONE_LEAD, ("rate_bpm",)):
        found = measured.window(names, 0.0, 30.0)
        np.testing.assert_array_equal(found, window_measures(names, prepared, rhythm, 0.0, 30.0))
    assert len(calls) == 4  # one of its own, and the three it is held against
    measured.window(MEASURES, 30.0, 60.0)
    assert len(calls) == 5


def test_millivolts_of_unknown_gain_are_told_on_demand(prepared):
    unknown = prepared.with_(gain_known=False)
    measured, names = Measured(unknown, find_beats(unknown)), ("best_r", "rate_bpm", "shape: spread, mV")
    assert np.isnan(measured.window(names, 0.0, 30.0)).tolist() == [True, False, True]
    whole = window_measures(names, prepared, measured.rhythm, 0.0, 30.0)
    np.testing.assert_array_equal(measured.window(names, 0.0, 30.0, any_gain=True), whole)


def test_spectrum_and_moments_are_scipys(prepared):
    lead = prepared.signal[0].astype(np.float64)
    for n in (18000, 12345, 1201, 700):
        hz, power = welch(lead[:n], 300.0, nperseg=min(n, 1200))
        ours_hz, ours = wm._welch(lead[:n], 300.0)
        np.testing.assert_allclose(ours_hz, hz)
        np.testing.assert_allclose(ours, power, rtol=1e-9, atol=1e-18)
    found = by_name(SHAPE, prepared, Rhythm(np.empty(0)), 0.0, 60.0)
    assert found["shape: skewness"] == pytest.approx(skew(lead), rel=1e-5)
    assert found["shape: kurtosis"] == pytest.approx(kurtosis(lead), rel=1e-5)
    assert found["shape: seconds"] == 60


def test_intervals_that_come_early_and_are_made_up_for():
    steady = np.arange(20) * 0.8
    early = steady.copy()
    early[5::5] -= 0.3
    flat = Record(np.zeros((1, 6000), np.float32), 300.0, ("II",), source_fs=300.0)
    regular, ectopic = (by_name(RR, flat, Rhythm(t), 0.0, 20.0) for t in (steady, early))
    assert regular["rr: early, then late"] == 0
    assert ectopic["rr: early, then late"] == pytest.approx(3 / 17)
    assert ectopic["rr: shortest, s"] == pytest.approx(0.5) and ectopic["rr: longest, s"] == pytest.approx(1.1)
    middle = [f"rr: Lorenz cell {i} {j}" for i in (1, 2) for j in (1, 2)]
    assert sum(regular[name] for name in middle) == pytest.approx(1)
    assert sum(ectopic[name] for name in middle) < 0.6
    assert ectopic["rr: Lorenz cell 0 3"] == pytest.approx(3 / 17)


def test_sample_entropy_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    for x in (rng.normal(0.8, 0.1, 40), np.tile([0.7, 0.9], 10), rng.normal(0.8, 0.01, 5)):
        two = three = 0
        for i in range(len(x) - 2):
            for j in range(len(x) - 2):
                if i != j and max(abs(x[i + k] - x[j + k]) for k in (0, 1)) < 0.08:
                    two += 1
                    three += abs(x[i + 2] - x[j + 2]) < 0.08
        assert wm._sample_entropy(x, 0.08) == pytest.approx(-np.log((three + 1) / (two + 1)))


def test_what_cannot_be_measured_is_nan(prepared):
    nothing = Rhythm(np.empty(0))
    assert np.isnan(window_measures(RR, prepared, nothing, 0.0, 30.0)).all()
    flat = prepared.with_(signal=np.zeros_like(prepared.signal))
    assert np.isnan(window_measures(SHAPE, flat, nothing, 0.0, 30.0)).all()
    gone = prepared.with_(signal=np.full_like(prepared.signal, np.nan))
    assert np.isnan(window_measures(SHAPE, gone, nothing, 0.0, 30.0)).all()
    assert np.isnan(window_measures(SHAPE, prepared, nothing, 0.0, 1.0)).all()  # too short
    unknown = by_name(ONE_LEAD, prepared.with_(gain_known=False), find_beats(prepared), 0.0, 30.0)
    assert np.isnan([unknown["shape: spread, mV"], unknown["best_r"]]).all()
    assert np.isfinite([unknown["shape: kurtosis"], unknown["qrs_ms"], unknown["rr_cv"]]).all()


def test_the_lead_of_the_rhythm_gives_the_shape(prepared):
    noise = np.random.default_rng(0).normal(size=prepared.signal.shape).astype(np.float32)
    two = prepared.with_(signal=np.concatenate([noise, prepared.signal]), leads=("ES", "MLII"))
    of_rhythm = Rhythm(find_beats(prepared).r_peaks_s, lead="MLII")
    alone = window_measures(SHAPE, prepared, of_rhythm, 0.0, 30.0)
    np.testing.assert_array_equal(window_measures(SHAPE, two, of_rhythm, 0.0, 30.0), alone)
