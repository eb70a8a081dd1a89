"""WFDB: every format wfdb writes, segments, gaps, and headers that lie."""

import os
import time
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.readers.wfdb.annotations import read_marks


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "508", "516", "524", "80"])
def test_formats_come_back_within_one_lsb(make_wfdb, fmt):
    sample = make_wfdb(fmt=fmt, gain={"80": 50.0}.get(fmt))
    record = read(sample.path)
    assert record.format == "wfdb"
    assert record.leads == sample.leads
    assert record.fs == sample.fs
    assert record.signal.shape == sample.signal.shape
    assert np.abs(record.signal - sample.signal).max() <= sample.step_mv
    assert record.gain_known
    assert record.warnings == ()


@pytest.mark.parametrize("fmt", ["16", "212", "24", "516"])
def test_a_slice_equals_the_cut(make_wfdb, fmt):
    sample = make_wfdb(fmt=fmt)
    whole = read(sample.path)
    part = read(sample.path, start_s=1.004, end_s=3.5)
    assert np.array_equal(part.signal, whole.signal[:, 251:875])
    assert part.start_s == pytest.approx(1.004)


def test_opened_by_record_name_or_signal_file(make_wfdb):
    sample = make_wfdb()
    for name in (sample.path.with_suffix(""), sample.path.with_suffix(".dat"), sample.path):
        assert read(name).n_leads == 3


def test_annotation_file_gets_a_hint(make_wfdb):
    sample = make_wfdb()
    companion = sample.path.with_suffix(".atr")
    companion.write_bytes(b"\x00\x01\x02\x03\x00\x00")
    with pytest.raises(ReadError, match=r"Open the \.hea"):
        read(companion)


@pytest.mark.parametrize(
    ("unit", "gain", "factor"),
    [("uV", 1.0, 1e-3), ("µV", 1.0, 1e-3), ("V", 1e6, 1e3), ("nV", 1e-3, 1e-6), ("mv", 1e3, 1.0)],
)
def test_units_become_mv(make_wfdb, unit, gain, factor):
    sample = make_wfdb()
    text = sample.path.read_text().replace("1000.0(0)/mV", f"{gain:.3f}(0)/{unit}")
    sample.path.write_text(text)
    counts = np.round(sample.signal * 1000)
    assert read(sample.path).signal == pytest.approx(counts / gain * factor, rel=1e-6, abs=1e-9)


def test_unknown_gain_is_said(make_wfdb):
    sample = make_wfdb()
    sample.path.write_text(sample.path.read_text().replace("1000.0(0)/mV", "0"))
    record = read(sample.path)
    assert not record.gain_known
    assert "no gain" in record.warnings[0]
    assert record.signal == pytest.approx(np.round(sample.signal * 1000) / 200)
    told = read(sample.path, unit="uV")
    assert told.gain_known
    assert told.signal == pytest.approx(np.round(sample.signal * 1000) / 1000)


def test_other_channels_are_skipped_aloud(make_wfdb):
    sample = make_wfdb(leads=("II", "RESP", "ABP"))
    record = read(sample.path)
    assert record.leads == ("II",)
    assert "RESP, ABP" in record.warnings[0]


def test_nothing_but_other_channels_is_refused(make_wfdb):
    with pytest.raises(ReadError, match="no ECG among RESP"):
        read(make_wfdb(leads=("RESP",)).path)


def test_unknown_and_repeated_leads_are_kept(make_wfdb):
    sample = make_wfdb(leads=("ECG", "II", "III", "foo"))
    sample.path.write_text(sample.path.read_text().replace(" III\n", " II\n"))
    record = read(sample.path)
    assert record.leads == ("ECG", "II", "II#2", "foo")
    assert "repeat" in record.warnings[0]


def test_sixteen_leads(make_wfdb):
    leads = ("I", "II", "III", "AVR", "AVL", "AVF", *(f"V{i}" for i in range(1, 10)), "V4R")
    record = read(make_wfdb(leads=leads).path)
    assert record.n_leads == 16
    assert record.leads[3] == "aVR"


