"""What our own EDF+ files say in their annotations: remarks, annotations, gaps and the true end."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from anyecg.readers.edf.layout import Layout, annotations_of, blocks, data_records, onsets_in
from anyecg.readers.slices import between
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
    zero_s: float = 0.0
    """When the first data record begins, counted from the whole second of the start time."""


def is_ours(path: Path) -> bool:
    """Return whether the recording field names this program as the equipment (EDF+, 2.1.3.4)."""
    with path.open("rb") as file:
        return file.read(168)[88:].split()[4:5] == [EQUIPMENT.encode()]


def read_notes(layout: Layout) -> EdfNotes:
    """Return what the annotations of a file of ours say.

    Raises
    ------
    ReadError
        A data record has no time.
    """
    return _read_notes(layout, layout.path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_notes(layout: Layout, changed_ns: int) -> EdfNotes:
    """All of them, since the last ones say where the recording ends; asked stretch by stretch, they are read once."""
    zero_s = float(onsets_in(layout, data_records(layout, 0, 1), 0)[0])
    notes = EdfNotes(zero_s=zero_s)
    for _, records in blocks(layout, 0, layout.n_records):
        for mark in annotations_of(layout, records):
            start_s, length_s = mark.start_s - zero_s, mark.end_s - mark.start_s
            match = _ANNOTATION.fullmatch(mark.code)
            if mark.code == RECORDING_ENDS:
                notes.end_s = start_s
            elif match:
                score = float(match["score"]) if match["score"] else None
                notes.annotations.append(
                    Annotation(start_s, start_s + length_s, match["kind"], match["code"], match["lead"], score)
                )
            else:
                notes.remarks.append(mark.code)
    return notes


def notes_between(layout: Layout, zero_s: float, start_s: float, end_s: float) -> tuple[Annotation, ...]:
    """Return the annotations of a continuous file that stand in the data records of a slice, counted from its start."""
    if not layout.annotations:
        return ()
    first, last = int(start_s // layout.duration_s), int(end_s // layout.duration_s) + 1
    found = annotations_of(layout, data_records(layout, first, last))
    return between(found, zero_s + start_s, zero_s + end_s)
