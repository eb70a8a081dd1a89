"""What is said about a WFDB record: beats and rhythms in NAME.atr, diagnoses in the header's comments."""

import re
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from anyecg.record import Annotation

BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""https://archive.physionet.org/physiobank/annotations.shtml, beat annotations."""

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
        marks = _read_marks(file, fs, end_s)
    except Exception as error:  # noqa: BLE001  wfdb raises whatever a damaged file happens to provoke
        return tuple(found), [f"annotations not read: {file.name} is damaged ({type(error).__name__}: {error})"]
    return (*found, *_beats_and_rhythms(marks, start_s, end_s)), []


def diagnoses(comments: tuple[str, ...]) -> list[str]:
    """Return the SNOMED CT codes of ``Dx:`` comments (CinC 2020 and 2021), each once."""
    codes: dict[str, None] = {}
    for line in comments:
        if match := re.match(r"Dx\s*:\s*(.*)", line):
            codes |= dict.fromkeys(code for code in re.split(r"[,\s]+", match[1]) if re.fullmatch(r"\d{6,18}", code))
    return list(codes)


def _read_marks(file: Path, fs: float, end_s: float) -> list[tuple[float, str, str]]:
    """Return ``(second, symbol, note)`` of the marks up to ``end_s``; a slice's first rhythm stands before it."""
    import wfdb

    with file.open("rb") as opened:
        stated = re.search(rb"## time resolution: ([\d.]+)", opened.read(64))
    last = ceil(end_s * (float(stated[1]) if stated else fs))
    marks = wfdb.rdann(str(file.absolute().with_suffix("")), "atr", sampto=max(1, last))
    ticks_hz = float(marks.fs or fs)
    seconds = np.asarray(marks.sample, dtype=np.float64) / ticks_hz
    return list(zip(seconds.tolist(), marks.symbol, marks.aux_note, strict=True))


def _beats_and_rhythms(marks: list[tuple[float, str, str]], start_s: float, end_s: float) -> list[Annotation]:
    """Return the beats in a stretch of time, and the rhythms that touch it, cut to it."""
    beats: list[Annotation] = []
    changes: list[tuple[float, str]] = []
    for at_s, symbol, note in marks:
        if at_s >= end_s:
            break
        if symbol in BEAT_SYMBOLS and at_s >= start_s:
            beats.append(Annotation(at_s - start_s, at_s - start_s, "beat", symbol))
        elif symbol == "+" and note.startswith("("):
            changes.append((at_s, note.strip("\x00").strip()[1:]))
    rhythms = []
    for (at_s, code), (until_s, _) in pairwise([*changes, (end_s, "")]):
        if until_s > start_s and until_s > at_s and code:
            rhythms.append(Annotation(max(at_s, start_s) - start_s, until_s - start_s, "rhythm", code))
    return beats + rhythms
