"""Row ``rhythm``: normal, atrial fibrillation, other rhythm or noise, from one lead of a handheld device (cinc2017).

Every method learns from the same training records, chooses on the same validation records and is measured on the same
test records. A record is given the class with the largest log probability plus that class's offset; the offsets are
chosen on validation records for the challenge's score, for every method the same way.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines.boosting import boosted_scores, features_of, single_lead_features
from baselines.inception import InceptionTime
from baselines.mobilevit import MobileViT
from baselines.training import TrainSettings, Waves, fit_network, predict, to_waves
from baselines.xresnet import XResNet
from scored import (
    SHIPPED,
    Fit,
    Own,
    Scores,
    fit_all,
    folder_of,
    full_settings,
    kept_scores,
    linear_settings,
    mean_difference,
    mean_metric,
    shipped_head,
    shipped_logits,
    still_missing,
)

from anyecg.engine import Model
from anyecg.metrics import calibration_error, f1_score, macro_auroc
from anyecg.tasks.arrhythmia import to_probability
from anyecg.training.calibrate import calibrate
from anyecg.training.datasets import Corpus, prepare_databases
from anyecg.training.examples import Example

CLASSES = ("N", "A", "O", "~")
N_SCORED = 3
"""The challenge's score is the mean F1 of the first three."""

CODES = ("SR", "AFIB", "OTHER", "NOISE")
"""What the classes are called in a head that ships."""

LINEAR, TUNED = "AnyECG, frozen, linear head", "AnyECG, fine-tuned"
RAW_LINEAR = "the same encoder untrained, linear head"
INCEPTION, XRESNET, MOBILEVIT = "InceptionTime, 16 filters", "xresnet1d50", "MobileViT-like + ECA + LSTM"
BOOSTING, MAJORITY = "features + gradient boosting", "the commonest class"
OWN = (SHIPPED, LINEAR, TUNED, RAW_LINEAR)

NETWORKS: dict[str, tuple[Callable[[int, int], torch.nn.Module], dict[str, Any]]] = {
    XRESNET: (partial(XResNet, depth=50), {"learning_rate": 3e-3, "epochs": 12}),
    INCEPTION: (partial(InceptionTime, n_filters=16), {"learning_rate": 2e-3, "epochs": 10}),
    MOBILEVIT: (MobileViT, {"learning_rate": 2e-3, "epochs": 10}),
}
"""The sizes, smaller than for 12 leads, fit a budget of five to seven core-minutes each: windows are 10 s long."""


def plan(model: Model) -> Iterator[Fit]:
    """Yield the fits in order of importance: a run that is stopped has the table's most useful part."""
    if shipped_head(model, CODES):
        yield Fit(SHIPPED)
    yield from (Fit(line) for line in (MAJORITY, BOOSTING, LINEAR, XRESNET, INCEPTION, MOBILEVIT, TUNED, RAW_LINEAR))
    yield Fit(XRESNET, seed=1)  # how much a seed matters; InceptionTime takes three times as long and has one


