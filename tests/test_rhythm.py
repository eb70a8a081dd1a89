"""Atrial fibrillation from RR intervals: what the features say, that chunks do not matter, how episodes merge."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.heads import Head, open_head
from anyecg.tasks import rhythm
from anyecg.tasks.rhythm import (
    HEAD,
    REACH_BEATS,
    EpisodeRule,
    af_episodes,
    af_episodes_by,
    af_probability,
    evidence_of,
    find_episodes,
    irregularity,
    rr_features,
)


def irregular(n_beats: int, seed: int = 0) -> np.ndarray:
    """Beats as in fibrillation: a refractory time, and a random one after it."""
    return np.cumsum(0.35 + np.random.default_rng(seed).gamma(4, 0.09, n_beats))


def regular(n_beats: int, seed: int = 0) -> np.ndarray:
    """Beats of a sinus node that breathes."""
    rng = np.random.default_rng(seed)
    breath = 0.04 * np.sin(np.arange(n_beats) / 3)
    return np.cumsum(0.85 + breath + rng.normal(0, 0.01, n_beats))


@pytest.fixture(scope="module")
def shipped() -> Head:
    head = open_head(load("nano").checkpoint.folder, HEAD)
    assert head is not None, "the shipped checkpoint has no head for rhythm"
    return head


def test_features_say_how_far_an_interval_is_from_its_like() -> None:
    beats_s = np.concatenate([np.arange(100) * 0.8, 79.2 + 0.4 + np.arange(50) * 0.8])
    features = rr_features(beats_s)
    assert features.shape == (5, 150) and features.dtype == np.float32
    np.testing.assert_allclose(features[:, 0], 0)
    np.testing.assert_allclose(features[:, 50], [0, 0, 0, 1, np.log(2 * 0.03 / 0.8) + 1.5], atol=1e-6)
    np.testing.assert_allclose(features[[0, 2], 100], np.log(0.5), atol=1e-6)  # one short interval
    np.testing.assert_allclose(features[2, 101], np.log(2), atol=1e-6)


def test_an_interval_across_a_gap_is_unknown() -> None:
    beats_s = np.arange(100) * 0.8
    features = rr_features(beats_s, np.array([[40.1, 40.5]]))
    assert features[3].sum() == 98
    np.testing.assert_allclose(features[:, 51], 0)  # the beat at 40.8 s


def test_the_last_feature_is_the_entropy_around_the_beat() -> None:
    beats_s = np.concatenate([irregular(60), 50 + regular(60)])
    features, rr_s = rr_features(beats_s, np.array([[60.0, 60.1]])), np.diff(beats_s)
    gap = int(np.searchsorted(beats_s, 60.0)) - 1  # the interval that holds it
    for beat in range(120):
        of_beat = slice(beat - 6, beat + 6)
        known = beat >= 6 and beat + 6 <= 119 and not of_beat.start <= gap < of_beat.stop and rr_s[of_beat].max() <= 3
        wanted = np.clip(slow_cosen(rr_s[of_beat]) + 1.5, -2, 2) if known else 0.0
        assert features[4, beat] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("config", "n_seen"), [({}, 4), ({"n_features": 5}, 5)])
def test_older_heads_see_what_they_learned_from(config: dict[str, int], n_seen: int) -> None:
    shapes = []

    class Watched:
        def __init__(self) -> None:
            self.config = config

        def run(self, features: np.ndarray) -> list[np.ndarray]:
            shapes.append(features.shape)
            return [features[:, 0]]

    af_probability(Watched(), irregular(50))  # type: ignore[arg-type]
    assert shapes == [(1, n_seen, 50)]


@pytest.mark.parametrize("n_beats", [0, 1, 2, 3, 12, 13, 14])
def test_few_beats_have_an_answer_each(shipped: Head, n_beats: int) -> None:
    assert af_probability(shipped, np.arange(n_beats) * 0.8).shape == (n_beats,)


@pytest.mark.parametrize("chunk", [300, 997, 5000])
def test_the_chunk_size_does_not_matter(shipped: Head, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    beats_s = irregular(3000)
    whole = af_probability(shipped, beats_s)
    monkeypatch.setattr(rhythm, "CHUNK_BEATS", chunk)
    np.testing.assert_allclose(af_probability(shipped, beats_s), whole, atol=1e-5)


def test_an_answer_depends_on_the_beats_in_reach_alone(shipped: Head) -> None:
    beats_s = irregular(2000)
    whole = af_probability(shipped, beats_s)
    part = af_probability(shipped, beats_s[500:1500])
    inside = slice(REACH_BEATS, 1000 - REACH_BEATS)
    np.testing.assert_allclose(part[inside], whole[500:1500][inside], atol=1e-5)
    assert np.abs(part[:50] - whole[500:550]).max() > 1e-4  # at the edge it is another matter


def test_beats_merge_to_episodes() -> None:
    beats_s = np.arange(400) * 1.0
    probability = np.full(400, 0.1, dtype=np.float32)
    probability[50:100] = 0.9  # 49 s
    probability[105:150] = 0.8  # 6 s later: joined
    probability[200:220] = 0.9  # 19 s: too short
    probability[300:340] = 0.7
    first, second = af_episodes(beats_s, probability, 0.5, join_s=10)
    assert (first.start_s, first.end_s, first.code, first.kind) == (50, 149, "AFIB", "rhythm")
    assert first.score == pytest.approx((50 * 0.9 + 5 * 0.1 + 45 * 0.8) / 100, abs=1e-5)
    assert (second.start_s, second.end_s) == (300, 339)
    apart = [(a.start_s, a.end_s) for a in af_episodes(beats_s, probability, 0.5, join_s=0)]
    assert apart == [(50, 99), (105, 149), (300, 339)]
    assert len(af_episodes(beats_s, probability, 0.5, join_s=0, shortest_s=10)) == 4


def test_time_without_beats_ends_an_episode() -> None:
    beats_s = np.concatenate([np.arange(100), 160 + np.arange(100)]) * 1.0
    episodes = af_episodes(beats_s, np.ones(200, dtype=np.float32), 0.5, join_s=10)
    assert [(a.start_s, a.end_s) for a in episodes] == [(0, 99), (160, 259)]


def test_nothing_in_nothing_out() -> None:
    assert af_episodes(np.empty(0), np.empty(0), 0.5, 10) == []
    assert find_episodes(np.empty(0)) == ()
    assert af_episodes(np.arange(50.0), np.zeros(50), 0.5, 10) == []


def slow_cosen(rr_s: np.ndarray) -> float:
    """CoSEn of one window, pair by pair (Lake and Moorman 2011)."""
    pairs = [(i, j) for i in range(len(rr_s) - 1) for j in range(i + 1, len(rr_s) - 1)]
    of_two = [max(abs(rr_s[i] - rr_s[j]), abs(rr_s[i + 1] - rr_s[j + 1])) for i, j in pairs]
    r = max(sorted(of_two)[4], 0.03)
    longer = sum(apart <= r for apart in of_two)
    shorter = sum(abs(rr_s[i] - rr_s[j]) <= r for i, j in pairs)
    return float(-np.log(longer / shorter) + np.log(2 * r) - np.log(rr_s.mean()))


def test_irregularity_is_the_coefficient_of_sample_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    beats_s = np.concatenate([irregular(40), 40 + regular(40)])
    rr_s = np.diff(beats_s)
    values = irregularity(beats_s)
    assert values.shape == (80,) and np.isnan(values[-12:]).all()
    known = [k for k in range(68) if (rr_s[k : k + 12] <= 3).all()]
    np.testing.assert_allclose(values[known], [slow_cosen(rr_s[k : k + 12]) for k in known])
    monkeypatch.setattr(rhythm, "CHUNK_WINDOWS", 7)
    np.testing.assert_array_equal(irregularity(beats_s), values)
    assert np.nanmean(irregularity(irregular(500))) > -1 > -2 > np.nanmean(irregularity(regular(500)))


def test_irregularity_is_unknown_across_a_gap_and_where_it_is_not_wanted() -> None:
    beats_s = np.arange(60) * 0.8
    wanted = np.arange(60) < 40
    values = irregularity(beats_s, np.array([[24.1, 24.2]]), wanted)  # in the interval from beat 30 to 31
    assert np.isnan(values[19:31]).all() and np.isnan(values[40:]).all()
    assert np.isfinite(values[:19]).all() and np.isfinite(values[31:40]).all()
    assert np.isnan(irregularity(np.arange(12) * 0.8)).all()


def test_evidence_is_of_the_episode_alone() -> None:
    beats_s = np.concatenate([regular(100), 90 + irregular(100), 200 + regular(100)])
    probability = np.concatenate([np.full(100, 0.1), np.full(100, 0.9), np.full(100, 0.1)])
    (episode,) = af_episodes(beats_s, probability, 0.5, 0)
    ((log_odds, cosen),) = evidence_of([episode], beats_s, probability, irregularity(beats_s))
    assert log_odds == pytest.approx(np.log(9))
    rr_s = np.diff(beats_s[100:200])
    assert cosen == pytest.approx(np.mean([slow_cosen(rr_s[k : k + 12]) for k in range(88)]))


def test_an_episode_of_little_evidence_is_none() -> None:
    premature = 200 + np.cumsum(np.tile([0.8, 0.5, 1.1], 40))
    beats_s = np.concatenate([irregular(120), premature])
    probability = np.full(240, 0.8)
    probability[118:122] = 0.1
    rule = EpisodeRule(0.5, 0.0, 0.2, -1.0)
    both = af_episodes_by(EpisodeRule(0.5, 0.0), beats_s, probability)
    assert len(both) == 2
    assert af_episodes_by(rule, beats_s, probability) == both[:1]
    sure = np.where(np.arange(240) >= 122, 0.99999, probability)  # the network is certain enough to outweigh it
    assert len(af_episodes_by(rule, beats_s, sure)) == 2
    slow = np.arange(25) * 2.5  # unknown all of it: the network alone decides
    assert len(af_episodes_by(rule, slow, np.full(25, 0.8), np.column_stack([slow, slow + 0.1]))) == 1


def test_the_shipped_head_does_not_take_premature_beats_for_fibrillation(shipped: Head) -> None:
    rng = np.random.default_rng(3)
    rr_s = rng.normal(0.9, 0.015, 3000)
    for k in np.flatnonzero(rng.random(2999) < 0.15):  # at random, one in seven, none with a full pause
        rr_s[k], rr_s[k + 1] = rng.uniform(0.5, 0.7), rng.uniform(0.95, 1.1)
    beats_s = np.cumsum(rr_s)
    without = af_episodes_by(EpisodeRule.of(shipped)._replace(least_evidence=-np.inf), beats_s, np.full(3000, 0.5))
    assert without and not af_episodes_by(EpisodeRule.of(shipped), beats_s, np.full(3000, 0.5))
    assert not [a for a in find_episodes(beats_s, head=shipped) if a.code == "AFIB"]


def test_the_shipped_head_tells_irregular_from_regular(shipped: Head) -> None:
    threshold = shipped.labels[0].threshold
    assert (af_probability(shipped, irregular(600)) >= threshold).mean() > 0.95
    assert (af_probability(shipped, regular(600)) < threshold).mean() > 0.95


def test_the_shipped_head_finds_when_it_began_and_ended(shipped: Head) -> None:
    calm, storm = regular(600), irregular(600)
    beats_s = np.concatenate([calm, calm[-1] + storm, calm[-1] + storm[-1] + regular(600, seed=1)])
    (episode,) = (a for a in find_episodes(beats_s, head=shipped) if a.code == "AFIB")
    assert episode.start_s == pytest.approx(calm[-1], abs=20)
    assert episode.end_s == pytest.approx(calm[-1] + storm[-1], abs=20)
    assert episode.score is not None and episode.score > 0.8


def test_no_beat_is_premature_in_fibrillation(shipped: Head) -> None:
    beats_s = irregular(600) * 0.7
    classes = np.full(600, "N")
    classes[300:330] = "S"
    classes[400:430] = "V"
    without = [a.code for a in find_episodes(beats_s, classes)]
    assert "SVTA" in without and "AFIB" not in without
    codes = [a.code for a in find_episodes(beats_s, classes, head=shipped)]
    assert "SVTA" not in codes and "AFIB" in codes and "VT" in codes


def test_the_shipped_head_is_small_and_says_what_it_is(shipped: Head) -> None:
    assert Path(shipped.path).with_suffix(".onnx").stat().st_size < 500_000
    (label,) = shipped.labels
    assert (label.code, label.snomed, label.kind) == ("AFIB", "164889003", "rhythm")
    assert shipped.config["trained_on"]
