"""Scores of fitted models, each kept in a file: what the rows `superclasses` and `rhythm` share.

A *fit* is one model fitted once: logits (N, C) of every set of records it was asked about. A *line* of a table is a
method; its figures are means over its fits (seeds, draws of few labels), its interval that of the mean, patients
resampled.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anyecg.beats import find_beats
from anyecg.checkpoint import file_sha256
from anyecg.engine import Model
from anyecg.heads import Head, head_names, open_head
from anyecg.metrics import patient_bootstrap
from anyecg.models.encoder import Encoder
from anyecg.models.export import load_networks
from anyecg.record import Record
from anyecg.tasks.arrhythmia import record_logits
from anyecg.training.datasets import load_noise
from anyecg.training.examples import Example, Examples, Variation, tokenise
from anyecg.training.fit_head import HeadSettings, fit_head, predict_logits
from anyecg.training.probe import lead_means

Scores = dict[str, np.ndarray]
Metric = Callable[[np.ndarray, np.ndarray], float]

SHIPPED = "AnyECG, the head that ships"

VIEWS = 3
LEAST_STEPS = 200
"""A linear head of few records is fitted for more epochs, until there are so many steps."""


@dataclass(frozen=True)
class Fit:
    """One model to be fitted: a line of the table, how many labels, which draw of them, which seed."""

    line: str
    fraction: str = "100 %"
    draw: int = 0
    seed: int = 0

    @property
    def file(self) -> str:
        """Name of the file its scores are kept in."""
        words = f"{self.line}-{self.fraction}-{self.draw}-{self.seed}".replace("%", "percent")
        return "".join(c if c.isalnum() or c in "-_" else "_" for c in words) + ".npz"


def fit_all(
    plan: Iterable[Fit],
    folder_of: Callable[[Fit], Path],
    fitted: Callable[[Fit], Scores],
    progress: Callable[[str], None],
) -> tuple[dict[Fit, Scores], list[Fit]]:
    """Fit what is not kept yet, in order; return all scores, and after an interrupt (Ctrl-C) what is missing."""
    missing, kept = list(plan), {}
    try:
        for fit in list(missing):
            path = folder_of(fit) / fit.file
            if not path.exists():
                progress(f"{fit.line}, {fit.fraction} of the labels, draw {fit.draw}, seed {fit.seed}")
            kept[fit] = kept_scores(path, partial(fitted, fit))
            missing.remove(fit)
    except KeyboardInterrupt:
        progress("stopped: the table says which fits are missing")
        for fit in list(missing):
            if (folder_of(fit) / fit.file).exists():
                kept[fit] = kept_scores(folder_of(fit) / fit.file, dict)
                missing.remove(fit)
    return kept, missing


def still_missing(fits: list[Fit]) -> list[str]:
    """Say in words what was not fitted: a line and a fraction once, and how many fits of it."""
    counts = Counter((fit.line, fit.fraction) for fit in fits)
    return [f"{line}, {fraction} of the labels: {n}" for (line, fraction), n in counts.items()]


def folder_of(model: Model, work: Path, codes: tuple[str, ...], own: tuple[str, ...], fit: Fit) -> Path:
    """Return where a row keeps a fit that tells some codes; ``own`` are the lines that stand on the checkpoint."""
    return kept_in(work, model, fit.line in own, shipped_head(model, codes) if fit.line == SHIPPED else None)


def kept_in(work: Path, model: Model, own: bool, head: Head | None) -> Path:
    """Return the folder of a fit's scores: for each checkpoint, and for each head that ships, one of its own."""
    if head is not None:
        return work / f"head-{file_sha256(head.path)[:8]}"  # the JSON vouches for the graph, and has the calibration
    return work / (f"fits-{model.checkpoint.sha256[:8]}" if own else "fits")


def kept_scores(path: Path, make: Callable[[], Scores]) -> Scores:
    """Return what a file of arrays holds; without one, make and write it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez_compressed(unfinished, **make())
        unfinished.replace(path)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def mean_metric(
    metric: Metric, labels: np.ndarray, fits: list[np.ndarray], patients: np.ndarray
) -> tuple[float, list[float]]:
    """Return the mean over fits of ``metric(labels, scores)`` and the mean's 95 % interval, patients resampled."""

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([metric(labels[rows], scores[rows]) for scores in fits]))

    return mean(np.arange(len(labels))), list(patient_bootstrap(mean, patients))


def mean_difference(
    metric: Metric, labels: np.ndarray, ours: list[np.ndarray], theirs: list[np.ndarray], patients: np.ndarray
) -> tuple[float, list[float]]:
    """Return how much larger the mean metric of ``ours`` is than that of ``theirs``, and the 95 % interval, paired."""

    def difference(rows: np.ndarray) -> float:
        each = [[metric(labels[rows], s[rows]) for s in fits] for fits in (ours, theirs)]
        return float(np.mean(each[0]) - np.mean(each[1]))

    return difference(np.arange(len(labels))), list(patient_bootstrap(difference, patients))


