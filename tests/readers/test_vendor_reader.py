"""Devices' formats: what ecgdatakit leaves undone is done, and what is unsafe never reaches it."""

import base64
import struct
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.readers.vendors.devices import MAX_TAGS, calibration_pulse, complete_twelve, refuse_entities

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def write_muse(folder: Path, counts: np.ndarray, scale: str = "4.88", unit: str = "MICROVOLTS", head: str = "") -> Path:
    leads = "".join(
        f"<LeadData><LeadID>{name}</LeadID><LeadAmplitudeUnitsPerBit>{scale}</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits><LeadSampleSize>2</LeadSampleSize>"
        f"<WaveFormData>{base64.b64encode(row.astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for name, row in zip(EIGHT, counts, strict=False)
    )
    path = folder / "muse.xml"
    path.write_text(
        f'<?xml version="1.0"?>{head}<RestingECG><PatientDemographics><PatientLastName>Doe</PatientLastName>'
        "<PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>"
        f"{leads}</Waveform></RestingECG>"
    )
    return path


def write_ishne(folder: Path, counts: np.ndarray, fs: int = 200, nanovolts: int = 2500) -> Path:
    head = bytearray(522)
    head[:8] = b"ISHNE1.0"
    struct.pack_into("<iiii", head, 10, 0, counts.shape[1], 522, 522)
    struct.pack_into("<h", head, 128, 1)
    struct.pack_into("<hhh", head, 132, 3, 2, 1950)
    struct.pack_into("<hhh", head, 138, 4, 5, 2010)
    struct.pack_into("<hhh", head, 150, 6, 7, 8)
    struct.pack_into("<h", head, 156, len(counts))
    for i in range(12):
        struct.pack_into("<h", head, 158 + 2 * i, 5 + i if i < len(counts) else -9)
        struct.pack_into("<h", head, 206 + 2 * i, nanovolts if i < len(counts) else -9)
    struct.pack_into("<h", head, 272, fs)
    path = folder / "holter.ecg"
    path.write_bytes(bytes(head) + counts.T.astype("<i2").tobytes())
    return path


def counts_of(n_leads: int, n_samples: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(-300, 300, (n_leads, n_samples))


def test_eight_leads_become_twelve(tmp_path):
    counts = counts_of(8)
    record = read(write_muse(tmp_path, counts))
    mv = counts * 4.88e-3
    assert record.format == "muse"
    assert record.leads == STANDARD
    assert record.derived == {"III", "aVR", "aVL", "aVF"}
    assert record.signal[:2] == pytest.approx(mv[:2], abs=1e-5)
    assert record.signal[2] == pytest.approx(mv[1] - mv[0], abs=1e-5)
    assert record.signal[3:6].sum(axis=0) == pytest.approx(np.zeros(1000), abs=1e-5)
    assert (record.age, record.sex, record.fs) == (61, "female", 500)
    assert "Doe" not in repr(record)


def test_other_lead_sets_stay_as_they_are():
    signal = np.zeros((2, 5), np.float32)
    assert complete_twelve(signal, ("I", "II"))[1:] == (("I", "II"), frozenset())


def test_lead_off_is_nan(tmp_path):
    counts = counts_of(8)
    counts[2, 100:200] = -32768
    record = read(write_muse(tmp_path, counts))
    assert np.isnan(record.signal[record.leads.index("V1"), 100:200]).all()
    assert np.isnan(record.signal).sum() == 100
    assert any("100 samples of -32768" in warning for warning in record.warnings)


@pytest.mark.parametrize(("unit", "factor"), [("MICROVOLTS", 1e-3), ("MILLIVOLTS", 1.0)])
def test_units(tmp_path, unit, factor):
    counts = counts_of(8)
    signal = read(write_muse(tmp_path, counts, scale="0.5", unit=unit)).signal
    assert signal[0] == pytest.approx(counts[0] * 0.5 * factor, rel=1e-5)


def test_no_scale_is_said(tmp_path):
    path = write_muse(tmp_path, counts_of(8), unit="")
    record = read(path)
    assert not record.gain_known
    assert any("no scale" in warning for warning in record.warnings)
    assert read(path, unit="uV").gain_known


def test_a_stated_rate_is_not_overridden(tmp_path):
    path = write_muse(tmp_path, counts_of(8))
    with pytest.raises(ReadError, match="the file says 500 Hz"):
        read(path, fs=250)
    with pytest.raises(ReadError, match="the file says uV"):
        read(path, unit="mV")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path, encoding):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    path = write_muse(tmp_path, counts_of(8), head=bomb)
    path.write_bytes(path.read_text().replace('version="1.0"', f'version="1.0" encoding="{encoding}"').encode(encoding))
    with pytest.raises(ReadError, match="declares entities"):
        read(path)


def test_ishne(tmp_path):
    counts = counts_of(3)
    counts[1, :50] = -32768
    record = read(write_ishne(tmp_path, counts))
    assert record.format == "ishne"
    assert record.fs == 200
    assert (record.age, record.sex) == (60, "male")
    assert record.start_time == datetime(2010, 5, 4, 6, 7, 8)
    expected = np.where(counts == -32768, np.nan, counts * 2.5e-3)
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)
    part = read(write_ishne(tmp_path, counts), start_s=1, end_s=2)
    np.testing.assert_array_equal(part.signal, record.signal[:, 200:400])
    assert part.start_time == datetime(2010, 5, 4, 6, 7, 9)


