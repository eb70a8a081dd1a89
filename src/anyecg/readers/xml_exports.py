"""XML exports that no library reads: GE CardioSoft (CardiologyXML) and Schiller (SEMA, schillerEDI).

Neither maker publishes its format. The structure follows what open-source readers agree on: for CardioSoft the
CardioSoft 6.73 schema in github.com/carbocation/genomisc and load_cardiosoftxml.m of github.com/BIVectors/BRAVEHEART;
for Schiller load_schillerxml.m of the latter and the JAXB beans of the CVRG's ECG format converter (Johns Hopkins).

Departures: CardioSoft's FullDisclosure (a whole exercise test) is not read, since those readers disagree on the order
of its samples; nor are median beats.
"""

import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import display_order
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_other
from anyecg.readers.patient import age_at, age_from_text, sex_from_text
from anyecg.readers.slices import sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.readers.vendor import LEAD_OFF, complete_twelve, refuse_entities
from anyecg.record import Record

NAME = "xml"

_ROOTS = {"cardiosoft": rb"<(?:\w+:)?CardiologyXML[\s>]", "schiller": rb"<[\w.:]*schillerEDI[\w.]*[\s>]"}

_DATES = ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%Y/%m/%d")
_CLOCKS = ("%H:%M:%S", "%H:%M:%S.%f", "%H%M%S", "%H:%M")


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the root element is one of theirs."""
    return _kind(head) is not None


def _kind(head: bytes) -> str | None:
    text = head.replace(b"\x00", b"")  # UTF-16
    if not text.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<"):
        return None
    return next((name for name, root in _ROOTS.items() if re.search(root, text)), None)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the rhythm; eight stored leads become twelve, of which four are marked as derived.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    from defusedxml import ElementTree

    where = str(path)
    refuse_entities(path)
    with path.open("rb") as file:
        kind = _kind(file.read(8192))
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ReadError(f"{where}: damaged XML ({error}), expected a whole file. Export it again.") from error
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]  # without its namespace
    warnings: list[str] = []
    parts = _cardiosoft(where, root, warnings) if kind == "cardiosoft" else _schiller(where, root, warnings)
    rows, names, stated_hz, per_unit, unit_name, person, started = parts
    rate = rate_of(where, stated_hz, fs)
    known = per_unit is not None and mv_per(unit_name) is not None
    if known:
        factor = unit_of(where, unit_name, unit) * float(per_unit or 1.0)
    else:
        factor = 1e-3 if unit is None else unit_of(where, None, unit)
        if unit is None:
            warnings.append("no scale in the file, so 1 uV per unit is assumed")
    n_samples = max(len(row) for row in rows)
    if len({len(row) for row in rows}) > 1:
        warnings.append("leads differ in length: the shorter ones are filled up as not recorded")
    signal = np.full((len(rows), n_samples), np.nan, dtype=np.float32)
    for out, row in zip(signal, rows, strict=True):
        out[: len(row)] = np.where(row == LEAD_OFF, np.nan, row * factor)
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    signal, leads, derived = complete_twelve(signal[:, first:last], rows_with_names(where, names, warnings))
    order = display_order(leads)
    return Record(
        signal=signal[order],
        fs=rate,
        leads=tuple(leads[i] for i in order),
        id=path.stem,
        format=kind or NAME,
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        gain_known=known or unit is not None,
        derived=derived,
        warnings=tuple(warnings),
        **person,
    )


_Parts = tuple[list[np.ndarray], list[str], float | None, float | None, str, dict[str, Any], datetime | None]
"""Rows of counts, lead names, Hz, units a count, their name, age, sex and weight_kg, start time."""


def _cardiosoft(where: str, root: Any, warnings: list[str]) -> _Parts:
    """Take apart a CardiologyXML."""
    strip = root.find(".//StripData")
    waves = [] if strip is None else strip.findall("WaveformData")
    if not waves:
        held = " beside a FullDisclosure, which is not read" if root.find("FullDisclosure") is not None else ""
        raise ReadError(f"{where}: no StripData with waveforms{held}, expected a resting ECG. Export the strip.")
    if root.find("FullDisclosure/FullDisclosureData") is not None:
        warnings.append("the file's full disclosure was not read")
    if root.find(".//MedianSamples") is not None:
        warnings.append("the file's median beats were not read")
    rows = [_numbers(where, wave.get("lead") or "?", wave.text) for wave in waves]
    scale = strip.find("Resolution")
    per_unit = None if scale is None else _float(scale.text)
    # units="uVperLsb"
    unit_name = "" if scale is None else (scale.get("units") or "").lower().partition("per")[0]
    when = {part: _text(root, f"ObservationDateTime/{part}") for part in ("Year", "Month", "Day")}
    clock = [_text(root, f"ObservationDateTime/{part}") or "0" for part in ("Hour", "Minute", "Second")]
    started = _when("-".join(f"{int(v):02d}" for v in when.values() if v.isdigit()), ":".join(clock))
    birth = "-".join(_text(root, f"PatientInfo/BirthDateTime/{part}").zfill(2) for part in ("Year", "Month", "Day"))
    stated = root.find("PatientInfo/Age")
    years = "" if stated is None else f"{(stated.text or '').strip()}{(stated.get('units') or 'years')[:1].upper()}"
    weight = root.find("PatientInfo/Weight")
    kg = None if weight is None or (weight.get("units") or "").lower() != "kg" else _float(weight.text)
    age = age_from_text(years)
    person = {
        "age": age if age else age_at(_day(birth), started),  # 0 where it is not filled in
        "sex": sex_from_text(_text(root, "PatientInfo/Gender")),
        "weight_kg": kg or None,
    }
    rate = _float(_text(strip, "SampleRate"))
    return rows, [wave.get("lead") or "" for wave in waves], rate, per_unit, unit_name, person, started


def _schiller(where: str, root: Any, warnings: list[str]) -> _Parts:
    """Take apart a schillerEDI."""
    groups = root.findall(".//eventdata/event/wavedata")
    rhythms = [group for group in groups if _text(group, "type").upper() == "ECG_RHYTHMS"]
    if not rhythms:
        found = ", ".join(_text(group, "type") or "?" for group in groups) or "none"
        raise ReadError(f"{where}: wave data of type {found}, expected ECG_RHYTHMS. Export the rhythm, too.")
    group = rhythms[0]
    others = [_text(one, "type") for one in groups if one is not group]
    if others:
        warnings.append(f"other waveforms in the file were not read: {', '.join(others)}")
    rows, names = [], []
    for channel in group.findall("channel"):
        name = _text(channel, "name")
        coded = _text(channel, "datastype").upper()
        if coded not in ("", "COMMASEPARATE"):
            raise ReadError(
                f"{where}: lead {name} coded as {coded}, expected COMMASEPARATE. Export it as plain numbers."
            )
        if not says_other(name):
            rows.append(_numbers(where, name, _text(channel, "data")))
            names.append(name)
    if not rows:
        raise ReadError(f"{where}: ECG_RHYTHMS without a channel, expected at least one lead. Export it again.")
    exponent = _text(group, "resolution/samplerate/exponent")
    if exponent not in ("", "1"):
        raise ReadError(f"{where}: a sampling rate with the exponent {exponent}, expected 1. Its meaning is not known.")
    started = _when(_text(root, "examdescript/startdatetime/date"), _text(root, "examdescript/startdatetime/time"))
    kilograms = _text(root, "patdata/weight/unit").lower() == "kg"
    person = {
        "age": age_at(_day(_text(root, "patdata/birthdate")), started),
        "sex": sex_from_text(_text(root, "patdata/gender")),
        "weight_kg": (_float(_text(root, "patdata/weight/value")) or None) if kilograms else None,
    }
    return (
        rows,
        names,
        _float(_text(group, "resolution/samplerate/value")),
        _float(_text(group, "resolution/yres/unitperbit")),
        _text(group, "resolution/yres/units"),
        person,
        started,
    )


def _text(element: Any, path: str) -> str:
    found = element.find(path)
    return "" if found is None else (found.text or "").strip()


def _float(text: str | None) -> float | None:
    try:
        return float((text or "").strip().replace(",", "."))
    except ValueError:
        return None


def _numbers(where: str, name: str, text: str | None) -> np.ndarray:
    """Return numbers separated by commas; an empty place is a sample that was not recorded.

    Raises
    ------
    ReadError
        There is none, or one is no number.
    """
    cells = [cell.strip() for cell in (text or "").strip().rstrip(",").split(",")]
    try:
        row = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError as error:
        raise ReadError(f"{where}: lead {name} has a sample that is no number ({error}). Export it again.") from None
    if np.isnan(row).all():
        raise ReadError(f"{where}: lead {name} has no samples, expected numbers with commas. Export it again.")
    return row


def _when(day: str, clock: str) -> datetime | None:
    """Return a date and a time of day as one; None if either is none."""
    found = _day(day)
    for form in _CLOCKS:
        try:
            return None if found is None else datetime.combine(found, datetime.strptime(clock, form).time())
        except ValueError:
            continue
    return None


def _day(text: str) -> date | None:
    for form in _DATES:
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    return None
