"""What a format cannot hold, in words: each function returns one line a loss, and none if nothing is lost.

A writer's ``losses(record)`` is the sum of those that concern its format.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from anyecg.record import Annotation, Record

COARSE_MV = 1e-3
"""A step above 1 uV is reported. Devices record 1 to 5 uV (IEC 60601-2-25, 201.12.4.107: at most 5 uV)."""


def coarse_steps(record: Record, steps_mv: Sequence[float]) -> list[str]:
    """Return a line if leads span so much that their steps exceed 1 uV."""
    coarse = [
        f"{lead} {1000 * step:.4g} uV"
        for lead, step in zip(record.leads, steps_mv, strict=True)
        if step > COARSE_MV * (1 + 1e-9)
    ]
    return [f"amplitudes are kept in steps coarser than 1 uV: {', '.join(coarse)}"] if coarse else []


def gaps(record: Record, instead: str) -> list[str]:
    """Return a line if there are samples that were not recorded, and say what is written for them."""
    n_missing = int(np.isnan(record.signal).sum())
    return [f"{n_missing} samples that were not recorded are written as {instead}"] if n_missing else []


def annotations(record: Record, kept: Callable[[Annotation], bool] = lambda _: False) -> list[str]:
    """Return a line if there are annotations that the format has no place for."""
    lost = Counter(annotation.kind for annotation in record.annotations if not kept(annotation))
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items()))
    return [f"annotations are left out: {counts}"] if counts else []


def start_time(record: Record, *, whole_seconds: bool = False, zone: bool = False) -> list[str]:
    """Return lines if the start has a fraction of a second or a time zone that the format does not keep."""
    time = record.start_time
    lines = []
    if time is not None and whole_seconds and time.microsecond:
        lines.append(f"the start time is kept to whole seconds: {time.microsecond / 1e6:g} s are cut off")
    if time is not None and time.tzinfo is not None and not zone:
        lines.append(f"the start time's zone {time.strftime('%z')} is left out")
    return lines


def source_rate(record: Record) -> list[str]:
    """Return a line if the record was resampled: no format says so."""
    if record.source_fs is None:
        return []
    return [f"that it was recorded at {record.source_fs:g} Hz is left out"]


def stored_rate(record: Record, stored_hz: float, why: str) -> list[str]:
    """Return a line if the format's rate is not the record's."""
    if abs(stored_hz / record.fs - 1) < 1e-9:
        return []
    return [f"{record.fs:.10g} Hz is kept as {stored_hz:.10g} Hz: {why}"]


def lead_names(record: Record, stored: Sequence[str]) -> list[str]:
    """Return a line if leads come back under other names."""
    changed = [f"{name!r} as {as_!r}" for name, as_ in zip(record.leads, stored, strict=True) if name != as_]
    return [f"lead names change: {', '.join(changed)}"] if changed else []
