"""EDF and BDF, written by pyedflib."""

from datetime import date, datetime

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read


@pytest.mark.parametrize("suffix", [".edf", ".bdf"])
@pytest.mark.parametrize("dimension", ["mV", "uV", "V"])
def test_comes_back_in_mv(make_edf, suffix, dimension):
    sample = make_edf(suffix, dimension=dimension)
    record = read(sample.path)
    assert record.leads == ("I", "II")
    assert record.fs == 250
    assert record.format == "edf"
    assert np.abs(record.signal - sample.signal).max() < 2 * sample.step_mv + 1e-6
    assert record.start_time == datetime(2020, 5, 4, 3, 2, 1)


def test_a_slice_equals_the_cut(make_edf):
    path = make_edf().path
    whole, part = read(path), read(path, start_s=2.5, end_s=7.1)
    assert np.array_equal(part.signal, whole.signal[:, 625:1775])
    assert part.start_time == datetime(2020, 5, 4, 3, 2, 3, 500000)


def test_age_and_sex_but_no_name(make_edf):
    record = read(make_edf(birthdate=date(1960, 6, 1), sex=1, patientname="Somebody").path)
    assert (record.age, record.sex) == (59, "male")
    assert "Somebody" not in repr(record)


def test_only_ecg_channels(make_edf):
    labels = ("EEG Fpz-Cz", "ECG", "Resp", "SpO2")
    record = read(make_edf(labels=labels, dimension=("uV", "uV", "mV", "%")).path)
    assert record.leads == ("ECG",)
    assert "EEG Fpz-Cz, Resp, SpO2" in record.warnings[0]


def test_known_leads_without_the_word_ecg(make_edf):
    assert read(make_edf(labels=("V1", "aVR", "Marker")).path).leads == ("V1", "aVR")


def test_unrecognisable_voltages_are_used_aloud(make_edf):
    record = read(make_edf(labels=("Chan 1", "Chan 2", "Resp")).path)
    assert record.leads == ("Chan 1", "Chan 2")
    assert "taken as one" in record.warnings[0]


def test_no_ecg(make_edf):
    with pytest.raises(ReadError, match="no ECG among EEG C3, Resp"):
        read(make_edf(labels=("EEG C3", "Resp")).path)


def test_several_rates_are_brought_to_the_highest(make_edf):
    record = read(make_edf(labels=("I", "II"), rates=(500, 250)).path)
    assert record.fs == 500
    assert record.signal.shape == (2, 5000)
    assert np.isfinite(record.signal).all()
    assert "brought to 500 Hz: II" in record.warnings[0]
    part = read(make_edf(labels=("I", "II"), rates=(500, 250)).path, start_s=2, end_s=4)
    assert np.abs(part.signal - record.signal[:, 1000:2000])[:, 100:-100].max() < 2e-3


def test_no_dimension_needs_a_unit(make_edf):
    path = make_edf(dimension="").path
    with pytest.raises(ReadError, match="no unit in the file"):
        read(path)
    assert read(path, unit="mV").n_leads == 2
    with pytest.raises(ReadError, match="the file says mV"):
        read(make_edf().path, unit="uV")


@pytest.mark.parametrize(
    ("at", "text", "message"),
    [
        (252, b"9999", "9999 signals"),
        (252, b"zwei", "no numbers"),
        (184, b"1       ", "a header of 1 bytes"),
    ],
)
def test_headers_that_lie(make_edf, at, text, message):
    path = make_edf().path
    data = bytearray(path.read_bytes())
    data[at : at + len(text)] = text
    path.write_bytes(data)
    with pytest.raises(ReadError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("stated", "cut_to", "says"),
    [
        (b"99999999", 10, "the file was cut short: it has 10 data records, 99999999 by its own count"),
        (b"10      ", 7, "the file was cut short: it has 7 data records, 10 by its own count"),
        (b"4       ", 10, "the file was not closed by the recorder: it has 10 data records, 4 by its own count"),
        (b"-1      ", 10, "the file was not closed by the recorder: it has 10 data records, -1 by its own count"),
    ],
)
def test_as_far_as_the_file_goes(make_edf, stated: bytes, cut_to: int, says: str) -> None:
    path = make_edf().path
    whole = read(path)
    data = bytearray(path.read_bytes())
    n_header = int(data[184:192])
    data[236:244] = stated
    n_record = (len(data) - n_header) // 10
    path.write_bytes(data[: n_header + cut_to * n_record + (n_record // 2 if cut_to < 10 else 0)])
    record = read(path)
    assert any(says in warning for warning in record.warnings)
    np.testing.assert_array_equal(record.signal, whole.signal[:, : cut_to * 250])
    path.write_bytes(data[: n_header + n_record // 2])
    with pytest.raises(ReadError, match="cut short or was never closed"):
        read(path)


def test_a_signal_called_annotations_in_plain_edf(make_edf) -> None:
    """Only in EDF+ it holds annotations; elsewhere it is a signal like others, and the leads behind it stay right."""
    sample = make_edf(labels=("ECG I", "ECG II", "ECG V1"))
    data = bytearray(sample.path.read_bytes())
    data[192:197] = b" " * 5
    data[256:272] = b"EDF Annotations "
    sample.path.write_bytes(data)
    record = read(sample.path)
    assert record.leads == ("II", "V1")
    assert np.abs(record.signal - sample.signal[1:, : record.n_samples]).max() < 2 * sample.step_mv


@pytest.mark.parametrize("suffix", [".edf", ".bdf"])
def test_the_numbers_are_those_of_pyedflib(make_edf, suffix: str) -> None:
    import pyedflib

    sample = make_edf(suffix, labels=("ECG I", "ECG II", "ECG V1"), n_seconds=130)
    with pyedflib.EdfReader(str(sample.path)) as file:
        theirs = np.stack([file.readSignal(i) for i in range(3)])
    np.testing.assert_allclose(read(sample.path).signal, theirs, rtol=1e-6, atol=1e-7)
    part = read(sample.path, start_s=63.5, end_s=66.3)
    np.testing.assert_allclose(part.signal, theirs[:, 15875:16575], rtol=1e-6, atol=1e-7)
