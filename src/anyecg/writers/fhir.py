"""FHIR R4 Observation: a component a lead with SampledData (https://hl7.org/fhir/R4/observation.html).

    {"resourceType": "Observation", "status": "final",
     "code": {"coding": [{"system": "http://loinc.org", "code": "11524-6", "display": "EKG study"}]},
     "contained": [{"resourceType": "Patient", "id": "patient", "gender": "female"}],
     "effectiveDateTime": "2020-01-02T03:04:05-00:00",
     "component": [
       {"code": {"coding": [{"system": "urn:iso:std:iso:11073:10101", "code": "131329",
                             "display": "MDC_ECG_LEAD_I"}], "text": "I"},
        "valueSampledData": {"origin": {"value": 0, "unit": "mV", "system": "http://unitsofmeasure.org",
                                        "code": "mV"},
                             "period": 2.0, "factor": 0.0001, "dimensions": 1, "data": "120 135 E 150"}},
       {"code": {"coding": [{"system": "http://loinc.org", "code": "30525-0", "display": "Age"}]},
        "valueQuantity": {"value": 56, "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"}}],
     "note": [{"text": "Written by AnyECG 0.1.0"}, {"text": "Restored leads: V1"}]}

A value is ``origin + factor * datum`` in mV, a sample that was not recorded is ``E`` (R4, datatypes, SampledData). A
dateTime with a time must have a zone: of a start whose zone is not known it is ``-00:00`` (RFC 3339, 4.3).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.record import Record
from anyecg.writers import limits, notes
from anyecg.writers.codes import MDC_SYSTEM, mdc_name, mdc_number
from anyecg.writers.counts import MISSING_COUNT, gains_of, refuse_long_text, to_counts

UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"

UNKNOWN_ZONE = "-00:00"


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what the Observation does not hold of the record, a line each."""
    lines = limits.coarse_steps(record, [1 / gain for gain in gains_of(record)])
    return lines + limits.source_rate(record) + limits.annotations(record)


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the resource into ``folder`` under the name of ``path``.

    Raises
    ------
    WriteError
        The record is too long for one document.
    """
    refuse_long_text(record, path)
    text = json.dumps(observation(record), ensure_ascii=False, allow_nan=False)
    (folder / path.name).write_text(text + "\n", encoding="utf-8", newline="\n")


def observation(record: Record) -> dict[str, Any]:
    """Return the resource, ready for JSON."""
    counts, gains, baselines = to_counts(record)
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "procedure",
                        "display": "Procedure",
                    }
                ]
            }
        ],
        "code": {"coding": [{"system": LOINC, "code": "11524-6", "display": "EKG study"}]},
    }
    if record.sex is not None:
        resource["contained"] = [{"resourceType": "Patient", "id": "patient", "gender": record.sex}]
        resource["subject"] = {"reference": "#patient"}
    if record.start_time is not None:
        text = record.start_time.isoformat()
        resource["effectiveDateTime"] = text if record.start_time.tzinfo is not None else text + UNKNOWN_ZONE
    resource["component"] = [
        _lead(record, lead, row, gain, baseline)
        for lead, row, gain, baseline in zip(record.leads, counts, gains, baselines, strict=True)
    ]
    for code, display, value, unit in (
        ("30525-0", "Age", record.age, "a"),
        ("29463-7", "Body weight", record.weight_kg, "kg"),
    ):
        if value is not None:
            resource["component"].append(
                {
                    "code": {"coding": [{"system": LOINC, "code": code, "display": display}]},
                    "valueQuantity": _quantity(value, unit),
                }
            )
    resource["note"] = [{"text": line} for line in notes.signed(record)]
    return resource


def _lead(record: Record, lead: str, row: np.ndarray, gain: float, baseline: int) -> dict[str, Any]:
    """Return the component of one lead."""
    code: dict[str, Any] = {"text": lead}
    number = mdc_number(lead)
    if number is not None:
        code["coding"] = [{"system": MDC_SYSTEM, "code": str(number), "display": mdc_name(lead)}]
    return {
        "code": code,
        "valueSampledData": {
            "origin": _quantity(-baseline / gain, "mV"),
            "period": _plain(1000 / record.fs),
            "factor": _plain(1 / gain),
            "dimensions": 1,
            "data": " ".join("E" if count == MISSING_COUNT else str(count) for count in row.tolist()),
        },
    }


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": _plain(value), "unit": unit, "system": UCUM, "code": unit}


def _plain(value: float) -> float | int:
    """Return a whole number as an int: 2, not 2.0."""
    return int(value) if value == int(value) else float(value)
