"""What our own writers say of a record in a format's comments (see `anyecg.writers.notes`), put back into it."""

import re
from collections.abc import Iterable

from anyecg.readers.patient import age_from_text, sex_from_text
from anyecg.readers.wfdb.header import named_leads, uncalibrated
from anyecg.record import Record

SIGNATURE = "Written by AnyECG"
"""One line starts so: a device's comments are not searched for ours."""


def with_notes(record: Record, texts: Iterable[str]) -> Record:
    """Return the record with what its file's comments say of leads, gain and person, if our writer wrote them.

    Parameters
    ----------
    record : Record
        As the format's own fields describe it.
    texts : iterable of str
        The comments; each may have several lines. An age or a weight among them is exact, where a field of the format
        may hold whole numbers only, and so comes first.
    """
    lines = _lines(texts)
    if not is_signed(lines):
        return record
    weight = re.fullmatch(r"\d+(?:\.\d+)?", _said(lines, "Weight"))
    age = age_from_text(_said(lines, "Age"))
    return record.with_(
        age=record.age if age is None else age,
        sex=sex_from_text(_said(lines, "Sex")) or record.sex,
        weight_kg=float(weight[0]) if weight else record.weight_kg,
        gain_known=record.gain_known and not uncalibrated(lines),
        derived=record.derived | named_leads(lines, "Derived", record.leads),
        restored=record.restored | named_leads(lines, "Restored", record.leads),
    )


def is_signed(texts: Iterable[str]) -> bool:
    """Return whether our writer wrote the file: its leads are as they were, in their order, none to be completed."""
    return any(line.startswith(SIGNATURE) for line in _lines(texts))


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(line.strip() for text in texts for line in text.splitlines())


def _said(lines: tuple[str, ...], key: str) -> str:
    """Return what follows ``key:`` in the first line that starts so, or an empty text."""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:")), "")
