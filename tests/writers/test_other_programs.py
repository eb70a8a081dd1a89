"""What we write is read right by libraries that are not ours, and lies in the file where the standard says."""

import json
import math
import struct
import warnings
from binascii import crc_hqx
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from anyecg.errors import SignalError, WriteError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers import read
from anyecg.record import Annotation, Record
from anyecg.writers import write

STEP_MV = 1e-4


def close(got: np.ndarray, wanted: np.ndarray, step_mv: float = STEP_MV) -> None:
    np.testing.assert_allclose(got, wanted, atol=step_mv, rtol=1e-6)


# --- WFDB ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_leads", "n_files"), [(8, 1), (12, 2)])
def test_wfdb_reads_flac(n_leads: int, n_files: int, twelve: Record, tmp_path: Path) -> None:
    record = twelve.pick(twelve.leads[:n_leads])
    record.signal[0, 10:20] = np.nan
    files = write(record, tmp_path / "a.hea", format="wfdb-flac")
    packed = [file for file in files if file.suffix == ".flac"]
    assert len(packed) == n_files
    assert sum(file.stat().st_size for file in packed) < record.signal.size * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wfdb

        again = wfdb.rdrecord(str(tmp_path / "a"))
        stored = wfdb.rdrecord(str(tmp_path / "a"), physical=False)
    assert set(again.fmt) == {"516"}
    assert again.sig_name == list(record.leads)
    assert stored.calc_checksum() == stored.checksum
    close(again.p_signal.T, record.signal)


# --- EDF+ ---------------------------------------------------------------------------------------------------------


def edf(record: Record, folder: Path):
    import pyedflib

    write(record, folder / "a.edf", force=True)
    return pyedflib.EdfReader(str(folder / "a.edf"))


def test_pyedflib_reads_edf(twelve: Record, tmp_path: Path) -> None:
    with edf(twelve, tmp_path) as reader:
        assert reader.getSignalLabels() == [f"ECG {lead}" for lead in twelve.leads]
        assert set(reader.getSampleFrequencies()) == {500.0}
        assert {reader.getPhysicalDimension(i) for i in range(12)} == {"uV"}
        assert reader.getStartdatetime() == twelve.start_time
        assert reader.getSex() == "Female"
        for index, row in enumerate(twelve.signal):
            step_uv = (reader.getPhysicalMaximum(index) - reader.getPhysicalMinimum(index)) / 65535
            assert step_uv < 1000 * np.ptp(row) / 65000, "the physical range is that of the lead"
            close(reader.readSignal(index) / 1000, row, step_uv / 1000)


def test_annotations_of_edf(single: Record, tmp_path: Path) -> None:
    long = "a warning of more than forty characters, which pyedflib would cut off as it writes"
    beats = tuple(Annotation(i / 10, i / 10, "beat", "N") for i in range(95))  # more than data records
    record = single.with_(annotations=(*beats, Annotation(2, 5, "rhythm", "AFIB", "I", 0.5)), warnings=(long,))
    with edf(record, tmp_path) as reader:
        found = [
            (float(at), float(length), str(text)) for at, length, text in zip(*reader.readAnnotations(), strict=True)
        ]
    assert sum(text == "beat: N" for _, _, text in found) == 95
    assert (2.0, 3.0, "rhythm: AFIB (score 0.5)@@ECG I") in found
    assert any(text == "Not recorded" and at == pytest.approx(1000 / 300, abs=1e-5) for at, _, text in found)
    assert any(long in text for _, _, text in found)
    again = read(tmp_path / "a.edf")
    assert again.annotations[-1].end_s <= 10
    assert {a.code for a in again.annotations} == {"N", "AFIB"}
    assert sorted(a.start_s for a in again.annotations if a.kind == "beat") == pytest.approx([b.start_s for b in beats])


def test_annotations_of_a_slice_of_edf(single: Record, tmp_path: Path) -> None:
    write(
        single.with_(annotations=(Annotation(2, 5, "rhythm", "AFIB"), Annotation(1, 1, "beat", "V"))),
        tmp_path / "a.edf",
    )
    (only,) = read(tmp_path / "a.edf", start_s=3, end_s=4).annotations
    assert (only.start_s, only.end_s, only.code) == (0, 1, "AFIB")


