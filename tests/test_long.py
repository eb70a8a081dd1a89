"""The summary of a recording of any length: counts that can be checked by hand."""

import json

import numpy as np
import pytest

from anyecg.analysis import analyze
from anyecg.record import Annotation, Record
from anyecg.tasks.episodes import find_beat_episodes
from anyecg.tasks.long import (
    FIRST_LOOK,
    LONGEST_STRIP_S,
    summarize,
    window_surprise,
    worth_a_look,
)


def rhythm(code: str, start_s: float, end_s: float, score: float | None = None) -> Annotation:
    return Annotation(start_s, end_s, "rhythm", code, score=score)


@pytest.fixture(scope="module")
def two_hours() -> tuple[np.ndarray, np.ndarray]:
    """An hour at 60, then an hour at 90 beats a minute, each hour with 100 V; every 50th beat of the second is S."""
    beats_s = np.concatenate([np.arange(0.5, 3600, 1.0), np.arange(3600.4, 7200, 2 / 3)])
    classes = np.full(len(beats_s), "N")
    classes[10:1010:10] = "V"
    classes[3600 + 7 : 3600 + 1007 : 10] = "V"
    classes[3650::50] = "S"
    return beats_s, classes


def test_each_hour_counts_its_own(two_hours: tuple[np.ndarray, np.ndarray]) -> None:
    beats_s, classes = two_hours
    episodes = (rhythm("AFIB", 1800, 4200, 0.9), rhythm("PAUSE", 100, 102.5), rhythm("PAUSE", 5000, 5003))
    summary = summarize(beats_s, 7200.0, classes=classes, episodes=episodes)
    first, second = summary.hours
    assert (first.n_beats, second.n_beats) == (3600, len(beats_s) - 3600)
    assert first.hr_mean_bpm == pytest.approx(60, abs=0.05) and second.hr_mean_bpm == pytest.approx(90, abs=0.05)
    assert first.hr_min_bpm == pytest.approx(60, abs=0.1) and second.hr_max_bpm == pytest.approx(90, abs=0.1)
    assert (first.n_v, second.n_v) == (100, 100)
    assert (first.n_s, second.n_s) == (0, int((classes == "S").sum()))
    assert (first.n_pauses, second.n_pauses) == (1, 1)
    assert first.af_minutes == pytest.approx(30) and second.af_minutes == pytest.approx(10)
    assert summary.af_burden_percent == pytest.approx(100 * 2400 / 7200)
    assert summary.v_percent == pytest.approx(100 * 200 / len(beats_s))
    assert summary.hr_trend_bpm.shape == (120,)
    np.testing.assert_allclose(summary.hr_trend_bpm[[0, 59, 61, 119]], [60, 60, 90, 90], atol=0.1)
    assert summary.counts["PAUSE"].n == 2 and summary.counts["PAUSE"].longest_s == 3
    assert list(summary.counts) == [code for code in FIRST_LOOK if code in ("PAUSE", "AFIB")]


def test_gaps_count_for_nothing(two_hours: tuple[np.ndarray, np.ndarray]) -> None:
    beats_s, _ = two_hours
    gap = np.array([[1000.0, 2200.0], [2100.0, 2800.0]])
    heard = beats_s[(beats_s < 1000) | (beats_s > 2800)]
    summary = summarize(heard, 7200.0, episodes=(rhythm("AFIB", 900, 2900),), unusable_s=gap)
    assert summary.usable_s == pytest.approx(5400)
    assert summary.hours[0].usable_share == pytest.approx(0.5)
    assert summary.hours[0].hr_mean_bpm == pytest.approx(60, abs=0.05)
    assert np.isnan(summary.hr_trend_bpm[20:45]).all() and np.isfinite(summary.hr_trend_bpm[:16]).all()
    assert summary.hours[0].af_minutes == pytest.approx(200 / 60)  # 900 to 1000 and 2800 to 2900
    assert summary.af_burden_percent == pytest.approx(100 * 200 / 5400)
    assert summary.rr.longest_ms is not None and summary.rr.longest_ms < 1100


def test_ten_seconds_are_a_small_summary() -> None:
    summary = summarize(np.arange(0.3, 10, 0.75), 10.0)
    (hour,) = summary.hours
    assert (hour.start_s, hour.end_s, hour.n_beats, hour.n_v) == (0, 10, 13, None)
    assert hour.hr_mean_bpm == pytest.approx(80) and len(summary.hr_trend_bpm) == 1
    assert summary.v_percent is None and summary.af_burden_percent == 0 and summary.strips == ()
    assert summary.rr.sdann_ms is None and summary.rr.sdnn_ms == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n_beats", [0, 1, 2])
def test_hardly_a_beat(n_beats: int) -> None:
    summary = summarize(np.arange(n_beats) * 0.8, 5.0)
    assert summary.hours[0].hr_mean_bpm is None and summary.rr.mean_ms is None
    json.dumps(summary.to_dict(), allow_nan=False)


def test_nothing_usable() -> None:
    summary = summarize(np.empty(0), 60.0, unusable_s=np.array([[0.0, 60.0]]))
    assert summary.usable_s == 0 and summary.af_burden_percent is None and summary.hours[0].usable_share == 0


