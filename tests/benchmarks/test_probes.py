"""The probes of pre-training: beats are read where they lie, layers are chosen on validation, tables say of whom."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import anyecg
from anyecg.record import Record
from anyecg.training.datasets import Entry

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

import ablations
import objectives
import probes


class OneRecord:
    """A corpus of one record of two leads, already at the model's rate."""

    def __init__(self, n_samples):
        rng = np.random.default_rng(0)
        signal = np.cumsum(rng.normal(0, 0.05, (2, n_samples)), axis=1).astype(np.float32)
        self.entry = Entry("made-up", "r", "p", "train", ["II", "V5"], n_samples, 300.0)
        self.whole = Record(signal, 300.0, ("II", "V5"), id="r", source_fs=300.0)

    def record(self, entry, fs_hz):
        """Return it, as Corpus does."""
        return self.whole


def strips_of(tiny_checkpoint, n_samples, every):
    model, corpus = anyecg.load(tiny_checkpoint, threads=1), OneRecord(n_samples)
    tokens = model.tokenize(corpus.whole.pick(("II",)))
    return probes.Strips.of_lead(model, corpus, corpus.entry, every), tokens


def test_the_first_half_minute_is_padded(tiny_checkpoint):
    strips, tokens = strips_of(tiny_checkpoint, 3000, None)  # ten seconds
    assert strips.codes.shape == (1, 1, 60, 2)
    assert strips.valid[0, 0].tolist() == [True] * 20 + [False] * 40
    assert np.array_equal(strips.codes[0, 0, :20], tokens.codes[0])
    assert strips.scale_known.tolist() == [[True]]


def test_every_second_window_lies_where_it_says(tiny_checkpoint):
    strips, tokens = strips_of(
        tiny_checkpoint, 300 * 140, 2
    )  # 0 - 30, 60 - 90 s; the last one, moved back, is left out
    assert len(strips.valid) == 2
    assert np.array_equal(strips.codes[0, 0], tokens.codes[0, :60])
    assert np.array_equal(strips.codes[1, 0], tokens.codes[0, 120:180])


def test_a_moment_has_its_window_and_fragment():
    window, fragment = probes.placed(np.array([0.0, 0.49, 0.5, 29.99, 30.0, 95.2]), 0.5, 60)
    assert window.tolist() == [0, 0, 0, 0, 1, 3]
    assert fragment.tolist() == [0, 0, 1, 59, 0, 10]


def asked_of(labels, patients, window, fragment):
    n_windows, n_fragments = 70, 4  # more windows than are encoded at once
    codes = torch.arange(n_windows * n_fragments).reshape(n_windows, 1, n_fragments, 1)
    valid = torch.ones(n_windows, 1, n_fragments, dtype=torch.bool)
    valid[:, :, -1] = False
    lead_ids, scale = torch.zeros(n_windows, 1, dtype=torch.int64), torch.zeros(n_windows, 1)
    strips = probes.Strips(codes, valid, lead_ids, scale, torch.ones(n_windows, 1, dtype=torch.bool))
    return probes.Asked(strips, labels, patients, window, fragment)


def its_codes(codes, *_rest):
    """Stand for an encoder: each layer is the codes, the second ten times."""
    return [codes.float(), 10.0 * codes.float()]


def test_a_beat_is_read_from_its_own_fragment():
    window, fragment = np.array([0, 0, 31, 32, 69]), np.array([0, 2, 1, 3, 0])
    asked = asked_of(np.zeros((5, 1)), np.zeros(5), window, fragment)
    features = asked.features(its_codes, (0, 1))
    assert features[0][:, 0].tolist() == [0, 2, 125, 131, 276]
    assert np.array_equal(features[1], 10 * features[0])


def test_a_recording_is_the_mean_of_what_was_recorded():
    asked = asked_of(np.zeros((70, 1)), np.arange(70), np.arange(70), None)
    features = asked.features(its_codes, (0,))[0]
    assert features[:, 0].tolist() == [4 * k + 1 for k in range(70)]  # 4k, 4k + 1, 4k + 2; 4k + 3 is not valid


def test_validation_chooses_the_layer_and_test_patients_judge():
    rng = np.random.default_rng(0)
    labels = {split: rng.random((n, 2)) < 0.5 for split, n in (("train", 120), ("val", 60), ("test", 60))}
    features = {s: {0: rng.normal(size=(len(y), 3)), 1: y + rng.normal(0, 0.3, y.shape)} for s, y in labels.items()}
    found = probes.judged(features, labels, np.repeat(np.arange(30), 2), ("a", "b"))
    assert found["layer"] == 1
    assert found["macro_auroc"] > 0.95
    assert found["macro_auroc"] == pytest.approx(np.mean(list(found["each"].values())), abs=1e-4)
    low, high = found["interval"]
    assert low <= found["macro_auroc"] <= high
    assert found["counted"]["n_test_patients"] == 30
    assert found["counted"]["n_test_of_each"] == dict(zip("ab", labels["test"].sum(axis=0).tolist(), strict=True))


def one_probe(auroc):
    counted = {"n_train": 9, "n_val": 8, "n_test": 7, "n_test_patients": 6, "n_test_of_each": {"N": 4, "S": 3}}
    probe = {"macro_auroc": auroc, "interval": [auroc - 0.02, auroc + 0.02], "layer": 2, "validation": auroc}
    return probe | {"each": {"N": auroc, "S": auroc - 0.1}, "counted": counted}


