"""Recordings that a thread still writes while they are read."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import follow, read
from anyecg.record import Record
from anyecg.writers import write

FS = 250.0
QUICK = {"poll_s": 0.01, "idle_s": 0.4}


@pytest.fixture
def record() -> Record:
    t = np.arange(7500) / FS
    beat = np.exp(-(((t % 0.83 - 0.4) / 0.012) ** 2))
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 7500))
    return Record(np.stack([beat, 0.7 * beat]) + noise, FS, ("I", "II"))


@pytest.fixture
def appending() -> Callable[[Path, bytes, int], threading.Thread]:
    """Return a function that appends bytes to a file from a thread, an odd number at a time."""
    threads = []

    def start(path: Path, data: bytes, n_parts: int = 12) -> threading.Thread:
        def run() -> None:
            step = len(data) // n_parts + 1
            for at in range(0, len(data), step):
                time.sleep(0.03)
                with path.open("ab") as file:
                    file.write(data[at : at + step])

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join()


def together(found: list[Record]) -> np.ndarray:
    n_before = 0
    for part in found:
        assert round(part.start_s * part.fs) == n_before
        assert (part.leads, part.fs) == (found[0].leads, found[0].fs)
        n_before += part.n_samples
    return np.concatenate([part.signal for part in found], axis=1)


@pytest.mark.parametrize("count", ["", " 0", " 7500", " 999999999"])
def test_wfdb_whatever_its_header_counts(tmp_path: Path, record: Record, appending, count: str) -> None:
    write(record, tmp_path / "whole.hea")
    whole = read(tmp_path / "whole.hea")  # wfdb is imported now, not while the thread writes
    header = (tmp_path / "whole.hea").read_text().replace(" 7500", count, 1)
    (tmp_path / "a.hea").write_text(header.replace("whole", "a"))
    data = (tmp_path / "whole.dat").read_bytes()
    (tmp_path / "a.dat").write_bytes(data[:1003])  # 250 whole samples of both leads and three bytes
    appending(tmp_path / "a.dat", data[1003:])
    found = list(follow(tmp_path / "a.hea", **QUICK))
    assert len(found) > 3
    np.testing.assert_array_equal(together(found), whole.signal)
    assert not [w for part in found for w in part.warnings]


@pytest.mark.parametrize("n_records", [b"-1      ", b"1       "])
def test_edf_whose_count_is_stale(tmp_path: Path, record: Record, appending, n_records: bytes) -> None:
    write(record, tmp_path / "whole.edf")
    data = bytearray((tmp_path / "whole.edf").read_bytes())
    data[236:244] = n_records
    (tmp_path / "a.edf").write_bytes(data[:900])  # not even the header is whole
    appending(tmp_path / "a.edf", bytes(data[900:]))
    found = list(follow(tmp_path / "a.edf", **QUICK))
    assert len(found) > 3
    np.testing.assert_array_equal(together(found), read(tmp_path / "whole.edf").signal)
    assert not [w for part in found for w in part.warnings]


def test_bdf_and_a_file_that_is_made_later(tmp_path: Path, make_edf, appending) -> None:
    sample = make_edf(".bdf", n_seconds=30)
    appending(tmp_path / "later.bdf", sample.path.read_bytes())
    found = list(follow(tmp_path / "later.bdf", **QUICK))
    np.testing.assert_array_equal(together(found), read(sample.path).signal)


@pytest.mark.parametrize("times", [False, True])
def test_a_table_row_by_row(tmp_path: Path, record: Record, appending, times: bool) -> None:
    """A row that is half written waits: 0.1 of 0.123 is another number."""
    if times:
        rows = "".join(f"{i * 4},{x:.4f},{y:.4f}\n" for i, (x, y) in enumerate(record.signal.T))
        (tmp_path / "whole.csv").write_text(f"time [ms],I [mV],II [mV]\n{rows}")
    else:
        write(record, tmp_path / "whole.csv")
    data = (tmp_path / "whole.csv").read_bytes()
    appending(tmp_path / "a.csv", data)
    found = list(follow(tmp_path / "a.csv", **QUICK))
    assert len(found) > 1
    np.testing.assert_array_equal(together(found), read(tmp_path / "whole.csv").signal)
    assert {part.id for part in found} == {"a"}


def test_a_long_backlog_comes_in_stretches(tmp_path: Path, record: Record) -> None:
    long = record.with_(signal=np.tile(record.signal, (1, 41)))
    write(long, tmp_path / "a.hea")
    found = list(follow(tmp_path / "a.hea", poll_s=0.0, idle_s=0.0))
    assert [part.duration_s for part in found] == [600, 600, 30]
    np.testing.assert_array_equal(together(found), read(tmp_path / "a.hea").signal)


def test_it_ends_when_told_to(tmp_path: Path, record: Record) -> None:
    write(record, tmp_path / "a.hea")
    asked = []
    found = list(
        follow(tmp_path / "a.hea", poll_s=0.0, idle_s=60, stop=lambda: bool(asked.append(0) or len(asked) > 2))
    )
    assert (len(found), len(asked)) == (1, 3)


def test_what_cannot_be_followed(tmp_path: Path, record: Record) -> None:
    quick = {"poll_s": 0.0, "idle_s": 0.05}
    with pytest.raises(ReadError, match="no such file"):
        list(follow(tmp_path / "absent.hea", **quick))
    np.save(tmp_path / "a.npy", record.signal)
    with pytest.raises(ReadError, match="numpy cannot be read while it grows"):
        list(follow(tmp_path / "a.npy", fs=250, unit="mV", **quick))
    (tmp_path / "a.csv").write_text("I [mV]\n0.1\n0.2\n")
    with pytest.raises(ReadError, match=r"a\.csv: no sampling rate"):
        list(follow(tmp_path / "a.csv", **quick))
    with pytest.raises(ValueError, match="idle_s is nan"):
        follow(tmp_path / "a.csv", idle_s=float("nan"))
