"""A recording of any length, a stretch of ten minutes at a time: what is in memory does not grow with its length.

Stretches begin where the recording's own clock says so, and are counted in samples: together they are what `read` would
return, no sample lost or twice. What was found of the amplitudes and of missing-sample marks in one holds in the next.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import floor, isfinite, log
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import audit
from anyecg.readers.audits.gain import implausible_gain
from anyecg.readers.audits.levels import levels_of
from anyecg.readers.slices import Extent, between, check_seconds, sample_range
from anyecg.readers.units import check_arguments
from anyecg.record import Record

__all__ = ["STRETCH_S", "Extent", "extent", "stretches"]

STRETCH_S = 600.0

SMALL_BYTES = 2_000_000
"""A file of no more is read at once, whatever is in it: to ask first how long it is takes longer."""

DAMAGE_S = 1.0
"""Where a stretch cannot be read as a whole, what comes before the damage is found to this."""


def extent(path: str | Path, *, fs: float | None = None, unit: str | None = None) -> Extent:
    """Return how long a recording is, and of which leads, without reading its samples where the format allows it.

    Parameters
    ----------
    path, fs, unit
        As for `anyecg.readers.read`.

    Raises
    ------
    ReadError, ValueError
        As `anyecg.readers.read`.
    """
    from anyecg.readers import cheap_extent, read_source

    check_arguments(fs, unit)
    found = cheap_extent(Path(path), fs, unit)
    if found is None:
        record = read_source(Path(path), None, None, fs, unit)
        found = Extent(record.n_samples, record.fs, record.leads)
    return found


def stretches(
    path: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    fs: float | None = None,
    unit: str | None = None,
    fix_units: bool = False,
    stretch_s: float = STRETCH_S,
) -> Iterator[Record]:
    """Read a recording one stretch after the other.

    Parameters
    ----------
    path, start_s, end_s, fs, unit, fix_units
        As for `anyecg.readers.read`. Whether amplitudes are corrected is decided by the first stretch that holds an
        ECG.
    stretch_s : float
        Seconds; each stretch but the first begins at a multiple of it.

    Yields
    ------
    Record
        All of the same leads and rate, each with ``start_s`` and with annotations counted from its own start. A
        warning is in the stretch where it is met first; one of a later stretch says from when on.

    Raises
    ------
    ReadError
        As `anyecg.readers.read`; or, after everything before it was yielded, from which second on the recording cannot
        be read.
    ValueError
        An argument is no number of seconds, no rate or no unit.

    Notes
    -----
    A format whose reader cannot read a slice for the price of a slice is read once, as a whole.
    """
    check_seconds(start_s, end_s)
    check_arguments(fs, unit)
    if not (isfinite(stretch_s) and stretch_s > 0):
        raise ValueError(f"stretch_s is {stretch_s}, allowed is a positive number of seconds")
    return _stretches(Path(path), start_s, end_s, fs, unit, fix_units, stretch_s)


def _stretches(
    path: Path,
    start_s: float | None,
    end_s: float | None,
    fs: float | None,
    unit: str | None,
    fix_units: bool,
    stretch_s: float,
) -> Iterator[Record]:
    from anyecg.readers import cheap_extent, read, read_source

    # A WFDB header is always small, and tells at once.
    small = path.suffix != ".hea" and path.is_file() and path.stat().st_size <= SMALL_BYTES
    known = None if small else cheap_extent(path, fs, unit)
    if known is None or known.n_samples == 0:
        whole = read(path, start_s=start_s, end_s=end_s, fs=fs, unit=unit, fix_units=fix_units)
        yield from _cut(whole, stretch_s)
        return
    said: list[str] = []
    begin, end = sample_range(str(path), known.n_samples, known.fs, start_s, end_s, said)
    common = Common(str(path), fix_units, said)
    for first, last in pairwise(_borders(begin, end, known.fs, stretch_s)):
        try:
            raw = read_source(path, first / known.fs, last / known.fs, fs, unit)
        except ReadError as error:
            good = _good_until(path, first, last, known.fs, fs, unit)
            if good > first:
                yield common.checked(read_source(path, first / known.fs, good / known.fs, fs, unit))
            elif first == begin:
                raise
            raise cannot_go_on(path, good / known.fs, str(error)) from error
        yield common.checked(raw)
        if last - first - raw.n_samples > DAMAGE_S * known.fs:
            raise cannot_go_on(path, first / known.fs + raw.duration_s, "it became shorter while it was read")


def cannot_go_on(path: Path, at_s: float, reason: str) -> ReadError:
    """Return the error of a recording of which what comes after a second cannot be read."""
    reason = reason.removeprefix(f"{path}: ")
    return ReadError(
        f"{path}: cannot be read from {at_s:.1f} s on ({reason}), expected a whole file. Copy it again, or read what "
        "comes before."
    )


def _borders(begin: int, end: int, fs: float, stretch_s: float) -> list[int]:
    """Return the first sample of each stretch, and the end: a multiple of the stretch's seconds, rounded once."""
    borders = [begin]
    number = floor(begin / (stretch_s * fs)) + 1
    while (at := round(number * stretch_s * fs)) < end:
        if at > borders[-1]:
            borders.append(at)
        number += 1
    return [*borders, end]


