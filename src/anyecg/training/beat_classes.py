"""Teach the head ``beats``: which AAMI class each beat is of, between patients.

    B batch, n beats, R RR features, F shape features, C = 5 classes

Two steps. A small network first learns from RR intervals alone, on day-long annotations that come without a signal
(more patients than the records with signal have by far); what it says is then a feature among those of the wave, for a
second, small network. Everything is chosen by leaving patients of split ``train`` out: calibration, decision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from anyecg.heads import write_head
from anyecg.models.export import quietly_exported
from anyecg.record import Record
from anyecg.tasks.beat_classes import (
    CLASSES,
    HEAD,
    N_LEADS,
    N_RR_FEATURES,
    SHAPE_GROUPS,
    BeatInputs,
    beat_inputs,
    decide,
    rr_features,
)
from anyecg.training.datasets import BEATS_DATABASE, RR_DATABASES, Corpus, read_splits
from anyecg.training.marks import read_beats

CUT_BEATS = 12
"""Records are also shown in cuts of so many beats, as a ten-second recording has: its dominant beat is less certain."""

CUTS = 20
"""Cuts of each record."""

RR_CUTS, RR_CUT_BEATS = 3, 5000
"""Of a day of annotations: this many stretches of this many beats. Neighbouring hours of one heart say little new."""

RR_CLASSES = 3
"""N, S and V: the others are too rare, or not told, in the day-long annotations."""

RR_SHARE = (0.6, 0.25, 0.15)
SHARE = (0.6, 0.17, 0.17, 0.05, 0.01)
"""Of a batch, by class. Within a class a patient counts by the root of its beats, so that one does not outvote all."""

RR_STEPS, STEPS = 1500, 900
BATCH, RR_BATCH = 256, 512
LEARNING_RATE = 3e-3
MEMBERS = 3
"""Networks whose probabilities are averaged."""

HIDDEN = 0.25
N_GROUPS = 7
"""Share of the groups of features hidden in training, and how many groups there are; see `feature_groups`."""

FOLDS = 7
"""Groups of patients left out in turn."""


@dataclass(frozen=True, eq=False)
class Beats:
    """Beats to learn from, or to be measured on.

    Parameters
    ----------
    rr, shape : ndarray of float32, shape (n, R) and (n, F)
        As in `anyecg.tasks.beat_classes.BeatInputs`.
    classes : ndarray of int, shape (n,)
        Counted in `anyecg.tasks.beat_classes.CLASSES`.
    records : ndarray of str, shape (n,)
        One record is one patient here.
    whole : ndarray of bool, shape (n,)
        The beat as the whole record with all its leads shows it; False for cuts and single leads.
    """

    rr: np.ndarray
    shape: np.ndarray
    classes: np.ndarray
    records: np.ndarray
    whole: np.ndarray

    def of(self, rows: np.ndarray) -> "Beats":
        """Return some rows."""
        return Beats(self.rr[rows], self.shape[rows], self.classes[rows], self.records[rows], self.whole[rows])


def load_beats(corpus: Corpus, data: Path, fs_hz: float, progress: Callable[[str], None], varied: bool = True) -> Beats:
    """Describe every marked beat of a corpus.

    Parameters
    ----------
    data : Path
        The restored databases: the marks are there.
    varied : bool
        Besides the whole record: each lead alone, and cuts of `CUT_BEATS` beats of all leads or one.
    """
    parts: list[tuple[BeatInputs, np.ndarray, str, bool]] = []
    for number, entry in enumerate(corpus.entries):
        progress(f"beats: record {number + 1} of {len(corpus)}")
        record = corpus.record(entry, fs_hz)
        at_s, classes = read_beats(data / entry.database / entry.record)
        parts.append((beat_inputs(record, at_s), classes, entry.record, True))
        if varied:
            parts += [(*part, entry.record, False) for part in _variants(record, at_s, classes)]
    return Beats(
        np.concatenate([inputs.rr for inputs, *_ in parts]),
        np.concatenate([inputs.shape for inputs, *_ in parts]),
        np.concatenate([classes for _, classes, *_ in parts]),
        np.concatenate([np.full(len(classes), name) for _, classes, name, _ in parts]),
        np.concatenate([np.full(len(classes), whole) for _, classes, _, whole in parts]),
    )


def _variants(record: Record, at_s: np.ndarray, classes: np.ndarray) -> list[tuple[BeatInputs, np.ndarray]]:
    """Return the record as single leads, and in short cuts of all leads and of one."""
    lone = [record.pick([lead]) for lead in record.leads]
    found = [(beat_inputs(alone, at_s), classes) for alone in lone]
    for number, first in enumerate(np.linspace(0, max(len(at_s) - CUT_BEATS, 0), CUTS).astype(int)):
        chosen = slice(first, first + CUT_BEATS)
        shown = [record, *lone][number % (1 + len(lone))]
        found.append((beat_inputs(shown, at_s[chosen]), classes[chosen]))
    return found


def load_rr(data: Path, splits: Path, progress: Callable[[str], None]) -> Beats:
    """Describe beats of the day-long annotations of split ``train`` by their RR intervals; their ``shape`` is empty."""
    rr, classes, names = [], [], []
    for database in RR_DATABASES:
        for record, (_, split) in sorted(read_splits(splits).get(database, {}).items()):
            if split != "train" or not (data / database / f"{record}.atr").is_file():
                continue
            progress(f"RR intervals: {database} {record}")
            at_s, found = read_beats(data / database / record)
            for cut in range(RR_CUTS):
                first = max(0, int((cut + 0.5) / RR_CUTS * len(at_s)) - RR_CUT_BEATS // 2)
                chosen = slice(first, first + RR_CUT_BEATS)
                told = found[chosen] < RR_CLASSES
                rr.append(rr_features(at_s[chosen])[told])
                classes.append(found[chosen][told])
                names.append(np.full(told.sum(), f"{database} {record}"))
    n = sum(map(len, rr))
    return Beats(
        rr=np.concatenate([np.empty((0, N_RR_FEATURES), dtype=np.float32), *rr]),
        shape=np.empty((n, 0), dtype=np.float32),
        classes=np.concatenate([np.empty(0, dtype=np.int64), *classes]),
        records=np.concatenate([np.empty(0, dtype=str), *names]),
        whole=np.ones(n, dtype=bool),
    )


# -- networks ----------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Standardise features, missing ones becoming the mean: (B, F) -> (B, F)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) + 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return values of about -5 to 5."""
        x = (x - self.mean) / self.std
        return torch.where(torch.isnan(x), torch.zeros_like(x), x).clamp(-5, 5)


