"""DICOM ECG waveforms (PS3.3 C.10.9, the Waveform module; A.34, the ECG objects)."""

import io
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import to_one_rate
from anyecg.readers.dicom.channels import SCP_LEADS as SCP_LEADS
from anyecg.readers.dicom.channels import counts_of, leads_of
from anyecg.readers.dicom.notes import annotations_of
from anyecg.readers.dicom.parts import waves_of
from anyecg.readers.notes import with_notes
from anyecg.readers.patient import age_at, age_from_text, sex_from_text
from anyecg.readers.slices import Extent, check_size, sample_range
from anyecg.readers.units import rate_of
from anyecg.record import Record

NAME = "dicom"

DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 20_000_000
"""Of a deflated file: 12 leads for a quarter of an hour at 1000 Hz. zlib packs up to 1032 bytes into one."""

LONGEST_OFFSET_S = 3600.0
"""Groups of one ECG are recorded within seconds; a damaged offset would ask for any amount of memory."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file has DICOM's mark after its preamble (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the rhythm of a DICOM ECG: all multiplex groups that were measured, each lead at its time.

    12 leads are often stored as several groups of simultaneous leads. Derived groups, such as a median beat, are
    reported and left out.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    import pydicom

    where = str(path)
    warnings: list[str] = []
    span: tuple[int, int] | None = None
    if (start_s is not None or end_s is not None) and (waves := waves_of(path)) is not None:
        span = sample_range(where, waves.n_samples, rate_of(where, waves.rate_hz, fs), start_s, end_s, warnings)
        content = waves.part(*span)
    else:
        content = path.read_bytes()
    _check_inflated(path, content)
    # From memory: of an element that claims 4 GB no more is made room for than there is.
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
    except (OSError, EOFError) as error:
        raise ReadError(f"{where}: DICOM that is cut short ({error}), expected a whole file. Copy it again.") from error
    if not dataset.get("WaveformSequence"):
        stated = str(dataset.get("Modality") or "unknown modality")
        kind = "".join(letter for letter in stated if letter.isprintable())[:40]
        raise ReadError(f"{where}: a DICOM file without waveforms ({kind}), expected an ECG. Choose another file.")
    groups = _rhythm(list(dataset.WaveformSequence), warnings)
    rate = rate_of(where, max(float(group.SamplingFrequency) for group in groups), fs)
    little_endian = dataset.original_encoding[1] is not False
    if len(groups) == 1:
        counts, n_samples = counts_of(where, groups[0], little_endian, warnings)
        first, last = span or sample_range(where, n_samples, rate, start_s, end_s, warnings)
        begin = 0 if span else first
        cut = counts(begin, begin + last - first)
        signal, names, gain_known = leads_of(where, groups[0], cut, unit, warnings)
    else:
        whole, names, gain_known = _together(where, groups, little_endian, unit, warnings)
        first, last = sample_range(where, whole.shape[1], rate, start_s, end_s, warnings)
        signal = whole[:, first:last]

    start_time = _start_time(dataset)
    age = age_from_text(str(dataset.get("PatientAge") or ""))
    weight = dataset.get("PatientWeight")
    record = Record(
        signal=signal,
        fs=rate,
        leads=rows_with_names(names, warnings),
        id=path.stem,
        format=NAME,
        age=age if age is not None else age_at(_datetime(str(dataset.get("PatientBirthDate") or "")), start_time),
        sex=sex_from_text(dataset.get("PatientSex")),
        weight_kg=float(weight) if weight else None,
        start_time=start_time + timedelta(seconds=first / rate) if start_time else None,
        start_s=first / rate,
        gain_known=gain_known,
        annotations=annotations_of(dataset, groups[0], names, first / rate, last / rate),
        warnings=tuple(warnings),
    )
    remarks = dataset.get("WaveformAnnotationSequence") or []
    return with_notes(record, [str(remark.get("UnformattedTextValue") or "") for remark in remarks])


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a file of one group is; None of others, which are read as a whole.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    waves = waves_of(path)
    if waves is None:
        return None
    start = read(path, 0.0, 1 / waves.rate_hz, fs, unit)
    return Extent(waves.n_samples, start.fs, start.leads)


def _check_inflated(path: Path, content: bytes) -> None:
    """Refuse a deflated file (PS3.5, A.5) that unpacks to more than `MAX_INFLATED_BYTES`, before it is unpacked.

    Raises
    ------
    ReadError
    """
    import zlib

    from pydicom.filereader import read_dataset, read_preamble

    if DEFLATED.encode() not in content:
        return
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return
    packed = file.read(MAX_INFLATED_BYTES)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(inflater.decompress(packed, MAX_INFLATED_BYTES)) >= MAX_INFLATED_BYTES or len(packed) == MAX_INFLATED_BYTES:
        raise ReadError(
            f"{path}: a deflated file of {len(content)} bytes that unpacks to more than {MAX_INFLATED_BYTES}, "
            "expected less. Save it as Explicit VR Little Endian."
        )


def _rhythm(groups: list[Any], warnings: list[str]) -> list[Any]:
    """Return the multiplex groups that were measured, the longest first, or the longest derived one if there is none.

    The others are reported.
    """

    def size(group: Any) -> tuple[bool, float, int]:
        rate = float(group.SamplingFrequency)
        duration_s = int(group.NumberOfWaveformSamples) / rate if rate > 0 else 0.0
        return _measured(group), duration_s, int(group.NumberOfWaveformChannels)

    ordered = sorted(groups, key=size, reverse=True)
    chosen = [group for group in ordered if _measured(group)] or ordered[:1]
    others = [
        f"{group.get('MultiplexGroupLabel') or 'unnamed'} ({size(group)[2]} leads, {size(group)[1]:.2f} s)"
        for group in ordered
        if not any(group is one for one in chosen)
    ]
    if others:
        warnings.append(f"derived waveforms in the file were not read: {'; '.join(others)}")
    return chosen


def _measured(group: Any) -> bool:
    """Return whether a group is no median beat or the like (Waveform Originality, C.10.9.1.2)."""
    return str(group.get("WaveformOriginality") or "ORIGINAL") == "ORIGINAL"


def _together(
    where: str, groups: list[Any], little_endian: bool, unit: str | None, warnings: list[str]
) -> tuple[np.ndarray, list[str], bool]:
    """Return mV of the leads of several groups, each from its group's time on, names, and whether the gain is known.

    A lead that several groups have is read from the longest one.
    """
    rows: list[np.ndarray] = []
    rates: list[float] = []
    names: list[str] = []
    known = True
    n_bytes = sum(len(group.WaveformData) for group in groups)
    offsets_s = [float(group.get("MultiplexGroupTimeOffset") or 0.0) / 1000 for group in groups]
    for group, offset_s in zip(groups, offsets_s, strict=True):
        counts, n_own = counts_of(where, group, little_endian, warnings)
        found, found_names, found_known = leads_of(where, group, counts(0, n_own), unit, warnings)
        known &= found_known
        rate = rate_of(where, float(group.SamplingFrequency), None)
        n_before = round((offset_s - min(offsets_s)) * rate)
        if not 0 <= n_before <= LONGEST_OFFSET_S * rate:
            raise ReadError(
                f"{where}: a group that begins {offset_s:g} s after another, expected within {LONGEST_OFFSET_S:g} s. "
                "The file is damaged."
            )
        check_size(where, n_before * len(found), n_bytes)  # a rate may claim 1e9 Hz
        again = [name for name in found_names if name in names]
        if again:
            warnings.append(f"leads that several groups have are read from the longest: {', '.join(again)}")
        for row, name in zip(found, found_names, strict=True):
            if name not in names:
                names.append(name)
                rows.append(np.concatenate([np.full(n_before, np.nan, dtype=np.float32), row]))
                rates.append(rate)
    if len(set(rates)) > 1:
        slow = [name for name, rate in zip(names, rates, strict=True) if rate < max(rates)]
        warnings.append(f"recorded at a lower rate and brought to {max(rates):g} Hz: {', '.join(slow)}")
    if len(groups) > 1 and any(offset != offsets_s[0] for offset in offsets_s):
        warnings.append("the leads were recorded one group after another: outside its time a lead is not recorded")
    n_samples = max(round(len(row) * max(rates) / rate) for row, rate in zip(rows, rates, strict=True))
    check_size(where, len(rows) * n_samples, n_bytes)
    return to_one_rate(rows, rates, n_samples), names, known


def _datetime(text: str) -> datetime | None:
    """Return a DICOM DT, or a DA followed by a TM (PS3.5, 6.2), without its time zone; None if it is none."""
    digits = re.sub(r"[+-]\d{4}$", "", text.strip())
    whole, _, fraction = digits.partition(".")
    for length, form in ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (8, "%Y%m%d")):
        if len(whole) == length:
            try:
                time = datetime.strptime(whole, form)
            except ValueError:
                return None
            return time.replace(microsecond=int(f"{fraction[:6]:0<6}") if fraction.isdigit() else 0)
    return None


def _start_time(dataset: Any) -> datetime | None:
    """Return when the acquisition began, as the file says it."""
    for text in (
        str(dataset.get("AcquisitionDateTime") or ""),
        f"{dataset.get('AcquisitionDate') or ''}{dataset.get('AcquisitionTime') or ''}",
        f"{dataset.get('ContentDate') or ''}{dataset.get('ContentTime') or ''}",
    ):
        time = _datetime(text)
        if time is not None and len(text) > 8:
            return time
    return None
