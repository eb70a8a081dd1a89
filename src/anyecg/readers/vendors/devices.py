"""Devices' own formats (SCP-ECG, HL7 aECG, MUSE, Philips, Mortara, ISHNE, MFER ...), parsed by ecgdatakit.

ecgdatakit leaves lead-off sentinels and calibration pulses as numbers and rounds rates to whole Hz; `_rows`,
`calibration_pulse` and `_exact_rate` put that right.
"""

import os
import re
import tempfile
import warnings as python_warnings
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS, display_order
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.notes import is_signed, with_notes
from anyecg.readers.patient import plausible_age, sex_from_text
from anyecg.readers.slices import VALUES_FREE, Extent, check_size, sample_range
from anyecg.readers.sources import split_inner
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.readers.vendors import aecg_series, mfer
from anyecg.record import Record

NAME = "vendor"

SEVERAL = True
"""An aECG may hold several rhythm series: ``FILE#1`` is the second."""

AECG = "HL7 aECG"
AECG_ROOT = b"AnnotatedECG"
"""ecgdatakit's name of the format, and that of the root element, which must stand in the first 4096 bytes."""

OURS = frozenset({"WFDB", "DICOM Waveform", "EDF/EDF+", "SCP-ECG", "ISHNE Holter"})
"""Formats of ecgdatakit that readers of our own read."""

MAX_BYTES = 1_000_000_000
"""These formats are parsed as a whole in memory; the largest, a day's ISHNE Holter of 12 leads, has 500 MB."""

MAX_LEADS = 1000
"""More than any Philips file has: its parser makes a name for each lead that is claimed."""

MAX_TAGS = 300_000
"""Of an XML file: an ECG has some thousands, and each that is open costs a parser 700 bytes."""

LEAD_OFF = -32768
"""The smallest int16 stands for "no contact" or "no sample" (ISHNE 1998; MUSE) and is no voltage in any of them."""

CALIBRATION_MV = 1.0
CALIBRATION_TOLERANCE_MV = 0.02
CALIBRATION_SHORTEST_S = 0.2

INDEPENDENT_LEADS = ("I", "II", *STANDARD_LEADS[6:])
"""What devices store of a 12-lead ECG when they store eight leads."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether ecgdatakit has a parser for the file that is not replaced by a reader of our own."""
    from ecgdatakit import FileParser

    found = FileParser.detect_format(path)
    return found is not None and found["name"] not in OURS


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a device's file; eight stored leads become twelve, of which four are marked as derived.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    if (start_s is not None or end_s is not None) and (part := _part(path, start_s, end_s, fs, unit)):
        return part
    where, warnings = str(path), []  # type: tuple[str, list[str]]
    path, form, parsed = _opened(path, warnings)
    leads = _ecg_leads(where, parsed.leads, warnings)
    stated = parsed.raw_metadata.get("sampling_rate_stated") is not False
    rates = [rate_of(where, _exact_rate(parsed, lead) if stated or fs is None else None, fs) for lead in leads]
    rows, gain_known = _rows(where, form, leads, unit, warnings)
    if form == "MFER":
        rows = _with_gaps(where, path.stat().st_size, parsed, rows, warnings)
    if parsed.raw_metadata.get("resolution_stated") is False:
        gain_known = False
        warnings.append("the file states no scale: that of a reader which took the format apart is assumed")
    if not stated and fs is None:
        warnings.append(f"the file states no sampling rate: {max(rates):g} Hz is assumed")
    rate = max(rates)
    n_samples = max(round(len(row) * rate / own) for row, own in zip(rows, rates, strict=True))
    if len({len(row) / own for row, own in zip(rows, rates, strict=True)}) > 1:
        warnings.append("leads differ in length: the shorter ones are filled up as not recorded")
    if (n_values := len(rows) * n_samples) > VALUES_FREE:  # fewer are free, whatever the file's size
        check_size(where, n_values, path.stat().st_size)
    signal = to_one_rate(rows, rates, n_samples)
    names = rows_with_names([lead.label for lead in leads], warnings)
    # Free text of SCP-ECG's section 1, and comments of an aECG.
    remarks = [str(parsed.annotations.get(key, "")) for key in ("comments", "interpretation_comment")]
    derived, order = frozenset[str](), list(range(len(names)))
    if not is_signed(remarks):
        signal, names, derived = complete_twelve(signal, names)
        order = display_order(names)
    if pulse := calibration_pulse(signal, rate):
        signal[:, pulse[0] : pulse[1]] = np.nan
        warnings.append(f"the calibration pulse from {pulse[0] / rate:.2f} s on is taken as not recorded")
    if parsed.median_beats:
        warnings.append("the file's median beats were not read")
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    patient, started = parsed.patient, parsed.recording.date
    record = Record(
        signal=signal[order, first:last],
        fs=rate,
        leads=tuple(names[i] for i in order),
        id=path.stem,
        format=NAMES.get(form, form.lower()),
        age=plausible_age(None if patient.age is None else float(patient.age)),
        sex=sex_from_text(patient.sex),
        weight_kg=float(patient.weight) if patient.weight else None,
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        gain_known=gain_known,
        derived=derived,
        warnings=tuple(warnings),
    )
    return with_notes(record, remarks)


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long an MFER file is; None of other formats, which are parsed as a whole.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    layout = _mfer_layout(path)
    if layout is None:
        return None
    start = _start_of_mfer(layout, fs, unit)
    return Extent(layout.n_samples, start.fs, start.leads)


