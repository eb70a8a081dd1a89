"""From seconds asked for to samples to read, with a bound on what is allocated."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from anyecg.errors import ReadError
from anyecg.record import Annotation

OWN_COUNT = "by its own count"
"""Ends the warning of a file that is longer or shorter than it says, as one is that still grows."""

VALUES_PER_BYTE = 64
"""A slice may hold this many samples for each byte of its source: gaps cost no bytes, nor does much of a flat line."""

VALUES_FREE = 20_000_000
"""And this many besides (80 MB as float32, and copies of it on the way), so that a small file with one long gap can be
read: 22 hours of a lead at 250 Hz."""


@dataclass(frozen=True)
class Extent:
    """How long a recording is, and of what.

    Parameters
    ----------
    n_samples : int
        Of each lead.
    fs : float
        Hz.
    leads : tuple of str
    """

    n_samples: int
    fs: float
    leads: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.fs


def between(annotations: Iterable[Annotation], start_s: float, end_s: float) -> tuple[Annotation, ...]:
    """Return the annotations that touch a slice, cut to it and counted from its start."""
    kept = []
    for a in annotations:
        if a.start_s < end_s and (a.end_s > start_s or a.start_s >= start_s):
            first, last = max(a.start_s, start_s) - start_s, min(a.end_s, end_s) - start_s
            kept.append(Annotation(first, max(first, last), a.kind, a.code, a.lead, a.score))
    return tuple(kept)


def check_seconds(start_s: float | None, end_s: float | None) -> None:
    """Refuse seconds that no record could have.

    Raises
    ------
    ValueError
        Not finite, negative, or the start is not before the end.
    """
    for name, value in (("start_s", start_s), ("end_s", end_s)):
        if value is not None and not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}, allowed are seconds from 0 on")
    if end_s is not None and (start_s or 0.0) >= end_s:
        raise ValueError(f"start_s is {start_s or 0.0} and end_s {end_s}, allowed is a start before the end")


def sample_range(
    where: str, n_samples: int, fs: float, start_s: float | None, end_s: float | None, warnings: list[str]
) -> tuple[int, int]:
    """Return the first sample to read and the one after the last.

    Parameters
    ----------
    where : str
        The source, for messages.
    n_samples : int
        What the source holds of each lead.
    fs : float
        Hz.
    start_s, end_s : float or None
        Seconds from the source's first sample, as `check_seconds` allows them.
    warnings : list of str
        An end beyond the source's end is reported here.

    Raises
    ------
    ReadError
        Nothing lies between start and end.
    """
    duration_s = n_samples / fs
    first = round((start_s or 0.0) * fs)
    last = n_samples if end_s is None else min(round(end_s * fs), n_samples)
    if n_samples > 0 and first >= n_samples:
        raise ReadError(
            f"{where}: the record ends at {duration_s:.3f} s, expected a start before that, not {start_s} s. "
            "Ask for an earlier start."
        )
    if n_samples > 0 and first >= last:
        raise ReadError(
            f"{where}: no sample lies between {start_s or 0.0} s and {end_s} s at {fs:g} Hz, expected at least one. "
            "Ask for a longer slice."
        )
    if end_s is not None and end_s > duration_s + 1 / fs:
        warnings.append(f"asked until {end_s:g} s, but the record ends at {duration_s:.3f} s")
    return first, last


def check_size(where: str, n_values: int, n_bytes: int) -> None:
    """Refuse to allocate far more samples than a source of this size can hold.

    Raises
    ------
    ReadError
        The header claims what the file cannot contain.
    """
    if n_values > VALUES_PER_BYTE * n_bytes + VALUES_FREE:
        raise ReadError(
            f"{where}: the header claims {n_values} samples in a file of {n_bytes} bytes, expected a plausible count. "
            "The header is damaged; read a short slice with a start and an end if it is not."
        )
