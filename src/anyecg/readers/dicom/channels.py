"""From a multiplex group's integers to leads in mV: padding, skew, names and scales (PS3.3 C.10.9.1.4)."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, standard_name
from anyecg.readers.channels import says_ecg, says_other
from anyecg.readers.dicom.values import number, text
from anyecg.readers.units import mv_per, unit_of
from anyecg.record import runs_of

SCP_LEADS = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 11: "V3R", 12: "V4R"},
    **{13: "V5R", 14: "V6R", 16: "X", 17: "Y", 18: "Z", 19: "CC5", 20: "CM5", 61: "III", 62: "aVR", 63: "aVL"},
    **{64: "aVF", 66: "V8", 67: "V9"},
}
"""Lead numbers shared by SCP-ECG ("5.6.3-9-N") and ISO 11073 ("2:N"): PS3.16 CID 3001."""

PADDING_SHORTEST_S = 0.2
"""No lead stays at one count this long while it records."""

WHOLE = 0.01
"""Of a sample: a smaller skew is none, and one that is so near to whole samples is put right."""

LONGEST_SKEW_S = 1.0
"""A converter that takes the leads in turn is through with them within one sample; seconds are damage."""

_DTYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
"""Waveform Sample Interpretation (003A,...5400,1006) to numpy."""

CODE_VALUE, SOURCE, SENSITIVITY, UNITS = 0x00080100, 0x003A0208, 0x003A0210, 0x003A0211
CORRECTION, BASELINE, TIME_SKEW, SAMPLE_SKEW, OFFSET = 0x003A0212, 0x003A0213, 0x003A0214, 0x003A0215, 0x003A0218

Counts = Callable[[int, int], np.ndarray]
"""Of a first sample and the one after the last: counts, (n_channels, n) of float64, NaN where not recorded."""


def counts_of(where: str, group: Any, little_endian: bool, warnings: list[str]) -> tuple[Counts, int]:
    """Return a function that gives a stretch of a group's counts, and how many samples the group has.

    Channels that were sampled whole samples earlier or later than the group's time says are put in their place.

    Raises
    ------
    ReadError
        The samples are coded in a way that no ECG is, or fewer than stated.
    """
    stored, padded = _samples(where, group, little_endian)
    n_samples = stored.shape[1]
    shifts = _shifts(group, n_samples, warnings)

    def counts(first: int, last: int) -> np.ndarray:
        found = np.array(stored[:, first:last], dtype=np.float64)
        if padded is not None:
            found[padded[:, first:last]] = np.nan
        for row, shift in shifts.items():
            found[row] = np.nan
            begin, end = max(first, shift), min(last, n_samples + shift)
            if begin < end:
                own = slice(begin - shift, end - shift)
                values = stored[row, own].astype(np.float64)
                if padded is not None:
                    values[padded[row, own]] = np.nan
                found[row, begin - first : end - first] = values
        return found

    return counts, n_samples


def _samples(where: str, group: Any, little_endian: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a group's stored integers, shape (n_channels, n_samples), and which of them are padding, if any."""
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
        return stored, None
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


def _shifts(group: Any, n_samples: int, warnings: list[str]) -> dict[int, int]:
    """Return by how many samples which channels are later than the group's time, if by whole ones; the rest is said.

    Skew is what the converter's turn makes, in seconds or in samples; Channel Offset, in seconds, comes on top of it
    (C.10.9.1.4.3). All channels of most files have none.
    """
    rate = float(group.SamplingFrequency)
    shifts: dict[int, int] = {}
    moved: list[str] = []
    left: list[str] = []
    channels = list(group.ChannelDefinitionSequence)
    delays = [_delay(channel, rate) for channel in channels]
    for index, (channel, late) in enumerate(zip(channels, delays, strict=True)):
        if not abs(late) > WHOLE or len(set(delays)) == 1:  # of all alike is none against each other
            continue
        name = lead_name(channel) or f"lead{index + 1}"
        whole = abs(late) <= min(LONGEST_SKEW_S * rate, n_samples - 1) and abs(late - round(late)) <= WHOLE
        (moved if whole else left).append(f"{name} {late:.4g}")
        if whole:
            shifts[index] = round(late)
    if moved:
        warnings.append(f"a skew against the other leads was put right, in samples: {_some(moved)}")
    if left:
        warnings.append(f"a skew against the other leads was not corrected, in samples: {_some(left)}")
    return shifts


