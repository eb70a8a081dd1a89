"""The rate of flutter waves followed over half a minute, on made waves."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

from baselines.flutter_following import episodes_s
from baselines.flutter_path import STRETCH_S, followed, joined

FS = 60.0
SECONDS = 60


def _made(rate_hz: np.ndarray, cycles: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Waves of a rate (n,), Hz, and spikes: after so many cycles each, or at random times."""
    rng = np.random.default_rng(0)
    phase = np.cumsum(rate_hz) / FS
    if cycles is None:
        at = np.cumsum(rng.uniform(0.4, 1.1, 100))
    else:
        late = rng.normal(0, 0.12, len(cycles))  # were each beat at one point of the wave, the mean beat would take it
        at = np.interp(np.cumsum(cycles) + late, phase, np.arange(len(phase)) / FS)
    beats_s = at[at < SECONDS - 1]
    wave = 0.15 * np.sin(2 * np.pi * phase) + rng.normal(0, 0.02, len(phase))
    wave[np.round(beats_s * FS).astype(int)] += 1
    return np.stack([wave, 0.8 * wave]), beats_s


def test_a_rate_that_stays_scores_high_and_one_that_wanders_low():
    n = round(SECONDS * FS)
    cycles = np.random.default_rng(1).choice([2, 3, 4, 5], 100)
    flutter = followed(*_made(np.full(n, 4.8), cycles), FS)
    t = np.arange(n) / FS
    fibrillation = followed(*_made(5 + np.sin(2 * np.pi * t / 7), None), FS)
    for name in ("path", "locked"):
        assert flutter[name].min() > 1.5 * fibrillation[name].max()


def test_beats_at_random_times_are_no_multiples_of_the_cycle():
    scores = followed(*_made(np.full(round(SECONDS * FS), 4.8), None), FS)
    assert scores["path"].min() > 0.5
    assert scores["locked"].max() < 0.5 * scores["path"].min()


def test_less_than_a_stretch_has_no_score():
    waves, beats_s = _made(np.full(round(SECONDS * FS), 4.8), None)
    assert len(followed(waves[:, : round(STRETCH_S * FS) - 1], beats_s, FS)["path"]) == 0


def test_a_strip_is_joined_from_beat_to_beat():
    beats_s = np.array([1.0, 2.0, 3.5, 4.0])
    waves, at_s = joined(np.arange(600.0)[None], beats_s, FS, 7.0) or pytest.fail("not joined")
    assert waves.shape == (1, 420)
    assert waves[0, 0] == waves[0, 180] == 60
    assert at_s.tolist() == [0, 1, 2.5, 3, 4, 5.5, 6]
    assert joined(np.zeros((1, 600)), beats_s[:3], FS, 7.0) is None


def test_stretches_that_touch_are_one_episode():
    scores = [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert episodes_s(scores, 0.5).tolist() == [[5, 40], [50, 80]]
    assert episodes_s([0.1], 0.5).shape == (0, 2)