def _cut(whole: Record, stretch_s: float) -> Iterator[Record]:
    """Cut a record that was read, and checked, as a whole."""
    begin = round(whole.start_s * whole.fs)
    for first, last in pairwise(_borders(begin, begin + whole.n_samples, whole.fs, stretch_s)):
        yield cut(whole, first - begin, last - begin).with_(warnings=whole.warnings if first == begin else ())


def cut(record: Record, first: int, last: int) -> Record:
    """Return some samples of a record as a record of its own."""
    if (first, last) == (0, record.n_samples):
        return record
    from datetime import timedelta

    begin_s = first / record.fs
    return record.with_(
        signal=record.signal[:, first:last],
        start_s=(round(record.start_s * record.fs) + first) / record.fs,
        start_time=record.start_time + timedelta(seconds=begin_s) if record.start_time else None,
        annotations=between(record.annotations, begin_s, last / record.fs),
    )


def _good_until(path: Path, first: int, last: int, at_hz: float, fs: float | None, unit: str | None) -> int:
    """Return up to which sample a stretch that cannot be read as a whole can be read, to `DAMAGE_S`."""
    from anyecg.readers import read_source

    good, bad = first, last
    while bad - good > max(1.0, DAMAGE_S * at_hz):
        middle = (good + bad) // 2
        try:
            read_source(path, good / at_hz, middle / at_hz, fs, unit)
        except ReadError:
            bad = middle
        else:
            good = middle
    return good


