"""FHIR Observations with SampledData, R4 (4.0.1, datatypes 2.24.0.11) and R5: JSON, or XML as FHIR defines it.

A lead is a component (or the Observation itself) whose value is SampledData: ``origin + factor * datum``, ``E`` for an
error, ``U`` and ``L`` for what lies beyond the limits of detection: all three are taken as not recorded. The lead's
name is its ISO/IEEE 11073-10101 code (131328 and the lead's SCP-ECG number), or else its display or text. LOINC names
the whole ECG (11524-6) and the patient's age (30525-0) and weight (29463-7), not the leads.
"""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, standard_name
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other, to_one_rate
from anyecg.readers.dicom.files import SCP_LEADS
from anyecg.readers.notes import with_notes
from anyecg.readers.patient import age_at, plausible_age, sex_from_text
from anyecg.readers.slices import sample_range
from anyecg.readers.sources import split_inner
from anyecg.readers.tabular.columns import MAX_COLUMNS
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record

NAME = "fhir"

SEVERAL = True
"""A Bundle may hold several recordings, each an Observation."""

MAX_BYTES = 200_000_000
"""JSON and XML are parsed as a whole, to several times their size."""

MDC_ECG_ELEC_POTL = 131328
"""ISO/IEEE 11073-10101, partition 2, term 256; a lead's code is this and its SCP-ECG number."""

LOINC_AGE, LOINC_WEIGHT = "30525-0", "29463-7"

UNKNOWN_ZONE = "-00:00"
"""A time whose zone is not known (RFC 3339, 4.3): FHIR wants one wherever there is a time."""

_XML_NAMESPACE = b"http://hl7.org/fhir"
_INTERVAL_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is JSON with a resource type near its start, or XML of FHIR's namespace."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return (text.startswith(b"{") and b'"resourceType"' in text) or (text.startswith(b"<") and _XML_NAMESPACE in text)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read an Observation, or the one of a Bundle that holds an ECG.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    file, _ = split_inner(path)
    with file.open("rb") as stream:
        is_xml = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
    return read_document(path, _parse_xml(file) if is_xml else parse_json(file), start_s, end_s, fs, unit)


