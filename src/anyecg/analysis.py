"""The whole way for one recording: a record, a file of any length, or one that is still growing -> Result."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from anyecg.engine import Model, load
from anyecg.errors import SignalError
from anyecg.excerpts import excerpts
from anyecg.readers import follow
from anyecg.record import Record
from anyecg.result import Result
from anyecg.saved import SavedState
from anyecg.source import Source
from anyecg.stream import Stream, open_all

Progress = Callable[[float], None]
"""Told how many seconds of a long recording are done."""

Tell = Callable[[str], None]
"""Told, in a line, what whoever waits should know and the result does not say."""

FIRST_RESULT_S = 2.0
"""Seconds of signal that a first result needs: a shorter record holds too few beats to judge its quality."""


def analyze(record: Record | str | Path, model: Model | str | Path = "nano") -> Result:
    """Analyse one record.

    Parameters
    ----------
    record : Record, str or Path
        A record as `anyecg.read` returned it, or the path of a file. Of a file of more than ten minutes no more than a
        stretch is in memory at a time, and the result holds the signal of the strips worth a look only.
    model : Model, str or Path
        A loaded model, or what `anyecg.load` takes.

    Returns
    -------
    Result
        ``result.to_dict()`` is its JSON; `anyecg.write_report` draws it.

    Raises
    ------
    ReadError, SignalError, CheckpointError

    Examples
    --------
    >>> import anyecg
    >>> result = anyecg.analyze("ecg.dcm")  # doctest: +SKIP
    """
    if not isinstance(record, Record):
        return analyze_file(record, model)
    stream = Stream(record, model, keep_signal=True)
    stream.feed(record.signal)
    return replace(stream.result(), record=record)


def analyze_file(
    path: str | Path,
    model: Model | str | Path = "nano",
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    fs: float | None = None,
    unit: str | None = None,
    fix_units: bool = False,
    state: Path | None = None,
    progress: Progress | None = None,
    tell: Tell = lambda line: None,
) -> Result:
    """Analyse a file, a stretch of ten minutes at a time.

    Parameters
    ----------
    path, start_s, end_s, fs, unit, fix_units
        As for `anyecg.read`.
    model : Model, str or Path
    state : Path, optional
        Where to keep what a long analysis has found so far. If it is stopped, the next call with the same arguments
        goes on from there; at the end the file is removed.
    progress : callable, optional
        Called with the seconds done.
    tell : callable, optional
        Called with a line where a stopped analysis is taken up, or the state cannot be kept.

    Raises
    ------
    ReadError
        Nothing of it can be read. Where a part at the end cannot, the rest is analysed, and a warning says so.
    SignalError, CheckpointError
    """
    model = model if isinstance(model, Model) else load(model)
    open_all(model)  # the graphs open while the file is read
    source = Source(Path(path), start_s, end_s, fs, unit, fix_units)
    damage: list[str] = []
    found = source.stretches(damage)
    first, second = next(found), next(found, None)
    if second is None:
        result = analyze(first, model)
    else:
        saved = None if state is None else SavedState(state, source.fingerprint() | model.describe())
        result = _analyze_long(source, chain((first, second), found), damage, first, model, saved, progress, tell)
    return replace(result, warnings=tuple(dict.fromkeys((*result.warnings, *damage))))


def _analyze_long(
    source: Source,
    found: Iterator[Record],
    damage: list[str],
    first: Record,
    model: Model,
    saved: SavedState | None,
    progress: Progress | None,
    tell: Tell,
) -> Result:
    stream, warnings = Stream(first, model), list(first.warnings)
    if saved is not None and (state := saved.load()) is not None:
        warnings += state.pop("warnings").tolist()
        stream.restore(state)
        tell(f"{stream.duration_s / 3600:.1f} h were done when it was stopped: goes on from there")
        damage.clear()
        sample = round(first.start_s * first.fs) + stream.needed_from
        found = source.stretches(damage, begin_s=sample / first.fs)
    for stretch in found:
        stream.feed(stretch.signal)
        warnings += stretch.warnings
        if saved is not None and saved.is_due():
            saved.save({**state, "warnings": np.array(warnings, dtype=str)} if (state := stream.state()) else None)
            if saved.failed:
                tell(f"{saved.path}: {saved.failed}; the analysis goes on, but would begin anew if it were stopped")
        if progress is not None:
            progress(stream.duration_s)
    result = stream.result()
    if saved is not None:
        saved.remove()
    result = replace(result, warnings=tuple(dict.fromkeys((*warnings, *result.warnings))))
    return replace(result, excerpts=excerpts(result, model, source.read))


def follow_file(
    path: str | Path,
    model: Model | str | Path = "nano",
    *,
    every_s: float = 5.0,
    idle_s: float = 60.0,
    fs: float | None = None,
    unit: str | None = None,
) -> Iterator[Result]:
    """Analyse a file that is still growing.

    Parameters
    ----------
    path, fs, unit
        As for `anyecg.read`.
    model : Model, str or Path
    every_s : float
        Seconds of waiting between two results.
    idle_s : float
        The recording has ended when nothing came for so long.

    Yields
    ------
    Result
        What is known so far; the first as soon as there are `FIRST_RESULT_S` of signal, the last of the whole
        recording, with its excerpts. Ctrl-C ends the recording, not the report: one more result comes.

    Raises
    ------
    ReadError, CheckpointError
    """
    model = model if isinstance(model, Model) else load(model)
    open_all(model)
    stream: Stream | None = None
    told_s = -np.inf
    try:
        for added in follow(path, fs=fs, unit=unit, idle_s=idle_s):
            stream = stream or Stream(added, model)
            stream.feed(added.signal)
            if stream.duration_s >= FIRST_RESULT_S and time.monotonic() - told_s >= every_s:
                try:
                    yield stream.result()
                except SignalError:  # nothing is recorded yet
                    continue
                told_s = time.monotonic()
    except KeyboardInterrupt:  # whoever watches ends the recording, not the report on it
        if stream is None:
            raise
    if stream is not None:
        result = stream.result()
        yield replace(result, excerpts=excerpts(result, model, Source(Path(path), fs=fs, unit=unit).read))
