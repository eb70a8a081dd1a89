"""What is written comes back, nothing is overwritten, and nothing is left half-written."""

import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyecg.errors import SignalError, WriteError
from anyecg.readers import read
from anyecg.record import Annotation, Record
from anyecg.writers import counts, losses, wfdb_record, write


def make_record(**changes: object) -> Record:
    signal = np.random.default_rng(0).normal(0, 0.5, (3, 1000)).astype(np.float32)
    signal[0, 100:200] = np.nan
    record = Record(
        signal,
        fs=257.3,
        leads=("I", "II", "odd lead"),
        age=56,
        sex="female",
        weight_kg=70.5,
        start_time=datetime(2020, 1, 2, 3, 4, 5, 678900),
        derived=frozenset({"II"}),
        restored=frozenset({"odd lead"}),
        annotations=(
            Annotation(1.0, 1.0, "beat", "V"),
            Annotation(0.0, 2.0, "rhythm", "AFIB"),
            Annotation(0.0, 3.0, "diagnosis", "164889003"),
        ),
    )
    return record.with_(**changes)


@pytest.mark.parametrize(("name", "step_mv"), [("a.hea", 1e-4), ("a", 1e-4), ("a.csv", 1e-6), ("a.tsv", 1e-6)])
def test_round_trip(tmp_path, name, step_mv):
    record = make_record()
    files = write(record, tmp_path / name)
    assert all(file.is_file() for file in files)
    assert sorted(files) == sorted(tmp_path.iterdir()), "nothing else is left behind"
    again = read(tmp_path / name)
    for field in ("fs", "leads", "age", "sex", "weight_kg", "start_time", "derived", "restored", "gain_known"):
        assert getattr(again, field) == getattr(record, field), field
    np.testing.assert_allclose(again.signal, record.signal, atol=step_mv, rtol=1e-6)


def test_annotations_of_wfdb(tmp_path):
    write(make_record(), tmp_path / "a.hea")
    found = {(a.kind, a.code): a for a in read(tmp_path / "a").annotations}
    assert set(found) == {("beat", "V"), ("rhythm", "AFIB"), ("diagnosis", "164889003")}
    assert found["beat", "V"].start_s == pytest.approx(1.0, abs=0.002)
    assert found["rhythm", "AFIB"].end_s == pytest.approx(2.0, abs=0.002)


def test_annotations_of_a_record_that_is_replaced_go_with_it(tmp_path):
    """A header without annotations beside an older .atr would claim another person's beats."""
    write(make_record(), tmp_path / "a.hea")
    plain = make_record(annotations=())
    write(plain, tmp_path / "a.hea", force=True)
    assert read(tmp_path / "a.hea").annotations == ()
    (tmp_path / "b.atr").write_bytes(b"notes")
    with pytest.raises(WriteError, match=r"b\.atr: exists already"):
        write(plain, tmp_path / "b.hea")
    assert (tmp_path / "b.atr").read_bytes() == b"notes"
    assert not (tmp_path / "b.hea").exists()
    write(plain, tmp_path / "b.hea", format="wfdb-flac", force=True)
    assert not (tmp_path / "b.atr").exists()


@pytest.mark.parametrize("name", ["ECG", "ECG 1", "odd"])
def test_edf_names_a_lead_of_unknown_place_once(tmp_path, name):
    record = make_record().pick(["I"]).with_(leads=(name,))
    assert not any("lead names" in line for line in losses(record, tmp_path / "a.edf"))
    write(record, tmp_path / "a.edf")
    assert read(tmp_path / "a.edf").leads == (name,)


def test_without_annotations_there_is_no_atr(tmp_path):
    assert [p.suffix for p in write(make_record(annotations=()), tmp_path / "a")] == [".dat", ".hea"]


