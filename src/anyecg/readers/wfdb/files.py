"""WFDB records: PhysioNet's format, signal by wfdb, after `header` has checked what the header claims."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.slices import OWN_COUNT, Extent, check_size, sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.readers.wfdb.annotations import read_annotations
from anyecg.readers.wfdb.header import (
    BYTES_PER_SAMPLE,
    FLAC_FORMATS,
    MISSING_COUNT,
    Header,
    Signal,
    inside_folder,
    named_leads,
    parse_header,
    person,
    uncalibrated,
)
from anyecg.record import Record

NAME = "wfdb"
GROWS = True
"""Its size tells its length: it can be read while it is written."""

ASSUMED_UNITS_PER_MV = 200.0
"""What wfdb divides by where the header gives no gain (header-5, ADC gain)."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether it is a header: wfdb insists on the suffix, and a header is text."""
    return path.suffix.lower() == ".hea" and b"\x00" not in head


@dataclass
class _Channel:
    """One lead to be: where it stands in the header, and how its samples become mV."""

    index: int
    signal: Signal
    factor: float
    gain_known: bool


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a record, or the seconds from ``start_s`` to ``end_s`` of it, from its header.

    Leads of several samples a frame are read at their own rate, and slower ones are brought to the fastest one's.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    if "::" in str(path.absolute()):
        raise ReadError(f"{where}: '::' in the path would be taken for a remote address. Rename the folder.")
    header = parse_header(path)
    warnings: list[str] = []
    frame_hz = rate_of(where, header.fs, fs)
    pieces = _segments(header, warnings)
    n_frames = sum(length for _, length in pieces)
    first, last = sample_range(where, n_frames, frame_hz, start_s, end_s, warnings)

    layout = _layout(header, pieces, first, last)
    channels = _ecg_channels(where, layout, unit, warnings)
    rates = [frame_hz * channel.signal.per_frame for channel in channels]
    check_size(where, sum(c.signal.per_frame for c in channels) * (last - first), _bytes_beside(pieces))
    rows = _read_rows(pieces, channels, by_name=_variable(header), first=first, last=last, warnings=warnings)
    fastest = max(channel.signal.per_frame for channel in channels)
    if len(set(rates)) > 1:
        slow = [c.signal.name for c, rate in zip(channels, rates, strict=True) if rate < max(rates)]
        warnings.append(f"recorded at a lower rate and brought to {max(rates):g} Hz: {', '.join(slow)}")
    signal = rows if isinstance(rows, np.ndarray) else to_one_rate(rows, rates, (last - first) * fastest)

    begin_s = first / frame_hz
    names = rows_with_names([c.signal.name for c in channels], warnings)
    annotations, complaints = read_annotations(path, header.comments, frame_hz, begin_s, last / frame_hz)
    time = header.start_time
    return Record(
        signal=signal,
        fs=max(rates),
        leads=names,
        id=path.stem,
        format=NAME,
        start_time=time + timedelta(seconds=begin_s) if time else None,
        start_s=begin_s,
        gain_known=all(channel.gain_known for channel in channels) and not uncalibrated(header.comments),
        derived=named_leads(header.comments, "Derived", names),
        restored=named_leads(header.comments, "Restored", names),
        annotations=annotations,
        warnings=(*warnings, *complaints),
        **person(header.comments),  # type: ignore[arg-type]
    )


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a record is, by its headers; None if a slice costs as much as the whole (format 8).

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    header = parse_header(path)
    if any(signal.fmt == 8 for signal in header.signals):
        return None
    frame_hz = rate_of(str(path), header.fs, fs)
    pieces = _segments(header, [])
    channels = _ecg_channels(str(path), _layout(header, pieces, 0, 0), unit, [])
    fastest = max(channel.signal.per_frame for channel in channels)
    names = rows_with_names([channel.signal.name for channel in channels], [])
    return Extent(sum(n for _, n in pieces) * fastest, frame_hz * fastest, names)


