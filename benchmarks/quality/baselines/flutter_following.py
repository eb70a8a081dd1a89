"""Episodes of flutter by a followed rate (`baselines.flutter_path`): its threshold, and what it finds and makes up.

Chosen on splits train and val: the lowest threshold with at most `MOST_FALSE_A_DAY` false episodes a day in long
recordings without flutter. It would be told if, with it, most marked episodes of 30 s on split train were found.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines.flutter_path import STEP_S, STRETCH_S, followed, joined

from anyecg.beats import detect_beats
from anyecg.metrics import patient_bootstrap
from anyecg.record import Record
from anyecg.tasks.episodes import covered_until
from anyecg.training.datasets import Corpus, Entry

METHODS = {"rate followed": "path", "rate followed x RR as its multiples": "locked"}
MOST_FALSE_A_DAY, FEWEST_FOUND = 2.0, 0.5
DECIMATE = 5
JOINED_S = 60.0
TWO_LEADS = ("II", "V1")
"""Of strips: most long recordings have two leads."""

FLUTTER, FIBRILLATION = "AFL", "AFIB"
STRIPS, LONG, SINGLE = ("ptb-xl", "cinc2021"), ("mitdb", "afpdb"), "cinc2017"
SOURCES = {
    "train": (*STRIPS, *LONG, SINGLE),
    "val": ("afpdb", SINGLE),
    "test": (*LONG, SINGLE),
}
UNSURE = ("O", "~")

Known = Callable[[Entry, int], tuple[list[str], list[list[float]]]]


def measure_followed(
    folder: Path, fs_hz: float, work: Path, known: Known, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Score, choose a threshold on train and val, and count on every split."""
    scored: dict[str, list[dict[str, Any]]] = {}
    for split, databases in SOURCES.items():
        scored[split] = []
        for database in databases:
            file = work / f"followed-{split}-{database}.json"
            if not file.is_file():
                file.write_text(json.dumps(_score(Corpus(folder, split, (database,)), fs_hz, known)))
            scored[split] += json.loads(file.read_text())
            progress(f"flutter: {split} {database} followed")
    fitting = scored["train"] + scored["val"]
    numbers: dict[str, Any] = {}
    for title, method in METHODS.items():
        threshold = _threshold([r for r in fitting if r["database"] in LONG and not r["marked_s"]], method)
        numbers[title] = {"threshold": threshold} | {
            name: _count(rows, method, threshold) for name, rows in (("fitting", fitting), ("test", scored["test"]))
        }
        of_train = numbers[title]["fitting"]
        numbers[title]["told"] = of_train["found"] > FEWEST_FOUND * of_train["marked"]
    numbers["cpu_ms_per_minute"] = _cost(Corpus(folder, "val", ("afpdb",)), fs_hz)
    return numbers


def _score(corpus: Corpus, fs_hz: float, known: Known) -> list[dict[str, Any]]:
    rows = []
    for entry in corpus.entries:
        if entry.database == SINGLE and entry.labels[0] in UNSURE:
            continue
        rhythm, marked_s = known(entry, 1)
        strip = entry.database in STRIPS
        if strip and rhythm[0] not in (FLUTTER, FIBRILLATION):
            continue
        record = corpus.record(entry, fs_hz)
        beats_s = detect_beats(record).r_peaks_s
        waves, fs = _slower(record), record.fs / DECIMATE
        if strip:
            longer = joined(waves[[record.leads.index(name) for name in TWO_LEADS]], beats_s, fs, JOINED_S)
            if longer is None:
                continue
            waves, beats_s = longer
        if waves.shape[1] >= STRETCH_S * fs:
            scores = followed(waves, beats_s, fs)
            about = {"database": entry.database, "patient": entry.patient, "rhythm": rhythm[0], "marked_s": marked_s}
            about |= {"record": entry.record, "days": waves.shape[1] / fs / 86_400}
            rows.append(about | {name: values.tolist() for name, values in scores.items()})
    return rows


def _slower(record: Record) -> np.ndarray:
    """Return the signal at a fifth of the rate, (n_leads, n), what is not recorded as 0."""
    n = record.n_samples // DECIMATE
    waves = np.nan_to_num(record.signal[:, : n * DECIMATE].astype(np.float64))
    return np.asarray(waves.reshape(record.n_leads, n, DECIMATE).mean(axis=2))


def episodes_s(scores: list[float], threshold: float) -> np.ndarray:
    """Return start and end of each episode (n, 2): stretches over the threshold that touch or overlap are one."""
    over = np.flatnonzero(np.array(scores) >= threshold)
    if not len(over):
        return np.empty((0, 2))
    apart = np.diff(over) * STEP_S > STRETCH_S
    first, last = over[np.append(True, apart)], over[np.append(apart, True)]
    return np.column_stack([first * STEP_S, last * STEP_S + STRETCH_S])


