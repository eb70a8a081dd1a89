"""ISHNE, MFER, Mortara, and what is said of formats that state no scale."""

import base64
import binascii
import struct
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import extent, read, stretches
from anyecg.readers.vendors import ishne

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(n_leads: int, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(-300, 300, (n_leads, n))


def write_ishne(folder: Path, counts: np.ndarray, comment: bytes = b"", nanovolts: int = 2500) -> Path:
    """Write a file after Badilini 1998, table 1."""
    head = bytearray(512)
    at_data = 522 + len(comment)
    struct.pack_into("<4i", head, 0, len(comment), counts.shape[1], 522, at_data)
    struct.pack_into("<h", head, 118, 2)
    struct.pack_into("<3h", head, 122, 3, 2, 1950)
    struct.pack_into("<3h", head, 128, 4, 5, 2010)
    struct.pack_into("<3h", head, 140, 23, 59, 58)
    struct.pack_into("<h", head, 146, len(counts))
    for i in range(12):
        struct.pack_into("<h", head, 148 + 2 * i, 5 + i if i < len(counts) else -9)
        struct.pack_into("<h", head, 196 + 2 * i, nanovolts if i < len(counts) else -9)
    struct.pack_into("<h", head, 262, 200)
    body = bytes(head) + comment
    crc = struct.pack("<H", binascii.crc_hqx(body, 0xFFFF))
    path = folder / "holter.ecg"
    path.write_bytes(b"ISHNE1.0" + crc + body + counts.T.astype("<i2").tobytes())
    return path


def test_ishne_slices_time_and_person(tmp_path):
    counts = counts_of(3)
    counts[1, 250:300] = -32768
    path = write_ishne(tmp_path, counts, comment=b"two words")
    record = ishne.read(path, None, None, None, None)
    assert (record.fs, record.leads, record.age, record.sex) == (200, ("I", "II", "III"), 60, "female")
    np.testing.assert_allclose(record.signal, np.where(counts == -32768, np.nan, counts * 2.5e-3), rtol=1e-6)
    assert record.warnings == ("50 samples of -32768 (lead off) are taken as not recorded",)
    part = ishne.read(path, 1.2, 3, None, None)
    np.testing.assert_array_equal(part.signal, record.signal[:, 240:600])
    assert part.start_time == datetime(2010, 5, 4, 23, 59, 59, 200000)


def test_ishne_agrees_with_ecgdatakit(tmp_path):
    from ecgdatakit import FileParser

    path = write_ishne(tmp_path, counts_of(12))
    with pytest.warns(UserWarning):
        parsed = FileParser.parse(path, auto_scale=False)
    record = ishne.read(path, None, None, None, None)
    theirs = [lead.samples * lead.resolution * 1e-3 for lead in parsed.leads]
    np.testing.assert_allclose(record.signal, theirs, rtol=1e-6)
    assert record.leads == tuple(lead.label for lead in parsed.leads)


def test_ishne_that_bends_the_standard(tmp_path):
    counts = counts_of(2)
    path = write_ishne(tmp_path, counts, comment=b"abcd")
    data = bytearray(path.read_bytes())
    data[8:10] = b"\1\2"
    struct.pack_into("<i", data, 22, 999)
    path.write_bytes(data[:-6])
    record = ishne.read(path, None, None, None, None)
    assert record.n_samples == 998
    assert [w.split()[0:3] for w in record.warnings] == [
        ["the", "checksum", "of"],
        ["the", "samples", "should"],
        ["the", "file", "has"],
    ]
    no_scale = write_ishne(tmp_path, counts, nanovolts=0)
    assert not read(no_scale).gain_known
    assert read(no_scale, unit="uV").gain_known
    for length in (9, 100, 521):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError):
            read(path)


def tag(number: int, value: bytes) -> bytes:
    return (
        bytes([number, len(value)]) + value
        if len(value) < 128
        else bytes([number, 0x84]) + struct.pack(">I", len(value)) + value
    )


