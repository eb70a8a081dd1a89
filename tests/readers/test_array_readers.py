"""NPZ, MAT and JSON: named values, however they are called; what is not said is asked for."""

import json
import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from anyecg.errors import ReadError
from anyecg.readers import read

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(-300, 300, (3, 500)).astype(np.int16)
MV = RNG.normal(0, 0.3, (3, 500))
LEADS = ["I", "II", "V1"]


def test_npz_with_one_array(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, signal=MV, fs=257.3, unit="mV", leads=LEADS, age=61, sex="female", start_time="2020-05-04T03:02:01")
    record = read(path)
    assert (record.format, record.fs, record.leads, record.age, record.sex) == (
        "npz",
        257.3,
        tuple(LEADS),
        61,
        "female",
    )
    assert record.start_time is not None and record.start_time.isoformat() == "2020-05-04T03:02:01"
    assert record.signal == pytest.approx(MV, abs=1e-6)
    part = read(path, start_s=0.5, end_s=1)
    np.testing.assert_array_equal(part.signal, record.signal[:, 129:257])
    assert part.start_time.isoformat().startswith("2020-05-04T03:02:01.50")


def test_npz_with_an_array_a_lead(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, I=COUNTS[0], V1=COUNTS[2], resp=COUNTS[1], rpeaks=np.arange(7), sampling_rate=250)
    record = read(path, unit="uV")
    assert record.leads == ("I", "V1")
    assert record.signal == pytest.approx(COUNTS[[0, 2]] / 1000, abs=1e-6)
    text = " ".join(record.warnings)
    assert "resp" in text and "rpeaks" in text


def test_a_time_array_gives_the_rate(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, ecg=MV, time=np.arange(500) / 250)
    assert read(path, unit="mV").fs == 250


def test_units_of_each_lead(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, signal=MV, fs=250, units=["mV", "uV", "V"], leads=LEADS)
    signal = read(path).signal
    assert signal == pytest.approx(MV * [[1], [1e-3], [1e3]], rel=1e-5)


def test_lead_names_tell_the_axis_of_a_short_recording(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, signal=MV[:, :2].T, fs=250, unit="mV", leads=LEADS)
    assert read(path).signal.shape == (3, 2)


def test_the_smallest_integer_is_no_voltage(tmp_path):
    counts = COUNTS.copy()
    counts[1, 40:50] = -32768
    path = tmp_path / "a.npz"
    np.savez(path, val=counts, fs=250)
    record = read(path, unit="uV")
    assert np.isnan(record.signal[1, 40:50]).all()
    assert np.isnan(record.signal).sum() == 10
    assert any("10 samples of -32768" in warning for warning in record.warnings)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fs": 250}, "no array of samples"),
        ({"a": MV, "b": MV}, "2 arrays"),
        ({"signal": MV, "leads": ["I", "II"]}, "2 lead names for 3 leads"),
        ({"signal": MV[:, :3]}, "square"),
        ({"signal": MV}, "no sampling rate"),
        ({"signal": MV, "fs": -5}, "the sampling rate is -5"),
        ({"codes": MV, "codebook_size": 3}, "rhythm codes"),
    ],
)
def test_npz_that_is_not_clear(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ReadError, match=message):
        read(tmp_path / "a.npz", unit="mV")


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("compress", [False, True])
def test_mat_val(tmp_path, version, compress):
    path = tmp_path / "A0001.mat"
    savemat(path, {"val": COUNTS}, format=version, do_compression=compress and version == "5")
    record = read(path, fs=500, unit="uV")
    assert record.format == "mat"
    assert record.signal == pytest.approx(COUNTS / 1000, abs=1e-6)
    with pytest.raises(ReadError, match=r"no sampling rate.*A0001\.hea"):
        read(path, unit="uV")
    with pytest.raises(ReadError, match="--unit"):
        read(path, fs=500)


def test_mat_struct_and_cells(tmp_path):
    names = np.array(LEADS, dtype=object)
    savemat(tmp_path / "a.mat", {"ECG": {"sex": "Male", "age": 64, "data": MV, "fs": 500.0, "leads": names}})
    record = read(tmp_path / "a.mat", unit="mV")
    assert (record.sex, record.age, record.fs, record.leads) == ("male", 64, 500, tuple(LEADS))
    assert record.signal == pytest.approx(MV, abs=1e-6)


