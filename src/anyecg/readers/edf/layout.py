"""The layout of an EDF+ or BDF+ file: its header, its data records, and the times and texts of its annotations.

Read by ourselves: pyedflib opens no file that its recorder still writes, and neither places the data records of EDF+D
in time nor finds the annotations of a slice without a pass through the whole file. Source: Kemp and Olivan, "European
data format 'plus' (EDF+)", Clin Neurophysiol 2003, 114:1755-1761, https://www.edfplus.info/specs/edfplus.html, sections
2.1 (header) and 2.2 (annotations).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from math import isfinite
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.record import Annotation

MAX_SIGNALS = 640
"""What EDFlib, which most programs use, holds."""

BLOCK_BYTES = 1 << 18
"""So much of the file is converted at a time: it stays in the processor's cache."""

_FIELDS = {"label": 16, "transducer": 80, "dimension": 8, "physical_min": 8, "physical_max": 8}
_FIELDS |= {"digital_min": 8, "digital_max": 8, "filters": 80, "n_samples": 8, "reserved": 32}
"""Bytes of each signal's fields; each field stands there once for every signal, then the next one."""

_COUNTS = ((184, 192), (236, 244), (252, 256))
"""Where the first 256 bytes say the header's bytes, the data records and the signals."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14")
"""Onset, and duration if it is there, of a time-stamped annotations list (TAL)."""


@dataclass(frozen=True)
class Channel:
    """One signal of the file.

    Parameters
    ----------
    index : int
        Its place in the file, annotations counted.
    label, dimension : str
        As the file gives them.
    rate_hz : float
    n_samples : int
        In each data record.
    at : int
        Its first byte in a data record.
    digital_min, physical_min, step : float
        A count is worth ``physical_min + (count - digital_min) * step`` of its dimension.
    """

    index: int
    label: str
    dimension: str
    rate_hz: float
    n_samples: int
    at: int
    digital_min: float
    physical_min: float
    step: float


@dataclass(frozen=True)
class Layout:
    """What the header says.

    ``annotations`` are the byte ranges of the annotation signals in a data record, ``annotation_signals`` their places
    among all ``n_signals``. ``n_records`` are the data records that the file holds, ``stated_records`` those that it
    says it holds: -1 while it is recorded.
    """

    path: Path
    n_header: int
    n_records: int
    stated_records: int
    n_bytes: int
    sample_bytes: int
    duration_s: float
    discontinuous: bool
    start_time: datetime | None
    sex: str
    birth_date: date | None
    channels: tuple[Channel, ...]
    annotations: tuple[tuple[int, int], ...]
    n_signals: int
    annotation_signals: frozenset[int]


def parse_layout(path: Path) -> Layout:
    """Parse a header.

    Raises
    ------
    ReadError
        A number in it is none, data records have no duration, or there is no whole one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        n_signals, stated_records = _counts(path, fixed, size)
        columns: dict[str, list[str]] = {}
        for name, width in _FIELDS.items():
            block = file.read(width * n_signals)
            texts = (block[i * width : (i + 1) * width] for i in range(n_signals))
            columns[name] = [text.decode("latin-1").strip() for text in texts]
    sample_bytes = 3 if fixed.startswith(b"\xff") else 2
    plus = fixed[192:196] in (b"EDF+", b"BDF+")
    duration_s = _number(path, fixed[244:252].decode("latin-1"))
    channels, annotations, annotation_signals, at = [], [], set(), 0
    for i in range(n_signals):
        n_samples = _whole(path, columns["n_samples"][i])
        if n_samples < 0:
            raise ReadError(f"{path}: {n_samples} samples per data record, expected 0 or more. The header is damaged.")
        if plus and re.fullmatch(r"[EB]DF Annotations", columns["label"][i]):
            annotations.append((at, at + n_samples * sample_bytes))
            annotation_signals.add(i)
        elif n_samples > 0:
            if duration_s <= 0:
                raise ReadError(f"{path}: data records of {duration_s} s, expected a duration. The header is damaged.")
            limits = ("digital_min", "digital_max", "physical_min", "physical_max")
            low, high, from_, to = (_number(path, columns[name][i]) for name in limits)
            if high == low:
                raise ReadError(
                    f"{path}: digital limits of {columns['label'][i]!r} are both {low:g}, expected two. "
                    "The header is damaged."
                )
            # 4999 samples in 9.998 s are 500 Hz but for the last bit.
            rate_hz = float(f"{n_samples / duration_s:.12g}")
            label, dimension = columns["label"][i], columns["dimension"][i]
            step = (to - from_) / (high - low)
            channels.append(Channel(i, label, dimension, rate_hz, n_samples, at, low, from_, step))
        at += n_samples * sample_bytes
    n_header = 256 * (n_signals + 1)
    n_held = (size - n_header) // at if at else 0
    if n_held < 1:
        raise ReadError(
            f"{path}: {size} bytes, expected {n_header + at * max(stated_records, 1)} for the {stated_records} data "
            "records of its header. The file is cut short or was never closed by the recorder; copy it again."
        )
    patient = fixed[8:88].decode("latin-1").split() if plus else []  # elsewhere free text
    return Layout(
        path=path,
        n_header=n_header,
        n_records=n_held,
        stated_records=stated_records,
        n_bytes=at,
        sample_bytes=sample_bytes,
        duration_s=duration_s,
        discontinuous=fixed[192:197] in (b"EDF+D", b"BDF+D"),
        start_time=_start_time(fixed),
        sex=patient[1] if len(patient) > 1 else "",
        birth_date=_date(patient[2]) if len(patient) > 2 else None,
        channels=tuple(channels),
        annotations=tuple(annotations),
        n_signals=n_signals,
        annotation_signals=frozenset(annotation_signals),
    )