def write_mfer(folder: Path, frames: list[np.ndarray], pointers: list[int], *, little: bool = False) -> Path:
    """Write frames of two leads at 250 Hz, 1.25 uV a unit, after ISO 22077-1; 0x8000 stands for no sample."""
    order = "<" if little else ">"
    body = tag(0x40, b"MFR ECG01") + tag(0x01, b"\1" if little else b"\0")
    body += tag(0x0B, b"\0\0" + struct.pack(order + "i", 250))  # MWF_IVL: Hz, 10^0
    body += tag(0x0C, b"\0" + struct.pack("b", -8) + struct.pack(order + "h", 125))  # MWF_SEN: V, 10^-8
    body += tag(0x12, struct.pack(order + "H", 0x8000)) + tag(0x05, struct.pack("B", 2))
    for i, code in enumerate((1, 3)):  # lead I, V1
        body += bytes([0x3F, i]) + bytes([4]) + tag(0x09, struct.pack(order + "H", code))
    for frame, pointer in zip(frames, pointers, strict=True):
        body += tag(0x07, struct.pack(order + "i", pointer))
        body += tag(0x04, struct.pack(order + "I", frame.shape[1])) + tag(0x06, struct.pack(order + "I", 1))
        body += tag(0x1E, frame.astype(order + "i2").tobytes())  # a block of one lead, then of the other
    path = folder / "rec.mwf"
    path.write_bytes(body + b"\x80\x00")
    return path


@pytest.mark.parametrize("little", [False, True])
def test_mfer(tmp_path, little):
    counts = counts_of(2)
    counts[0, 10:20] = -32768
    record = read(write_mfer(tmp_path, [counts], [0], little=little))
    assert (record.format, record.fs, record.leads) == ("mfer", 250, ("I", "V1"))
    np.testing.assert_allclose(record.signal, np.where(counts == -32768, np.nan, counts * 1.25e-3), rtol=1e-5)


