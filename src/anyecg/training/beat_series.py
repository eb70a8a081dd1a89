"""Annotation files of long recordings -> their beats, the class of each, and the rhythm marked at any time.

Read without signals: day-long databases are often annotations alone.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from anyecg.record import Annotation
from anyecg.training.datasets import RHYTHM_DATABASES, read_splits
from anyecg.training.marks import BEAT_CLASSES

AF = "AFIB"
UNKNOWN = ("", "AFL", "VFL", "P", "NOD", "BII")
"""Rhythms that are neither learned nor measured: none stated, flutter (too rare, and often regular), ventricular
flutter (no beats), pacing, nodal rhythm and block (RR intervals of their own that a few patients cannot teach)."""

NORMAL_RHYTHM = "N"
SKIP, AUX, RHYTHM_CHANGE = 59, 63, 28
"""Types of word in an annotation file."""


@dataclass(frozen=True, eq=False)
class BeatSeries:
    """The beats of one recording, with what their annotators said.

    Parameters
    ----------
    database, record, patient : str
    beats_s : ndarray of float64, shape (n_beats,)
    classes : ndarray of str, shape (n_beats,)
        EC57 classes, one letter each.
    marks : tuple of Annotation
        Kind ``"rhythm"``: one after another, without gaps, from the first mark to the last annotation.
    """

    database: str
    record: str
    patient: str
    beats_s: np.ndarray
    classes: np.ndarray
    marks: tuple[Annotation, ...]

    @cached_property
    def spans_s(self) -> np.ndarray:
        """Start and end of each mark, (n_marks, 2)."""
        return np.array([(mark.start_s, mark.end_s) for mark in self.marks]).reshape(-1, 2)

    @cached_property
    def codes(self) -> np.ndarray:
        """Rhythm of each mark, str (n_marks,)."""
        return np.array([mark.code for mark in self.marks], dtype="U8")

    def rhythm_at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the rhythm in force at each time (n,), str; empty before the first mark."""
        return np.append(self.codes, "")[np.searchsorted(self.spans_s[:, 0], times_s, side="right") - 1]

    def labels(self, times_s: np.ndarray | None = None) -> np.ndarray:
        """Return 1 = atrial fibrillation, 0 = not, -1 = unknown at each time, or each beat (n,)."""
        rhythm = self.rhythm_at(self.beats_s if times_s is None else times_s)
        return np.where(np.isin(rhythm, UNKNOWN), -1, (rhythm == AF).astype(np.int64))


def read_series(path: Path, database: str, patient: str, *, unmarked: str = "") -> BeatSeries:
    """Read the beats and rhythm marks of one record; ``unmarked`` is the rhythm of a record without any mark."""
    import wfdb

    fs = float(wfdb.rdheader(str(path)).fs)
    samples, types, notes = read_marks(path.with_name(f"{path.name}.atr").read_bytes())
    times_s = samples / fs
    class_of = {symbol: name for name, listed in BEAT_CLASSES.items() for symbol in listed}
    letters = {label.label_store: class_of.get(label.symbol, "") for label in wfdb.io.annotation.ann_labels}
    classes = np.array([letters.get(kind, "") for kind in range(64)], dtype="U1")[types]
    beats = classes != ""
    at = [i for i in np.flatnonzero(types == RHYTHM_CHANGE).tolist() if notes.get(i, "").startswith("(")]
    codes = [notes[i].removeprefix("(") for i in at]
    edges_s = [*times_s[at].tolist(), float(times_s[-1])]
    if unmarked and not codes:
        codes, edges_s = [unmarked], [0.0, float(times_s[-1])]
    marks = tuple(Annotation(a, b, "rhythm", code) for a, b, code in zip(edges_s, edges_s[1:], codes, strict=False))
    return BeatSeries(database, path.name, f"{database}/{patient}", times_s[beats], classes[beats], marks)


def read_marks(content: bytes) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Read an annotation file in the MIT format, ten times as fast as wfdb, which takes seconds for a day.

    Format: https://www.physionet.org/physiotools/wag/annot-5.htm. Each little-endian word is a type (6 bits) and the
    samples since the last annotation (10 bits); SKIP brings a longer time, AUX a text for the annotation before it.

    Returns
    -------
    samples, types : ndarray of int64, shape (n,)
    notes : dict
        The texts, by the number of their annotation.
    """
    words = np.frombuffer(content[: len(content) // 2 * 2], dtype="<u2").astype(np.int64)
    kind, value = words >> 10, words & 0x3FF
    ends = np.flatnonzero(words == 0)
    is_mark, step, texts, resume = kind < SKIP, value.copy(), {}, 0
    for i in np.flatnonzero((kind == SKIP) | (kind == AUX)).tolist():
        if i < resume:  # inside a text or an interval: not a type
            continue
        resume = i + 3 if kind[i] == SKIP else i + 1 + (int(value[i]) + 1) // 2
        is_mark[i + 1 : resume] = False
        if kind[i] == SKIP:
            longer = int(np.int32(np.uint32((int(words[i + 1]) << 16) | int(words[i + 2]))))
            step[resume] += longer
        else:
            texts[i] = words[i + 1 : resume].astype("<u2").tobytes()[: int(value[i])].decode("latin-1").strip("\x00 ")
    for end in ends[is_mark[ends]].tolist():  # the first zero that is no part of a text or an interval
        is_mark[end:] = False
        break
    at = np.flatnonzero(is_mark)
    owner = np.searchsorted(at, list(texts)) - 1
    return np.cumsum(step[at]), kind[at], dict(zip(owner.tolist(), texts.values(), strict=True))


def load_series(data: Path, splits_csv: Path, split: str, databases: tuple[str, ...]) -> list[BeatSeries]:
    """Read every record of a split that is there."""
    splits = read_splits(splits_csv)
    found = []
    for name in databases:
        unmarked = NORMAL_RHYTHM if name == RHYTHM_DATABASES[1] else ""
        for record, (patient, of_split) in sorted(splits.get(name, {}).items()):
            if of_split == split and (data / name / f"{record}.atr").is_file():
                found.append(read_series(data / name / record, name, patient, unmarked=unmarked))
    return found
