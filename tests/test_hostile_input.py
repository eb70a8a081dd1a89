"""Files made to harm: each ends in an AnyECGError or in a correct record, within 2 s of processor time and 512 MB.

The files are read in a process of its own, whose time and memory are measured (``tests/fuzz/worker.py``).
"""

import gzip
import importlib.util
import io
import os
import re
import socket
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anyecg
from anyecg.errors import ReadError
from anyecg.readers import find_files

_SPEC = importlib.util.spec_from_file_location("fuzz_worker", Path(__file__).parent / "fuzz" / "worker.py")
assert _SPEC is not None and _SPEC.loader is not None
fuzz_worker = importlib.util.module_from_spec(_SPEC)
sys.modules["fuzz_worker"] = fuzz_worker
_SPEC.loader.exec_module(fuzz_worker)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are measured through /proc")


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    reading = fuzz_worker.Worker()
    yield reading
    reading.close()


@pytest.fixture
def attempt(worker) -> Callable[..., str]:
    """Return a function that reads a file within the limits, and returns the reason if it was refused."""

    def read(path: Path, **arguments: object) -> str:
        outcome = worker.ask({"path": str(path), "arguments": arguments})
        assert not outcome.failed, outcome
        return "" if outcome.outcome == "read" else outcome.why

    return read


STUB = """
import sys, time
sys.path.insert(0, {folder!r})
import anyecg.readers, worker
from anyecg.errors import ReadError

def read(path):
    while path.name == "hang":
        pass
    if path.name == "wait":
        time.sleep(60)
    eaten = b"x" * 600_000_000 if path.name == "eat" else b""
    raise ReadError("refused after all" + str(len(eaten)))

anyecg.readers.read, worker.KILL_S, worker._warm_up = read, 3.0, lambda: None
worker.main(None)
"""


def test_the_limits_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that eats memory, waits for ever or never ends is a failure, and the next file is read all the same."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB.format(folder=str(Path(__file__).parent / "fuzz")))
    monkeypatch.setattr(fuzz_worker, "__file__", str(stub))
    reading = fuzz_worker.Worker()
    assert "MB" in reading.ask({"path": "eat"}).why
    assert "no answer within" in reading.ask({"path": "wait"}, wall_s=1).why
    assert reading.ask({"path": "good"}).outcome == "refused"
    assert "of processor time" in reading.ask({"path": "hang"}).why
    reading.close()


# --- WFDB headers -------------------------------------------------------------------------------------------------


def wfdb(folder: Path, header: str, data: bytes = bytes(2000)) -> Path:
    (folder / "rec.hea").write_text(header)
    (folder / "rec.dat").write_bytes(data)
    return folder / "rec.hea"


