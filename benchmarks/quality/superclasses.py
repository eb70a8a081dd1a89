"""Row ``superclasses``: the five diagnostic superclasses of ptb-xl from 12 leads, with 100, 10 and 1 % of the labels.

Every method gets the same training records (prepared the same way), chooses on the same validation records and is
measured on the same test records. Few labels are drawn by patient, every draw the same for all methods. Beside that:
fewer leads at test time, and two databases of other hospitals where a statement means the same as a superclass.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines.boosting import boosted_scores, features_of, filled
from baselines.classical_features import FEATURE_NAMES
from baselines.inception import InceptionTime
from baselines.mobilevit import MobileViT
from baselines.training import TrainSettings, Waves, fit_network, predict, to_waves
from baselines.xresnet import XResNet
from scored import (
    SHIPPED,
    Fit,
    Own,
    Scores,
    drawn,
    fit_all,
    folder_of,
    full_settings,
    kept_scores,
    lead_means_of,
    linear_settings,
    mean_difference,
    mean_metric,
    shipped_head,
    shipped_logits,
    still_missing,
)
from statements import other_labels

from anyecg.engine import Model
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import auroc, average_precision, calibration_error, macro_auroc
from anyecg.models.encoder import Encoder
from anyecg.record import Record
from anyecg.tasks.arrhythmia import to_probability
from anyecg.training.calibrate import calibrate
from anyecg.training.datasets import SUPERCLASSES, Corpus, Entry, prepare_databases
from anyecg.training.examples import Example
from anyecg.training.forests import ForestSettings, RandomSettings, fit_forests, forest_scores
from anyecg.training.label_scores import known_macro_auroc
from anyecg.training.probe import fit_probe, superclass_labels
from anyecg.training.trees import ENOUGH_TO_BOOST, weighed

FRACTIONS = {"100 %": (1.0, 1), "10 %": (0.1, 2), "1 %": (0.01, 3)}
"""Share of the training patients, and how many times they are drawn."""

LEAD_SETS = {"I, II, V2": [0, 1, 7], "II": [1], "I": [0]}
LONGEST_S = 10.0
"""Other databases' records are cut to what ptb-xl has."""

OTHERS = {"cinc2021 (CPSC 2018)": ("NORM", "CD"), "ludb": ("NORM", "CD", "HYP")}
"""Superclasses whose meaning a database's own statements share."""


PROBE, LINEAR, TUNED = "AnyECG, frozen, linear probe", "AnyECG, frozen, linear head", "AnyECG, fine-tuned"
RAW_PROBE, RAW_TUNED = "the same encoder untrained, linear probe", "the same encoder untrained, all trained"
WITH_TREES = "AnyECG, frozen, linear head with trees"
TREES = "the trees of it alone"
INCEPTION, XRESNET, MOBILEVIT = "InceptionTime", "xresnet1d101", "MobileViT-like + ECA + LSTM"
BOOSTING, LOGISTIC = "features + gradient boosting", "features + logistic regression"
ENSEMBLE = "InceptionTime, mean of the seeds"
OWN = (SHIPPED, PROBE, LINEAR, TUNED, WITH_TREES, RAW_PROBE, RAW_TUNED)
CHEAP = (BOOSTING, LOGISTIC, PROBE, RAW_PROBE)


def plan(model: Model) -> Iterator[Fit]:
    """Yield the fits in order of importance: a run that is stopped has the table's most useful part."""
    if shipped_head(model, SUPERCLASSES):
        yield Fit(SHIPPED)
    few = [(fraction, draw) for fraction, (_, n) in FRACTIONS.items() if n > 1 for draw in range(n)]
    yield from (Fit(line) for line in CHEAP)
    yield from (Fit(line, fraction, draw) for line in CHEAP for fraction, draw in few)
    for line in (LINEAR, TREES, WITH_TREES):
        yield from (Fit(line), *(Fit(line, fraction, draw) for fraction, draw in few))
    networks = (XRESNET, INCEPTION, MOBILEVIT)
    yield from (Fit(line) for line in networks)
    for line in networks:
        yield from (Fit(line, fraction, draw) for fraction, draw in few if draw == 0)
    yield Fit(TUNED)
    for line in networks:
        yield from (Fit(line, fraction, draw) for fraction, draw in few if draw > 0)
    yield from (Fit(INCEPTION, seed=1), Fit(XRESNET, seed=1))
    yield from (Fit(TUNED, fraction, draw) for fraction, draw in few)
    yield Fit(INCEPTION, seed=2)
    yield from (Fit(RAW_TUNED, fraction) for fraction in FRACTIONS)


