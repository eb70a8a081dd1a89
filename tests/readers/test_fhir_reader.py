"""FHIR Observations, written here as the standard's example is."""

import json
from typing import Any

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import find_files, read

COUNTS = np.random.default_rng(0).integers(-300, 300, (3, 500))
CODES = (("131329", "MDC_ECG_ELEC_POTL_I"), ("131389", "MDC_ECG_ELEC_POTL_III"), ("131331", "MDC_ECG_ELEC_POTL_V1"))
LEADS = ("I", "III", "V1")
SYSTEM = "urn:oid:2.16.840.1.113883.6.24"


def component(row: np.ndarray | list[Any], code: str, display: str, **changes: Any) -> dict[str, Any]:
    data = {
        "origin": {"value": 0.5, "unit": "mV", "system": "http://unitsofmeasure.org", "code": "mV"},
        "period": 2,
        "factor": 0.005,
        "dimensions": 1,
        "data": " ".join(str(value) for value in row),
    } | changes
    coding = {"system": SYSTEM, "code": code, "display": display}
    return {"code": {"coding": [coding]}, "valueSampledData": {k: v for k, v in data.items() if v is not None}}


def observation(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": "ekg",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "11524-6"}]},
        "contained": [{"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1952-03-01"}],
        "effectiveDateTime": "2015-02-19T09:30:35+01:00",
        "component": [component(row, *code) for row, code in zip(COUNTS, CODES, strict=True)],
    } | changes


def save(folder, document: dict[str, Any]):
    path = folder / "ecg.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_an_observation(tmp_path):
    record = read(save(tmp_path, observation()))
    assert (record.format, record.fs, record.leads) == ("fhir", 500, LEADS)
    assert record.signal == pytest.approx(COUNTS * 0.005 + 0.5, abs=1e-5)
    assert (record.age, record.sex) == (62, "female")
    assert record.start_time is not None and record.start_time.isoformat() == "2015-02-19T09:30:35+01:00"
    part = read(tmp_path / "ecg.json", start_s=0.5, end_s=0.75)
    np.testing.assert_array_equal(part.signal, record.signal[:, 250:375])


@pytest.mark.parametrize(
    ("code", "lead"),
    [
        # hl7.org/fhir/R4/observation-example-sample-data.json names the first three
        *(("131329", "I"), ("131330", "II"), ("131389", "III")),
        # ISO/IEEE 11073-10101, MDC_ECG_ELEC_POTL_*
        *(("131331", "V1"), ("131336", "V6"), ("131390", "aVR"), ("131391", "aVL"), ("131392", "aVF")),
    ],
)
def test_codes_of_leads(tmp_path, code, lead):
    record = read(save(tmp_path, observation(component=[component([1, 2, 3], code, "")])))
    assert record.leads == (lead,)


@pytest.mark.parametrize("display", ["Lead II", "MDC_ECG_LEAD_II", "ECG II", "II"])
def test_names_without_a_known_code(tmp_path, display):
    record = read(save(tmp_path, observation(component=[component([1, 2, 3], "x-1", display)])))
    assert record.leads == ("II",)


def test_errors_and_limits_are_not_recorded(tmp_path):
    record = read(save(tmp_path, observation(component=[component([1, "E", "U", "L", 5], *CODES[0])])))
    np.testing.assert_array_equal(np.isnan(record.signal[0]), [False, True, True, True, False])
    assert any("2 samples beyond the limits" in warning for warning in record.warnings)


def test_intervals_of_r5(tmp_path):
    parts = [component([1, 2, 3], *CODES[0], period=None, interval=4000, intervalUnit="us")]
    assert read(save(tmp_path, observation(component=parts))).fs == 250


def test_leads_of_two_rates_become_one(tmp_path):
    parts = [component(COUNTS[0], *CODES[0]), component(COUNTS[1][::2], *CODES[1], period=4)]
    record = read(save(tmp_path, observation(component=parts)))
    assert (record.fs, record.n_samples) == (500, 500)


def test_a_bundle(tmp_path):
    second = observation(id="later", component=[component([7, 8, 9], *CODES[0])])
    others = [{"resource": {"resourceType": "Observation", "id": "pulse", "valueQuantity": {"value": 60}}}]
    bundle = {"resourceType": "Bundle", "entry": [{"resource": observation()}, {"resource": second}, *others]}
    path = save(tmp_path, bundle)
    with pytest.raises(ReadError, match=r"2 recordings \(ekg, later\)"):
        read(path)
    assert read(path / "later").n_samples == 3
    assert read(f"{path}#0").n_samples == 500
    with pytest.raises(ReadError, match="no such Observation"):
        read(path / "third")
    assert find_files([path]) == [path]


def test_xml(tmp_path):
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><Observation xmlns="http://hl7.org/fhir"><id value="ekg"/>'
        '<status value="final"/><contained><Patient><gender value="male"/></Patient></contained>'
        '<effectiveDateTime value="2015-02-19T09:30:35-00:00"/>'
        '<component><code><coding><system value="urn:x"/><code value="131330"/></coding></code><valueSampledData>'
        '<origin><value value="0"/><code value="uV"/></origin><period value="4"/><factor value="2.5"/>'
        '<dimensions value="1"/><data value="100 E 200"/></valueSampledData></component></Observation>'
    )
    (tmp_path / "a.xml").write_text(text)
    record = read(tmp_path / "a.xml")
    assert (record.format, record.fs, record.leads, record.sex) == ("fhir", 250, ("II",), "male")
    np.testing.assert_allclose(record.signal, [[0.25, np.nan, 0.5]])
    assert record.start_time is not None and record.start_time.isoformat() == "2015-02-19T09:30:35"
    bomb = text.replace("<Observation", '<!DOCTYPE x [<!ENTITY a "b">]><Observation')
    (tmp_path / "a.xml").write_text(bomb)
    with pytest.raises(ReadError, match="refused"):
        read(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": {"value": 0}}, "--unit"),
        ({"period": None}, "--fs"),
        ({"period": 0}, "a period of 0"),
        ({"data": "1 two 3"}, "no numbers"),
        ({"data": ""}, "no data"),
        ({"origin": {"value": 0, "code": "mm[Hg]"}}, "the unit is"),
        ({"dimensions": 3, "data": "1 2 3 4"}, "expected a multiple"),
    ],
)
def test_what_is_not_clear(tmp_path, changes, message):
    path = save(tmp_path, observation(component=[component([1, 2, 3], *CODES[0], **changes)]))
    with pytest.raises(ReadError, match=message):
        read(path)


def test_no_waveform(tmp_path):
    with pytest.raises(ReadError, match="without SampledData"):
        read(save(tmp_path, {"resourceType": "Patient", "id": "x"}))