def _counts(path: Path, fixed: bytes, size: int) -> tuple[int, int]:
    """Return how many signals and data records the first 256 bytes claim.

    Raises
    ------
    ReadError
        They are no numbers, or there is no room for so many signals.
    """
    n_header, stated_records, n_signals = (_whole(path, fixed[a:b].decode("latin-1")) for a, b in _COUNTS)
    if not (0 < n_signals <= MAX_SIGNALS and n_header == 256 * (n_signals + 1) <= size):
        raise ReadError(
            f"{path}: a header of {n_header} bytes for {n_signals} signals in a file of {size}, expected "
            f"{256 * (n_signals + 1)} bytes. The file is cut short or damaged."
        )
    return n_signals, stated_records


def _whole(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ReadError(
            f"{path}: counts that are no numbers in its header ({text.strip()[:20]!r}), expected EDF. The file is "
            "damaged."
        ) from None


def _number(path: Path, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ReadError(f"{path}: {text.strip()[:20]!r} in its header, expected a number. The header is damaged.")
    return value


def _date(text: str) -> date | None:
    """Return a date such as 02-MAY-1951, whatever the user's language; None if it is none."""
    day, _, rest = text.upper().partition("-")
    month, _, year = rest.partition("-")
    try:
        return date(int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError:
        return None


def _start_time(fixed: bytes) -> datetime | None:
    """Return when the recording began; None where EDF+ says ``Startdate X``: the date beside it is a filler."""
    recording = fixed[88:168].decode("latin-1").split()
    stated = recording[1] if len(recording) > 1 and recording[0] == "Startdate" else ""
    match = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)(\d\d)\.(\d\d)\.(\d\d)", fixed[168:184].decode("latin-1"))
    if match is None or stated.upper() == "X":
        return None
    day, month, year, hour, minute, second = (int(part) for part in match.groups())
    try:
        whole_year = year + (1900 if year >= 85 else 2000)  # "the yy in the startdate is clipped at 1985" (2.1.3.2)
        return datetime.combine(_date(stated) or date(whole_year, month, day), time(hour, minute, second))
    except ValueError:
        return None


def data_records(layout: Layout, first: int, last: int) -> np.ndarray:
    """Read some data records, shape (n_records, n_bytes); a mapped file that is cut shorter would end the program.

    Raises
    ------
    ReadError
        The file has become shorter.
    """
    n = max(0, min(last, layout.n_records) - first)
    raw = np.fromfile(layout.path, np.uint8, n * layout.n_bytes, offset=layout.n_header + first * layout.n_bytes)
    if len(raw) < n * layout.n_bytes:
        raise ReadError(
            f"{layout.path}: it ends in data record {first + len(raw) // layout.n_bytes + 1}, expected "
            f"{layout.n_records}. Copy it again."
        )
    return raw.reshape(n, layout.n_bytes)


def blocks(layout: Layout, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    """Read some data records, a few at a time: yield the number of the first one, and (n_records, n_bytes)."""
    n_at_once = max(1, BLOCK_BYTES // layout.n_bytes)
    for at in range(first, min(last, layout.n_records), n_at_once):
        yield at, data_records(layout, at, min(at + n_at_once, last))


def record_onsets_s(layout: Layout) -> np.ndarray:
    """Return when each data record begins, by its time-keeping TAL, which is its first (2.2.4).

    Raises
    ------
    ReadError
        One has none, or begins before the one before it ends.
    """
    return _record_onsets_s(layout, layout.path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _record_onsets_s(layout: Layout, changed_ns: int) -> np.ndarray:
    onsets = np.concatenate([onsets_in(layout, records, at) for at, records in blocks(layout, 0, layout.n_records)])
    early = np.flatnonzero(np.diff(onsets) < 0.999 * layout.duration_s - 1e-3)
    if len(early):
        raise ReadError(
            f"{layout.path}: data record {early[0] + 2} begins at {onsets[early[0] + 1]:g} s, expected "
            f"{onsets[early[0]] + layout.duration_s:g} s or later. The file is damaged."
        )
    return onsets


def onsets_in(layout: Layout, records: np.ndarray, number: int) -> np.ndarray:
    """Return when some data records begin, of which the first has this number.

    Raises
    ------
    ReadError
        One has no time.
    """
    if not layout.annotations:
        raise ReadError(f"{layout.path}: no annotation signal, expected one with the times. The file is damaged.")
    begin, end = layout.annotations[0]
    onsets = np.empty(len(records))
    for i, found in enumerate(records[:, begin : min(end, begin + 40)]):
        match = _ONSET.match(found.tobytes())
        if match is None:
            raise ReadError(
                f"{layout.path}: data record {number + i + 1} has no time, expected one. The file is damaged."
            )
        onsets[i] = float(match[1])
    return onsets


def counts_of(layout: Layout, channel: Channel, records: np.ndarray) -> np.ndarray:
    """Return the counts of a channel in some data records, shape (n_records, n_samples)."""
    raw = np.ascontiguousarray(records[:, channel.at : channel.at + channel.n_samples * layout.sample_bytes])
    if layout.sample_bytes == 2:
        return raw.view("<i2")
    wide = np.zeros((len(raw), channel.n_samples, 4), dtype=np.uint8)
    wide[..., 1:] = raw.reshape(len(raw), channel.n_samples, 3)
    return wide.reshape(len(raw), -1).view("<i4") >> 8


def annotations_of(layout: Layout, records: np.ndarray) -> list[Annotation]:
    """Return the texts of some data records as notes, in seconds from the file's start time."""
    found = []
    for begin, end in layout.annotations:
        for block in records[:, begin:end]:
            for tal in block.tobytes().split(b"\x00"):
                match = _ONSET.match(tal) if tal else None  # most of a block is filled up with zeros
                if match is None:
                    continue
                onset_s, length_s = float(match[1]), float(match[2] or 0.0)
                for text in tal[match.end() :].split(b"\x14"):
                    if text.strip():
                        note = text.decode("utf-8", errors="replace").strip()
                        found.append(Annotation(onset_s, onset_s + length_s, "note", note))
    return found


def after(start: datetime | None, seconds: float) -> datetime | None:
    """Return a time so many seconds later."""
    return None if start is None else start + timedelta(seconds=seconds)
