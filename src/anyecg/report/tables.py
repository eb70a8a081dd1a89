"""A Result's beats, hours and minutes as Parquet, and its beats and rhythms as a WFDB annotation file: bytes to write.

Times are seconds from the first sample of the recording. What is not known is null. A day is some 100,000 beats: a few
megabytes.
"""

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from anyecg.overview import MINUTE_S, Overview
from anyecg.record import Annotation
from anyecg.result import Result

if TYPE_CHECKING:
    import pyarrow as pa

RHYTHMS = ("VF", "VT", "AFL", "AFIB", "SVTA", "IVR", "B", "T", "AB")
"""Episodes with a rhythm label of MIT-BIH; where several last at a time, the first of them is in force."""

LABEL_OF = {"VF": "VFL"}
"""MIT-BIH has a rhythm label for flutter, none for fibrillation."""

UNCLASSIFIED = "Q"
NOTE = '"'
TYPE_OF = {"N": 1, "V": 5, "F": 6, "S": 9, "Q": 13, NOTE: 22, "+": 28}
SKIP, AUX, MOST_SAMPLES = 59, 63, 1023
"""Types of word in an annotation file."""

WINDOWS_A_MINUTE = 6
"""Surprise has a value every ten seconds."""


def beats_table(result: Result) -> bytes:
    """Return a row a beat, as Parquet.

    ``time_s`` (float64), ``class`` (N S V F Q of EC57), ``probability`` of the class (float32), ``rr_ms`` (float32)
    since the beat before, whatever lies between them. Without classes of beats both are null.
    """
    times_s = np.asarray(result.rhythm.r_peaks_s, dtype=np.float64)
    told = result.beats
    if told:
        times_s = told.at_s
    rr_ms = np.full(len(times_s), np.nan, dtype=np.float32)
    rr_ms[1:] = 1000 * np.diff(times_s)
    n = len(times_s)
    return _parquet(
        {
            "time_s": times_s,
            "class": _strings(told.codes.tolist() if told else [None] * n),
            "probability": told.scores if told else np.full(n, np.nan, dtype=np.float32),
            "rr_ms": rr_ms,
        }
    )


def hours_table(result: Result) -> bytes:
    """Return a row an hour, as Parquet: the fields of `anyecg.overview.Hour`, a column ``st_mean_mv_LEAD`` a lead.

    Raises
    ------
    ValueError
        The result has no overview.
    """
    overview = _overview(result)
    names = [name for name in vars(overview.hours[0]) if name != "st_mean_mv"] if overview.hours else []
    whole = ("n_beats", "n_v", "n_s", "n_pauses")
    columns: dict[str, Any] = {
        name: _numbers([getattr(hour, name) for hour in overview.hours], whole=name in whole) for name in names
    }
    for lead in overview.leads if len(overview.st_mv) else ():
        columns[f"st_mean_mv_{lead}"] = _numbers([hour.st_mean_mv.get(lead) for hour in overview.hours])
    return _parquet(columns)


def minutes_table(result: Result) -> bytes:
    """Return a row a minute, as Parquet.

    ``start_s``, ``hr_bpm``; ``surprise_bits``, the highest of ten seconds; ``quality_LEAD`` (0 to 1) and ``st_mv_LEAD``
    of each lead, where they are known.

    Raises
    ------
    ValueError
        The result has no overview.
    """
    overview = _overview(result)
    n = len(overview.hr_trend_bpm)
    columns: dict[str, Any] = {"start_s": np.arange(n) * MINUTE_S, "hr_bpm": overview.hr_trend_bpm.astype(np.float32)}
    if len(overview.surprise_bits):
        padded = np.full(n * WINDOWS_A_MINUTE, np.nan, dtype=np.float32)
        kept = overview.surprise_bits[: len(padded)]
        padded[: len(kept)] = kept
        columns["surprise_bits"] = np.fmax.reduce(padded.reshape(n, WINDOWS_A_MINUTE), axis=1)
    for name, values in (("quality", overview.quality), ("st_mv", overview.st_mv)):
        for lead, row in zip(overview.leads, values, strict=False):
            columns[f"{name}_{lead}"] = np.concatenate([row[:n], np.full(max(n - len(row), 0), np.nan, np.float32)])
    return _parquet(columns)