@pytest.mark.parametrize(
    ("comments", "age", "sex"),
    [
        (("Age: 56", "Sex: Male"), 56, "male"),
        (("<age>: 69", "<sex>: F"), 69, "female"),
        (("69 M 1085 1629 x1", "Aldomet"), 69, "male"),
        (("-1 F 1 2 x1",), None, "female"),
        (("Age: NaN", "Sex: Unknown"), None, None),
        (("Age: 25  Sex: M",), 25, "male"),
        (("Age: 300",), None, None),
        (("Page: 3", "Dosage: 4"), None, None),
    ],
)
def test_age_and_sex_of_all_styles(make_wfdb, comments, age, sex):
    record = read(make_wfdb(comments=comments).path)
    assert (record.age, record.sex) == (age, sex)


def test_diagnoses_of_the_header(make_wfdb):
    record = read(make_wfdb(comments=("Dx: 426177001,164889003", "Dx: AF")).path)
    assert [(a.kind, a.code) for a in record.annotations] == [("diagnosis", "426177001"), ("diagnosis", "164889003")]


@pytest.mark.parametrize("text", ["10:20:30 01/02/2003", "01-Feb-2003 10:20:30"])
def test_start_time_in_both_orders(make_wfdb, text):
    sample = make_wfdb()
    lines = sample.path.read_text().splitlines()
    sample.path.write_text("\n".join([f"{lines[0]} {text}", *lines[1:]]) + "\n")
    assert read(sample.path).start_time == datetime(2003, 2, 1, 10, 20, 30)
    assert read(sample.path, start_s=2).start_time == datetime(2003, 2, 1, 10, 20, 32)


def test_missing_samples_are_nan(make_wfdb):
    sample = make_wfdb()
    data = np.fromfile(sample.path.with_suffix(".dat"), dtype="<i2").reshape(-1, 3)
    data[100:200, 1] = -32768
    data.tofile(sample.path.with_suffix(".dat"))
    signal = read(sample.path).signal
    assert np.isnan(signal[1, 100:200]).all()
    assert np.isfinite(signal).sum() == signal.size - 100


def test_annotations_of_a_slice(make_wfdb, wfdb):
    sample = make_wfdb()
    wfdb.wrann(
        "rec",
        "atr",
        sample=np.array([10, 100, 500, 600, 1200, 2000]),
        symbol=["+", "N", "V", "+", "N", "~"],
        aux_note=["(N", "", "", "(AFIB", "", ""],
        write_dir=str(sample.path.parent),
    )
    whole = read(sample.path).annotations
    assert [(a.code, a.start_s) for a in whole if a.kind == "beat"] == [("N", 0.4), ("V", 2.0), ("N", 4.8)]
    assert [(a.code, a.start_s, a.end_s) for a in whole if a.kind == "rhythm"] == [("N", 0.04, 2.4), ("AFIB", 2.4, 10)]
    part = read(sample.path, start_s=3, end_s=5).annotations
    assert [(a.code, pytest.approx(1.8)) for a in part if a.kind == "beat"] == [("N", 1.8)]
    assert [(a.code, a.start_s, a.end_s) for a in part if a.kind == "rhythm"] == [("AFIB", 0, 2)]


def test_beats_in_other_ticks_and_without_a_rhythm(make_wfdb, wfdb):
    sample = make_wfdb()
    wfdb.wrann("rec", "atr", sample=np.array([100, 500]), symbol=["N", "V"], fs=1000, write_dir=str(sample.path.parent))
    record = read(sample.path)
    assert [(a.code, a.start_s) for a in record.annotations] == [("N", 0.1), ("V", 0.5)]
    assert record.warnings == ()


def test_damaged_annotations_are_a_warning(make_wfdb):
    sample = make_wfdb()
    sample.path.with_suffix(".atr").write_bytes(b"\xff\xfc\x07")
    record = read(sample.path)
    assert record.n_samples == 2500
    assert "annotations not read" in record.warnings[0]


def _write_segments(folder: Path, make_wfdb, *, variable: bool) -> np.ndarray:
    first = make_wfdb("rec_0001", n_samples=500, leads=("II", "V1"))
    second = make_wfdb("rec_0002", n_samples=750, leads=("V1",) if variable else ("II", "V1"))
    expected = np.full((2, 1500), np.nan)
    expected[:, :500] = first.signal
    expected[-1 if variable else slice(None), 750:] = second.signal
    lines = ["rec_0001 500", "~ 250", "rec_0002 750"]
    if variable:
        (folder / "rec_layout.hea").write_text(
            "rec_layout 2 250 0\n~ 0 1000/mV 16 0 0 0 0 II\n~ 0 1000/mV 16 0 0 0 0 V1\n"
        )
        lines.insert(0, "rec_layout 0")
    (folder / "rec.hea").write_text(f"rec/{len(lines)} 2 250 1500\n" + "\n".join(lines) + "\n")
    return expected


