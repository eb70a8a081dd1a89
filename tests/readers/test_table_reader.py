"""Tables of numbers: what is said is used, what is not said is asked for, nothing is guessed."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read

WAVE = np.round(np.sin(np.arange(400) / 20), 4)


def save(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def rows(delimiter: str = ",", comma: bool = False, n: int = 400) -> list[str]:
    lines = [f"{a:.4f}{delimiter}{-a:.4f}" for a in WAVE[:n]]
    return [line.replace(".", ",") for line in lines] if comma else lines


@pytest.mark.parametrize(
    ("delimiter", "comma"), [(",", False), (";", False), (";", True), ("\t", False), ("\t", True), ("  ", False)]
)
def test_delimiters(tmp_path, delimiter, comma):
    path = save(tmp_path, "\n".join([delimiter.join(("I", "II")), *rows(delimiter, comma)]))
    record = read(path, fs=100, unit="mV")
    assert record.leads == ("I", "II")
    assert record.fs == 100
    assert record.signal == pytest.approx(np.stack([WAVE, -WAVE]), abs=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = save(tmp_path, "\n".join(["I [µV],II [µV]", *rows()]), encoding=encoding)
    assert read(path, fs=100).signal[0] == pytest.approx(WAVE / 1000, abs=1e-9)


def test_rate_and_unit_are_asked_for(tmp_path):
    path = save(tmp_path, "\n".join(["I,II", *rows()]))
    with pytest.raises(ReadError, match="--fs"):
        read(path, unit="mV")
    with pytest.raises(ReadError, match="--unit"):
        read(path, fs=100)


def test_no_header_means_numbered_leads(tmp_path):
    path = save(tmp_path, "\n".join(",".join(["0.1"] * 12) for _ in range(50)))
    assert read(path, fs=100, unit="mV").leads == tuple(f"lead{i}" for i in range(1, 13))


@pytest.mark.parametrize(
    ("name", "scale"), [("time", 1), ("t", 1), ("seconds", 1), ("time_s", 1), ("time_ms", 1000), ("Time [ms]", 1000)]
)
def test_time_column_gives_the_rate(tmp_path, name, scale):
    lines = [f"{i / 250 * scale:.6f},{a}" for i, a in enumerate(WAVE)]
    record = read(save(tmp_path, "\n".join([f"{name},II_mV", *lines])))
    assert record.fs == pytest.approx(250, rel=1e-9)
    assert record.leads == ("II",)


def test_rounded_times_give_the_whole_rate(tmp_path):
    lines = [f"{i / 360:.3f},{a}" for i, a in enumerate(WAVE)]
    assert read(save(tmp_path, "\n".join(["time,II_mV", *lines]))).fs == 360


def test_a_fractional_rate_is_kept(tmp_path):
    lines = [f"{i / 257.3:.9f},{a}" for i, a in enumerate(WAVE)]
    assert read(save(tmp_path, "\n".join(["time,II_mV", *lines]))).fs == pytest.approx(257.3, rel=1e-6)


def test_times_that_are_not_uniform(tmp_path):
    lines = [f"{i / 250 + (i > 200):.6f},{a}" for i, a in enumerate(WAVE)]
    with pytest.raises(ReadError, match="not uniform"):
        read(save(tmp_path, "\n".join(["time,II_mV", *lines])))


def test_milliseconds_called_time(tmp_path):
    lines = [f"{i * 4},{a}" for i, a in enumerate(WAVE)]
    with pytest.raises(ReadError, match="Name it time_ms"):
        read(save(tmp_path, "\n".join(["time,II_mV", *lines])))


@pytest.mark.parametrize(("name", "factor"), [("II [mV]", 1), ("II (uV)", 1e-3), ("II_uV", 1e-3), ("II [V]", 1e3)])
def test_units_in_the_header(tmp_path, name, factor):
    record = read(save(tmp_path, "\n".join([f"{name},V1 [mV]", *rows()])), fs=100)
    assert record.leads == ("II", "V1")
    assert record.signal[0] == pytest.approx(WAVE * factor, rel=1e-5)
    assert record.signal[1] == pytest.approx(-WAVE, rel=1e-5)


def test_a_line_of_units_below_the_names(tmp_path):
    lines = [f"{i / 250:.3f},{a}" for i, a in enumerate(WAVE)]
    record = read(save(tmp_path, "\n".join(["'Elapsed time','MLII'", "'seconds','mV'", *lines])))
    assert (record.leads, record.fs) == (("MLII",), 250)


def test_a_stated_unit_is_not_overridden(tmp_path):
    with pytest.raises(ReadError, match="the file says uV"):
        read(save(tmp_path, "\n".join(["II_uV,V1_uV", *rows()])), fs=100, unit="mV")


@pytest.mark.parametrize("missing", ["", "-", "NaN", "nan", " ", "NA", "null"])
def test_cells_without_a_number(tmp_path, missing):
    path = save(tmp_path, f"I,II\n0.1,0.2\n{missing},0.4\n0.5,{missing}\n0.7,0.8\n")
    signal = read(path, fs=100, unit="mV").signal
    assert np.isnan(signal[0, 1])
    assert np.isnan(signal[1, 2])
    assert np.isfinite(signal).sum() == 6


@pytest.mark.parametrize("missing", [",", "nan,nan", '"","NaN"', "-,"])
def test_a_recording_that_begins_with_a_gap(tmp_path, missing):
    text = "\n".join(["I,II", *[missing] * 500, *rows()])
    record = read(save(tmp_path, text), fs=100, unit="mV")
    assert record.leads == ("I", "II")
    assert np.isnan(record.signal[:, :500]).all()
    assert record.signal[0, 500:] == pytest.approx(WAVE, rel=1e-5)


def test_one_column_that_begins_with_a_gap(tmp_path):
    for missing in ('""', "nan"):
        text = "\n".join(["II", missing, missing, "0.1", missing, "0.2"])
        signal = read(save(tmp_path, text), fs=100, unit="mV").signal[0]
        np.testing.assert_array_equal(np.isnan(signal), [True, True, False, True, False])


def test_other_columns_are_skipped(tmp_path):
    path = save(tmp_path, "sample,II,resp\n" + "\n".join(f"{i},{a},{a}" for i, a in enumerate(WAVE)))
    record = read(path, fs=100, unit="mV")
    assert record.leads == ("II",)
    assert len(record.warnings) == 2


@pytest.mark.parametrize("shape", [(3, 500), (500, 3), (500,)])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_npy(tmp_path, shape, dtype):
    values = np.random.default_rng(0).normal(0, 300, shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    record = read(tmp_path / "a.npy", fs=500, unit="uV")
    rows = np.atleast_2d(values)
    expected = rows if rows.shape[0] < rows.shape[1] else rows.T
    assert record.signal == pytest.approx(expected / 1000, rel=1e-6)
    assert record.leads[0] == "lead1"


def test_npy_that_is_no_signal(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((3, 4, 5)))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "square.npy", np.zeros((9, 9)))
    np.save(tmp_path / "empty.npy", np.zeros((3, 0)))
    for path in tmp_path.glob("*.npy"):
        with pytest.raises(ReadError):
            read(path, fs=100, unit="mV")


def test_npy_that_claims_too_much(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 100)))
    data = path.read_bytes().replace(b"(2, 100)", b"(2, 10**9)".replace(b"10**9", b"999999999"))
    path.write_bytes(data)
    with pytest.raises(ReadError, match="not a whole NPY array"):
        read(path, fs=100, unit="mV")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello world, this is a letter\nand no table\n", "no numbers in it"),
        ("I,II\n", "no numbers in it"),
        ("I,II\n1,2\n3\n", "about line 3 does not fit"),
        ("I,II\n1,2\n3,x\n", "about line 3 does not fit"),
        ("# anyecg csv 2\n# fs_hz: 500\n1,2\n", "Use a newer anyecg"),
        ("# anyecg csv 1\n# fs_hz: many\n# unit: mV\nI\n1\n2\n", "a rate of 'many'"),
        ("# anyecg csv 1\n# fs_hz: nan\n# unit: mV\nI\n1\n2\n", "the sampling rate is nan"),
        ("# anyecg csv 1\n# fs_hz: 500\n# unit: apples\nI\n1\n2\n", "the unit is 'apples'"),
    ],
)
def test_garbage(tmp_path, text, message):
    keywords = {} if text.startswith("#") else {"fs": 100, "unit": "mV"}
    with pytest.raises(ReadError, match=message) as caught:
        read(save(tmp_path, text), **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_text_export(formats_folder):
    path = formats_folder / "ecgviewer" / "testing_ecg.txt"
    record = read(path, fs=500, unit="uV")
    assert record.signal.shape == (12, 5000)
    assert record.signal[0, :2] == pytest.approx([0.019, 0.019])
    with pytest.raises(ReadError, match="no sampling rate"):
        read(path)