@pytest.mark.parametrize("n_samples", [4999, 5000, 7919, 12345, 30])
@pytest.mark.parametrize("fs", [500.0, 257.3, 128.0, 360.0, 512.4, 333.333])
def test_any_length_of_edf(fs: float, n_samples: int, tmp_path: Path) -> None:
    signal = np.random.default_rng(0).normal(0, 0.5, (1, n_samples))
    with edf(Record(signal, fs=fs, leads=("I",)), tmp_path) as reader:
        assert reader.getSampleFrequency(0) == pytest.approx(fs, rel=1e-6)
    again = read(tmp_path / "a.edf")
    assert again.n_samples == n_samples
    close(again.signal, signal)
    header = (tmp_path / "a.edf").read_bytes()[:256]
    assert header[192:197] == b"EDF+C"
    assert len(header[244:252].strip()) <= 8


def test_edf_of_a_start_with_a_fraction_and_one_unknown(single: Record, tmp_path: Path) -> None:
    for time in (datetime(2020, 1, 2, 3, 4, 5, 678900), datetime(2090, 1, 2, 3, 4, 5), None):
        write(single.with_(start_time=time), tmp_path / "a.edf", force=True)
        assert read(tmp_path / "a.edf").start_time == time


def test_the_step_of_edf_follows_the_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for scale, offset in ((1e-3, 0.0), (1.0, 300.0), (100.0, 0.0), (5000.0, 0.0)):
        signal = rng.uniform(-scale, scale, (1, 500)) + offset
        write(Record(signal, fs=500, leads=("I",)), tmp_path / "a.edf", force=True)
        close(read(tmp_path / "a.edf").signal, signal.astype(np.float32), max(2 * scale / 60_000, 1e-6) + offset * 1e-6)
    with pytest.raises(SignalError, match="eight characters"):
        write(Record(np.array([[0.0, 1e9]]), fs=500, leads=("I",)), tmp_path / "b.edf")


def test_lead_names_of_edf_stay_apart(tmp_path: Path) -> None:
    leads = ("a very long lead name 1", "a very long lead name 2", "größe")
    with edf(Record(np.random.default_rng(0).normal(size=(3, 100)), fs=100, leads=leads), tmp_path) as reader:
        assert len(set(reader.getSignalLabels())) == 3
    assert read(tmp_path / "a.edf").n_leads == 3


# --- DICOM --------------------------------------------------------------------------------------------------------


