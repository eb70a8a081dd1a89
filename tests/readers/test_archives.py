"""Packed files and archives: the one recording in them is read, and nothing else happens."""

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import find_files, read
from anyecg.readers.packed import archive_members, unpacking
from anyecg.record import Record
from anyecg.writers import write


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Temporary folders where the test can see that none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def table(folder: Path, name: str = "table.csv") -> Path:
    record = Record(np.random.default_rng(0).normal(0, 0.3, (2, 500)), fs=250, leads=("I", "II"))
    write(record, folder / name)
    return folder / name


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:" + {".gz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")) as packed:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_files(tmp_path, suffix, pack, make_edf):
    for path in (table(tmp_path), make_edf().path):
        packed = tmp_path / (path.name + suffix)
        packed.write_bytes(pack(path.read_bytes()))
        whole, record = read(path), read(packed)
        np.testing.assert_array_equal(record.signal, whole.signal)
        assert (record.format, record.id, record.leads) == (whole.format, whole.id, whole.leads)
        part = read(packed, start_s=0.5, end_s=1)
        np.testing.assert_array_equal(part.signal, read(path, start_s=0.5, end_s=1).signal)


def test_two_streams_in_one_xz(tmp_path):
    path = table(tmp_path)
    data = path.read_bytes()
    (tmp_path / "t.csv.xz").write_bytes(lzma.compress(data[:700]) + lzma.compress(data[700:]) + bytes(8))
    np.testing.assert_array_equal(read(tmp_path / "t.csv.xz").signal, read(path).signal)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_a_wfdb_record_in_an_archive(tmp_path, name, make_wfdb):
    sample = make_wfdb("rec")
    whole = read(sample.path)
    files = {f"ward/{p.name}": p.read_bytes() for p in (sample.path, sample.path.with_suffix(".dat"))}
    files |= {"ward/README.txt": b"hello", "__MACOSX/ward/._rec.hea": b"x"}
    path = (zipped if name == "a.zip" else tarred)(tmp_path / name, files)
    if name == "a.tgz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    record = read(path)
    assert (record.format, record.id) == ("wfdb", "rec")
    np.testing.assert_array_equal(record.signal, whole.signal)
    for inner in ("ward/rec.hea", "ward/rec.dat", "ward/rec"):
        np.testing.assert_array_equal(read(path / inner).signal, whole.signal)
    assert find_files([path]) == [path]


def test_a_long_wfdb_record_of_segments(tmp_path, make_wfdb):
    folder = tmp_path
    make_wfdb("long_0001"), make_wfdb("long_0002")
    (folder / "long.hea").write_text("long/2 3 250 5000\nlong_0001 2500\nlong_0002 2500\n")
    whole = read(folder / "long.hea")
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("long")}
    for path in (zipped(folder / "a.zip", files), tarred(folder / "a.tar.gz", files)):
        np.testing.assert_array_equal(read(path).signal, whole.signal)


def test_several_recordings(tmp_path, make_edf):
    csv, edf = table(tmp_path), make_edf().path
    path = zipped(tmp_path / "a.zip", {"x/one.csv": csv.read_bytes(), "two.edf": edf.read_bytes(), "n.txt": b"hi"})
    with pytest.raises(ReadError, match=r"2 recordings \(two\.edf, x/one\.csv\).*Name it: .*a\.zip/two\.edf"):
        read(path)
    assert find_files([path]) == [path / "two.edf", path / "x" / "one.csv"]
    assert find_files([tmp_path / "*.zip"]) == [path / "two.edf", path / "x" / "one.csv"]
    assert [read(found).format for found in find_files([path])] == ["edf", "csv"]
    assert read(f"{path}#1").id == "one"
    with pytest.raises(ReadError, match=r"no such file in the archive \(it holds two\.edf"):
        read(path / "three.edf")
    with pytest.raises(ReadError, match="a file of one recording"):
        read(path / "two.edf" / "inner")


def test_archives_in_a_folder_count_if_they_hold_recordings(tmp_path):
    data = table(tmp_path).read_bytes()
    zipped(tmp_path / "with.zip", {"a.csv": data, "b.csv": data})
    zipped(tmp_path / "without.zip", {"notes.txt": b"hello", "code.py": b"1"})
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "notes.txt.gz").write_bytes(gzip.compress(b"hello"))
    names = [path.relative_to(tmp_path).as_posix() for path in find_files([tmp_path])]
    assert names == ["packed.csv.gz", "table.csv", "with.zip/a.csv", "with.zip/b.csv"]


