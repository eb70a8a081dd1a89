"""What the wheel carries: the code, the model and its card; no tests, and no more than 40 MB."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LARGEST_MB = 40


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_size(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_MB * 1e6


def test_contents(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(root / "src").as_posix() for path in (root / "src").rglob("*.py")}
    assert sources <= names
    assert "anyecg/py.typed" in names
    assert {"anyecg/weights/nano/config.json", "anyecg/weights/nano/card.md"} <= names
    assert any(name.startswith("anyecg/weights/nano/") and name.endswith(".onnx") for name in names)
    outside = {name for name in names if not name.startswith(("anyecg/", "anyecg-"))}
    assert not outside


def test_inference_needs_no_torch(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(metadata).decode()
    core = [line for line in text.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert core
    assert not [line for line in core if "torch" in line]