@pytest.mark.parametrize("little", [False, True])
@pytest.mark.parametrize("n_blocks", [1, 4])
def test_a_part_of_mfer_is_that_part_of_the_whole(tmp_path, monkeypatch, little: bool, n_blocks: int) -> None:
    """The part is read as a small file: what ecgdatakit is given has no more samples than were asked for."""
    from ecgdatakit import FileParser

    counts = counts_of(2, 4000)
    counts[1, 1490:1510] = -32768
    frames = np.split(counts, n_blocks, axis=1)
    path = write_mfer(tmp_path, frames, [i * 4000 // n_blocks for i in range(n_blocks)], little=little)
    whole = read(path)
    monkeypatch.setattr(sys.modules["anyecg.readers.stretches"], "SMALL_BYTES", 0)
    parsed = []
    real = FileParser.parse
    monkeypatch.setattr(FileParser, "parse", lambda p, **k: parsed.append(Path(p).stat().st_size) or real(p, **k))
    for start_s, end_s in ((0.0, 1.0), (3.5, 8.4), (5.9, 6.1), (15.0, 16.0)):
        part = read(path, start_s=start_s, end_s=end_s)
        first, last = round(start_s * 250), round(end_s * 250)
        np.testing.assert_array_equal(part.signal, whole.signal[:, first:last])
        assert (part.start_s, part.id, part.leads) == (start_s, whole.id, whole.leads)
        assert parsed[-1] < 4 * (last - first) + 200
    joined = np.concatenate([r.signal for r in stretches(path, stretch_s=1.7)], axis=1)
    np.testing.assert_array_equal(joined, whole.signal)
    assert max(parsed) < 4 * 5 * 250
    assert extent(path).n_samples == 4000
    with pytest.raises(ReadError, match=r"rec\.mwf: the record ends at 16\.000 s"):
        read(path, start_s=20.0)


def test_a_part_of_mfer_with_gaps_is_cut_from_the_whole(tmp_path) -> None:
    counts = counts_of(2, 600)
    path = write_mfer(tmp_path, [counts[:, :200], counts[:, 200:]], [0, 1000])
    part = read(path, start_s=0.4, end_s=4.4)
    np.testing.assert_array_equal(part.signal, read(path).signal[:, 100:1100])
    assert extent(path).n_samples == 1400


def test_ishne_in_stretches(tmp_path) -> None:
    path = write_ishne(tmp_path, counts_of(3, 5000))
    found = list(stretches(path, stretch_s=7))
    assert [r.start_s for r in found] == [0, 7, 14, 21]
    np.testing.assert_array_equal(np.concatenate([r.signal for r in found], axis=1), read(path).signal)
    assert (extent(path).n_samples, extent(path).fs) == (5000, 200)


def test_mfer_frames_lie_where_their_pointers_say(tmp_path):
    counts = counts_of(2, 600)
    frames = [counts[:, :200], counts[:, 200:400], counts[:, 400:]]
    record = read(write_mfer(tmp_path, frames, [0, 200, 1000]))
    assert record.n_samples == 1200
    np.testing.assert_allclose(record.signal[:, :400], counts[:, :400] * 1.25e-3, rtol=1e-5)
    assert np.isnan(record.signal[:, 400:1000]).all()
    np.testing.assert_allclose(record.signal[:, 1000:], counts[:, 400:] * 1.25e-3, rtol=1e-5)
    assert any("600 samples between them" in warning for warning in record.warnings)
    with pytest.raises(ReadError, match="claims"):
        read(write_mfer(tmp_path, frames, [0, 200, 2_000_000_000]))


def test_mortara(tmp_path):
    """The structure is that of load_elixml.m of github.com/BIVectors/BRAVEHEART."""
    counts = counts_of(8)
    names = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    leads = "".join(
        f'<CHANNEL OFFSET="0" BITS="16" FORMAT="SIGNED" UNITS_PER_MV="400" DURATION="1000" SAMPLE_FREQ="500" '
        f'NAME="{n}" ENCODING="BASE64" DATA="{base64.b64encode(r.astype("<i2").tobytes()).decode()}"/>'
        for n, r in zip(names, counts, strict=True)
    )
    path = tmp_path / "eli.xml"
    path.write_text(
        '<?xml version="1.0"?><ECG ACQUISITION_TIME="20140203040506" NUM_QRS="12" VENT_RATE="75">'
        '<SOURCE TYPE="EL250" MANUFACTURER="Mortara Instrument, Inc."/>'
        '<SUBJECT LAST_NAME="Somebody" AGE="44" GENDER="Male"/>'
        '<TYPICAL_CYCLE BITS="16" FORMAT="SIGNED" UNITS_PER_MV="400" DURATION="3" SAMPLE_FREQ="500" ENCODING="BASE64">'
        f'<TYPICAL_CYCLE_CHANNEL NAME="I" DATA="{base64.b64encode(bytes(6)).decode()}"/></TYPICAL_CYCLE>{leads}</ECG>'
    )
    record = read(path)
    assert (record.format, record.fs, record.leads) == ("mortara", 500, STANDARD)
    np.testing.assert_allclose(record.signal[[0, 1, *range(6, 12)]], counts / 400, rtol=1e-5)
    assert "Somebody" not in repr(record)
    assert any("median beats" in warning for warning in record.warnings)


def test_xle_says_that_scale_and_rate_are_assumed(tmp_path):
    text = bytearray(0x40000)
    for label, at in (
        ("Given name", 2673), ("Family name", 2712), ("ID", 2761), ("Birth Date", 2793),
        ("Sex", 2840), ("History", 2876), ("Comment", 2916),
    ):  # fmt: skip
        text[at : at + len(label) + 1] = f"{label}:".encode()
    swapped = bytearray(text)
    swapped[0::2], swapped[1::2] = text[1::2], text[0::2]
    counts = counts_of(8, 500)
    path = tmp_path / "rec.xle"
    path.write_bytes(bytes(swapped) + counts.T.astype("<i2").tobytes())
    record = read(path)
    assert record.format == "xle"
    assert not record.gain_known
    assert any("states no scale" in warning for warning in record.warnings)
    assert any("1000 Hz is assumed" in warning for warning in record.warnings)
    assert read(path, fs=500).fs == 500, "the user knows better"
