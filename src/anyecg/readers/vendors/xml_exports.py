"""XML exports that no library reads: GE CardioSoft (CardiologyXML) and Schiller (SEMA, schillerEDI).

Neither maker publishes its format. The structure follows what open-source readers agree on: for CardioSoft the
CardioSoft 6.73 schema in github.com/carbocation/genomisc and load_cardiosoftxml.m of github.com/BIVectors/BRAVEHEART;
for Schiller load_schillerxml.m of the latter and the JAXB beans of the CVRG's ECG format converter (Johns Hopkins).

CardioSoft's FullDisclosure holds a whole exercise test. Of the open readers some take its samples as one of each lead
in turn, others (ml4h, and those who read the UK Biobank's) as one second of each lead in turn: `_deal` takes the order
in which the leads are the smoother, and refuses the file if neither is.

Departures: a FullDisclosure beside a strip is not read, nor are median beats.
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
from anyecg.readers.vendors.devices import LEAD_OFF, complete_twelve, refuse_entities
from anyecg.record import Record

NAME = "xml"

_ROOTS = {
    "cardiosoft": (b"CardiologyXML", rb"<(?:\w+:)?CardiologyXML[\s>]"),
    "schiller": (b"schillerEDI", rb"<[\w.:]*schillerEDI[\w.]*[\s>]"),
}
"""What the root element is called, and how it is looked for where that name stands at all."""

SMOOTHER = 0.8
"""Samples in the wrong order step at least so much more: neighbours of one lead are taken for another's."""

MAX_RATE = 20_000
"""Hz."""

_DATES = ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%Y/%m/%d")
_CLOCKS = ("%H:%M:%S", "%H:%M:%S.%f", "%H%M%S", "%H:%M")


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the root element is one of theirs."""
    return _kind(head) is not None


def _kind(head: bytes) -> str | None:
    if not head.lstrip(b"\x00\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<"):
        return None
    text = head.replace(b"\x00", b"")  # UTF-16
    return next((kind for kind, (name, root) in _ROOTS.items() if name in text and re.search(root, text)), None)


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
    signal, leads, derived = complete_twelve(signal[:, first:last], rows_with_names(names, warnings))
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
    source = root.find(".//StripData")
    waves = [] if source is None else source.findall("WaveformData")
    full = root.find(".//FullDisclosure")
    if full is not None and not (full.findtext("FullDisclosureData") or "").strip(" ,\n\r\t"):
        full = None
    if root.find(".//MedianSamples") is not None:
        warnings.append("the file's median beats were not read")
    if waves:
        rows = [_numbers(where, wave.get("lead") or "?", wave.text) for wave in waves]
        names = [wave.get("lead") or "" for wave in waves]
        if full is not None:
            warnings.append("the file's full disclosure was not read")
    elif full is not None:
        source = full
        rows, names = _full_disclosure(where, full, warnings)
    else:
        raise ReadError(
            f"{where}: no StripData with waveforms and no FullDisclosure, expected one. Export the waveforms, too."
        )
    scale = source.find("Resolution")
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
    return rows, names, _float(_text(source, "SampleRate")), per_unit, unit_name, person, started


def _full_disclosure(where: str, full: Any, warnings: list[str]) -> tuple[list[np.ndarray], list[str]]:
    """Return the rows and names of a FullDisclosure, in whichever of the two orders its samples are.

    Raises
    ------
    ReadError
        The leads are not named, the rate is not said, or neither order gives smooth leads.
    """
    names = [name.strip() for name in _text(full, "LeadOrder").split(",") if name.strip()]
    count = _float(_text(full, "NumberOfChannels"))
    if not names or (count is not None and count != len(names)):
        raise ReadError(f"{where}: {len(names)} names for {count} leads in FullDisclosure, expected one each.")
    per_second = _float(_text(full, "SampleRate"))
    if per_second is None or not 1 <= per_second <= MAX_RATE:
        raise ReadError(
            f"{where}: a sampling rate of {per_second} in FullDisclosure, expected some Hz. Export it again."
        )
    text = ",".join(part.text or "" for part in full.findall("FullDisclosureData"))
    samples = _numbers(where, "FullDisclosure", re.sub(r"(?:\s*,)+\s*", ",", text).strip(","))
    return _deal(where, samples, len(names), round(per_second), warnings), names


def _deal(where: str, samples: np.ndarray, n_leads: int, per_second: int, warnings: list[str]) -> list[np.ndarray]:
    """Return the leads of samples that come in turn, one by one or a second each: as they are the smoother.

    Raises
    ------
    ReadError
        Both orders are as smooth.
    """
    if n_leads == 1:
        return [samples]
    orders = {}
    for said, run in (("one", 1), (f"{per_second} (one second)", per_second)):
        n_rounds = len(samples) // (n_leads * run)
        if n_rounds:
            dealt = samples[: n_rounds * n_leads * run].reshape(n_rounds, n_leads, run)
            orders[said] = dealt.transpose(1, 0, 2).reshape(n_leads, -1)
    steps = {said: float(np.abs(np.diff(rows)).mean()) for said, rows in orders.items()}
    best, *others = sorted(steps, key=steps.__getitem__)
    if not others or not steps[best] < SMOOTHER * steps[others[0]]:
        raise ReadError(
            f"{where}: a FullDisclosure of {len(samples)} samples whose order is not clear, expected one of each lead "
            "in turn or one second of each. Export the strips, too."
        )
    if n_lost := len(samples) - orders[best].size:
        warnings.append(f"the last {n_lost} numbers of the full disclosure fill no round of all leads and are left out")
    warnings.append(f"a full disclosure whose leads come in turn, {best} of each: as they are the smoothest")
    return list(orders[best])


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
