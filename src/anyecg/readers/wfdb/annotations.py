"""What is said about a WFDB record: beats and rhythms in NAME.atr, diagnoses in the header's comments."""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from anyecg.record import Annotation

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""https://archive.physionet.org/physiobank/annotations.shtml, beat annotations."""

SYMBOLS = dict(enumerate("NLRaVFJASEj/Q~", 1))
SYMBOLS |= {16: "|"} | dict(enumerate('sT*D"=pB^t+u?![]en@xf()r', 18))
"""Of an annotation file's codes (wfdb/ecgcodes.h)."""

HIGHEST_MARK, SKIP, AUX = 49, 59, 63
"""Codes: the last one of a mark; a long interval follows; a text follows."""

MAX_ANNOTATION_BYTES = 8_000_000
"""Ten days of a racing heart have 4 MB."""


def read_annotations(
    header: Path, comments: tuple[str, ...], fs: float, start_s: float, end_s: float
) -> tuple[tuple[Annotation, ...], list[str]]:
    """Return the annotations between two seconds, counted from the first of them, and what went wrong.

    Parameters
    ----------
    header : Path
        The record's header file; NAME.atr beside it is read if it is there.
    comments : tuple of str
        The header's: ``Dx: 426177001,...`` are diagnoses of the whole record.
    fs : float
        Hz: what the annotation times are counted in unless the file says otherwise.
    start_s, end_s : float
        Seconds of the record.
    """
    length_s = end_s - start_s
    found = [Annotation(0.0, length_s, "diagnosis", code) for code in diagnoses(comments)]
    file = header.with_suffix(".atr")
    if not file.is_file():
        return tuple(found), []
    if file.resolve().parent != header.parent.resolve():
        return tuple(found), [f"annotations not read: {file.name} is a link to another folder"]
    if file.stat().st_size > MAX_ANNOTATION_BYTES:
        return tuple(found), [f"annotations not read: {file.name} has more than {MAX_ANNOTATION_BYTES} bytes"]
    try:
        marks = read_marks(file, file.stat().st_mtime_ns)
    except (ValueError, IndexError, OverflowError, OSError) as error:
        return tuple(found), [f"annotations not read: {file.name} is damaged ({type(error).__name__}: {error})"]
    return (*found, *_beats_and_rhythms(marks, fs, start_s, end_s)), []


def diagnoses(comments: tuple[str, ...]) -> list[str]:
    """Return the SNOMED CT codes of ``Dx:`` comments (CinC 2020 and 2021), each once."""
    codes: dict[str, None] = {}
    for line in comments:
        if match := re.match(r"Dx\s*:\s*(.*)", line):
            codes |= dict.fromkeys(code for code in re.split(r"[,\s]+", match[1]) if re.fullmatch(r"\d{6,18}", code))
    return list(codes)


@dataclass(frozen=True, eq=False)
class Marks:
    """What an annotation file holds: times in ticks and symbols of its marks, and the rhythm changes among them."""

    ticks: np.ndarray
    symbols: list[str]
    changes: list[tuple[int, str]]
    ticks_hz: float | None


@lru_cache(maxsize=2)
def read_marks(file: Path, changed_ns: int) -> Marks:
    """Parse an annotation file in the MIT format (annot-5); asked stretch by stretch, it is parsed once.

    Words of 16 bits: a code of 6 bits, and the ticks since the mark before in 10. wfdb's own way there takes half a
    second for a day's beats.
    """
    words = np.frombuffer(data := file.read_bytes(), "<u2", len(data) // 2)
    codes, steps = words >> 10, (words & 1023).astype(np.int64)
    texts: dict[int, bytes] = {}
    is_mark = codes <= HIGHEST_MARK
    begin, end = 0, len(words)
    for at in np.flatnonzero((codes == SKIP) | (codes == AUX) | (words == 0)).tolist():
        if at < begin:
            continue  # inside a text or a long interval
        if words[at] == 0:
            end = at
            break
        if codes[at] == SKIP:
            begin = at + 3
            steps[at] = np.int32((int(words[at + 1]) << 16 | int(words[at + 2])) - (int(words[at + 1]) >> 15 << 32))
        else:
            begin = at + 1 + (int(steps[at]) + 1) // 2
            texts[at] = data[2 * at + 2 : 2 * at + 2 + int(steps[at])]
            steps[at] = 0
        if begin > len(words):
            raise ValueError("it ends within a mark")
        steps[at + 1 : begin], is_mark[at + 1 : begin] = 0, False
    steps[(codes > HIGHEST_MARK) & (codes != SKIP)] = 0  # a number, a type or a channel: no time
    ticks = np.cumsum(steps[:end])
    places = np.flatnonzero(is_mark[:end])
    if (np.diff(ticks[places]) < 0).any():
        raise ValueError("its marks go back in time")
    symbols = [SYMBOLS.get(code, "") for code in codes[places].tolist()]
    changes = []
    stated = re.match(rb"## time resolution: ([\d.]+)", next(iter(texts.values()), b""))
    for at, text in texts.items():
        mark = int(np.searchsorted(places, at)) - 1
        note = text.decode("latin-1").strip("\x00").strip()
        if mark >= 0 and symbols[mark] == "+" and note.startswith("("):
            changes.append((int(ticks[places[mark]]), note[1:]))
    return Marks(ticks[places], symbols, changes, float(stated[1]) if stated else None)


def _beats_and_rhythms(marks: Marks, fs: float, start_s: float, end_s: float) -> list[Annotation]:
    """Return the beats in a stretch of time, and the rhythms that touch it, cut to it."""
    seconds = marks.ticks / (marks.ticks_hz or fs)
    first, last = np.searchsorted(seconds, [start_s, end_s]).tolist()
    beats = [
        Annotation(at_s - start_s, at_s - start_s, "beat", symbol)
        for at_s, symbol in zip(seconds[first:last].tolist(), marks.symbols[first:last], strict=True)
        if symbol in BEAT_SYMBOLS
    ]
    changes = [(at / (marks.ticks_hz or fs), code) for at, code in marks.changes]
    rhythms = []
    for (at_s, code), (until_s, _) in pairwise([*(change for change in changes if change[0] < end_s), (end_s, "")]):
        if until_s > start_s and until_s > at_s and code:
            rhythms.append(Annotation(max(at_s, start_s) - start_s, until_s - start_s, "rhythm", code))
    return beats + rhythms