def _segments(header: Header, warnings: list[str]) -> list[tuple[Header | str, int]]:
    """Return ``(header or name, frames)`` for each stretch of time; the name "~" is a gap. Headers are read later.

    Raises
    ------
    ReadError
        The lengths do not add up, or the signal files hold nothing.
    """
    if not header.segments:
        n_held, shortest = _held(header)
        if header.n_samples is not None and n_held < header.n_samples:
            warnings.append(
                f"{shortest} is cut short: it holds {n_held} samples a lead, {header.n_samples} {OWN_COUNT}"
            )
        return [(header, n_held if header.n_samples is None else min(n_held, header.n_samples))]
    pieces: list[tuple[Header | str, int]] = [(name, n) for name, n in header.segments if n > 0]
    total = sum(n for _, n in pieces)
    if header.n_samples is not None and total != header.n_samples:
        raise ReadError(
            f"{header.path}: segments of {total} samples together, expected {header.n_samples} as its first line says. "
            "The header is damaged."
        )
    return pieces


def _open_segment(record: Path, name: str, n_frames: int) -> Header:
    """Parse and check the header of one segment."""
    segment = parse_header(inside_folder(record, f"{name}.hea"))
    if segment.segments:
        raise ReadError(f"{record}: segment {name} has segments itself, expected signals. The header is damaged.")
    if segment.n_samples not in (None, n_frames):
        raise ReadError(
            f"{record}: segment {name} has {segment.n_samples} samples, expected {n_frames}. One of them is damaged."
        )
    if (held := _held(replace(segment, n_samples=n_frames))[0]) < n_frames:
        raise ReadError(f"{record}: segment {name} is cut short at {held} samples, expected {n_frames}. Copy it again.")
    return segment


def _held(header: Header) -> tuple[int, str]:
    """Return how many frames the signal files of a header hold, and the name of the shortest.

    Raises
    ------
    ReadError
        One is not there, holds nothing, or the header says of it what cannot be.
    """
    found: list[tuple[int, str]] = []
    for name in dict.fromkeys(signal.file for signal in header.signals):
        signals = [s for s in header.signals if s.file == name]
        positions = [i for i, s in enumerate(header.signals) if s.file == name]
        file = inside_folder(header.path, name)
        fmt, offset = signals[0].fmt, signals[0].offset
        if fmt == 0 or len({(s.fmt, s.offset) for s in signals}) > 1 or positions[-1] - positions[0] >= len(positions):
            raise ReadError(
                f"{header.path}: the signals of {name} differ in format or are not side by side. The header is damaged."
            )
        per_frame = sum(s.per_frame for s in signals)
        size = file.stat().st_size
        if fmt in FLAC_FORMATS:
            if header.n_samples is None or len({s.per_frame for s in signals}) > 1:
                raise ReadError(
                    f"{header.path}: FLAC signals without a length or of several rates, expected 'NAME SIGNALS RATE "
                    "SAMPLES' and one rate. Complete the header."
                )
            per_frame = signals[0].per_frame
            held = (_flac_frames(file, header.n_samples * per_frame + offset) - offset) // per_frame
        else:
            held = int((size - offset) / BYTES_PER_SAMPLE[fmt]) // per_frame
        if held < 1:
            raise ReadError(
                f"{header.path}: {name} of {size} bytes holds no sample of every lead, expected "
                f"{header.n_samples or 'some'}. The file is cut short; copy it again."
            )
        found.append((held, name))
    return min(found)


def _flac_frames(file: Path, n_wanted: int) -> int:
    """Return how many of the first ``n_wanted`` frames a FLAC file holds: its header may claim more than there is."""
    import soundfile

    def reaches(n: int) -> bool:
        try:
            with soundfile.SoundFile(file) as flac:
                flac.seek(n - 1)
                return len(flac.read(1)) == 1
        except soundfile.SoundFileError:
            return False

    with soundfile.SoundFile(file) as flac:
        n_wanted = min(n_wanted, flac.frames)
    if n_wanted < 1 or reaches(n_wanted):
        return n_wanted
    held, beyond = 0, n_wanted
    while beyond - held > 1:
        middle = (held + beyond) // 2
        held, beyond = (middle, beyond) if reaches(middle) else (held, middle)
    return held


