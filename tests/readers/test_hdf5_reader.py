"""HDF5: one recording, or many of which one is named; nothing is read from another file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers import find_files, read

RNG = np.random.default_rng(0)
MV = RNG.normal(0, 0.3, (3, 500))


def twelve_leads(n_samples: int) -> np.ndarray:
    """Return twelve leads, of which the limb leads obey Einthoven and Goldberger, one a column."""
    one, two, *chest = RNG.normal(0, 0.3, (8, n_samples))
    limbs = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    return np.stack([*limbs, *chest], axis=1)


def stack_file(folder: Path, ids: bool = True, order: tuple[int, ...] = tuple(range(12))) -> tuple[Path, np.ndarray]:
    tracings = np.zeros((4, 4096, 12), np.float32)
    for i in range(4):
        tracings[i, 500 : 500 + 2800 + i] = twelve_leads(2800 + i)[:, order]
    path = folder / "exams_part0.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=tracings, chunks=(1, 4096, 12), compression="gzip")
        if ids:
            file["exam_id"] = np.array([1169160, 2873686, 168405, 271011])
    return path, tracings


@pytest.mark.parametrize("name", ["{}/168405", "{}#2"])
def test_one_of_many(tmp_path, name):
    path, tracings = stack_file(tmp_path)
    record = read(name.format(path))
    assert (record.format, record.id, record.fs, record.leads) == ("hdf5", "168405", 400, STANDARD_LEADS)
    np.testing.assert_allclose(record.signal[:, 500:3302], tracings[2, 500:3302].T, atol=1e-6)
    assert np.isnan(record.signal[:, :500]).all() and np.isnan(record.signal[:, 3302:]).all()
    assert not record.gain_known
    assert len([w for w in record.warnings if "states no" in w]) == 2
    told = read(name.format(path), fs=400, unit="mV", start_s=2, end_s=3)
    assert told.gain_known
    np.testing.assert_array_equal(told.signal, record.signal[:, 800:1200])


def test_none_of_many_is_guessed(tmp_path):
    path, _ = stack_file(tmp_path)
    with pytest.raises(ReadError, match=r"4 recordings \(1169160, .*exams_part0\.hdf5/1169160.*#0"):
        read(path)
    with pytest.raises(ReadError, match="no such recording among 4"):
        read(f"{path}/77")
    with pytest.raises(ReadError, match="no such recording among 4"):
        read(f"{path}#4")
    assert [p.name for p in find_files([path])] == ["1169160", "2873686", "168405", "271011"]
    assert len(find_files([tmp_path])) == 4


def test_many_without_names(tmp_path):
    path, _ = stack_file(tmp_path, ids=False)
    assert [p.name for p in find_files([path])] == [f"exams_part0.hdf5#{i}" for i in range(4)]
    assert read(f"{path}#3").id == "exams_part0-3"


def test_limb_leads_in_another_order_are_found_out(tmp_path):
    path, _ = stack_file(tmp_path, order=(0, 1, 2, 4, 5, 3, *range(6, 12)))
    record = read(f"{path}#0")
    assert record.leads[:6] == ("I", "II", "III", "aVL", "aVF", "aVR")
    assert any("by their sums" in warning for warning in record.warnings)


def test_one_recording_with_attributes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        signal = file.create_dataset("ecg", data=MV)
        signal.attrs["fs"] = 250.0
        signal.attrs["unit"] = "mV"
        file["leads"] = ["I", "II", "V1"]
        file.attrs["age"] = 61
    record = read(tmp_path / "a.h5")
    assert (record.fs, record.leads, record.id, record.age) == (250, ("I", "II", "V1"), "a", 61)
    np.testing.assert_allclose(record.signal, MV, atol=1e-6)


def test_a_group_a_recording(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in ("p1", "p2"):
            file[f"{name}/signal"], file[f"{name}/fs"] = MV * (1 + (name == "p2")), 250
        file.attrs["unit"] = "mV"
    with pytest.raises(ReadError, match=r"2 recordings \(p1, p2\)"):
        read(path)
    record = read(path / "p2")
    assert (record.id, record.fs) == ("p2", 250)
    np.testing.assert_allclose(record.signal, 2 * MV, atol=1e-6)


def test_mat_of_version_7_3(tmp_path):
    """MATLAB transposes, writes texts as numbers, cells as references, and 512 bytes of its own before it all."""
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        struct = file.create_group("ECG")
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        struct["data"] = MV.T
        struct["fs"] = [[250.0]]
        text = file.create_dataset("ECG/unit", data=np.array([[ord(c)] for c in "mV"], np.uint16))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        cells = file.create_dataset("ECG/leads", (3, 1), h5py.ref_dtype)
        for i, name in enumerate(("I", "II", "V1")):
            cell = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            cell.attrs["MATLAB_class"] = np.bytes_("char")
            cells[i, 0] = cell.ref
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    record = read(path)
    assert (record.format, record.fs, record.leads) == ("mat", 250, ("I", "II", "V1"))
    np.testing.assert_allclose(record.signal, MV, atol=1e-6)


def test_other_files_are_not_opened(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["ecg"] = MV
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["ecg"] = h5py.ExternalLink("secret.h5", "/ecg")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(MV.shape, "f8")
        layout[:] = h5py.VirtualSource("secret.h5", "ecg", MV.shape)
        file.create_virtual_dataset("ecg", layout)
    (tmp_path / "raw.bin").write_bytes(MV.tobytes())
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("ecg", MV.shape, "f8", external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)])
    for name in ("link", "virtual", "external"):
        with pytest.raises(ReadError, match="in another file"):
            read(tmp_path / f"{name}.h5", fs=250, unit="mV")


def test_other_files_are_not_opened_in_roundabout_ways(tmp_path):
    """A soft link may lead over a link to another file, and a reference to an array whose values lie in one."""
    names = np.array([[ord(c)] for c in "V9"], np.uint16)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["ecg"], file["name"] = MV, names
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["#away"] = h5py.ExternalLink("secret.h5", "/")
        file["ecg"] = h5py.SoftLink("/#away/ecg")
    with h5py.File(tmp_path / "reference.mat", "w") as file:
        file["ecg"] = MV[:1]
        layout = h5py.VirtualLayout(names.shape, "u2")
        layout[:] = h5py.VirtualSource("secret.h5", "name", names.shape)
        cell = file.create_virtual_dataset("#refs#/a", layout)
        cell.attrs["MATLAB_class"] = np.bytes_("char")
        leads = file.create_dataset("leads", (1, 1), h5py.ref_dtype)
        leads[0, 0] = cell.ref
    for name in ("soft.h5", "reference.mat"):
        with pytest.raises(ReadError, match="in another file"):
            read(tmp_path / name, fs=250, unit="mV")


def test_links_inside_the_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["#hidden/x"] = MV
        file["ecg"] = h5py.SoftLink("/#hidden/x")
        file["lost"] = h5py.SoftLink("/nowhere")
    np.testing.assert_allclose(read(tmp_path / "a.h5", fs=250, unit="mV").signal, MV, atol=1e-6)


def test_the_file_is_closed_also_when_it_is_refused(tmp_path):
    path, _ = stack_file(tmp_path)
    read(f"{path}#3")
    with pytest.raises(ReadError, match="expected one") as caught:
        read(path)
    with h5py.File(path, "r+") as file:  # impossible while it is open to be read
        file["more"] = 1
    assert caught.value


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">i2", "u1", "<f2"])
@pytest.mark.parametrize("chunks", [None, (1, 50)])
def test_numbers_of_every_type_are_what_h5py_reads(tmp_path, dtype, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", data=np.abs(MV * 100).astype(dtype), chunks=chunks)
    with h5py.File(tmp_path / "a.h5") as file:
        expected = file["ecg"][()].astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path / "a.h5", fs=250, unit="mV").signal, expected)


def test_an_array_a_lead(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, row in zip(("I", "II", "V1"), MV, strict=True):
            file[name] = row
        file["time"] = np.arange(500) / 250
    record = read(tmp_path / "a.h5", unit="mV")
    assert (record.fs, record.leads) == (250, ("I", "II", "V1"))
    np.testing.assert_allclose(record.signal, MV, atol=1e-6)
    part = read(tmp_path / "a.h5", unit="mV", start_s=1, end_s=1.5)
    np.testing.assert_array_equal(part.signal, record.signal[:, 250:375])


def test_claims_of_too_much(tmp_path):
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("ecg", (12, 2**31), "i2", chunks=(1, 65536), compression="gzip")
    with pytest.raises(ReadError, match="expected a plausible count"):
        read(tmp_path / "long.h5", fs=250, unit="mV")
    assert read(tmp_path / "long.h5", fs=250, unit="mV", end_s=10).n_samples == 2500
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("ecg", (2, 2**28), "f8", chunks=(1, 2**28), compression="gzip")
    with pytest.raises(ReadError, match="smaller ones"):
        read(tmp_path / "chunk.h5", fs=250, unit="mV", end_s=1)


def test_damage(tmp_path):
    path, _ = stack_file(tmp_path)
    data = path.read_bytes()
    for tenth in range(1, 10):
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(ReadError):
            read(f"{path}#3")


@pytest.mark.data
def test_records_of_the_database_in_this_layout(database, tmp_path):
    """The first records as WFDB has them, laid out as the original files are: what is read is the same."""
    headers = sorted(database("code-15").glob("*.hea"))[:3]
    records = [read(header) for header in headers]
    tracings = np.zeros((3, 4096, 12), np.float32)
    for out, record in zip(tracings, records, strict=True):
        n = min(record.n_samples, 4096)
        out[:n] = np.nan_to_num(record.signal[:, :n].T)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = tracings, [int(header.stem) for header in headers]
    for header, record in zip(headers, records, strict=True):
        again = read(tmp_path / "a.hdf5" / header.stem)
        assert (again.leads, again.fs) == (record.leads, record.fs)
        n = min(record.n_samples, 4096)
        np.testing.assert_allclose(np.nan_to_num(again.signal[:, :n]), np.nan_to_num(record.signal[:, :n]), atol=1e-6)


@pytest.mark.parametrize("inner", ["#5", "/other"])
def test_a_file_of_one_recording_has_none_behind_it(tmp_path, inner):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = MV
    with pytest.raises(ReadError, match="a file of one recording, expected no"):
        read(f"{tmp_path / 'a.h5'}{inner}", fs=500, unit="mV")