class Common:
    """What the stretches of a recording have in common: leads, unit, marks, and what was said already.

    Parameters
    ----------
    where : str
        The source, for messages.
    fix_units : bool
    said : iterable of str
        Warnings for the first stretch.
    """

    def __init__(self, where: str, fix_units: bool, said: Iterable[str] = ()) -> None:
        self.where, self.fix_units = where, fix_units
        self._to_say = list(said)
        self._first: Record | None = None
        self._factor: float | None = None if fix_units else 1.0
        self._marks: dict[int, set[float]] = {}
        self._said: set[str] = set()

    def checked(self, raw: Record) -> Record:
        """Return a stretch as read, put right as those before it were, and checked."""
        # Until where is asked here, not by the user: what the caller asked for is in the list to say.
        messages = self._to_say + [m for m in raw.warnings if not m.startswith("asked until")]
        raw = raw.with_(warnings=())
        self._to_say = []
        raw = self._aligned(raw, messages)
        signal = raw.signal
        for row, values in self._marks.items():
            signal = signal.copy() if signal is raw.signal else signal
            signal[row, np.isin(signal[row], list(values))] = np.nan
        if self._factor is not None and self._factor != 1.0:
            signal = signal * np.float32(self._factor)
        given = raw if signal is raw.signal else raw.with_(signal=signal)
        record = audit(self.where, given, fix_units=self._factor is None)
        self._learn(raw, given, record)
        found = [m for m in record.warnings if not (self.fix_units and "fix_units=True" in m)]
        if self._first is None:
            self._first = raw.with_(signal=raw.signal[:, :0], annotations=())
        elif found:
            found = [f"from {_clock(raw.start_s)} on: {m}" for m in self._new(found)]
        return record.with_(warnings=(*self._new(messages), *self._new(found)))

    def as_before(self, raw: Record) -> Record:
        """Return what is too short to be judged by itself, with leads and marks as before, and what its reader said."""
        messages = [m for m in raw.warnings if not m.startswith("asked until")]
        raw = self._aligned(raw.with_(warnings=()), messages)
        if self._first is None:
            self._first = raw.with_(signal=raw.signal[:, :0], annotations=())
        signal = np.where(np.isinf(raw.signal), np.float32(np.nan), raw.signal)
        for row, values in self._marks.items():
            signal[row, np.isin(signal[row], list(values))] = np.nan
        return raw.with_(signal=signal, warnings=tuple(self._new(messages)))

    def _new(self, messages: Iterable[str]) -> list[str]:
        """Return the messages that were not said yet, numbers aside."""
        new = []
        for message in messages:
            key = re.sub(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?\b", "#", message)
            if key not in self._said:
                self._said.add(key)
                new.append(message)
        return new

    def _aligned(self, raw: Record, messages: list[str]) -> Record:
        """Return the stretch with the first one's leads, NaN where it has not got them.

        Raises
        ------
        ReadError
            Its rate is another.
        """
        like = self._first
        if like is None or (raw.leads == like.leads and raw.fs == like.fs):
            return raw
        if raw.fs != like.fs:
            raise ReadError(
                f"{self.where}: {raw.fs:g} Hz from {raw.start_s:.1f} s on, expected {like.fs:g} Hz as before. Read the "
                "two parts one by one."
            )
        if later := [name for name in raw.leads if name not in like.leads]:
            messages.append(f"leads that begin after the start were not read: {', '.join(later)}")
        signal = np.full((like.n_leads, raw.n_samples), np.nan, dtype=np.float32)
        for row, name in enumerate(like.leads):
            if name in raw.leads:
                signal[row] = raw.signal[raw.leads.index(name)]
        kept = frozenset(like.leads)
        return raw.with_(
            signal=signal,
            leads=like.leads,
            derived=raw.derived & kept,
            restored=raw.restored & kept,
            annotations=tuple(a for a in raw.annotations if a.lead is None or a.lead in kept),
        )

    def _learn(self, raw: Record, given: Record, record: Record) -> None:
        """Remember by what a stretch was corrected, and which of its values were marks of missing samples."""
        if record.signal is not given.signal:
            lost = np.isnan(record.signal) & np.isfinite(given.signal)
            for row in np.flatnonzero(lost.any(axis=1)).tolist():
                for value in np.unique(raw.signal[row, lost[row]]).tolist():
                    # A value that also stands between others is a lead at rest for a while, no mark.
                    if lost[row, raw.signal[row] == np.float32(value)].all():
                        self._marks.setdefault(row, set()).add(value)
        if self._factor is None:
            self._factor = _factor_of(given, record)


def _factor_of(given: Record, record: Record) -> float | None:
    """Return by which power of 1000 a stretch was corrected; None if nothing in it tells whether it should be."""
    levels = levels_of(record)
    if not (levels.high > levels.low).any() or implausible_gain(record, levels, fix=True)[1]:
        return None
    if record.signal is given.signal:
        return 1.0
    row = int(np.nanargmax(levels.high - levels.low))
    at = int(np.nanargmax(np.abs(record.signal[row])))
    ratio = abs(float(record.signal[row, at])) / abs(float(given.signal[row, at]))
    return float(1000.0 ** round(log(ratio, 1000)))


def _clock(seconds: float) -> str:
    """Return seconds from the recording's start as hours, minutes and seconds.

    Examples
    --------
    >>> _clock(4200.0)
    '1:10:00'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
