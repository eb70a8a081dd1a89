"""What looks like no beat beside the others is left out: small waves that are not due, bursts of noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg import beat_check
from anyecg.beat_check import FEWEST, LEAST_S, WEIGHTS, beat_probability, candidate_features
from anyecg.beats import candidates, find_beats
from anyecg.metrics import match_events
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
    of = dict(zip(WEIGHTS, features.T, strict=True))
    assert of["height"][50] == pytest.approx(np.log(0.2), abs=0.1) and abs(of["height"][10]) < 0.1
    assert of["height beside the one before"][50] == pytest.approx(np.log(0.2), abs=0.1)
    assert of["height beside the one after"][49] == pytest.approx(-np.log(0.2), abs=0.1)
    assert of["likeness"][10] > 0.95 and of["likeness to neighbours"][10] > 0.9
    assert of["noise"][10] < -3
    assert of["seconds before"][1:].tolist() == pytest.approx([0.8] * 99)
    assert np.abs(of["interval after"]).max() < 1e-9
    assert (of["votes"] == 1).all() and (of["voters"] == 2).all()


def test_a_small_wave_long_before_it_is_due_is_no_beat() -> None:
    at = np.sort(np.append(300 + 240 * np.arange(100), 300 + 240 * 50 + 60))
    heights = np.where(np.isin(at, 300 + 240 * np.arange(100)), 1.0, 0.15)
    likely = beat_probability(at, bands(heights, at), np.ones((1, 101), dtype=bool), FS_HZ)
    assert likely[51] < 0.25 < 0.9 < np.delete(likely, 51).min()


def test_noise_is_not_taken_for_beats(toy_record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = toy_record.signal[:, : round(240 * toy_record.fs)]
    rng = np.random.default_rng(0)
    added = rng.normal(0, 1, clean.shape) * (np.arange(clean.shape[1]) > 120 * toy_record.fs)
    noisy = toy_record.with_(signal=(clean + 0.05 * np.ptp(clean) * added).astype(np.float32))
    want = Preparation(FS_HZ, 0.5, 75.0)
    true_s = find_beats(prepare(toy_record.with_(signal=clean), want)).r_peaks_s
    with_check = find_beats(prepare(noisy, want)).r_peaks_s
    monkeypatch.setattr("anyecg.beats.LEAST_S", 1e9)
    without = find_beats(prepare(noisy, want)).r_peaks_s

    def false(found: np.ndarray) -> int:
        return len(found) - len(match_events(true_s, found, 0.15))

    assert false(without) > 20
    assert false(with_check) < 0.5 * false(without)
    assert len(match_events(true_s, with_check, 0.15)) > 0.95 * len(match_events(true_s, without, 0.15))


def test_short_stretches_and_few_candidates_are_left_as_they_are(toy_record: Record, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("anyecg.beats.beat_probability", refuse)
    short = toy_record.with_(signal=toy_record.signal[:, : round((LEAST_S - 1) * toy_record.fs)])
    assert len(find_beats(prepare(short)).r_peaks_s) > FEWEST
    flat = toy_record.with_(signal=np.zeros_like(toy_record.signal))
    assert len(find_beats(prepare(flat)).r_peaks_s) == 0
    assert candidates(prepare(flat))[0].tolist() == []


@pytest.mark.data
def test_the_numbers_are_those_of_the_fit(database: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on four of the twenty-one patients: near the shipped ones, and far from nothing."""
    from anyecg.training import beat_check as fitting

    data = database("mitdb").parent
    database("nstdb")
    some = [c for name in ("100", "106", "119", "203") for c in fitting._recordings(data, name)]
    weights, bias = fitting._fitted(some)
    shipped = np.array(list(WEIGHTS.values()))
    x = np.concatenate([c.features for c in some])
    ours, theirs = x @ shipped + beat_check.BIAS, x @ weights + bias
    assert np.corrcoef(ours, theirs)[0, 1] > 0.8
    beat = np.concatenate([c.beat for c in some])
    inside = np.concatenate([c.counts for c in some])
    wrong = (ours > 0) != beat
    assert wrong[inside].mean() < 0.5 * (~beat[inside]).mean()
