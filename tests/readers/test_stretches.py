"""A recording stretch by stretch: together the stretches are the recording, whatever the rate and the format."""

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import cheap_extent, edf, extent, read, stretches
from anyecg.readers.dicom.parts import waves_of
from anyecg.record import Annotation, Record
from anyecg.writers import write

LEADS = ("I", "II", "V1")


def together(records: list[Record]) -> np.ndarray:
    """Lay the signals end to end, after checking that each begins where the one before ends."""
    for before, after in pairwise(records):
        assert after.start_s == pytest.approx(before.start_s + before.duration_s, abs=0.01 / before.fs)
        assert (after.leads, after.fs) == (before.leads, before.fs)
    return np.concatenate([record.signal for record in records], axis=1)


def day_mv(n: int, fs: float, n_leads: int = 3) -> np.ndarray:
    """Return beats and noise whose samples are all of different times."""
    t = np.arange(n) / fs
    beat = np.exp(-(((t % 0.83 - 0.4) / 0.012) ** 2)) + 0.2 * np.exp(-(((t % 0.83 - 0.62) / 0.05) ** 2))
    noise = np.random.default_rng(0).normal(0, 0.01, (n_leads, n))
    return np.stack([(1 + 0.2 * i) * beat + 0.05 * np.sin(0.3 * t + i) for i in range(n_leads)]) + noise


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are read stretch by stretch although they are small."""
    monkeypatch.setattr(sys.modules["anyecg.readers.stretches"], "SMALL_BYTES", 0)
    return tmp_path


def test_a_small_file_is_read_once_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = tuple(Annotation(s, s, "beat", "N") for s in (1.0, 10.0))
    write(Record(day_mv(5000, 250.0), 250.0, LEADS, annotations=beats), tmp_path / "a.edf")
    whole = read(tmp_path / "a.edf")
    times = []
    real = edf.read
    monkeypatch.setattr(edf, "read", lambda *arguments: times.append(0) or real(*arguments))
    found = list(stretches(tmp_path / "a.edf", stretch_s=10))
    assert len(times) == 1
    np.testing.assert_array_equal(together(found), whole.signal)
    assert [a.start_s for r in found for a in r.annotations if a.kind == "beat"] == [1.0, 0.0]


@pytest.mark.parametrize("fs", [250.0, 257.3, 128.0001])
@pytest.mark.parametrize(
    ("name", "form"), [("a.hea", None), ("a.hea", "wfdb-flac"), ("a.edf", None), ("a.csv", None), ("a.dcm", None)]
)
def test_no_sample_is_lost_or_twice(folder: Path, fs: float, name: str, form: str | None) -> None:
    n = int(61 * fs) + 7
    write(Record(day_mv(n, fs), fs, LEADS), folder / name, format=form)
    whole = read(folder / name)
    found = list(stretches(folder / name, stretch_s=10))
    assert len(found) == 7
    np.testing.assert_array_equal(together(found), whole.signal)
    assert [round(r.start_s * whole.fs) for r in found] == [round(10 * i * whole.fs) for i in range(7)]
    part = list(stretches(folder / name, start_s=3.21, end_s=33.3, stretch_s=10))
    assert [round(r.start_s, 1) for r in part] == [3.2, 10.0, 20.0, 30.0]
    np.testing.assert_array_equal(together(part), read(folder / name, start_s=3.21, end_s=33.3).signal)
    known = extent(folder / name)
    assert (known.n_samples, known.fs, known.leads) == (whole.n_samples, whole.fs, LEADS)
    assert known.duration_s == pytest.approx(whole.duration_s)


def array_file(path: Path, signal: np.ndarray, fs: float) -> dict[str, object]:
    """Write a signal in mV as an array, and return what reading it must be told."""
    if path.suffix == ".npy":
        np.save(path, signal.T if "turned" in path.name else signal)
        return {"fs": fs, "unit": "mV"}
    if path.suffix == ".mat":
        import scipy.io

        scipy.io.savemat(path, {"val": np.round(signal * 1000).astype(np.int16), "fs": fs, "unit": "uV"})
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            chunks = {"chunks": (1, 1000), "compression": "gzip"} if "packed" in path.name else {}
            file.create_dataset("ecg", data=signal, **chunks)
            file.attrs.update({"fs": fs, "unit": "mV"})
    else:
        write(Record(signal, fs, LEADS), path)
    return {}


ARRAYS = ["a.npy", "turned.npy", "a.mat", "a.h5", "packed.h5", "a.parquet"]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_by_stretches(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("anyecg.readers.tabular.parquet.AT_ONCE_VALUES", 0)
    monkeypatch.setattr("anyecg.writers.parquet.GROUP_ROWS", 1000)
    fs = 257.3
    n = int(61 * fs) + 7
    given = array_file(folder / name, day_mv(n, fs).astype(np.float32), fs)
    whole = read(folder / name, **given)
    known = cheap_extent(folder / name, given.get("fs"), given.get("unit"))
    assert known is not None
    assert (known.n_samples, known.fs, known.leads) == (n, fs, whole.leads)
    found = list(stretches(folder / name, stretch_s=10, **given))
    assert len(found) == 7
    np.testing.assert_array_equal(together(found), whole.signal)
    assert [w for r in found for w in r.warnings] == list(whole.warnings)
    part = read(folder / name, start_s=3.21, end_s=33.3, **given)
    np.testing.assert_array_equal(part.signal, whole.signal[:, round(3.21 * fs) : round(33.3 * fs)])


def test_what_no_slice_is_cheap_of_is_read_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py
    import scipy.io

    signal = day_mv(2000, 250.0)
    scipy.io.savemat(folder / "a.mat", {"val": signal, "fs": 250.0, "unit": "mV"}, do_compression=True)
    np.savez(folder / "a.npz", ecg=signal, fs=250.0, unit="mV")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("ecg", data=signal, chunks=signal.shape, compression="gzip")
        file.attrs.update({"fs": 250.0, "unit": "mV"})
    with h5py.File(folder / "times.h5", "w") as file:  # gaps would be seen only in the times of all samples
        file["ecg"], file["time"] = signal, np.arange(2000) / 250
        file.attrs["unit"] = "mV"
    monkeypatch.setattr("anyecg.readers.tabular.hdf5.SLICED_CHUNK_BYTES", signal.nbytes - 1)
    write(Record(signal, 250.0, LEADS), folder / "a.parquet")
    monkeypatch.setattr("anyecg.readers.tabular.parquet.MOST_GROUP_ROWS", 1999)
    for name in ("a.mat", "a.npz", "a.h5", "times.h5", "a.parquet"):
        assert cheap_extent(folder / name, None, None) is None, name
        assert extent(folder / name).n_samples == 2000, name


@pytest.mark.parametrize("with_gap", [False, True])
def test_whole_numbers_of_parquet_mean_the_same_in_every_slice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, with_gap: bool
) -> None:
    """-32768 is a mark among 16-bit numbers; a null anywhere makes the column one of others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr("anyecg.readers.tabular.parquet.AT_ONCE_VALUES", 0)
    counts = np.round(day_mv(9000, 250.0, 1)[0] * 1000).astype(np.int16)
    counts[100:103] = -32768
    values = pa.array(counts, mask=np.arange(9000) == 8500) if with_gap else pa.array(counts)
    schema = pa.schema([("II [uV]", pa.int16())], metadata={"fs_hz": "250"})
    pq.write_table(pa.Table.from_arrays([values], schema=schema), folder / "a.parquet", row_group_size=1000)
    whole = read(folder / "a.parquet")
    np.testing.assert_array_equal(together(list(stretches(folder / "a.parquet", stretch_s=10))), whole.signal)