class RRNet(nn.Module):
    """RR features (B, R) -> how likely N, S and V are, as far as RR intervals tell: logits (B, 3), of mean 0."""

    def __init__(self, rr: np.ndarray) -> None:
        super().__init__()
        self.scaled = Scaled(rr.mean(axis=0), rr.std(axis=0))
        self.layers = nn.Sequential(
            *(nn.Linear(rr.shape[1], 64), nn.GELU(), nn.Linear(64, 32), nn.GELU()), nn.Linear(32, RR_CLASSES)
        )

    def forward(self, rr: Tensor) -> Tensor:
        """Return logits."""
        logits = self.layers(self.scaled(rr))
        return logits - logits.mean(dim=1, keepdim=True)


class Member(nn.Module):
    """One network of the head: features, standardised, -> logits (B, C).

    In training each group of features is hidden from a beat with `HIDDEN` probability, so that none is trusted alone:
    with patients left out this is worth 0.09 of S beats' F1. ``groups`` (F,) counts the group of each feature.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, width: int = 48) -> None:
        super().__init__()
        n_features = len(groups)
        self.register_buffer("groups", groups)
        self.layers = nn.Sequential(
            *(nn.Linear(n_features, width), nn.GELU(), nn.Dropout(0.3)),
            *(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, len(CLASSES))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if self.training:
            x = x * (torch.rand(len(x), N_GROUPS) > HIDDEN).float()[:, self.groups]
        return self.layers(x)


def feature_groups(n_rr: int, n_rr_net: int, n_shape: int) -> Tensor:
    """Return the group of each feature, int64 (F,): RR, the network of RR, then P, QRS, T, neighbours; 6 = others."""
    of_shape = np.tile(SHAPE_GROUPS, N_LEADS) + 2
    others = np.full(max(0, n_shape - len(of_shape)), N_GROUPS - 1)
    return torch.tensor(
        np.concatenate([np.zeros(n_rr), np.ones(n_rr_net), of_shape[:n_shape], others]).astype(np.int64)
    )


class BeatsNet(nn.Module):
    """The head: RR features (n, R) and shape features (n, F) -> probabilities (n, C).

    ``slope`` and ``offset`` (C,) undo the shares of the classes in training: p' ~ exp(slope log p + offset).
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, rr_net: RRNet | None, beats: Beats, n_members: int = MEMBERS) -> None:
        super().__init__()
        self.rr_net = rr_net
        self.scaled = Scaled(np.zeros(1), np.ones(1))
        with torch.no_grad():
            x = self.features(torch.tensor(beats.rr), torch.tensor(beats.shape)).numpy()
        self.scaled = Scaled(np.nanmean(x, axis=0), np.nanstd(x, axis=0))
        groups = feature_groups(beats.rr.shape[1], 0 if rr_net is None else RR_CLASSES, beats.shape.shape[1])
        self.members = nn.ModuleList(Member(groups) for _ in range(n_members))
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("offset", torch.zeros(len(CLASSES)))

    def features(self, rr: Tensor, shape: Tensor) -> Tensor:
        """Return all features, standardised, (n, F)."""
        parts = [rr, shape] if self.rr_net is None else [rr, self.rr_net(rr), shape]
        x = torch.cat(parts, dim=1)
        return self.scaled(x) if self.scaled.mean.shape[0] > 1 else x

    def forward(self, rr: Tensor, shape: Tensor) -> Tensor:
        """Return calibrated probabilities."""
        x = self.features(rr, shape)
        mean = torch.stack([member(x).softmax(dim=1) for member in self.members]).mean(dim=0)
        return (self.slope * (mean + 1e-7).log() + self.offset).softmax(dim=1)


