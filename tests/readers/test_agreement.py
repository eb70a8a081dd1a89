"""The sample files, sample by sample, as an independent reader reads them: sierraecg, pydicom, or a few lines here."""

import base64
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from anyecg.readers import read

pytestmark = pytest.mark.data

HL7 = "{urn:hl7-org:v3}"


def agree(record, theirs_mv: dict[str, np.ndarray], at_most_mv: float) -> None:
    """Check the leads that both have, where ours were recorded; what is derived is no lead of the file."""
    assert set(record.leads) - record.derived == set(theirs_mv)
    for name, row in theirs_mv.items():
        ours = record.signal[record.leads.index(name)]
        recorded = np.isfinite(ours)
        assert recorded.mean() > 0.9
        assert len(ours) == len(row)
        np.testing.assert_allclose(ours[recorded], row[recorded], atol=at_most_mv, rtol=0)


@pytest.mark.parametrize("name", ["1.03", "1.04-a", "1.04-b", "1.04.01"])
def test_philips_as_sierraecg_reads_it(formats_folder, name):
    sierraecg = pytest.importorskip("sierraecg")
    path = formats_folder / "sierra" / f"sierra-{name}.xml"
    theirs = {lead.label: lead.samples * 5e-3 for lead in sierraecg.read_file(str(path)).leads}  # 5 uV a unit
    agree(read(path), theirs, 1e-6)


@pytest.mark.parametrize("name", ["ecgtoolkit/Example.dcm", "pydicom/waveform_ecg.dcm"])
def test_dicom_as_pydicom_reads_it(formats_folder, name):
    import pydicom

    path = formats_folder / name
    record = read(path)
    theirs = pydicom.dcmread(path).waveform_array(0).T / 1000  # uV
    agree(record, dict(zip(record.leads, theirs, strict=True)), 1e-6)


@pytest.mark.parametrize(
    "name", ["ecgtoolkit/Example.xml", "hl7aecg/aecg-example2.xml", "sierra/sierra-1.04-b-as-aecg.xml"]
)
def test_aecg_as_its_digits_say(formats_folder, name):
    path = formats_folder / name
    series = ElementTree.parse(path).getroot().find(f"{HL7}component/{HL7}series")
    theirs = {}
    for sequence in series.iter(f"{HL7}sequence"):
        code = sequence.find(f"{HL7}code").get("code")
        digits = sequence.find(f"{HL7}value/{HL7}digits")
        if digits is None or "LEAD" not in code:
            continue
        scale = sequence.find(f"{HL7}value/{HL7}scale")
        assert scale.get("unit") == "uV"
        lead = code.rpartition("_")[2].replace("AV", "aV")
        theirs.setdefault(lead, np.array(digits.text.split(), float) * float(scale.get("value")) / 1000)
    assert len(theirs) == 12
    agree(read(path), theirs, 1e-6)


def test_muse_as_its_bytes_say(formats_folder):
    path: Path = formats_folder / "ml4h" / "muse-8.xml"
    theirs = {}
    for waveform in ElementTree.parse(path).getroot().findall("Waveform"):
        if waveform.findtext("WaveformType") == "Rhythm":
            for lead in waveform.findall("LeadData"):
                counts = np.frombuffer(base64.b64decode(lead.findtext("WaveFormData")), "<i2")
                theirs[lead.findtext("LeadID")] = counts * float(lead.findtext("LeadAmplitudeUnitsPerBit")) / 1000
    record = read(path)
    assert record.derived == {"III", "aVR", "aVL", "aVF"}
    agree(record, theirs, 1e-6)


def test_philips_and_the_aecg_made_from_it(formats_folder):
    """The conversion was not exact: it differs by up to four units of 5 uV."""
    ours, aecg = (read(formats_folder / "sierra" / f"sierra-1.04-b{end}.xml") for end in ("", "-as-aecg"))
    assert ours.leads == aecg.leads
    np.testing.assert_allclose(ours.signal, aecg.signal, atol=0.0201)
    assert np.nanmedian(np.abs(ours.signal - aecg.signal)) < 0.0051