def parse_json(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    ReadError
        The file is too long, no JSON, or no object.
    """
    _check_length(path)
    data = path.read_bytes()
    try:
        document = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise ReadError(f"{path}: not whole JSON ({text}), expected an object. Export it again.") from error
    if not isinstance(document, dict):
        raise ReadError(f"{path}: JSON that is no object, expected one of named values. Export it so.")
    return document


def _check_length(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: {size} bytes of text, expected at most {MAX_BYTES}. Convert it to WFDB or EDF.")


def read_document(
    path: Path,
    document: dict[str, Any],
    start_s: float | None,
    end_s: float | None,
    fs: float | None,
    unit: str | None,
) -> Record:
    """Return the record in a resource that is parsed already.

    Raises
    ------
    ReadError
        There is no ECG in it, or several and none was chosen; or see `anyecg.readers.read`.
    """
    where = str(path)
    observation, patient = _choose(path, document)
    warnings: list[str] = []
    rows: list[np.ndarray] = []
    rates: list[float] = []
    names: list[str] = []
    skipped: list[str] = []
    n_beyond = 0
    for name, data in _sampled(observation):
        stated = _text(data.get("origin"), "code") or _text(data.get("origin"), "unit") or None
        if says_other(name) or (stated and mv_per(stated) is None and not says_ecg(name)):
            skipped.append(name)
            continue
        factor = unit_of(where, stated, unit)
        values, beyond = _values(where, name, data)
        n_beyond += beyond
        rate = rate_of(where, _rate(where, data), fs)
        n_inside = int(_number(data.get("dimensions")) or 1)
        if not 1 <= n_inside <= MAX_COLUMNS or len(values) % n_inside:
            raise ReadError(
                f"{where}: {name} has {len(values)} values of {data.get('dimensions')!r} dimensions, expected a "
                "multiple. Export it again."
            )
        for i, row in enumerate(values.reshape(-1, n_inside).T):
            rows.append(row * factor)
            rates.append(rate)
            names.append(name if n_inside == 1 else f"{name} {i + 1}")
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if not rows:
        raise ReadError(f"{where}: no ECG lead among {', '.join(skipped) or 'none'}, expected one. Check the file.")
    if n_beyond:
        warnings.append(f"{n_beyond} samples beyond the limits of detection are taken as not recorded")
    rate = max(rates)
    n_samples = max(round(len(row) * rate / own) for row, own in zip(rows, rates, strict=True))
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    started = _start_time(observation, warnings)
    record = Record(
        signal=to_one_rate(rows, rates, n_samples)[:, first:last],
        fs=rate,
        leads=rows_with_names(names, warnings),
        id=path.stem,
        format=NAME,
        age=_age(observation, patient, started),
        sex=sex_from_text(_text(patient, "gender")),
        weight_kg=_quantity(observation, LOINC_WEIGHT, "kg"),
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        warnings=tuple(warnings),
    )
    return with_notes(record, [_text(note, "text") for note in _list(observation.get("note"))])


def _choose(path: Path, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Observation that is meant, and the Patient if there is one.

    Raises
    ------
    ReadError
        None has SampledData, several have, or the one that is meant is not there.
    """
    file, inner = split_inner(path)
    resources = [document, *(entry.get("resource") for entry in _list(document.get("entry")))]
    resources += [inside for outer in resources for inside in _list((outer or {}).get("contained"))]
    found = [
        r for r in resources if isinstance(r, dict) and r.get("resourceType") == "Observation" and any(_sampled(r))
    ]
    patients = [r for r in resources if isinstance(r, dict) and r.get("resourceType") == "Patient"]
    patient = patients[0] if len(patients) == 1 else {}
    if not found:
        raise ReadError(
            f"{file}: FHIR {document.get('resourceType')!r} without SampledData, expected an Observation with it. "
            "Export the waveform."
        )
    if inner.startswith("#") and int(inner[1:]) < len(found):
        return found[int(inner[1:])], patient
    named = [r for r in found if inner and r.get("id") == inner]
    if inner and not named:
        raise ReadError(f"{path}: no such Observation among {len(found)}, expected {file.name}#0 or an id. Check it.")
    if len(named or found) > 1:
        ids = ", ".join(str(r.get("id", f"#{i}")) for i, r in list(enumerate(found))[:5])
        raise ReadError(
            f"{file}: {len(found)} recordings ({ids}{', ...' if len(found) > 5 else ''}), expected one. Name it: "
            f"{file.name}#0, or {file.name}/ID."
        )
    return (named or found)[0], patient


def _sampled(observation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and SampledData of each lead."""
    parts = [observation, *_list(observation.get("component"))]
    return [
        (_lead_name(part.get("code"), i), part["valueSampledData"])
        for i, part in enumerate(parts)
        if isinstance(part.get("valueSampledData"), dict)
    ]


def _lead_name(code: Any, index: int) -> str:
    """Return a lead's name from its 11073 code, or else from the first text that is one."""
    texts = []
    for coding in _list((code or {}).get("coding")) if isinstance(code, dict) else []:
        number = _text(coding, "code")
        if number.isdigit() and int(number) - MDC_ECG_ELEC_POTL in SCP_LEADS:
            return SCP_LEADS[int(number) - MDC_ECG_ELEC_POTL]
        texts += [_text(coding, "display"), number]
    texts = [_text(code, "text"), *texts] if isinstance(code, dict) else texts
    bare = [text.removeprefix("MDC_ECG_ELEC_POTL").strip("_ ") for text in texts]
    return next(
        (n for text in bare if (n := standard_name(text)) in KNOWN_LEADS), next(filter(None, bare), f"lead{index}")
    )


def _values(where: str, name: str, data: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Return a lead's values in the unit of its origin, NaN where none was recorded, and how many were U or L."""
    words = _text(data, "data").split()
    if not words:
        raise ReadError(f"{where}: {name} has no data, expected numbers. Export the waveform.")
    beyond = sum(word in ("U", "L") for word in words)
    try:
        values = np.array([np.nan if word in ("E", "U", "L") else float(word) for word in words])
    except ValueError as error:
        raise ReadError(
            f"{where}: {name} has data that are no numbers ({error}), expected E, U, L or numbers."
        ) from error
    factor, origin = _number(data.get("factor")), _number((data.get("origin") or {}).get("value"))
    return values * (1.0 if factor is None else factor) + (origin or 0.0), beyond


def _rate(where: str, data: dict[str, Any]) -> float | None:
    """Return the rate in Hz: R4 has ``period`` in ms, R5 ``interval`` and its unit."""
    period_s = None
    if (number := _number(data.get("period"))) is not None:
        period_s = number * 1e-3
    elif (number := _number(data.get("interval"))) is not None:
        unit = _text(data, "intervalUnit")
        if unit not in _INTERVAL_S:
            raise ReadError(f"{where}: an interval in {unit!r}, expected s, ms, us or ns. Export it again.")
        period_s = number * _INTERVAL_S[unit]
    if period_s is None:
        return None
    if not period_s > 0:
        raise ReadError(f"{where}: a period of {number} between samples, expected more than 0. The file is damaged.")
    rate = 1 / period_s
    return float(round(rate)) if abs(rate - round(rate)) < 1e-6 else rate


def _start_time(observation: dict[str, Any], warnings: list[str]) -> datetime | None:
    period = observation.get("effectivePeriod")
    text = _text(observation, "effectiveDateTime") or _text(observation, "effectiveInstant") or _text(period, "start")
    if "T" not in text:
        return None  # a day, a month or a year: no time of the first sample
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        warnings.append(f"the time {text[:40]!r} is none and was left out")
        return None
    return time.replace(tzinfo=None) if text.endswith(UNKNOWN_ZONE) else time


def _age(observation: dict[str, Any], patient: dict[str, Any], started: datetime | None) -> float | None:
    years = _quantity(observation, LOINC_AGE, "a")
    if years is not None:
        return plausible_age(years)
    try:
        return age_at(date.fromisoformat(_text(patient, "birthDate")), started)
    except ValueError:
        return None


def _quantity(observation: dict[str, Any], loinc: str, unit: str) -> float | None:
    """Return the value of a component with this LOINC code, if it is in this unit."""
    for part in _list(observation.get("component")):
        codes = [_text(coding, "code") for coding in _list((part.get("code") or {}).get("coding"))]
        quantity = part.get("valueQuantity")
        if loinc in codes and isinstance(quantity, dict) and unit in (_text(quantity, "code"), _text(quantity, "unit")):
            return _number(quantity.get("value"))
    return None


def _list(value: Any) -> list[Any]:
    """Return the objects in a list; XML that holds one alone gives it without a list."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _text(value: Any, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found.strip() if isinstance(found, str) else str(found) if isinstance(found, int) else ""


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _parse_xml(path: Path) -> dict[str, Any]:
    """Return an XML resource as FHIR's JSON would have it (R4, 2.6.2): attributes ``value``, elements that repeat."""
    from defusedxml import ElementTree

    _check_length(path)
    try:
        root = ElementTree.parse(path, forbid_dtd=True).getroot()
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: what defusedxml forbids
        raise ReadError(f"{path}: XML that is refused ({error!r:.100}), expected a whole resource.") from error
    document = _element(root)
    return document if isinstance(document, dict) else {}


_HOLDERS = ("resource", "contained")


def _element(element: Any, depth: int = 0) -> Any:
    """Return an element as a text or as a dictionary."""
    name = element.tag.rpartition("}")[2]
    if depth > 40:
        return {}
    if not len(element):
        return element.get("value", "")
    children: dict[str, Any] = {} if depth and name[:1].islower() else {"resourceType": name}
    for child in element:
        key = child.tag.rpartition("}")[2]
        inner = child[0] if key in _HOLDERS and len(child) else child
        value = _element(inner, depth + 1)
        if key in children:
            children[key] = [*(children[key] if isinstance(children[key], list) else [children[key]]), value]
        else:
            children[key] = value
    return children
