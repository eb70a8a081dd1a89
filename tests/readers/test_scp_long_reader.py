"""The long-term section of SCP-ECG version 3: files built after BioSig's writer, since no real one was at hand."""

import binascii
import struct
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read

CODES = {"I": 1, "II": 2, "V1": 3}
NANOVOLTS = (2500, 1000, 500)


def section(number: int, body: bytes, reserved: bytes = bytes(6)) -> bytes:
    body += b"\0" * (len(body) % 2)
    rest = struct.pack("<HIBB6s", number, 16 + len(body), 30, 30, reserved) + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def assemble(path: Path, bodies: dict[int, bytes]) -> Path:
    """Write the sections behind a section 0 that lists 0 to 12."""
    sections = {number: section(number, body) for number, body in bodies.items()}
    at = 6 + 16 + 130
    pointers = struct.pack("<HII", 0, 146, 7)
    for number in range(1, 13):
        length = len(sections.get(number, b""))
        pointers += struct.pack("<HII", number, length, at + 1 if length else 0)
        at += length
    content = section(0, pointers, b"SCPECG") + b"".join(sections[number] for number in sorted(sections))
    rest = struct.pack("<I", 6 + len(content)) + content
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest)
    return path


def long_term(
    counts: np.ndarray, n_bytes: int, *, hz: int = 250, blocks: bytes = b"", said: int | None = None
) -> bytes:
    head = bytearray(70)
    struct.pack_into("<IBIB", head, 0, hz, len(counts), counts.shape[1] if said is None else said, n_bytes)
    struct.pack_into("<HBBBBB", head, 10, 2024, 2, 29, 23, 58, 1)
    struct.pack_into("<II", head, 62, len(blocks) // 2, len(blocks) - len(blocks) // 2)
    leads = b"".join(struct.pack("<BHB", code, nv, 0) for code, nv in zip(CODES.values(), NANOVOLTS, strict=True))
    samples = counts.T.astype("<i4").reshape(-1, 1).view("u1").reshape(-1, 4)[:, :n_bytes]
    return bytes(head) + blocks + leads[: 4 * len(counts)] + samples.tobytes()


def counts(n: int = 2000, largest: int = 100) -> np.ndarray:
    beat = np.exp(-((((np.arange(n) % 200) - 80) / 5) ** 2))
    noise = np.random.default_rng(0).normal(0, 0.02, (3, n))
    return np.round(largest * (np.array([[0.5], [1.0], [-0.7]]) * beat + noise)).astype(int)


@pytest.mark.parametrize(("n_bytes", "largest"), [(1, 100), (2, 3000), (3, 3000), (4, 3000)])
def test_all_sizes_of_samples(tmp_path, n_bytes, largest):
    stored = counts(largest=largest)
    path = assemble(tmp_path / "day.scp", {1: b"\x08\x01\x00\x02\xff\0\0", 12: long_term(stored, n_bytes)})
    record = read(path)
    assert (record.format, record.fs, record.leads, record.sex) == ("scp", 250, tuple(CODES), "female")
    np.testing.assert_allclose(record.signal, stored * np.array(NANOVOLTS)[:, None] * 1e-6, rtol=1e-6)
    assert record.start_time == datetime(2024, 2, 29, 23, 58, 1)
    part = read(path, start_s=4, end_s=6)
    np.testing.assert_array_equal(part.signal, record.signal[:, 1000:1500])
    assert part.start_time == datetime(2024, 2, 29, 23, 58, 5)


def test_blocks_before_the_leads_and_a_lead_off(tmp_path):
    stored = counts(largest=3000)
    stored[1, 500:600] = -32768
    path = assemble(tmp_path / "day.scp", {12: long_term(stored, 2, blocks=b"a filter and a comment")})
    signal = read(path).signal
    assert np.flatnonzero(np.isnan(signal).any(axis=0)).tolist() == [*range(500, 600)]
    np.testing.assert_allclose(signal[0], stored[0] * 2.5e-3, rtol=1e-6)


def test_what_is_cut_short_or_damaged(tmp_path):
    stored = counts()
    record = read(assemble(tmp_path / "a.scp", {12: long_term(stored, 1, said=5000)}))
    assert record.n_samples == 2000
    assert any("2000 of its 5000 samples" in warning for warning in record.warnings)
    whole = long_term(stored, 1)
    for body, message in (
        (whole[:60], "section 12 of 60 bytes"),
        (whole[:80], "section 12 of 3 leads"),
        (whole[:9] + b"\7" + whole[10:], "7 bytes a sample"),
        (whole[:4] + b"\0" + whole[5:], "0 leads"),
        (whole[:62] + b"\xff" * 8 + whole[70:], "begin at byte"),
        (long_term(stored, 1, said=0), "without samples"),
        (long_term(stored, 1, hz=0), "sampling rate is 0"),
        (whole[:71] + b"\0\0" + whole[73:], "no scale of I"),
    ):
        with pytest.raises(ReadError, match=message):
            read(assemble(tmp_path / "b.scp", {12: body}))
