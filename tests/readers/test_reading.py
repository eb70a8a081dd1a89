"""read() itself: arguments, hints, and that nothing but ReadError comes out of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import anyecg.readers
from anyecg.errors import ReadError
from anyecg.readers import dicom, find_files, read
from anyecg.record import Record
from anyecg.writers import write


def write_samples(folder: Path, make_wfdb, make_edf, dicom_file: Path) -> list[Path]:
    """Write a small file of each format; companions lie beside theirs."""
    record = Record(np.random.default_rng(0).normal(0, 0.3, (2, 500)), fs=250, leads=("I", "II"))
    np.save(folder / "array.npy", record.signal)
    shutil.copy(dicom_file, folder / "copy.dcm")
    write(record, folder / "table.csv")
    return [
        folder / "array.npy",
        folder / "copy.dcm",
        folder / "table.csv",
        make_edf(n_seconds=2).path,
        make_edf(".bdf", n_seconds=2).path,
        make_wfdb("a", "16", 500).path.with_suffix(".dat"),
        make_wfdb("b", "212", 500).path.with_suffix(".dat"),
        make_wfdb("c", "516", 500).path.with_suffix(".dat"),
        make_wfdb("d", "24", 500).path,
    ]


def damaged(path: Path, data: bytes, arguments: dict) -> None:
    path.write_bytes(data)
    try:
        record = read(path, **arguments)
    except ReadError as error:
        assert "\n" not in str(error)
    else:
        assert record.n_samples > 0


def test_every_file_cut_at_ten_places(tmp_path, make_wfdb, make_edf, dicom_file):
    for path in write_samples(tmp_path, make_wfdb, make_edf, dicom_file):
        data = path.read_bytes()
        arguments = {"fs": 250, "unit": "mV"} if path.suffix == ".npy" else {}
        assert read(path, **arguments).n_samples > 0
        for tenth in range(10):
            damaged(path, data[: len(data) * tenth // 10], arguments)
        damaged(path, data[:-1], arguments)
        path.write_bytes(data)


def test_bytes_changed_at_random(tmp_path, make_wfdb, make_edf, dicom_file):
    rng = np.random.default_rng(1)
    for path in write_samples(tmp_path, make_wfdb, make_edf, dicom_file):
        data = path.read_bytes()
        arguments = {"fs": 250, "unit": "mV"} if path.suffix == ".npy" else {}
        for _ in range(15):
            changed = bytearray(data)
            for at in rng.integers(0, min(len(data), 3000), 4):
                changed[at] = rng.integers(0, 256)
            damaged(path, bytes(changed), arguments)
        path.write_bytes(data)


@pytest.mark.data
@pytest.mark.parametrize("cut", range(10))
def test_sample_files_cut(formats_folder, tmp_path, cut):
    for path in sorted(formats_folder.glob("*/*")):
        if path.suffix not in (".xml", ".scp", ".dcm"):
            continue
        data = path.read_bytes()
        damaged(tmp_path / path.name, data[: len(data) * cut // 10], {})


@given(
    data=st.binary(max_size=600),
    suffix=st.sampled_from(["", ".hea", ".dat", ".edf", ".csv", ".xml", ".dcm", ".scp", ".npy"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage(tmp_path, data, suffix):
    damaged(tmp_path / f"garbage{suffix}", data, {"fs": 250, "unit": "mV"})


@given(text=st.text(alphabet="0123456789.,;- \t\nabI#e", max_size=300))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_text(tmp_path, text):
    damaged(tmp_path / "garbage.txt", text.encode(), {"fs": 250, "unit": "mV"})


def test_magic_with_garbage_behind(tmp_path):
    rng = np.random.default_rng(0)
    heads = [
        b"0       ",
        b"\xffBIOSEMI",
        b"\x00" * 128 + b"DICM",
        b"ISHNE1.0",
        b"\x93NUMPY\x01\x00",
        b"<RestingECG>",
        b"<AnnotatedECG ",
        b"<restingecgdata>",
        b"\x40\x20MFR ",
        b'{"recordedAt": 1, "data": {}}',
        b"PK\x03\x04",
    ]
    for head in heads:
        for n in (0, 100, 5000):
            damaged(tmp_path / "garbage", head + rng.bytes(n), {})


@pytest.mark.parametrize(
    "arguments",
    [
        {"start_s": -1},
        {"start_s": float("nan")},
        {"start_s": 2, "end_s": 2},
        {"start_s": 3, "end_s": 2},
        {"end_s": 0},
        {"end_s": float("inf")},
        {"fs": 0},
        {"fs": -100},
        {"fs": float("nan")},
        {"unit": "furlong"},
    ],
)
def test_arguments_that_no_file_could_meet(dicom_file, arguments):
    with pytest.raises(ValueError, match="allowed"):
        read(dicom_file, **arguments)


def test_slices(dicom_file):
    with pytest.raises(ReadError, match=r"ends at 10\.000 s"):
        read(dicom_file, start_s=10)
    with pytest.raises(ReadError, match="no sample lies between"):
        read(dicom_file, start_s=1.0001, end_s=1.0002)
    record = read(dicom_file, start_s=9, end_s=20)
    assert record.n_samples == 1000
    assert any("asked until 20 s" in warning for warning in record.warnings)


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(ReadError, match="no such file"):
        read(tmp_path / "absent.edf")
    with pytest.raises(ReadError, match="a folder"):
        read(tmp_path)
    (tmp_path / "empty.edf").touch()
    with pytest.raises(ReadError, match="an empty file"):
        read(tmp_path / "empty.edf")
    with pytest.raises(ReadError):
        read("nul\0byte")
    with pytest.raises(ReadError, match="no known ECG format"):
        (tmp_path / "x.bin").write_bytes(bytes(range(256)))
        read(tmp_path / "x.bin")
    with pytest.raises(ReadError, match=r"Copy the \.hea"):
        (tmp_path / "lonely.dat").write_bytes(bytes(range(256)))
        read(tmp_path / "lonely.dat")


def test_content_counts_not_the_suffix(tmp_path, dicom_file, make_edf):
    shutil.copy(dicom_file, tmp_path / "a.edf")
    shutil.copy(make_edf().path, tmp_path / "b.dcm")
    assert read(tmp_path / "a.edf").format == "dicom"
    assert read(tmp_path / "b.dcm").format == "edf"


def test_an_unexpected_error_of_a_library_is_explained(monkeypatch, dicom_file):
    def burst(*args):
        raise KeyError("two\nlines")

    monkeypatch.setattr(dicom, "read", burst)
    with pytest.raises(ReadError, match=r"the dicom reader failed \(KeyError: 'two.nlines'\)") as caught:
        read(dicom_file)
    assert isinstance(caught.value.__cause__, KeyError)


def test_warnings_of_libraries_become_the_record_s(monkeypatch, tmp_path):
    import warnings

    def warn(*args):
        warnings.warn("the lid is open", stacklevel=1)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
        return Record(np.random.default_rng(0).normal(size=(1, 100)), fs=100, leads=("I",))

    (tmp_path / "a.csv").write_text("1\n")
    monkeypatch.setattr(anyecg.readers.tabular.tables, "read", warn)
    assert read(tmp_path / "a.csv").warnings == ("the lid is open",)


@pytest.mark.parametrize(
    ("signal", "warning"),
    [
        (np.random.default_rng(0).normal(0, 300, (2, 2000)), "probably a unit error"),
        (np.random.default_rng(0).normal(0, 0.0005, (2, 2000)), "probably a unit error"),
        (np.tile(np.random.default_rng(0).normal(0, 0.3, 2000), (2, 1)), "identical: II = I"),
        (np.where(np.arange(2000) == 5, np.inf, np.random.default_rng(0).normal(0, 0.3, (2, 2000))), "2 infinite"),
        (np.zeros((2, 2000)), "flat"),
    ],
)
def test_audit(tmp_path, signal, warning):
    np.save(tmp_path / "a.npy", signal)
    record = read(tmp_path / "a.npy", fs=250, unit="mV")
    record = anyecg.readers.audit("x", record.with_(leads=("I", "II"), warnings=()))
    text = "\n".join((*record.warnings, *read(tmp_path / "a.npy", fs=250, unit="mV").warnings))
    assert warning in text or warning.replace("II = I", "lead2 = lead1") in text
    assert not np.isinf(record.signal).any()


def test_a_good_signal_is_not_complained_about(dicom_file):
    assert all("implausible" not in warning for warning in read(dicom_file).warnings)


def test_find_files(tmp_path, make_wfdb, dicom_file):
    make_wfdb("rec")
    make_wfdb("long_0001")
    (tmp_path / "long.hea").write_text("long/1 3 250 2500\nlong_0001 2500\n")
    (tmp_path / "rec.atr").write_bytes(b"\0\0")
    (tmp_path / "README.txt").write_text("1 2 3")
    (tmp_path / "sub").mkdir()
    shutil.copy(dicom_file, tmp_path / "sub" / "nosuffix")
    names = [path.relative_to(tmp_path).as_posix() for path in find_files([str(tmp_path)])]
    assert names == ["long.hea", "rec.hea", "sub/nosuffix"]
    assert [p.name for p in find_files([f"{tmp_path}/rec.*"])] == ["rec.hea"]
    assert [p.name for p in find_files([f"{tmp_path}/rec", tmp_path / "rec.dat"])] == ["rec.hea"]
    assert [p.name for p in find_files([tmp_path / "README.txt"])] == ["README.txt"]
    for nothing in (f"{tmp_path}/*.scp", f"{tmp_path}/absent.edf"):
        with pytest.raises(ReadError):
            find_files([nothing])


def test_importing_the_readers_is_light():
    code = "import sys, anyecg.readers, anyecg.writers; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"wfdb", "pandas", "scipy", "pydicom", "pyedflib", "ecgdatakit", "soxr"} & set(loaded)


def test_nothing_is_printed(capfd, tmp_path, make_wfdb, make_edf, dicom_file):
    for path in write_samples(tmp_path, make_wfdb, make_edf, dicom_file):
        read(path, **({"fs": 250, "unit": "mV"} if path.suffix == ".npy" else {}))
    assert capfd.readouterr() == ("", "")


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make folders of a name unlistable, also for root, whom no file mode keeps out."""
    scandir = os.scandir

    def scan(folder: str | Path | int = ".") -> Iterator[os.DirEntry[str]]:
        if not isinstance(folder, int) and Path(folder).name == name:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)  # type: ignore[return-value,arg-type]

    monkeypatch.setattr(os, "scandir", scan)