def test_messages_name_the_archive(tmp_path):
    path = zipped(tmp_path / "a.zip", {"one.csv": b"I,II\n1,2\n3\n"})
    with pytest.raises(ReadError, match=r"a\.zip/one\.csv: about line 3") as caught:
        read(path, fs=250, unit="mV")
    assert "anyecg-" not in str(caught.value)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"I,II\n1,2\n3\n"))
    with pytest.raises(ReadError, match=r"b\.csv\.gz: about line 3"):
        read(tmp_path / "b.csv.gz", fs=250, unit="mV")


def test_what_an_archive_may_not_be(tmp_path):
    data = table(tmp_path).read_bytes()
    inner = zipped(tmp_path / "inner.zip", {"a.csv": data}).read_bytes()
    cases = {
        "points out of it": zipped(tmp_path / "up.zip", {"../evil.csv": data}),
        "points out of it ": tarred(tmp_path / "root.tar", {"/etc/evil.csv": data}),
        "points out of it  ": zipped(tmp_path / "dos.zip", {"C:\\evil.csv": data}),
        "only archives in it": zipped(tmp_path / "nested.zip", {"inner.zip": inner}),
        "an archive in an archive": zipped(tmp_path / "hidden.zip", {"a.csv": inner}),
        "no recording among 2": zipped(tmp_path / "none.zip", {"a.txt": b"1", "b.txt": b"2"}),
        "a document or spreadsheet": zipped(tmp_path / "a.xlsx", {"[Content_Types].xml": b"", "xl/a.xml": b""}),
    }
    (tmp_path / "twice.csv.gz").write_bytes(gzip.compress(gzip.compress(data)))
    cases["an archive in an archive "] = tmp_path / "twice.csv.gz"
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    cases["a 7z archive"] = tmp_path / "a.7z"
    for message, path in cases.items():
        with pytest.raises(ReadError, match=message.strip()):
            read(path)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "secret.csv").write_text("I\n1\n2\n")
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        for kind, name in ((tarfile.SYMTYPE, "soft.csv"), (tarfile.LNKTYPE, "hard.csv"), (tarfile.FIFOTYPE, "f.csv")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.csv")
            packed.addfile(info)
    with pytest.raises(ReadError, match="no recording among 0 files"):
        read(tmp_path / "a.tar")


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1_000_000)
    zeros = bytes(6_000_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(zeros))
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(zeros))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(zeros, preset=0))
    paths = [tmp_path / f"a.csv.{suffix}" for suffix in ("gz", "bz2", "xz")]
    paths += [zipped(tmp_path / "a.zip", {"a.csv": zeros}), tarred(tmp_path / "a.tar.gz", {"a.csv": zeros})]
    lying = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = lying.rfind(mark)
        lying[at + offset : at + offset + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(bytes(lying))
    for path in [*paths, tmp_path / "lying.zip"]:
        with pytest.raises(ReadError, match=r"unpack to more|a damaged archive|no numbers"):
            read(path)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 20)
    files = {f"{i}.csv": b"1\n2\n" for i in range(21)}
    for path in (zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar.gz", files)):
        with pytest.raises(ReadError, match="more than 20 members"):
            read(path)
    monkeypatch.setattr(archive_members, "MAX_DIRECTORY_BYTES", 500)
    with pytest.raises(ReadError, match="more than 20 members"):
        read(tmp_path / "a.zip")


def test_a_tar_with_an_endless_name(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_members, "MAX_NAME_BYTES", 1000)
    path = tarred(tmp_path / "a.tar", {"x" * 5000 + ".csv": b"1\n2\n"})
    with pytest.raises(ReadError, match=r"a name of 5\d\d\d bytes"):
        read(path)


def test_an_encrypted_member(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.csv": b"1\n2\n"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ReadError, match=r"a\.zip/a\.csv: encrypted"):
        read(path, fs=250, unit="mV")


def test_damage(tmp_path):
    data = table(tmp_path).read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(data))
    paths = [tmp_path / "a.csv.gz", tmp_path / "a.csv.xz"]
    paths += [zipped(tmp_path / "a.zip", {"a.csv": data}), tarred(tmp_path / "a.tar.bz2", {"a.csv": data})]
    rng = np.random.default_rng(0)
    for path in paths:
        whole = path.read_bytes()
        for trial in range(20):
            changed = bytearray(whole[: len(whole) * trial // 10] if trial < 10 else whole)
            for at in rng.integers(0, len(whole), 4 if trial >= 10 else 0):
                changed[at] = rng.integers(0, 256)
            path.write_bytes(bytes(changed))
            try:
                read(path)
            except ReadError as error:
                assert "\n" not in str(error)


def test_an_empty_zip_is_said_to_be_one(tmp_path):
    with pytest.raises(ReadError, match="no recording among 0 files"):
        read(zipped(tmp_path / "a.zip", {}))
