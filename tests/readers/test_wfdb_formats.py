"""WFDB signal formats, written bit by bit after signal-5, and read as wfdb reads them where wfdb is right."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers.wfdb import files

BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 10, 311: 10}


def encode(counts: np.ndarray, fmt: int, n_signals: int = 1) -> bytes:
    """Return counts in file order as https://physionet.org/physiotools/wag/signal-5.htm describes each format."""
    counts = np.asarray(counts, dtype=np.int64)
    if fmt == 8:  # first differences of each signal
        frames = counts.reshape(-1, n_signals)
        return np.diff(frames, axis=0, prepend=np.zeros((1, n_signals), dtype=np.int64)).astype("i1").tobytes()
    if fmt in (16, 32, 61):
        return counts.astype({16: "<i2", 32: "<i4", 61: ">i2"}[fmt]).tobytes()
    if fmt in (80, 160):  # offset binary
        return (counts + 2 ** (BITS[fmt] - 1)).astype({80: "u1", 160: "<u2"}[fmt]).tobytes()
    if fmt == 24:
        return counts.astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    out = bytearray()
    group = 2 if fmt == 212 else 3
    for i in range(0, len(counts), group):
        a, b, c = [int(v) & (2 ** BITS[fmt] - 1) for v in [*counts[i : i + group], 0, 0][:3]]
        if fmt == 212:
            out += bytes([a & 255, (a >> 8) | (b >> 8) << 4, b & 255])
        elif fmt == 310:  # two little-endian words of 1 + 10 bits, the third sample in the 5 high bits of both
            out += (a << 1 | (c & 31) << 11).to_bytes(2, "little") + (b << 1 | (c >> 5) << 11).to_bytes(2, "little")
        else:  # 311: thirty bits of one little-endian word
            out += (a | b << 10 | c << 20).to_bytes(4, "little")
    return bytes(out)


def random_counts(fmt: int, n: int, n_signals: int = 2) -> np.ndarray:
    rng = np.random.default_rng(fmt)
    if fmt == 8:
        return rng.integers(-60, 60, (n, n_signals)).cumsum(axis=0)
    limit = 2 ** (BITS[fmt] - 1)
    counts = rng.integers(1 - limit, limit, (n, n_signals))
    counts[0, 0], counts[1, 0] = limit - 1, 1 - limit
    return counts


def write(folder: Path, fmt: int, counts: np.ndarray, *, offset: int = 0, skew: tuple[int, ...] | None = None) -> Path:
    """Write a record of the counts, shape (n, n_signals), 1000 units per mV and baseline 7."""
    n_signals = counts.shape[1]
    (folder / "rec.dat").write_bytes(b"\x55" * offset + encode(counts.ravel(), fmt, n_signals))
    lines = [f"rec {n_signals} 250 {len(counts)}"]
    for i in range(n_signals):
        mark = (f":{skew[i]}" if skew else "") + (f"+{offset}" if offset else "")
        checksum = int(counts[:, i].sum()) & 0xFFFF
        checksum -= 65536 if checksum > 32767 else 0
        lines.append(f"rec.dat {fmt}{mark} 1000(7)/mV {BITS[fmt]} 0 0 {checksum} 0 {('I', 'II', 'III')[i]}")
    (folder / "rec.hea").write_text("\n".join(lines) + "\n")
    return folder / "rec.hea"


def read(path: Path, start_s: float | None = None, end_s: float | None = None):
    return files.read(path, start_s, end_s, None, None)