def test_what_fits_one_stretch_is_what_read_returns(folder: Path) -> None:
    write(Record(day_mv(2000, 250.0), 250.0, LEADS), folder / "a.hea")
    [only] = stretches(folder / "a.hea")
    whole = read(folder / "a.hea")
    np.testing.assert_array_equal(only.signal, whole.signal)
    assert (only.warnings, only.start_s, only.annotations) == (whole.warnings, 0.0, whole.annotations)


def test_annotations_are_counted_from_each_stretch(folder: Path) -> None:
    beats = tuple(Annotation(s, s, "beat", "N") for s in (1.0, 9.996, 10.0, 25.5))
    rhythm = Annotation(8.0, 22.0, "rhythm", "AFIB")
    record = Record(day_mv(7500, 250.0), 250.0, LEADS, annotations=(*beats, rhythm))
    for name in ("a.hea", "a.edf"):
        write(record, folder / name)
        found = [
            [(a.kind, round(a.start_s, 3), round(a.end_s, 3)) for a in r.annotations if a.kind != "note"]
            for r in stretches(folder / name, stretch_s=10)
        ]
        assert sorted(found[0]) == [("beat", 1.0, 1.0), ("beat", 9.996, 9.996), ("rhythm", 8.0, 10.0)], name
        assert sorted(found[1]) == [("beat", 0.0, 0.0), ("rhythm", 0.0, 10.0)]
        assert sorted(found[2]) == [("beat", 5.5, 5.5), ("rhythm", 0.0, 2.0)]


