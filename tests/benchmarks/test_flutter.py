"""The spectral detector of atrial flutter that the row ``flutter`` measures: made waves, and what is counted."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

from flutter import (
    FLUTTER,
    METHODS,
    OTHER,
    _Windows,
    concentration,
    window_scores,
    without_mean_beat,
    without_qrs,
)
from flutter_by_beats import _count, alike_for_30_s

from anyecg.record import Annotation, Record
from anyecg.tasks.flutter import flutter_episodes
from anyecg.training.beat_series import BeatSeries

FS = 300.0


def made(beats_s: np.ndarray, atrial: np.ndarray, *, t_wave_mv: float = 0.2) -> Record:
    """Three leads of QRS complexes and T waves at the beats, on an atrial wave (n_samples,)."""
    t = np.arange(len(atrial)) / FS
    since = t[:, None] - beats_s
    beats = np.exp(-0.5 * (since / 0.012) ** 2).sum(axis=1)
    beats += t_wave_mv * np.exp(-0.5 * ((since - 0.28) / 0.05) ** 2).sum(axis=1)
    leads = np.stack([beats + atrial, 0.6 * beats - atrial, 0.4 * beats + 0.5 * atrial])
    return Record(leads + 0.005 * np.random.default_rng(0).standard_normal(leads.shape), FS, ("I", "II", "V1"))


def sawtooth(n_s: float, rate_hz: float) -> np.ndarray:
    phase = np.arange(round(n_s * FS)) / FS * rate_hz % 1
    return 0.12 * (np.where(phase < 0.7, phase / 0.7, (1 - phase) / 0.3) - 0.5)


def fibrillating(n_s: float) -> np.ndarray:
    """Noise of 4 to 9 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(round(n_s * FS)))
    hz = np.fft.rfftfreq(round(n_s * FS), 1 / FS)
    noise = np.fft.irfft(np.where((hz > 4) & (hz < 9), spectrum, 0), round(n_s * FS))
    return 0.05 * noise / noise.std()


def of_rhythms() -> dict[str, dict[str, np.ndarray]]:
    """Score forty seconds of each rhythm."""
    wave_s, still = 1 / 4.9, np.zeros(round(40 * FS))
    varying = np.cumsum(np.random.default_rng(3).choice([3, 4, 5], 60)) * wave_s
    irregular = np.cumsum(np.random.default_rng(2).uniform(0.4, 1.1, 60))
    made_of = {
        "flutter, varying": (varying[varying < 39.5], sawtooth(40, 4.9)),
        "flutter, 2:1": (np.arange(0.1, 39.5, 2 * wave_s), sawtooth(40, 4.9)),
        "sinus rhythm": (np.arange(0.1, 39.5, 0.8), still),
        "fibrillation": (irregular[irregular < 39.5], fibrillating(40)),
    }
    return {n: window_scores(made(beats, atrial, t_wave_mv=0.05), beats) for n, (beats, atrial) in made_of.items()}


def test_flutter_scores_above_what_is_not() -> None:
    found = of_rhythms()
    highest = max(found["sinus rhythm"]["peak"].max(), found["fibrillation"]["peak"].max())
    assert found["flutter, varying"]["peak"].min() > 1.5 * highest
    assert found["flutter, 2:1"]["ours"].min() > 1.2 * found["sinus rhythm"]["ours"].max()


def test_the_mean_beat_is_subtracted_unless_conduction_is_2_to_1() -> None:
    found = of_rhythms()
    np.testing.assert_array_equal(found["flutter, 2:1"]["ours"], found["flutter, 2:1"]["peak"])
    # Even where conduction varies, each beat comes at the same point of a wave: the mean beat takes the wave with it.
    assert found["flutter, varying"]["ours"].max() < 0.5 * found["flutter, varying"]["peak"].min()


def test_a_wave_in_step_with_the_beats_is_lost_with_the_mean_beat() -> None:
    """Why 2:1 conduction is judged before it is subtracted."""
    beats_s = np.arange(0.3, 9.5, 0.4)
    waves = np.tile(np.sin(2 * np.pi * 5 * np.arange(600) / 60), (2, 1))
    left = without_mean_beat(waves, beats_s, 60.0)
    inside = slice(60, 540)
    assert np.square(left[:, inside]).mean() < 0.05 * np.square(waves).mean()
    apart = np.sort(np.random.default_rng(0).uniform(0.3, 9.3, 12))
    assert np.square(without_mean_beat(waves, apart, 60.0)).mean() > 0.5 * np.square(waves).mean()