def test_wfdb_itself_reads_it(tmp_path):
    record = make_record()
    write(record, tmp_path / "a.hea")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wfdb

        again = wfdb.rdrecord(str(tmp_path / "a"))
    assert again.fs == 257.3
    assert again.sig_name == list(record.leads)
    np.testing.assert_allclose(again.p_signal.T, record.signal, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        stored = wfdb.rdrecord(str(tmp_path / "a"), physical=False)
    assert stored.calc_checksum() == stored.checksum


@given(
    fs=st.floats(10, 100_000, allow_nan=False),
    scale=st.sampled_from([1e-4, 0.01, 1.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, 5.0, 300.0]),
    suffix=st.sampled_from(["hea", "csv"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_any_rate_and_amplitude(tmp_path, fs, scale, offset, suffix, seed):
    rng = np.random.default_rng(seed)
    signal = (rng.uniform(-scale, scale, (2, 50)) + offset).astype(np.float32)
    signal[0, rng.integers(0, 50, 10)] = np.nan
    write(Record(signal, fs=fs, leads=("I", "X")), tmp_path / f"a.{suffix}", force=True)
    again = read(tmp_path / f"a.{suffix}")
    assert again.fs == fs
    assert np.array_equal(np.isnan(again.signal), np.isnan(signal))
    # 16 bits: a 32000th of the range, a nanovolt at the finest, and what float32 keeps of the offset
    step = max(2 * scale / 20_000, 1e-6) + 1e-6 * abs(offset + scale)
    np.testing.assert_allclose(again.signal, signal, atol=step)


def test_one_microvolt_or_finer_up_to_32_mv():
    assert counts.gain_for(-32.0, 32.0)[0] >= 1000
    assert counts.gain_for(299.0, 301.0)[0] >= 1000, "an offset costs no resolution"
    with pytest.raises(SignalError):
        counts.gain_for(-1e9, 1e9)


def test_a_single_lead_with_a_gap_keeps_its_length(tmp_path):
    signal = np.array([[0.1, np.nan, np.nan, 0.4]], dtype=np.float32)
    write(Record(signal, fs=100, leads=("I",)), tmp_path / "a.csv")
    np.testing.assert_allclose(read(tmp_path / "a.csv").signal, signal, atol=1e-6)


def test_all_nan_lead(tmp_path):
    signal = np.full((2, 10), np.nan, dtype=np.float32)
    signal[1] = np.arange(10) / 10
    for name in ("a.hea", "a.csv"):
        write(Record(signal, fs=100, leads=("I", "II")), tmp_path / name)
        assert np.isnan(read(tmp_path / name).signal[0]).all()


def test_never_overwrites(tmp_path):
    record = make_record()
    (tmp_path / "a.dat").write_bytes(b"precious")
    with pytest.raises(WriteError, match=r"a\.dat: exists already.*--force"):
        write(record, tmp_path / "a.hea")
    assert (tmp_path / "a.dat").read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.dat"]
    write(record, tmp_path / "a.hea", force=True)
    assert read(tmp_path / "a").n_leads == 3


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("bug")])
def test_nothing_is_left_half_written(tmp_path, monkeypatch, error):
    def burst(record: Record, folder: Path, path: Path) -> None:
        (folder / path.name).write_text("half")
        raise error

    monkeypatch.setattr(wfdb_record, "write", burst)
    with pytest.raises(WriteError if isinstance(error, OSError) else type(error)):
        write(make_record(), tmp_path / "a.hea")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        write(make_record(), tmp_path / "absent" / "a.csv")


@pytest.mark.parametrize(("name", "format_"), [("a.xyz", None), ("a.csv", "xyz"), ("a b.hea", None), ("ä.hea", None)])
def test_what_is_not_allowed(tmp_path, name, format_):
    with pytest.raises(ValueError, match="allowed"):
        write(make_record(), tmp_path / name, format=format_)
    assert list(tmp_path.iterdir()) == []


def test_sixteen_leads(tmp_path):
    signal = np.random.default_rng(0).normal(0, 0.5, (16, 100)).astype(np.float32)
    record = Record(signal, fs=500, leads=tuple(f"E{i}" for i in range(16)))
    for name in ("a.hea", "a.csv"):
        write(record, tmp_path / name)
        assert read(tmp_path / name).leads == record.leads


def test_a_record_of_one_format_goes_through_the_other(tmp_path, dicom_file):
    record = read(dicom_file)
    write(record, tmp_path / "a.hea")
    write(record, tmp_path / "a.csv")
    np.testing.assert_allclose(read(tmp_path / "a").signal, record.signal, atol=1e-3)
    np.testing.assert_allclose(read(tmp_path / "a.csv").signal, record.signal, atol=1e-6)