@pytest.mark.parametrize("variable", [False, True])
def test_segments_with_a_gap(tmp_path, make_wfdb, variable):
    expected = _write_segments(tmp_path, make_wfdb, variable=variable)
    record = read(tmp_path / "rec")
    assert record.leads == ("II", "V1")
    np.testing.assert_allclose(record.signal, expected, atol=1e-3)
    part = read(tmp_path / "rec", start_s=1, end_s=4)
    np.testing.assert_array_equal(part.signal, record.signal[:, 250:1000])
    assert (np.isnan(record.signal) == np.isnan(expected)).all()


def test_segments_that_do_not_add_up(tmp_path, make_wfdb):
    _write_segments(tmp_path, make_wfdb, variable=False)
    path = tmp_path / "rec.hea"
    path.write_text(path.read_text().replace("~ 250", "~ 251"))
    with pytest.raises(ReadError, match="segments of 1501 samples"):
        read(path)


def test_segment_of_itself(tmp_path):
    (tmp_path / "rec.hea").write_text("rec/1 1 250 100\nrec 100\n")
    with pytest.raises(ReadError, match="has segments itself"):
        read(tmp_path / "rec.hea")


def test_an_endless_gap_is_refused(tmp_path, make_wfdb):
    make_wfdb("rec_0001", n_samples=500, leads=("II",))
    (tmp_path / "rec.hea").write_text("rec/2 1 250 9999999500\nrec_0001 500\n~ 9999999000\n")
    with pytest.raises(ReadError, match="the header claims"):
        read(tmp_path / "rec.hea")
    assert read(tmp_path / "rec.hea", end_s=4).n_samples == 1000


def test_leads_of_several_samples_a_frame(tmp_path, wfdb):
    fast, slow = np.sin(np.arange(4000) / 50), np.sin(np.arange(1000) / 12.5)
    wfdb.wrsamp(
        "rec",
        fs=62.5,
        units=["mV", "mV"],
        sig_name=["II", "V1"],
        e_p_signal=[fast, slow],
        fmt=["16", "16"],
        adc_gain=[1000.0, 1000.0],
        baseline=[0, 0],
        samps_per_frame=[4, 1],
        write_dir=str(tmp_path),
    )
    record = read(tmp_path / "rec")
    assert record.fs == 250
    assert record.signal.shape == (2, 4000)
    assert "brought to 250 Hz: V1" in record.warnings[0]
    assert np.abs(record.signal[0] - fast).max() < 1e-3
    assert np.abs(record.signal[1] - fast)[50:-50].max() < 2e-3


