"""Row ``fibrillation``: how often the classical detector of ventricular fibrillation and flutter is wrong.

How often it is right cannot be measured: no test record has either. The one patient with flutter is in split train,
where the threshold was set; what is found there is printed apart, and is no test.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.metrics import patient_bootstrap
from anyecg.record import Record
from anyecg.tasks.episodes import covered_until, seconds_of
from anyecg.tasks.fibrillation import CODE, THRESHOLD, WINDOW_S, leakage, time_away, vf_episodes, vf_windows
from anyecg.training.beat_series import read_series
from anyecg.training.datasets import Corpus, prepare_databases

DAY_H = 24.0
ALL = "all of them"
SETS = {
    "mitdb DS2": ("mitdb", None),
    "afpdb": ("afpdb", None),
    "cinc2017, N, A and O": ("cinc2017", ("N", "A", "O")),
    "cinc2017, noise": ("cinc2017", ("~",)),
    "ptb-xl (10 s each)": ("ptb-xl", None),
}
FLUTTER = ("mitdb", "207", "VFL")
"""The one record with marked flutter; of split train."""

TCSC_THRESHOLD, LEAKAGE_THRESHOLD = 0.48, 0.406
"""As published: Arafat 2011 (doi:10.1007/s11760-009-0136-1); Kuo 1978, in the words of Amann 2005
(doi:10.1186/1475-925X-4-60), the stricter of his two, since no QRS complex before it is compared with."""

Scorer = Callable[[Record], np.ndarray]


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Count false alarms on split test, and what is found of the flutter in split train."""
    fs_hz = model.checkpoint.preparation.fs_hz
    folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    methods: dict[str, tuple[Scorer, float]] = {
        "anyecg (three measures)": (vf_windows, THRESHOLD),
        "TCSC alone": (partial(_alone, time_away), TCSC_THRESHOLD),
        "leakage alone": (partial(_alone, _tightness), 1 - LEAKAGE_THRESHOLD),
    }
    numbers: dict[str, Any] = {"sets": {}, "methods": {name: {} for name in methods}}
    every: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    about: list[tuple[np.ndarray, np.ndarray]] = []
    for title, (database, labels) in SETS.items():
        corpus = Corpus(folder, "test", (database,))
        entries = [e for e in corpus.entries if labels is None or e.labels[0] in labels]
        hours = np.array([e.n_samples / fs_hz / 3600 for e in entries])
        patients = np.array([e.patient for e in entries])
        patients = np.char.add(f"{database}/", patients)
        about.append((hours, patients))
        numbers["sets"][title] = _about(hours, patients)
        for name, (scorer, threshold) in methods.items():
            alarms = [len(vf_episodes(scorer(corpus.record(e, fs_hz)), WINDOW_S, threshold)) for e in entries]
            every[name].append(np.array(alarms))
            numbers["methods"][name][title] = _rate(every[name][-1], hours, patients)
        progress(f"fibrillation: {title} done")
    hours, patients = (np.concatenate(part) for part in zip(*about, strict=True))
    numbers["sets"][ALL] = _about(hours, patients)
    for name, alarms in every.items():
        numbers["methods"][name][ALL] = _rate(np.concatenate(alarms), hours, patients)
    numbers["train"] = {
        name: _found(Corpus(folder, "train", FLUTTER[:1]), data, fs_hz, *method) for name, method in methods.items()
    }
    return numbers


def _about(hours: np.ndarray, patients: np.ndarray) -> dict[str, float]:
    return {"n_records": len(hours), "n_patients": len(set(patients.tolist())), "hours": float(hours.sum())}


def _tightness(windows: np.ndarray, fs: float) -> np.ndarray:
    """Return 1 - leakage of each window (..., n)."""
    return 1 - leakage(windows)


def _alone(measure: Callable[[np.ndarray, float], np.ndarray], record: Record) -> np.ndarray:
    """Return the mean over leads of one measure of each window; NaN where not recorded."""
    size = round(WINDOW_S * record.fs)
    n_whole = record.n_samples // size
    windows = record.signal[:, : n_whole * size].reshape(record.n_leads, n_whole, size).astype(np.float64)
    recorded = np.isfinite(windows).all(axis=2)
    values = measure(np.where(recorded[..., None], windows, 0.0), record.fs)
    heard = recorded.sum(axis=0)
    return np.where(heard > 0, (values * recorded).sum(axis=0) / np.maximum(heard, 1), np.nan)


