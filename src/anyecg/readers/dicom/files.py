"""DICOM ECG waveforms (PS3.3 C.10.9, the Waveform module; A.34, the ECG objects)."""

import io
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, standard_name
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.dicom.notes import annotations_of
from anyecg.readers.notes import with_notes
from anyecg.readers.patient import age_at, age_from_text, sex_from_text
from anyecg.readers.slices import check_size, sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record, runs_of

NAME = "dicom"

SCP_LEADS = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 11: "V3R", 12: "V4R"},
    **{13: "V5R", 14: "V6R", 16: "X", 17: "Y", 18: "Z", 19: "CC5", 20: "CM5", 61: "III", 62: "aVR", 63: "aVL"},
    **{64: "aVF", 66: "V8", 67: "V9"},
}
"""Lead numbers shared by SCP-ECG ("5.6.3-9-N") and ISO 11073 ("2:N"): PS3.16 CID 3001."""

DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 20_000_000
"""Of a deflated file: 12 leads for a quarter of an hour at 1000 Hz. zlib packs up to 1032 bytes into one."""

LONGEST_OFFSET_S = 3600.0
"""Groups of one ECG are recorded within seconds; a damaged offset would ask for any amount of memory."""

PADDING_SHORTEST_S = 0.2
"""No lead stays at one count this long while it records."""

_DTYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
"""Waveform Sample Interpretation (003A,...5400,1006) to numpy."""


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
    content = path.read_bytes()
    _check_inflated(path, content)
    # From memory: of an element that claims 4 GB no more is made room for than there is.
    dataset = pydicom.dcmread(io.BytesIO(content))
    if not dataset.get("WaveformSequence"):
        stated = str(dataset.get("Modality") or "unknown modality")
        kind = "".join(letter for letter in stated if letter.isprintable())[:40]
        raise ReadError(f"{where}: a DICOM file without waveforms ({kind}), expected an ECG. Choose another file.")
    warnings: list[str] = []
    groups = _rhythm(list(dataset.WaveformSequence), warnings)
    rate = rate_of(where, max(float(group.SamplingFrequency) for group in groups), fs)
    little_endian = dataset.original_encoding[1] is not False
    if len(groups) == 1:
        stored, padded = _samples(where, groups[0], little_endian)
        first, last = sample_range(where, stored.shape[1], rate, start_s, end_s, warnings)
        cut = np.array(stored[:, first:last], dtype=np.float64)
        cut[padded[:, first:last]] = np.nan
        signal, names, gain_known = _leads(where, groups[0], cut, unit, warnings)
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
        leads=rows_with_names(where, names, warnings),
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
        stored, padded = _samples(where, group, little_endian)
        counts = np.array(stored, dtype=np.float64)
        counts[padded] = np.nan
        found, found_names, found_known = _leads(where, group, counts, unit, warnings)
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


