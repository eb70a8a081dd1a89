"""Fibrillation by three classical measures: made waves, made beats, real ones."""

import numpy as np
import pytest

from anyecg.record import Record
from anyecg.signals import Preparation, prepare
from anyecg.tasks.episodes import as_finding
from anyecg.tasks.fibrillation import THRESHOLD, WINDOW_S, leakage, time_away, vf_episodes, vf_windows

FS = 300.0


def fibrillating(duration_s: float, seed: int = 0) -> np.ndarray:
    """Return mV: an oscillation about 5 Hz whose rate and height wander."""
    rng = np.random.default_rng(seed)
    n = round(duration_s * FS)
    slow = np.interp(np.arange(n) / FS, np.arange(0, duration_s + 1), rng.standard_normal(int(duration_s) + 1))
    phase = 2 * np.pi * np.cumsum(5 + 0.4 * slow) / FS
    return 0.5 * (1 + 0.3 * slow) * np.sin(phase) + 0.03 * rng.standard_normal(n)


def test_fibrillation_scores_high_and_beats_low(toy_record: Record) -> None:
    beats = prepare(toy_record)
    assert np.nanmax(vf_windows(beats)) < THRESHOLD
    found = vf_windows(Record(fibrillating(60)[None], FS, ("II",)))
    assert found.dtype == np.float32 and found.shape == (15,)
    assert (found > THRESHOLD).all()


def test_a_stretch_of_it_is_an_episode(toy_record: Record) -> None:
    beats = prepare(toy_record)
    signal = beats.signal[:, : round(120 * FS)].copy()
    signal[:, round(40 * FS) : round(64 * FS)] = fibrillating(24)
    (episode,) = vf_episodes(vf_windows(beats.with_(signal=signal)))
    assert (episode.start_s, episode.end_s, episode.code, episode.kind) == (40, 64, "VF", "rhythm")
    assert episode.score is not None and episode.score > THRESHOLD
    finding = as_finding(episode)
    assert (finding.snomed, finding.source) == ("164896001", "waveform")


def test_windows_are_on_the_clock_of_the_piece() -> None:
    record = Record(np.stack([fibrillating(22), fibrillating(22, 1)]), FS, ("II", "V1"))
    whole = vf_windows(record)
    assert len(whole) == 6 and np.isnan(whole[5]) and np.isfinite(whole[:5]).all()
    part = record.with_(signal=record.signal[:, round(8 * FS) : round(16 * FS)])
    np.testing.assert_array_equal(vf_windows(part), whole[2:4])
    assert np.isnan(vf_windows(record.with_(signal=record.signal[:, :600]))).all()


def test_a_lead_that_is_off_says_nothing() -> None:
    record = Record(np.stack([fibrillating(20), np.zeros(6000), np.full(6000, np.nan)]), FS, ("II", "V1", "V2"))
    np.testing.assert_allclose(vf_windows(record), vf_windows(record.pick(["II"])), rtol=1e-6)
    assert np.isnan(vf_windows(record.pick(["V1", "V2"]))).all()


def test_what_is_small_slow_or_noise_is_none() -> None:
    t = np.arange(6000) / FS
    rng = np.random.default_rng(0)
    for signal in (
        *(0.05 * np.sin(2 * np.pi * 5 * t), np.sin(2 * np.pi * 1.5 * t), np.sin(2 * np.pi * 15 * t)),
        rng.standard_normal(6000),
    ):
        assert np.nanmax(vf_windows(Record(signal[None], FS, ("II",)))) < THRESHOLD


def test_the_measures_of_a_sine() -> None:
    t = np.arange(1200) / FS
    sine, beat = np.sin(2 * np.pi * 5 * t)[None], np.exp(-0.5 * ((t % 1 - 0.5) / 0.02) ** 2)[None]
    assert leakage(sine)[0] < 0.02 < 0.5 < leakage(beat)[0]
    share = 1 - 2 * np.arcsin(0.2) / np.pi  # of the time that |sin| > 0.2
    assert time_away(sine, FS)[0] == pytest.approx(share, abs=0.03) and time_away(beat, FS)[0] < 0.1


def test_episodes_last_and_join() -> None:
    high, low = 0.9, 0.1
    scores = np.array([high, low, high, high, low, high, high, np.nan, low, high, high, high])
    found = vf_episodes(scores, WINDOW_S, 0.5)
    assert [(a.start_s, a.end_s) for a in found] == [(8, 28), (36, 48)]
    assert vf_episodes(np.array([high, np.nan, high])) == [] and vf_episodes(np.empty(0)) == []


@pytest.mark.data
def test_real_flutter_is_found_and_real_beats_are_not(database: object) -> None:
    """The record is of split train: this holds the code, not a claim."""
    from anyecg.readers import read

    folder = database("mitdb")  # type: ignore[operator]
    to = Preparation()
    flutter = prepare(read(folder / "207.hea", start_s=1544, end_s=1640), to)
    assert sum(a.end_s - a.start_s for a in vf_episodes(vf_windows(flutter))) > 70  # of 96
    for name in ("100", "203", "208"):  # sinus rhythm; fibrillation of the atria with runs; much ectopy
        assert vf_episodes(vf_windows(prepare(read(folder / f"{name}.hea", end_s=600), to))) == []
