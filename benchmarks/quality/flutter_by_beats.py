"""Atrial flutter as it is told, from beats alone (`anyecg.tasks.flutter`): what it finds, and what it makes up.

Day-long recordings with marks of the rhythm and beats of their annotators; half-hour ones by our own beats, too. No
database marks flutter over days: of what is found inside marks of atrial fibrillation or supraventricular tachycardia
nobody says whether it is flutter. What is found outside of those marks is false.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.beats import detect_beats
from anyecg.engine import Model
from anyecg.heads import Head, open_head
from anyecg.metrics import patient_bootstrap
from anyecg.record import Annotation, runs_of
from anyecg.tasks.episodes import RATE_BEATS, SUSTAINED_S, covered_until, intact_intervals
from anyecg.tasks.flutter import CODE, RATE_BPM, STEADY_S, STEADY_SHARE, flutter_episodes
from anyecg.tasks.rhythm import HEAD, EpisodeRule, af_episodes_by, af_probability
from anyecg.training.beat_series import BeatSeries, load_series, read_series
from anyecg.training.datasets import Corpus

MARKED = ("mitdb",)
"""Databases whose marks tell flutter from fibrillation."""

WITH_BEATS = ("nsrdb", "ltafdb", "ltdb", *MARKED)
WITH_SIGNAL = (*MARKED, "afpdb")
SPLITS = {"train + val": ("train", "val"), "test": ("test",)}
MARKS = (CODE, "AFIB", "SVTA", "other")


def alike_for_30_s(beats_s: np.ndarray, classes: np.ndarray | None = None) -> list[Annotation]:
    """Find what the textbooks' rule alone finds: the same rates, as steady, for 30 s; no jump is asked for."""
    from scipy.ndimage import median_filter, uniform_filter1d

    if len(beats_s) <= RATE_BEATS:
        return []
    rr_s = np.diff(beats_s)
    level = median_filter(rr_s, RATE_BEATS, mode="nearest")
    steady = uniform_filter1d((np.abs(rr_s - level) <= STEADY_S).astype(float), 61, mode="nearest") >= STEADY_SHARE
    fast = (level >= 60 / RATE_BPM[1]) & (level <= 60 / RATE_BPM[0])
    runs = runs_of(steady & fast & intact_intervals(beats_s, None))
    found = [Annotation(float(beats_s[a]), float(beats_s[b]), "rhythm", CODE) for a, b in runs]
    return [a for a in found if a.end_s - a.start_s >= SUSTAINED_S]


METHODS: dict[str, Callable[..., list[Annotation]]] = {
    "regular, 130-175 a minute, between jumps": flutter_episodes,
    "the same without jumps": alike_for_30_s,
}


