"""EDF+D and BDF+D, written byte by byte after edfplus.info; and the annotations of EDF+C."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import edf, read
from anyecg.readers.edf.layout import parse_layout

RATES = {"ECG I": 250, "ECG V1": 250, "ECG chest": 250, "ECG II": 125, "Resp": 25, "Status": 250}
ONSETS = ("+0.25", "+1.25", "+5.25", "+5000.25")
"""Of data records of one second: the second follows the first; then a gap of 3 s, and one of more than an hour."""


def field(text: object, width: int) -> bytes:
    data = str(text).encode("ascii")
    assert len(data) <= width
    return data.ljust(width)


def tal(onset: str, *texts: str, duration: str = "") -> bytes:
    stamp = f"{onset}\x15{duration}" if duration else onset
    return ("\x14".join([stamp, *texts]) + "\x14\x00").encode()


def counts(label: str, record: int) -> np.ndarray:
    rate = RATES[label]
    t = np.arange(rate) / rate + record
    return np.round(1000 * np.sin(2 * np.pi * 3 * t) + 10 * len(label)).astype(int)


def write(
    folder: Path,
    kind: str = "EDF+D",
    onsets: tuple[str, ...] = ONSETS,
    labels: tuple[str, ...] = ("ECG I", "ECG V1"),
    notes: dict[int, bytes] | None = None,
) -> Path:
    """Write data records of one second, 1000 units of 1 uV a mV, after sections 2.1 and 2.2."""
    width = 3 if kind.startswith("B") else 2
    lowest, highest = -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1
    names = [*labels, f"{kind[:3]} Annotations"]
    n_samples = [*(RATES[label] for label in labels), 60]
    head = (b"\xffBIOSEMI" if width == 3 else field("0", 8)) + field("MCH-1 F 02-MAY-1951 Somebody", 80)
    head += field("Startdate 02-MAR-2002 X X X", 80) + b"02.03.02" + b"23.59.58" + field(256 * (len(names) + 1), 8)
    head += field(kind, 44) + field(len(onsets), 8) + field(1, 8) + field(len(names), 4)
    head += b"".join(field(name, 16) for name in names) + b" " * 80 * len(names)
    head += b"".join(field("uV" if name in labels else "", 8) for name in names)
    head += b"".join(field(v, 8) for v in [lowest] * len(labels) + [-1])
    head += b"".join(field(v, 8) for v in [highest] * len(labels) + [1])
    head += b"".join(field(lowest, 8) for _ in names) + b"".join(field(highest, 8) for _ in names)
    head += b" " * 80 * len(names) + b"".join(field(n, 8) for n in n_samples) + b" " * 32 * len(names)
    body = b""
    for i, onset in enumerate(onsets):
        for label in labels:
            body += b"".join(int(v).to_bytes(width, "little", signed=True) for v in counts(label, i))
        body += (tal(onset, "", "")[:-2] + b"\x14\x00" + (notes or {}).get(i, b"")).ljust(60 * width, b"\x00")
    path = folder / f"rec.{kind[:3].lower()}"
    path.write_bytes(head + body)
    return path


@pytest.mark.parametrize("kind", ["EDF+D", "BDF+D"])
def test_data_records_lie_where_their_time_says(tmp_path, kind):
    record = edf.read(write(tmp_path, kind), None, None, None, None)
    assert (record.fs, record.leads, record.signal.shape) == (250, ("I", "V1"), (2, 5001 * 250))
    assert record.start_time == datetime(2002, 3, 2, 23, 59, 58, 250000)
    assert (record.age, record.sex) == (50, "female")
    assert "Somebody" not in repr(record)
    for i, at_s in enumerate((0, 1, 5, 5000)):
        for row, label in enumerate(("ECG I", "ECG V1")):
            found = record.signal[row, at_s * 250 : (at_s + 1) * 250]
            np.testing.assert_allclose(found, counts(label, i) / 1000, atol=1e-6)
    assert np.isfinite(record.signal).sum() == 2 * 4 * 250
    assert np.isnan(record.signal[:, 500:1250]).all()


@pytest.mark.parametrize(("start_s", "end_s"), [(0.5, 1.5), (1.5, 5.5), (2.5, 3), (4999.9, 5001), (0, 5001)])
def test_a_slice_equals_the_cut(tmp_path, start_s, end_s):
    path = write(tmp_path)
    whole, part = edf.read(path, None, None, None, None), edf.read(path, start_s, end_s, None, None)
    np.testing.assert_array_equal(part.signal, whole.signal[:, round(start_s * 250) : round(end_s * 250)])
    assert part.start_s == pytest.approx(start_s)


def test_annotations_keep_their_time(tmp_path):
    notes = {0: tal("+1.25", "palpitations", "dizzy"), 2: tal("+5.75", "Herzklopfen ä", duration="0.3")}
    path = write(tmp_path, notes=notes)
    found = [(a.kind, a.code, a.start_s, a.end_s) for a in read(path).annotations]
    assert found == [
        ("note", "palpitations", 1.0, 1.0),
        ("note", "dizzy", 1.0, 1.0),
        ("note", "Herzklopfen ä", 5.5, pytest.approx(5.8)),
    ]
    part = read(path, start_s=5, end_s=6).annotations
    assert [(a.code, a.start_s) for a in part] == [("Herzklopfen ä", 0.5)]


def test_annotations_of_a_continuous_file(tmp_path):
    onsets = ("+0.25", "+1.25", "+2.25", "+3.25")
    record = read(write(tmp_path, "EDF+C", onsets, notes={1: tal("+1.5", "start", duration="2")}))
    assert [(a.kind, a.code, a.start_s, a.end_s) for a in record.annotations] == [("note", "start", 1.25, 3.25)]
    part = read(tmp_path / "rec.edf", start_s=1, end_s=2)
    assert [(a.code, a.start_s, a.end_s) for a in part.annotations] == [("start", 0.25, 1.0)]


def test_own_layout_agrees_with_pyedflib(tmp_path):
    import pyedflib

    path = write(tmp_path, "EDF+C", ("+0", "+1", "+2", "+3"), labels=("ECG I", "ECG II"))
    with pyedflib.EdfReader(str(path)) as reader:
        theirs = [reader.readSignal(i) for i in range(2)]
        rates = [reader.getSampleFrequency(i) for i in range(2)]
    assert [c.rate_hz for c in parse_layout(path).channels] == rates
    data = bytearray(path.read_bytes())
    data[192:197] = b"EDF+D"
    path.write_bytes(data)
    ours = edf.read(path, None, None, None, None)
    np.testing.assert_allclose(ours.signal[0], theirs[0] / 1000, atol=1e-6)
    np.testing.assert_allclose(ours.signal[1, ::2][20:-20], (theirs[1] / 1000)[20:-20], atol=2e-3)


def test_leads_of_our_own_files_are_named_as_they_were(tmp_path):
    """A file that we wrote and another program made discontinuous; all of it, a slice, and its extent agree."""
    path = write(tmp_path, labels=("ECG I", "ECG chest"))
    data = bytearray(path.read_bytes())
    data[88:168] = field("Startdate 02-MAR-2002 X X AnyECG", 80)
    path.write_bytes(data)
    assert read(path).leads == ("I", "chest")
    assert read(path, start_s=5, end_s=6).leads == ("I", "chest")
    assert edf.extent(path, None, None).leads == ("I", "chest")


def test_several_rates_and_other_channels(tmp_path):
    record = read(write(tmp_path, labels=("ECG I", "ECG II", "Resp", "Status")))
    assert record.leads == ("I", "II")
    assert record.fs == 250
    assert any("Resp, Status" in warning for warning in record.warnings)
    assert any("brought to 250 Hz: ECG II" in warning for warning in record.warnings)
    assert np.isnan(record.signal[:, 500:1250]).all()
    np.testing.assert_allclose(record.signal[1, 1250:1500:2][5:-5], (counts("ECG II", 2) / 1000)[5:-5], atol=0.05)


@pytest.mark.parametrize(
    ("onsets", "message"),
    [
        (("+0", "+5", "+2"), "data record 3 begins at 2 s, expected 6 s or later"),
        (("+0", "+0.5"), "begins at 0.5 s"),
        (("+0", "later"), "data record 2 has no time"),
        (("+0", "+999999999999"), "the header claims"),
    ],
)
def test_times_that_cannot_be(tmp_path, onsets, message):
    with pytest.raises(ReadError, match=message):
        read(write(tmp_path, onsets=onsets))
