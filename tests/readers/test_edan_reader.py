"""EDAN SE-2012: files made after paulbourke.net/dataformats/edan, since no real recording was at hand."""

import struct
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
START = 1_600_000_000


def recording(folder: Path, counts: np.ndarray, hz: int = 256) -> Path:
    """Write a header of 3672 bytes and, beside it, unsigned counts around 16384 of all leads in turn."""
    head = bytearray(3672)
    struct.pack_into("<II", head, 4, START, START + counts.shape[1] // hz)
    head[12] = len(counts)
    struct.pack_into("<h", head, 32, hz)
    for i, lead in enumerate(LEADS[: len(counts)]):
        head[1796 + 8 * i : 1796 + 8 * i + len(lead)] = lead.encode()
    (folder / "patient.hea").write_bytes(bytes(head))
    (folder / "ecgraw.dat").write_bytes((counts.T + 16384).astype("<u2").tobytes())
    return folder / "patient.hea"


def counts(n: int = 5120) -> np.ndarray:
    t = np.arange(n) / 256
    beat = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2)) + 0.1 * np.sin(t)
    return np.round(200 * np.linspace(0.3, 1.5, 12)[:, None] * beat).astype(int)


@pytest.mark.parametrize("name", ["patient.hea", "ecgraw.dat"])
def test_a_recording_without_a_scale(tmp_path, name):
    stored = counts()
    record = read(recording(tmp_path, stored).with_name(name))
    assert (record.format, record.fs, record.leads) == ("edan", 256, LEADS)
    assert not record.gain_known
    np.testing.assert_allclose(record.signal, stored * 1e-3, atol=1e-6)
    assert record.start_time is not None and record.start_time.isoformat() == "2020-09-13T12:26:40"
    assert any("no scale in the file" in warning for warning in record.warnings)
    assert read(tmp_path / name, unit="uV").gain_known


def test_samples_without_their_header(tmp_path):
    recording(tmp_path, counts()).unlink()
    with pytest.raises(ReadError, match=r"ecgraw\.hea"):
        read(tmp_path / "ecgraw.dat")
