"""A short run of the fuzzer, always the same; the long one is ``python tests/fuzz/run.py --inputs 100000``."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are measured through /proc")
def test_two_thousand_inputs(tmp_path: Path) -> None:
    done = run("--inputs", 2000, "--seed", 1, "--workers", 2, "--keep", tmp_path / "failures")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2000 inputs" in done.stdout
    assert not (tmp_path / "failures").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits are measured through /proc")
def test_a_failure_is_kept_and_ends_with_exit_1(tmp_path: Path) -> None:
    """The limits are made so tight that nothing can pass."""
    tight = tmp_path / "tight"
    tight.mkdir()
    for name in ("run.py", "inputs.py", "handmade.py", "worker.py"):
        (tight / name).write_text((HERE / name).read_text().replace("LIMIT_MB = 512.0", "LIMIT_MB = 1.0"))
    command = [
        sys.executable,
        str(tight / "run.py"),
        "--inputs",
        "2",
        "--only",
        "tsv",
        "--keep",
        str(tmp_path / "kept"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in kept] == ["tsv-0-0", "tsv-0-1"]
    assert all((path / "rec.csv").is_file() and (path / "about.json").is_file() for path in kept)