def _threshold(rows: list[dict[str, Any]], method: str) -> float:
    """Return the lowest hundredth with at most `MOST_FALSE_A_DAY`."""
    days = sum(row["days"] for row in rows)
    for threshold in np.arange(0.1, 1.0, 0.01):
        if sum(len(episodes_s(row[method], threshold)) for row in rows) <= MOST_FALSE_A_DAY * days:
            return float(round(threshold, 2))
    return 1.0


def _count(rows: list[dict[str, Any]], method: str, threshold: float) -> dict[str, Any]:
    """Count episodes found and made up in long recordings, and records with one among strips and single leads."""
    long_rows = [row for row in rows if row["database"] in LONG]
    marked, found = 0, 0
    for row in long_rows:
        told_s = episodes_s(row[method], threshold)
        for mark_s in row["marked_s"]:
            if mark_s[1] - mark_s[0] >= STRETCH_S:
                marked += 1
                found += bool(np.diff(covered_until(told_s, np.array(mark_s)))[0] > 0)
    free = [row for row in long_rows if not row["marked_s"]]
    table = np.array([(len(episodes_s(row[method], threshold)), row["days"]) for row in free])

    def a_day(drawn: np.ndarray) -> float:
        return float(table[drawn, 0].sum() / table[drawn, 1].sum())

    days = float(table[:, 1].sum())
    who = np.array([row["patient"] for row in free])
    counted: dict[str, Any] = {
        "marked": marked,
        "found": found,
        "a_day": a_day(np.arange(len(free))),
        "interval": patient_bootstrap(a_day, who) if table[:, 0].any() else (0.0, 3 / days),
        "hours": 24 * days,
        "n_patients": len(set(who.tolist())),
    }
    for name, databases, rhythms in (
        ("joined AFL", STRIPS, (FLUTTER,)),
        ("joined AF", STRIPS, (FIBRILLATION,)),
        ("single AF", (SINGLE,), (FIBRILLATION,)),
        ("single N", (SINGLE,), ("other",)),
    ):
        part = [row for row in rows if row["database"] in databases and row["rhythm"] in rhythms]
        counted[name] = [sum(max(row[method], default=0) >= threshold for row in part), len(part)]
    return counted


def _cost(corpus: Corpus, fs_hz: float) -> float:
    """Return the processor time for a minute of three leads, ms, the beats not counted."""
    record = corpus.record(corpus.entries[0], fs_hz)
    beats_s = detect_beats(record).r_peaks_s
    record = record.with_(signal=np.concatenate([record.signal, record.signal[:1]]), leads=("I", "II", "III"))
    start = time.process_time()
    followed(_slower(record), beats_s, record.fs / DECIMATE)
    return 1000 * (time.process_time() - start) / (record.duration_s / 60)


def describe(numbers: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| method | split | threshold | marked of 30 s found | false episodes a day | hours (patients) | joined AFL | "
        "joined AF | cinc2017 A | cinc2017 N |",
        "|---" * 10 + "|",
    ]
    for title in METHODS:
        for split, name in (("fitting", "train + val"), ("test", "test")):
            m, (low, high) = numbers[title][split], numbers[title][split]["interval"]
            shares = " | ".join(
                f"{hit} of {n}" if n else "-"
                for hit, n in (m[part] for part in ("joined AFL", "joined AF", "single AF", "single N"))
            )
            lines.append(
                f"| {title} | {name} | {numbers[title]['threshold']:.2f} | {m['found']} of {m['marked']} | "
                f"{m['a_day']:.1f} ({low:.1f}-{high:.1f}) | {m['hours']:.1f} ({m['n_patients']}) | {shares} |"
            )
    told = any(numbers[title]["told"] for title in METHODS)
    return "\n\n".join(
        [
            f"### A remedy tried: the rate followed over {STRETCH_S:g} s\n\nWhat marks flutter is that its rate stays. "
            "So: the best path through the rates of overlapping windows, and that times how well RR intervals are "
            "multiples of the cycle. Threshold: the lowest with at most "
            f"{MOST_FALSE_A_DAY:g} false episodes a day in long recordings of train and val without flutter. Rule, "
            "stated beforehand: told if most marked episodes of split train are then found. They "
            f"{'are' if told else '**are not**'}. The rates and widths were set by hand with train and val in sight. "
            f"*Joined*: strips of ten seconds of train, leads II and V1, laid end to end to {JOINED_S:g} s, to choose "
            "by and no proof: their rate stays because they repeat. *cinc2017*: records of 30 s and more with one "
            "episode or more; some of its class A may be flutter.",
            "\n".join(lines),
            f"Processor time: {numbers['cpu_ms_per_minute']:.1f} ms for a minute of three leads. The one marked "
            "episode of train is in mitdb 203. Seen by eye, not counted: the spectrum of its V1 has a wandering band "
            "at 6 to 7 Hz in the whole half hour, inside the marks as outside: faster than is looked for, and no "
            "different from the fibrillation beside it.",
        ]
    )
