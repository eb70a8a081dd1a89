"""Record heads measured through the shipped graphs, as users meet them: on test patients, by lead set, sex and age.

Quality is not asked here: every test record counts, noisy ones too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.beats import find_beats
from anyecg.codes import table
from anyecg.engine import Model
from anyecg.heads import Head, head_names, open_head
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import auroc, calibration_error, f1_score, patient_bootstrap
from anyecg.tasks.arrhythmia import KIND, for_leads, label_scores
from anyecg.training.datasets import LABEL_TABLES, SUPERCLASSES, Corpus, Entry
from anyecg.training.label_scores import chance_error, each_label, rounded

LEAD_SETS = {
    **{"12 leads": STANDARD_LEADS, "I, II, V2": ("I", "II", "V2")},
    **{"II": ("II",), "I": ("I",)},
}
AGE_BANDS = {"under 40": (0, 40), "40 to 59": (40, 60), "60 to 74": (60, 75), "75 and over": (75, 200)}
LEAST_OF_EACH = 5
"""Positives and negatives a label needs to count in a macro mean: the AUROC of two records says nothing."""


def evaluate_heads(
    model: Model, folder: Path, data: Path, progress: Callable[[str], None], splits: Path
) -> dict[str, Any]:
    """Measure every record head whose labels are those of a public label table.

    Parameters
    ----------
    model : Model
    folder, data, splits : Path
        The prepared corpus, the restored databases, and the CSV of splits that it was prepared by.
    progress : callable
        Takes one line.

    Returns
    -------
    dict
        By head: per lead set each label's AUROC, average precision, F1 at the threshold, calibration error and
        prevalence, the macro AUROC with a patient bootstrap; with all leads also what calibration error right
        answers would have, and the macro AUROC by sex and age band. JSON-ready.
    """
    found = {}
    for name in head_names(model.checkpoint.folder):
        head = open_head(model.checkpoint.folder, name)
        if head is not None and head.config["kind"] == KIND and name in LABEL_TABLES:
            found[name] = _evaluate_head(model, head, folder, LABEL_TABLES[name](data, splits), progress)
    return {"split": "test: patients no stage of training saw; thresholds and calibration from val", "heads": found}


def _evaluate_head(
    model: Model, head: Head, folder: Path, table: list[dict[str, str]], progress: Callable[[str], None]
) -> dict[str, Any]:
    rows = {row["file"]: row for row in table if row["split"] == "test"}
    corpus = Corpus(folder, "test")
    entries = [e for e in corpus.entries if f"{e.database}/{e.record}.hea" in rows]
    codes = [label.code for label in head.labels]
    truth = np.stack([truth_of(rows[f"{e.database}/{e.record}.hea"], codes) for e in entries])
    sets = LEAD_SETS if all(len(e.leads) == len(STANDARD_LEADS) for e in entries) else {"one lead": None}
    by_set, scores = {}, {}
    for name, leads in sets.items():
        progress(f"{head.name}: {name}")
        scores[name] = np.stack([_scores(model, head, corpus, e, leads) for e in entries])
        by_set[name] = _measure(truth, scores[name], head, len(leads or ("",)), entries)
    first = next(iter(scores))
    for k, row in enumerate(by_set[first]["labels"]):
        known = scores[first][np.isfinite(truth[:, k]), k]
        row["calibration_error_by_chance"] = [rounded(x) for x in chance_error(known)] if len(known) else None
    return {
        "databases": sorted({e.database for e in entries}),
        "n_records": len(entries),
        "n_patients": len({e.patient for e in entries}),
        "exclusive": bool(head.config["exclusive"]),
        "by_leads": by_set,
        "subgroups": _subgroups(truth, scores[first], entries),
    }


def truth_of(row: dict[str, str], codes: list[str]) -> np.ndarray:
    """Return what a row of a label table says of some labels: 1, 0, or NaN where it is not known."""
    if "label" in row:
        return np.array([float(row["label"] == code) for code in codes])
    return np.array([float(row[code]) if row[code] else np.nan for code in codes])


def _scores(model: Model, head: Head, corpus: Corpus, entry: Entry, leads: tuple[str, ...] | None) -> np.ndarray:
    record = corpus.record(entry, model.checkpoint.grid.fs_hz)
    if leads is not None:
        record = record.pick(leads)
    return label_scores(model, head, model.tokenize(record), find_beats(record), prepared=record)


def _measure(truth: np.ndarray, scores: np.ndarray, head: Head, n_leads: int, entries: list[Entry]) -> dict[str, Any]:
    config = for_leads(head.config, n_leads)
    told = config.get("told", [True] * len(head.labels))
    decided = scores >= np.array(config.get("thresholds", [label.threshold for label in head.labels]))
    if head.config["exclusive"]:
        decided = scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])
    rows = each_label(truth, scores, decided)
    labels = [
        {"code": label.code, "name": label.name, "told": told[k], **row}
        for k, (label, row) in enumerate(zip(head.labels, rows, strict=True))
    ]
    patients = np.array([e.patient for e in entries])
    found: dict[str, Any] = {"labels": labels, "macro_auroc": _with_interval(macro(truth, scores), patients)}
    supers = [k for k, label in enumerate(head.labels) if label.code in SUPERCLASSES]
    if supers:
        found["superclass_auroc"] = _with_interval(macro(truth[:, supers], scores[:, supers]), patients)
    known = np.isfinite(truth)
    found["calibration_error"] = rounded(calibration_error(truth[known] == 1, scores[known]))
    if head.config["exclusive"]:
        kept = [k for k, label in enumerate(head.labels) if table()[label.code].kind == "rhythm"]

        def mean_f1(rows: np.ndarray) -> float:
            return float(np.mean([f1_score(truth[rows, k] == 1, decided[rows, k]) for k in kept]))

        found["mean_f1"] = _with_interval(mean_f1, patients)
        majority = int(truth.mean(axis=0).argmax())
        always = np.arange(truth.shape[1]) == majority
        found["majority_mean_f1"] = rounded(
            np.mean([f1_score(truth[:, k] == 1, np.full(len(truth), always[k])) for k in kept])
        )
    return found


def macro(truth: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return the function from rows to the mean AUROC of the labels that are frequent enough in all rows."""
    enough = [
        k for k in range(truth.shape[1]) if min(np.sum(truth[:, k] == 1), np.sum(truth[:, k] == 0)) >= LEAST_OF_EACH
    ]

    def of_rows(rows: np.ndarray) -> float:
        each = []
        for k in enough:
            known = rows[np.isfinite(truth[rows, k])]
            each.append(auroc(truth[known, k] == 1, scores[known, k]))
        return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")

    return of_rows


def _with_interval(metric: Callable[[np.ndarray], float], patients: np.ndarray) -> dict[str, Any]:
    low, high = patient_bootstrap(metric, patients)
    return {"value": rounded(metric(np.arange(len(patients)))), "interval": [rounded(low), rounded(high)]}


def _subgroups(truth: np.ndarray, scores: np.ndarray, entries: list[Entry]) -> dict[str, Any]:
    """Return the macro AUROC of each sex and age band that has enough of two labels and more."""
    groups = {sex: [i for i, e in enumerate(entries) if e.sex == sex] for sex in ("female", "male")}
    for name, (low, high) in AGE_BANDS.items():
        groups[name] = [i for i, e in enumerate(entries) if e.age is not None and low <= e.age < high]
    found = {}
    for name, chosen in groups.items():
        if len(chosen) >= 4 * LEAST_OF_EACH:
            rows = np.array(chosen)
            patients = np.array([entries[i].patient for i in chosen])
            metric = macro(truth[rows], scores[rows])
            found[name] = {"n": len(chosen), **_with_interval(metric, patients)}
    return found