def test_the_tables_have_every_probe_with_its_counts_and_intervals():
    def encoder(auroc):
        return {"superclasses": one_probe(auroc), "guessed": [0.5, 0.25]}

    def others(auroc):
        return dict.fromkeys(ablations.PROBES, one_probe(auroc))

    numbers = {
        "tokenizers": {},
        "encoders": {"untrained": [encoder(0.8), encoder(0.9)], "as it is": [encoder(0.7)]},
        "probes": {"untrained": [others(0.6), others(0.64)]},
        "not_run": {"tokenizers": [], "encoders": ["full attention, seed 0", "full attention, seed 1"], "probes": []},
        "records": {"ptb-xl": {"n_records": 3, "n_patients": 2}},
        "probed": {"n_train": 5, "n_val": 4, "n_test": 3, "n_test_patients": 2, "prevalence": {"NORM": 0.5}},
        "budget": {
            "tokenizers": {"steps": 4, "n_many": 2, "n_few": 2},
            "encoders": {"steps": 4, "n_many": 2, "n_few": 2, "layers": 1},
        },
    }
    text = ablations.tables(numbers)
    assert "| untrained | 2 | 0.850 (0.800-0.900) |" in text
    assert "as it is 0.680-0.720" in text
    assert "measured on 7 of 6 test patients (N 4, S 3)" in text
    assert "| one lead, S | **beats** | beats, N | beats, S |" in text
    assert text.count("0.620 (0.600-0.640) | 0.620 (0.600-0.640) | 0.520 (0.500-0.540) |") == 3
    assert text.count("untrained 0.580-0.620") == 3
    assert "Not run for want of time: encoders: full attention, seed 0; full attention, seed 1." in text


def test_objectives_say_what_they_cost_and_what_is_missing():
    counted = {"n_train": 9, "n_val": 8, "n_test": 7, "n_test_patients": 6, "n_test_of_each": {"N": 4, "A": 3}}
    elsewhere = {
        name: {"macro_auroc": 0.6, "interval": [0.5, 0.7], "counted": counted} for name in objectives.ELSEWHERE
    }
    run = {"macro_auroc": 0.7, "interval": [0.6, 0.8], "validation": 0.72, "elsewhere": elsewhere}
    probed = {"n_train": 5, "n_val": 4, "n_test": 3, "n_test_patients": 2, "prevalence": {"NORM": 0.5}}
    numbers = {
        "objectives": {"MAE": {"all sources": [run, run | {"macro_auroc": 0.8}]}},
        "missing": ["BYOL, all sources, seed 1"],
        "probed": probed,
        "budget": objectives.BUDGET,
    }
    text = objectives.tables(numbers)
    assert f"{objectives.BUDGET['steps']} steps of 16" in text
    assert "| MAE | 0.750 (0.600-0.800; 0.600-0.800) |  | 0.720 |" in text
    assert "| MAE | 0.600 (0.500-0.700; 0.500-0.700) | 0.600 (0.500-0.700; 0.500-0.700) |" in text
    assert "fitted on 9, chosen on 8, measured on 7 of 6 test patients (N 4, A 3)" in text
    assert "Not run for want of time: BYOL, all sources, seed 1." in text


def test_no_objective_is_pretrained_on_what_is_called_left_out():
    seen = {database for sources in objectives.SOURCES.values() for database in sources}
    assert seen.isdisjoint(objectives.ELSEWHERE.values())
    assert set(objectives.ELSEWHERE) <= set(probes.CLASSES)


def test_each_objective_runs_on_both_sources_and_all_sources_twice():
    assert {seed for seed, _ in objectives.RUNS} == {0, 1}
    assert [sources for seed, sources in objectives.RUNS if seed == 0] == list(objectives.SOURCES)


def test_a_stopped_run_shows_all_that_was_done(monkeypatch, tmp_path):
    def maker(name, seed, _bench):
        if (name, seed) == (ablations.AS_IT_IS, 0):
            raise KeyboardInterrupt
        return {"seed": seed}

    class NoBench:
        """Has nothing to measure with."""

        def __init__(self, *_):
            self.test = self

        def counts(self):
            """Return none."""
            return {}

    monkeypatch.setattr(ablations, "Bench", NoBench)
    monkeypatch.setattr(ablations, "MAKERS", dict.fromkeys(ablations.MAKERS, maker))
    (tmp_path / "probed.json").write_text("{}")
    earlier = ablations.kept_at("probes", "no latent loss", 1, tmp_path)  # done in an earlier, longer run
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    said = []
    numbers = ablations.run(None, tmp_path, tmp_path, said.append)
    assert numbers["probes"] == {"no latent loss": [{"seed": 1}]}
    assert "as it is, seed 0" in numbers["not_run"]["tokenizers"]
    assert "no latent loss, seed 1" in numbers["not_run"]["encoders"]
    assert "no latent loss, seed 0" in numbers["not_run"]["probes"]
    assert "no latent loss, seed 1" not in numbers["not_run"]["probes"]
    assert said.count("stopped: the table says what is missing") == 1