def annotations(result: Result) -> bytes:
    """Return a WFDB annotation file (``.atr``, at the rate of the record): every beat, every rhythm.

    Beats bear their class as symbol (N S V F Q; without classes Q, not classified). Rhythms are those of `RHYTHMS`,
    each from its first beat to its last; ``(N`` is in force from the start and between them. Pauses, couplets, slow and
    fast stretches are no rhythm of MIT-BIH and are left out.
    """
    fs = result.record.fs
    beats = list(zip(result.beats.at_s.tolist(), result.beats.codes.tolist(), strict=True))
    beats = beats or [(at_s, UNCLASSIFIED) for at_s in np.asarray(result.rhythm.r_peaks_s).tolist()]
    episodes = result.overview.episodes if result.overview else ()
    last_s = beats[-1][0] if beats else 0.0
    marks = [(round(at_s * fs), "+", f"({label}") for at_s, label in rhythm_changes(episodes) if at_s <= last_s]
    marks += [(round(at_s * fs), code, "") for at_s, code in beats]
    marks.sort(key=lambda mark: (mark[0], mark[1] != "+"))
    return _mit_format([(0, NOTE, f"## time resolution: {fs:.10g}"), *marks])


def rhythm_changes(episodes: tuple[Annotation, ...]) -> list[tuple[float, str]]:
    """Return when (seconds) which rhythm comes into force, beginning with N at 0.

    Examples
    --------
    >>> rhythm_changes((Annotation(5, 20, "rhythm", "AFIB"), Annotation(8, 9, "rhythm", "VT")))
    [(0.0, 'N'), (5, 'AFIB'), (8, 'VT'), (9, 'AFIB'), (20, 'N')]
    """
    edges = [(e.start_s, 1, e.code) for e in episodes if e.code in RHYTHMS]
    edges += [(e.end_s, -1, e.code) for e in episodes if e.code in RHYTHMS]
    active = dict.fromkeys(RHYTHMS, 0)
    changes = [(0.0, "N")]
    for at_s, step, code in sorted(edges, key=lambda edge: edge[0]):
        active[code] += step
        now = next((code for code in RHYTHMS if active[code] > 0), "N")
        now = LABEL_OF.get(now, now)
        if changes[-1][0] == at_s:
            changes.pop()
        if not changes or changes[-1][1] != now:
            changes.append((at_s, now))
    return changes


def _mit_format(marks: list[tuple[int, str, str]]) -> bytes:
    """Return marks (sample, symbol, text) in time as an annotation file; wfdb takes seconds for a day's.

    Format: https://www.physionet.org/physiotools/wag/annot-5.htm. Each little-endian word is a type (6 bits) and the
    samples since the last annotation (10 bits); SKIP brings a longer time, AUX a text for the annotation before it.
    """
    parts, last = [], 0
    for sample, symbol, note in marks:
        step, last = sample - last, sample
        if step > MOST_SAMPLES:
            # the four bytes of a longer time: its high word first
            parts.append(struct.pack("<3H", SKIP << 10, step >> 16, step & 0xFFFF))
            step = 0
        parts.append(struct.pack("<H", TYPE_OF[symbol] << 10 | step))
        if note:
            content = note.encode("ascii")
            parts.append(struct.pack("<H", AUX << 10 | len(content)) + content + b"\0" * (len(content) % 2))
    return b"".join([*parts, b"\0\0"])


def _overview(result: Result) -> Overview:
    if result.overview is None:
        raise ValueError("the result has no overview; analyze the recording with this version")
    return result.overview


def _strings(values: list[str | None]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, type=pa.string())


def _numbers(values: list[Any], *, whole: bool = False) -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, type=pa.int64() if whole else pa.float64())


def _parquet(columns: Mapping[str, Any]) -> bytes:
    """Return a Parquet file of columns; NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: pa.array(v, from_pandas=True) if isinstance(v, np.ndarray) else v for name, v in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
