"""The second level: windows of half an hour, networks over them, and patients left out in turn."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import anyecg
from anyecg.metrics import auroc
from anyecg.record import Record
from anyecg.training.datasets import PAROXYSMAL_DATABASE, Corpus, prepare_databases
from anyecg.training.paroxysmal import (
    WINDOW_S,
    Recordings,
    SecondLevel,
    Settings,
    before_episode,
    cross_validated,
    fit_second_level,
    of_patient_with_af,
    patient_folds,
    train_second_level,
    window_embeddings,
)


def made_up(n_patients: int = 8, seed: int = 0) -> tuple[Recordings, np.ndarray]:
    """Two recordings of each patient; in those of half of them, a fifth of the windows is odd. Synthetic."""
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"{'p' if k % 2 else 'n'}{k:02}" for k in range(n_patients)], 2)
    labels = of_patient_with_af(patients)
    embeddings = rng.normal(size=(2 * n_patients, 30, 6)).astype(np.float32)
    odd = (rng.random(embeddings.shape[:2]) < 0.2) & (labels == 1)[:, None]
    embeddings[odd, 0] += 5
    rr = np.zeros((*embeddings.shape[:2], 12), dtype=np.float32)
    peaks = [np.arange(0, 900, 0.8)] * len(labels)
    return Recordings(patients, patients, embeddings, rr, np.ones(odd.shape, dtype=bool), peaks), labels


def test_names_say_who_and_when() -> None:
    names = np.array(["n03", "n04", "p03", "p04"])
    assert of_patient_with_af(names).tolist() == [0, 0, 1, 1]
    assert before_episode(names).tolist() == [-1, -1, 0, 1]


@pytest.mark.parametrize("pooling", ["attention", "gru"])
def test_a_few_odd_windows_of_unseen_patients_are_found(pooling: str) -> None:
    train, labels = made_up()
    others, wanted = made_up(seed=1)
    settings = Settings(inputs="embedding", pooling=pooling, steps=100)
    scores = fit_second_level(train, labels, settings, n_seeds=2)(others)
    assert auroc(wanted == 1, scores) > 0.9
    assert ((scores > 0) & (scores < 1)).all()
    flipped = fit_second_level(train, 1 - labels, settings, n_seeds=2)(others)
    assert auroc(wanted == 1, flipped) < 0.1


def test_same_seed_same_network_and_it_is_small() -> None:
    train, labels = made_up()
    settings = Settings(inputs="both", n_hidden=16, steps=3)
    one, same, other = (train_second_level(train, labels, settings, seed) for seed in (0, 0, 1))
    assert torch.equal(one.answer.weight, same.answer.weight)
    assert not torch.equal(one.answer.weight, other.answer.weight)
    largest = SecondLevel(torch.zeros(204), torch.ones(204), "gru", 16)
    assert sum(parameter.numel() for parameter in largest.parameters()) < 100_000


@pytest.mark.parametrize("pooling", ["attention", "gru"])
def test_windows_without_a_signal_do_not_count(pooling: str) -> None:
    torch.manual_seed(0)
    network = SecondLevel(torch.zeros(6), torch.ones(6), pooling, 4).eval()
    windows, known = torch.randn(2, 10, 6), torch.ones(2, 10, dtype=torch.bool)
    known[:, 7:] = False
    torch.testing.assert_close(network(windows, known), network(windows[:, :7], known[:, :7]))


def test_attention_is_blind_to_the_order_and_the_reader_is_not() -> None:
    torch.manual_seed(0)
    windows, known = torch.randn(3, 10, 6), torch.ones(3, 10, dtype=torch.bool)
    for pooling, blind in (("attention", True), ("gru", False)):
        network = SecondLevel(torch.zeros(6), torch.ones(6), pooling, 4).eval()
        assert torch.allclose(network(windows, known), network(windows.flip(1), known), atol=1e-6) == blind


def test_patients_are_left_out_whole_and_once() -> None:
    recordings, labels = made_up()
    folds = patient_folds(recordings.patients, labels)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
    for out in folds:
        kept = np.setdiff1d(np.arange(len(labels)), out)
        assert not set(recordings.patients[out]) & set(recordings.patients[kept])
        assert set(labels[out]) == {0, 1}  # one patient of each kind

    seen: list[set[str]] = []

    def remember(some: Recordings, _: np.ndarray) -> Callable[[Recordings], np.ndarray]:
        seen.append(set(some.patients))
        return lambda others: np.array([float(patient in seen[-1]) for patient in others.patients])

    assert (cross_validated(recordings, labels, remember) == 0).all()
    assert len(seen) == len(folds)


def test_windows_are_means_over_time(tiny_checkpoint: Path) -> None:
    model = anyecg.load(str(tiny_checkpoint))
    fs_hz = model.checkpoint.preparation.fs_hz
    signal = np.random.default_rng(0).normal(0, 0.3, (2, int(fs_hz * 70))).astype(np.float32)
    signal[1, : int(fs_hz * WINDOW_S)] = np.nan
    record = Record(signal, fs_hz, ("ECG0", "ECG1"), source_fs=fs_hz)
    embeddings, valid = window_embeddings(model, record)
    per_fragment = model.embed(record).per_fragment
    each = round(WINDOW_S / model.embed(record).fragment_s)
    assert embeddings.shape == (2, 2, per_fragment.shape[-1])  # what is left over after two windows is dropped
    assert valid.tolist() == [[True, False], [True, True]]
    np.testing.assert_allclose(embeddings[1, 0], per_fragment[0, each : 2 * each].mean(axis=0), atol=1e-5)
    assert (embeddings[0, 1] == 0).all()


def test_half_hour_features_see_premature_beats(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(root / "benchmarks" / "quality"), *sys.path])
    from baselines.half_hours import half_hour_features

    rng = np.random.default_rng(0)
    rr_s = rng.normal(0.8, 0.01, 2000)
    plain = half_hour_features(np.cumsum(rr_s))
    rr_s[100:1900:100] = 0.5
    rr_s[101:1900:100] = 1.1
    ectopic = half_hour_features(np.cumsum(rr_s))
    assert plain[:4].tolist() == [0, 0, 0, 0]
    assert ectopic[0] * np.sum(rr_s[1:]) / 3600 == pytest.approx(18)  # single premature beats
    assert ectopic[1:4].tolist() == [0, 0, 0]
    assert np.isfinite(ectopic).all()
    assert np.isnan(half_hour_features(np.arange(5.0))).all()


@pytest.mark.data
def test_real_recordings_have_windows_and_no_patient_is_in_two_splits(
    database: Callable[[str], Path], root: Path, tmp_path: Path
) -> None:
    (tmp_path / PAROXYSMAL_DATABASE).symlink_to(database(PAROXYSMAL_DATABASE), target_is_directory=True)
    splits_file = root.parent / "shared" / "ecg" / "splits.csv"
    if not splits_file.is_file():
        pytest.skip("needs ../shared/ecg/splits.csv")
    model = anyecg.load("nano")
    folder = prepare_databases(tmp_path, splits_file, model.checkpoint.preparation)
    splits = [Corpus(folder, split, (PAROXYSMAL_DATABASE,)) for split in ("train", "val", "test")]
    assert [len(corpus) for corpus in splits] == [24, 8, 8]
    patients = [{entry.patient for entry in corpus.entries} for corpus in splits]
    assert [len(each) for each in patients] == [12, 4, 4]
    assert len(set.union(*patients)) == 20
    for corpus in splits:
        assert np.mean(of_patient_with_af(np.array([entry.record for entry in corpus.entries]))) == 0.5
    fs_hz = model.checkpoint.preparation.fs_hz
    record = splits[0].record(splits[0].entries[0], fs_hz)
    embeddings, valid = window_embeddings(model, record.with_(signal=record.signal[:, : int(fs_hz * 2 * WINDOW_S)]))
    assert embeddings.shape[:2] == (2, 2)
    assert valid.all()
    assert np.isfinite(embeddings).all()
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0
