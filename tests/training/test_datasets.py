"""Real databases: their traps are handled, their splits kept, and the training verbs run on them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import CheckpointError, ReadError
from anyecg.signals import Preparation
from anyecg.training.datasets import Corpus, load_noise, prepare_databases, read_splits
from anyecg.training.pretrain import pretrain
from anyecg.training.recipe import load_recipe
from anyecg.training.train_tokenizer import train_tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "ecg"
needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(not (SHARED / "unpack.py").exists(), reason="needs ../shared/ecg"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small databases, restored."""
    folder = tmp_path_factory.mktemp("data")
    command = [sys.executable, SHARED / "unpack.py", "--only", "ludb", "nstdb", "--archives", SHARED, folder]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    (folder / "splits.csv").write_bytes((SHARED / "splits.csv").read_bytes())
    return folder


@pytest.fixture(scope="module")
def prepared(data):
    return prepare_databases(data, data / "splits.csv", Preparation(), progress=lambda line: None)


class TestReal:
    pytestmark = needs_data

    def test_the_splits_are_by_patient(self):
        splits = read_splits(SHARED / "splits.csv")
        for records in splits.values():
            of_patient: dict[str, set[str]] = {}
            for patient, split in records.values():
                if split != "withdrawn":
                    of_patient.setdefault(patient, set()).add(split)
            assert all(len(kinds) == 1 for kinds in of_patient.values())
        assert splits["mitdb"]["201"][1] == "withdrawn"  # its patient is record 202, too
        assert splits["mitdb"]["202"][1] == "test"
        assert splits["mitdb"]["102"][1] == "paced"

    def test_amplitudes_are_mv_although_the_headers_lie(self, prepared):
        corpus = Corpus(prepared, "train")
        heights = [np.ptp(corpus.signal(entry)[1]) for entry in corpus.entries[:20]]
        assert 0.3 < np.median(heights) < 4  # the header scales every lead to 1 mV from end to end
        assert np.std(heights) > 0.05

    def test_splits_do_not_share_records(self, prepared):
        names = {split: {e.patient for e in Corpus(prepared, split).entries} for split in ("train", "val", "test")}
        assert {split: len(n) for split, n in names.items()} == {"train": 107, "val": 23, "test": 20}
        assert not names["train"] & names["test"]

    def test_a_second_run_prepares_nothing(self, data, prepared):
        before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
        assert prepare_databases(data, data / "splits.csv", Preparation()) == prepared
        assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before

    def test_each_split_has_its_own_stretch_of_noise(self, data):
        noise = {split: load_noise(data, split, Preparation())["em"] for split in ("train", "val", "test")}
        shares = np.array([noise[s].shape[1] for s in noise]) / sum(n.shape[1] for n in noise.values())
        np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=1e-3)
        assert not np.array_equal(noise["val"][:, :1000], noise["train"][:, :1000])

    def test_both_stages_train_on_them(self, data, root, tmp_path):
        overrides = [
            *(f"data.folder='{data}'", f"data.splits='{data / 'splits.csv'}'", f"out='{tmp_path}'", "threads=1"),
            *("tokenizer.steps=3", "tokenizer.n_many=2", "tokenizer.n_few=0", "tokenizer.log_every=1"),
            *("pretrain.steps=3", "pretrain.n_many=2", "pretrain.n_few=0", "pretrain.log_every=1"),
            "model={tokenizer={width=16, n_heads=2, encoder_layers=1, decoder_layers=1, codebook_size=32}, "
            "encoder={width=16, n_layers=1, n_heads=2}}",
        ]
        recipe = load_recipe(root / "recipes" / "nano_cpu.toml", overrides)
        with pytest.raises(CheckpointError, match="train-tokenizer"):
            pretrain(recipe)
        for stage in (train_tokenizer, pretrain):
            folder = stage(recipe)
            steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
            assert steps == [1, 2, 3]


def test_missing_data_is_one_line(tmp_path):
    with pytest.raises(ReadError, match=r"splits\.csv beside"):
        prepare_databases(tmp_path, tmp_path / "splits.csv", Preparation())
    (tmp_path / "splits.csv").write_text("database,record,patient_id,split,strat_fold\n")
    with pytest.raises(ReadError, match="Restore the databases"):
        prepare_databases(tmp_path, tmp_path / "splits.csv", Preparation())