def _layout(header: Header, pieces: list[tuple[Header | str, int]], first: int, last: int) -> tuple[Signal, ...]:
    """Return the signals a record may have; opens the segments that the slice needs, in place."""
    if not header.segments:
        return header.signals
    fixed: tuple[Signal, ...] = ()
    known: dict[str, Signal] = {}
    variable = _variable(header)
    if variable and header.segments[0][0] != "~":
        for signal in parse_header(inside_folder(header.path, f"{header.segments[0][0]}.hea")).signals:
            known[signal.name] = signal
    at = 0
    for i, (name, n_frames) in enumerate(pieces):
        if name != "~" and at < last and at + n_frames > first:
            segment = _open_segment(header.path, str(name), n_frames)
            pieces[i] = (segment, n_frames)
            if segment.fs is not None and header.fs is not None and segment.fs != header.fs:
                raise ReadError(
                    f"{header.path}: segment {name} has {segment.fs:g} frames a second, expected {header.fs:g} as the "
                    "record. One of the headers is damaged."
                )
            if not variable:
                _same_signals(header, segment, fixed)
                fixed = segment.signals
                continue
            for signal in segment.signals:
                if signal.name not in known or known[signal.name].fmt == 0:
                    known[signal.name] = signal
        at += n_frames
    if signals := tuple(known.values()) if variable else fixed:
        return signals
    for name, n_frames in header.segments:  # the slice lies in a gap: any other segment has the signals
        if name != "~" and n_frames > 0:
            return _open_segment(header.path, name, n_frames).signals
    raise ReadError(f"{header.path}: no segment with a signal, expected one. The header is damaged.")


def _variable(header: Header) -> bool:
    """Return whether a record of segments has a variable layout: signals that come and go (header-5)."""
    return bool(header.segments) and header.segments[0][1] == 0


def _same_signals(header: Header, segment: Header, before: tuple[Signal, ...]) -> None:
    """Refuse a segment of a fixed layout whose signals differ from those before: they are told apart by position.

    Raises
    ------
    ReadError
    """
    if before and [(s.name, s.per_frame) for s in segment.signals] != [(s.name, s.per_frame) for s in before]:
        raise ReadError(
            f"{header.path}: {segment.path.name} has other signals than the segments before, expected the same in a "
            "record of fixed layout. One of the headers is damaged."
        )


def _ecg_channels(where: str, signals: tuple[Signal, ...], unit: str | None, warnings: list[str]) -> list[_Channel]:
    """Return the channels that are ECG leads; others, and leads without a gain, are reported in ``warnings``.

    Raises
    ------
    ReadError
        None is.
    """
    channels: list[_Channel] = []
    skipped: list[str] = []
    no_gain: list[str] = []
    for index, signal in enumerate(signals):
        factor = mv_per(signal.unit)
        if says_other(signal.name) or (factor is None and not says_ecg(signal.name)):
            skipped.append(signal.name or f"signal {index + 1}")
            continue
        known = signal.gain != 0 and factor is not None
        if known:
            unit_of(where, signal.unit, unit)
        elif unit is not None:  # the file does not say it: the caller says what one unit of the numbers is
            factor, known = unit_of(where, None, unit) * (ASSUMED_UNITS_PER_MV if signal.gain == 0 else 1.0), True
        else:
            no_gain.append(signal.name or f"signal {index + 1}")
        channels.append(_Channel(index, signal, 1.0 if factor is None else factor, known))
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if no_gain:
        warnings.append(f"no gain in the header, so the millivolts are assumed (200 units each): {', '.join(no_gain)}")
    if not channels:
        raise ReadError(f"{where}: no ECG among {', '.join(skipped)}, expected at least one lead. Choose another file.")
    return channels


def _bytes_beside(pieces: list[tuple[Header | str, int]]) -> int:
    """Return the size of the signal files of the opened segments."""
    files = {h.path.parent / s.file for h, _ in pieces if isinstance(h, Header) for s in h.signals}
    return sum(file.stat().st_size for file in files)


