"""WFDB records: PhysioNet's format, signal by wfdb, after `wfdb_header` has checked what the header claims."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.slices import check_size, sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.readers.wfdb_annotations import read_annotations
from anyecg.readers.wfdb_header import (
    BYTES_PER_SAMPLE,
    FLAC_FORMATS,
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

ASSUMED_UNITS_PER_MV = 200.0
"""What wfdb divides by where the header gives no gain (header-5, ADC gain)."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether it is a header: wfdb insists on the suffix, and a header is text."""
    return path.suffix == ".hea" and b"\x00" not in head


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
    pieces = _segments(header)
    n_frames = sum(length for _, length in pieces)
    first, last = sample_range(where, n_frames, frame_hz, start_s, end_s, warnings)

    layout = _layout(header, pieces, first, last)
    channels = _ecg_channels(where, layout, unit, warnings)
    rates = [frame_hz * channel.signal.per_frame for channel in channels]
    check_size(where, sum(c.signal.per_frame for c in channels) * (last - first), _bytes_beside(pieces))
    rows = _read_rows(pieces, channels, by_name=bool(header.segments), first=first, last=last)
    fastest = max(channel.signal.per_frame for channel in channels)
    if len(set(rates)) > 1:
        slow = [c.signal.name for c, rate in zip(channels, rates, strict=True) if rate < max(rates)]
        warnings.append(f"recorded at a lower rate and brought to {max(rates):g} Hz: {', '.join(slow)}")
    signal = to_one_rate(rows, rates, (last - first) * fastest)

    begin_s = first / frame_hz
    names = rows_with_names(where, [c.signal.name for c in channels], warnings)
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


def _segments(header: Header) -> list[tuple[Header | str, int]]:
    """Return ``(header or name, frames)`` for each stretch of time; the name "~" is a gap. Headers are read later.

    Raises
    ------
    ReadError
        The lengths do not add up, or the signal files cannot hold what the header claims.
    """
    if not header.segments:
        return [(header, _check_files(header, header.n_samples))]
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
    if _check_files(segment, segment.n_samples or n_frames) != n_frames:
        raise ReadError(
            f"{record}: segment {name} has {segment.n_samples} samples, expected {n_frames}. One of them is damaged."
        )
    return segment


def _check_files(header: Header, n_frames: int | None) -> int:
    """Return the frames of a header's signal files, after checking that these are there and long enough.

    Raises
    ------
    ReadError
    """
    for name in dict.fromkeys(signal.file for signal in header.signals):
        signals = [s for s in header.signals if s.file == name]
        positions = [i for i, s in enumerate(header.signals) if s.file == name]
        file = inside_folder(header.path, name)
        fmt = signals[0].fmt
        if fmt == 0 or len({(s.fmt, s.offset) for s in signals}) > 1 or positions[-1] - positions[0] >= len(positions):
            raise ReadError(
                f"{header.path}: the signals of {name} differ in format or are not side by side. The header is damaged."
            )
        per_frame = sum(s.per_frame for s in signals)
        size = file.stat().st_size
        if fmt in FLAC_FORMATS:
            if n_frames is None or len({s.per_frame for s in signals}) > 1:
                raise ReadError(
                    f"{header.path}: FLAC signals without a length or of several rates, expected 'NAME SIGNALS RATE "
                    "SAMPLES' and one rate. Complete the header."
                )
            held = _flac_frames(file, n_frames * signals[0].per_frame + signals[0].offset) // signals[0].per_frame
        else:
            held = int((size - signals[0].offset) / BYTES_PER_SAMPLE[fmt]) // per_frame
        n_frames = held if n_frames is None else n_frames
        if n_frames > held:
            raise ReadError(
                f"{header.path}: {name} holds {max(held, 0)} samples a lead, expected {n_frames}. The file is "
                "cut short; copy it again."
            )
    return n_frames or 0