def test_pydicom_reads_dicom(twelve: Record, tmp_path: Path) -> None:
    import pydicom

    record = twelve.with_(restored=frozenset({"V6"}), derived=frozenset({"III"}), gain_known=False)
    write(record, tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.SOPClassUID == pydicom.uid.TwelveLeadECGWaveformStorage
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert (dataset.Modality, dataset.PatientSex, dataset.PatientAge) == ("ECG", "F", "056Y")
    assert dataset.AcquisitionDateTime == "20200102030405.000000"
    assert dataset.PatientName == dataset.PatientID == dataset.PatientBirthDate == ""
    (group,) = dataset.WaveformSequence
    assert (group.SamplingFrequency, group.WaveformSampleInterpretation) == (500, "SS")
    close(dataset.waveform_array(0).T, twelve.signal)
    channels = dict(zip(twelve.leads, group.ChannelDefinitionSequence, strict=True))
    source = channels["aVR"].ChannelSourceSequence[0]
    assert (source.CodeValue, source.CodingSchemeDesignator) == ("2:62", "MDC")  # PS3.16, CID 3001
    assert channels["I"].ChannelSensitivityUnitsSequence[0].CodeValue == "mV"
    assert "model" in channels["V6"].ChannelDerivationDescription
    assert "other leads" in channels["III"].ChannelDerivationDescription
    assert list(channels["V6"].ChannelStatus) == ["UNCALIBRATED", "QUESTIONABLE"]
    texts = [item.UnformattedTextValue for item in dataset.WaveformAnnotationSequence]
    assert "Restored leads: V6" in texts


def test_a_gap_of_dicom_is_its_padding_value(single: Record, tmp_path: Path) -> None:
    import pydicom

    write(single, tmp_path / "a.dcm")
    (group,) = pydicom.dcmread(tmp_path / "a.dcm").WaveformSequence
    padding = struct.unpack("<h", group.WaveformPaddingValue)[0]
    stored = np.frombuffer(group.WaveformData, "<i2")
    np.testing.assert_array_equal(stored == padding, np.isnan(single.signal[0]))


@pytest.mark.parametrize(
    ("n_leads", "fs", "n_samples", "name"),
    [
        (12, 500, 5000, "TwelveLead"),
        (12, 500, 16385, "General"),
        (1, 300, 3000, "General"),
        (16, 500, 5000, "General"),
        (2, 128, 5000, "Ambulatory"),
    ],
)
def test_the_dicom_object_is_one_that_allows_it(
    n_leads: int, fs: float, n_samples: int, name: str, tmp_path: Path
) -> None:
    import pydicom

    leads = STANDARD_LEADS if n_leads == 12 else tuple(f"E{i}" for i in range(n_leads))
    write(Record(np.random.default_rng(0).normal(size=(n_leads, n_samples)), fs=fs, leads=leads), tmp_path / "a.dcm")
    found = pydicom.dcmread(tmp_path / "a.dcm")
    assert found.SOPClassUID == getattr(pydicom.uid, f"{name}ECGWaveformStorage")
    assert read(tmp_path / "a.dcm").leads == leads


@pytest.mark.parametrize(("n_leads", "fs"), [(25, 500), (16, 128), (1, 2000), (1, 20)])
def test_no_dicom_object_allows_it(n_leads: int, fs: float, tmp_path: Path) -> None:
    record = Record(np.zeros((n_leads, 100)), fs=fs, leads=tuple(f"E{i}" for i in range(n_leads)))
    with pytest.raises(WriteError, match="expected at most 24 leads"):
        write(record, tmp_path / "a.dcm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("age", "text"), [(56, "056Y"), (0.5, "006M"), (7 / 365.25, "001W"), (3 / 365.25, "003D")])
def test_dicom_age(age: float, text: str, single: Record, tmp_path: Path) -> None:
    import pydicom

    write(single.with_(age=age), tmp_path / "a.dcm")
    assert pydicom.dcmread(tmp_path / "a.dcm").PatientAge == text
    assert read(tmp_path / "a.dcm").age == pytest.approx(age, abs=1e-3)


# --- SCP-ECG ------------------------------------------------------------------------------------------------------


def test_ecgdatakit_reads_scp(twelve: Record, tmp_path: Path) -> None:
    from ecgdatakit import FileParser

    write(twelve.with_(restored=frozenset(twelve.leads)), tmp_path / "a.scp")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a wrong CRC or length would be one
        warnings.filterwarnings("ignore", message="auto_scale")
        parsed = FileParser.parse(tmp_path / "a.scp", auto_scale=False)
    assert parsed.raw_metadata["checksum_valid"]
    assert parsed.raw_metadata["sections_found"] == [0, 1, 3, 6]
    assert parsed.raw_metadata["simultaneous_leads"] == 12
    assert parsed.recording.date == twelve.start_time
    assert (parsed.patient.age, parsed.patient.sex, parsed.patient.weight) == (56, "F", 70)
    assert [lead.label for lead in parsed.leads] == list(twelve.leads)
    for lead, row in zip(parsed.leads, twelve.signal, strict=True):
        assert lead.sampling_rate == 500
        close(lead.samples * lead.resolution / 1000, row)
    listed = [line for line in parsed.annotations["comments"].splitlines() if line.startswith("Restored leads:")]
    assert len(listed) == 1
    assert max(map(len, parsed.annotations["comments"].splitlines())) < 80


def test_the_layout_of_scp(twelve: Record, tmp_path: Path) -> None:
    write(twelve, tmp_path / "a.scp")
    data = (tmp_path / "a.scp").read_bytes()
    crc, size = struct.unpack_from("<HI", data)
    assert size == len(data)
    assert crc == crc_hqx(data[2:], 0xFFFF)
    assert data[16:22] == b"SCPECG"
    covered = 6
    for number in range(12):
        found, length, at = struct.unpack_from("<HII", data, 22 + 10 * number)
        assert found == number
        if length:
            assert at - 1 == covered, "sections follow each other"
            assert length % 2 == 0
            section = data[at - 1 : at - 1 + length]
            assert struct.unpack_from("<HHI", section) == (crc_hqx(section[2:], 0xFFFF), number, length)
            covered += length
    assert covered == len(data)


def test_what_scp_cannot_say(tmp_path: Path) -> None:
    def record(n_samples: int = 100, fs: float = 500.0, scale: float = 1.0) -> Record:
        return Record(scale * np.random.default_rng(0).normal(size=(1, n_samples)), fs=fs, leads=("I",))

    for bad in (record(n_samples=32768), record(fs=40_100.0), record(fs=10.0)):
        with pytest.raises(WriteError, match="in SCP-ECG"):
            write(bad, tmp_path / "a.scp")
    with pytest.raises(SignalError, match="in SCP-ECG"):
        write(record(scale=1e5), tmp_path / "a.scp")
    assert list(tmp_path.iterdir()) == []
    longest = record(n_samples=32767, scale=50.0)
    write(longest, tmp_path / "a.scp")
    close(read(tmp_path / "a.scp").signal, longest.signal, 0.01)


# --- HL7 aECG -----------------------------------------------------------------------------------------------------

HL7 = {"": "urn:hl7-org:v3"}
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


def test_ecgdatakit_reads_aecg(twelve: Record, tmp_path: Path) -> None:
    from ecgdatakit import FileParser

    write(twelve, tmp_path / "a.xml")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="auto_scale")
        parsed = FileParser.parse(tmp_path / "a.xml", auto_scale=False)
    assert (parsed.patient.age, parsed.patient.sex) == (56, "F")
    assert parsed.recording.date == twelve.start_time
    for lead, name, row in zip(parsed.leads, twelve.leads, twelve.signal, strict=True):
        assert (lead.label, lead.sampling_rate, lead.resolution_unit) == (name, 500, "uV")
        close((lead.samples * lead.resolution + lead.offset) / 1000, row)


def test_the_elements_of_aecg(twelve: Record, tmp_path: Path) -> None:
    write(twelve.with_(leads=(*twelve.leads[:-1], "odd & <lead>")), tmp_path / "a.aecg")
    root = ElementTree.parse(tmp_path / "a.aecg").getroot()
    assert root.tag == "{urn:hl7-org:v3}AnnotatedECG"
    sequences = root.findall("component/series/component/sequenceSet/component/sequence", HL7)
    assert len(sequences) == 13
    times, first, *_, last = sequences
    assert times.find("code", HL7).get("code") == "TIME_ABSOLUTE"
    assert times.find("value", HL7).get(XSI_TYPE) == "GLIST_TS"
    assert float(times.find("value/increment", HL7).get("value")) == 0.002
    assert first.find("code", HL7).get("code") == "MDC_ECG_LEAD_I"
    assert first.find("code", HL7).get("codeSystem") == "2.16.840.1.113883.6.24"
    assert first.find("value", HL7).get(XSI_TYPE) == "SLIST_PQ"
    assert len(first.find("value/digits", HL7).text.split()) == twelve.n_samples
    assert last.find("code", HL7).get("displayName") == "odd & <lead>"
    low, high = (root.find(f"effectiveTime/{end}", HL7).get("value") for end in ("low", "high"))
    assert (low, high) == ("20200102030405.000000", "20200102030415.000000")
    assert read(tmp_path / "a.aecg").leads[-1] == "odd & <lead>"


@pytest.mark.data
def test_aecg_has_the_order_of_elements_of_a_device(twelve: Record, tmp_path: Path, formats_folder: Path) -> None:
    write(twelve, tmp_path / "a.xml")

    def order(path: Path, at: str) -> list[str]:
        found = ElementTree.parse(path).getroot().find(at, HL7) if at else ElementTree.parse(path).getroot()
        return list(dict.fromkeys(child.tag for child in found))

    device = formats_folder / "sierra" / "sierra-1.04-b-as-aecg.xml"
    for at in ("", "component/series", "component/series/component/sequenceSet/component/sequence"):
        theirs = order(device, at)
        ours = order(tmp_path / "a.xml", at)
        assert ours == [tag for tag in theirs if tag in ours], at


# --- Parquet and FHIR ---------------------------------------------------------------------------------------------


def test_pandas_reads_parquet(single: Record, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    import pyarrow.parquet as pq

    write(single, tmp_path / "a.parquet")
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == ["I"]
    np.testing.assert_array_equal(table["I"].to_numpy(), single.signal[0])
    document = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"anyecg"])
    assert document["fs_hz"] == 300.0
    assert document["unit"] == "mV"
    assert document["age"] == 56.5
    assert document["start_time"] == "1970-05-06T07:08:09"


