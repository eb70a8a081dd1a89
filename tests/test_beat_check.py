"""What looks like no beat beside the others is left out: small waves that are not due, bursts of noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg.beat_check import FEATURES, FEWEST, ROUNDS, beats_among, candidate_features, left_standing
from anyecg.beats import candidates, find_beats
from anyecg.metrics import match_events
from anyecg.readers import read
from anyecg.record import Record
from anyecg.signals import Preparation, prepare

FS_HZ = 300.0


def bands(heights: np.ndarray, at: np.ndarray, n_leads: int = 1) -> np.ndarray:
    """Return leads of 5-30 Hz waves of some heights, with a little noise."""
    time_s = np.arange(-60, 61) / FS_HZ
    wave = np.cos(2 * np.pi * 12 * time_s) * np.exp(-((time_s / 0.03) ** 2))
    band = np.random.default_rng(0).normal(0, 0.01, at[-1] + 400)
    for height, place in zip(heights, at, strict=True):
        band[place - 60 : place + 61] += height * wave
    return np.repeat(band[None], n_leads, axis=0)


def test_features_are_what_their_names_say() -> None:
    at = 300 + 240 * np.arange(100)
    heights = np.ones(100)
    heights[50] = 0.2
    features = candidate_features(at, bands(heights, at, 2), np.ones((2, 100), dtype=bool), FS_HZ)
    of = dict(zip(FEATURES, features.T, strict=True))
    assert of["height"][50] == pytest.approx(np.log(0.2), abs=0.1) and abs(of["height"][10]) < 0.1
    assert of["height beside the one before"][50] == pytest.approx(np.log(0.2), abs=0.1)
    assert of["height beside the one after"][49] == pytest.approx(-np.log(0.2), abs=0.1)
    assert of["likeness"][10] > 0.95 and of["likeness to neighbours"][10] > 0.9
    assert of["noise"][10] < -3
    assert 0.1 < of["width"][10] < 0.5
    assert of["height in the shadow of the one before"][50] == 0  # 0.8 s from it
    near = 300 + 120 * np.arange(100)
    shadowed = candidate_features(near, bands(heights, near), np.ones((1, 100), dtype=bool), FS_HZ)
    assert shadowed[50, FEATURES.index("height in the shadow of the one before")] == pytest.approx(np.log(0.2), abs=0.1)
    assert of["seconds before"][1:].tolist() == pytest.approx([0.8] * 99)
    assert np.abs(of["interval after"]).max() < 1e-9
    assert (of["votes"] == 1).all() and (of["voters"] == 2).all()


def test_a_small_wave_long_before_it_is_due_is_no_beat() -> None:
    at = np.sort(np.append(300 + 240 * np.arange(100), 300 + 240 * 50 + 60))
    heights = np.where(np.isin(at, 300 + 240 * np.arange(100)), 1.0, 0.15)
    kept = beats_among(at, bands(heights, at), np.ones((1, 101), dtype=bool), FS_HZ)
    assert kept.tolist() == np.delete(np.arange(101), 51).tolist()


def test_a_beat_that_one_lead_alone_has_is_a_beat_if_it_looks_like_one() -> None:
    """As a premature beat does that is small in the best lead."""
    at = np.insert(300 + 240 * np.arange(100), 51, 300 + 240 * 50 + 110)  # interpolated, and small in the first lead
    voted = np.ones((2, 101), dtype=bool)
    voted[0, 51] = False
    signals = bands(np.ones(101), at, 2)
    around = slice(at[51] - 60, at[51] + 61)
    signals[0, around] *= 0.2
    assert 51 in beats_among(at, signals, voted, FS_HZ)
    signals[1, around] *= 0.2
    assert 51 not in beats_among(at, signals, voted, FS_HZ)


def test_of_candidates_too_near_to_each_other_the_likeliest_stays() -> None:
    at_s = np.array([0.0, 0.1, 0.9, 1.05, 1.15, 2.0])
    likely = np.array([0.5, 0.9, 0.9, 0.5, 0.8, 0.1])
    assert left_standing(at_s, likely, 0.4).tolist() == [1, 2, 4]  # 0.25 s from the one before that stays
    assert left_standing(at_s, np.zeros(6), 0.4).tolist() == []


def test_noise_is_not_taken_for_beats(toy_record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = toy_record.signal[:, : round(240 * toy_record.fs)]
    rng = np.random.default_rng(0)
    added = rng.normal(0, 1, clean.shape) * (np.arange(clean.shape[1]) > 120 * toy_record.fs)
    noisy = toy_record.with_(signal=(clean + 0.05 * np.ptp(clean) * added).astype(np.float32))
    want = Preparation(FS_HZ, 0.5, 75.0)
    true_s = find_beats(prepare(toy_record.with_(signal=clean), want)).r_peaks_s
    with_check = find_beats(prepare(noisy, want)).r_peaks_s
    monkeypatch.setattr("anyecg.beats.FEWEST", 1e9)
    without = find_beats(prepare(noisy, want)).r_peaks_s

    def false(found: np.ndarray) -> int:
        return len(found) - len(match_events(true_s, found, 0.15))

    assert false(without) > 20
    assert false(with_check) < 0.5 * false(without)
    assert len(match_events(true_s, with_check, 0.15)) > 0.95 * len(match_events(true_s, without, 0.15))


@pytest.mark.parametrize("seconds", [5, 10, 30])
def test_noise_is_not_taken_for_beats_in_seconds_either(
    toy_record: Record, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    want = Preparation(FS_HZ, 0.5, 75.0)
    n = round(seconds * toy_record.fs)
    rng = np.random.default_rng(0)
    n_true, checked, unchecked = 0, np.zeros(2, dtype=int), np.zeros(2, dtype=int)  # right and false ones
    for first in range(0, 4 * n, n):
        clean = toy_record.signal[:, first : first + n]
        noisy = (clean + 0.2 * np.ptp(clean) * rng.normal(0, 1, clean.shape)).astype(np.float32)
        true_s = find_beats(prepare(toy_record.with_(signal=clean), want)).r_peaks_s
        n_true += len(true_s)
        for counted, fewest in ((checked, FEWEST), (unchecked, 10**9)):
            with monkeypatch.context() as patch:
                patch.setattr("anyecg.beats.FEWEST", fewest)
                found = find_beats(prepare(toy_record.with_(signal=noisy), want)).r_peaks_s
            right = len(match_events(true_s, found, 0.15))
            counted += [right, len(found) - right]
    assert unchecked[1] > 5 and checked[1] < 0.3 * unchecked[1]
    errors = [n_true - right + false for right, false in (checked, unchecked)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("height", [0.3, 3.0])
def test_a_lead_counts_where_it_is_recorded(height: float) -> None:
    """The other half of it says nothing: neither that its beats are there nor that they are not."""
    at = 300 + 240 * np.arange(40)
    signals = bands(np.ones(40), at, 2)
    signals[0] *= height
    signals[0, : at[20] - 120] = 0
    voted = np.ones((2, 40), dtype=bool)
    voted[0, :20] = False
    assert beats_among(at, signals, voted, FS_HZ).tolist() == list(range(40))
    features = candidate_features(at, signals, voted, FS_HZ)
    alone = candidate_features(at, signals[1:], voted[1:], FS_HZ)
    assert np.array_equal(features[:20, 0], alone[:20, 0])
    assert features[:, FEATURES.index("voters")].tolist() == [1.0] * 20 + [2.0] * 20
    assert (features[:, FEATURES.index("votes")] == 1).all()


def test_a_beat_that_nothing_can_be_compared_with_stays() -> None:
    at = 300 + 240 * np.arange(20)
    signals = bands(np.ones(20), at, 2)
    signals[0, at[3] - 120 :] = 0  # three beats: too few to say what is usual
    signals[1, : at[6] - 120] = 0
    voted = np.array([np.arange(20) < 3, np.arange(20) >= 6])
    known = np.flatnonzero(voted.any(axis=0))
    kept = beats_among(at[known], signals, voted[:, known], FS_HZ)
    assert kept.tolist() == list(range(len(known)))


def test_few_candidates_are_left_as_they_are(toy_record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("anyecg.beats.beats_among", refuse)
    short = toy_record.with_(signal=toy_record.signal[:, : round(2 * toy_record.fs)])
    assert 1 < len(find_beats(prepare(short)).r_peaks_s) < FEWEST
    flat = toy_record.with_(signal=np.zeros_like(toy_record.signal))
    assert len(find_beats(prepare(flat)).r_peaks_s) == 0
    assert candidates(prepare(flat))[0].tolist() == []


@pytest.mark.data
def test_the_numbers_are_those_of_the_fit(database: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on four of the twenty-one patients: near the shipped ones, and far from nothing."""
    from anyecg.training import beat_check as fitting

    data = database("mitdb").parent
    database("nstdb")
    some = [c for name in ("100", "106", "119", "203") for c in fitting.recordings(data, name)]
    seen = [fitting.seen_of(c, [np.arange(len(part.peaks)) for part in c.parts]) for c in some]
    weights, bias = fitting.fitted_on(some, seen)
    shipped = ROUNDS[0]
    x = np.concatenate([s.features for s in seen])
    ours, theirs = x @ np.array(shipped.weights) + shipped.bias, x @ weights + bias
    assert np.corrcoef(ours, theirs)[0, 1] > 0.8
    beat, inside = (np.concatenate([getattr(s, name) for s in seen]) for name in ("beat", "counts"))
    wrong = (ours > 0) != beat
    assert wrong[inside].mean() < 0.5 * (~beat[inside]).mean()


@pytest.mark.data
def test_ventricular_beats_that_the_first_lead_hides_are_found(database: Callable[[str], Path]) -> None:
    """A training record whose premature beats are small in MLII and tall in V1."""
    from anyecg.training.marks import BEAT_CLASSES, read_beats

    record = read(database("mitdb") / "106.hea", start_s=900, end_s=1300)
    beats_s, classes = read_beats(database("mitdb") / "106")[:2]
    here = (beats_s > 901) & (beats_s < 1299)
    found = match_events(beats_s[here] - 900, find_beats(prepare(record)).r_peaks_s, 0.15)[:, 0]
    ventricular = np.flatnonzero(classes[here] == list(BEAT_CLASSES).index("V"))
    assert len(ventricular) > 30
    assert np.isin(ventricular, found).mean() > 0.97
