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
    dataset.WaveformSequence[1].WaveformData = bytes(20_000_000)
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 500_000
    with pytest.raises(ReadError, match="unpacks to more than 20000000"):
        read(path)


@pytest.mark.parametrize("rate", ["0", "-500"])
def test_bad_rate(dataset, tmp_path, rate):
    dataset.WaveformSequence = [dataset.WaveformSequence[0]]
    dataset.WaveformSequence[0].SamplingFrequency = rate
    with pytest.raises(ReadError, match="the sampling rate is"):
        read(save(dataset, tmp_path))


def split(dataset: pydicom.Dataset, offset_ms: float) -> np.ndarray:
    """Make two groups of six leads and 4000 samples of the rhythm, the second later, and return what must come back."""
    import copy

    data = np.frombuffer(dataset.WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    groups = []
    for i, at in enumerate((0, 4000)):
        group = copy.deepcopy(dataset.WaveformSequence[0])
        group.ChannelDefinitionSequence = group.ChannelDefinitionSequence[6 * i : 6 * i + 6]
        group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = 6, 4000
        group.WaveformData = np.ascontiguousarray(data[at : at + 4000, 6 * i : 6 * i + 6]).tobytes()
        group.MultiplexGroupTimeOffset = i * offset_ms
        groups.append(group)
    dataset.WaveformSequence = [*groups, dataset.WaveformSequence[1]]
    expected = np.full((12, 4000 + round(offset_ms)), np.nan)
    expected[:6, :4000] = data[:4000, :6].T * 1.25e-3
    expected[6:, round(offset_ms) :] = data[4000:8000, 6:].T * 1.25e-3
    return expected


def test_groups_of_leads_one_after_another(dataset, tmp_path):
    expected = split(dataset, 4000.0)
    path = save(dataset, tmp_path)
    record = read(path)
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    np.testing.assert_allclose(record.signal, expected, atol=1e-6)
    assert any("one group after another" in warning for warning in record.warnings)
    assert any("MEDIAN BEAT" in warning for warning in record.warnings)
    part = read(path, start_s=3.5, end_s=5)
    np.testing.assert_array_equal(part.signal, record.signal[:, 3500:5000])


def test_a_lead_of_two_groups_is_read_from_the_longer(dataset, tmp_path):
    split(dataset, 0.0)
    second = dataset.WaveformSequence[1]
    second.ChannelDefinitionSequence[0] = dataset.WaveformSequence[0].ChannelDefinitionSequence[1]
    second.NumberOfWaveformSamples = 3000
    record = read(save(dataset, tmp_path))
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V2", "V3", "V4", "V5", "V6")
    assert any("read from the longest: II" in warning for warning in record.warnings)
    assert np.isnan(record.signal[6:, 3000:]).all()
    assert np.isfinite(record.signal[:6]).all()


@pytest.mark.parametrize(("kind", "dtype"), [("SB", "i1"), ("UB", "u1"), ("US", "<u2"), ("SL", "<i4"), ("UL", "<u4")])
def test_every_sample_interpretation(dataset, tmp_path, kind, dtype):
    group = dataset.WaveformSequence[0]
    info = np.iinfo(dtype)
    counts = np.random.default_rng(0).integers(info.min, info.max, (500, 12), dtype=np.int64)
    group.NumberOfWaveformSamples = 500
    group.WaveformBitsAllocated = 8 * np.dtype(dtype).itemsize
    group.WaveformSampleInterpretation = kind
    group.WaveformData = counts.astype(dtype).tobytes()
    record = read(save(dataset, tmp_path))
    np.testing.assert_allclose(record.signal, counts.T * 1.25e-3, rtol=1e-6)


def test_big_endian(dataset, tmp_path):
    expected = dataset.waveform_array(0).T / 1000
    for group in dataset.WaveformSequence:
        group.WaveformData = np.frombuffer(group.WaveformData, "<i2").astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    path = tmp_path / "big.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert read(path).signal == pytest.approx(expected, abs=1e-6)


def test_companded_samples_are_refused(dataset, tmp_path):
    dataset.WaveformSequence[0].WaveformSampleInterpretation = "MB"
    with pytest.raises(ReadError, match="coded as MB"):
        read(save(dataset, tmp_path))


@pytest.mark.parametrize(
    "sop_class",
    ["1.2.840.10008.5.1.4.1.1.9.1.2", "1.2.840.10008.5.1.4.1.1.9.1.3", "1.2.840.10008.5.1.4.1.1.9.1.4"],
    ids=["general", "ambulatory", "general 32 bit"],
)
def test_other_ecg_objects(dataset, tmp_path, sop_class):
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    assert read(save(dataset, tmp_path)).n_leads == 12


def test_statements_and_fiducials(dicom_file):
    record = read(dicom_file)
    notes = [a for a in record.annotations if a.kind == "note"]
    assert [(a.code, a.start_s, a.end_s) for a in notes] == [("RITMO SINUSALE", 0, 10), ("ECG NORMALE", 0, 10)]
    onsets = [a.start_s for a in record.annotations if a.code == "QRS_ON"]
    # The file's heart rate is 61 a minute (RR 982 ms); its first beat cannot be told from the median beat.
    assert onsets[0] == pytest.approx(1.484)
    assert np.diff(onsets) == pytest.approx(np.full(len(onsets) - 1, 0.982), abs=0.05)
    lead_two = record.signal[1]
    for onset_s in onsets[:-1]:  # the steepest slope comes within 80 ms of each onset
        at = round(onset_s * 1000)
        steepest = np.abs(np.diff(lead_two[at - 200 : at + 600])).argmax() - 200
        assert 0 <= steepest <= 80
    part = read(dicom_file, start_s=2, end_s=4)
    assert [a.start_s for a in part.annotations if a.code == "QRS_ON"] == pytest.approx(
        [s - 2 for s in onsets if 2 <= s < 4]
    )


def test_a_skew_of_whole_samples_is_put_right(dataset, tmp_path):
    before = read(save(dataset, tmp_path)).signal
    channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
    channels[1].ChannelSampleSkew = 3
    del channels[2].ChannelSampleSkew
    channels[2].ChannelTimeSkew = -0.002  # of 1000 Hz
    channels[4].ChannelOffset = 0.004
    path = save(dataset, tmp_path)
    record = read(path)
    assert any(w.endswith("put right, in samples: II 3, III -2, aVL 4") for w in record.warnings)
    assert np.isnan(record.signal[1, :3]).all()
    assert np.array_equal(record.signal[1, 3:], before[1, :-3])
    assert np.array_equal(record.signal[2, :-2], before[2, 2:])
    assert np.isnan(record.signal[2, -2:]).all()
    assert np.array_equal(record.signal[4, 4:], before[4, :-4])
    assert np.array_equal(record.signal[[0, 3, *range(5, 12)]], before[[0, 3, *range(5, 12)]])
    part = read(path, start_s=1, end_s=2).signal  # in a slice, the samples come from beside it
    assert np.array_equal(part, record.signal[:, 1000:2000])


@pytest.mark.parametrize("skew", [0.4, -2.5, 5000, "1e300"])
def test_another_skew_is_said(dataset, tmp_path, skew):
    before = read(save(dataset, tmp_path)).signal
    dataset.WaveformSequence[0].ChannelDefinitionSequence[6].ChannelSampleSkew = skew
    record = read(save(dataset, tmp_path))
    assert any(f"not corrected, in samples: V1 {float(skew):.4g}" in w for w in record.warnings)
    assert np.array_equal(record.signal, before)


def test_a_skew_that_all_leads_have_is_none(dataset, tmp_path):
    for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence:
        channel.ChannelSampleSkew = 2
    record = read(save(dataset, tmp_path))
    assert np.isfinite(record.signal).all()
    assert not any("skew" in warning for warning in record.warnings)


def test_padding_of_a_skewed_lead_moves_with_it(dataset, tmp_path):
    group = dataset.WaveformSequence[0]
    data = np.frombuffer(group.WaveformData, "<i2").copy()
    data[: 12 * 100] = -32768
    group.WaveformData = data.tobytes()
    group.add_new(0x5400100A, "OW", np.array([-32768], "<i2").tobytes())
    group.ChannelDefinitionSequence[0].ChannelSampleSkew = 7
    signal = read(save(dataset, tmp_path)).signal
    assert np.flatnonzero(np.isnan(signal[0])).tolist() == list(range(107))
    assert np.flatnonzero(np.isnan(signal[1])).tolist() == list(range(100))


@pytest.mark.parametrize("part", [0.03, 0.5, 0.9])
def test_half_a_file_is_said_to_be_cut_short(dicom_file, tmp_path, part):
    data = dicom_file.read_bytes()
    (tmp_path / "half.dcm").write_bytes(data[: int(part * len(data))])
    with pytest.raises(ReadError, match=r"cut short|without waveforms") as error:
        read(tmp_path / "half.dcm")
    assert "reader failed" not in str(error.value)
