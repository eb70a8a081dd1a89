"""SCP-ECG: files built after EN 1064 with an encoder of the test's own, and the C# ECG Toolkit's example."""

import binascii
import struct
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read, scp

CODES = {"I": 1, "II": 2, "V1": 3, "V2": 4, "V3": 5, "V4": 6, "V5": 7, "V6": 8}
AVM_NV = 2500


def section(number: int, body: bytes, version: int = 20) -> bytes:
    """Return a section with its header and CRC (5.2.7), of an even number of bytes."""
    body += b"\0" * (len(body) % 2)
    rest = struct.pack("<HIBB6x", number, 16 + len(body), version, version) + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def assemble(folder: Path, bodies: dict[int, bytes], version: int = 20) -> Path:
    """Return a file of the sections, with pointers to all twelve (5.3)."""
    sections = {number: section(number, body, version) for number, body in bodies.items()}
    at = 6 + 16 + 120
    pointers = b""
    for number in range(12):
        data = sections.get(number, b"")
        pointers += struct.pack(
            "<HII", number, 136 if number == 0 else len(data), 7 if number == 0 else at + 1 if data else 0
        )
        at += 0 if number == 0 else len(data)
    zero = bytearray(section(0, pointers, version))
    zero[10:16] = b"SCPECG"
    zero[:2] = struct.pack("<H", binascii.crc_hqx(bytes(zero[2:]), 0xFFFF))
    rest = bytes(zero) + b"".join(sections[number] for number in sorted(sections))
    rest = struct.pack("<I", 6 + len(rest)) + rest
    path = folder / "rec.scp"
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest)
    return path


def default_bits(value: int) -> str:
    """Return the default code of a value (annex C): ones, a zero and a sign, or 8 or 16 bits as they are."""
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("1" if value < 0 else "0")
    if -128 <= value <= 127:
        return "1111111110" + f"{value & 0xFF:08b}"
    return "1111111111" + f"{value & 0xFFFF:016b}"


def packed(bits: str) -> bytes:
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def differences(values: np.ndarray, order: int) -> np.ndarray:
    """Return what is stored: the first ``order`` samples as they are, then differences."""
    return np.concatenate([values[:order], np.diff(values, n=order)]) if order else values


def rhythm(
    rows: list[np.ndarray], order: int, encode, *, number: int = 6, interval: int = 2000, bimodal: int = 0
) -> bytes:
    chunks = [encode(differences(row, order)) for row in rows]
    chunks = [chunk + b"\0" * (len(chunk) % 2) for chunk in chunks]
    head = struct.pack("<HHBB", AVM_NV, interval, order, bimodal)
    return head + b"".join(struct.pack("<H", len(c)) for c in chunks) + b"".join(chunks)


def huffman(values: np.ndarray) -> bytes:
    return packed("".join(default_bits(int(v)) for v in values))


def plain(values: np.ndarray) -> bytes:
    return values.astype("<i2").tobytes()


def leads_of(names: tuple[str, ...], n: int, flags: int = 4, start: int = 1) -> bytes:
    return bytes([len(names), flags | len(names) << 3 & 0xF8]) + b"".join(
        struct.pack("<IIB", start, start + n - 1, CODES[name]) for name in names
    )


DEFAULT = struct.pack("<H", 19999)
TWO = ("I", "V1")


def counts(n: int = 1000, n_leads: int = 2) -> list[np.ndarray]:
    """Return something like an ECG in units of 2.5 uV: beats at 200, 500, 800 ... over a wander."""
    t = np.arange(n)
    beat = sum(np.exp(-(((t - at) / 8) ** 2)) for at in range(200, n, 300))
    rng = np.random.default_rng(0)
    return [
        np.round(300 * (1 + i) * beat + 40 * np.sin(t / 60) + rng.normal(0, 2, n)).astype(int) for i in range(n_leads)
    ]


def check(path: Path, rows: list[np.ndarray], fs: float = 500) -> None:
    record = read(path)
    assert (record.format, record.fs, record.gain_known) == ("scp", fs, True)
    np.testing.assert_allclose(record.signal, np.array(rows) * AVM_NV * 1e-6, atol=1e-6)
    part = read(path, start_s=0.5, end_s=1)
    np.testing.assert_array_equal(part.signal, record.signal[:, round(0.5 * fs) : round(fs)])


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coded", [True, False])
def test_default_table_and_differences(tmp_path, order, coded):
    rows = counts()
    bodies = {3: leads_of(TWO, 1000), 6: rhythm(rows, order, huffman if coded else plain)}
    check(assemble(tmp_path, {2: DEFAULT, **bodies} if coded else bodies), rows)


@pytest.mark.parametrize("version", [10, 13, 20, 30])
def test_versions(tmp_path, version):
    rows = counts()
    path = assemble(tmp_path, {3: leads_of(TWO, 1000), 6: rhythm(rows, 1, plain)}, version)
    check(path, rows)
    assert read(path).warnings == ()