def drawn(labels: np.ndarray, patients: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw a share of the patients, stratified; return their records' indices, in order.

    Patients are sorted by their labels, at random among equals, and every so manyth is taken. A draw in which a label
    is missing or on every record is drawn anew.
    """
    rng = np.random.default_rng(seed)
    names, of_record = np.unique(patients, return_inverse=True)
    any_label = np.zeros((len(names), labels.shape[1]), dtype=bool)
    np.logical_or.at(any_label, of_record, labels == 1)
    rarest_first = np.argsort(any_label.sum(axis=0))
    n_wanted = max(1, round(share * len(names)))
    while True:
        keys = [rng.random(len(names)), *any_label[:, rarest_first[::-1]].T]
        order = np.lexsort(keys)
        places = (np.arange(n_wanted) + rng.random()) * len(names) / n_wanted
        chosen = np.zeros(len(names), dtype=bool)
        chosen[order[places.astype(int)]] = True
        rows = np.flatnonzero(chosen[of_record])
        shares = labels[rows].mean(axis=0)
        if ((shares > 0) & (shares < 1)).all():
            return rows


# -- our own model -------------------------------------------------------------------------------------------


class Own:
    """The model's encoder, and the same encoder untrained, on labelled records that are tokenised once.

    Parameters
    ----------
    model : Model
    work : Path
        Where tokenised sets are kept.
    sets : dict
        Name of a set -> a function that yields its `Example`; ``train`` and ``val`` must be there.
    data : Path
        The restored databases: real noise goes into the second and third view of training records.
    """

    def __init__(self, model: Model, work: Path, sets: dict[str, Callable[[], Iterable[Example]]], data: Path) -> None:
        self.model, self.work, self.sets, self.data = model, work / f"tokens-{model.checkpoint.sha256[:8]}", sets, data
        self._held: dict[str, Examples] = {}
        tokenizer, self.encoder = load_networks(model.checkpoint.folder)
        torch.manual_seed(0)
        self.untrained = Encoder(self.encoder.config, tokenizer.config, tokenizer.quantizer.codebooks).eval()
        for network in (self.encoder, self.untrained):
            network.requires_grad_(False)

    def examples(self, name: str, view: int = 0) -> Examples:
        """Return a tokenised set; views other than 0 are shifted and noisy."""
        key = f"{name}-{view}"
        if key not in self._held:

            def make() -> Scores:
                noise = load_noise(self.data, "train", self.model.checkpoint.preparation) if view else {}
                varied = Variation(noise, seed=view) if view else lambda record: record
                return vars(tokenise(self.model, self.sets[name](), varied))

            self._held[key] = Examples(**kept_scores(self.work / f"{key}.npz", make))
        return self._held[key]

    def head(
        self,
        rows: np.ndarray,
        settings: HeadSettings,
        score: Metric,
        asked: dict[str, tuple[str, list[int] | None]],
        progress: Callable[[str], None],
        trained: bool = True,
    ) -> Scores:
        """Fit a head to some training records; return the logits of what is asked: name -> (set, leads kept)."""
        encoder = self.encoder if trained else self.untrained
        views = [self.examples("train", view).of_records(rows) for view in range(VIEWS)]
        fitted = fit_head(encoder, views, self.examples("val"), settings, score, progress)
        return {
            name: predict_logits(encoder, fitted.head, self.examples(held), leads)
            for name, (held, leads) in asked.items()
        }


def shipped_head(model: Model, codes: tuple[str, ...]) -> Head | None:
    """Return the checkpoint's head that answers all of some codes, if it has one."""
    folder = model.checkpoint.folder
    heads = [
        head for name in head_names(folder) if (head := open_head(folder, name)) and head.config["kind"] == "record"
    ]
    return next((head for head in heads if set(codes) <= {label.code for label in head.labels}), None)


def shipped_logits(
    model: Model, head: Head, records: Iterable[Record], codes: tuple[str, ...], leads: tuple[str, ...] | None = None
) -> np.ndarray:
    """Ask a head that ships as `anyecg analyze` does: calibrated logits (R, C) of some codes; ``leads``: those kept."""
    columns = [[label.code for label in head.labels].index(code) for code in codes]
    found = []
    for record in records:
        seen = record if leads is None else record.pick(leads)
        found.append(record_logits(model, head, model.tokenize(seen), find_beats(seen), prepared=seen)[columns])
    return np.stack(found)


def linear_settings(n_windows: int, seed: int, exclusive: bool) -> HeadSettings:
    """Return the settings of a linear head on the frozen encoder."""
    epochs = max(40, -(-LEAST_STEPS // -(-n_windows // 32)))
    return HeadSettings(mode="linear", learning_rate=3e-3, linear_epochs=epochs, seed=seed, exclusive=exclusive)


def full_settings(n_windows: int, seed: int, exclusive: bool, trained: bool = True) -> HeadSettings:
    """Return the settings of fine-tuning all layers; an untrained encoder learns faster, and all layers alike."""
    epochs = max(40, -(-LEAST_STEPS // -(-n_windows // 32)))
    rate = {"tuned_learning_rate": 1e-4} if trained else {"tuned_learning_rate": 1e-3, "layer_decay": 1.0}
    tuning = 6 if n_windows > 500 else 10
    return HeadSettings(
        mode="full", learning_rate=1e-3, epochs=tuning, linear_epochs=epochs, seed=seed, exclusive=exclusive, **rate
    )


@torch.no_grad()
def lead_means_of(encoder: Encoder, layer: int, examples: Examples) -> np.ndarray:
    """Return the mean over time of each lead's embedding in a layer, leads side by side: (R, L * D)."""
    means = []
    for first in range(0, len(examples), 64):
        rows = slice(first, first + 64)
        valid = torch.from_numpy(examples.valid[rows])
        layers = encoder(
            torch.from_numpy(examples.codes[rows].astype(np.int64)),
            valid,
            torch.zeros_like(valid),
            torch.from_numpy(examples.lead_ids[rows]),
            torch.from_numpy(examples.log_scale[rows]),
            valid.any(dim=-1),
        )
        means.append(lead_means(layers[layer], valid).numpy())
    return examples.to_records(np.concatenate(means)).astype(np.float32)
