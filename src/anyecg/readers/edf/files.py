"""EDF, EDF+ and BDF (https://www.edfplus.info/specs), a slice at a time: by pyedflib, or `gaps` for EDF+D."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.edf import gaps
from anyecg.readers.edf.layout import Channel, Layout, counts_of, data_records, parse_layout
from anyecg.readers.edf.notes import MISSING_COUNT, EdfNotes, between, is_ours, read_notes
from anyecg.readers.notes import with_notes
from anyecg.readers.patient import age_at, sex_from_text
from anyecg.readers.slices import check_size, sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record

NAME = "edf"

MAX_SIGNALS = 640
"""What pyedflib's C library holds."""


RECORDS_AT_A_TIME = 64
"""Data records, mostly of a second, that are converted together: they stay in the processor's cache."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file starts with the version field of EDF or BDF."""
    return head.startswith((b"0       ", b"\xffBIOSEMI"))


@dataclass
class _Channel:
    """One signal of the file."""

    index: int
    label: str
    dimension: str
    rate_hz: float
    n_samples: int


C = TypeVar("C", _Channel, Channel)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the ECG channels; those of a lower rate are brought to the highest one among them.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    kind = check_header(path)
    if kind in (b"EDF+D", b"BDF+D"):  # pyedflib does not place their data records
        return gaps.read(path, start_s, end_s, fs, unit, choose=choose_channels)
    import pyedflib

    warnings: list[str] = []
    ours = is_ours(path)
    try:
        notes = read_notes(path) if ours else EdfNotes()
        reader = pyedflib.EdfReader(str(path), annotations_mode=pyedflib.DO_NOT_READ_ANNOTATIONS)
    except OSError as error:
        raise ReadError(
            f"{where}: pyedflib refuses it ({_plain(error, path)}), expected EDF. Check the file."
        ) from error
    try:
        channels = _ecg_channels(where, reader, warnings)
        factors = [unit_of(where, channel.dimension or None, unit) for channel in channels]
        rate = rate_of(where, max(c.rate_hz for c in channels), fs)
        n_samples = round(max(c.n_samples / c.rate_hz for c in channels) * rate)
        if notes.end_s is not None:  # the last data record is filled up
            n_samples = min(n_samples, round(notes.end_s * rate))
        first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
        check_size(where, len(channels) * (last - first), path.stat().st_size)
        signal = _signal(path, channels, factors, rate, (first, last), ours)
        start_time = _start_time(path, reader, notes.start_us)
        age = age_at(_birth_date(reader), start_time)
        sex = sex_from_text(reader.getSex())
    finally:
        reader.close()
    if slow := [c.label for c in channels if c.rate_hz < rate]:
        warnings.append(f"recorded at a lower rate and brought to {rate:g} Hz: {', '.join(slow)}")
    annotations = between(notes.annotations, first / rate, last / rate)
    if kind in (b"EDF+C", b"BDF+C") and not ours:
        annotations = gaps.notes_between(path, first / rate, last / rate, warnings)
    record = Record(
        signal=signal,
        fs=rate,
        leads=rows_with_names(where, [c.label for c in channels], warnings),
        id=path.stem,
        format=NAME,
        age=age,
        sex=sex,
        start_time=start_time + timedelta(seconds=first / rate) if start_time else None,
        start_s=first / rate,
        annotations=annotations,
        warnings=tuple(warnings),
    )
    return with_notes(record, notes.remarks)


def _places(layout: Layout) -> list[int]:
    """Return the place in the file of each signal as pyedflib counts them: in EDF+ and BDF+ without annotations."""
    with layout.path.open("rb") as file:
        plus = file.read(197)[192:196] in (b"EDF+", b"BDF+")
    return [i for i in range(layout.n_signals) if not (plus and i in layout.annotation_signals)]


def _signal(
    path: Path, channels: list[_Channel], factors: list[float], rate: float, span: tuple[int, int], ours: bool
) -> np.ndarray:
    """Return the samples of a span, counted at ``rate``, of all channels as float32 mV, (n_channels, n)."""
    layout = parse_layout(path)
    held = {channel.index: channel for channel in layout.channels}
    places, records = _places(layout), data_records(layout)
    n_wanted = span[1] - span[0]
    spans = [(round(span[0] * c.rate_hz / rate), round(span[1] * c.rate_hz / rate)) for c in channels]
    one_rate = all(end - begin == n_wanted for begin, end in spans)
    signal = np.empty((len(channels) if one_rate else 0, n_wanted), dtype=np.float32)
    rows = list(signal) if one_rate else [np.empty(end - begin, dtype=np.float32) for begin, end in spans]
    for row, channel, factor, (begin, end) in zip(rows, channels, factors, spans, strict=True):
        n_held = max(0, min(end, channel.n_samples) - begin)
        _fill(row[:n_held], layout, records, held[places[channel.index]], begin, factor, ours)
        row[n_held:] = np.nan
    return signal if one_rate else to_one_rate(rows, [c.rate_hz for c in channels], n_wanted)


