"""Measuring restoration: fields of one dipole are what regression restores exactly."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.leads import STANDARD_LEADS
from anyecg.training.datasets import SUPERCLASS_DATABASE, Corpus, Entry
from anyecg.training.restoration import GIVEN, evaluate_restoration, fit_regression, twelve_lead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a prepared corpus: dipoles seen by twelve leads; one record is noisy, one has a gap."""
    rng = np.random.default_rng(0)
    moments = np.cumsum(rng.normal(0, 0.05, (9, 3, 1500)), axis=2)
    moments -= moments.mean(axis=2, keepdims=True)
    limb = np.array([[1, 0, 0], [0, 1, 0], [-1, 1, 0], [-0.5, -0.5, 0], [1, -0.5, 0], [-0.5, 1, 0]])
    signals = (np.concatenate([limb, rng.normal(0, 1, (6, 3))]) @ moments).astype(np.float16)
    signals[8, 7, 100:200] = np.nan
    entries = [
        Entry(
            *(SUPERCLASS_DATABASE, f"r{i}", f"p{i // 2}", "train" if i < 4 else "test", list(STANDARD_LEADS)),
            *(1500, 500.0, i * signals[0].size),
            clean=i != 7,
        )
        for i in range(9)
    ]
    made = tmp_path_factory.mktemp("prepared")
    signals.tofile(made / f"{SUPERCLASS_DATABASE}.f16")
    (made / f"{SUPERCLASS_DATABASE}.json").write_text(json.dumps([asdict(e) for e in entries]))
    return made


def test_only_clean_whole_records_count(folder):
    chosen = twelve_lead(Corpus(folder, "test", (SUPERCLASS_DATABASE,)), 300.0)
    assert [entry.record for entry, _ in chosen] == ["r4", "r5", "r6"]


def test_regression_finds_the_field_of_a_dipole(folder):
    train = [record for _, record in twelve_lead(Corpus(folder, "train", (SUPERCLASS_DATABASE,)), 300.0)]
    weights = fit_regression(train, ("I", "II", "V2"), ("V5",))
    record = train[0]
    np.testing.assert_allclose(weights @ record.pick(("I", "II", "V2")).signal, record.pick(("V5",)).signal, atol=0.02)


def test_what_is_measured(folder, tiny_checkpoint):
    found = evaluate_restoration(load(tiny_checkpoint, threads=1), folder, folder, lambda _line: None)
    assert (found["n_records"], found["n_patients"]) == (3, 2)
    assert set(found["given"]) == set(GIVEN)
    three = found["given"]["I, II, V2"]
    assert three["n"] == 3 * 5
    assert three["linear_r"]["mean"] > 0.99
    assert three["linear_rmse"] < 0.05
    assert found["given"]["I"]["linear_r"]["mean"] < 0.95, "one lead does not tell a dipole"
    assert three["r"]["mean"] < three["linear_r"]["mean"], "the tiny model is untrained"
    assert three["r"]["interval"][0] <= three["r"]["mean"] <= three["r"]["interval"][1]
    assert 0 <= three["inside"] <= 1
