"""Several processes over many files: the same rows in the same order, one bad file, one dead process, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyecg.cli import app
from anyecg.cli.workers import LOST, side_by_side
from anyecg.errors import AnyECGError

WORK = """
import os, sys, time
def work(path):
    if path.name == "deadly":
        os._exit(9)
    if path.name == "wrong":
        raise ValueError("as it should")
    if path.name == "slow":
        time.sleep(600)
    print("chatter of a library")
    return os.getpid(), path.name
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Any]]:
    """A function that other processes can import, too."""
    (tmp_path / "work_of_workers.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("work_of_workers").work
    del sys.modules["work_of_workers"]


def names(n: int) -> list[Path]:
    return [Path(f"f{i}") for i in range(n)]


def ended(pid: int, kill: Callable[[int, int], None] = os.kill) -> bool:
    """Say whether a process, or with `os.killpg` a group of them, is gone, or soon is."""
    for _ in range(100):
        try:
            kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_results_come_in_order_from_several_processes(work: Callable[[Path], Any]) -> None:
    files = [*names(20), Path("wrong"), *names(3)]
    jobs = list(side_by_side(work, files, 2))
    assert [path for path, _ in jobs] == files
    found = [result() for path, result in jobs if path.name != "wrong"]
    assert [name for _, name in found] == [path.name for path in files if path.name != "wrong"]
    assert os.getpid() not in {pid for pid, _ in found}
    with pytest.raises(ValueError, match="as it should"):
        jobs[20][1]()


def test_a_process_that_dies_does_not_take_all_with_it(work: Callable[[Path], Any]) -> None:
    files = [Path("deadly"), *names(60)]
    good, lost = [], []
    for path, result in side_by_side(work, files, 2):
        try:
            good.append(result()[1])
        except AnyECGError as error:
            assert str(error) == LOST
            lost.append(path.name)
    assert lost[0] == "deadly" and len(lost) < 20
    assert good == [path.name for path in files if path.name not in lost]


def test_closed_early_nothing_is_left_running(work: Callable[[Path], Any]) -> None:
    jobs = side_by_side(work, [*names(2), *[Path("slow")] * 20], 2)
    _, first = next(jobs)
    pid, _ = first()
    jobs.close()
    assert ended(pid)


@pytest.fixture
def ward(tmp_path: Path, dicom_file: Path) -> Path:
    folder = tmp_path / "ward"
    folder.mkdir()
    for i in range(3):
        shutil.copy(dicom_file, folder / f"{i}.dcm")
    (folder / "bad.csv").write_text("x")
    return folder


def test_embed_writes_the_same_with_workers(ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (1, 2):
        with pytest.raises(SystemExit) as end:
            app(["embed", str(ward), "-o", str(tmp_path / f"{n}.npz"), "--workers", str(n)])
        assert end.value.code == 1
        assert capsys.readouterr().err.splitlines()[-1] == "error: 1 of 4 failed"
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "2.npz") as two:
        assert set(one) == set(two) == {"path", "id", "pooled"}
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_embeddings_as_parquet(ward: Path, tmp_path: Path) -> None:
    from pyarrow.parquet import read_table

    with pytest.raises(SystemExit):
        app(["embed", str(ward), "-o", str(tmp_path / "all.parquet")])
    with pytest.raises(SystemExit):
        app(["embed", str(ward), "-o", str(tmp_path / "all.npz")])
    table = read_table(tmp_path / "all.parquet")
    assert table.column_names == ["path", "id", "embedding"]
    with np.load(tmp_path / "all.npz") as stored:
        assert table["path"].to_pylist() == list(stored["path"])
        np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype=np.float32), stored["pooled"])


def test_analyze_with_workers(ward: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["analyze", str(ward), "--json", "--workers", "2", "--out", str(tmp_path / "reports")])
    documents = json.loads(capfd.readouterr().out)  # whatever workers print, this is the one document
    assert [Path(d["path"]).name for d in documents] == ["0.dcm", "1.dcm", "2.dcm"]
    assert len(list((tmp_path / "reports").glob("*.html"))) == len(list((tmp_path / "reports").glob("*.json"))) == 3
    with pytest.raises(SystemExit) as end:
        app(["analyze", str(ward), "--workers", "2"])
    assert end.value.code == 2
    assert "--workers goes with --out" in capfd.readouterr().err


def test_ctrl_c_ends_the_workers_too(dicom_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(2000):
        os.link(folder / "0000.dcm", folder / f"{i:04}.dcm") if i else shutil.copy(dicom_file, folder / "0000.dcm")
    command = [sys.executable, "-m", "anyecg", "embed", str(folder), "-o", str(tmp_path / "all.npz"), "--workers", "2"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stderr is not None
    assert "MEDIAN BEAT" in running.stderr.readline()  # a worker's warning: the work has begun
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted" and "Traceback" not in stderr
    assert not (tmp_path / "all.npz").exists()
    assert ended(running.pid, os.killpg)