def _rate(alarms: np.ndarray, hours: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """Return false alarms, their rate a day with its interval, and, without any, the highest rate that 95 % allows."""

    def a_day(rows: np.ndarray) -> float:
        return float(alarms[rows].sum() / hours[rows].sum() * DAY_H)

    return {
        "alarms": int(alarms.sum()),
        "records": int((alarms > 0).sum()),
        "a_day": a_day(np.arange(len(alarms))),
        "interval": patient_bootstrap(a_day, patients) if alarms.any() else (0.0, 3 / hours.sum() * DAY_H),
    }


def _found(corpus: Corpus, data: Path, fs_hz: float, scorer: Scorer, threshold: float) -> dict[str, Any]:
    """Hold the episodes found in the one record with flutter against its marks."""
    database, name, code = FLUTTER
    entry = next(e for e in corpus.entries if e.record == name)
    marks_s = seconds_of(read_series(data / database / name, database, entry.patient).marks, code)
    scores = scorer(corpus.record(entry, fs_hz))
    episodes_s = seconds_of(vf_episodes(scores, WINDOW_S, threshold), CODE)
    edges_s = np.arange(len(scores) + 1) * WINDOW_S
    inside = np.diff(covered_until(marks_s, edges_s)) >= 0.95 * WINDOW_S
    hit = np.array([np.diff(covered_until(episodes_s, mark))[0] > 0 for mark in marks_s])
    long = np.diff(marks_s, axis=1)[:, 0] >= 8
    return {
        "n_windows": int(inside.sum()),
        "windows_over": int((scores[inside] >= threshold).sum()),
        "n_marked": len(marks_s),
        "n_marked_8_s": int(long.sum()),
        "hit": int(hit.sum()),
        "hit_8_s": int(hit[long].sum()),
    }


def tables(numbers: dict[str, Any]) -> str:
    """Return the row's tables as Markdown."""
    parts = [
        "Prevalence 0: no record of split test has ventricular fibrillation or flutter, so every alarm is false, and "
        "sensitivity is not measured. An alarm is an episode of 8 s or more. 95 % intervals: patients drawn 500 times; "
        "without any alarm, from 0 to the rule of three. The threshold was set on split train (mitdb DS1, cinc2017, "
        "afpdb); the baselines' are published ones. The databases are subsets.",
    ]
    for title, group in numbers["sets"].items():
        parts.append(
            f"### {title}\n\n{group['n_records']} records, {group['n_patients']} patients, {group['hours']:.1f} h."
        )
        rows = ["| method | alarms | in records | a day |", "|---|---|---|---|"]
        for name, measured in numbers["methods"].items():
            m = measured[title]
            low, high = m["interval"]
            rows.append(f"| {name} | {m['alarms']} | {m['records']} | {m['a_day']:.2f} ({low:.2f}-{high:.2f}) |")
        parts.append("\n".join(rows))
    parts.append(
        "### Flutter of mitdb 207, split train: not a test\n\nThe threshold was set with these 2.4 minutes in sight. "
        "*Windows*: of four seconds, all flutter. *Marked of 8 s*: shorter ones cannot be found."
    )
    rows = ["| method | windows over the threshold | marked stretches hit | marked of 8 s hit |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {m['windows_over']} of {m['n_windows']} | {m['hit']} of {m['n_marked']} | "
        f"{m['hit_8_s']} of {m['n_marked_8_s']} |"
        for name, m in numbers["train"].items()
    ]
    parts += ["\n".join(rows), _ANCHORS]
    return "\n\n".join(parts)


_ANCHORS = (
    "Published figures (Amann 2005, Arafat 2011) are of databases with hours of fibrillation, by windows, and of both "
    "sensitivity and specificity; what is measured here, alarms a day where there is none, is not among them. How much "
    "of fibrillation is found remains unknown."
)