@pytest.mark.parametrize("name", ["../secret.dat", "/etc/passwd", "..", "a/../../secret.dat", "..\\secret.dat"])
def test_wfdb_path_traversal(attempt, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.dat").write_bytes(bytes(2000))
    (tmp_path / "in").mkdir()
    header = wfdb(tmp_path / "in", f"rec 1 250 100\n{name} 16 200 16 0 0 0 0 I\n")
    assert "expected one in its own folder" in attempt(header)
    segments = tmp_path / "in" / "long.hea"
    segments.write_text("long/1 1 250 100\n../secret 100\n")
    assert "inside the header's folder" in attempt(segments)


@pytest.mark.parametrize(
    "header",
    [
        "rec 1 250 2147483648\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec 1 250 99999999999999999999\nrec.dat 212 200 16 0 0 0 0 I\n",
        "rec 1 250 2147483648\nrec.dat 8 200 16 0 0 0 0 I\n",
        "rec 1 250 2147483648\nrec.dat 516 200 16 0 0 0 0 I\n",
        "rec 1 250 100\nrec.dat 16x2147483647 200 16 0 0 0 0 I\n",
        "rec 1 250 100\nrec.dat 16:2147483647 200 16 0 0 0 0 I\n",
        "rec 1 250 100\nrec.dat 16+2147483647 200 16 0 0 0 0 I\n",
        "rec 2147483648 250 100\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec/2147483648 1 250 100\nrec_0001 100\n",
        "rec/1 1 250 2147483648\n~ 2147483648\n",
        "rec/2 1 250 2147483748\nrec_0001 100\n~ 2147483648\n",
        "rec/1 1 250 100\nrec 100\n",
        "rec/2 1 250 200\nrec 100\nrec 100\n",
        "rec 1 0 100\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec 1 -250 100\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec 1 nan 100\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec 1 inf 100\nrec.dat 16 200 16 0 0 0 0 I\n",
        "rec 1 250 100\nrec.dat 16 nan 16 0 0 0 0 I\n",
        "rec 1 250 100\nrec.dat 999 200 16 0 0 0 0 I\n",
    ],
)
def test_wfdb_headers_that_lie(attempt, tmp_path: Path, header: str) -> None:
    if "rec_0001" in header:
        (tmp_path / "rec_0001.hea").write_text("rec_0001 1 250 100\nrec.dat 16 200 16 0 0 0 0 I\n")
    path = wfdb(tmp_path, header)
    if not attempt(path) and ":2147483647" not in header:  # read as far as the file goes
        assert "rec.dat is cut short: it holds" in anyecg.read(path).warnings[0], "a lie was believed"


def test_the_longest_gap_that_is_believed(attempt, tmp_path: Path) -> None:
    (tmp_path / "rec_0001.hea").write_text("rec_0001 1 250 1000\nrec.dat 16 200 16 0 0 0 0 II\n")
    assert attempt(wfdb(tmp_path, "rec/2 1 250 19991000\nrec_0001 1000\n~ 19990000\n")) == ""


def test_wfdb_segments_of_each_other(attempt, tmp_path: Path) -> None:
    (tmp_path / "a.hea").write_text("a/2 1 250 200\nb 100\nb 100\n")
    (tmp_path / "b.hea").write_text("b/1 1 250 100\na 100\n")
    assert "has segments itself" in attempt(tmp_path / "a.hea")


@pytest.mark.parametrize("gain", ["-200", "1e-300", "1e300", "0"])
def test_odd_gains(attempt, tmp_path: Path, gain: str) -> None:
    data = np.random.default_rng(0).integers(-300, 300, 1000).astype("<i2").tobytes()
    header = wfdb(tmp_path, f"rec 1 250 1000\nrec.dat 16 {gain} 16 0 0 0 0 II\n", data)
    assert attempt(header) == ""
    record = anyecg.read(header)
    assert not np.isinf(record.signal).any()
    if gain == "-200":  # a lead connected the other way round is legal: header-5, ADC gain
        assert record.signal[0] == pytest.approx(np.frombuffer(data, "<i2") / -200, abs=1e-6)


def test_names_in_any_script(attempt, tmp_path: Path) -> None:
    folder = tmp_path / "心電図 ✓ ../x".replace("/", "_")
    folder.mkdir()
    header = folder / "запись.hea"
    header.write_text(f"{header.stem} 1 250 500\n{header.stem}.dat 16 200 16 0 0 0 0 導聯\u202eII\n", encoding="utf-8")
    (folder / "запись.dat").write_bytes(bytes(range(250)) * 4)
    assert attempt(header) == ""
    assert anyecg.read(header).id == "запись"
    latin = tmp_path / "latin.hea"
    latin.write_bytes(b"latin 1 250 500\nlatin.dat 16 200 16 0 0 0 0 D\xe9rivation\n# \xff\xfe\n")
    (tmp_path / "latin.dat").write_bytes(bytes(range(250)) * 4)
    assert attempt(latin) == ""
    undecodable = os.fsencode(tmp_path) + b"/\xff\xfe.csv"
    Path(os.fsdecode(undecodable)).write_bytes(b"I [mV]\n1\n2\n3\n")
    assert attempt(Path(os.fsdecode(undecodable)), fs=250) == ""


def test_ten_thousand_leads(attempt, tmp_path: Path) -> None:
    lines = "".join(f"rec.dat 16 200 16 0 0 0 0 L{i}\n" for i in range(10_000))
    assert "signals" in attempt(wfdb(tmp_path, f"rec 10000 250 10\n{lines}", bytes(200_000)))
    names = ",".join(f"L{i} [mV]" for i in range(10_000))
    (tmp_path / "wide.csv").write_text(f"{names}\n" + ("0," * 9_999 + "0\n") * 3)
    assert attempt(tmp_path / "wide.csv", fs=250)
    np.save(tmp_path / "wide.npy", np.zeros((10_000, 10_001), np.int8))
    assert "leads" in attempt(tmp_path / "wide.npy", fs=250, unit="mV")


# --- XML ----------------------------------------------------------------------------------------------------------


def laughs() -> str:
    levels = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return f'<!DOCTYPE x [<!ENTITY l0 "ha">{levels}]>'


BOMBS = {
    "billion laughs": (laughs(), "&l9;"),
    "quadratic": (f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>', "&a;" * 10_000),
    "external": ('<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>', "&f;"),
    "parameter": ('<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]>', ""),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("root", ["RestingECG", "AnnotatedECG", "restingecgdata", "ECG"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_xml_bombs(attempt, tmp_path: Path, bomb: str, root: str, encoding: str) -> None:
    head, body = BOMBS[bomb]
    text = f'<?xml version="1.0" encoding="{encoding}"?>{head}<{root}><Waveform>{body}</Waveform></{root}>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    why = attempt(tmp_path / "a.xml")
    assert why
    assert "root:" not in why


def test_xml_nested_a_million_deep(attempt, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><RestingECG>' + "<a>" * 1_000_000)
    assert attempt(tmp_path / "a.xml")


def test_json_nested_a_million_deep(attempt, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"recordedAt": 1, "data": ' + "[" * 1_000_000)
    assert attempt(tmp_path / "a.json")


# --- what grows when it is unpacked -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20_000_000, 3_000_000_000])
def test_gzip_bomb(attempt, tmp_path: Path, size: int) -> None:
    member = gzip.compress(b"0\n" * 5_000_000)  # a gzip file may hold many members
    (tmp_path / "a.csv.gz").write_bytes(member * (size // 10_000_000))
    assert attempt(tmp_path / "a.csv.gz", fs=500, unit="mV")


def test_zip_bomb(attempt, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.csv", "w", force_zip64=True) as member:
            for _ in range(12):
                member.write(b"0\n" * 5_000_000)
    assert attempt(tmp_path / "a.zip", fs=500, unit="mV")


def test_zip_that_lies_about_its_size(attempt, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", b"0\n" * 20_000_000)
    lying = content.getvalue().replace(struct.pack("<I", 40_000_000), struct.pack("<I", 100))
    (tmp_path / "a.zip").write_bytes(lying)
    assert attempt(tmp_path / "a.zip", fs=500, unit="mV")


def test_archives_in_archives_and_paths_out_of_them(attempt, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("b.csv", "I [mV]\n1\n2\n")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("b.zip", inner.getvalue())
    assert attempt(tmp_path / "nested.zip", fs=500)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../../out.csv", "I [mV]\n1\n2\n")
        archive.writestr("/tmp/anyecg-out.csv", "I [mV]\n1\n2\n")
    attempt(tmp_path / "out.zip", fs=500)
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("rec.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "root:" not in (attempt(tmp_path / "link.tar", fs=500) or "root:")
    assert not (tmp_path.parent / "out.csv").exists()
    assert not Path("/tmp/anyecg-out.csv").exists()


def test_dicom_deflate_bomb(attempt, tmp_path: Path, dicom_file: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(dicom_file)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    group = dataset.WaveformSequence[0]
    group.WaveformData = bytes(100_000_000)
    group.NumberOfWaveformSamples = 100_000_000 // 24
    dataset.save_as(tmp_path / "a.dcm")
    assert attempt(tmp_path / "a.dcm")


# --- two thousand million samples in a kilobyte -------------------------------------------------------------------


def huge_edf(folder: Path) -> Path:
    fields = ["0".ljust(8), " " * 160, "04.05.2003.02.01", "512".ljust(8), " " * 44, "99999999", "1".ljust(8), "1   "]
    signal = ["ECG I".ljust(16), " " * 80, "mV".ljust(8), "-5".ljust(8), "5".ljust(8), "-32768".ljust(8)]
    text = "".join(fields) + "".join([*signal, "32767".ljust(8), " " * 80, "99999999", " " * 32])
    (folder / "a.edf").write_bytes(text.encode().ljust(1024, b"\0"))
    return folder / "a.edf"


def huge_npy(folder: Path) -> Path:
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2147483648), }".ljust(117) + "\n"
    (folder / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(900))
    return folder / "a.npy"


def huge_ishne(folder: Path) -> Path:
    head = bytearray(1024)
    head[:8] = b"ISHNE1.0"
    struct.pack_into("<iiii", head, 10, 0, 2**31 - 1, 522, 522)
    struct.pack_into("<h", head, 156, 12)
    struct.pack_into("<12h", head, 158, *range(5, 17))
    struct.pack_into("<12h", head, 206, *[2500] * 12)
    struct.pack_into("<h", head, 272, 1)
    (folder / "a.ecg").write_bytes(head)
    return folder / "a.ecg"


def huge_mfer(folder: Path) -> Path:
    body = b"\x40\x20" + b"MFR Standard 12 leads ECG".ljust(32) + b"\x01\x01\x01" + b"\x0b\x04\x01\xfd\x04\x00"
    body += b"\x05\x01\x0c" + b"\x04\x04\xff\xff\xff\x7f" + b"\x06\x04\xff\xff\xff\x7f" + b"\x0a\x01\x00"
    (folder / "a.mwf").write_bytes(body + b"\x1e\x84\x00\x00\x00\x64" + bytes(100))
    return folder / "a.mwf"


def huge_scp(folder: Path) -> Path:
    """Section 3 claims leads of 2**31 samples, section 6 holds a few bytes."""

    def section(number: int, body: bytes) -> bytes:
        return struct.pack("<HHIBB6x", 0, number, 16 + len(body), 20, 20) + body

    leads = bytes([12, 0]) + b"".join(struct.pack("<IIB", 1, 2**31 - 1, i + 1) for i in range(12))
    rhythm = struct.pack("<HHBB", 5000, 2000, 0, 0) + struct.pack("<12H", *[4] * 12) + bytes(48)
    bodies = {1: b"\xff\x00\x00", 2: struct.pack("<H", 19999), 3: leads, 6: rhythm}
    sections = {number: section(number, body) for number, body in bodies.items()}
    index, at = b"", 6 + 16 + 120
    for number in range(12):
        found = sections.get(number, b"")
        size = 16 + 120 if number == 0 else len(found)
        place = 7 if number == 0 else at + 1
        index += struct.pack("<HII", number, size if size else 0, place if size else 0)
        at += len(found)
    pointers = struct.pack("<HHIBB", 0, 0, 136, 20, 20) + b"SCPECG" + index
    content = pointers + b"".join(sections.values())
    (folder / "a.scp").write_bytes(struct.pack("<HI", 0, 6 + len(content)) + content)
    return folder / "a.scp"


def huge_dicom(folder: Path) -> Path:
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    for group in dataset.WaveformSequence:
        group.NumberOfWaveformSamples = 2**32 - 1
        group.WaveformData = bytes(100)
    dataset.save_as(folder / "a.dcm")
    return folder / "a.dcm"


def huge_element(folder: Path) -> Path:
    """A DICOM element that claims four gigabytes."""
    path = huge_dicom(folder)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x5400, 0x1010))
    path.write_bytes(data[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + data[at + 12 :])
    return path


def huge_mat(folder: Path) -> Path:
    (folder / "a.mat").write_bytes(struct.pack("<5I", 0, 12, 2**31 - 1, 0, 4) + b"val\0" + bytes(500))
    return folder / "a.mat"


def huge_flac(folder: Path) -> Path:
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", (250 << 44) | (15 << 36) | (2**36 - 1))
    (folder / "rec.flac").write_bytes(b"fLaC" + b"\x80\x00\x00\x22" + info + bytes(16 + 500))
    (folder / "rec.hea").write_text("rec 1 250 2147483647\nrec.flac 516 200 16 0 0 0 0 I\n")
    return folder / "rec.hea"


@pytest.mark.parametrize(
    "make",
    [
        *(huge_edf, huge_npy, huge_ishne, huge_mfer, huge_scp, huge_dicom, huge_element, huge_mat, huge_flac),
    ],
    ids=lambda make: make.__name__,
)
def test_more_samples_than_bytes(attempt, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    why = attempt(path, **({"fs": 250, "unit": "mV"} if path.suffix in (".npy", ".mat") else {}))
    # ISHNE's count is often nominal, and MFER leaves absent sequences out: there the bytes that are there are read.
    assert why or make in (huge_ishne, huge_mfer)


# --- numbers that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308", "1e999"])
def test_numbers_that_are_none(attempt, tmp_path: Path, value: str) -> None:
    (tmp_path / "a.csv").write_text("I [mV]\n" + "0.1\n0.2\n" * 500 + f"{value}\n" * 3)
    assert attempt(tmp_path / "a.csv", fs=250) == ""
    signal = anyecg.read(tmp_path / "a.csv", fs=250).signal
    assert np.isnan(signal[0, -3:]).all()
    assert np.isfinite(signal[0, :-3]).all()


# --- what is no file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null", "/dev/full", "/dev/tty"])
def test_devices(attempt, device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"no {device} here")
    assert "expected a" in attempt(Path(device))


def test_pipes_sockets_folders_and_links_in_circles(attempt, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "a pipe, a socket or a device" in attempt(tmp_path / "pipe.csv")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's path may have 107 bytes
    server.bind("sock.csv")
    os.chdir(here)
    assert "a pipe, a socket or a device" in attempt(tmp_path / "sock.csv")
    server.close()
    assert "a folder" in attempt(tmp_path)
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    assert attempt(tmp_path / "a.csv")
    (tmp_path / "to-zero.csv").symlink_to("/dev/zero")
    assert "a pipe, a socket or a device" in attempt(tmp_path / "to-zero.csv")
    (tmp_path / "rec.hea").write_text("rec 1 250 100\npipe.csv 16 200 16 0 0 0 0 I\n")
    assert attempt(tmp_path / "rec.hea")
    assert attempt(tmp_path / ("x" * 300))


def test_folders_that_lead_in_circles(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for name in ("again", "once_more"):  # two links: following them would double the work at each of 40 levels
        (tmp_path / "one" / name).symlink_to(tmp_path)
    (tmp_path / "one" / "a.csv").write_text("I [mV]\n1\n2\n")
    assert [path.name for path in find_files([tmp_path])] == ["a.csv"]
    assert [path.name for path in find_files([f"{tmp_path}/**/*.csv"])] == ["a.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("I [mV]\n1\n2\n")
    path.chmod(0)
    with pytest.raises(ReadError, match="cannot be opened"):
        anyecg.read(path, fs=250)


def test_permission_denied_as_anyone_would_see_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same for root, whom no file mode keeps out."""
    path = tmp_path / "a.csv"
    path.write_text("I [mV]\n1\n2\n")

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ReadError, match=re.escape("Permission denied")):
        anyecg.read(path, fs=250)


# --- rates that claim anything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(1, 10**9), (10**9, 2 * 10**9), (10**9, 1)])
def test_leads_of_absurd_rates(attempt, tmp_path: Path, rates: tuple[int, int]) -> None:
    """Bringing a lead of 1 Hz to a million times that must not make a million samples of each."""
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    for group, rate in zip(dataset.WaveformSequence, rates, strict=True):
        group.SamplingFrequency = str(rate)
        group.WaveformOriginality = "ORIGINAL"
    dataset.WaveformSequence[1].MultiplexGroupTimeOffset = "3000000"
    dataset.save_as(tmp_path / "a.dcm")
    why = attempt(tmp_path / "a.dcm")
    assert "the header claims" in why or rates[0] > rates[1]  # there the leads of the longer group are read alone
    slow, fast = sorted(rates)
    lines = f"rec.dat 16x1 200 16 0 0 0 0 I\nrec.dat 16x{fast // slow} 200 16 0 0 0 0 II\n"
    attempt(wfdb(tmp_path, f"rec 2 {slow} 1\n{lines}"))