def _read_rows(
    pieces: list[tuple[Header | str, int]],
    channels: list[_Channel],
    *,
    by_name: bool,
    first: int,
    last: int,
    warnings: list[str],
) -> list[np.ndarray] | np.ndarray:
    """Return a float32 row in mV for each channel, NaN where a segment does not have it; one array if of one rate."""
    lengths = [(last - first) * c.signal.per_frame for c in channels]
    rows: list[np.ndarray] | np.ndarray
    if len(set(lengths)) == 1:
        rows = np.empty((len(channels), lengths[0]), dtype=np.float32)
    else:
        rows = [np.empty(length, dtype=np.float32) for length in lengths]
    for row in rows if len(pieces) > 1 else ():  # one piece fills all of it
        row.fill(np.nan)
    wrong: list[str] = []
    other_rate: dict[str, None] = {}
    at = 0
    for header, n_frames in pieces:
        begin, end = max(first, at), min(last, at + n_frames)
        if isinstance(header, Header) and begin < end:
            wanted: list[tuple[int, int]] = []  # (row, position in this header)
            for row, channel in enumerate(channels):
                for position, signal in enumerate(header.signals):
                    if (signal.name == channel.signal.name) if by_name else (position == channel.index):
                        if signal.per_frame == channel.signal.per_frame:
                            wanted.append((row, position))
                        else:
                            other_rate[signal.name] = None
                        break
            if wanted:
                positions = [position for _, position in wanted]
                found = _read_segment(header, n_frames, positions, begin - at, end - at, wrong)
                for (row, position), counts in zip(wanted, found, strict=True):
                    channel = channels[row]
                    per_frame = channel.signal.per_frame
                    at_row = (begin - first) * per_frame
                    out = rows[row][at_row : at_row + (end - begin) * per_frame]
                    _to_mv(counts, header.signals[position], channel, out[: len(counts)])
                    out[len(counts) :] = np.nan  # of a skewed signal
        at += n_frames
    if wrong:
        warnings.append(f"the checksum differs, so the samples may be damaged: {_some(wrong)}")
    if other_rate:
        warnings.append(f"not read where its rate differs from the first segment's: {_some(list(other_rate))}")
    return rows


def _some(names: list[str]) -> str:
    """Return the first ten names on one line, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _to_mv(counts: np.ndarray, signal: Signal, channel: _Channel, out: np.ndarray) -> None:
    """Write counts as mV into ``out``, with the gain of the segment that they are of; missing samples as NaN."""
    own = mv_per(signal.unit)
    same = not channel.gain_known or own is None or signal.unit == channel.signal.unit
    factor = channel.factor if same or own is None else own
    # In 64 bits, since a count of format 32 has more digits than a float32.
    above = np.subtract(counts, float(signal.baseline), dtype=np.float64) if signal.baseline else counts
    per_mv = factor / (signal.gain or ASSUMED_UNITS_PER_MV)
    np.multiply(above, per_mv, out=out, casting="unsafe", dtype=np.float64)
    missing = MISSING_COUNT.get(signal.fmt)
    if missing is not None and counts.size and counts.min() == missing:
        out[counts == missing] = np.nan


def _read_segment(
    header: Header, n_held: int, positions: list[int], begin: int, end: int, wrong_checksums: list[str]
) -> list[np.ndarray]:
    """Read frames of some signals of one header as counts; a skewed signal may be shorter.

    wfdb decodes the signal files; its own way to there would parse the header once more, with pandas, which takes ten
    times as long as the samples of a short record. Skew is done here, since wfdb 4.3 shifts signals of several samples
    a frame, or FLAC, wrongly; and so are checksums, at which it does not look. A checksum of 0 is taken for none,
    since many programs write it so.
    """
    from wfdb.io._signal import _rd_segment

    signals = [header.signals[position] for position in positions]
    # A skewed signal stands so many frames later in its file (header-5); what is beyond the file's end is missing.
    last = min(end + max(s.skew for s in signals), n_held)
    # Format 8 stores differences: a slice is right only if everything before it is read as well.
    start = 0 if any(s.fmt == 8 for s in header.signals) else begin
    found = _rd_segment(
        file_name=[s.file for s in header.signals],
        dir_name=str(header.path.parent.absolute()),
        pn_dir=None,
        fmt=[str(s.fmt) for s in header.signals],
        n_sig=len(header.signals),
        sig_len=n_held,
        byte_offset=[s.offset for s in header.signals],
        samps_per_frame=[s.per_frame for s in header.signals],
        skew=[s.skew for s in header.signals],
        init_value=[s.initial for s in header.signals],
        sampfrom=start,
        sampto=last,
        channels=positions,
        ignore_skew=True,
    )
    rows = []
    for position, signal, counts in zip(positions, signals, found, strict=True):
        whole = start == 0 and last == n_held == header.n_samples
        if whole and signal.checksum and (int(counts.sum(dtype=np.int64)) - signal.checksum) % 65536:
            wrong_checksums.append(f"{signal.name or f'signal {position + 1}'} of {header.path.name}")
        at, stop = ((frame - start + signal.skew) * signal.per_frame for frame in (begin, end))
        row = counts[at:stop]
        if stop - at - len(row) > signal.skew * signal.per_frame:
            raise ReadError(
                f"{header.path}: its signal file ends early, expected {end} samples a lead. Copy the file again."
            )
        rows.append(row)
    return rows
