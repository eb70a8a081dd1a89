"""The head ``beats`` is learned: made-up beats of known class; a calibration and a decision that can be checked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anyecg.heads import open_head, write_head
from anyecg.tasks.beat_classes import (
    CLASSES,
    HEAD,
    N_LEADS,
    N_SHAPE_FEATURES,
    P_ALIKE,
    BeatInputs,
    class_probabilities,
    decide,
)
from anyecg.tasks.beat_rr import N_RR_FEATURES
from anyecg.training.beat_classes import (
    calibrated,
    choose_decision,
    class_scores,
    fit_and_calibrate,
    fit_calibration,
    folds_of,
    load_beats,
    load_fibrillation,
    to_onnx,
)
from anyecg.training.beat_network import (
    FIBRILLATION,
    NORMAL,
    TREES_SHARE,
    Beats,
    BeatsNet,
    Draw,
    fit_p_wave,
    heard_with,
    probabilities,
)
from anyecg.training.beat_rr import VERDICTS, Intervals, fit_rr, load_rr
from anyecg.training.datasets import Corpus, prepare_databases


def made_up(n: int = 1200, n_records: int = 8) -> Beats:
    """Return beats whose class shows in one RR feature and one shape feature each."""
    rng = np.random.default_rng(0)
    classes = rng.choice(5, size=n, p=[0.7, 0.12, 0.12, 0.04, 0.02])
    rr = rng.normal(size=(n, N_RR_FEATURES)).astype(np.float32)
    shape = rng.normal(size=(n, N_LEADS * N_SHAPE_FEATURES)).astype(np.float32)
    rr[:, 0] += 4 * np.isin(classes, (1, 2))
    shape[:, 0] += 4 * np.isin(classes, (2, 3))
    shape[::50] = np.nan
    return Beats(rr, shape, classes, np.array([f"r{k % n_records}" for k in range(n)]), np.ones(n, dtype=bool))


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    beats = made_up()
    trees = fit_rr(Intervals(beats.rr, np.minimum(beats.classes, 3), beats.records), rounds=20)
    told = beats.told_by(trees)
    return beats, trees, told, fit_and_calibrate(told, True, lambda _: None, steps=200, n_members=1)


def test_a_head_learns_what_tells_beats_apart_and_its_scores_are_of_patients_left_out(fitted) -> None:
    *_, (_, _, scores) = fitted
    assert scores["V"]["f1"] > 0.8
    assert scores["S"]["f1"] > 0.8
    assert scores["N"]["n"] > 700


def test_the_graph_says_what_the_network_says_for_any_number_of_beats(fitted, tmp_path: Path) -> None:
    beats, trees, told, (net, decision, _) = fitted
    write_head(tmp_path, HEAD, {"kind": "beat", "labels": [], "decision": decision}, to_onnx(net, told, trees))
    head = open_head(tmp_path, HEAD)
    for n in (1, 200):
        p = class_probabilities(head, BeatInputs(beats.rr[:n], beats.shape[:n]))
        np.testing.assert_allclose(p, probabilities(net, told.of(np.arange(n))), atol=1e-5)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_two_witnesses_share_out_what_is_n_or_s_by_a_mean_of_their_log_odds() -> None:
    p = torch.tensor([[0.6, 0.1, 0.2, 0.1, 0.0], [0.6, 0.1, 0.2, 0.1, 0.0]])
    verdicts = torch.zeros(2, len(VERDICTS))
    verdicts[0, 1] = np.log(2 * 4.0)  # S four times as likely as N, in fibrillation or not
    verdicts[1, 3] = 9.0  # early in fibrillation: no S beat
    sure, doubtful = heard_with(verdicts, p).numpy()
    log_odds = TREES_SHARE * np.log(4.0) + (1 - TREES_SHARE) * np.log(0.1 / 0.6)
    assert np.log(sure[1] / sure[0]) == pytest.approx(log_odds, rel=1e-4)
    assert sure[:2].sum() == pytest.approx(0.7, abs=1e-6)
    np.testing.assert_allclose(sure[2:], [0.2, 0.1, 0.0], atol=1e-6)
    assert doubtful[1] < 0.01 < 0.69 < doubtful[0]


def test_p_waves_that_are_alike_speak_against_fibrillation_and_nothing_is_said_without_a_wave() -> None:
    rng = np.random.default_rng(0)
    shape = np.zeros((400, N_LEADS * N_SHAPE_FEATURES), dtype=np.float32)
    shape[:, P_ALIKE] = np.clip(np.where(np.arange(400) < 200, 0.3, 0.8) + rng.normal(0, 0.1, 400), -1, 1)
    names = np.where(np.arange(400) < 200, FIBRILLATION, NORMAL)
    beats = Beats(np.zeros((400, 4), dtype=np.float32), shape, np.zeros(400, dtype=int), names, np.zeros(400, bool))
    offset, slope = fit_p_wave(beats)
    assert slope < 0
    assert -offset / slope == pytest.approx(0.55, abs=0.05)
    net = BeatsNet(beats, two_witnesses=True, n_members=1)
    shape = shape[:3].copy()
    shape[:, P_ALIKE::N_SHAPE_FEATURES] = [[0.1, 0.2], [0.1, 0.9], [np.nan, np.nan]]  # one lead with P waves is enough
    many, none, unknown = net.fibrillating(torch.tensor(shape)).tolist()
    assert many > 1 and none < -1 and unknown == 0
    early = torch.zeros(3, len(VERDICTS))
    early[:, 1], early[:, 3] = 1.0, 3.0  # S; or fibrillation, three times as sure of that
    p = net(early, torch.tensor(np.nan_to_num(shape, nan=0.0) * [[1.0], [1.0], [0.0]]).float()).detach().numpy()
    s_of_n = p[:, 1] / p[:, 0]
    assert s_of_n[1] > 3 * s_of_n[0]


def test_calibration_gives_the_share_of_each_class_back() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=20_000, p=[0.9, 0.06, 0.04])
    evidence = rng.normal(size=(20_000, 3)) + 2 * np.eye(3)[truth]
    logits = 3 * 2 * evidence  # as of a network that saw classes of equal shares, and is three times too sure
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    slope, offset = fit_calibration(p, truth)
    assert slope == pytest.approx(1 / 3, rel=0.1)
    np.testing.assert_allclose(calibrated(p, slope, offset).mean(axis=0), [0.9, 0.06, 0.04], atol=0.01)


def test_the_decision_is_the_one_of_best_f1() -> None:
    rng = np.random.default_rng(1)
    classes = rng.choice(3, size=5000, p=[0.9, 0.05, 0.05])
    p = np.full((5000, 5), 1e-6)
    p[:, :3] = np.eye(3)[classes] * 0.25 + rng.dirichlet([8, 2, 2], size=5000) * 0.75
    p /= p.sum(axis=1, keepdims=True)
    decision = choose_decision(p, classes)
    assert set(decision) == {"S", "V"}

    def merit(found: np.ndarray) -> float:
        return class_scores(classes, found)["S"]["f1"] + class_scores(classes, found)["V"]["f1"]

    best = merit(decide(p, decision))
    assert best > merit(p.argmax(axis=1))

    cautious = decide(p, choose_decision(p, classes, least_v_se=0.95))
    assert class_scores(classes, cautious)["V"]["se"] >= 0.95 > class_scores(classes, decide(p, decision))["V"]["se"]
    assert merit(cautious) < best


def test_scores_count_missed_and_false_beats() -> None:
    truth, found = np.array([0, 2, 2, 2, -1]), np.array([0, 2, -1, 0, 2])
    scores = class_scores(truth, found)["V"]
    assert (scores["se"], scores["ppv"], scores["f1"]) == (1 / 3, 1 / 2, 2 / 5)


def test_patients_are_left_out_whole_and_those_rich_in_s_beats_apart() -> None:
    beats = made_up()
    folds = folds_of(beats, 4)
    assert sorted(np.concatenate(folds)) == sorted(np.unique(beats.records))
    n_s = {name: np.sum((beats.records == name) & (beats.classes == 1)) for name in np.unique(beats.records)}
    richest = sorted(n_s, key=lambda name: -n_s[name])[:4]
    assert all(np.isin(richest, fold).sum() == 1 for fold in folds)


def test_a_batch_has_its_shares_and_no_patient_outvotes_the_others() -> None:
    beats = made_up(4000, 2)
    uneven = beats.of(np.flatnonzero((beats.records == "r0") | (np.arange(4000) % 9 == 0)))
    draw = Draw(uneven, (0.5, 0.25, 0.25), 400, seed=0)
    rows = np.concatenate([draw() for _ in range(20)])
    np.testing.assert_allclose(np.bincount(uneven.classes[rows]) / len(rows), [0.5, 0.25, 0.25], atol=0.01)
    in_data, in_batches = (np.mean(uneven.records[x] == "r1") for x in (np.arange(len(uneven.classes)), rows))
    assert in_data < 0.12 < 0.2 < in_batches < 0.4


@pytest.mark.data
def test_real_records_are_loaded_by_split(root: Path, tmp_path: Path) -> None:
    data = root / "data"
    if not (data / "mitdb").is_dir() or not (data / "splits.csv").is_file():
        pytest.skip("needs data/mitdb and data/splits.csv")
    from anyecg.engine import load

    prepared = sorted(data.glob("prepared-*"))
    if not prepared:
        pytest.skip("needs the prepared databases")
    folder = prepare_databases(data, data / "splits.csv", load("nano").checkpoint.preparation, lambda _: None)
    corpus = Corpus(folder, "train", ("mitdb",))
    assert {entry.record for entry in corpus.entries}.isdisjoint({"201", "202", "102", "100"})
    corpus.entries = [entry for entry in corpus.entries if entry.record == "106"]
    beats = load_beats(corpus, data, 300.0, lambda _: None)
    assert np.bincount(beats.classes[beats.whole], minlength=5).tolist() == [1507, 0, 520, 0, 0]
    assert (~beats.whole).sum() > 2 * beats.whole.sum()
    assert len(CLASSES) == 5
    none = load_rr(tmp_path, data / "splits.csv", lambda _: None)  # no annotations there: no beats
    assert len(none.verdicts) == 0 and fit_rr(none) is None


@pytest.mark.data
def test_records_in_fibrillation_teach_n_beats_in_few_groups(root: Path, monkeypatch) -> None:
    from anyecg.engine import load

    data = root / "data"
    if not (data / "cinc2017").is_dir() or not sorted(data.glob("prepared-*")):
        pytest.skip("needs the prepared databases and data/cinc2017")
    folder = prepare_databases(data, data / "splits.csv", load("nano").checkpoint.preparation, lambda _: None)
    monkeypatch.setattr("anyecg.training.beat_classes.WEAKLY_NORMAL", ((FIBRILLATION, 6, 2), (NORMAL, 3, 1)))
    corpus = Corpus(folder, "train", ("cinc2017",))
    beats = load_fibrillation(corpus, 300.0, lambda _: None)
    assert set(beats.classes) == {0} and not beats.whole.any()
    assert set(beats.records) == {"A, part 0", "A, part 1", "N, part 0"}
    assert len(beats.classes) > 9 * 15 and np.isfinite(beats.shape).all()
