"""Row ``usable``: which recordings are fit to be read.

Twelve leads judged as a whole (cinc2011), and one handheld lead that is noise or not (cinc2017, class ~). Ours is the
score of `anyecg.quality`, thresholds without learning, tuned by hand on training records; for one lead also what the
shipped rhythm head says of noise. Beside it the classical indices alone, and classifiers fitted on all of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines.sqis import NAMES, features
from waveforms import kept

from anyecg.beats import find_beats
from anyecg.engine import Model
from anyecg.errors import SignalError
from anyecg.metrics import auroc, average_precision, patient_bootstrap
from anyecg.quality import assess
from anyecg.record import Record
from anyecg.tasks.arrhythmia import label_scores
from anyecg.training.datasets import READERS_OF, SINGLE_LEAD_DATABASE, Corpus, Entry, prepare_databases

UNFIT = {"cinc2011": "unacceptable", SINGLE_LEAD_DATABASE: "~"}
"""The databases, and the label of what is not fit to be read."""

ASKED = {"cinc2011": "acceptable or not, 12 leads of 10 s", SINGLE_LEAD_DATABASE: "noise or not, one handheld lead"}

OURS = {
    "AnyECG, mean of the leads' scores": lambda s: s.mean(),
    "AnyECG, worst lead's score": lambda s: s.min(),
    "AnyECG, second worst lead's score": lambda s: np.sort(s)[min(1, len(s) - 1)],
}
"""What a record's quality is when each lead has one; which of them is best is shown, not chosen."""

HEAD, NOISE = "rhythm", "NOISE"
HEADS = "AnyECG, rhythm head on noise"


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Score every record of each database, fit the classifiers on split train, measure on test."""
    prepared = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    return {name: _one(model, name, data, prepared, work, progress) for name in UNFIT}


def _one(
    model: Model, database: str, data: Path, prepared: Path, work: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    entries = {split: Corpus(prepared, split, (database,)).entries for split in ("train", "val", "test")}
    seen: dict[str, dict[str, Any]] = {}
    for split, some in entries.items():
        progress(f"{database} {split}")
        path = work / f"{database}-{split}.json"
        seen[split] = kept(path, lambda some=some: _seen(some, READERS_OF[database](data / database), model))
    unfit = {split: np.array([UNFIT[database] in e.labels for e in some]) for split, some in entries.items()}
    x = {split: np.array(found["sqis"], dtype=np.float64) for split, found in seen.items()}
    scores = {name: np.array(found) for name, found in _scores(seen["test"], x, unfit).items()}
    if database == SINGLE_LEAD_DATABASE:
        path = work / f"{database}-head.json"
        scores[HEADS] = np.array(kept(path, lambda: {"noise": _of_head(model, prepared, entries["test"])})["noise"])
        scores = {k: v for k, v in scores.items() if k not in list(OURS)[1:]}  # one lead: all three are the same
    patients = np.array([e.patient for e in entries["test"]])
    return {
        "n": {split: len(some) for split, some in entries.items()},
        "n_unfit": {split: int(some.sum()) for split, some in unfit.items()},
        "n_test_patients": len(np.unique(patients)),
        "methods": {name: _measured(unfit["test"], score, patients) for name, score in scores.items()},
    }


def _seen(entries: list[Entry], read: Callable[[str], tuple[Record, Any]], model: Model) -> dict[str, Any]:
    """Return of each record as read its leads' scores by ours, and its classical indices."""
    ours, classical = [], []
    for entry in entries:
        record = read(entry.record)[0]
        classical.append([None if np.isnan(v) else v for v in features(record).tolist()])
        try:
            quality = assess(record, model.prepare(record))
            ours.append([lead.score for lead in quality.leads.values()])
        except SignalError:  # no lead is recorded
            ours.append([0.0] * record.n_leads)
    return {"ours": ours, "sqis": classical}


def _scores(test: dict[str, Any], x: dict[str, np.ndarray], unfit: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how unfit each method thinks each test record is."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = {name: np.array([-way(np.array(leads)) for leads in test["ours"]]) for name, way in OURS.items()}
    boosting = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=12, min_samples_leaf=10, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    middle = np.nanmedian(x["train"], axis=0)
    filled = {split: np.where(np.isnan(values), middle, values) for split, values in x.items()}
    scores["all indices, boosting"] = boosting.fit(x["train"], unfit["train"]).predict_proba(x["test"])[:, 1]
    scores["all indices, logistic regression"] = linear.fit(filled["train"], unfit["train"]).predict_proba(
        filled["test"]
    )[:, 1]
    for k, name in enumerate(NAMES):  # each alone: the way round, and of which leads, that train tells
        of_train = {
            column: auroc(unfit["train"], filled["train"][:, column])
            for column in range(k, x["train"].shape[1], len(NAMES))
        }
        best = max(of_train, key=lambda column: abs(of_train[column] - 0.5))
        scores[f"{name} alone"] = filled["test"][:, best] * np.sign(of_train[best] - 0.5)
    return scores


def _of_head(model: Model, prepared: Path, entries: list[Entry]) -> list[float]:
    """Return the probability of noise that the shipped head gives each record."""
    head = model.head(HEAD)
    assert head is not None
    column = [label.code for label in head.labels].index(NOISE)
    corpus = Corpus(prepared, "test", (SINGLE_LEAD_DATABASE,))
    found = []
    for entry in entries:
        record = corpus.record(entry, model.checkpoint.grid.fs_hz)
        tokens = model.tokenize(record)
        found.append(float(label_scores(model, head, tokens, find_beats(record), prepared=record)[column]))
    return found


def _measured(unfit: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    low, high = patient_bootstrap(lambda rows: auroc(unfit[rows], scores[rows]), patients)
    return {"auroc": auroc(unfit, scores), "interval": [low, high], "auprc": average_precision(unfit, scores)}


def tables(numbers: dict[str, Any]) -> str:
    """Write one table a database."""
    lines = []
    for database, found in numbers.items():
        n, unfit = found["n"], found["n_unfit"]
        lines += [
            f"## {database}: {ASKED[database]}",
            "",
            f"Split test: {n['test']} records, {unfit['test']} of them unfit ({100 * unfit['test'] / n['test']:.1f} %; "
            f"AUPRC of chance {unfit['test'] / n['test']:.3f}). Classifiers, and which way round an index goes: fitted "
            f"on {n['train']} records of split train ({unfit['train']} unfit). In brackets: 95 % interval, "
            + ("patients" if found["n_test_patients"] < n["test"] else "records")
            + " drawn with replacement.",
            "",
            "| | AUROC | AUPRC |",
            "|---|---|---|",
        ]
        for method, m in found["methods"].items():
            low, high = m["interval"]
            lines.append(f"| {method} | {m['auroc']:.3f} ({low:.3f}-{high:.3f}) | {m['auprc']:.3f} |")
        lines.append("")
    lines += [
        "cinc2011's own measure was accuracy on a hidden set: .93 for its winners. Unacceptable records are "
        "over-represented in this subset.",
        "",
    ]
    return "\n".join(lines)