def _samples(where: str, group: Any, little_endian: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a group's stored integers, shape (n_channels, n_samples), and which of them are padding."""
    n_channels, n_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    kind = str(group.WaveformSampleInterpretation)
    if kind not in _DTYPES:  # mu-law and A-law (MB, AB) are for voices, not for ECGs: A.34.3 to A.34.5
        raise ReadError(f"{where}: samples coded as {kind}, expected one of {', '.join(_DTYPES)}. Convert the file.")
    dtype = np.dtype(_DTYPES[kind]).newbyteorder("<" if little_endian else ">")
    data = bytes(group.WaveformData)
    if n_channels <= 0 or n_samples <= 0 or len(data) < n_channels * n_samples * dtype.itemsize:
        raise ReadError(
            f"{where}: {len(data)} bytes of waveform, expected {n_channels} channels of {n_samples} samples. "
            "The file is cut short; copy it again."
        )
    stored = np.frombuffer(data, dtype=dtype, count=n_channels * n_samples).reshape(n_samples, n_channels).T
    padding = group.get("WaveformPaddingValue")
    if padding is None:
        return stored, np.zeros(stored.shape, dtype=bool)
    if isinstance(padding, bytes):
        padding = np.frombuffer(padding[: dtype.itemsize], dtype=dtype)[0]
    return stored, _padding(stored, int(padding), round(PADDING_SHORTEST_S * float(group.SamplingFrequency)))


def _padding(stored: np.ndarray, padding: int, n_shortest: int) -> np.ndarray:
    """Return where each row holds padding.

    Some devices declare 0 as padding, which every lead crosses many times (the C# ECG Toolkit's example does): a value
    amid the others is padding only where it is held for a while.
    """
    padded = stored == padding
    for row, mask in zip(stored, padded, strict=True):
        others = row[~mask]
        if len(others) and others.min() < padding < others.max():
            for begin, end in runs_of(mask):
                if end - begin < n_shortest:
                    mask[begin:end] = False
    return padded


def _leads(
    where: str, group: Any, counts: np.ndarray, unit: str | None, warnings: list[str]
) -> tuple[np.ndarray, list[str], bool]:
    """Return mV, raw lead names, and whether the gain is known, of a group's ECG channels."""
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != len(counts):
        raise ReadError(
            f"{where}: {len(definitions)} channel definitions, expected {len(counts)}. The file is damaged."
        )
    rows, names, skipped, uncalibrated, skewed = [], [], [], [], []
    for index, (channel, row) in enumerate(zip(definitions, counts, strict=True)):
        name = _lead_name(channel) or f"lead{index + 1}"
        stated = _unit(channel)
        if says_other(name) or (stated is not None and mv_per(stated) is None and not says_ecg(name)):
            skipped.append(name)
            continue
        sensitivity = channel.get("ChannelSensitivity")
        if sensitivity is None or stated is None or mv_per(stated) is None:
            if unit is None:
                uncalibrated.append(name)
            rows.append(row * (1e-3 if unit is None else unit_of(where, None, unit)))
        else:
            factor = unit_of(where, stated, unit)
            correction = float(channel.get("ChannelSensitivityCorrectionFactor") or 1.0)
            offset = float(channel.get("ChannelBaseline") or 0.0)  # in the sensitivity's units: C.10.9.1.4.2
            rows.append((row * float(sensitivity) * correction + offset) * factor)
        if abs(float(channel.get("ChannelSampleSkew") or 0.0)) >= 1:
            skewed.append(name)
        names.append(name)
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if uncalibrated:
        warnings.append(f"no sensitivity in the file, so 1 uV per unit is assumed: {', '.join(uncalibrated)}")
    if skewed:
        warnings.append(f"a skew of a sample or more against the other leads was not corrected: {', '.join(skewed)}")
    if not rows:
        raise ReadError(f"{where}: no ECG among {', '.join(skipped)}, expected at least one lead. Choose another file.")
    return np.asarray(rows, dtype=np.float32), names, not uncalibrated


def _unit(channel: Any) -> str | None:
    """Return the unit of a channel's sensitivity (UCUM code value), or None if there is none."""
    sequence = channel.get("ChannelSensitivityUnitsSequence")
    return str(sequence[0].CodeValue) if sequence and sequence[0].get("CodeValue") else None


def _lead_name(channel: Any) -> str:
    """Return a channel's lead: by its source's code, else by that code's meaning, else by its label."""
    source = channel.get("ChannelSourceSequence")
    texts = []
    if source:
        code = re.fullmatch(r"(?:5\.6\.3-9-|2:)(\d+)", str(source[0].get("CodeValue") or "").strip())
        if code and int(code[1]) in SCP_LEADS:
            return SCP_LEADS[int(code[1])]
        texts.append(str(source[0].get("CodeMeaning") or ""))
        if str(source[0].get("CodeValue") or "").startswith("MDC_"):
            texts.append(str(source[0].CodeValue))
    texts.append(str(channel.get("ChannelLabel") or ""))
    for text in texts:  # "Lead I (Einthoven)", "MDC_ECG_LEAD_V1"
        name = standard_name(re.sub(r"\(.*?\)", "", text))
        if name in KNOWN_LEADS:
            return name
    return next((text.strip() for text in texts if text.strip()), "")


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