def table(codes: list[tuple[int, int, int, int, str]]) -> bytes:
    """Return a table of (prefix bits, total bits, mode, value, prefix); the prefix's first bit is stored lowest."""
    body = struct.pack("<H", len(codes))
    for prefix_bits, total, mode, value, bits in codes:
        body += struct.pack("<BBBhI", prefix_bits, total, mode, value, int(bits[::-1], 2))
    return body


def test_own_tables_that_switch(tmp_path):
    """Table 1 has short codes of 0, 1 and -1; 110 leads to table 2, of 16-bit values, whose 0 leads back."""
    first = table(
        [(1, 1, 1, 0, "0"), (2, 2, 1, 1, "10"), (4, 4, 1, -1, "1110"), (3, 3, 0, 2, "110"), (4, 12, 1, 100, "1111")]
    )
    second = table([(1, 17, 1, 0, "1"), (1, 1, 0, 1, "0")])

    def encode(values: np.ndarray) -> bytes:
        bits = ""
        for v in map(int, values):
            if v in (0, 1, -1):
                bits += {0: "0", 1: "10", -1: "1110"}[v]
            elif -28 <= v <= 227:  # 100 and a signed byte
                bits += "1111" + f"{(v - 100) & 0xFF:08b}"
            else:
                bits += "110" + "1" + f"{v & 0xFFFF:016b}" + "0"
        return packed(bits)

    rows = counts()
    body = {2: struct.pack("<H", 2) + first + second, 3: leads_of(TWO, 1000), 6: rhythm(rows, 2, encode)}
    check(assemble(tmp_path, body), rows)


ZONES = [(0, 180, 201, 230), (1, 480, 501, 530), (0, 780, 801, 830)]
"""Type, first sample, fiducial point and last sample; the second beat is of another type, so nothing was subtracted."""
PROTECTED = [(161, 240), (461, 540), (761, 840)]


def section4(fiducial: int = 101, ms: int = 400) -> bytes:
    body = struct.pack("<HHH", ms, fiducial, len(ZONES)) + b"".join(struct.pack("<HIII", *zone) for zone in ZONES)
    return body + b"".join(struct.pack("<II", *zone) for zone in PROTECTED)


def subtracted(rows: list[np.ndarray], beats: list[np.ndarray], fiducial: int) -> list[np.ndarray]:
    rest = [row.copy() for row in rows]
    for row, beat in zip(rest, beats, strict=True):
        for kind, first, at, last in ZONES:
            if kind == 0:
                begin = first - at + fiducial - 1
                row[first - 1 : last] -= beat[begin : begin + last - first + 1]
    return rest


def test_reference_beat(tmp_path):
    rows = counts()
    beats = [np.round(300 * (1 + i) * np.exp(-(((np.arange(200) - 100) / 8) ** 2))).astype(int) for i in range(2)]
    rest = subtracted(rows, beats, 101)
    assert max(np.abs(r).max() for r in rest) > 200, "the second beat is still there"
    bodies = {2: DEFAULT, 3: leads_of(TWO, 1000, flags=5), 4: section4(), 5: rhythm(beats, 1, huffman, number=5)}
    path = assemble(tmp_path, {**bodies, 6: rhythm(rest, 2, huffman)})
    check(path, rows)
    np.testing.assert_allclose(read(path).signal, ecgdatakits(path, TWO), atol=1e-6)


def test_bimodal_residuals(tmp_path):
    """Outside the protected zones one sample in four is stored, the mean of the four; the zones are exact."""
    t = np.arange(1000)
    beats = [np.round(300 * (1 + i) * np.exp(-(((np.arange(200) - 100) / 8) ** 2))).astype(int) for i in range(2)]
    slow = [np.round(40 * np.sin(t / 60) + 5 * i).astype(int) for i in range(2)]
    rows = [row + 0 for row in slow]
    for row, beat in zip(rows, beats, strict=True):
        for kind, first, at, last in ZONES:
            if kind == 0:
                row[first - 1 : last] += beat[first - at + 100 : last - at + 101]
    rest = subtracted(rows, beats, 101)
    stored = []
    for row in rest:
        values, at = [], 0
        while at < 1000:
            if any(first - 1 <= at < last for first, last in PROTECTED):
                values.append(row[at])
                at += 1
            else:
                values.append(round(row[at : at + 4].mean()))
                at += 4
        stored.append(np.array(values))
    assert len(stored[0]) == 240 + 190
    bodies = {2: DEFAULT, 3: leads_of(TWO, 1000, flags=5), 4: section4(), 5: rhythm(beats, 1, huffman, number=5)}
    path = assemble(tmp_path, {**bodies, 6: rhythm(stored, 2, huffman, interval=8000, bimodal=1)})
    record = read(path)
    assert (record.fs, record.n_samples) == (500, 1000)
    expected = np.array(rows) * AVM_NV * 1e-6
    for first, last in PROTECTED:
        np.testing.assert_allclose(record.signal[:, first - 1 : last], expected[:, first - 1 : last], atol=1e-6)
    assert np.abs(record.signal - expected).max() < 2 * AVM_NV * 1e-6


