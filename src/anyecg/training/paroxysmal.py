"""Half an hour of ECG -> windows -> one answer, such as whether a person has paroxysmal atrial fibrillation.

The second level: small networks that read the sequence of a recording's windows, each of them the mean of the frozen
model's embeddings and twelve numbers about its RR intervals. Few patients are known, so the networks are small and
held down hard, and five seeds are averaged. `benchmarks/quality/paroxysmal.py` compares them with voting.

Attention over the windows: gated attention pooling without its gate (arXiv 1802.04712, equation 8).

Shapes: N recordings, W windows, L leads, P fragments, D width, F inputs of a window, H hidden units.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyecg.beats import find_beats
from anyecg.engine import Model
from anyecg.record import Record
from anyecg.tasks.rr_features import FEATURE_NAMES, rr_features
from anyecg.training.datasets import PAROXYSMAL_DATABASE, Corpus

WINDOW_S = 30.0
SEEDS = 5
INPUTS = ("embedding", "rr", "both")
POOLINGS = ("attention", "gru")


@dataclass(frozen=True)
class Recordings:
    """Recordings as sequences of windows; all of one length, cut to the shortest.

    Parameters
    ----------
    names, patients : ndarray of str, shape (N,)
    embeddings : ndarray of float32, shape (N, W, D)
        Mean over the window's recorded fragments and over leads (their names are unknown); 0 where nothing is.
    rr : ndarray of float32, shape (N, W, 12)
        As `anyecg.tasks.rr_features`.
    known : ndarray of bool, shape (N, W)
        Something was recorded.
    r_peaks_s : list of ndarray
    """

    names: np.ndarray
    patients: np.ndarray
    embeddings: np.ndarray
    rr: np.ndarray
    known: np.ndarray
    r_peaks_s: list[np.ndarray]

    def some(self, which: np.ndarray) -> "Recordings":
        """Return some of them, by number."""
        names = ("names", "patients", "embeddings", "rr", "known")
        parts = {name: getattr(self, name)[which] for name in names}
        return replace(self, **parts, r_peaks_s=[self.r_peaks_s[i] for i in which])

    def inputs(self, kind: str) -> np.ndarray:
        """Return what a window shows, float32 (N, W, F), by one of `INPUTS`."""
        assert kind in INPUTS, kind
        parts = {"embedding": [self.embeddings], "rr": [self.rr], "both": [self.embeddings, self.rr]}[kind]
        return np.concatenate(parts, axis=-1)


def of_patient_with_af(names: np.ndarray) -> np.ndarray:
    """Return int64 (N,): 1 if the recording is of a patient with paroxysmal atrial fibrillation (p03), else 0 (n03)."""
    return np.array([name.startswith("p") for name in names], dtype=np.int64)


def before_episode(names: np.ndarray) -> np.ndarray:
    """Return int64 (N,): 1 if an episode follows at once (p04), 0 if none is near (p03), -1 if not asked (n03)."""
    return np.array([1 - int(name[1:]) % 2 if name.startswith("p") else -1 for name in names], dtype=np.int64)


def window_embeddings(model: Model, prepared: Record) -> tuple[np.ndarray, np.ndarray]:
    """Embed windows of 30 s.

    Parameters
    ----------
    model : Model
    prepared : Record
        As `Model.prepare` returns it. What is left over at its end is dropped.

    Returns
    -------
    embeddings : ndarray of float32, shape (W, L, D)
        0 where a lead was not recorded.
    valid : ndarray of bool, shape (W, L)
    """
    embedding = model.embed(prepared)
    at_once = round(WINDOW_S / embedding.fragment_s)
    n_leads, n_fragments, width = embedding.per_fragment.shape
    n_windows = n_fragments // at_once
    cut = embedding.per_fragment[:, : n_windows * at_once].reshape(n_leads, n_windows, at_once, width)
    valid = np.isfinite(cut[..., 0])  # (L, W, P)
    total = np.nansum(cut, axis=2) / np.maximum(valid.sum(axis=2), 1)[..., None]  # (L, W, D)
    return total.transpose(1, 0, 2).astype(np.float32), valid.any(axis=2).T


def load_recordings(model: Model, folder: Path, split: str, kept: Path) -> Recordings:
    """Describe the prepared recordings of a split; what was described before lies in ``kept``, a file a recording."""
    corpus, fs_hz = Corpus(folder, split, (PAROXYSMAL_DATABASE,)), model.checkpoint.preparation.fs_hz
    rows = []
    for entry in corpus.entries:
        file = kept / f"{entry.record}.npz"
        if not file.is_file():
            prepared = corpus.record(entry, fs_hz)
            embeddings, valid = window_embeddings(model, prepared)
            np.savez(file, embeddings=embeddings, valid=valid, r_peaks_s=find_beats(prepared).r_peaks_s)
        with np.load(file) as row:
            rows.append({name: row[name] for name in row.files})
    n_windows = min(len(row["valid"]) for row in rows)
    starts_s = np.arange(n_windows) * WINDOW_S
    valid = np.stack([row["valid"][:n_windows] for row in rows])[..., None]  # (N, W, L, 1)
    embeddings = np.stack([row["embeddings"][:n_windows] for row in rows])
    return Recordings(
        np.array([entry.record for entry in corpus.entries]),
        np.array([entry.patient for entry in corpus.entries]),
        ((embeddings * valid).sum(axis=2) / np.maximum(valid.sum(axis=2), 1)).astype(np.float32),
        np.stack([[rr_features(row["r_peaks_s"], s, s + WINDOW_S) for s in starts_s] for row in rows]),
        np.asarray(valid.any(axis=(2, 3))),
        [row["r_peaks_s"] for row in rows],
    )


def together(first: Recordings, second: Recordings) -> Recordings:
    """Return the recordings of both."""
    names = ("names", "patients", "embeddings", "rr", "known")
    joined = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names}
    return Recordings(**joined, r_peaks_s=[*first.r_peaks_s, *second.r_peaks_s])


class SecondLevel(nn.Module):
    """Windows (N, W, F), known (N, W) -> logit (N,).

    Parameters
    ----------
    mean, std : Tensor, shape (F,)
        Of the windows it is trained on.
    pooling : str
        ``"attention"``: a weighted mean of what single windows show, blind to their order; ``"gru"``: a recurrent
        network reads them in order, and the mean of its states answers.
    n_hidden : int
    """

    def __init__(self, mean: Tensor, std: Tensor, pooling: str, n_hidden: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        assert pooling in POOLINGS, pooling
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.hide = nn.Dropout1d(0.3)  # a number of all windows, or of none: what one window lacks the next would tell
        self.hide_pooled = nn.Dropout(0.3)
        self.first = nn.Linear(len(mean), n_hidden)
        self.reader = nn.GRU(n_hidden, n_hidden, batch_first=True) if pooling == "gru" else None
        self.attend = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.Tanh(), nn.Linear(n_hidden, 1))
        self.answer = nn.Linear(n_hidden, 1)

    def forward(self, windows: Tensor, known: Tensor) -> Tensor:
        """Answer."""
        standard = (windows - self.mean) / self.std
        hidden = F.gelu(self.first(self.hide(standard.transpose(1, 2)).transpose(1, 2)))  # (N, W, H)
        if self.reader is not None:
            hidden = self.reader(hidden * known[..., None])[0]
            weight = torch.zeros_like(hidden[..., 0])
        else:
            weight = self.attend(hidden).squeeze(-1)
        share = torch.softmax(weight.masked_fill(~known, -1e4), dim=1)  # (N, W)
        pooled = (share[..., None] * hidden).sum(dim=1)  # (N, H)
        return self.answer(self.hide_pooled(pooled)).squeeze(-1)


@dataclass(frozen=True)
class Settings:
    """How a network of the second level is made and trained.

    Steps are few and of all recordings at once, with a part of each one's windows: a recording has one answer, however
    much of it is seen.
    """

    inputs: str = "both"
    pooling: str = "attention"
    n_hidden: int = 8
    weight_decay: float = 0.1
    steps: int = 80
    learning_rate: float = 5e-3
    windows_seen: float = 0.5


def train_second_level(recordings: Recordings, labels: np.ndarray, settings: Settings, seed: int) -> SecondLevel:
    """Train one network on recordings (N) and their labels (N,), 1 or 0."""
    torch.manual_seed(seed)
    windows = torch.from_numpy(recordings.inputs(settings.inputs))
    known, wanted = torch.from_numpy(recordings.known), torch.from_numpy(labels).float()
    seen = windows[known]
    # A number that hardly varies here would be blown up where it does.
    network = SecondLevel(seen.mean(0), seen.std(0).clamp(min=1e-2), settings.pooling, settings.n_hidden)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    weights = torch.where(wanted > 0, 0.5 / wanted.mean(), 0.5 / (1 - wanted.mean()))
    n_windows = known.shape[1]
    length = max(1, round(settings.windows_seen * n_windows))
    network.train()
    for _ in range(settings.steps):
        start = int(torch.randint(n_windows - length + 1, ()))
        part = slice(start, start + length)  # a stretch, not single windows: the order stays
        logits = network(windows[:, part], known[:, part])
        loss = F.binary_cross_entropy_with_logits(logits, 0.9 * wanted + 0.05, weight=weights)  # smoothed labels
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def second_level_scores(networks: list[SecondLevel], recordings: Recordings, settings: Settings) -> np.ndarray:
    """Return the probability of each recording (N,), the mean over the networks."""
    windows, known = torch.from_numpy(recordings.inputs(settings.inputs)), torch.from_numpy(recordings.known)
    with torch.inference_mode():
        each = [torch.sigmoid(network(windows, known)) for network in networks]
    return np.asarray(torch.stack(each).mean(dim=0), dtype=np.float64)


def fit_second_level(
    recordings: Recordings, labels: np.ndarray, settings: Settings, n_seeds: int = SEEDS
) -> Callable[[Recordings], np.ndarray]:
    """Train ``n_seeds`` networks; return what gives recordings their probabilities."""
    networks = [train_second_level(recordings, labels, settings, seed) for seed in range(n_seeds)]
    return lambda others: second_level_scores(networks, others, settings)


Fit = Callable[[Recordings, np.ndarray], Callable[[Recordings], np.ndarray]]
"""From recordings and labels to what gives others their probabilities."""


def patient_folds(patients: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Return the recordings (their numbers) left out in each turn: one patient of each kind at a time.

    A patient's kind is the labels that are theirs. Where the kinds are not equally many, the last turns have fewer.
    """
    rng = np.random.default_rng(seed)
    kinds: dict[tuple[int, ...], list[str]] = {}
    for patient in np.unique(patients):
        kinds.setdefault(tuple(np.unique(labels[patients == patient])), []).append(str(patient))
    shuffled = [list(rng.permutation(members)) for _, members in sorted(kinds.items())]
    n_turns = max(map(len, shuffled))
    left_out = [[members[turn] for members in shuffled if turn < len(members)] for turn in range(n_turns)]
    return [np.flatnonzero(np.isin(patients, these)) for these in left_out]


def cross_validated(recordings: Recordings, labels: np.ndarray, fit: Fit, seed: int = 0) -> np.ndarray:
    """Return each recording's probability (N,) from a fit that did not see its patient."""
    scores = np.full(len(labels), np.nan)
    for out in patient_folds(recordings.patients, labels, seed):
        kept = np.setdiff1d(np.arange(len(labels)), out)
        scores[out] = fit(recordings.some(kept), labels[kept])(recordings.some(out))
    return scores


assert len(FEATURE_NAMES) == 12, "docstrings above say twelve"
