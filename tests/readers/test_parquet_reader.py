"""Parquet written by pyarrow and pandas: columns, units, times, and our own metadata."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.record import Annotation

MV = np.random.default_rng(0).normal(0, 0.3, (2, 500)).astype(np.float32)


def test_our_own_metadata(tmp_path):
    said = {
        "version": 1,
        "fs_hz": 257.3,
        "unit": "mV",
        "age": 61.5,
        "sex": "female",
        "weight_kg": 70.5,
        "start_time": "2020-05-04T03:02:01.5",
        "source_fs_hz": 500.0,
        "gain_known": False,
        "derived": ["II"],
        "restored": ["I"],
        "annotations": [{"start_s": 1.0, "end_s": None, "kind": "rhythm", "code": "AFIB", "lead": None, "score": None}],
        "warnings": ["bent"],
    }
    signal = MV.copy()
    signal[0, 7] = np.nan
    schema = pa.schema([("I", pa.float32()), ("II", pa.float32())], metadata={"anyecg": json.dumps(said)})
    pq.write_table(pa.table(dict(zip(("I", "II"), signal, strict=True)), schema=schema), tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(record.signal, signal)
    assert (record.format, record.fs, record.source_fs) == ("parquet", 257.3, 500)
    assert (record.age, record.sex, record.weight_kg, record.gain_known) == (61.5, "female", 70.5, False)
    assert (record.derived, record.restored) == ({"II"}, {"I"})
    assert record.start_time is not None and record.start_time.isoformat() == "2020-05-04T03:02:01.500000"
    assert record.annotations == (Annotation(1, float("inf"), "rhythm", "AFIB"),)
    assert "bent" in record.warnings
    assert read(tmp_path / "a.parquet", start_s=0.5).annotations[0].start_s == pytest.approx(0.5, abs=0.01)


def test_a_frame_of_pandas(tmp_path):
    frame = pd.DataFrame({"II [uV]": MV[0] * 1000, "V1 [uV]": MV[1] * 1000, "label": ["N"] * 500})
    frame.index = pd.date_range("2020-05-04T03:02:01", periods=500, freq="4ms", name="time")
    frame.iloc[3, 0] = None
    frame.to_parquet(tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet")
    assert (record.fs, record.leads) == (250, ("II", "V1"))
    assert record.start_time is not None and record.start_time.isoformat() == "2020-05-04T03:02:01"
    assert np.isnan(record.signal[0, 3]) and np.isnan(record.signal).sum() == 1
    assert record.signal[1] == pytest.approx(MV[1], abs=1e-6)
    assert any("label" in warning for warning in record.warnings)


def test_what_is_not_said_is_asked_for(tmp_path):
    pq.write_table(pa.table({"I": MV[0], "II": MV[1]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match="--fs"):
        read(tmp_path / "a.parquet", unit="mV")
    with pytest.raises(ReadError, match="--unit"):
        read(tmp_path / "a.parquet", fs=250)
    assert read(tmp_path / "a.parquet", fs=250, unit="mV").leads == ("I", "II")


def test_integers_and_metadata_of_others(tmp_path):
    counts = np.array([1, -32768, 3], np.int16)
    table = pa.table({"II": counts}).replace_schema_metadata({"sampling_rate": "250", "unit": "uV", "sex": "M"})
    pq.write_table(table, tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet")
    np.testing.assert_allclose(record.signal, [[0.001, np.nan, 0.003]], rtol=1e-6)
    assert (record.fs, record.sex) == (250, "male")


@pytest.mark.parametrize("said", ["[]", "{", '{"version": 2}', '{"version": 1, "fs_hz": "many", "unit": "mV"}'])
def test_metadata_that_are_none(tmp_path, said):
    pq.write_table(pa.table({"I": MV[0]}).replace_schema_metadata({"anyecg": said}), tmp_path / "a.parquet")
    with pytest.raises(ReadError):
        read(tmp_path / "a.parquet")


def test_damage(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"I": MV[0]}), path)
    data = path.read_bytes()
    for tenth in range(1, 10):
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(ReadError):
            read(path, fs=250, unit="mV")


@pytest.mark.parametrize("at_once", [0, 10**9])
def test_columns_one_by_one_and_at_once(tmp_path, monkeypatch, at_once):
    """Two of one name are two; texts are not read, and a nested column is no lead."""
    monkeypatch.setattr("anyecg.readers.tabular.parquet.AT_ONCE_VALUES", at_once)
    nested = pa.array([{"x": 1.0}] * 500)
    table = pa.table([pa.array(["a"] * 500), pa.array(MV[0]), nested, pa.array(MV[1])], names=["s", "I", "n", "II"])
    pq.write_table(table, tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet", fs=500, unit="mV")
    assert record.leads == ("I", "II")
    np.testing.assert_array_equal(record.signal, MV)
    assert "skipped, not numbers: s, n" in record.warnings


def test_two_columns_of_one_name(tmp_path):
    pq.write_table(pa.table([pa.array(MV[0]), pa.array(MV[1])], names=["I", "I"]), tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet", fs=500, unit="mV")
    assert record.leads == ("I", "I#2")
    np.testing.assert_array_equal(record.signal, MV)
