"""What our own EDF+ files say in their annotations: remarks, annotations, gaps and the true end."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from anyecg.record import Annotation

EQUIPMENT = "AnyECG"
"""What the recording field of such a file names."""

RECORDING_ENDS = "Recording ends"

MISSING_COUNT = -32768
"""Digital value of a sample that was not recorded."""

_ANNOTATION = re.compile(
    r"(?P<kind>beat|rhythm|diagnosis|quality|fiducial|anomaly|note): (?P<code>.*?)"
    r"(?: \(score (?P<score>[-+.\deE]+)\))?(?:@@(?:ECG )?(?P<lead>.+))?"
)


@dataclass
class EdfNotes:
    """The annotations of a file, told apart."""

    remarks: list[str] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    end_s: float | None = None
    start_us: int = 0
    """Of the start time, beyond its whole second."""


def is_ours(path: Path) -> bool:
    """Return whether the recording field names this program as the equipment (EDF+, 2.1.3.4)."""
    with path.open("rb") as file:
        return file.read(168)[88:].split()[4:5] == [EQUIPMENT.encode()]


def read_notes(path: Path) -> EdfNotes:
    """Return what the annotations of a file of ours say."""
    import pyedflib

    with pyedflib.EdfReader(str(path)) as reader:
        marks = list(zip(*reader.readAnnotations(), strict=True))
        # EDFlib counts in 100 ns, which pyedflib 0.1.42 takes for 10 ns in its start time.
        notes = EdfNotes(start_us=min(999_999, round(reader.starttime_subsecond / 10)))
    for onset_s, length_s, text in marks:
        start_s, length_s, text = float(onset_s), max(0.0, float(length_s)), str(text)
        match = _ANNOTATION.fullmatch(text)
        if text == RECORDING_ENDS:
            notes.end_s = start_s
        elif match:
            score = float(match["score"]) if match["score"] else None
            notes.annotations.append(
                Annotation(start_s, start_s + length_s, match["kind"], match["code"], match["lead"], score)
            )
        else:
            notes.remarks.append(text)
    return notes


def between(annotations: list[Annotation], start_s: float, end_s: float) -> tuple[Annotation, ...]:
    """Return the annotations that touch a slice, cut to it and counted from its start."""
    kept = []
    for a in annotations:
        if a.start_s < end_s and (a.end_s > start_s or a.start_s >= start_s):
            first, last = max(a.start_s, start_s) - start_s, min(a.end_s, end_s) - start_s
            kept.append(Annotation(first, max(first, last), a.kind, a.code, a.lead, a.score))
    return tuple(kept)
