"""Tables of numbers: what is said is used, what is not said is asked for, nothing is guessed."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers import read
from anyecg.readers.tabular import tables
from anyecg.record import Record
from anyecg.writers import write

WAVE = np.round(np.sin(np.arange(400) / 20), 4)


def save(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def rows(delimiter: str = ",", comma: bool = False, n: int = 400) -> list[str]:
    lines = [f"{a:.4f}{delimiter}{-a:.4f}" for a in WAVE[:n]]
    return [line.replace(".", ",") for line in lines] if comma else lines


@pytest.mark.parametrize(
    ("delimiter", "comma"), [(",", False), (";", False), (";", True), ("\t", False), ("\t", True), ("  ", False)]
)
def test_delimiters(tmp_path, delimiter, comma):
    path = save(tmp_path, "\n".join([delimiter.join(("I", "II")), *rows(delimiter, comma)]))
    record = read(path, fs=100, unit="mV")
    assert record.leads == ("I", "II")
    assert record.fs == 100
    assert record.signal == pytest.approx(np.stack([WAVE, -WAVE]), abs=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = save(tmp_path, "\n".join(["I [µV],II [µV]", *rows()]), encoding=encoding)
    assert read(path, fs=100).signal[0] == pytest.approx(WAVE / 1000, abs=1e-9)


@pytest.mark.parametrize(
    ("header", "lead"), [("Lead II", "II"), ("ECG lead V5", "V5"), ("Ada Lovelace", "lead1"), ("my strip", "lead1")]
)
def test_words_above_one_column_are_a_lead_if_they_name_one(tmp_path, header, lead):
    path = save(tmp_path, "\n".join([header, *(f"{a:.4f}" for a in WAVE)]))
    assert read(path, fs=100, unit="mV").leads == (lead,)


def test_our_own_table_of_one_lead_keeps_a_name_of_two_words(tmp_path):
    write(Record(WAVE[None].astype(np.float32), 100.0, ("left wrist",)), tmp_path / "own.csv")
    assert read(tmp_path / "own.csv").leads == ("left wrist",)


def test_rate_and_unit_are_asked_for(tmp_path):
    path = save(tmp_path, "\n".join(["I,II", *rows()]))
    with pytest.raises(ReadError, match="--fs"):
        read(path, unit="mV")
    with pytest.raises(ReadError, match="--unit"):
        read(path, fs=100)


def test_no_header_means_numbered_leads(tmp_path):
    path = save(tmp_path, "\n".join(",".join(["0.1"] * 12) for _ in range(50)))
    assert read(path, fs=100, unit="mV").leads == tuple(f"lead{i}" for i in range(1, 13))


@pytest.mark.parametrize(
    ("name", "scale"), [("time", 1), ("t", 1), ("seconds", 1), ("time_s", 1), ("time_ms", 1000), ("Time [ms]", 1000)]
)
def test_time_column_gives_the_rate(tmp_path, name, scale):
    lines = [f"{i / 250 * scale:.6f},{a}" for i, a in enumerate(WAVE)]
    record = read(save(tmp_path, "\n".join([f"{name},II_mV", *lines])))
    assert record.fs == pytest.approx(250, rel=1e-9)
    assert record.leads == ("II",)


def test_rounded_times_give_the_whole_rate(tmp_path):
    lines = [f"{i / 360:.3f},{a}" for i, a in enumerate(WAVE)]
    assert read(save(tmp_path, "\n".join(["time,II_mV", *lines]))).fs == 360


def test_a_fractional_rate_is_kept(tmp_path):
    lines = [f"{i / 257.3:.9f},{a}" for i, a in enumerate(WAVE)]
    assert read(save(tmp_path, "\n".join(["time,II_mV", *lines]))).fs == pytest.approx(257.3, rel=1e-6)


def test_a_gap_between_times_is_not_recorded(tmp_path):
    lines = [f"{i / 250 + (i > 200):.6f},{a}" for i, a in enumerate(WAVE)]
    path = save(tmp_path, "\n".join(["time,II_mV", *lines]))
    record = read(path)
    assert (record.fs, record.n_samples) == (250, 650)
    assert record.signal[0, :201] == pytest.approx(WAVE[:201], abs=1e-6)
    assert np.isnan(record.signal[0, 201:451]).all()
    assert record.signal[0, 451:] == pytest.approx(WAVE[201:], abs=1e-6)
    assert any("1 gaps" in warning and "250 samples" in warning for warning in record.warnings)
    np.testing.assert_array_equal(read(path, start_s=0.7, end_s=2).signal, record.signal[:, 175:500])


def test_times_that_are_not_uniform(tmp_path):
    jitter = np.cumsum(np.random.default_rng(0).exponential(0.004, len(WAVE)))
    path = save(tmp_path, "\n".join(["time,II_mV", *(f"{t:.6f},{a}" for t, a in zip(jitter, WAVE, strict=True))]))
    with pytest.raises(ReadError, match="not uniform"):
        read(path)
    record = read(path, fs=250)
    assert record.n_samples == 400
    assert any("'time' was left out" in warning for warning in record.warnings)


def test_times_that_go_back(tmp_path):
    lines = [f"{(i if i < 300 else i - 100) / 250:.4f},{a}" for i, a in enumerate(WAVE)]
    with pytest.raises(ReadError, match="not uniform"):
        read(save(tmp_path, "\n".join(["time,II_mV", *lines])))


@pytest.mark.parametrize(("scale", "unit"), [(1000, "ms"), (1_000_000, "us"), (1_000_000_000, "ns")])
def test_times_whose_unit_is_not_said(tmp_path, scale, unit):
    lines = [f"{1_600_000_000 * 1000 + i * scale // 250},{a}" for i, a in enumerate(WAVE)]
    record = read(save(tmp_path, "\n".join(["timestamp,II_mV", *lines])))
    assert record.fs == 250
    assert any(f"states no unit: taken as {unit}" in warning for warning in record.warnings)


def test_a_unit_that_is_said_is_not_bent(tmp_path):
    lines = [f"{i * 4},{a}" for i, a in enumerate(WAVE)]
    with pytest.raises(ReadError, match="Name it time_ms"):
        read(save(tmp_path, "\n".join(["time_s,II_mV", *lines])))


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("{h}:{m:02d}:{s:06.3f}", None),
        ("{m:02d}:{s:06.3f}", None),
        ("[{h:02d}:{m:02d}:{s:06.3f}]", None),
        ("2021-05-16T{h:02d}:{m:02d}:{s:06.3f}", "2021-05-16T10:15:59"),
        ("2021/05/16 {h:02d}:{m:02d}:{s:06.3f}Z", "2021-05-16T10:15:59+00:00"),
        ("16.5.2021 {h:02d}:{m:02d}:{s:06.3f}", "2021-05-16T10:15:59"),
    ],
)
def test_clock_times(tmp_path, form, start):
    lines = []
    for i, a in enumerate(WAVE):
        ms = 59_000 + i * 4
        lines.append(f"{form.format(h=10, m=15 + ms // 60_000, s=ms % 60_000 / 1000)};{a}")
    record = read(save(tmp_path, "\n".join(["Time;II [mV]", *lines])))
    assert (record.fs, record.leads) == (250, ("II",))
    assert record.signal[0] == pytest.approx(WAVE, abs=1e-6)
    assert (record.start_time.isoformat() if record.start_time else None) == start


def test_clock_times_over_midnight(tmp_path):
    of_day = [(86_399.5 + i / 250) % 86_400 for i in range(400)]
    cells = [f"{int(t // 3600):02d}:{int(t // 60 % 60):02d}:{t % 60:06.3f}" for t in of_day]
    record = read(save(tmp_path, "\n".join(["Time,II_mV", *(f"{c},{a}" for c, a in zip(cells, WAVE, strict=True))])))
    assert (record.fs, record.n_samples) == (250, 400)


def test_quoted_cells_with_decimal_commas(tmp_path):
    lines = [f'"{a:.4f}","{-a:.4f}"'.replace(".", ",") for a in WAVE]
    record = read(save(tmp_path, "\n".join(['"I [mV]","II [mV]"', *lines])), fs=250)
    assert record.leads == ("I", "II")
    assert record.signal == pytest.approx(np.stack([WAVE, -WAVE]), abs=1e-6)


def test_one_column_with_decimal_commas(tmp_path):
    record = read(save(tmp_path, "\n".join(["II [mV]", *(f"{a:.4f}".replace(".", ",") for a in WAVE)])), fs=250)
    assert record.leads == ("II",)
    assert record.signal[0] == pytest.approx(WAVE, abs=1e-6)


def test_decimal_commas_between_commas_are_refused(tmp_path):
    lines = [f"{i / 250:.3f};{a:.4f}".replace(".", ",").replace(";", ",") for i, a in enumerate(WAVE)]
    with pytest.raises(ReadError, match="4 cells below 2 names"):
        read(save(tmp_path, "\n".join(["time,II_mV", *lines])))


@pytest.mark.parametrize("mark", ["# ", "% ", "// ", ""])
def test_rate_and_unit_in_lines_above(tmp_path, mark):
    text = f"{mark}Sampling rate: 257.5 Hz\n{mark}Unit: uV\nI,II\n" + "\n".join(rows())
    record = read(save(tmp_path, text))
    assert (record.fs, record.leads) == (257.5, ("I", "II"))
    assert record.signal[0] == pytest.approx(WAVE / 1000, abs=1e-9)


def test_names_as_a_comment(tmp_path):
    np.savetxt(tmp_path / "a.csv", np.stack([np.arange(400) / 250, WAVE], axis=1), delimiter=",", header="time,II [mV]")
    record = read(tmp_path / "a.csv")
    assert (record.fs, record.leads) == (250, ("II",))


def test_polar_sensor_logger(tmp_path):
    """Phone and sensor clock, relative milliseconds, microvolts; one packet of 73 samples was lost."""
    lines = ["Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]"]
    for i in [*range(146), *range(219, 400)]:
        phone = f"2021-05-16T08:08:{46 + i // 73 * 0.56:06.3f}"
        sensor = 599_631_245_000_000_000 + round(i * 1e9 / 130)
        lines.append(f"{phone};{sensor};{round(i * 1e3 / 130, 6)};{round(WAVE[i] * 1000)}")
    record = read(save(tmp_path, "\n".join(lines), "Polar_H10_ECG.txt"))
    assert (record.format, record.leads) == ("polar", ("ecg",))
    assert record.fs == pytest.approx(130, rel=1e-6)
    assert record.n_samples == 400
    assert np.isnan(record.signal[0, 146:219]).all()
    assert record.signal[0, 219:] == pytest.approx(WAVE[219:], abs=1e-3)


def test_movesense(tmp_path):
    lines = [f"{i / 128:.3f},{a:.4f}" for i, a in enumerate(WAVE)]
    text = "\n".join(["# created 2025-08-15T10:36:37.485695Z", "elapsed,ecg [mV]", *lines])
    record = read(save(tmp_path, text))
    assert (record.format, record.fs) == ("movesense", 128)
    assert record.start_time is not None and record.start_time.isoformat() == "2025-08-15T10:36:37.485695+00:00"


@pytest.mark.parametrize(("name", "factor"), [("II [mV]", 1), ("II (uV)", 1e-3), ("II_uV", 1e-3), ("II [V]", 1e3)])
def test_units_in_the_header(tmp_path, name, factor):
    record = read(save(tmp_path, "\n".join([f"{name},V1 [mV]", *rows()])), fs=100)
    assert record.leads == ("II", "V1")
    assert record.signal[0] == pytest.approx(WAVE * factor, rel=1e-5)
    assert record.signal[1] == pytest.approx(-WAVE, rel=1e-5)


def test_a_line_of_units_below_the_names(tmp_path):
    lines = [f"{i / 250:.3f},{a}" for i, a in enumerate(WAVE)]
    record = read(save(tmp_path, "\n".join(["'Elapsed time','MLII'", "'seconds','mV'", *lines])))
    assert (record.leads, record.fs) == (("MLII",), 250)


def test_a_stated_unit_is_not_overridden(tmp_path):
    with pytest.raises(ReadError, match="the file says uV"):
        read(save(tmp_path, "\n".join(["II_uV,V1_uV", *rows()])), fs=100, unit="mV")


@pytest.mark.parametrize("missing", ["", "-", "NaN", "nan", " ", "NA", "null"])
def test_cells_without_a_number(tmp_path, missing):
    path = save(tmp_path, f"I,II\n0.1,0.2\n{missing},0.4\n0.5,{missing}\n0.7,0.8\n")
    signal = read(path, fs=100, unit="mV").signal
    assert np.isnan(signal[0, 1])
    assert np.isnan(signal[1, 2])
    assert np.isfinite(signal).sum() == 6


@pytest.mark.parametrize("missing", [",", "nan,nan", '"","NaN"', "-,"])
def test_a_recording_that_begins_with_a_gap(tmp_path, missing):
    text = "\n".join(["I,II", *[missing] * 500, *rows()])
    record = read(save(tmp_path, text), fs=100, unit="mV")
    assert record.leads == ("I", "II")
    assert np.isnan(record.signal[:, :500]).all()
    assert record.signal[0, 500:] == pytest.approx(WAVE, rel=1e-5)


def test_one_column_that_begins_with_a_gap(tmp_path):
    for missing in ('""', "nan"):
        text = "\n".join(["II", missing, missing, "0.1", missing, "0.2"])
        signal = read(save(tmp_path, text), fs=100, unit="mV").signal[0]
        np.testing.assert_array_equal(np.isnan(signal), [True, True, False, True, False])


def test_other_columns_are_skipped(tmp_path):
    path = save(tmp_path, "sample,II,resp\n" + "\n".join(f"{i},{a},{a}" for i, a in enumerate(WAVE)))
    record = read(path, fs=100, unit="mV")
    assert record.leads == ("II",)
    assert len(record.warnings) == 2


@pytest.mark.parametrize("shape", [(3, 500), (500, 3), (500,)])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_npy(tmp_path, shape, dtype):
    values = np.random.default_rng(0).normal(0, 300, shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    record = read(tmp_path / "a.npy", fs=500, unit="uV")
    rows = np.atleast_2d(values)
    expected = rows if rows.shape[0] < rows.shape[1] else rows.T
    assert record.signal == pytest.approx(expected / 1000, rel=1e-6)
    assert record.leads[0] == "lead1"


def test_npy_that_is_no_signal(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((3, 4, 5)))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "square.npy", np.zeros((9, 9)))
    np.save(tmp_path / "empty.npy", np.zeros((3, 0)))
    for path in tmp_path.glob("*.npy"):
        with pytest.raises(ReadError):
            read(path, fs=100, unit="mV")


def test_npy_that_claims_too_much(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 100)))
    data = path.read_bytes().replace(b"(2, 100)", b"(2, 10**9)".replace(b"10**9", b"999999999"))
    path.write_bytes(data)
    with pytest.raises(ReadError, match="not a whole NPY array"):
        read(path, fs=100, unit="mV")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello world, this is a letter\nand no table\n", "no numbers in it"),
        ("I,II\n", "no numbers in it"),
        ("I,II\n1,2\n3\n", "about line 3 does not fit"),
        ("I,II\n1,2\n3,x\n", "about line 3 does not fit"),
        ("# anyecg csv 2\n# fs_hz: 500\n1,2\n", "Use a newer anyecg"),
        ("# anyecg csv 1\n# fs_hz: many\n# unit: mV\nI\n1\n2\n", "a rate of 'many'"),
        ("# anyecg csv 1\n# fs_hz: nan\n# unit: mV\nI\n1\n2\n", "the sampling rate is nan"),
        ("# anyecg csv 1\n# fs_hz: 500\n# unit: apples\nI\n1\n2\n", "the unit is 'apples'"),
    ],
)
def test_garbage(tmp_path, text, message):
    keywords = {} if text.startswith("#") else {"fs": 100, "unit": "mV"}
    with pytest.raises(ReadError, match=message) as caught:
        read(save(tmp_path, text), **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_text_export(formats_folder):
    path = formats_folder / "ecgviewer" / "testing_ecg.txt"
    record = read(path, fs=500, unit="uV")
    assert (record.format, record.leads) == ("ecgviewer", STANDARD_LEADS)
    assert record.signal.shape == (12, 5000)
    assert record.signal[0, :2] == pytest.approx([0.019, 0.019])
    one, two, three, avr, avl, avf = record.signal[:6]
    for off in (two - one - three, avr + (one + two) / 2, avl - one + two / 2, avf - two + one / 2):
        assert np.median(np.abs(off)) < 0.006  # the names are those of the columns: Einthoven and Goldberger hold
    with pytest.raises(ReadError, match="no sampling rate"):
        read(path)


@pytest.mark.parametrize(
    ("body", "delimiter", "comma"),
    [
        ("1,2.5,-3e-2\n4,nan,6\n", ",", False),
        ("1,,3\n,5,-\n--,NA,n/a\nnull,None,NaN\n", ",", False),
        ("1,5;2,5\n-0,25;;\n"[:-2] + "\n", ";", True),
        ('"1.5","2"\n"","4"\n', ",", False),
        ('"1,5","2,5"\n"3,0","4"\n', ",", True),
        ("1\t2\r\n3\t4\r\n", "\t", False),
        (" 1 , 2 \n 3 , 4 \n\n5,6", ",", False),
        ("1.\n.5\n-inf\n", ";", False),
        ("123456789.123456789,1e-320\n0.1,1e308\n", ",", False),
    ],
)
def test_both_parsers_agree(body: str, delimiter: str, comma: bool) -> None:
    """The fast one is used where it can; the slow one decides what is allowed."""
    layout = tables._Layout(delimiter, comma, body.split("\n")[0].count(delimiter) + 1)
    if comma and delimiter == ",":
        layout = tables._Layout(delimiter, comma, 2)
    fast, slow = tables._fast_numbers(body.encode(), layout), tables._numbers("x", body, layout, 0)
    assert fast is not None
    assert len(fast) == len(slow)
    for one, other in zip(fast, slow, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("cell", ["'1.5'", "nA"])
def test_what_the_fast_parser_does_not_know_is_read_all_the_same(tmp_path: Path, cell: str) -> None:
    body = f"2.5,1\n{cell},2\n"
    assert tables._fast_numbers(body.encode(), tables._Layout(",", False, 2)) is None
    (tmp_path / "a.csv").write_text(f"I [mV],II [mV]\n{body}")
    first = read(tmp_path / "a.csv", fs=250).signal[0]
    assert first.tolist()[:1] == [2.5]
    assert first[1] == 1.5 or (cell == "nA" and np.isnan(first[1]))


@pytest.mark.parametrize("cell", ["#N/A", "0x10", "1_000", "1.5 mV", "1;2"])
def test_what_is_no_number_is_refused_by_both(tmp_path: Path, cell: str) -> None:
    (tmp_path / "a.csv").write_text(f"I [mV],II [mV]\n1,1\n2,{cell}\n")
    with pytest.raises(ReadError, match="line 3 does not fit"):
        read(tmp_path / "a.csv", fs=250)


@pytest.mark.parametrize("n_gap", [0, 30_000])
def test_a_long_text_is_not_cut_into_lines(tmp_path: Path, n_gap: int) -> None:
    """Numbers that begin beyond the head, after a long gap, or with a comment in between, are all found."""
    rows = ["nan,nan"] * n_gap + [f"{i},{-i}" for i in range(20_000)]
    rows[-5:-5] = ["# a remark, 5"]
    (tmp_path / "a.csv").write_text("I [uV],II [uV]\n" + "\n".join(rows))
    record = read(tmp_path / "a.csv", fs=250)
    assert record.n_samples == n_gap + 20_000
    assert np.isnan(record.signal[0, :n_gap]).all()
    assert np.array_equal(record.signal[1, n_gap:], (-1e-3 * np.arange(20_000)).astype(np.float32))


@pytest.mark.parametrize("n_lines", [50, 3000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_a_long_title_in_any_encoding(tmp_path: Path, encoding: str, n_lines: int) -> None:
    """What stands above the numbers may be longer than the part that is looked at first."""
    signal = np.random.default_rng(0).normal(0, 0.3, (1000, 2)).round(4)
    title = "".join(f"# Aufnahme für Dr. Müller, {i}\n" for i in range(n_lines))
    body = "\n".join(f"{a},{b}" for a, b in signal)
    (tmp_path / "a.csv").write_text(f"{title}I [mV],II [µV]\n{body}\n", encoding=encoding)
    record = read(tmp_path / "a.csv", fs=500)
    assert record.signal[0] == pytest.approx(signal[:, 0], abs=1e-6)
    assert record.signal[1] == pytest.approx(signal[:, 1] / 1000, abs=1e-9)


def test_comments_between_numbers_are_left_out(tmp_path: Path) -> None:
    lines = [f"{i / 1000},{-i / 1000}" for i in range(400)]
    (tmp_path / "a.csv").write_text("I [mV],II [mV]\n" + "\n".join([*lines[:200], "# a break", *lines[200:]]))
    assert read(tmp_path / "a.csv", fs=500).signal[0] == pytest.approx(np.arange(400) / 1000, abs=1e-6)
