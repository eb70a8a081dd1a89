"""The verb ``analyze`` on long and on growing recordings, as a user meets it."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import wfdb
from pyarrow import parquet

from anyecg.readers import read
from anyecg.record import Record
from anyecg.writers import write

COMMAND = [sys.executable, "-m", "anyecg"]


def test_tables_of_a_recording(demo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, "analyze", demo_folder / "toy_ecg.csv", "--out", out, "--tables"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    beats = parquet.read_table(out / "toy_ecg.beats.parquet")
    marks = wfdb.rdann(str(out / "toy_ecg"), "atr")
    rhythms = sum(bool(note) for note in marks.aux_note)
    assert beats.num_rows > 300 and len(marks.sample) == beats.num_rows + rhythms
    assert parquet.read_table(out / "toy_ecg.minutes.parquet").num_rows == 5
    assert parquet.read_table(out / "toy_ecg.hours.parquet").num_rows == 1
    again = subprocess.run(
        [*COMMAND, "analyze", demo_folder / "toy_ecg.csv", "--out", out, "--tables"], capture_output=True, text=True
    )
    assert again.returncode == 1 and "--force" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tables"], "--out"),
        (["--follow", "--every", "0"], "--every"),
        (["--follow", "--out", "x"], "one file"),
        (["--follow", "--start", "1"], "as it comes"),
        (["--follow", "--fix-units"], "as it comes"),
    ],
)
def test_options_that_do_not_fit(demo_folder: Path, options: list[str], said: str) -> None:
    files = [demo_folder] if "one file" in said else [demo_folder / "toy_ecg.csv"]
    done = subprocess.run([*COMMAND, "analyze", *files, *options], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr


def test_control_c_ends_a_growing_recording_with_its_report(toy_record: Record, tmp_path: Path) -> None:
    write(toy_record, tmp_path / "live.hea")
    whole = (tmp_path / "live.dat").read_bytes()
    (tmp_path / "live.dat").write_bytes(whole[: len(whole) // 4])
    report = tmp_path / "live.html"
    with subprocess.Popen(
        [*COMMAND, "analyze", tmp_path / "live.hea", "--follow", "--every", "0.5", "--report", report],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        first = process.stderr.readline()
        assert "bpm" in first
        with (tmp_path / "live.dat").open("ab") as file:
            file.write(whole[len(whole) // 4 : len(whole) // 2])
        second = process.stderr.readline()
        assert "bpm" in second and second != first
        threading.Timer(0.5, process.send_signal, [signal.SIGINT]).start()
        began = time.monotonic()
        printed = process.stdout.read()
        assert process.wait(timeout=60) == 0
        assert time.monotonic() - began < 60
    assert "rhythm" in printed and "Strips worth a look" in report.read_text()
    assert read(tmp_path / "live.hea").duration_s == pytest.approx(150, abs=1)
