"""What the README shows is run, and what it states is checked."""

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import anyecg

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
CONSOLE = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line[2:] for block in CONSOLE for line in block.splitlines() if line.startswith("$ anyecg ")]


@pytest.fixture
def folder(tmp_path: Path, demo_folder: Path) -> Path:
    """A working folder in which ``demo/`` holds the demo's recordings."""
    shutil.copytree(demo_folder, tmp_path / "demo")
    return tmp_path


def test_there_is_something_to_run() -> None:
    assert len(PYTHON) >= 2
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("snippet", PYTHON, ids=range(len(PYTHON)))
def test_python_snippet(snippet: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, folder: Path) -> None:
    arguments = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outputs = [after for option, after in pairwise(arguments) if option in ("-o", "--out", "--report")]
    assert done.stdout or outputs
    for output in outputs:
        assert (folder / output).exists()


def test_every_verb_is_shown() -> None:
    from typer.main import get_command

    from anyecg.cli import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    for verb in verbs:
        assert re.search(rf"\banyecg {verb}\b", README), f"the README does not show {verb}"


def test_the_order_is_that_of_the_package() -> None:
    block = (anyecg.__doc__ or "").split("stands before it:\n\n")[1].split("\n\n")[0]
    assert block in README


def test_the_disclaimer_stands_near_the_top() -> None:
    assert README.index("Not a medical device") < 1500
