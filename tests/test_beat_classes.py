"""Beat classes: features that mean what they say, a head that runs without torch, real ectopic beats told apart."""

from collections.abc import Callable

import numpy as np
import pytest

import anyecg
from anyecg.beats import find_beats
from anyecg.engine import load
from anyecg.heads import open_head
from anyecg.metrics import match_events
from anyecg.record import Record
from anyecg.tasks.beat_classes import (
    CLASSES,
    FEWEST_BEATS,
    HEAD,
    N_SHAPE_FEATURES,
    P_ALIKE,
    beat_inputs,
    class_probabilities,
    classes_of,
    decide,
)
from anyecg.tasks.beat_rr import N_RR_FEATURES, RR_NEAR, rr_features

BEFORE, AFTER = -RR_NEAR[0], 1 - RR_NEAR[0]
FS_HZ = 300.0


def beat(width_s: float, p_wave: float, height: float) -> np.ndarray:
    """Return one made-up beat, 0.9 s about its R peak, mV."""
    time_s = np.arange(-0.4, 0.5, 1 / FS_HZ)
    qrs = height * np.exp(-((time_s / width_s) ** 2))
    return (
        qrs
        + p_wave * np.exp(-(((time_s + 0.17) / 0.025) ** 2))
        + 0.25 * np.exp(-(((time_s - 0.28) / 0.05) ** 2))
        - 0.3 * height * np.exp(-(((time_s - 2.2 * width_s) / width_s) ** 2))
    )


def made_up(n_beats: int = 60, odd: tuple[int, ...] = (20, 40), kind: str = "V") -> tuple[Record, np.ndarray]:
    """Return two leads of regular beats with some early ones, wide without a P wave (V) or narrow (S)."""
    rr_s = np.full(n_beats, 0.8)
    for k in odd:
        rr_s[k], rr_s[k + 1] = 0.5, 1.1
    at_s = np.cumsum(rr_s)
    signal = np.random.default_rng(0).normal(0, 0.005, (2, int((at_s[-1] + 1) * FS_HZ)))
    for k, time_s in enumerate(at_s):
        wave = beat(0.045, 0.0, -1.3) if k in odd and kind == "V" else beat(0.015, 0.0 if k in odd else 0.15, 1.0)
        first = round((time_s - 0.4) * FS_HZ)
        signal[:, first : first + len(wave)] += np.array([[1.0], [-0.6]]) * wave
    return Record(signal, FS_HZ, ("II", "V1"), source_fs=FS_HZ), at_s


@pytest.fixture(scope="module")
def nano_with_head():
    model = load("nano", threads=1)
    if open_head(model.checkpoint.folder, HEAD) is None:
        pytest.skip("nano has no head 'beats' yet")
    return model


def test_rr_features_do_not_depend_on_the_heart_rate_but_for_the_last() -> None:
    _, at_s = made_up()
    slow, fast = rr_features(at_s), rr_features(0.7 * at_s)
    assert slow.shape == (60, N_RR_FEATURES)
    np.testing.assert_allclose(slow[:, :-1], fast[:, :-1], atol=1e-5)
    np.testing.assert_allclose(slow[:, -1] - fast[:, -1], -np.log(0.7), atol=1e-5)