def test_qrs_complexes_are_bridged_and_no_more() -> None:
    t = np.arange(600) / 60
    slope = np.stack([t, -t])
    peaks = slope.copy()
    peaks[:, 300] += 5
    np.testing.assert_allclose(without_qrs(peaks, np.array([5.0]), 60.0), slope, atol=1e-9)
    np.testing.assert_array_equal(without_qrs(peaks, np.array([2.0]), 60.0)[:, 200:], peaks[:, 200:])


def test_concentration_takes_the_second_best_lead_and_finds_the_rate() -> None:
    t = np.arange(600) / 60
    rng = np.random.default_rng(0)
    sine, noise = np.sin(2 * np.pi * 4.6 * t), rng.standard_normal((2, 600))
    one, hz = concentration(np.stack([sine, *noise]), 60.0)
    two, _ = concentration(np.stack([sine, 0.2 * sine, *noise]), 60.0)
    assert hz == pytest.approx(4.6, abs=0.1)
    assert one < 0.3 < 0.9 < two


def test_windows_without_beats_score_lowest_and_a_short_rest_is_dropped() -> None:
    record = made(np.arange(0.1, 24, 0.8), np.zeros(round(25 * FS)))
    scores = window_scores(record, np.arange(0.1, 9.5, 0.8))
    assert set(scores) == set(METHODS.values())
    assert all(len(values) == 2 and values[1] == values.min() for values in scores.values())


def test_episodes_are_counted() -> None:
    over, under = [0.9] * 3, [0.1] * 3

    def row(patient: str, scores: list[float], marked_s: list[list[float]]) -> dict[str, object]:
        rhythm = [FLUTTER if marked_s else OTHER] * len(scores)
        about = {"database": "mitdb", "record": patient, "patient": patient, "rhythm": rhythm, "marked_s": marked_s}
        return about | dict.fromkeys(METHODS.values(), scores)

    rows = [
        row("ill", over + under + over, [[0, 40], [35, 60], [70, 75]]),  # hit; marked of 25 s: too short; too short
        row("missed", [*under, 0.9, 0.9, 0.1], [[0, 60]]),
        row("well", under + over + under, []),
        row("fine", [*under * 3, 0.9, 0.9], []),
    ]
    counted = _Windows(rows).episodes("ours", 0.5, ("mitdb",))
    assert (counted["marked"], counted["hit"], counted["n_patients"]) == (2, 1, 2)
    assert counted["a_day"] == pytest.approx(1 / (200 / 86_400))
    assert counted["minutes_a_day"] == pytest.approx(0.5 / (200 / 86_400))
    assert _Windows(rows[3:]).episodes("ours", 0.5, ("mitdb",))["a_day"] == 0


def test_what_is_told_by_beats_is_counted_by_the_mark_in_force() -> None:
    even = np.concatenate([np.arange(0, 100, 0.8), 100 + np.arange(0, 60, 0.4), 160 + np.arange(0, 100, 0.8)])

    def series(patient: str, *marks: tuple[str, float, float]) -> BeatSeries:
        told = tuple(Annotation(start_s, end_s, "rhythm", code) for code, start_s, end_s in marks)
        return BeatSeries("mitdb", patient, patient, even, np.full(len(even), "N"), told)

    counted = _count(
        [
            series("flutter", ("N", 0, 99), ("AFL", 99, 161), ("N", 161, 190), ("AFL", 190, 225), ("AFL", 225, 230)),
            series("fibrillation", ("AFIB", 0, 260)),
            series("sinus", ("N", 0, 260)),
            series("unmarked"),
        ],
        flutter_episodes,
    )
    assert {name: counted[name] for name in ("AFL", "AFIB", "SVTA", "other")} == {
        **{"AFL": 1, "AFIB": 1},
        **{"SVTA": 0, "other": 2},
    }
    assert (counted["found"], counted["marked"], counted["patients_within"]) == (1, 2, 1)
    assert counted["a_day"] == pytest.approx(2 / (4 * even[-1] / 86_400))


def test_without_jumps_exercise_is_told_too() -> None:
    rate_bpm = np.concatenate([np.linspace(90, 150, 200), np.full(300, 150), np.linspace(150, 90, 200)])
    exercise = np.cumsum(60 / rate_bpm)
    assert alike_for_30_s(exercise) and not flutter_episodes(exercise)
    assert not alike_for_30_s(np.arange(0, 300, 0.8)) and not alike_for_30_s(exercise[:5])