def test_a_wrong_unit_is_corrected_alike_everywhere(folder: Path) -> None:
    """The first stretch with an ECG decides: here the middle one is flat, and the last alone would be left as it is."""
    signal = day_mv(10_000, 250.0)
    signal[:, 2500:5000] = 0.0
    signal[:, 5000:] *= 0.01
    np.save(folder / "a.npy", 1000 * signal)
    write(Record(1000 * signal, 250.0, LEADS), folder / "a.hea")
    found = list(stretches(folder / "a.hea", fix_units=True, stretch_s=10))
    np.testing.assert_allclose(together(found), signal, atol=0.02)
    assert "multiplied by 0.001" in " ".join(found[0].warnings)
    assert not any("fix_units" in w or "multiplied" in w for r in found[1:] for w in r.warnings)
    plain = list(stretches(folder / "a.hea", stretch_s=10))
    np.testing.assert_allclose(together(plain), 1000 * signal, atol=20)
    assert sum("fix_units" in w for r in plain for w in r.warnings) == 1


def test_a_mark_found_once_is_a_mark_everywhere(folder: Path) -> None:
    counts = np.round(day_mv(5000, 250.0, 1) * 200).astype("<i2")
    counts[0, [50, 51, 52, 3000]] = -9999
    counts.tofile(folder / "a.dat")
    (folder / "a.hea").write_text("a 1 250 5000\na.dat 16 200/mV 16 0 0 0 0 II\n")
    missing = [np.flatnonzero(np.isnan(r.signal[0])).tolist() for r in stretches(folder / "a.hea", stretch_s=10)]
    assert missing == [[50, 51, 52], [500]]
    alone = read(folder / "a.hea", start_s=10.0)
    assert np.isfinite(alone.signal).all()  # one such value alone might be an artefact


def test_each_warning_once_and_later_ones_with_their_time(folder: Path) -> None:
    signal = day_mv(10_000, 250.0)
    signal[1, 5000:] = np.nan
    write(Record(signal, 250.0, LEADS), folder / "a.hea")
    header = folder / "a.hea"
    header.write_text(header.read_text().replace(" V1", " Resp"))
    warnings = [list(r.warnings) for r in stretches(header, stretch_s=10)]
    assert warnings == [["skipped, not an ECG: Resp"], [], ["from 0:00:20 on: nothing was recorded in II"], []]
    asked = [w for r in stretches(header, start_s=15, end_s=35, stretch_s=10) for w in r.warnings]
    assert not any("asked until" in w for w in asked)
    [beyond] = [w for r in stretches(header, end_s=99, stretch_s=10) for w in r.warnings if "asked" in w]
    assert beyond == "asked until 99 s, but the record ends at 40.000 s"


def test_wrong_arguments_are_refused_at_once(folder: Path) -> None:
    for arguments in ({"stretch_s": 0}, {"stretch_s": float("nan")}, {"start_s": 5, "end_s": 2}, {"fs": -1}):
        with pytest.raises(ValueError, match="allowed"):
            stretches(folder / "a.hea", **arguments)
    with pytest.raises(ReadError, match="no such file"):
        next(stretches(folder / "a.hea"))
    with pytest.raises(ReadError, match="no such file"):
        extent(folder / "a.hea")


def until_it_fails(found: Iterator[Record]) -> tuple[list[Record], ReadError]:
    records = []
    with pytest.raises(ReadError) as caught:
        for record in found:
            records.append(record)
    return records, caught.value