@pytest.mark.parametrize("name", ["../out.dat", "/etc/passwd", "..", "sub/out.dat", "a::b.dat", "..\\out.dat"])
def test_signal_file_outside_the_folder(tmp_path, name):
    (tmp_path / "out.dat").write_bytes(b"\x00" * 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rec.hea").write_text(f"rec 1 250 10\n{name} 16 200 16 0 0 0 0 II\n")
    with pytest.raises(ReadError, match="expected one in its own folder"):
        read(folder / "rec.hea")


def test_symbolic_link_out_of_the_folder(tmp_path):
    (tmp_path / "out.dat").write_bytes(b"\x00" * 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(tmp_path / "out.dat", folder / "rec.dat")
    (folder / "rec.hea").write_text("rec 1 250 10\nrec.dat 16 200 16 0 0 0 0 II\n")
    with pytest.raises(ReadError, match="link to another folder"):
        read(folder / "rec.hea")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("rec 1 -250 50\nrec.dat 16 200 16 0 0 0 0 II\n", "the sampling rate is -250"),
        ("rec 1 0 50\nrec.dat 16 200 16 0 0 0 0 II\n", "the sampling rate is 0"),
        ("rec 1 nan 50\nrec.dat 16 200 16 0 0 0 0 II\n", "the sampling rate is nan"),
        ("rec 1 fast 50\nrec.dat 16 200 16 0 0 0 0 II\n", "a rate of 'fast'"),
        ("rec 1\nrec.dat 16 200 16 0 0 0 0 II\n", "no sampling rate"),
        ("rec 0 250 50\n", "0 signals"),
        ("rec 99999 250 50\n", "99999 signals"),
        ("rec 2 250 50\nrec.dat 16 200 16 0 0 0 0 II\n", "1 signal lines"),
        ("rec 1 250 50\nrec.dat 17 200 16 0 0 0 0 II\n", "signal format 17"),
        ("rec 1 250 50\nmissing.dat 16 200 16 0 0 0 0 II\n", "missing.dat that it names is missing"),
        ("garbage\n", "a first line 'garbage'"),
        ("# only a comment\n", "a first line ''"),
        ("rec 1 250 9\nrec.dat 16+99 200 16 0 0 0 0 II\n", "holds no sample of every lead"),
        ("rec 1 250 0\nrec.dat 16 200 16 0 0 0 0 II\n", None),
        ("rec 1 250 50\nrec.dat 16 200 16 0 0 0 0 II\n" + "\n", None),
    ],
)
def test_headers_that_lie(tmp_path, header, message):
    (tmp_path / "rec.dat").write_bytes(b"\x01\x00" * 50)
    (tmp_path / "rec.hea").write_text(header)
    if message is None:
        assert read(tmp_path / "rec.hea").n_samples == 50
        return
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path / "rec.hea")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("fmt", "bytes_a_sample"), [("16", 2.0), ("212", 1.5), ("24", 3.0)])
def test_signals_that_are_cut_short(make_wfdb, fmt: str, bytes_a_sample: float) -> None:
    sample = make_wfdb(fmt=fmt)
    whole = read(sample.path)
    file = sample.path.with_suffix(".dat")
    file.write_bytes(file.read_bytes()[: int(1800 * 3 * bytes_a_sample) + 1])
    record = read(sample.path)
    assert record.warnings[0] == "rec.dat is cut short: it holds 1800 samples a lead, 2500 by its own count"
    assert not any("checksum" in warning for warning in record.warnings)
    np.testing.assert_array_equal(record.signal, whole.signal[:, :1800])
    with pytest.raises(ReadError, match=r"the record ends at 7\.200 s"):
        read(sample.path, start_s=8.0)