def _part(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record | None:
    """Read a slice of an MFER file for the price of a slice; None of other files."""
    layout = _mfer_layout(path)
    if layout is None:
        return None
    rate = _start_of_mfer(layout, fs, unit).fs
    warnings: list[str] = []
    first, last = sample_range(str(path), layout.n_samples, rate, start_s, end_s, warnings)
    record = _of_mfer(layout, first, last, fs, unit)
    time = record.start_time
    return record.with_(
        start_s=first / rate,
        start_time=time + timedelta(seconds=first / rate) if time else None,
        warnings=(*record.warnings, *warnings),
    )


def _mfer_layout(path: Path) -> mfer.Layout | None:
    from ecgdatakit import FileParser

    found = FileParser.detect_format(path) if path.is_file() else None
    return mfer.layout_of(path) if found is not None and found["name"] == "MFER" else None


@lru_cache(maxsize=2)
def _start_of_mfer(layout: mfer.Layout, fs: float | None, unit: str | None) -> Record:
    """Read one sample of each lead: what is true of the whole file is true of it."""
    return _of_mfer(layout, 0, 1, fs, unit)


def _of_mfer(layout: mfer.Layout, first: int, last: int, fs: float | None, unit: str | None) -> Record:
    """Read some samples of an MFER file by way of a small one.

    Raises
    ------
    ReadError
    """
    with tempfile.TemporaryDirectory(prefix="anyecg-") as folder:
        small = Path(folder) / layout.path.name
        try:
            mfer.write_part(layout, first, last, small)
            return read(small, None, None, fs, unit)
        except EOFError as error:
            raise ReadError(f"{layout.path}: {error}, expected a whole file. Copy it again.") from error
        except ReadError as error:
            raise ReadError(str(error).replace(str(small), str(layout.path))) from error


def _opened(path: Path, warnings: list[str]) -> tuple[Path, str, Any]:
    """Return the file, its format by ecgdatakit's name, and what that read of it, or of the series that is named.

    Raises
    ------
    ReadError
        ecgdatakit refuses it, or there is no such series.
    """
    file, inner = split_inner(path)
    if AECG_ROOT not in refuse_entities(file) and not inner:
        parsed = _parsed(file, file)
        return file, parsed.file_format.name, parsed
    form = _form(file)
    if inner and (form != AECG or not inner.startswith("#")):
        raise ReadError(f"{file}: a file of one recording, expected no {inner!r} behind it. Name the file alone.")
    n_series = len(aecg_series.rhythms(file)) if form == AECG else 0
    if n_series < 2 and inner in ("", "#0"):
        return file, form, _parsed(file, file)
    with tempfile.TemporaryDirectory(prefix="anyecg-") as folder:
        one = Path(folder) / file.name
        aecg_series.write_one(file, int(inner[1:] or 0), one)
        if not inner:
            warnings.append(f"only the first of {n_series} rhythm series was read; the next is named {file.name}#1")
        return file, form, _parsed(one, file)


def _form(file: Path) -> str:
    """Return ecgdatakit's name of a file's format."""
    from ecgdatakit import FileParser

    return str((FileParser.detect_format(file) or {}).get("name", "unknown"))


def _parsed(path: Path, file: Path) -> Any:
    """Return what ecgdatakit reads.

    Raises
    ------
    ReadError
        It refuses the file.
    """
    from ecgdatakit import ECGDataKitError, FileParser

    try:
        # Of frames with gaps between them, which `_with_gaps` puts right.
        python_warnings.filterwarnings("ignore", "MFER: frame .* starts at pointer")
        return FileParser.parse(path, auto_scale=False)
    except ECGDataKitError as error:
        text = " ".join(str(error).replace(f" in {path}", "").replace(str(path), "").split())
        raise ReadError(
            f"{file}: {_form(file)} that ecgdatakit refuses ({text}), expected a complete, standard file. Export it "
            "again."
        ) from error


DOMINANT_BEAT = 9
"""MFER's code (MWF_WFM) of a waveform that is an averaged beat."""

NAMES = {
    **{"SCP-ECG": "scp", "HL7 aECG": "aecg", "GE MUSE XML": "muse", "Philips Sierra XML": "philips"},
    **{"Mortara ELI (EL250/ELI280)": "mortara", "ISHNE Holter": "ishne", "MFER": "mfer"},
    **{"AliveCor Kardia JSON": "kardia", "EDAN ARC Holter": "edan", "XLE ECG": "xle"},
}
"""ecgdatakit's names for formats, and ours."""


def refuse_entities(path: Path) -> bytes:
    """Refuse XML that declares entities or absurdly many leads, before any parser sees it, and files too large for one.

    Returns
    -------
    bytes
        The XML's first bytes, without zeros; none if it is something else.

    Raises
    ------
    ReadError
    """
    with open(path, "rb", buffering=0) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise ReadError(f"{path}: {size} bytes, expected at most {MAX_BYTES}. Export it in parts.")
        head = file.read(256).replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
        if not head.startswith(b"<"):
            return b""
        file.seek(0)
        text = file.read()
    if b"\x00" in text:
        text = text.replace(b"\x00", b"")  # UTF-16 without its zero bytes
    # as numbers: bytes.count takes four times as long
    if (n_tags := np.count_nonzero(np.frombuffer(text, np.uint8) == ord("<"))) > MAX_TAGS:
        raise ReadError(f"{path}: XML of {n_tags} tags, expected at most {MAX_TAGS}. The file is damaged.")
    # copied and searched at length only where that may find something
    if _may_declare(text) and b"<!ENTITY" in text.upper():
        raise ReadError(f"{path}: XML that declares entities, expected none in an ECG. Do not open this file.")
    claims = re.findall(rb"<numberchannels\w*[^>]*>\s*(\d{1,20})", text) if b"<numberchannels" in text else []
    if (n_leads := max(map(int, claims), default=0)) > MAX_LEADS:
        raise ReadError(f"{path}: claims {n_leads} leads, expected at most {MAX_LEADS}. The file is damaged.")
    return text[:4096]


def _may_declare(text: bytes) -> bool:
    """Return whether XML holds a declaration that begins as that of an entity does.

    A single byte is found ten times as fast as three are, and most files have but a few of it.
    """
    at = -1
    for _ in range(100):
        at = text.find(b"!", at + 1)
        if at < 0 or text[max(at - 1, 0) : at + 2] in (b"<!E", b"<!e"):
            return at >= 0
    return b"<!E" in text or b"<!e" in text


def _ecg_leads(where: str, leads: list[Any], warnings: list[str]) -> list[Any]:
    """Return the leads that are ECG, by name and unit, and that hold samples."""
    kept: list[Any] = []
    skipped: list[Any] = []
    for lead in leads:
        unit = lead.resolution_unit
        other = says_other(lead.label) or (unit and mv_per(unit) is None and not says_ecg(lead.label))
        (skipped if other or len(lead.samples) == 0 else kept).append(lead)
    if skipped:
        warnings.append(f"skipped, not an ECG or empty: {', '.join(lead.label for lead in skipped)}")
    if not kept:
        raise ReadError(f"{where}: no ECG lead with samples, expected at least one. Check the file.")
    return kept


def _exact_rate(parsed: Any, lead: Any) -> float:
    """Return a lead's rate in Hz as the file states it; ecgdatakit rounds to whole Hz but keeps what it read."""
    meta = parsed.raw_metadata
    interval_us = meta.get("rhythm_sample_interval_us")
    if interval_us and round(1e6 / lead.sampling_rate) == interval_us:
        return float(lead.sampling_rate)  # SCP-ECG counts whole microseconds: 3333 us are meant as 300 Hz
    candidates = [
        (meta.get("rhythm_time") or {}).get("sampling_rate_exact"),
        1e6 / interval_us if interval_us else None,
        (meta.get("raw") or {}).get("frequency") if isinstance(meta.get("raw"), dict) else None,
        *(meta.get("sampling_rates") or []),
    ]
    for rate in candidates:
        if isinstance(rate, int | float) and abs(rate - lead.sampling_rate) <= 0.5:
            # 1 / 0.002 s is 500 Hz but for the last bit.
            return float(round(rate)) if abs(rate - round(rate)) < 1e-6 else float(f"{rate:.12g}")
    return float(lead.sampling_rate)


def _rows(
    where: str, form: str, leads: list[Any], unit: str | None, warnings: list[str]
) -> tuple[list[np.ndarray], bool]:
    """Return a row of mV for each lead, sentinels as NaN, and whether the gain of all is known."""
    rows, uncalibrated, n_off = [], [], 0
    for lead in leads:
        raw = np.asarray(lead.samples, dtype=np.float64)
        if lead.resolution_unit and lead.resolution and mv_per(lead.resolution_unit) is not None:
            row = raw * lead.resolution
            row += lead.offset
            row *= unit_of(where, lead.resolution_unit, unit)
        else:
            if unit is None:
                uncalibrated.append(lead.label)
            row = raw * (1e-3 if unit is None else unit_of(where, None, unit))
        # XLE unwraps its counts beyond int16, so there the value is a voltage.
        if form != "XLE ECG" and raw.min(initial=0) == LEAD_OFF:
            off = raw == LEAD_OFF
            n_off += int(np.count_nonzero(off))
            row[off] = np.nan
        start = int((lead.annotations or {}).get("start_sample", 1)) - 1  # SCP-ECG leads may start late
        rows.append(np.concatenate([np.full(start, np.nan), row]) if 0 < start <= len(row) else row)
    if uncalibrated:
        warnings.append(f"no scale in the file, so 1 uV per unit is assumed: {', '.join(uncalibrated)}")
    if n_off:
        warnings.append(f"{n_off} samples of {LEAD_OFF} (lead off) are taken as not recorded")
    return rows, not uncalibrated


def _with_gaps(where: str, n_bytes: int, parsed: Any, rows: list[np.ndarray], warnings: list[str]) -> list[np.ndarray]:
    """Return the rows of an MFER file with its frames where their pointers say (ISO 22077-1:2022, MWF_PNT).

    ecgdatakit 2.0 puts one frame after the other. Leads of several rates stay so, since a pointer counts the samples of
    one rate; so do frames that overlap.
    """
    frames = [f for f in parsed.raw_metadata.get("frames", []) if f["waveform_type"] != DOMINANT_BEAT]
    lengths = [f["samples"] for f in frames]
    starts = [f["pointer"] - frames[0]["pointer"] for f in frames]
    at, n_used = 0, 0
    for length in lengths:  # frames after the run that was loaded are in the list, too
        if at == len(rows[0]):
            break
        at, n_used = at + length, n_used + 1
    ends = np.cumsum(lengths[:n_used])
    begins = ends - lengths[:n_used]
    if at == len(rows[0]) and np.array_equal(begins, starts[:n_used]):
        return rows
    overlap = np.any(np.array(starts[1:n_used]) < np.add(starts, lengths)[: n_used - 1])
    if at != len(rows[0]) or len({len(row) for row in rows}) > 1 or overlap:
        warnings.append("frames lie apart in time or overlap, which is not clear: one is put after the other")
        return rows
    n_samples = starts[n_used - 1] + lengths[n_used - 1]
    check_size(where, n_samples * len(rows), n_bytes)
    placed = [np.full(n_samples, np.nan) for _ in rows]
    for begin, end, start in zip(begins, ends, starts, strict=False):
        for out, row in zip(placed, rows, strict=True):
            out[start : start + end - begin] = row[begin:end]
    warnings.append(f"frames lie apart in time: {n_samples - at} samples between them are taken as not recorded")
    return placed


def complete_twelve(signal: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...], frozenset[str]]:
    """Return twelve leads for the eight independent ones: III by Einthoven's law, aVR, aVL and aVF by Goldberger's.

    Parameters
    ----------
    signal : ndarray of float32, shape (n_leads, n_samples)
    names : tuple of str

    Returns
    -------
    signal, names
        As given unless the leads are exactly I, II, V1 ... V6.
    derived : frozenset of str
    """
    if set(names) != set(INDEPENDENT_LEADS):
        return signal, names, frozenset()
    one, two = (signal[names.index(name)] for name in ("I", "II"))
    added = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.concatenate([signal, list(added.values())]), (*names, *added), frozenset(added)


def calibration_pulse(signal: np.ndarray, fs: float) -> tuple[int, int] | None:
    """Return the samples of a calibration pulse at the record's end, or None (Philips appends one to every lead).

    It is where all leads, three or more, are the same for a fifth of a second or longer, from 0 up to 1 mV.
    """
    if len(signal) < 3 or signal.shape[1] == 0:
        return None
    same = np.ptp(signal, axis=0) <= CALIBRATION_TOLERANCE_MV
    if not same[-1]:
        return None
    different = np.flatnonzero(~same)
    first = int(different[-1]) + 1 if len(different) else 0
    tail = signal[:, first:]
    if first == 0 or tail.shape[1] < CALIBRATION_SHORTEST_S * fs:
        return None
    high, low = float(tail.max()), float(np.abs(tail).min())
    if abs(high - CALIBRATION_MV) <= CALIBRATION_TOLERANCE_MV and low <= CALIBRATION_TOLERANCE_MV:
        return first, signal.shape[1]
    return None