def test_rr_statistics_are_those_of_the_task_force() -> None:
    rng = np.random.default_rng(0)
    rr_s = np.concatenate([rng.normal(0.8, 0.05, 500), rng.normal(1.0, 0.05, 500)])
    beats_s = np.concatenate([[0.0], np.cumsum(rr_s)])
    classes = np.full(len(beats_s), "N")
    classes[300] = "V"
    rr = summarize(beats_s, float(beats_s[-1]), classes=classes).rr
    kept = np.delete(rr_s, [299, 300])
    steps = np.delete(np.diff(rr_s), [298, 299, 300])
    assert rr.n_intervals == 998
    assert rr.mean_ms == pytest.approx(1000 * kept.mean()) and rr.sdnn_ms == pytest.approx(1000 * kept.std(ddof=1))
    assert rr.rmssd_ms == pytest.approx(1000 * np.sqrt((steps**2).mean()))
    assert rr.pnn50_percent == pytest.approx(100 * (np.abs(steps) > 0.05).mean())
    ends = np.delete(beats_s[1:], [299, 300])
    means = [1000 * kept[ends // 300 == k].mean() for k in np.unique(ends // 300)]
    assert rr.sdann_ms == pytest.approx(np.std(means, ddof=1))


def test_a_thousand_couplets_do_not_bury_one_pause() -> None:
    couplets = tuple(rhythm("VCOUPLET", t, t + 0.5) for t in np.arange(100, 80_000, 80.0))
    found = (*couplets, rhythm("PAUSE", 50_000, 50_004), rhythm("AFIB", 60_000, 70_000), rhythm("VT", 77, 79))
    strips = worth_a_look(found, 86_400.0, most=8)
    assert len(strips) == 8
    assert [s.reasons[0] for s in strips[:3]] == ["VT", "PAUSE", "AFIB"]
    assert strips[2].start_s == 59_997 and all(s.end_s - s.start_s <= LONGEST_STRIP_S for s in strips)


def test_what_lies_together_shares_a_strip() -> None:
    anomaly = Annotation(103.0, 113.0, "anomaly", "surprising", None, 9.0)
    (strip,) = worth_a_look((rhythm("VT", 100, 102), rhythm("PAUSE", 102, 105), anomaly), 1000.0)
    assert strip.reasons == ("VT", "PAUSE", "anomaly")
    assert (strip.start_s, strip.end_s) == (97, 116)


def test_the_most_surprising_comes_first() -> None:
    anomalies = tuple(Annotation(t, t + 10, "anomaly", "surprising", "II", score) for t, score in ((0, 3), (100, 8)))
    assert worth_a_look(anomalies, 1000.0)[0].start_s == 97


def test_fragments_become_windows() -> None:
    surprise = np.full((2, 50), 2.0, dtype=np.float32)
    surprise[0, 20:40] = np.nan
    surprise[1, 24:30] = 8.0
    windows = window_surprise(surprise, 0.5)
    np.testing.assert_allclose(windows, [2, (14 * 2 + 6 * 8) / 20, 2])


def test_unusable_is_what_was_not_recorded_or_is_not_ecg(toy_record: Record) -> None:
    signal = toy_record.signal.copy()
    fs = toy_record.fs
    signal[:, round(70 * fs) : round(75 * fs)] = np.nan
    signal[:, round(180 * fs) : round(240 * fs)] = 0.0  # a lead that is off
    whole, broken = (analyze(toy_record.with_(signal=x)).overview for x in (toy_record.signal, signal))
    assert whole.usable_s == whole.duration_s
    assert broken.duration_s - broken.usable_s == pytest.approx(65, abs=0.5)


def test_the_json_is_plain_and_rounded(two_hours: tuple[np.ndarray, np.ndarray]) -> None:
    beats_s, classes = two_hours
    episodes = tuple(find_beat_episodes(beats_s, classes))
    surprise = np.full(720, 1.0, dtype=np.float32)
    surprise[6:12] = np.nan
    surprise[13] = 5
    summary = summarize(beats_s, 7200.0, classes=classes, episodes=episodes, surprise_bits=surprise)
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert len(plain["hours"]) == 2 and len(plain["hr_trend_bpm"]) == 120
    assert plain["surprise_bits"]["highest"][:3] == [1.0, None, 5.0]
    assert plain["hours"][1]["n_v"] == 100


def test_two_weeks_take_no_time() -> None:
    rng = np.random.default_rng(0)
    beats_s = np.cumsum(rng.uniform(0.6, 1.0, 1_500_000))
    duration_s = float(beats_s[-1])
    starts_s = np.sort(rng.uniform(0, duration_s, 20_000))
    episodes = tuple(rhythm("VCOUPLET", s, s + 0.5) for s in starts_s.tolist())
    unusable_s = np.column_stack([starts_s[::10], starts_s[::10] + 5])
    summary = summarize(beats_s, duration_s, episodes=episodes, unusable_s=unusable_s)  # quadratic: minutes
    assert summary.counts["VCOUPLET"].n == 20_000 and len(summary.strips) == 20


def test_a_class_for_each_beat() -> None:
    with pytest.raises(ValueError, match="1 classes for 3 beats"):
        summarize(np.arange(3.0), 5.0, classes=np.array(["N"]))