def _fill(
    row: np.ndarray,
    layout: Layout,
    records: np.ndarray,
    channel: Channel,
    begin: int,
    factor: float,
    ours: bool,
) -> None:
    """Fill a float32 row with the mV of a channel from sample ``begin`` on.

    pyedflib's own way, sample by sample through a buffer of the C library, takes five times as long.
    """
    n, end = channel.n_samples, begin + len(row)
    for at in range(begin // n, -(-end // n), RECORDS_AT_A_TIME):
        counts = counts_of(layout, channel, records[at : at + RECORDS_AT_A_TIME]).reshape(-1)
        low, high = max(begin, at * n), min(end, at * n + len(counts))
        counts = counts[low - at * n : high - at * n]
        values = (counts - channel.digital_min) * channel.step + channel.physical_min
        if ours:
            values[counts == MISSING_COUNT] = np.nan
        np.multiply(values, factor, out=row[low - begin : high - begin], casting="unsafe")


def _start_time(path: Path, reader: Any, microsecond: int) -> datetime | None:
    """Return when the recording began; None where EDF+ says ``Startdate X``: the date beside it is a filler."""
    with path.open("rb") as file:
        if file.read(168)[88:].startswith(b"Startdate X"):
            return None
    time: datetime = reader.getStartdatetime()
    return time.replace(microsecond=microsecond)


def check_header(path: Path) -> bytes:
    """Refuse, before pyedflib sees it, a header whose claims the file cannot hold; return what kind it says it is.

    Returns
    -------
    bytes
        ``b"EDF+C"``, ``b"BDF+D"`` ...; five other bytes for EDF and BDF.

    Raises
    ------
    ReadError
    """
    where, size = str(path), path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        try:
            n_header, n_records, n_signals = (int(fixed[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
        except ValueError:
            raise ReadError(
                f"{where}: counts that are no numbers in its header, expected EDF. The file is damaged."
            ) from None
        if not (0 < n_signals <= MAX_SIGNALS and n_header == 256 * (n_signals + 1) <= size):
            raise ReadError(
                f"{where}: a header of {n_header} bytes for {n_signals} signals in a file of {size}, expected "
                f"{256 * (n_signals + 1)} bytes. The file is cut short or damaged."
            )
        file.seek(256 + 216 * n_signals)
        try:
            per_record = sum(int(file.read(8)) for _ in range(n_signals))
        except ValueError:
            raise ReadError(
                f"{where}: samples per record that are no numbers, expected EDF. The file is damaged."
            ) from None
    needed = n_header + n_records * per_record * (3 if fixed.startswith(b"\xff") else 2)
    if n_records < 1 or needed > size:
        raise ReadError(
            f"{where}: {size} bytes, expected {needed} for the {n_records} data records of its header. "
            "The file is cut short or was never closed by the recorder; copy it again."
        )
    return fixed[192:197]


def _ecg_channels(where: str, reader: Any, warnings: list[str]) -> list[_Channel]:
    """Return the ECG channels that pyedflib found."""
    lengths = reader.getNSamples()
    channels = [
        _Channel(i, reader.getLabel(i).strip(), reader.getPhysicalDimension(i).strip(), rate, int(lengths[i]))
        for i in range(reader.signals_in_file)
        # 4999 samples in 9.998 s are 500 Hz but for the last bit.
        if (rate := float(f"{reader.getSampleFrequency(i):.12g}")) > 0
    ]
    return choose_channels(where, channels, warnings)


def choose_channels(where: str, channels: list[C], warnings: list[str]) -> list[C]:
    """Return the channels that say ECG or name a lead; if none does, all voltages that say nothing else.

    Raises
    ------
    ReadError
        There is none.
    """
    voltages = [c for c in channels if not c.dimension or mv_per(c.dimension) is not None]
    chosen = [c for c in voltages if says_ecg(c.label)]
    if not chosen:
        chosen = [c for c in voltages if c.dimension and not says_other(c.label)]
        if chosen:
            warnings.append(f"no channel says that it is an ECG: taken as one: {', '.join(c.label for c in chosen)}")
    skipped = [c.label or f"signal {c.index + 1}" for c in channels if c not in chosen]
    if not chosen:
        raise ReadError(f"{where}: no ECG among {', '.join(skipped)}, expected at least one lead. Choose another file.")
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    return chosen


def _birth_date(reader: Any) -> Any:
    """Return the birth date of an EDF+ patient field as a date, or None."""
    text = reader.getBirthdate(string=True)
    try:
        return datetime.strptime(text, "%d %b %Y") if text else None
    except ValueError:
        return None


def _plain(error: OSError, path: Path) -> str:
    """Return a library's message on one line, without the path that it repeats."""
    return " ".join(str(error).replace(str(path), "").strip(" :").split())