# -- learning ----------------------------------------------------------------------------------------------


class Draw:
    """Draws batches of fixed class shares; within a class a record counts by the root of its beats."""

    def __init__(self, beats: Beats, share: Sequence[float], batch: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pools = []
        for k, part in enumerate(share):
            rows = np.flatnonzero(beats.classes == k)
            if len(rows):
                _, inverse, counts = np.unique(beats.records[rows], return_inverse=True, return_counts=True)
                weight = np.cumsum(1 / np.sqrt(counts[inverse]))
                self._pools.append((rows, weight / weight[-1], max(1, round(part * batch))))

    def __call__(self) -> np.ndarray:
        """Return the rows of one batch."""
        drawn = [
            rows[np.minimum(np.searchsorted(weight, self._rng.random(n)), len(rows) - 1)]
            for rows, weight, n in self._pools
        ]
        return np.concatenate(drawn)


def _fit(net: nn.Module, x: Tensor, classes: np.ndarray, draw: Draw, steps: int, jitter: float = 0.0) -> None:
    """Fit a network on features (n, F), in place."""
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    target = torch.tensor(classes)
    net.train()
    for _ in range(steps):
        rows = torch.from_numpy(draw())
        seen = x[rows]
        loss = cross_entropy(net(seen + jitter * torch.randn_like(seen)), target[rows], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()


def fit_rr(rr: Beats, steps: int = RR_STEPS, seed: int = 0) -> RRNet | None:
    """Fit the network that sees RR intervals alone; None without day-long annotations."""
    if not len(rr.classes):
        return None
    torch.manual_seed(seed)
    net = RRNet(rr.rr)
    _fit(net, torch.tensor(rr.rr), rr.classes, Draw(rr, RR_SHARE, RR_BATCH, seed), steps)
    return net


def fit_beats(rr_net: RRNet | None, beats: Beats, steps: int = STEPS, n_members: int = MEMBERS) -> BeatsNet:
    """Fit the head on beats with a wave; the network of RR intervals stays as it is."""
    torch.manual_seed(0)
    net = BeatsNet(rr_net, beats, n_members).eval()
    with torch.no_grad():
        x = net.features(torch.tensor(beats.rr), torch.tensor(beats.shape))
    for seed, member in enumerate(net.members):
        _fit(member, x, beats.classes, Draw(beats, SHARE, BATCH, seed), steps, jitter=0.1)
    return net


@torch.no_grad()
def probabilities(net: BeatsNet, beats: Beats) -> np.ndarray:
    """Return float64 (n, C)."""
    return net(torch.tensor(beats.rr), torch.tensor(beats.shape)).double().numpy()


def folds_of(beats: Beats, n_folds: int = FOLDS) -> list[np.ndarray]:
    """Deal the records out into groups: those richest in S beats go to different ones."""
    names = np.unique(beats.records)
    n_s = np.array([np.sum((beats.records == name) & (beats.classes == CLASSES.index("S"))) for name in names])
    ordered = names[np.argsort(-n_s, kind="stable")]
    return [ordered[fold::n_folds] for fold in range(min(n_folds, len(names)))]


def left_out(rr_net: RRNet | None, beats: Beats, progress: Callable[[str], None], **fit: int) -> np.ndarray:
    """Return what the head says of each whole-record beat when its patient is left out: (n of ``beats.whole``, C)."""
    told = beats.of(beats.whole)
    p = np.zeros((len(told.classes), len(CLASSES)))
    for names in folds_of(told):
        progress(f"leaving out {', '.join(names)}")
        net = fit_beats(rr_net, beats.of(~np.isin(beats.records, names)), **fit)
        rows = np.isin(told.records, names)
        p[rows] = probabilities(net, told.of(rows))
    return p


# -- calibration, decision -----------------------------------------------------------------------------------


def fit_calibration(p: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
    """Return slope and offset (C,) of log p under which the true classes are likeliest (Platt scaling)."""
    from scipy.optimize import minimize

    log_p = np.log(p + 1e-7)

    def loss(x: np.ndarray) -> float:
        logits = x[0] * log_p + np.concatenate([[0.0], x[1:]])
        logits = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1))
        # A weak pull to no offset: a class that hardly occurs must not be pushed out of sight.
        return float((log_sum - logits[np.arange(len(classes)), classes]).mean() + 1e-5 * np.square(x[1:]).sum())

    found = minimize(loss, np.concatenate([[1.0], np.full(p.shape[1] - 1, -1.0)]), method="L-BFGS-B")
    return float(found.x[0]), np.concatenate([[0.0], found.x[1:]])


def calibrated(p: np.ndarray, slope: float, offset: np.ndarray) -> np.ndarray:
    """Return p (n, C) calibrated."""
    logits = slope * np.log(p + 1e-7) + offset
    q = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(q / q.sum(axis=1, keepdims=True))


def class_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return counts, Se, PPV (None where there is no beat) and F1 (then 0) of each class.

    -1 in ``truth`` is a false beat, in ``found`` a missed one.
    """
    scores = {}
    for k, name in enumerate(CLASSES):
        n_true, n_found, both = (int(np.sum(x)) for x in (truth == k, found == k, (truth == k) & (found == k)))
        scores[name] = {
            **{"n": n_true, "found": n_found, "correct": both},
            "se": both / n_true if n_true else None,
            "ppv": both / n_found if n_found else None,
            "f1": 2 * both / max(1, n_true + n_found),
        }
    return scores


def choose_decision(p: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Return what to add to log p of S and of V before the largest decides: what makes F1 of S plus F1 of V largest."""

    def merit(decision: dict[str, float]) -> float:
        scores = class_scores(classes, decide(p, decision))
        return float(sum(scores[name]["f1"] for name in decision))

    candidates = [{"S": s, "V": v} for s in np.arange(-1.0, 2.1, 0.25) for v in np.arange(-1.0, 1.1, 0.5)]
    return {name: float(value) for name, value in max(candidates, key=merit).items()}


# -- the head ------------------------------------------------------------------------------------------------


def train_beats(
    checkpoint: Path, data: Path, splits: Path, progress: Callable[[str], None] = print, folder: Path | None = None
) -> dict[str, Any]:
    """Teach the head ``beats`` and write it into a checkpoint folder.

    Parameters
    ----------
    checkpoint : Path
        A checkpoint folder: its preparation is used, its networks are not (see the notes).
    data : Path
        The restored databases.
    splits : Path
        The CSV of splits: only ``train`` is learned from, and chosen on by leaving patients out.
    folder : Path, optional
        The prepared corpora; default: prepared here if they are not yet.

    Returns
    -------
    dict
        The scores of beats whose patients were left out, by class.

    Notes
    -----
    Embeddings and surprise of the checkpoint's model are not among the features. With patients left out, one network
    gained some F1 of S from them and lost a little of V (the quality benchmark says how much): too little, and too
    uncertain with these few patients, for a head that would then have to wait for the model.
    Cuts of mostly ectopic beats were tried as further training data, and dropped: patients left out were no better.
    """
    from anyecg.checkpoint import open_checkpoint
    from anyecg.training.datasets import prepare_databases

    preparation = open_checkpoint(checkpoint).preparation
    corpus = Corpus(folder or prepare_databases(data, splits, preparation, progress), "train", (BEATS_DATABASE,))
    rr_net = fit_rr(load_rr(data, splits, progress))
    beats = load_beats(corpus, data, preparation.fs_hz, progress)
    net, decision, scores = fit_and_calibrate(rr_net, beats, progress)
    config = {
        **{"kind": "beat", "version": 1, "decision": decision, "fs_hz": preparation.fs_hz},
        "labels": [
            {"code": code, "snomed": None, "name": name, "kind": "beat", "threshold": 0.0}
            for code, name in zip(CLASSES, NAMES, strict=True)
        ],
        "trained_on": [BEATS_DATABASE, *(RR_DATABASES if rr_net else ())],
        "n_patients": len(np.unique(beats.records)),
        "left_out_scores": scores,
    }
    write_head(checkpoint, HEAD, config, to_onnx(net, beats))
    return scores


NAMES = (
    "normal, bundle branch block, or supraventricular escape beat",
    "supraventricular ectopic beat",
    "ventricular ectopic beat",
    "fusion of a ventricular and a normal beat",
    "unclassifiable or paced beat",
)


def fit_and_calibrate(
    rr_net: RRNet | None, beats: Beats, progress: Callable[[str], None], **fit: int
) -> tuple[BeatsNet, dict[str, float], dict[str, dict[str, Any]]]:
    """Return the head fitted on all beats, its decision, and its scores on patients left out."""
    classes = beats.classes[beats.whole]
    p = left_out(rr_net, beats, progress, **fit)
    slope, offset = fit_calibration(p, classes)
    p = calibrated(p, slope, offset)
    decision = choose_decision(p, classes)
    net = fit_beats(rr_net, beats, **fit)
    net.slope.fill_(slope)
    net.offset.copy_(torch.tensor(offset, dtype=torch.float32))
    return net, decision, class_scores(classes, decide(p, decision))


def to_onnx(net: BeatsNet, beats: Beats) -> bytes:
    """Return the head as a graph: inputs ``rr`` (n, R) and ``shape`` (n, F), output ``probabilities`` (n, C)."""
    some = {"rr": torch.tensor(beats.rr[:3]), "shape": torch.tensor(beats.shape[:3])}
    n = torch.export.Dim("n")
    return bytes(quietly_exported(net, some, ["probabilities"], ({0: n}, {0: n})).SerializeToString())