class Task:
    """The records of every split, in each of the forms that methods want; made when first asked for."""

    def __init__(self, model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> None:
        self.model, self.work, self.progress = model, work, progress
        self.fs_hz = model.checkpoint.preparation.fs_hz
        folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
        self.corpora = {split: Corpus(folder, split, ("cinc2017",)) for split in ("train", "val", "test")}
        self.labels = {
            split: np.array([[name in e.labels for name in CLASSES] for e in corpus.entries], dtype=np.float32)
            for split, corpus in self.corpora.items()
        }
        self.own = Own(model, work, {split: partial(self.examples, split) for split in self.corpora}, data)
        self.folder_of = partial(folder_of, model, work, CODES, OWN)

    def patients(self, split: str) -> np.ndarray:
        """Return each record's patient; they are not known: every record counts as one."""
        return np.array([e.patient for e in self.corpora[split].entries])

    def examples(self, split: str) -> Iterator[Example]:
        """Yield the records of a split as our own model takes them."""
        pairs = zip(self.corpora[split].records(self.fs_hz), self.labels[split], strict=True)
        for (entry, record), labels in pairs:
            yield Example(record, labels, entry.patient)

    @cached_property
    def waves(self) -> dict[str, Waves]:
        """Every split at 100 Hz."""
        return {
            split: to_waves([corpus.signal(e) for e in corpus.entries], self.labels[split])
            for split, corpus in self.corpora.items()
        }

    @cached_property
    def features(self) -> Scores:
        """Every split's measured features."""

        def make(split: str) -> Scores:
            self.progress(f"measuring features: {split}")
            records = [record for _, record in self.corpora[split].records(self.fs_hz)]
            return {split: features_of(records, single_lead_features)}

        kept: Scores = {}
        for split in self.corpora:
            kept |= kept_scores(self.work / f"features-{split}.npz", partial(make, split))
        return kept


# -- fits ----------------------------------------------------------------------------------------------------


def scored_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the challenge's score of the class with the largest score: mean F1 of N, A and O; both (R, 4)."""
    chosen = scores.argmax(axis=1)
    return float(np.mean([f1_score(labels[:, k] == 1, chosen == k) for k in range(N_SCORED)]))


def best_offsets(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what to add to log probabilities (R, 4) for the best score of validation records: (4,)."""
    offsets = np.zeros(len(CLASSES))
    for _ in range(2):
        for k in range(1, len(CLASSES)):  # only differences matter: the first stays 0
            tried = np.round(np.arange(-1.5, 1.51, 0.1), 1)
            moved = [offsets + (value - offsets[k]) * (np.arange(len(CLASSES)) == k) for value in tried]
            reached = np.array([scored_f1(labels, log_probabilities + m) for m in moved])
            # Of equals the one nearest to no offset.
            offsets = moved[int(np.lexsort((np.abs(tried), -reached))[0])]
    return offsets


def fitted(task: Task, fit: Fit) -> Scores:
    """Fit a model; return its logits (R, 4) of the validation and test records."""
    if fit.line == MAJORITY:
        share = task.labels["train"].mean(axis=0)
        return {split: np.log(np.tile(share, (len(task.labels[split]), 1))) for split in ("val", "test")}
    if fit.line == BOOSTING:
        x, y = task.features, task.labels
        found = boosted_scores((x["train"], y["train"]), (x["val"], y["val"]), [x["test"]])
        return dict(zip(("val", "test"), found, strict=True))
    if fit.line in NETWORKS:
        network, options = NETWORKS[fit.line]
        settings = TrainSettings(crop=1000, exclusive=True, validate_from=0.5, seed=fit.seed, **options)
        waves = task.waves
        trained = fit_network(network, waves["train"], waves["val"], settings, scored_f1, task.progress)
        return {split: predict(trained, waves[split]) for split in ("val", "test")}
    if fit.line == SHIPPED:
        head = shipped_head(task.model, CODES)
        assert head is not None, "it was there when the plan was made"
        return {
            split: shipped_logits(task.model, head, (r for _, r in task.corpora[split].records(task.fs_hz)), CODES)
            for split in ("val", "test")
        }
    rows = np.arange(len(task.labels["train"]))
    settings_of = full_settings if fit.line == TUNED else linear_settings
    return task.own.head(
        rows,
        settings_of(len(rows), fit.seed, True),
        scored_f1,
        {"val": ("val", None), "test": ("test", None)},
        task.progress,
        trained=fit.line != RAW_LINEAR,
    )


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Fit what is missing, in order of importance; measure everything there is."""
    torch.set_num_threads(1)
    task = Task(model, data, work, progress)
    kept, missing = fit_all(plan(model), task.folder_of, partial(fitted, task), progress)
    return measured(task, kept, missing)


# -- figures -------------------------------------------------------------------------------------------------


def measured(task: Task, kept: dict[Fit, Scores], missing: list[Fit]) -> dict[str, Any]:
    """Turn logits into decisions and probabilities, and these into figures."""
    by_line: dict[str, list[Scores]] = {}
    for fit, scores in kept.items():
        by_line.setdefault(fit.line, []).append(decided(scores, task.labels["val"]))
    ours = next((line for line in (SHIPPED, TUNED) if line in by_line), LINEAR)
    return {
        "records": {split: len(labels) for split, labels in task.labels.items()},
        "prevalence": {
            split: dict(zip(CLASSES, labels.mean(axis=0).round(4).tolist(), strict=True))
            for split, labels in task.labels.items()
        },
        "compared_with": ours,
        "lines": {
            line: _line(task, fits, None if line == ours else by_line.get(ours)) for line, fits in by_line.items()
        },
        "missing": still_missing(missing),
    }


def decided(scores: Scores, labels: np.ndarray) -> Scores:
    """Return calibrated probabilities of test records (R, 4) and the log probabilities that decide, offsets added."""
    calibration = calibrate(scores["val"], labels, exclusive=True)
    probability = {split: to_probability(calibration.logits(scores[split]), True) for split in ("val", "test")}
    logs = {split: np.log(p + 1e-9) for split, p in probability.items()}
    offsets = best_offsets(logs["val"], labels)
    return {"probability": probability["test"], "decides": logs["test"] + offsets, "val": logs["val"] + offsets}


def _line(task: Task, fits: list[Scores], reference: list[Scores] | None) -> dict[str, Any]:
    labels, patients = task.labels["test"], task.patients("test")
    decides = [fit["decides"] for fit in fits]
    reached, interval = mean_metric(scored_f1, labels, decides, patients)
    found: dict[str, Any] = {
        "fits": len(fits),
        "mean_f1": reached,
        "interval": interval,
        "each_fit": [scored_f1(labels, scores) for scores in decides],
        "validation": float(np.mean([scored_f1(task.labels["val"], fit["val"]) for fit in fits])),
        "macro_auroc": float(np.mean([macro_auroc(labels == 1, fit["probability"]) for fit in fits])),
        "classes": {},
    }
    if reference is not None:
        theirs = [fit["decides"] for fit in reference]
        gap, gap_interval = mean_difference(scored_f1, labels, theirs, decides, patients)
        found |= {"ours_minus_this": gap, "ours_minus_this_interval": gap_interval}
    for k, name in enumerate(CLASSES):
        f1, f1_interval = mean_metric(partial(_f1_of, k), labels, decides, patients)
        gaps = [calibration_error(labels[:, k] == 1, fit["probability"][:, k]) for fit in fits]
        found["classes"][name] = {"f1": f1, "interval": f1_interval, "calibration_error": float(np.mean(gaps))}
    return found


def _f1_of(k: int, labels: np.ndarray, scores: np.ndarray) -> float:
    return f1_score(labels[:, k] == 1, scores.argmax(axis=1) == k)


# -- tables --------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Print every method's F1, best first."""
    lines = sorted(numbers["lines"].items(), key=lambda item: -item[1]["mean_f1"])
    out = [
        "| method | mean F1 of N, A, O | " + " | ".join(f"F1 {name}" for name in CLASSES),
        "| --- |" + " --- |" * (len(CLASSES) + 4),
    ]
    out[0] += " | macro AUROC | mean calibration error | ours minus this |"
    for name, found in lines:
        classes = found["classes"].values()
        n = f", {found['fits']} fits" if found["fits"] > 1 else ""
        cells = [_span(found["mean_f1"], found["interval"]) + n]
        cells += [_span(c["f1"], c["interval"]) for c in classes]
        cells += [f"{found['macro_auroc']:.3f}", f"{np.mean([c['calibration_error'] for c in classes]):.3f}"]
        gap = found.get("ours_minus_this")
        low, high = found.get("ours_minus_this_interval", (0, 0))
        cells.append("" if gap is None else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})")
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    parts = [_head(numbers), "\n".join(out)]
    if numbers["missing"]:
        parts.append("Not fitted for want of time: " + "; ".join(numbers["missing"]) + ".")
    return "\n\n".join(parts)


def _span(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


def _head(numbers: dict[str, Any]) -> str:
    records = ", ".join(f"{split} {n}" for split, n in numbers["records"].items())
    prevalence = ", ".join(f"{name} {100 * share:.1f} %" for name, share in numbers["prevalence"]["test"].items())
    return (
        f"cinc2017, a subset of it (class N is thinned): records {records}; patients are not known, every record "
        f"counts as one. Prevalence among test records: {prevalence}. Intervals are 95 %, records resampled, of the "
        f"mean over fits (seeds). Last column: *{numbers['compared_with']}* minus this line.\n\n"
        "All methods learn from the same prepared records (0.5-75 Hz, 9 to 61 s), choose epochs, sizes and the "
        "offsets of their decisions on val, and are measured on test. Networks are trained from scratch at 100 Hz on "
        "random windows of 10 s and tested on the mean over overlapping ones; ours takes windows of 30 s.\n\n"
        "Published: the challenge's winners .83, on its hidden test set, trained on all 8,528 records with their own "
        "share of N. Not comparable: fewer records here, fewer of class N, a part of the public records for a test."
    )