def measure_by_beats(model: Model, folder: Path, data: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Count episodes by the mark in force, split by split, by annotated beats and by our own."""
    numbers: dict[str, Any] = {}
    fs_hz, head = model.checkpoint.preparation.fs_hz, open_head(model.checkpoint.folder, HEAD)
    assert head is not None, f"the checkpoint has no head {HEAD}: anyecg train-heads FOLDER {HEAD}"
    for split, parts in SPLITS.items():
        annotated = [s for part in parts for s in load_series(data, data / "splits.csv", part, WITH_BEATS)]
        own = [s for part in parts for s in _by_our_beats(Corpus(folder, part, WITH_SIGNAL), data, fs_hz)]
        progress(f"flutter: {split} by beats")
        numbers[split] = {
            beats: {"fibrillation": _as_fibrillation(series, head)}
            | {title: _count(series, rule) for title, rule in METHODS.items()}
            for beats, series in (("annotated", annotated), ("ours", own))
        }
    return numbers


def _by_our_beats(corpus: Corpus, data: Path, fs_hz: float) -> Iterator[BeatSeries]:
    for entry, record in corpus.records(fs_hz):
        beats_s = detect_beats(record).r_peaks_s
        series = BeatSeries(entry.database, entry.record, entry.patient, beats_s, np.full(len(beats_s), "N"), ())
        if entry.database in MARKED:
            told = read_series(data / entry.database / entry.record, entry.database, entry.patient)
            series = replace(series, marks=told.marks)
        yield series


def _count(series: list[BeatSeries], rule: Callable[..., list[Annotation]]) -> dict[str, Any]:
    told = [rule(one.beats_s, one.classes) for one in series]
    marks = [[_mark(one, episode) for episode in episodes] for one, episodes in zip(series, told, strict=True)]
    counted: dict[str, Any] = {name: sum(of_one.count(name) for of_one in marks) for name in MARKS}
    counted["found"], counted["marked"] = _hit(series, told)
    who = [one.patient for one in series]
    within = {patient for patient, of_one in zip(who, marks, strict=True) if {"AFIB", "SVTA"} & set(of_one)}
    false = [of_one.count("other") for of_one in marks]
    days = [float(one.beats_s[-1] - one.beats_s[0]) / 86_400 for one in series]
    table = np.column_stack([false, days])

    def a_day(drawn: np.ndarray) -> float:
        return float(table[drawn, 0].sum() / table[drawn, 1].sum())

    return counted | {
        "patients_within": len(within),
        "a_day": a_day(np.arange(len(table))),
        "interval": patient_bootstrap(a_day, np.array(who)) if sum(false) else (0.0, 3 / sum(days)),
        "hours": 24 * sum(days),
        "n_patients": len(set(who)),
    }


def _hit(series: list[BeatSeries], told: list[list[Annotation]]) -> tuple[int, int]:
    """Return how many marked stretches of flutter of 30 s and more are hit by what was told, and how many there are."""
    hit = marked = 0
    for one, episodes in zip(series, told, strict=True):
        told_s = np.array([(a.start_s, a.end_s) for a in episodes]).reshape(-1, 2)
        for edges_s in one.spans_s[one.codes == CODE]:
            if edges_s[1] - edges_s[0] >= SUSTAINED_S:
                marked += 1
                hit += bool(np.diff(covered_until(told_s, edges_s))[0] > 0)
    return hit, marked


def _as_fibrillation(series: list[BeatSeries], head: Head) -> int:
    """Return how many marked stretches of flutter of 30 s and more are told as fibrillation."""
    with_flutter = [one for one in series if CODE in one.codes]
    told = [
        af_episodes_by(EpisodeRule.of(head), one.beats_s, af_probability(head, one.beats_s)) for one in with_flutter
    ]
    return _hit(with_flutter, told)[0]


def _mark(series: BeatSeries, episode: Annotation) -> str:
    """Return the mark in force in the middle of an episode; what is no tachycardia of the atria is ``other``."""
    (mark,) = series.rhythm_at(np.array([(episode.start_s + episode.end_s) / 2]))
    return str(mark) if mark in MARKS else "other"


def describe_by_beats(numbers: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    columns = (
        *("rule", "split", "beats", "hours (patients)", "marked of 30 s found", "told as fibrillation"),
        *("found in marks of flutter", "of fibrillation or SVT (patients)", "elsewhere: false", "a day"),
    )
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for split, by_beats in numbers.items():
        for beats, by_rule in by_beats.items():
            for title in METHODS:
                m = by_rule[title]
                cells = (
                    *(title, split, beats, f"{m['hours']:,.0f} ({m['n_patients']})"),
                    *(f"{m['found']} of {m['marked']}", f"{by_rule['fibrillation']} of {m['marked']}", str(m[CODE])),
                    *(f"{m['AFIB'] + m['SVTA']} ({m['patients_within']})", str(m["other"])),
                    "{:.2f} ({:.2f}-{:.2f})".format(m["a_day"], *m["interval"]),
                )
                lines.append("| " + " | ".join(cells) + " |")
    return "\n\n".join(
        [
            "### What is told: by beats alone\n\nA regular rhythm of 130 to 175 a minute for 30 s or more that begins "
            "or ends with a jump of the rate is told as atrial flutter (`anyecg.tasks.flutter`): the sinus node comes "
            "and goes step by step. Its limits were set on split train and val. *Annotated*: the beats of nsrdb, "
            "ltafdb, ltdb and mitdb; *ours*: beats found by us in mitdb and afpdb. Only mitdb marks flutter, and all "
            "of it is irregular: it is told as fibrillation. So **no marked episode has shown that the rule finds what "
            "it is for**; the table shows how seldom it is wrong, and the strips below that flutter does beat so. "
            "Ltafdb marks fibrillation and SVT; whether what is found there is flutter nobody says, but a rate that "
            "stays for minutes and then halves is no fibrillation. Afpdb and ltdb have no marks: all that is found "
            "there counts as false.",
            "\n".join(lines),
        ]
    )
