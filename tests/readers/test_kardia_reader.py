"""ATC files, built here from AliveCor's specification, block by block."""

import struct
import zlib

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.record import Annotation

COUNTS = np.random.default_rng(0).integers(-2000, 2000, (12, 900)).astype("<i2")
NAMES = ("ecg ", "ecg2", "ecg3", "ecg4", "ecg5", "ecg6", "ecg7", "ecg8", "ecg9", "ecga", "ecgb", "ecgc")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def block(name: str, data: bytes, crc: bool = False) -> bytes:
    whole = name.encode() + struct.pack("<I", len(data)) + data
    return whole + struct.pack("<I", zlib.crc32(whole) if crc else sum(whole))


def atc(n_leads: int = 1, crc: bool = False, hz: int = 300, nanovolts: int = 500, beats=((300, 1), (600, 2))) -> bytes:
    info = b"2020-05-04T03:02:01.250+10:00".ljust(32, b"\0") + b"58E0A7D7".ljust(40, b"\0") + bytes(192)
    blocks = [
        block("info", info, crc),
        block("fmt ", struct.pack("<BHHBH", 1, hz, nanovolts, 14, 0), crc),
        *(block(NAMES[i], COUNTS[i].tobytes(), crc) for i in range(n_leads)),
        block("avg ", COUNTS[0, :450].tobytes(), crc),
        block("ann ", struct.pack("<I", 300) + b"".join(struct.pack("<IH", *beat) for beat in beats), crc),
    ]
    return b"ALIVE\0\0\0" + struct.pack("<I", 4) + b"".join(blocks)


@pytest.mark.parametrize("n_leads", [1, 6, 12])
@pytest.mark.parametrize("crc", [False, True])
def test_leads_and_beats(tmp_path, n_leads, crc):
    path = tmp_path / "a.atc"
    path.write_bytes(atc(n_leads, crc))
    record = read(path)
    assert (record.format, record.fs, record.leads) == ("atc", 300, LEADS[:n_leads])
    np.testing.assert_allclose(record.signal, COUNTS[:n_leads] * 5e-4, atol=1e-6)
    assert record.start_time is not None and record.start_time.isoformat() == "2020-05-04T03:02:01.250000+10:00"
    assert record.annotations == (Annotation(1, 1, "beat", "N"), Annotation(2, 2, "beat", "V"))
    assert any("median beats" in warning for warning in record.warnings)


def test_a_slice(tmp_path):
    (tmp_path / "a.atc").write_bytes(atc(2))
    part = read(tmp_path / "a.atc", start_s=1.5, end_s=2.5)
    np.testing.assert_allclose(part.signal, COUNTS[:2, 450:750] * 5e-4, atol=1e-6)
    assert part.annotations == (Annotation(0.5, 0.5, "beat", "V"),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (atc(hz=0), "sampling rate is 0"),
        (atc(nanovolts=0), "0 nV a unit"),
        (atc(n_leads=0), "no block of samples"),
        (atc()[:-1], "ends within a block"),
        (atc()[:12], "no block 'fmt '"),
        (atc().replace(COUNTS[0, 5:9].tobytes(), b"\1\2\3\4\5\6\7\x08"), "wrong checksum"),
        (b"ALIVE\0\0\0\4\0\0\0ecg \xff\xff\xff\xff", "ends within a block"),
    ],
)
def test_damage(tmp_path, data, message):
    (tmp_path / "a.atc").write_bytes(data)
    with pytest.raises(ReadError, match=message):
        read(tmp_path / "a.atc")


def test_a_page_is_not_read_as_samples(tmp_path):
    (tmp_path / "kardia.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    with pytest.raises(ReadError, match=r"a PDF page.*\.atc"):
        read(tmp_path / "kardia.pdf")