def test_an_open_end_in_parquet(single: Record, tmp_path: Path) -> None:
    write(single.with_(annotations=(Annotation(1.0, math.inf, "rhythm", "AFIB"),)), tmp_path / "a.parquet")
    (again,) = read(tmp_path / "a.parquet").annotations
    assert (again.start_s, again.code) == (1.0, "AFIB")


def test_the_fhir_observation(single: Record, tmp_path: Path) -> None:
    write(single.with_(restored=frozenset({"I"})), tmp_path / "a.fhir.json")
    document = json.loads((tmp_path / "a.fhir.json").read_text())
    assert (document["resourceType"], document["status"]) == ("Observation", "final")
    assert document["code"]["coding"][0] == {"system": "http://loinc.org", "code": "11524-6", "display": "EKG study"}
    assert document["effectiveDateTime"] == "1970-05-06T07:08:09-00:00"
    lead = document["component"][0]
    assert lead["code"]["coding"][0]["code"] == "131329"  # MDC_ECG_LEAD_I: ISO/IEEE 11073-10101
    data = lead["valueSampledData"]
    assert data["dimensions"] == 1
    assert data["period"] == pytest.approx(1000 / 300)
    assert data["origin"]["code"] == "mV"
    values = [np.nan if word == "E" else float(word) for word in data["data"].split(" ")]
    close(np.array(values) * data["factor"] + data["origin"]["value"], single.signal[0])
    assert {"text": "Restored leads: I"} in document["note"]
    assert document["contained"][0]["gender"] == "male"