@pytest.mark.parametrize("pattern", ["", "/**/*.csv"])
def test_a_folder_that_cannot_be_listed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Neither searching a folder nor a glob: it is returned among the files, and reading it says why."""
    for name in ("ward", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("I [mV]\n1\n2\n")
    refuse_to_list(monkeypatch, "closed")
    found = find_files([f"{tmp_path}{pattern}"])
    assert tmp_path / "closed" in found
    assert tmp_path / "ward" / "a.csv" in found
    with pytest.raises(ReadError, match=r"closed: a folder that cannot be listed \(Permission denied\)"):
        read(tmp_path / "closed")


def test_a_batch_counts_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from anyecg.cli import app

    for name in ("ward", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("time_s,I [mV]\n" + "".join(f"{i / 250},{i % 7}\n" for i in range(500)))
    refuse_to_list(monkeypatch, "closed")
    done = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert done.exit_code == 1
    assert "closed: a folder that cannot be listed (Permission denied)" in done.stderr
    assert "1 of 2 failed" in done.stderr


def test_every_suffix_of_a_format_is_looked_for(tmp_path: Path) -> None:
    for name in ("a.aecg", "b.XML", "c.scp", "README.txt"):
        (tmp_path / name).write_text("<x/>")
    assert [path.name for path in find_files([tmp_path])] == ["a.aecg", "b.XML", "c.scp"]


def test_a_mark_is_only_a_guess(tmp_path):
    """Whoever is asked first must say yes himself: text may begin as a MATLAB file does."""
    assert set(anyecg.readers.MARKS.values()) <= set(anyecg.readers.READERS)
    path = tmp_path / "a.csv"
    path.write_text("MATLAB export\n" + "".join(f"{i % 7 / 10},{i % 5 / 10}\n" for i in range(500)))
    assert anyecg.readers.MARKS[path.read_bytes()[:6]] == "tabular.matlab"
    assert read(path, fs=250, unit="mV").format == "csv"
