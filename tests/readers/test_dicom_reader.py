"""DICOM waveforms: pydicom's own sample, changed in one point at a time."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read


@pytest.fixture
def dataset(dicom_file: Path) -> pydicom.Dataset:
    return pydicom.dcmread(dicom_file)


def save(dataset: pydicom.Dataset, folder: Path) -> Path:
    path = folder / "changed.dcm"
    dataset.save_as(path)
    return path


def test_the_sample(dicom_file, dataset):
    record = read(dicom_file)
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert record.signal.shape == (12, 10000)
    assert record.fs == 1000
    assert record.age == 42
    assert record.sex == "female"
    assert record.start_time is not None
    assert "MEDIAN BEAT" in record.warnings[0]
    assert record.signal == pytest.approx(dataset.waveform_array(0).T / 1000, abs=1e-6)  # pydicom gives uV


def test_a_slice(dicom_file):
    whole, part = read(dicom_file), read(dicom_file, start_s=1, end_s=2)
    assert np.array_equal(part.signal, whole.signal[:, 1000:2000])


def test_units_correction_and_baseline(dataset, tmp_path):
    group = dataset.WaveformSequence[0]
    before = dataset.waveform_array(0).T / 1000
    channel = group.ChannelDefinitionSequence[0]
    channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    group.ChannelDefinitionSequence[1].ChannelSensitivityCorrectionFactor = 2
    group.ChannelDefinitionSequence[2].ChannelBaseline = 500
    after = read(save(dataset, tmp_path)).signal
    assert after[0] == pytest.approx(before[0] * 1000, abs=1e-2)
    assert after[1] == pytest.approx(before[1] * 2, abs=1e-5)
    assert after[2] == pytest.approx(before[2] + 0.5, abs=1e-5)


def test_missing_sensitivity_is_said(dataset, tmp_path):
    del dataset.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelSensitivity
    path = save(dataset, tmp_path)
    record = read(path)
    assert not record.gain_known
    assert any("no sensitivity" in warning for warning in record.warnings)


def test_padding_is_nan(dataset, tmp_path):
    group = dataset.WaveformSequence[0]
    data = np.frombuffer(group.WaveformData, "<i2").copy()
    data[: 12 * 100] = -32768
    group.WaveformData = data.tobytes()
    group.add_new(0x5400100A, "OW", np.array([-32768], "<i2").tobytes())
    signal = read(save(dataset, tmp_path)).signal
    assert np.isnan(signal[:, :100]).all()
    assert np.isfinite(signal[:, 100:]).all()


def test_padding_that_is_also_a_voltage(dataset, tmp_path):
    """The C# ECG Toolkit's example declares 0, which its leads cross a hundred times each."""
    group = dataset.WaveformSequence[0]
    data = np.frombuffer(group.WaveformData, "<i2").copy()
    data[: 12 * 300] = 0
    data[12 * 500] = 0
    group.WaveformData = data.tobytes()
    group.add_new(0x5400100A, "OW", b"\0\0")
    signal = read(save(dataset, tmp_path)).signal
    assert np.isnan(signal[:, :300]).all()
    assert np.isfinite(signal[:, 310:]).all()


@pytest.mark.parametrize(
    ("value", "meaning", "lead"),
    [
        ("5.6.3-9-1", "", "I"),
        ("2:62", "", "aVR"),
        ("x", "Lead I (Einthoven)", "I"),
        ("x", "Lead aVF", "aVF"),
        ("MDC_ECG_LEAD_V5", "", "V5"),
        ("x", "Something else", "Something else"),
    ],
)
def test_lead_names(dataset, tmp_path, value, meaning, lead):
    dataset.WaveformSequence = [dataset.WaveformSequence[0]]
    for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence[1:]:
        channel.ChannelSourceSequence[0].CodeValue, channel.ChannelSourceSequence[0].CodeMeaning = "y", "other"
    source = dataset.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelSourceSequence[0]
    source.CodeValue, source.CodeMeaning = value, meaning
    assert read(save(dataset, tmp_path)).leads[0] == lead


@pytest.mark.parametrize(("age", "years"), [("056Y", 56), ("006M", 0.5), ("999Y", None), ("", 30)])
def test_age(dataset, tmp_path, age, years):
    dataset.PatientAge = age
    dataset.PatientBirthDate = "19821231"
    dataset.AcquisitionDateTime = "20130125105919.5"
    record = read(save(dataset, tmp_path))
    expected = 30 if age in ("", "999Y") else years
    assert record.age == expected
    assert record.start_time == datetime(2013, 1, 25, 10, 59, 19, 500000)


def test_names_stay_inside(dataset, tmp_path):
    dataset.PatientName = "Doe^Jane"
    assert "Doe" not in repr(read(save(dataset, tmp_path)))


def test_no_waveform(dataset, tmp_path):
    del dataset.WaveformSequence
    with pytest.raises(ReadError, match="without waveforms"):
        read(save(dataset, tmp_path))


def test_more_samples_than_bytes(dataset, tmp_path):
    dataset.WaveformSequence[0].NumberOfWaveformSamples = 4_000_000_000
    with pytest.raises(ReadError, match="cut short"):
        read(save(dataset, tmp_path))


def test_deflated(dataset, tmp_path):
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    path = tmp_path / "deflated.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert read(path).n_leads == 12
    with path.open("ab") as file:
        file.write(b"\0" * 500_000)
    with pytest.raises(ReadError, match="thousandfold"):
        read(path)


@pytest.mark.parametrize("rate", ["0", "-500"])
def test_bad_rate(dataset, tmp_path, rate):
    dataset.WaveformSequence = [dataset.WaveformSequence[0]]
    dataset.WaveformSequence[0].SamplingFrequency = rate
    with pytest.raises(ReadError, match="the sampling rate is"):
        read(save(dataset, tmp_path))