def test_mat_that_unpacks_to_too_much(tmp_path):
    """60 MB of zeros in 60 kB, as an element of type miCOMPRESSED."""
    packer, packed = zlib.compressobj(9), b""
    for _ in range(60):
        packed += packer.compress(bytes(1_000_000))
    packed += packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(head + np.array([15, len(packed)], "<u4").tobytes() + packed)
    with pytest.raises(ReadError, match="unpack to more"):
        read(tmp_path / "a.mat", fs=500, unit="mV")


@pytest.mark.data
def test_mat_of_a_challenge_without_its_header(database, tmp_path):
    """The .mat alone gives the numbers that wfdb reads with the header."""
    header = next(p for p in sorted(database("cinc2021").rglob("*.hea")) if p.with_suffix(".mat").is_file())
    whole = read(header)
    alone = tmp_path / "alone.mat"
    alone.write_bytes(header.with_suffix(".mat").read_bytes())
    record = read(alone, fs=whole.fs, unit="uV")
    assert record.signal.shape == whole.signal.shape
    ratio = np.nanstd(record.signal, axis=1) / np.nanstd(whole.signal, axis=1)
    assert ratio == pytest.approx(ratio[0], rel=1e-3)


def test_json_of_our_own_layout(tmp_path):
    document = {
        "format": "anyecg json 1",
        "fs_hz": 500,
        "unit": "uV",
        "leads": ["I", "II"],
        "signal": [[10, None, 30.5], [1, 2, 3]],
        "age": 61,
        "sex": "female",
        "start_time": "2020-05-04T03:02:01",
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    record = read(tmp_path / "a.json")
    np.testing.assert_allclose(record.signal, [[0.01, np.nan, 0.0305], [0.001, 0.002, 0.003]], rtol=1e-6)
    assert (record.format, record.fs, record.age, record.sex) == ("json", 500, 61, "female")


@pytest.mark.parametrize(
    "document",
    [
        {"sampling_rate": 500, "units": "mV", "I": [1, 2, 3], "II": [4, 5, 6]},
        {"samplingFrequency": 500, "unit": "mV", "signal": {"I": [1, 2, 3], "II": [4, 5, 6]}},
        {"metadata": {"fs": 500, "unit": "mV"}, "leads": {"I": [1, 2, 3], "II": [4, 5, 6]}},
        {"fs": "500", "unit": "mV", "lead_names": ["I", "II"], "data": [[1, 4], [2, 5], [3, 6]]},
    ],
)
def test_json_in_other_words(tmp_path, document):
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(document), encoding="utf-8")
    record = read(tmp_path / "a.json")
    assert (record.fs, record.leads) == (500, ("I", "II"))
    np.testing.assert_array_equal(record.signal, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"fs": 500', "not whole JSON"),
        ('{"signal": [[1, 2], [3]]}', "not a table of numbers"),
        ('{"signal": [[1, "x"]]}', "not a table of numbers"),
        ('{"note": "hello"}', "no array of samples"),
        ('{"a":' * 100_000, "not whole JSON"),
    ],
)
def test_json_that_is_not_clear(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_kardia_json_stays_with_its_own_reader(tmp_path):
    samples = {"leadI": [1, 2, 3] * 100, "leadII": [4, 5, 6] * 100}
    raw = {"frequency": 300, "mainsFrequency": 60, "amplitudeResolution": 500, "numLeads": 2, "samples": samples}
    document = {
        "id": "x",
        "recordedAt": "2020-05-04T03:02:01Z",
        "algorithmDetermination": "normal",
        "data": {"raw": raw},
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    record = read(tmp_path / "a.json")
    assert (record.format, record.fs, record.leads) == ("kardia", 300, ("I", "II"))
    assert record.signal[1, :3] == pytest.approx([0.002, 0.0025, 0.003])


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".json"])
def test_cut_and_changed_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, signal=MV, fs=250, unit="mV")
    elif suffix == ".mat":
        savemat(path, {"val": COUNTS, "fs": 250.0, "unit": "uV"}, do_compression=True)
    else:
        path.write_text(json.dumps({"fs": 250, "unit": "mV", "signal": MV.round(3).tolist()}))
    assert read(path).n_samples == 500
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for trial in range(40):
        changed = bytearray(data[: len(data) * trial // 10] if trial < 10 else data)
        for at in rng.integers(0, max(len(changed), 1), 3 if trial >= 10 else 0):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        try:
            read(path)
        except ReadError as error:
            assert "\n" not in str(error)


def test_a_later_matrix_of_level_4_that_claims_too_much_is_refused(tmp_path):
    """The fuzzer's find: the first matrix was honest, the second claimed 1e9 columns."""
    path = tmp_path / "two.mat"
    savemat(path, {"ecg": np.zeros((3, 750), dtype=np.int16), "fs": 250.0}, format="4")
    whole = path.read_bytes()
    second = 20 + 4 + 3 * 750 * 2
    claimed = whole[: second + 8] + struct.pack("<i", 1_000_000_000) + whole[second + 12 :]
    path.write_bytes(claimed)
    with pytest.raises(ReadError, match=r"a matrix of 1 x 1000000000 values in"):
        read(path, fs=250, unit="mV")
    path.write_bytes(whole)
    assert read(path, unit="mV").n_samples == 750


@pytest.mark.parametrize(("unit", "mv"), [("uV", 1e-3), ("nV", 1e-6), ("mV", 1.0), ("V", 1e3)])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8, ">i2", np.int32])
@pytest.mark.parametrize("by_column", [False, True])
def test_whole_numbers_become_the_nearest_mv_there_are(tmp_path, unit, mv, dtype, by_column):
    """Every count of 16 bits, as 64 bits would give it, rounded once; the lowest of int16 is no sample."""
    limits = np.iinfo(dtype)
    every = np.arange(max(limits.min, -32768), min(limits.max, 65535) + 1)
    counts = np.stack([every, every[::-1]]).astype(dtype)
    np.save(tmp_path / "a.npy", counts.T if by_column else counts)
    found = read(tmp_path / "a.npy", fs=500, unit=unit).signal
    expected = (counts.astype(np.float64) * mv).astype(np.float32)
    if np.dtype(dtype) in (np.dtype("<i2"), np.dtype(">i2")):
        expected[counts == -32768] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_leads_of_an_array_in_other_units_each(tmp_path):
    np.savez(tmp_path / "a.npz", signal=COUNTS, fs=250, leads=["I", "II", "V1"], units=["uV", "mV", "nV"])
    found = read(tmp_path / "a.npz").signal
    np.testing.assert_allclose(found, COUNTS * np.array([[1e-3], [1.0], [1e-6]]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (700,), (1, 700), (1, 3, 700)])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_is_what_numpy_reads(tmp_path, shape, dtype, order, version):
    signal = np.asarray(np.random.default_rng(0).integers(-900, 900, shape), dtype=dtype, order=order)
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, signal, version)
    leads = np.load(path).reshape(signal.size // 700, 700) if shape != (700, 3) else np.load(path).T
    found = read(path, fs=250, unit="mV")
    assert found.signal.dtype == np.float32
    np.testing.assert_array_equal(found.signal, leads.astype(np.float32))
    np.testing.assert_array_equal(
        read(path, fs=250, unit="mV", start_s=1, end_s=2).signal, found.signal[:, 250:500], strict=True
    )


@pytest.mark.parametrize("lost", [1, 8000, 8400])
def test_npy_cut_short(tmp_path, lost):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((3, 700), np.float32))
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ReadError, match="not a whole NPY array"):
        read(path, fs=250, unit="mV")


@pytest.mark.parametrize("shape", ["(0, 700)", "(3, 0)", "()", "(-3, -700)", "(3, 99999999999999)"])
def test_npy_of_a_shape_that_cannot_be(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(8400))
    with pytest.raises(ReadError):
        read(tmp_path / "a.npy", fs=250, unit="mV")