def test_eight_leads_become_twelve_and_late_leads_wait(tmp_path):
    rows = counts(600, 8)
    names = tuple(CODES)
    record = read(assemble(tmp_path, {3: leads_of(names, 600), 6: rhythm(rows, 0, plain)}))
    assert record.derived == {"III", "aVR", "aVL", "aVF"}
    late = bytes([2, 0]) + struct.pack("<IIB", 1, 600, 1) + struct.pack("<IIB", 101, 700, 3)
    record = read(assemble(tmp_path, {3: late, 6: rhythm(rows[:2], 0, plain)}))
    assert record.n_samples == 700
    assert np.isnan(record.signal[1, :100]).all()
    np.testing.assert_allclose(record.signal[1, 100:], rows[1] * AVM_NV * 1e-6, atol=1e-6)
    assert np.isnan(record.signal[0, 600:]).all()


def test_person_and_time(tmp_path):
    tags = b""
    for number, value in (
        (0, b"Somebody\0"),
        (4, struct.pack("<HB", 18, 2)),
        (7, struct.pack("<HB", 9500, 2)),
        (8, b"\2"),
        (25, struct.pack("<HBB", 2021, 3, 4)),
        (26, bytes([5, 6, 7])),
        (255, b""),
    ):
        tags += struct.pack("<BH", number, len(value)) + value
    rows = counts()
    record = read(assemble(tmp_path, {1: tags, 3: leads_of(TWO, 1000), 6: rhythm(rows, 0, plain)}))
    assert (record.age, record.sex, record.weight_kg) == (1.5, "female", 9.5)
    assert record.start_time == datetime(2021, 3, 4, 5, 6, 7)
    assert "Somebody" not in repr(record)


def test_what_bends_the_standard_is_read_and_said(tmp_path):
    rows = counts()
    path = assemble(tmp_path, {2: DEFAULT, 3: leads_of(TWO, 1000), 6: rhythm(rows, 2, huffman)})
    data = bytearray(path.read_bytes())
    whole = scp.read(path, None, None, None, None)
    assert whole.warnings == ()
    damaged = bytearray(data)
    damaged[:2] = b"\0\0"
    path.write_bytes(damaged + b"\0\0\0\0")  # a wrong CRC, and bytes after the end
    record = scp.read(path, None, None, None, None)
    np.testing.assert_array_equal(record.signal, whole.signal)
    assert "the file has" in record.warnings[0] and "the checksum differs" in record.warnings[1]
    path.write_bytes(data[: len(data) - 300])  # the second lead's end is missing
    record = scp.read(path, None, None, None, None)
    np.testing.assert_array_equal(record.signal[0], whole.signal[0])
    recorded = np.isfinite(record.signal[1])
    assert 100 < recorded.sum() < 1000
    np.testing.assert_array_equal(record.signal[1][recorded], whole.signal[1][recorded])
    assert any("section 6 ends early" in warning and "V1" in warning for warning in record.warnings)


@pytest.mark.parametrize("length", [35, 60, 150, 170, 190, 210])
def test_cut_short_files(tmp_path, length):
    path = assemble(tmp_path, {2: DEFAULT, 3: leads_of(TWO, 1000), 6: rhythm(counts(), 2, huffman)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ReadError):
        read(path)


@pytest.mark.parametrize("second", [(1, 2**32 - 1), (2**32 - 1000, 2**32 - 1)])
def test_claims_beyond_memory(tmp_path, second):
    body = bytes([2, 0]) + struct.pack("<IIB", 1, 1000, 1) + struct.pack("<IIB", *second, 3)
    with pytest.raises(ReadError, match="claims"):
        read(assemble(tmp_path, {3: body, 6: rhythm(counts(), 0, plain)}))


def ecgdatakits(path: Path, leads: tuple[str, ...]) -> np.ndarray:
    """Return mV of some leads as ecgdatakit reads them."""
    from ecgdatakit import FileParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = FileParser.parse(path, auto_scale=False)
    rows = {lead.label: lead.samples * lead.resolution for lead in parsed.leads}
    return np.array([rows[name] for name in leads]) * 1e-3


@pytest.mark.data
def test_the_toolkits_example_as_ecgdatakit_reads_it(formats_folder):
    path = formats_folder / "ecgtoolkit" / "Example.scp"
    record = read(path)
    np.testing.assert_allclose(record.signal, ecgdatakits(path, record.leads), atol=1e-6)
    assert record.warnings == ()