def test_a_damaged_block_in_flac(folder: Path) -> None:
    """What lies before the damage is there; the message says from when on nothing can be read."""
    write(Record(day_mv(60_000, 250.0), 250.0, LEADS), folder / "a.hea", format="wfdb-flac")
    whole = read(folder / "a.hea")
    [file] = folder.glob("a.[fd]*")
    data = bytearray(file.read_bytes())
    data[len(data) * 6 // 10 : len(data) * 7 // 10] = bytes(len(data) // 10)
    file.write_bytes(data)
    records, error = until_it_fails(stretches(folder / "a.hea", stretch_s=50))
    signal = together(records)
    assert 120 < signal.shape[1] / 250 < 160
    np.testing.assert_array_equal(signal, whole.signal[:, : signal.shape[1]])
    assert f"cannot be read from {signal.shape[1] / 250:.1f} s on" in str(error)
    assert "\n" not in str(error)


def test_a_signal_file_that_is_cut_while_it_is_read(folder: Path) -> None:
    write(Record(day_mv(10_000, 250.0), 250.0, LEADS), folder / "a.edf")
    whole = read(folder / "a.edf")
    found = stretches(folder / "a.edf", stretch_s=10)
    first = next(found)
    data = (folder / "a.edf").read_bytes()
    (folder / "a.edf").write_bytes(data[: len(data) * 3 // 8])
    rest, error = until_it_fails(found)
    signal = together([first, *rest])
    np.testing.assert_array_equal(signal, whole.signal[:, : signal.shape[1]])
    assert 13 <= signal.shape[1] / 250 <= 15
    assert f"cannot be read from {signal.shape[1] / 250:.1f} s on (it became shorter" in str(error)
    assert not any("asked until" in w for r in rest for w in r.warnings)


def test_an_error_at_the_start_stays_as_it_is(folder: Path) -> None:
    write(Record(day_mv(1000, 250.0), 250.0, LEADS), folder / "a.hea")
    (folder / "a.dat").unlink()
    with pytest.raises(ReadError, match=r"a\.dat that it names is missing"):
        next(stretches(folder / "a.hea"))


def test_segments_whose_leads_come_and_go(folder: Path) -> None:
    for name, leads in (("a_1", ("I", "II")), ("a_2", ("II", "V1"))):
        write(Record(day_mv(2500, 250.0, 2), 250.0, leads), folder / f"{name}.hea")
    (folder / "a_layout.hea").write_text("a_layout 2 250 0\n~ 0 200/mV 16 0 0 0 0 I\n~ 0 200/mV 16 0 0 0 0 II\n")
    (folder / "a.hea").write_text("a/4 2 250 10000\na_layout 0\na_1 2500\n~ 5000\na_2 2500\n")
    found = list(stretches(folder / "a.hea", stretch_s=10))
    assert together(found).shape == (2, 10_000)
    recorded = [np.isfinite(r.signal).any(axis=1).tolist() for r in found]
    assert recorded == [[True, True], [False, False], [False, False], [False, True]]
    assert "leads that begin after the start were not read: V1" in found[3].warnings


@pytest.fixture(scope="module")
def two_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of three leads at 250 Hz: 22 MB as float32, 1.8 MB a stretch."""
    folder = tmp_path_factory.mktemp("hours")
    signal = np.tile(day_mv(150_000, 250.0).astype(np.float32), (1, 12))
    beats = tuple(Annotation(s, s, "beat", "N") for s in np.arange(1.0, 7200.0).tolist())
    write(Record(signal, 250.0, LEADS, annotations=beats), folder / "w.hea")
    write(Record(signal, 250.0, LEADS), folder / "f.hea", format="wfdb-flac")
    write(Record(signal, 250.0, LEADS), folder / "e.edf")
    for name in ARRAYS:
        array_file(folder / name, signal, 250.0)
    return folder


@pytest.mark.parametrize("name", ["w.hea", "f.hea", "e.edf", *ARRAYS])
def test_memory_is_that_of_a_stretch(two_hours: Path, name: str) -> None:
    given = {"fs": 250.0, "unit": "mV"} if name.endswith(".npy") else {}
    next(stretches(two_hours / name, **given))  # what is imported and parsed once
    tracemalloc.start()
    try:
        n_samples = 0
        for record in stretches(two_hours / name, **given):
            n_samples += record.n_samples
            stretch_bytes = record.signal.nbytes
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_samples == 1_800_000
    # One stretch while the next is read: two of them, and what reading needs besides.
    assert peak_bytes < 4 * stretch_bytes


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_a_part_of_dicom_is_a_whole_short_file(folder: Path, implicit: bool, undefined: bool) -> None:
    import pydicom

    signal = day_mv(5001, 250.0)
    write(Record(signal, 250.0, LEADS), folder / "a.dcm")
    dataset = pydicom.dcmread(folder / "a.dcm")
    dataset["WaveformSequence"].is_undefined_length = undefined
    dataset.WaveformSequence[0].is_undefined_length_sequence_item = undefined
    if implicit:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(folder / "b.dcm", implicit_vr=implicit, little_endian=True)
    whole = read(folder / "b.dcm")
    waves = waves_of(folder / "b.dcm")
    assert waves is not None
    assert (waves.n_samples, waves.rate_hz, waves.frame_bytes) == (5001, 250.0, 6)
    for first, last in ((0, 1), (1000, 1999), (4000, 5001)):
        (folder / "part.dcm").write_bytes(waves.part(first, last))
        np.testing.assert_array_equal(read(folder / "part.dcm").signal, whole.signal[:, first:last])
    data = (folder / "b.dcm").read_bytes()
    for tenth in range(10):
        (folder / "cut.dcm").write_bytes(data[: len(data) * tenth // 10])
        assert waves_of(folder / "cut.dcm") is None


def test_several_groups_of_dicom_are_not_cut(dicom_file: Path) -> None:
    """Its second group is the median beat."""
    assert waves_of(dicom_file) is None
