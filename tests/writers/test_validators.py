"""What is written against validators that are not ours: HL7's schemas, FHIR's models, the DICOM validator dciodvfy.

Each is skipped where its program is not installed: ``fhir.resources`` (pip), ``dciodvfy`` of dicom3tools (apt). The
schema of an aECG is not on pip; the order of elements it asks for is written down below.
"""

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest

from anyecg.record import Record
from anyecg.writers import write

HL7 = "{urn:hl7-org:v3}"

AECG_ELEMENTS = {
    "AnnotatedECG": "id! code! text effectiveTime! confidentialityCode reasonCode componentOf! definition location "
    "controlVariable* pertainsTo* component*",
    "timepointEvent": "code effectiveTime reasonCode* performer componentOf!",
    "subjectAssignment": "subject! definition componentOf!",
    "trialSubject": "id! code subjectDemographicPerson",
    "subjectDemographicPerson": "name administrativeGenderCode birthTime raceCode",
    "clinicalTrial": "id! title activityTime componentOf author location* responsibleParty*",
    "relatedObservation": "code text value author*",
    "series": "id code! effectiveTime! author secondaryPerformer* support controlVariable* component* subjectOf* "
    "derivation*",
    "seriesAuthor": "id manufacturedSeriesDevice! manufacturerOrganization",
    "manufacturedSeriesDevice": "id* code manufacturerModelName softwareName",
    "sequenceSet": "controlVariable* component*",
    "sequence": "code! value! controlVariable*",
    "annotationSet": "code activityTime methodCode* author* controlVariable* component*",
    "assignedEntity": "id assignedAuthorType representedAuthoringOrganization",
    "assignedAuthorType": "assignedDevice",
    "assignedDevice": "id* code manufacturerModelName softwareName playedManufacturedDevice",
    "annotation": "code! text value support component*",
}
"""Children in their order, ! = required, * = any number (HL7 schema PORT_MT020001 of 2003-12, in FDA's aecg-python)."""

UNKNOWN_TIME = {"ContentDate", "ContentTime", "AcquisitionDateTime"}

LINKS = {
    **{"componentOf": 1, "component": 1, "subject": 1, "controlVariable": 1, "author": 1, "subjectOf": 1},
    **{"seriesAuthor": 0, "value": 0, "effectiveTime": 0},
}
"""Elements that hold exactly one other; the values' own parts are types, which the readers' tests look at."""


def check_order(element: ElementTree.Element, path: str = "") -> None:
    """Check the children of an element, and theirs, against `AECG_ELEMENTS`."""
    name = element.tag.removeprefix(HL7)
    path += f"/{name}"
    children = [child.tag.removeprefix(HL7) for child in element]
    if name in AECG_ELEMENTS:
        left = list(children)
        for entry in AECG_ELEMENTS[name].split():
            allowed = entry.rstrip("!*")
            n = 0
            while left and left[0] == allowed:
                left.pop(0)
                n += 1
            assert n <= 1 or entry.endswith("*"), f"{path}: {n} times {allowed}"
            assert n >= 1 or not entry.endswith("!"), f"{path}: no {allowed}"
        assert not left, f"{path}: {left[0]} not allowed, or not there"
    elif name not in ("value", "effectiveTime"):
        assert len(children) == LINKS.get(name, 0), f"{path}: {children}"
    for child in element:
        if name not in ("value", "effectiveTime"):
            check_order(child, path)


def records(twelve: Record, single: Record, odd_rate: Record) -> dict[str, Record]:
    """Return what formats stumble over: everything known, a gap, nothing known, leads of no standard."""
    strange = odd_rate.with_(leads=("MCL1", "Ö & <x>"), gain_known=False)
    made = twelve.with_(restored=frozenset({"V6"}), derived=frozenset({"III"}), source_fs=250.0)
    return {"twelve": twelve, "single": single, "odd": odd_rate, "strange": strange, "made": made}


@pytest.fixture(params=["twelve", "single", "odd", "strange", "made"])
def record(request, twelve: Record, single: Record, odd_rate: Record) -> Record:
    return records(twelve, single, odd_rate)[request.param]


def test_the_order_of_aecg_is_that_of_the_schema(record: Record, tmp_path: Path) -> None:
    write(record, tmp_path / "a.xml")
    check_order(ElementTree.parse(tmp_path / "a.xml").getroot())


def test_the_order_is_checked(twelve: Record, tmp_path: Path) -> None:
    write(twelve, tmp_path / "a.xml")
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    series = root.find(f"{HL7}component/{HL7}series")
    assert series is not None
    code = series.find(f"{HL7}code")
    assert code is not None
    series.remove(code)
    with pytest.raises(AssertionError, match="series: no code"):
        check_order(root)
    series.append(code)
    with pytest.raises(AssertionError, match="series: no code"):
        check_order(root)


def test_fhir_models_take_the_observation(record: Record, tmp_path: Path) -> None:
    """R4B differs from R4 in no element of an Observation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observation = pytest.importorskip("fhir.resources.R4B.observation").Observation
    write(record, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    taken = observation.model_validate(document)
    assert sum(part.valueSampledData is not None for part in taken.component) == record.n_leads
    del document["status"]
    with pytest.raises(ValueError, match="status"):
        observation.model_validate(document)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_dicom(record: Record, tmp_path: Path) -> None:
    write(record, tmp_path / "a.dcm")
    said = subprocess.run(["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False).stderr
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    if record.start_time is None:  # which DICOM asks for: `losses` says that it stays empty
        empty = [line for line in errors if line.startswith("Error - Empty attribute (no value) Type 1 Required")]
        assert {re.search("Element=<(.*?)>", line)[1] for line in empty} == UNKNOWN_TIME
        errors = [line for line in errors if line not in empty]
    assert errors == []
    assert any(line.endswith("ECG") for line in lines), "the kind of object that it took the file for"
