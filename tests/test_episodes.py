"""Episodes by rule: known answers, and a slow second implementation that reads the beats one by one."""

import numpy as np
import pytest

from anyecg.codes import table
from anyecg.record import Annotation
from anyecg.tasks.episodes import (
    as_finding,
    covered_until,
    find_beat_episodes,
    intact_intervals,
    merged,
    seconds_of,
)
from anyecg.tasks.long import FIRST_LOOK


def beats(classes: str, rr_s: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Return evenly spaced beats and their classes."""
    return np.arange(len(classes)) * rr_s, np.array(list(classes))


def found(classes: str, rr_s: float = 0.8) -> list[tuple[str, int, int]]:
    """Return code, first beat and last beat of each episode."""
    times_s, letters = beats(classes, rr_s)
    return [(a.code, round(a.start_s / rr_s), round(a.end_s / rr_s)) for a in find_beat_episodes(times_s, letters)]


@pytest.mark.parametrize(
    ("classes", "rr_s", "expected"),
    [
        ("NNVVNN", 0.8, [("VCOUPLET", 2, 3)]),
        ("NNVVVNN", 0.6, [("VT", 2, 4)]),  # 100 beats a minute exactly
        ("NNVVVVNN", 0.61, [("IVR", 2, 5)]),
        ("NSSSN", 0.5, [("SVTA", 1, 3)]),
        ("NSSSN", 0.7, []),  # slow runs of S have no MIT-BIH label
        ("NVNVNVN", 0.8, [("B", 1, 5)]),
        ("NVNVNNVN", 0.8, []),  # two and two are no bigeminy
        ("VNNVNNVNN", 0.8, [("T", 0, 6)]),
        ("SNSNSN", 0.8, [("AB", 0, 4)]),
        ("NVFQN", 0.8, []),
        ("", 0.8, []),
        ("V", 0.8, []),
    ],
)
def test_patterns_of_ectopy(classes: str, rr_s: float, expected: list[tuple[str, int, int]]) -> None:
    assert found(classes, rr_s) == expected


def slowly(times_s: np.ndarray, letters: np.ndarray, intact: np.ndarray) -> set[tuple[str, int, int]]:
    """Find runs and patterns by walking from beat to beat."""
    episodes, n = set(), len(times_s)
    for letter in "VS":
        i = 0
        while i < n:
            j = i
            while letters[i] == letter and j + 1 < n and letters[j + 1] == letter and intact[j]:
                j += 1
            length = j - i + 1
            fast = length > 1 and 60 * (length - 1) / (times_s[j] - times_s[i]) >= 100
            if letter == "V" and length == 2:
                episodes.add(("VCOUPLET", i, j))
            elif letter == "V" and length > 2:
                episodes.add(("VT" if fast else "IVR", i, j))
            elif letter == "S" and length > 2 and fast:
                episodes.add(("SVTA", i, j))
            i = j + 1
        for code, step in {"V": (("B", 2), ("T", 3)), "S": (("AB", 2),)}[letter]:

            def follows(i: int, letter: str = letter, step: int = step) -> bool:
                pattern = [letter] + ["other"] * (step - 1) + [letter]
                seen = [letter if c == letter else "other" for c in letters[i : i + step + 1]]
                return seen == pattern and bool(intact[i : i + step].all())

            for i in range(n):
                if letters[i] == letter and not (i >= step and follows(i - step)):
                    j = i
                    while follows(j):
                        j += step
                    if (j - i) // step >= 2:
                        episodes.add((code, i, j))
    return episodes


@pytest.mark.parametrize("seed", range(20))
def test_the_vectorised_rules_agree_with_the_slow_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("NVS"), 400, p=[0.45, 0.35, 0.2])
    times_s = np.cumsum(rng.uniform(0.4, 0.8, 400))
    starts_s = rng.uniform(0, times_s[-1], 8)
    unusable_s = np.column_stack([starts_s, starts_s + rng.uniform(0, 2, 8)])
    intact = intact_intervals(times_s, unusable_s)
    assert not intact.all()
    at = {float(t): i for i, t in enumerate(times_s)}
    episodes = find_beat_episodes(times_s, letters, unusable_s)
    quick = {(a.code, at[a.start_s], at[a.end_s]) for a in episodes if a.code not in ("PAUSE", "TACHY", "BRADY")}
    assert quick == slowly(times_s, letters, intact)
    assert [a.start_s for a in episodes] == sorted(a.start_s for a in episodes)


def test_a_pause_is_a_pause_only_where_beats_could_have_been_found() -> None:
    times_s = np.array([0, 1, 2, 4.5, 5.5, 9.0, 10.0])
    assert [(a.start_s, a.end_s) for a in find_beat_episodes(times_s)] == [(2, 4.5), (5.5, 9.0)]
    unusable_s = np.array([[6.0, 8.0]])
    assert [(a.start_s, a.end_s) for a in find_beat_episodes(times_s, unusable_s=unusable_s)] == [(2, 4.5)]


def test_slow_and_fast_must_last() -> None:
    times_s = np.cumsum(np.concatenate([np.full(60, 0.8), np.full(40, 1.3), np.full(60, 0.8), np.full(90, 0.5)]))
    episodes = [a for a in find_beat_episodes(times_s) if a.code in ("BRADY", "TACHY")]
    assert [a.code for a in episodes] == ["BRADY", "TACHY"]
    assert episodes[0].start_s == pytest.approx(times_s[59], abs=6) and episodes[1].end_s == times_s[-1]
    short = np.cumsum(np.concatenate([np.full(60, 0.8), np.full(20, 1.3), np.full(60, 0.8)]))  # 26 s
    assert not [a for a in find_beat_episodes(short) if a.code == "BRADY"]


def test_one_premature_beat_does_not_end_a_tachycardia() -> None:
    rr_s = np.full(200, 0.5)
    rr_s[100:102] = 0.3, 0.9
    assert [a.code for a in find_beat_episodes(np.cumsum(rr_s))] == ["TACHY"]


def test_stretches_merge_and_cover() -> None:
    stretches = np.array([[5, 6], [0, 2], [1, 3], [9, 9], [6, 7]])
    np.testing.assert_array_equal(merged(stretches), [[0, 3], [5, 7]])
    np.testing.assert_allclose(covered_until(stretches, np.array([-1, 0, 2.5, 4, 6, 99])), [0, 0, 2.5, 3, 4, 5])
    assert merged(None).shape == (0, 2) and covered_until(None, np.array([3.0])) == 0


def test_a_class_for_each_beat_or_none() -> None:
    with pytest.raises(ValueError, match="2 classes for 3 beats"):
        find_beat_episodes(np.arange(3.0), np.array(["N", "V"]))


def test_findings_name_what_they_are() -> None:
    times_s, letters = beats("NVVVN", 0.5)
    (episode,) = find_beat_episodes(times_s, letters)
    told = as_finding(episode, leads=("II",))
    assert (told.code, told.snomed, told.name) == ("VT", "164895002", "ventricular tachycardia")
    assert (told.start_s, told.end_s, told.score, told.present, told.leads) == (0.5, 1.5, None, True, ("II",))
    assert told.source == "rules"
    model_said = as_finding(Annotation(0, 60, "rhythm", "AFIB", score=0.9), threshold=0.3)
    assert (model_said.source, model_said.threshold, model_said.snomed) == ("rr_rhythm", 0.3, "164889003")


def test_every_code_has_a_name() -> None:
    assert set(FIRST_LOOK) - {"anomaly"} <= set(table())


def test_a_day_takes_no_time() -> None:
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.5, 1.0, 500_000))
    letters = rng.choice(list("NVS"), 500_000, p=[0.9, 0.07, 0.03])
    episodes = find_beat_episodes(times_s, letters)  # anything quadratic would take minutes
    assert len(seconds_of(episodes, "VCOUPLET")) > 1000