def test_flac_that_is_cut_short(make_wfdb):
    sample = make_wfdb(fmt="516", n_samples=100_000)
    whole = read(sample.path)
    data = sample.path.with_suffix(".dat").read_bytes()
    sample.path.with_suffix(".dat").write_bytes(data[: len(data) // 2])
    record = read(sample.path)
    assert "rec.dat is cut short" in record.warnings[0]
    assert 30_000 < record.n_samples < 70_000
    np.testing.assert_array_equal(record.signal, whole.signal[:, : record.n_samples])
    sample.path.with_suffix(".dat").write_bytes(data)
    sample.path.write_text(sample.path.read_text().replace("100000", "99999999999", 1))
    record = read(sample.path)
    assert "it holds 100000 samples a lead, 99999999999 by its own count" in record.warnings[0]
    np.testing.assert_array_equal(record.signal, whole.signal)


def test_a_slice_in_a_gap_between_segments(make_wfdb):
    part = make_wfdb("part", n_samples=500)
    (part.path.with_name("all.hea")).write_text("all/3 3 250 2000\npart 500\n~ 1000\npart 500\n")
    whole = read(part.path.with_name("all.hea"))
    inside = read(part.path.with_name("all.hea"), start_s=3.0, end_s=5.0)
    assert inside.leads == whole.leads
    assert np.isnan(inside.signal).all()
    assert "nothing was recorded in any lead" in inside.warnings


def test_rate_given_only_where_there_is_none(tmp_path):
    (tmp_path / "rec.dat").write_bytes(b"\x01\x00" * 50)
    (tmp_path / "rec.hea").write_text("rec 1\nrec.dat 16 200 16 0 0 0 0 II\n")
    assert read(tmp_path / "rec.hea", fs=100).fs == 100
    (tmp_path / "rec.hea").write_text("rec 1 250 50\nrec.dat 16 200 16 0 0 0 0 II\n")
    assert read(tmp_path / "rec.hea", fs=250).fs == 250
    with pytest.raises(ReadError, match="the file says 250 Hz"):
        read(tmp_path / "rec.hea", fs=500)
    with pytest.raises(ReadError, match="the file says mV"):
        read(tmp_path / "rec.hea", unit="uV")


@pytest.mark.data
def test_real_records(database):
    record = read(database("mitdb") / "100", start_s=60, end_s=70)
    assert record.leads == ("MLII", "V5")
    assert (record.fs, record.n_samples, record.age, record.sex) == (360, 3600, 69, "male")
    assert [a.code for a in record.annotations if a.kind == "rhythm"] == ["N"]
    assert 10 <= sum(a.kind == "beat" for a in record.annotations) <= 14


@pytest.mark.data
def test_real_mat_signal(database):
    folder = database("cinc2021")
    path = next(iter(sorted(folder.rglob("S0010.mat"))), None) or next(iter(sorted(folder.rglob("*.mat"))))
    record = read(path)
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert record.gain_known
    assert any(a.kind == "diagnosis" for a in record.annotations)
    einthoven = record.signal[1] - record.signal[0] - record.signal[2]
    assert np.abs(einthoven).max() < 0.01


@pytest.mark.data
def test_noise_without_gain(database):
    record = read(database("nstdb") / "bw", end_s=10)
    assert not record.gain_known


def test_a_record_line_of_a_thousand_words_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "long.hea").write_text("long/1 1 250 90 " + " ".join(["90"] * 5000) + "\n~ 90\n")
    started = time.process_time()
    with pytest.raises(ReadError):
        read(tmp_path / "long.hea")
    assert time.process_time() - started < 2


def rdann(path: Path) -> tuple[list[int], list[str], list[tuple[int, str]]]:
    """Return ticks and symbols of what stands in time, and rhythm changes, as wfdb reads them."""
    import wfdb as library

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = library.rdann(str(path.with_suffix("")), path.suffix[1:])
    notes = [note.strip("\x00").strip() for note in found.aux_note]
    marks = list(zip(found.sample.tolist(), found.symbol, notes, strict=True))
    return [m[0] for m in marks], [m[1] for m in marks], [(m[0], m[2][1:]) for m in marks if m[1] == "+" and m[2]]


def test_annotations_are_those_that_wfdb_reads(tmp_path: Path, wfdb) -> None:
    """With long intervals, texts of odd length, and numbers, types and channels that stand between marks."""
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.choice([1, 300, 1023, 1024, 90_000, 3_000_000], 200))
    symbols = rng.choice(list('NVAF/Q~|+"=T'), 200).tolist()
    notes = [f"({'AFIB'[: i % 5]}" if symbol == "+" else "" for i, symbol in enumerate(symbols)]
    numbers = {"subtype": rng.integers(0, 5, 200), "chan": rng.integers(0, 3, 200), "num": rng.integers(0, 9, 200)}
    wfdb.wrann("a", "atr", ticks, symbols, aux_note=notes, write_dir=str(tmp_path), **numbers)
    marks = read_marks(tmp_path / "a.atr", 0)
    assert (marks.ticks.tolist(), marks.symbols, marks.changes) == rdann(tmp_path / "a.atr")
    assert marks.ticks_hz is None
    wfdb.wrann("b", "atr", ticks, symbols, fs=360, write_dir=str(tmp_path))
    assert read_marks(tmp_path / "b.atr", 0).ticks_hz == 360


@pytest.mark.data
def test_annotations_of_mitdb_and_ltafdb(database) -> None:
    files = [*sorted(database("mitdb").glob("1*.atr"))[::6], next(iter(sorted(database("ltafdb").glob("*.atr"))))]
    assert len(files) > 3
    for file in files:
        marks = read_marks(file, 0)
        assert (marks.ticks.tolist(), marks.symbols, marks.changes) == rdann(file)


def test_a_header_in_capitals_is_told_to_be_renamed(make_wfdb):
    path = make_wfdb().path
    capitals = path.rename(path.with_suffix(".HEA"))
    with pytest.raises(ReadError, match=r"suffix is \.HEA, expected \.hea\. Rename it"):
        read(capitals)
