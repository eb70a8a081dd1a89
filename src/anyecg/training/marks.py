"""What cardiologists marked in the databases -> what each fragment of each lead holds: waves, beats.

Times are seconds from the start of the record, so they outlive resampling. Everything here is pure but the two
functions that read annotation files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WAVES = ("P", "QRS", "T")
_WAVE_SYMBOLS = {"p": 0, "N": 1, "t": 2}

LEAST_OVERLAP_S = 0.02
"""A wave that reaches less far into a fragment does not count: marks are no more exact (a few samples at 500 Hz)."""

BEAT_CLASSES = {"N": "NLRejB", "S": "AaJSn", "V": "VEr", "F": "F", "Q": "/fQ?"}
"""The classes of ANSI/AAMI EC57 and the MIT-BIH symbols of each.

As in de Chazal 2004 (doi:10.1109/TBME.2004.827359), table I, where bundle branch block and escape beats of atrial and
nodal origin are N; the symbols it does not list (B, n, r, ?) go where EC57 puts their origin.
"""


@dataclass(frozen=True)
class Wave:
    """One marked wave of one lead: seconds from the start of the record; ``kind`` counts in `WAVES`."""

    kind: int
    start_s: float
    peak_s: float
    end_s: float


def read_waves(record: Path, lead: str) -> list[Wave]:
    """Read the marks of one lead of a LUDB record; none if that lead has no file of marks.

    Each wave is ``(``, its peak (``p``, ``N`` = QRS, ``t``), ``)``; where an edge was not marked, the peak stands for
    it.
    """
    import wfdb

    if not record.with_name(f"{record.name}.{lead.lower()}").is_file():
        return []
    marks = wfdb.rdann(str(record), lead.lower())
    seconds = (np.asarray(marks.sample) / float(marks.fs)).tolist()
    symbols = ["", *marks.symbol, ""]
    waves = []
    for i, at_s in enumerate(seconds):
        kind = _WAVE_SYMBOLS.get(symbols[i + 1])
        if kind is not None:
            start_s = seconds[i - 1] if symbols[i] == "(" else at_s
            end_s = seconds[i + 1] if symbols[i + 2] == ")" else at_s
            waves.append(Wave(kind, start_s, at_s, end_s))
    return waves


def read_beats(record: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the beats of a MIT-BIH record: seconds (n,), and the class of each, counted in `BEAT_CLASSES` (n,)."""
    import wfdb

    marks = wfdb.rdann(str(record), "atr")
    class_of = {symbol: k for k, symbols in enumerate(BEAT_CLASSES.values()) for symbol in symbols}
    found = [(at / marks.fs, class_of[s]) for at, s in zip(marks.sample, marks.symbol, strict=True) if s in class_of]
    return np.array([at_s for at_s, _ in found]), np.array([k for _, k in found], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class WavesHeld:
    """What each of n fragments of one lead holds.

    ``known`` bool (n,): the fragment lies wholly between the lead's first and last mark. ``overlap_s`` float (3, n):
    seconds of P, QRS and T. ``peaks`` bool (3, n): the peak of a P, QRS, T is inside.
    """

    known: np.ndarray
    overlap_s: np.ndarray
    peaks: np.ndarray

    def kind(self) -> np.ndarray:
        """Return the wave of largest overlap, int (n,), counted in `WAVES`; 3 = none reaches `LEAST_OVERLAP_S`."""
        largest = self.overlap_s.argmax(axis=0)
        return np.where(self.overlap_s.max(axis=0) >= LEAST_OVERLAP_S, largest, len(WAVES))

    def kinds_of_peaks(self) -> np.ndarray:
        """Return the set of peaks inside as a number: 1 for P + 2 for QRS + 4 for T; int (n,)."""
        return (self.peaks * np.array([[1], [2], [4]])).sum(axis=0)


def waves_held(waves: Iterable[Wave], n_fragments: int, fragment_s: float) -> WavesHeld:
    """Lay the marked waves of one lead on its fragments.

    The annotators left out the first and last beats of many leads, and began amid a beat: what lies before the first
    mark or after the last is unknown, not empty.
    """
    waves = list(waves)
    overlap_s = np.zeros((len(WAVES), n_fragments))
    peaks = np.zeros((len(WAVES), n_fragments), dtype=bool)
    edges_s = np.arange(n_fragments + 1) * fragment_s
    for wave in waves:
        inside = np.minimum(wave.end_s, edges_s[1:]) - np.maximum(wave.start_s, edges_s[:-1])
        overlap_s[wave.kind] += np.maximum(inside, 0)
        at = int(wave.peak_s / fragment_s)
        if at < n_fragments:
            peaks[wave.kind, at] = True
    known = np.zeros(n_fragments, dtype=bool)
    if waves:
        first_s, last_s = min(w.start_s for w in waves), max(w.end_s for w in waves)
        known = (edges_s[:-1] >= first_s) & (edges_s[1:] <= last_s)
    return WavesHeld(known, overlap_s, peaks)


def beat_held(beats_s: np.ndarray, classes: np.ndarray, n_fragments: int, fragment_s: float) -> np.ndarray:
    """Return the class of the beat whose R peak each fragment holds; of several, the one nearest to its middle.

    Returns
    -------
    ndarray of int, shape (n_fragments,)
        Counted in `BEAT_CLASSES`; -1 = no R peak inside.
    """
    held = np.full(n_fragments, -1, dtype=np.int64)
    at = (beats_s / fragment_s).astype(int)
    from_middle = np.abs(beats_s / fragment_s - at - 0.5)
    for i in np.argsort(-from_middle, kind="stable"):  # the nearest is written last
        if at[i] < n_fragments:
            held[at[i]] = classes[i]
    return held