@pytest.mark.parametrize("fmt", BITS)
@pytest.mark.parametrize("offset", [0, 13])
def test_every_format_is_read_as_written_and_as_wfdb_reads_it(tmp_path, wfdb, fmt, offset):
    counts = random_counts(fmt, 1001)
    path = write(tmp_path, fmt, counts, offset=offset)
    record = read(path)
    assert record.warnings == ()
    np.testing.assert_allclose(record.signal, (counts.T - 7) / 1000, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(record.signal, wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T.astype(np.float32))


@pytest.mark.parametrize("fmt", BITS)
@pytest.mark.parametrize(("first", "last"), [(0, 2), (1, 5), (333, 334), (500, 1001), (998, 1001)])
def test_slices_of_every_format(tmp_path, fmt, first, last):
    counts = random_counts(fmt, 1001, n_signals=3)
    path = write(tmp_path, fmt, counts)
    part = read(path, first / 250, last / 250)
    np.testing.assert_array_equal(part.signal, read(path).signal[:, first:last])
    assert part.start_s == pytest.approx(first / 250)


@pytest.mark.parametrize("fmt", [fmt for fmt in BITS if fmt != 8])
def test_the_smallest_count_is_a_missing_sample(tmp_path, fmt):
    counts = random_counts(fmt, 60)
    counts[10:20, 1] = -(2 ** (BITS[fmt] - 1))
    signal = read(write(tmp_path, fmt, counts)).signal
    assert np.isnan(signal[1, 10:20]).all()
    assert np.isnan(signal).sum() == 10


def test_no_count_of_format_8_is_missing(tmp_path):
    counts = np.full((50, 2), -128).cumsum(axis=0)
    assert np.isfinite(read(write(tmp_path, 8, counts)).signal).all()


@pytest.mark.parametrize("fmt", [16, 212, 310])
def test_skewed_signals_are_brought_together(tmp_path, wfdb, fmt):
    counts = random_counts(fmt, 300)
    path = write(tmp_path, fmt, counts, skew=(0, 5))
    record = read(path)
    expected = (counts.T - 7) / 1000
    np.testing.assert_allclose(record.signal[0], expected[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(record.signal[1, :-5], expected[1, 5:], rtol=1e-6, atol=1e-9)
    assert np.isnan(record.signal[1, -5:]).all()
    np.testing.assert_array_equal(record.signal, wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T.astype(np.float32))
    for first, last in ((100, 200), (290, 299), (297, 300)):
        np.testing.assert_array_equal(read(path, first / 250, last / 250).signal, record.signal[:, first:last])


def test_skew_with_several_samples_a_frame(tmp_path):
    """wfdb 4.3 blanks 2 samples here, not 2 frames of 4."""
    fast, slow = np.arange(400), np.arange(100) * 4
    frames = np.concatenate([fast.reshape(100, 4), slow[:, None]], axis=1)
    (tmp_path / "rec.dat").write_bytes(encode(frames.ravel(), 16))
    (tmp_path / "rec.hea").write_text(
        "rec 2 62.5 100\nrec.dat 16x4:2 1000/mV 16 0 0 0 0 II\nrec.dat 16 1000/mV 16 0 0 0 0 V1\n"
    )
    record = read(tmp_path / "rec.hea")
    assert record.fs == 250
    np.testing.assert_allclose(record.signal[0, :392], fast[8:] / 1000, rtol=1e-6)
    assert np.isnan(record.signal[0, 392:]).all()
    assert np.abs(record.signal[1] - fast / 1000)[20:-20].max() < 2e-3
    part = read(tmp_path / "rec.hea", 0.8, 1.2)
    np.testing.assert_array_equal(part.signal[0], record.signal[0, 200:300])


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_flac_with_skew_and_slices(tmp_path, wfdb, fmt):
    counts = np.random.default_rng(1).integers(-100, 100, (2000, 2))
    wfdb.wrsamp(
        "rec",
        fs=250,
        units=["mV"] * 2,
        sig_name=["I", "II"],
        d_signal=counts,
        fmt=[fmt] * 2,
        adc_gain=[100.0] * 2,
        baseline=[0] * 2,
        write_dir=str(tmp_path),
    )
    whole = read(tmp_path / "rec.hea")
    np.testing.assert_allclose(whole.signal, counts.T / 100, rtol=1e-6)
    np.testing.assert_array_equal(read(tmp_path / "rec.hea", 2, 4).signal, whole.signal[:, 500:1000])
    text = (tmp_path / "rec.hea").read_text()
    second = text.rindex(f"rec.dat {fmt}")
    (tmp_path / "rec.hea").write_text(f"{text[:second]}rec.dat {fmt}:3{text[second + len(f'rec.dat {fmt}') :]}")
    np.testing.assert_array_equal(read(tmp_path / "rec.hea", 2, 4).signal[1], whole.signal[1, 503:1003])


def test_a_wrong_checksum_is_a_warning(tmp_path):
    counts = random_counts(16, 100)
    path = write(tmp_path, 16, counts)
    data = bytearray((tmp_path / "rec.dat").read_bytes())
    data[6] ^= 4  # the second signal's second sample
    (tmp_path / "rec.dat").write_bytes(data)
    assert read(path).warnings == ("the checksum differs, so the samples may be damaged: II of rec.hea",)
    assert read(path, 0, 0.2).warnings == (), "a slice has no checksum"


def test_no_baseline_is_the_adc_zero(tmp_path, wfdb):
    (tmp_path / "rec.dat").write_bytes(encode(np.arange(1024, 1034), 16))
    (tmp_path / "rec.hea").write_text("rec 1 250 10\nrec.dat 16 100/mV 11 1024 0 0 0 II\n")
    expected = np.arange(10, dtype=np.float32)[None] / 100
    np.testing.assert_allclose(read(tmp_path / "rec.hea").signal, expected, rtol=1e-6)
    np.testing.assert_allclose(wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T, expected, rtol=1e-6)


def _segment(folder: Path, name: str, counts: np.ndarray, leads: tuple[str, ...], gain: int = 1000) -> str:
    (folder / f"{name}.dat").write_bytes(encode(counts.ravel(), 16))
    lines = [f"{name}.dat 16 {gain}/mV 16 0 0 0 0 {lead}" for lead in leads]
    (folder / f"{name}.hea").write_text(f"{name} {len(leads)} 250 {len(counts)}\n" + "\n".join(lines) + "\n")
    return f"{name} {len(counts)}"


def test_segments_of_fixed_layout_agree_with_wfdb(tmp_path, wfdb):
    rng = np.random.default_rng(0)
    first, second = rng.integers(-999, 999, (100, 2)), rng.integers(-999, 999, (150, 2))
    lines = [_segment(tmp_path, "a", first, ("II", "II")), _segment(tmp_path, "b", second, ("II", "II"))]
    (tmp_path / "rec.hea").write_text("rec/2 2 250 250\n" + "\n".join(lines) + "\n")
    record = read(tmp_path / "rec.hea")
    assert record.leads == ("II", "II#2"), "signals of one name are told apart by position"
    np.testing.assert_array_equal(record.signal, wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T.astype(np.float32))
    np.testing.assert_array_equal(read(tmp_path / "rec.hea", 0.3, 0.6).signal, record.signal[:, 75:150])


def test_segments_of_variable_layout_agree_with_wfdb(tmp_path, wfdb):
    rng = np.random.default_rng(0)
    first, second = rng.integers(-999, 999, (100, 1)), rng.integers(-999, 999, (150, 2))
    (tmp_path / "rec_layout.hea").write_text(
        "rec_layout 3 250 0\n" + "".join(f"~ 0 1000/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II", "V1"))
    )
    lines = ["rec_layout 0", _segment(tmp_path, "a", first, ("V1",)), "~ 50"]
    lines.append(_segment(tmp_path, "b", second, ("II", "V1"), gain=500))
    (tmp_path / "rec.hea").write_text(f"rec/{len(lines)} 3 250 300\n" + "\n".join(lines) + "\n")
    record = read(tmp_path / "rec.hea")
    theirs = wfdb.rdrecord(str(tmp_path / "rec"), m2s=True).p_signal.T.astype(np.float32)
    assert record.leads == ("I", "II", "V1")
    np.testing.assert_array_equal(record.signal[1:], theirs[1:])
    assert np.isnan(record.signal[0]).all()
    assert np.isnan(record.signal[:, 100:150]).all()
    np.testing.assert_allclose(record.signal[2, :100], first[:, 0] / 1000, rtol=1e-6)
    np.testing.assert_allclose(record.signal[2, 150:], second[:, 1] / 500, rtol=1e-6)


def test_a_segment_of_another_rate_or_other_signals_is_refused(tmp_path):
    counts = np.ones((100, 1), dtype=int)
    lines = [_segment(tmp_path, "a", counts, ("II",)), _segment(tmp_path, "b", counts, ("V1",))]
    (tmp_path / "rec.hea").write_text("rec/2 1 250 200\n" + "\n".join(lines) + "\n")
    with pytest.raises(ReadError, match="other signals than the segments before"):
        read(tmp_path / "rec.hea")
    (tmp_path / "rec.hea").write_text("rec/1 1 500 100\na 100\n")
    with pytest.raises(ReadError, match="250 frames a second, expected 500"):
        read(tmp_path / "rec.hea")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "record"), [("mitdb", "100"), ("mitdb", "114"), ("afpdb", "n01"), ("nstdb", "118e00"), ("ludb", "1")]
)
def test_real_records_agree_with_wfdb(database, wfdb, name, record):
    path = next(p for p in sorted(database(name).rglob(f"{record}.hea")))
    ours, theirs = read(path), wfdb.rdrecord(str(path.with_suffix("")))
    assert not any("checksum" in warning for warning in ours.warnings)
    assert ours.fs == theirs.fs
    np.testing.assert_array_equal(ours.signal, theirs.p_signal.T.astype(np.float32))