def test_an_early_beat_is_early_and_the_pause_after_it_is_long() -> None:
    _, at_s = made_up(odd=(20,))
    features = rr_features(at_s)
    assert features[20, BEFORE] == pytest.approx(np.log(0.5 / 0.8), abs=1e-5)
    assert features[20, AFTER] == pytest.approx(np.log(1.1 / 0.8), abs=1e-5)
    assert features[21, BEFORE] == features[20, AFTER]
    np.testing.assert_allclose(features[:10, BEFORE], 0, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_beats_have_features_too(n: int) -> None:
    record, at_s = made_up()
    inputs = beat_inputs(record, at_s[:n])
    assert inputs.rr.shape == (n, N_RR_FEATURES)
    assert len(inputs.shape) == n
    assert np.isfinite(inputs.rr).all()


def test_shape_features_do_not_depend_on_gain_polarity_order_of_leads_or_the_exact_mark() -> None:
    record, at_s = made_up()
    usual = beat_inputs(record, at_s).shape
    louder = beat_inputs(record.with_(signal=3 * record.signal), at_s).shape
    np.testing.assert_allclose(louder, usual, atol=0.02)
    turned = beat_inputs(record.pick(["V1", "II"]), at_s).shape
    np.testing.assert_allclose(turned, usual, atol=1e-4)
    moved = beat_inputs(record, at_s + 0.02).shape
    assert np.abs(moved - usual)[5:-5].max(axis=0).mean() < 0.02 < usual.std(axis=0).mean()


def test_wide_beats_are_unlike_the_dominant_one_and_early_narrow_ones_lack_its_p_wave() -> None:
    p_r, qrs_r = 0, 5  # the first features: correlation with the dominant P wave, with its QRS complex
    ordinary = np.setdiff1d(np.arange(60), (20, 40))
    wide = beat_inputs(*made_up(kind="V")).shape
    assert wide[[20, 40], qrs_r].max() < 0.5 < 0.98 < wide[ordinary, qrs_r].min()
    narrow = beat_inputs(*made_up(kind="S")).shape
    assert narrow[[20, 40], qrs_r].min() > 0.98
    assert narrow[[20, 40], p_r].max() < 0.7 < 0.9 < np.median(narrow[ordinary, p_r])


def test_how_alike_the_p_waves_of_half_a_minute_are_tells_whether_there_are_any() -> None:
    record, at_s = made_up(200, odd=())
    with_p = beat_inputs(record, at_s).shape[:, P_ALIKE::N_SHAPE_FEATURES]
    assert with_p.min() > 0.9
    signal = record.signal.copy()
    for time_s in at_s[at_s > at_s[100]]:
        before = slice(round((time_s - 0.26) * FS_HZ), round((time_s - 0.07) * FS_HZ))
        signal[:, before] = np.random.default_rng(round(time_s)).normal(0, 0.05, signal[:, before].shape)
    gone = beat_inputs(record.with_(signal=signal), at_s).shape[:, P_ALIKE::N_SHAPE_FEATURES]
    assert gone[:80].min() > 0.9
    assert gone[120:].max() < 0.4


def test_one_lead_is_taken_twice_and_a_lead_that_was_off_is_stood_in_for() -> None:
    record, at_s = made_up()
    alone = beat_inputs(record.pick(["II"]), at_s).shape
    n = alone.shape[1] // 2
    np.testing.assert_array_equal(alone[:, :n], alone[:, n:])
    signal = record.signal.copy()
    signal[1, : round(20 * FS_HZ)] = np.nan
    halves = beat_inputs(record.with_(signal=signal), at_s).shape
    off = at_s < 19
    np.testing.assert_array_equal(halves[off, :n], halves[off, n:])
    assert not np.array_equal(halves[~off, :n], halves[~off, n:])
    signal[:] = np.where(np.arange(signal.shape[1]) < 20 * FS_HZ, np.nan, signal)
    assert np.isnan(beat_inputs(record.with_(signal=signal), at_s).shape[off]).all()


def test_a_long_record_is_described_in_segments_and_twelve_leads_are_welcome(monkeypatch) -> None:
    record, at_s = made_up(600, odd=tuple(range(30, 590, 25)))
    whole = beat_inputs(record, at_s)
    monkeypatch.setattr("anyecg.tasks.beat_classes.SEGMENT_BEATS", 200)
    pieces = beat_inputs(record, at_s)
    np.testing.assert_array_equal(pieces.rr, whole.rr)
    assert np.median(np.abs(pieces.shape - whole.shape)) < 0.03
    many = Record(np.repeat(record.signal, 6, axis=0), FS_HZ, tuple(f"L{i}" for i in range(12)))
    assert beat_inputs(many, at_s).shape.shape == whole.shape.shape


def test_what_decides_is_added_to_log_p() -> None:
    p = np.array([[0.6, 0.3, 0.1, 0, 0], [0.9, 0.05, 0.05, 0, 0]])
    assert decide(p, {}).tolist() == [0, 0]
    assert decide(p, {"S": 1.0}).tolist() == [1, 0]
    assert decide(p, {"S": 1.0, "V": 3.5}).tolist() == [2, 2]


def test_too_few_beats_have_no_class(nano_with_head) -> None:
    record, at_s = made_up()
    result = anyecg.analyze(record.with_(signal=record.signal[:, : round((at_s[1] + 0.4) * FS_HZ)]), nano_with_head)
    assert 0 < len(result.rhythm.r_peaks_s) < FEWEST_BEATS and not result.beats
    assert len(anyecg.analyze(record, nano_with_head).beats) >= FEWEST_BEATS


def test_the_head_answers_each_beat_with_a_probability(nano_with_head) -> None:
    record, at_s = made_up()
    chosen, scores = classes_of(nano_with_head.head(HEAD), beat_inputs(record, at_s))
    assert chosen.tolist().count(CLASSES.index("N")) >= 56
    assert chosen[[20, 40]].tolist() == [CLASSES.index("V")] * 2
    head = open_head(nano_with_head.checkpoint.folder, HEAD)
    p = class_probabilities(head, beat_inputs(record, at_s))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(scores, p[np.arange(60), chosen], atol=1e-6)
    assert head.path.with_suffix(".onnx").stat().st_size < 1_000_000


@pytest.mark.data
def test_ventricular_beats_of_a_test_patient_are_found_end_to_end(database: Callable, nano_with_head) -> None:
    import wfdb

    source = wfdb.rdrecord(str(database("mitdb") / "200"), sampto=360 * 300)
    marks = wfdb.rdann(str(database("mitdb") / "200"), "atr", sampto=360 * 300)
    record = nano_with_head.prepare(Record(source.p_signal.T, source.fs, tuple(source.sig_name)))
    at_s = find_beats(record).r_peaks_s
    chosen, _ = classes_of(nano_with_head.head(HEAD), beat_inputs(record, at_s))
    ours_s = at_s[chosen == CLASSES.index("V")]
    theirs_s = np.array([at / 360 for at, s in zip(marks.sample, marks.symbol, strict=True) if s == "V"])
    both = len(match_events(theirs_s, ours_s, 0.15))
    assert len(theirs_s) > 50
    assert both / len(theirs_s) > 0.9
    assert both / len(ours_s) > 0.9