@pytest.mark.parametrize("name", ["a.xml", "a.json"])
def test_a_document_too_long_to_be_read_again(name: str, single: Record, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("anyecg.writers.counts.MAX_TEXT_VALUES", 2999)
    with pytest.raises(WriteError, match="3000 values, expected at most 2999"):
        write(single, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- what cannot be kept ------------------------------------------------------------------------------------------


def test_losses_name_what_is_lost(twelve: Record, single: Record) -> None:
    from anyecg.writers import losses

    fraction = twelve.with_(start_time=datetime(2020, 1, 2, 3, 4, 5, 678900))
    assert losses(fraction, "a.scp") == ["the start time is kept to whole seconds: 0.6789 s are cut off"]
    assert losses(fraction, "a.dcm") == []
    (line,) = losses(single.with_(start_time=twelve.start_time, fs=500), "a.scp")
    assert line.startswith("100 samples that were not recorded are written as -32768")
    (line,) = losses(single, "a.edf")
    assert "100 samples" in line
    assert losses(single, "a.json") == losses(single, "a.dcm") == losses(single, "a.hea") == []
    assert losses(twelve.with_(source_fs=250.0), "a.csv") == ["that it was recorded at 250 Hz is left out"]
    large = twelve.with_(signal=twelve.signal * 100)
    for name in ("a.hea", "a.edf", "a.dcm", "a.scp", "a.xml", "a.json"):
        assert "steps coarser than 1 uV" in " ".join(losses(large, name)), name
    assert losses(large, "a.parquet") == []
    renamed = twelve.with_(leads=(*twelve.leads[:-1], "a lead of more than 16 letters"))
    for name in ("a.edf", "a.dcm", "a.scp"):
        assert "lead names change: 'a lead of more than 16 letters' as" in " ".join(losses(renamed, name)), name
    with pytest.raises(ValueError, match="allowed"):
        losses(twelve, "a.xyz")
