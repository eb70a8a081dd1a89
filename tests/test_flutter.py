"""Atrial flutter by its rate: made beats of which it is known what they are, and day-long real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg.codes import table
from anyecg.report.tables import rhythm_changes
from anyecg.tasks.episodes import as_finding
from anyecg.tasks.flutter import flutter_episodes
from anyecg.tasks.long import FIRST_LOOK
from anyecg.tasks.rhythm import find_episodes
from anyecg.training.beat_series import read_series


def beats(*stretches: tuple[float, float], jitter_s: float = 0.003, fs: float = 250.0) -> np.ndarray:
    """Return R peaks on a grid of samples: each stretch lasts so many seconds at so many beats a minute."""
    rr_s = np.concatenate([np.full(round(lasts_s * bpm / 60), 60 / bpm) for lasts_s, bpm in stretches])
    rr_s += np.random.default_rng(0).normal(0, jitter_s, len(rr_s))
    return np.round(np.cumsum(rr_s) * fs) / fs


def lengths(found: list) -> list[float]:
    return [round(a.end_s - a.start_s) for a in found]


@pytest.mark.parametrize("bpm", [134, 150, 172])
@pytest.mark.parametrize("fs", [128.0, 500.0])
def test_a_fast_even_rhythm_between_jumps_is_flutter(bpm: float, fs: float) -> None:
    (episode,) = flutter_episodes(beats((300, 80), (120, bpm), (300, 75), fs=fs))
    assert (episode.kind, episode.code, episode.score) == ("rhythm", "AFL", None)
    assert (episode.start_s, episode.end_s) == pytest.approx((300, 420), abs=4)


@pytest.mark.parametrize(
    ("why", "stretches"),
    [
        ("too short", ((300, 80), (25, 150), (300, 80))),
        ("too slow: 3:1, or the sinus node", ((300, 70), (120, 110), (300, 70))),
        ("too fast: another tachycardia", ((300, 80), (120, 200), (300, 80))),
        ("cut off on both sides, and not for long", ((300, 150),)),
    ],
)
def test_what_is_none(why: str, stretches: tuple[tuple[float, float], ...]) -> None:
    assert not flutter_episodes(beats(*stretches)), why


def test_the_sinus_node_comes_and_goes_step_by_step() -> None:
    climb = [(6.0, bpm) for bpm in np.linspace(90, 150, 30)]
    exercise = (*climb, (240, 150), *climb[::-1])
    assert not flutter_episodes(beats((300, 90), *exercise, (300, 90), jitter_s=0.004))
    assert flutter_episodes(beats((300, 90), (240, 150), jitter_s=0.004))  # begun at once, not ended yet


def test_fibrillation_as_fast_is_none() -> None:
    fast = np.random.default_rng(1).normal(0.4, 0.06, 600).clip(0.25)
    assert not flutter_episodes(np.cumsum(np.concatenate([np.full(300, 0.8), fast, np.full(300, 0.8)])))


def test_lasting_without_end_needs_ten_minutes() -> None:
    assert lengths(flutter_episodes(beats((700, 150)))) == [700]


def test_premature_beats_do_not_end_it() -> None:
    rr_s = np.full(400, 0.4)
    rr_s[20::40], rr_s[21::40] = 0.3, 0.5
    times_s = np.cumsum(np.concatenate([np.full(100, 0.8), rr_s, np.full(100, 0.8)]))
    assert lengths(flutter_episodes(times_s)) == [pytest.approx(160, abs=4)]


def test_a_ventricular_tachycardia_is_none() -> None:
    times_s = beats((300, 80), (120, 150), (300, 80))
    fast = (times_s > 301) & (times_s < 419)
    assert not flutter_episodes(times_s, np.where(fast, "V", "N"))
    assert flutter_episodes(times_s, np.where(fast, "S", "N"))


def test_a_gap_is_no_jump() -> None:
    times_s = beats((60, 150))
    both = np.concatenate([times_s, times_s[-1] + 0.4 + times_s, 2 * times_s[-1] + 0.8 + times_s])
    assert not flutter_episodes(both, unusable_s=np.array([[60.0, 60.3], [120.3, 120.9]]))
    slow = np.concatenate([times_s, times_s[-1] + beats((300, 75))])
    assert lengths(flutter_episodes(slow)) == [60]
    assert lengths(flutter_episodes(slow, unusable_s=np.array([[20.0, 20.3]]))) == [40]


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 40])
def test_few_beats_are_no_trouble(n: int) -> None:
    assert flutter_episodes(np.arange(n) * 0.4) == []


def test_it_is_among_the_episodes_the_strips_and_the_labels() -> None:
    found = find_episodes(beats((300, 80), (120, 150), (300, 75)))
    assert [a.code for a in found] == ["TACHY", "AFL"] or [a.code for a in found] == ["AFL", "TACHY"]
    assert "AFL" in FIRST_LOOK and table()["AFL"].name == "atrial flutter"
    assert [label for _, label in rhythm_changes(found)] == ["N", "AFL", "N"]
    told = {finding.code: finding for finding in map(as_finding, found)}
    assert told["AFL"].name == "possible atrial flutter" and told["AFL"].source == "rules"


@pytest.mark.data
def test_real_days(database: Callable[[str], Path]) -> None:
    """A rate of 137 for eight minutes that then halves, marked as fibrillation; and a healthy day with exercise."""
    flutter = read_series(database("ltafdb") / "119", "ltafdb", "119")
    found = flutter_episodes(flutter.beats_s, flutter.classes)
    assert max(lengths(found)) > 480
    assert set(flutter.rhythm_at(np.array([a.start_s for a in found]))) == {"AFIB"}
    healthy = read_series(database("nsrdb") / "19830", "nsrdb", "19830", unmarked="N")
    assert (60 / np.diff(healthy.beats_s) > 140).sum() > 500
    assert not flutter_episodes(healthy.beats_s)
