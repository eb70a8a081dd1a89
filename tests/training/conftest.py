"""A small made-up database and a recipe that trains on it in seconds. Synthetic: for mechanics, never for claims."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg.leads import STANDARD_LEADS
from anyecg.tokens import Grid
from anyecg.training.batches import Augmentation, BatchMaker
from anyecg.training.datasets import Entry
from anyecg.training.recipe import Recipe


def made_up_ecg(n_leads: int, n_samples: int, seed: int) -> np.ndarray:
    """Return spikes and bumps at 300 Hz, mV, shape (n_leads, n_samples)."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / 300
    phase = (time_s - rng.uniform()) % rng.uniform(0.6, 1.1)
    beat = np.exp(-(((phase - 0.2) / 0.012) ** 2)) + 0.25 * np.exp(-(((phase - 0.45) / 0.05) ** 2))
    return (rng.uniform(0.3, 1.5, (n_leads, 1)) * beat + rng.normal(0, 0.01, (n_leads, n_samples))).astype(np.float32)


@pytest.fixture(scope="session")
def make_ecg() -> Callable[[int, int, int], np.ndarray]:
    return made_up_ecg


class MadeUpCorpus:
    """Stands in for a Corpus: a dozen 12-lead and a dozen single-lead records."""

    def __init__(self) -> None:
        self.entries, self._signals = [], {}
        for i in range(24):
            leads = list(STANDARD_LEADS) if i < 12 else ["ECG"]
            n_samples = 3000 if i < 12 else 9000
            entry = Entry("made-up", f"r{i}", f"p{i}", "train", leads, n_samples, 500.0, age=40.0 + i, sex="male")
            self.entries.append(entry)
            self._signals[entry.record] = made_up_ecg(len(leads), n_samples, i)

    def signal(self, entry: Entry, start: int = 0, end: int | None = None) -> np.ndarray:
        """Return a cut, as Corpus does."""
        return self._signals[entry.record][:, start:end].copy()


@pytest.fixture
def corpus() -> MadeUpCorpus:
    return MadeUpCorpus()


@pytest.fixture
def noise() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=(2, 20_000)).astype(np.float32) for name in ("bw", "em", "ma")}


@pytest.fixture
def batches(corpus, noise, recipe) -> BatchMaker:
    return BatchMaker(corpus, noise, Grid(), recipe.sizes.tokenizer.lead_names, Augmentation())


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    tiny = {
        "tokenizer": {"width": 32, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "codebook_size": 32}
        | {"code_dim": 8, "n_levels": 2},
        "encoder": {"width": 16, "n_layers": 1, "n_heads": 2},
    }
    stage = {"steps": 8, "n_many": 2, "n_few": 2, "warmup_steps": 2, "log_every": 4}
    return Recipe(name="tiny", model=tiny, out=tmp_path, threads=1, tokenizer=stage, pretrain=stage)