# -- data ----------------------------------------------------------------------------------------------------


class Task:
    """The records of every set, in each of the forms that methods want; made when first asked for."""

    def __init__(self, model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> None:
        self.model, self.data, self.work, self.progress = model, data, work, progress
        self.fs_hz = model.checkpoint.preparation.fs_hz
        folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
        self.corpora: dict[str, Corpus] = {}
        self.entries: dict[str, list[Entry]] = {}
        self.labels: dict[str, np.ndarray] = {}
        for split in ("train", "val", "test"):
            corpus = Corpus(folder, split, ("ptb-xl",))
            chosen = [e for e in corpus.entries if e.labels and tuple(e.leads) == STANDARD_LEADS]
            self.corpora[split], self.entries[split] = corpus, chosen
            self.labels[split] = superclass_labels(chosen).astype(np.float32)
        for name, (database, known) in other_labels(data).items():
            whole = [Corpus(folder, split, (database,)) for split in ("train", "val", "test")]
            chosen = [e for corpus in whole for e in corpus.entries if e.record in known]
            chosen = [e for e in chosen if tuple(e.leads) == STANDARD_LEADS]
            self.corpora[name], self.entries[name] = whole[0], chosen
            self.labels[name] = np.array([known[e.record] for e in chosen], dtype=np.float32)
        self.own = Own(model, work, {name: partial(self.examples, name) for name in self.entries}, data)
        self.folder_of = partial(folder_of, model, work, SUPERCLASSES, OWN)

    def patients(self, name: str) -> np.ndarray:
        """Return each record's patient."""
        return np.array([e.patient for e in self.entries[name]])

    def record(self, name: str, entry: Entry) -> Record:
        """Return a prepared record, cut to ten seconds."""
        record = self.corpora[name].record(entry, self.fs_hz)
        return record.with_(signal=record.signal[:, : round(LONGEST_S * self.fs_hz)])

    def examples(self, name: str) -> Iterator[Example]:
        """Yield the records of a set as our own model takes them."""
        for entry, labels in zip(self.entries[name], self.labels[name], strict=True):
            yield Example(self.record(name, entry), labels, entry.patient)

    @cached_property
    def waves(self) -> dict[str, Waves]:
        """Every set at 100 Hz; then the test records with few leads."""
        found = {
            name: to_waves([self.record(name, e).signal for e in entries], self.labels[name])
            for name, entries in self.entries.items()
        }
        return found | {leads: found["test"].only(rows) for leads, rows in LEAD_SETS.items()}

    @cached_property
    def features(self) -> Scores:
        """Every set's measured features; then those of the test records with few leads."""

        def make() -> Scores:
            self.progress("measuring features")
            records = {name: [self.record(name, e) for e in entries] for name, entries in self.entries.items()}
            records |= {leads: [r.pick(leads.split(", ")) for r in records["test"]] for leads in LEAD_SETS}
            return {name: features_of(chosen) for name, chosen in records.items()}

        return kept_scores(self.work / "features.npz", make)

    def pooled(self, encoder: Encoder, name: str) -> Scores:
        """Each set through an encoder, frozen: the mean over time of each lead's embedding, leads side by side."""
        layer = int(self.model.checkpoint.config["embedding_layer"])

        def make() -> Scores:
            self.progress(f"pooling: {name}")
            return {held: lead_means_of(encoder, layer, self.own.examples(held)) for held in self.entries}

        return kept_scores(self.work / f"pooled-{name}-{self.model.checkpoint.sha256[:8]}.npz", make)

    def rows(self, fit: Fit) -> np.ndarray:
        """Return the training records a fit may learn from."""
        share, n_draws = FRACTIONS[fit.fraction]
        if n_draws == 1:
            return np.arange(len(self.entries["train"]))
        return drawn(self.labels["train"], self.patients("train"), share, fit.draw)


# -- fits ----------------------------------------------------------------------------------------------------

NETWORKS = {
    INCEPTION: (InceptionTime, {"learning_rate": 2e-3}),
    XRESNET: (XResNet, {"learning_rate": 4e-3}),
    MOBILEVIT: (MobileViT, {"learning_rate": 2e-3}),
}


def fitted(task: Task, fit: Fit) -> Scores:
    """Fit a model; return its logits of the validation and test records, and with all labels of the further sets."""
    rows = task.rows(fit)
    full = fit.fraction == "100 %" and fit.seed == 0
    further = list(OTHERS) if full else []
    if fit.line in NETWORKS:
        return _network(task, fit, rows, further + (list(LEAD_SETS) if full else []))
    y = task.labels["train"][rows]
    if fit.line in (PROBE, RAW_PROBE):
        encoder, name = {PROBE: (task.own.encoder, "trained"), RAW_PROBE: (task.own.untrained, "untrained")}[fit.line]
        return _logistic(task, task.pooled(encoder, name), rows, further)
    if fit.line == LOGISTIC:
        sets = ["train", "val", "test", *further]
        whole = filled(task.features["train"][rows], [task.features[name] for name in sets])[1:]
        return _logistic(task, dict(zip(sets, whole, strict=True)), rows, further)
    if fit.line in (TREES, WITH_TREES):
        return _with_trees(task, fit, rows, further + (list(LEAD_SETS) if full else []))
    if fit.line == BOOSTING:
        names = ["test", *further, *(LEAD_SETS if full else ())]
        x = task.features
        found = boosted_scores((x["train"][rows], y), (x["val"], task.labels["val"]), [x[name] for name in names])
        return dict(zip(["val", *names], found, strict=True))
    asked: dict[str, tuple[str, list[int] | None]] = {name: (name, None) for name in ("val", "test", *further)}
    if full:
        asked |= {leads: ("test", kept) for leads, kept in LEAD_SETS.items()}
    if fit.line == SHIPPED:
        # It learned from labels of cinc2021, split train: no other database to it.
        return _shipped(task, {name: held for name, held in asked.items() if not name.startswith("cinc2021")})
    trained = fit.line != RAW_TUNED
    settings = (
        linear_settings(len(rows), fit.seed, False)
        if fit.line == LINEAR
        else full_settings(len(rows), fit.seed, False, trained)
    )
    return task.own.head(rows, settings, known_macro_auroc, asked, task.progress, trained)


def _shipped(task: Task, asked: dict[str, tuple[str, list[int] | None]]) -> Scores:
    head = shipped_head(task.model, SUPERCLASSES)
    assert head is not None, "it was there when the plan was made"
    return {
        name: shipped_logits(
            *(task.model, head, (task.record(held, e) for e in task.entries[held]), SUPERCLASSES),
            leads=None if leads is None else tuple(STANDARD_LEADS[row] for row in leads),
        )
        for name, (held, leads) in asked.items()
    }


def _network(task: Task, fit: Fit, rows: np.ndarray, further: list[str]) -> Scores:
    network, options = NETWORKS[fit.line]
    settings = TrainSettings(epochs=25, least_steps=300 if len(rows) > 50 else 120, seed=fit.seed, **options)
    trained = fit_network(
        network, task.waves["train"].of(rows), task.waves["val"], settings, known_macro_auroc, task.progress
    )
    return {name: predict(trained, task.waves[name]) for name in ("val", "test", *further)}


def _with_trees(task: Task, fit: Fit, rows: np.ndarray, further: list[str]) -> Scores:
    """Grow trees as `anyecg.finetune` does, on whole records; add them to the linear head's logits, weighed on val."""
    names = ["val", "test", *further]
    kept = [FEATURE_NAMES.index(name) for name in FEATURE_NAMES if name != "beats"]
    x = {name: task.features[name][:, kept] for name in ("train", *names)}
    train, held = (x["train"][rows], task.labels["train"][rows]), (x["val"], task.labels["val"])
    forests = fit_forests(train, held, ForestSettings() if len(rows) >= ENOUGH_TO_BOOST else RandomSettings())
    trees = {name: forest_scores(forests, x[name]) for name in names}
    if fit.line == TREES:
        return trees
    linear = Fit(LINEAR, fit.fraction, fit.draw, fit.seed)
    network = kept_scores(task.folder_of(linear) / linear.file, partial(fitted, task, linear))
    weight = weighed(network["val"], trees["val"], task.labels["val"], False)["tree_weight"]
    return {name: network[name] + weight * trees[name] for name in names}


def _logistic(task: Task, x: Scores, rows: np.ndarray, further: list[str]) -> Scores:
    names = ["val", "test", *further]
    probe = fit_probe(
        (x["train"][rows], task.labels["train"][rows] == 1),
        (x["val"], task.labels["val"] == 1),
        np.concatenate([x[name] for name in names]),
    )
    ends = np.cumsum([len(x[name]) for name in names])[:-1]
    return dict(zip(names, np.split(probe.scores, ends), strict=True))


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Fit what is missing, in order of importance; measure everything there is."""
    torch.set_num_threads(1)
    task = Task(model, data, work, progress)
    kept, missing = fit_all(plan(model), task.folder_of, partial(fitted, task), progress)
    return measured(task, kept, missing)


# -- figures -------------------------------------------------------------------------------------------------


def measured(task: Task, kept: dict[Fit, Scores], missing: list[Fit]) -> dict[str, Any]:
    """Turn logits into figures."""
    lines: dict[str, dict[str, Any]] = {}
    by_line: dict[tuple[str, str], list[Scores]] = {}
    for fit, scores in kept.items():
        by_line.setdefault((fit.line, fit.fraction), []).append(scores)
    seeds = by_line.get((INCEPTION, "100 %"), [])
    if len(seeds) > 1:
        by_line[ENSEMBLE, "100 %"] = [{k: np.mean([s[k] for s in seeds], axis=0) for k in ("val", "test")}]
    ours = next((line for line in (SHIPPED, TUNED, LINEAR, PROBE) if (line, "100 %") in by_line), None)
    for (line, fraction), fits in by_line.items():
        reference = by_line.get((ours, "100 %")) if ours and fraction == "100 %" and line != ours else None
        lines.setdefault(line, {})[fraction] = _line(task, fits, fraction, reference)
    return {
        "records": {name: len(entries) for name, entries in task.entries.items()},
        "patients": {name: len(set(task.patients(name))) for name in ("train", "val", "test")},
        "prevalence": dict(zip(SUPERCLASSES, task.labels["test"].mean(axis=0).round(4).tolist(), strict=True)),
        "few_labels": {
            fraction: [len(task.rows(Fit("", fraction, draw))) for draw in range(n)]
            for fraction, (_, n) in FRACTIONS.items()
        },
        "compared_with": ours,
        "lines": lines,
        "others": {
            name: {
                "records": len(task.entries[name]),
                "unseen": int(sum(e.split != "train" for e in task.entries[name])),
                "positive": {c: int(np.nansum(task.labels[name][:, SUPERCLASSES.index(c)])) for c in OTHERS[name]},
            }
            for name in OTHERS
        },
        "missing": still_missing(missing),
    }


def _line(task: Task, fits: list[Scores], fraction: str, reference: list[Scores] | None) -> dict[str, Any]:
    truth, patients = task.labels["test"] == 1, task.patients("test")
    tests = [scores["test"] for scores in fits]
    reached, interval = mean_metric(macro_auroc, truth, tests, patients)
    found: dict[str, Any] = {
        "fits": len(fits),
        "macro_auroc": reached,
        "interval": interval,
        "each_fit": [macro_auroc(truth, scores) for scores in tests],
        "validation": float(np.mean([macro_auroc(task.labels["val"] == 1, scores["val"]) for scores in fits])),
    }
    if reference is not None:
        found["ours_minus_this"], found["ours_minus_this_interval"] = mean_difference(
            macro_auroc, truth, [scores["test"] for scores in reference], tests, patients
        )
    if fraction == "100 %":
        found["classes"] = {name: _class(task, fits, k) for k, name in enumerate(SUPERCLASSES)}
        found["leads"] = {
            leads: dict(zip(("macro_auroc", "interval"), mean_metric(macro_auroc, truth, part, patients), strict=True))
            for leads in LEAD_SETS
            if (part := [scores[leads] for scores in fits if leads in scores])
        }
        found["others"] = {name: _other(task, fits[0][name], name) for name in OTHERS if name in fits[0]}
    return found


def _class(task: Task, fits: list[Scores], k: int) -> dict[str, Any]:
    truth = task.labels["test"][:, k] == 1
    scores = [fit["test"][:, k] for fit in fits]
    gaps = []
    for fit in fits:
        calibration = calibrate(fit["val"], task.labels["val"], exclusive=False)
        gaps.append(calibration_error(truth, to_probability(calibration.logits(fit["test"]), False)[:, k]))
    reached, interval = mean_metric(auroc, truth, scores, task.patients("test"))
    return {
        "auroc": reached,
        "interval": interval,
        "average_precision": float(np.mean([average_precision(truth, s) for s in scores])),
        "calibration_error": float(np.mean(gaps)),
    }


def _other(task: Task, scores: np.ndarray, name: str) -> dict[str, Any]:
    found = {}
    unseen = np.array([e.split != "train" for e in task.entries[name]])
    for label in OTHERS[name]:
        k = SUPERCLASSES.index(label)
        truth, found_by = task.labels[name][:, k] == 1, scores[:, k]
        reached, interval = mean_metric(auroc, truth, [found_by], task.patients(name))
        found[label] = {"auroc": reached, "interval": interval, "auroc_unseen": auroc(truth[unseen], found_by[unseen])}
    return found


# -- tables --------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Print the fractions of labels, the classes, few leads, other databases, and what published figures had."""
    lines = numbers["lines"]
    ordered = sorted(
        (name for name in lines if "100 %" in lines[name]), key=lambda n: -lines[n]["100 %"]["macro_auroc"]
    )
    parts = [_head(numbers), "## Share of the labels\n\n" + _fractions(numbers, ordered)]
    parts.append("## Each superclass, all labels\n\n" + _classes(numbers, ordered))
    parts.append("## Fewer leads at test time, all labels\n\n" + _leads(numbers, ordered))
    parts.append("## Other databases, all labels\n\n" + _elsewhere(numbers, ordered))
    if numbers["missing"]:
        parts.append("Not fitted for want of time: " + "; ".join(numbers["missing"]) + ".")
    return "\n\n".join(parts)


def _span(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


def _head(numbers: dict[str, Any]) -> str:
    records, patients = numbers["records"], numbers["patients"]
    counts = ", ".join(f"{s} {records[s]} of {patients[s]} patients" for s in ("train", "val", "test"))
    prevalence = ", ".join(f"{name} {100 * share:.0f} %" for name, share in numbers["prevalence"].items())
    return (
        f"ptb-xl, a subset of it; records with a superclass: {counts}. Prevalence among test records: {prevalence}. A "
        "majority baseline has a macro AUROC of 0.5 and each class's prevalence for AUPRC.\n\n"
        "All methods learn from the same prepared records (10 s, 0.5-75 Hz), choose epochs and sizes on val (all of "
        "it, however few the training labels), and are measured on test; intervals are 95 %, patients resampled, of "
        "the mean over fits (seeds, draws of labels). Networks are trained from scratch at 100 Hz on random crops of "
        "2.5 s, tested on the mean over overlapping ones. *The head that ships* answers more labels, and learned from "
        "cinc2021's training records, too. *Linear head with trees* is what `anyecg finetune` makes of so many labels: "
        f"of fewer than {ENOUGH_TO_BOOST} records random trees, of more boosted ones, measuring whole records, not "
        "copies with leads left out as well; the trees' weight is chosen on val.\n\n"
        "Published, with all 17 k training records and other test records (fold 10 whole): superclasses .930 "
        "(xresnet1d101, doi:10.1109/JBHI.2020.3022989). Not comparable: there is a twelfth of the records here, and "
        "most of them are from fold 10, the usual test fold."
    )


def _fractions(numbers: dict[str, Any], ordered: list[str]) -> str:
    few = numbers["few_labels"]
    columns = [f"{f} ({', '.join(map(str, sorted(set(few[f]))))} records)" for f in FRACTIONS]
    ours = numbers["compared_with"]
    out = [
        f"Macro AUROC. Last column: *{ours}* minus this line, all labels.\n",
        "| method | " + " | ".join(columns) + " | ours minus this |",
        "| --- |" + " --- |" * (len(columns) + 1),
    ]
    for name in ordered:
        cells = []
        for fraction in FRACTIONS:
            found = numbers["lines"][name].get(fraction)
            n = f", {found['fits']} fits" if found and found["fits"] > 1 else ""
            cells.append(_span(found["macro_auroc"], found["interval"]) + n if found else "")
        whole = numbers["lines"][name]["100 %"]
        gap = whole.get("ours_minus_this")
        low, high = whole.get("ours_minus_this_interval", (0, 0))
        cells.append("" if gap is None else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})")
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def _classes(numbers: dict[str, Any], ordered: list[str]) -> str:
    out = [
        "AUROC (95 %), AUPRC, and expected calibration error of probabilities (temperature and shifts fitted on val)."
        "\n",
        "| method | " + " | ".join(SUPERCLASSES) + " | mean calibration error |",
        "| --- |" + " --- |" * (len(SUPERCLASSES) + 1),
    ]
    for name in ordered:
        classes = numbers["lines"][name]["100 %"]["classes"]
        cells = [f"{_span(c['auroc'], c['interval'])}, {c['average_precision']:.2f}" for c in classes.values()]
        error = np.mean([c["calibration_error"] for c in classes.values()])
        out.append(f"| {name} | " + " | ".join(cells) + f" | {error:.3f} |")
    return "\n".join(out)


def _leads(numbers: dict[str, Any], ordered: list[str]) -> str:
    out = [
        "The same models, given only some leads of each test record. Networks get zeros for the others and features of "
        "absent leads are missing; neither was trained for it. Our heads were: leads go missing in training.\n",
        "| method | 12 leads | " + " | ".join(LEAD_SETS) + " |",
        "| --- | --- |" + " --- |" * len(LEAD_SETS),
    ]
    for name in ordered:
        found = numbers["lines"][name]["100 %"]
        if found["leads"]:
            cells = [_span(**_named(found["leads"][leads])) for leads in LEAD_SETS]
            out.append(f"| {name} | {found['macro_auroc']:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def _named(found: dict[str, Any]) -> dict[str, Any]:
    return {"value": found["macro_auroc"], "interval": found["interval"]}


def _elsewhere(numbers: dict[str, Any], ordered: list[str]) -> str:
    about = "; ".join(
        f"{name}: {n['records']} records ({', '.join(f'{c} {k}' for c, k in n['positive'].items())}), {n['unseen']} of "
        "them in val and test"
        for name, n in numbers["others"].items()
    )
    columns = [(name, label) for name, labels in OTHERS.items() for label in labels]
    out = [
        f"AUROC on records of other hospitals, cut to 10 s. No label of them was learned from: {about}. Our encoder "
        "saw signals of the others, split train, in pre-training, without labels; *unseen* leaves them out. NORM: the "
        "source calls it normal (ludb: sinus rhythm, an axis and nothing else). CD: bundle branch, fascicular and "
        "atrioventricular blocks, conduction delays. HYP: hypertrophy or atrial overload. MI and STTC have no "
        "statements that mean the same.\n",
        "| method | " + " | ".join(f"{name} {label}" for name, label in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name in ordered:
        found = numbers["lines"][name]["100 %"]["others"]
        if found:
            cells = [found.get(database, {}).get(label) for database, label in columns]
            texts = [
                f"{_span(c['auroc'], c['interval'])}, unseen {c['auroc_unseen']:.2f}" if c else "learned from"
                for c in cells
            ]
            out.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(out)