def _flac_frames(file: Path, n_wanted: int) -> int:
    """Return ``n_wanted`` if a FLAC file has so many frames, else fewer, as its header or its end says."""
    import soundfile

    with soundfile.SoundFile(file) as flac:
        if flac.frames < n_wanted or n_wanted < 1:
            return flac.frames
        flac.seek(n_wanted - 1)
        return n_wanted if len(flac.read(1)) == 1 else n_wanted - 1


def _layout(header: Header, pieces: list[tuple[Header | str, int]], first: int, last: int) -> tuple[Signal, ...]:
    """Return the signals a record may have; opens the segments that the slice needs, in place."""
    if not header.segments:
        return header.signals
    known: dict[str, Signal] = {}
    variable = header.segments[0][1] == 0
    if variable and header.segments[0][0] != "~":
        for signal in parse_header(inside_folder(header.path, f"{header.segments[0][0]}.hea")).signals:
            known[signal.name] = signal
    at = 0
    for i, (name, n_frames) in enumerate(pieces):
        if name != "~" and at < last and at + n_frames > first:
            segment = _open_segment(header.path, str(name), n_frames)
            pieces[i] = (segment, n_frames)
            for signal in segment.signals:
                if signal.name not in known or known[signal.name].fmt == 0:
                    known[signal.name] = signal
        at += n_frames
    if not known:
        raise ReadError(f"{header.path}: no segment with a signal in this slice, expected one. Ask for another slice.")
    return tuple(known.values())


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
    pieces: list[tuple[Header | str, int]], channels: list[_Channel], *, by_name: bool, first: int, last: int
) -> list[np.ndarray]:
    """Return a float32 row in mV for each channel, NaN where a segment does not have it."""
    rows = [np.full((last - first) * c.signal.per_frame, np.nan, dtype=np.float32) for c in channels]
    at = 0
    for header, n_frames in pieces:
        begin, end = max(first, at), min(last, at + n_frames)
        if isinstance(header, Header) and begin < end:
            wanted: list[tuple[int, int, float]] = []  # (row, position in this header, mV per unit)
            for row, channel in enumerate(channels):
                for position, signal in enumerate(header.signals):
                    here = signal.name == channel.signal.name if by_name else position == channel.index
                    if here and signal.per_frame == channel.signal.per_frame:
                        own = mv_per(signal.unit)
                        same = not channel.gain_known or own is None or signal.unit == channel.signal.unit
                        wanted.append((row, position, channel.factor if same or own is None else own))
                        break
            if wanted:
                found = _read_segment(header, [position for _, position, _ in wanted], begin - at, end - at)
                for (row, _, factor), samples in zip(wanted, found, strict=True):
                    per_frame = channels[row].signal.per_frame
                    rows[row][(begin - first) * per_frame : (end - first) * per_frame] = samples * factor
        at += n_frames
    return rows


def _read_segment(header: Header, positions: list[int], begin: int, end: int) -> list[np.ndarray]:
    """Read frames of some signals of one header through wfdb, in the header's units."""
    import wfdb

    name = str(header.path.absolute().with_suffix(""))
    # Format 8 stores differences: a slice is right only if everything before it is read as well.
    lead_in = begin if any(s.fmt == 8 for s in header.signals) else 0
    record = wfdb.rdrecord(
        name,
        sampfrom=begin - lead_in,
        sampto=None if header.n_samples is None else end,  # wfdb finds a missing length only without an end
        channels=positions,
        physical=True,
        smooth_frames=False,
    )
    rows = [np.asarray(row, dtype=np.float64) for row in record.e_p_signal]
    cut = [lead_in * header.signals[position].per_frame for position in positions]
    wanted = [(end - begin) * header.signals[position].per_frame for position in positions]
    if any(len(row) - n_cut < n for row, n_cut, n in zip(rows, cut, wanted, strict=True)):
        raise ReadError(
            f"{header.path}: its signal file ends early, expected {end} samples a lead. Copy the file again."
        )
    return [row[n_cut : n_cut + n] for row, n_cut, n in zip(rows, cut, wanted, strict=True)]
