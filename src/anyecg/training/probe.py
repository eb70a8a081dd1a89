"""Linear probes: what a frozen representation makes easy. Features: each lead's mean over time, leads side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import auroc, macro_auroc
from anyecg.models.encoder import Encoder
from anyecg.models.tokenizer import Tokenizer
from anyecg.tokens import Grid, to_fragments
from anyecg.training.datasets import SUPERCLASS_DATABASE, SUPERCLASSES, Corpus, Entry

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Inverse regularisation strengths tried on the validation records."""


@dataclass
class Windows:
    """12-lead windows of one block.

    ``codes`` int64 (N, 12, P, K), ``vectors`` float32 (N, 12, P, C), ``valid`` bool (N, 12, P), ``log_scale`` float32
    (N, 12), and the N ``entries``.
    """

    codes: Tensor
    vectors: Tensor
    valid: Tensor
    log_scale: Tensor
    entries: list[Entry]

    def batches(self, size: int = 32) -> Iterator[slice]:
        """Yield slices over the windows."""
        for start in range(0, len(self.entries), size):
            yield slice(start, start + size)


@torch.no_grad()
def labelled_windows(tokenizer: Tokenizer, corpus: Corpus, grid: Grid) -> Windows:
    """Tokenise the first block of every 12-lead record that has a superclass."""
    entries = [e for e in corpus.entries if e.labels and tuple(e.leads) == STANDARD_LEADS]
    if not entries:
        raise ReadError(
            f"{SUPERCLASS_DATABASE}: no labelled 12-lead records found, expected some. Restore that database."
        )
    lead_ids = standard_lead_ids(tokenizer)
    codes, vectors, valid, log_scale = [], [], [], []
    for start in range(0, len(entries), 32):
        cut = [to_fragments(corpus.record(e, grid.fs_hz), grid) for e in entries[start : start + 32]]
        samples = torch.from_numpy(np.concatenate([f.samples[:1] for f in cut]))
        recorded = torch.from_numpy(np.concatenate([f.valid[:1] for f in cut]))
        codes.append(tokenizer.codes(samples, recorded, lead_ids.expand(len(cut), -1)))
        vectors.append(tokenizer.quantizer.lookup(codes[-1]))
        valid.append(recorded)
        log_scale.append(torch.from_numpy(np.log(np.concatenate([f.scale_mv[:1] for f in cut]))))
    return Windows(torch.cat(codes), torch.cat(vectors), torch.cat(valid), torch.cat(log_scale), entries)


def standard_lead_ids(tokenizer: Tokenizer) -> Tensor:
    """Return the indices of the standard 12 leads, shape (1, 12)."""
    return torch.tensor([[tokenizer.config.lead_names.index(name) for name in STANDARD_LEADS]])


@torch.no_grad()
def layer_features(encoder: Encoder, windows: Windows, lead_ids: Tensor) -> list[np.ndarray]:
    """Return for each layer the features (N, 12 * D): nothing is hidden, amplitudes are known."""
    features: list[list[Tensor]] = [[] for _ in range(encoder.config.n_layers + 1)]
    for part in windows.batches():
        valid = windows.valid[part]
        layers = encoder(
            windows.codes[part],
            valid,
            torch.zeros_like(valid),
            lead_ids.expand(len(valid), -1),
            windows.log_scale[part],
            valid.any(dim=-1),
        )
        for kept, layer in zip(features, layers, strict=True):
            kept.append(lead_means(layer, valid))
    return [torch.cat(kept).numpy() for kept in features]


def lead_means(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean over the recorded fragments of each lead, leads side by side: (N, L, P, D) -> (N, L * D)."""
    share = valid.unsqueeze(-1).to(tokens.dtype)
    return ((tokens * share).sum(dim=2) / share.sum(dim=2).clamp_min(1)).flatten(1)


def superclass_labels(entries: list[Entry]) -> np.ndarray:
    """Return bool (N, 5): NORM, MI, STTC, CD, HYP."""
    return np.array([[name in e.labels for name in SUPERCLASSES] for e in entries])


@dataclass
class Probe:
    """A fitted probe's scores on test records, and what validation chose."""

    scores: np.ndarray
    validation: float
    strength: float


def fit_probe(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    test: np.ndarray | None = None,
) -> Probe:
    """Fit one logistic regression a class; choose the strength by validation macro AUROC.

    Parameters
    ----------
    train, validation : (features (N, F), labels bool (N, n_classes))
    test : ndarray (M, F), optional

    Returns
    -------
    Probe
        ``scores`` (M, n_classes) on the test features (on the validation features if there are none).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scaler = StandardScaler().fit(train[0])
    x, x_validation = scaler.transform(train[0]), scaler.transform(validation[0])
    x_test = x_validation if test is None else scaler.transform(test)
    best = Probe(np.zeros(0), -1.0, 0.0)
    for strength in STRENGTHS:
        with threadpool_limits(limits=1):  # products this small: a second BLAS thread made them 70 times slower here
            models = [LogisticRegression(C=strength, max_iter=300).fit(x, y) for y in train[1].T]
        guess = np.stack([m.decision_function(x_validation) for m in models], axis=1)
        reached = macro_auroc(validation[1], guess)
        if reached > best.validation:
            best = Probe(np.stack([m.decision_function(x_test) for m in models], axis=1), reached, strength)
    return best


def choose_layer(tokenizer: Tokenizer, encoder: Encoder, prepared_folder: Path, grid: Grid) -> tuple[int, list[float]]:
    """Return the layer whose probe is best on validation records, and each layer's validation macro AUROC."""
    ids = standard_lead_ids(tokenizer)
    windows = {
        split: labelled_windows(tokenizer, Corpus(prepared_folder, split, (SUPERCLASS_DATABASE,)), grid)
        for split in ("train", "val")
    }
    features = {split: layer_features(encoder, w, ids) for split, w in windows.items()}
    labels = {split: superclass_labels(w.entries) for split, w in windows.items()}
    reached = [
        fit_probe((features["train"][k], labels["train"]), (features["val"][k], labels["val"])).validation
        for k in range(encoder.config.n_layers + 1)
    ]
    return int(np.argmax(reached)), reached


def sex_labels(entries: list[Entry]) -> np.ndarray:
    """Return bool (N, 1): male. Sex is known of every record of this database."""
    return np.array([[e.sex == "male"] for e in entries])


def each_auroc(labels: np.ndarray, scores: np.ndarray) -> list[float]:
    """Return the AUROC of each class."""
    return [auroc(labels[:, k], scores[:, k]) for k in range(labels.shape[1])]