def _delay(channel: Any, rate: float) -> float:
    """Return by how many samples a channel is later than its group's time."""
    skew = number(channel, SAMPLE_SKEW)
    if skew is None:
        skew = (number(channel, TIME_SKEW) or 0.0) * rate
    return skew + (number(channel, OFFSET) or 0.0) * rate


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")


def leads_of(
    where: str, group: Any, counts: np.ndarray, unit: str | None, warnings: list[str]
) -> tuple[np.ndarray, list[str], bool]:
    """Return mV, raw lead names, and whether the gain is known, of a group's ECG channels.

    Raises
    ------
    ReadError
        There is none, or the channels are not as many as their definitions.
    """
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != len(counts):
        raise ReadError(
            f"{where}: {len(definitions)} channel definitions, expected {len(counts)}. The file is damaged."
        )
    rows, names, skipped, uncalibrated = [], [], [], []
    for index, (channel, row) in enumerate(zip(definitions, counts, strict=True)):
        name = lead_name(channel) or f"lead{index + 1}"
        stated = _unit(channel)
        if says_other(name) or (stated is not None and mv_per(stated) is None and not says_ecg(name)):
            skipped.append(name)
            continue
        sensitivity = number(channel, SENSITIVITY)
        if sensitivity is None or stated is None or mv_per(stated) is None:
            if unit is None:
                uncalibrated.append(name)
            row *= 1e-3 if unit is None else unit_of(where, None, unit)
        else:
            factor = unit_of(where, stated, unit)
            row *= sensitivity * (number(channel, CORRECTION) or 1.0) * factor
            if offset := number(channel, BASELINE):  # in the sensitivity's units: C.10.9.1.4.2
                row += offset * factor
        rows.append(row)
        names.append(name)
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if uncalibrated:
        warnings.append(f"no sensitivity in the file, so 1 uV per unit is assumed: {', '.join(uncalibrated)}")
    if not rows:
        raise ReadError(f"{where}: no ECG among {', '.join(skipped)}, expected at least one lead. Choose another file.")
    return np.array(rows, dtype=np.float32), names, not uncalibrated


def _unit(channel: Any) -> str | None:
    """Return the unit of a channel's sensitivity (UCUM code value), or None if there is none."""
    sequence = channel.get(UNITS)
    return (text(sequence.value[0], CODE_VALUE) or None) if sequence is not None and sequence.value else None


def lead_name(channel: Any) -> str:
    """Return a channel's lead: by its source's code, else by that code's meaning, else by its label."""
    source = channel.get(SOURCE)
    texts = []
    if source is not None and source.value:
        coded = text(source.value[0], CODE_VALUE)
        code = re.fullmatch(r"(?:5\.6\.3-9-|2:)(\d+)", coded)
        if code and int(code[1]) in SCP_LEADS:
            return SCP_LEADS[int(code[1])]
        texts.append(str(source.value[0].get("CodeMeaning") or ""))
        if coded.startswith("MDC_"):
            texts.append(coded)
    texts.append(str(channel.get("ChannelLabel") or ""))
    for said in texts:  # "Lead I (Einthoven)", "MDC_ECG_LEAD_V1"
        name = standard_name(re.sub(r"\(.*?\)", "", said))
        if name in KNOWN_LEADS:
            return name
    return next((said.strip() for said in texts if said.strip()), "")
