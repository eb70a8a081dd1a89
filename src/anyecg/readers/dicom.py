"""DICOM ECG waveforms (PS3.3 C.10.9, the Waveform module; A.34, the ECG objects)."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, standard_name
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other
from anyecg.readers.patient import age_at, age_from_text, sex_from_text
from anyecg.readers.slices import sample_range
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
MAX_DEFLATED_BYTES = 500_000
"""zlib packs at most 1032 bytes into one: half a GB when unpacked."""

PADDING_SHORTEST_S = 0.2
"""No lead stays at one count this long while it records."""

_DTYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
"""Waveform Sample Interpretation (003A,...5400,1006) to numpy."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file has DICOM's mark after its preamble (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the rhythm of a DICOM ECG: of several multiplex groups the longest, which also has the most channels.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    import pydicom

    where = str(path)
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == DEFLATED and path.stat().st_size > MAX_DEFLATED_BYTES:
        raise ReadError(
            f"{where}: a deflated file of {path.stat().st_size} bytes, expected at most {MAX_DEFLATED_BYTES}: it may "
            "grow a thousandfold. Save it as Explicit VR Little Endian."
        )
    dataset = pydicom.dcmread(path)
    if not dataset.get("WaveformSequence"):
        kind = dataset.get("Modality") or "unknown modality"
        raise ReadError(f"{where}: a DICOM file without waveforms ({kind}), expected an ECG. Choose another file.")
    warnings: list[str] = []
    group = _rhythm(list(dataset.WaveformSequence), warnings)
    rate = rate_of(where, float(group.SamplingFrequency), fs)
    counts = _samples(where, group, dataset.original_encoding[1] is not False)
    first, last = sample_range(where, counts.shape[1], rate, start_s, end_s, warnings)
    signal, names, gain_known = _leads(where, group, counts[:, first:last], unit, warnings)

    start_time = _start_time(dataset)
    age = age_from_text(str(dataset.get("PatientAge") or ""))
    weight = dataset.get("PatientWeight")
    return Record(
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
        warnings=tuple(warnings),
    )


def _rhythm(groups: list[Any], warnings: list[str]) -> Any:
    """Return the multiplex group to read, and report the others."""

    def size(group: Any) -> tuple[bool, float, int]:
        rate = float(group.SamplingFrequency)
        measured = str(group.get("WaveformOriginality") or "ORIGINAL") == "ORIGINAL"
        duration_s = int(group.NumberOfWaveformSamples) / rate if rate > 0 else 0.0
        return measured, duration_s, int(group.NumberOfWaveformChannels)

    chosen = max(groups, key=size)
    others = [
        f"{group.get('MultiplexGroupLabel') or 'unnamed'} ({size(group)[2]} leads, {size(group)[1]:.2f} s)"
        for group in groups
        if group is not chosen
    ]
    if others:
        warnings.append(f"other waveforms in the file were not read: {'; '.join(others)}")
    return chosen


def _samples(where: str, group: Any, little_endian: bool) -> np.ndarray:
    """Return a group's stored values, shape (n_channels, n_samples), as float32; padding values as NaN."""
    n_channels, n_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    kind = str(group.WaveformSampleInterpretation)
    if kind not in _DTYPES:
        raise ReadError(f"{where}: samples coded as {kind}, expected one of {', '.join(_DTYPES)}. Convert the file.")
    dtype = np.dtype(_DTYPES[kind]).newbyteorder("<" if little_endian else ">")
    data = bytes(group.WaveformData)
    if n_channels <= 0 or n_samples <= 0 or len(data) < n_channels * n_samples * dtype.itemsize:
        raise ReadError(
            f"{where}: {len(data)} bytes of waveform, expected {n_channels} channels of {n_samples} samples. "
            "The file is cut short; copy it again."
        )
    stored = np.frombuffer(data, dtype=dtype, count=n_channels * n_samples).reshape(n_samples, n_channels).T
    counts = stored.astype(np.float64)
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        if isinstance(padding, bytes):
            padding = np.frombuffer(padding[: dtype.itemsize], dtype=dtype)[0]
        _mask_padding(counts, float(padding), round(PADDING_SHORTEST_S * float(group.SamplingFrequency)))
    return counts


def _mask_padding(counts: np.ndarray, padding: float, n_shortest: int) -> None:
    """Set padding to NaN, in place, in each row.

    Some devices declare 0 as padding, which every lead crosses many times (the C# ECG Toolkit's example does): a value
    amid the others is padding only where it is held for a while.
    """
    for row in counts:
        padded = row == padding
        others = row[~padded]
        if len(others) and others.min() < padding < others.max():
            for begin, end in runs_of(padded):
                if end - begin < n_shortest:
                    padded[begin:end] = False
        row[padded] = np.nan


def _leads(
    where: str, group: Any, counts: np.ndarray, unit: str | None, warnings: list[str]
) -> tuple[np.ndarray, list[str], bool]:
    """Return mV, raw lead names, and whether the gain is known, of a group's ECG channels."""
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != len(counts):
        raise ReadError(
            f"{where}: {len(definitions)} channel definitions, expected {len(counts)}. The file is damaged."
        )
    rows, names, skipped, uncalibrated = [], [], [], []
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
        names.append(name)
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if uncalibrated:
        warnings.append(f"no sensitivity in the file, so 1 uV per unit is assumed: {', '.join(uncalibrated)}")
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