def test_calibration_pulse_is_found_only_at_the_end():
    fs = 100.0
    signal = np.random.default_rng(0).normal(0, 0.3, (3, 1000)).astype(np.float32)
    assert calibration_pulse(signal, fs) is None
    signal[:, 900:] = 0
    assert calibration_pulse(signal, fs) is None, "all leads at 0 is no pulse"
    signal[:, 920:980] = 1
    assert calibration_pulse(signal, fs) == (900, 1000)
    assert calibration_pulse(signal[:, :950], fs) == (900, 950)
    assert calibration_pulse(signal[:1], fs) is None


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "form", "fs", "n_samples", "age", "sex"),
    [
        ("ecgtoolkit/Example.scp", "scp", 500, 5000, 49, "male"),
        ("ecgtoolkit/Example.dcm", "dicom", 500, 5000, 49, "male"),
        ("ecgtoolkit/Example.xml", "aecg", 500, 5000, 46, "male"),
        ("sierra/sierra-1.03.xml", "philips", 500, 5500, 50, "male"),
        ("sierra/sierra-1.04-a.xml", "philips", 500, 5500, 60, "male"),
        ("sierra/sierra-1.04-b.xml", "philips", 500, 5500, 32, "female"),
        ("sierra/sierra-1.04-b-as-aecg.xml", "aecg", 500, 5500, 32, "female"),
        ("sierra/sierra-1.04.01.xml", "philips", 500, 5500, 69, None),
        ("pydicom/waveform_ecg.dcm", "dicom", 1000, 10000, 42, "female"),
        ("hl7aecg/aecg-example2.xml", "aecg", 1000, 10000, 32, None),
        ("ml4h/muse-8.xml", "muse", 240, 2500, 66, "male"),
    ],
)
def test_sample_files(formats_folder, name, form, fs, n_samples, age, sex):
    record = read(formats_folder / name)
    assert record.format == form
    assert record.leads == STANDARD
    assert (record.fs, record.n_samples) == (fs, n_samples)
    assert (record.age, record.sex) == (age, sex)
    assert record.start_time is not None
    assert record.gain_known
    spans = np.nanpercentile(record.signal, 99.5, axis=1) - np.nanpercentile(record.signal, 0.5, axis=1)
    assert 0.3 < np.median(spans) < 4
    # Einthoven and Goldberger hold in every one of them, to a few steps of 5 uV.
    one, two, three, avr = record.signal[:4]
    assert np.nanmax(np.abs(two - one - three)) < 0.035
    assert np.nanmax(np.abs(avr + (one + two) / 2)) < 0.035


@pytest.mark.data
def test_one_recording_in_three_formats(formats_folder):
    folder = formats_folder / "ecgtoolkit"
    scp, dcm, xml = (read(folder / f"Example.{suffix}") for suffix in ("scp", "dcm", "xml"))
    assert scp.leads == dcm.leads == xml.leads
    assert np.abs(scp.signal - dcm.signal).max() < 1e-6
    assert np.abs(scp.signal - xml.signal).max() < 1e-6
    assert scp.start_time == dcm.start_time == xml.start_time


@pytest.mark.data
def test_philips_calibration_pulse_is_masked(formats_folder):
    record = read(formats_folder / "sierra" / "sierra-1.04-a.xml")
    assert np.isnan(record.signal[:, -100:]).all()
    assert np.isfinite(record.signal[:, :5250]).all()
    assert any("calibration pulse" in warning for warning in record.warnings)


@pytest.mark.data
def test_muse_rate_agrees_with_its_heart_rate(formats_folder):
    """The file says 240 Hz for the waveform, 250 Hz for the measurements, and 102 beats a minute."""
    from sleepecg import detect_heartbeats

    record = read(formats_folder / "ml4h" / "muse-8.xml", start_s=1.5)
    peaks = detect_heartbeats(record.signal[1].astype(float), record.fs)
    assert 60 * record.fs / np.median(np.diff(peaks)) == pytest.approx(102, abs=1)


def test_a_philips_file_that_claims_a_billion_leads_is_refused(tmp_path: Path) -> None:
    """The fuzzer's find: ecgdatakit makes a name for every lead that is claimed."""
    path = tmp_path / "rec.xml"
    path.write_text(
        '<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com"><dataacquisition>'
        "<signalcharacteristics><numberchannelsallocated>999999999</numberchannelsallocated></signalcharacteristics>"
        "</dataacquisition></restingecgdata>"
    )
    with pytest.raises(ReadError, match="claims 999999999 leads, expected at most 1000"):
        read(path)


@pytest.mark.parametrize("declaration", ['<!ENTITY a "b">', '<!entity a "b">', '<!ElEmEnT x><!EnTiTy a "b">'])
@pytest.mark.parametrize("before", ["", "<!-- a -->", "!" * 500, "<!-- ! -->" * 300])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_entity_is_found_behind_any_number_of_marks(tmp_path, declaration, before, encoding):
    path = tmp_path / "a.xml"
    path.write_text(f"<!DOCTYPE x>{before}[{declaration}]<x/>", encoding=encoding)
    with pytest.raises(ReadError, match="declares entities"):
        refuse_entities(path)
    path.write_text(f"<!DOCTYPE x>{before}[<!ELEMENT y>]<x/>", encoding=encoding)
    assert refuse_entities(path).startswith((b"<!DOC", b"\xff\xfe<!DOC"))


def test_too_many_tags(tmp_path):
    (tmp_path / "a.xml").write_text("<x>" + "<y>" * MAX_TAGS)
    with pytest.raises(ReadError, match=f"XML of {MAX_TAGS + 1} tags"):
        refuse_entities(tmp_path / "a.xml")
    assert refuse_entities(Path(__file__)) == b""
