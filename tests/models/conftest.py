"""A tiny untrained checkpoint, exported once a session."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anyecg.models.encoder import Encoder
from anyecg.models.export import write_checkpoint
from anyecg.models.sizes import EncoderConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.record import Record

TINY = TokenizerConfig(
    width=16, n_heads=2, encoder_layers=1, decoder_layers=1, codebook_size=16, code_dim=8, n_levels=2, conv_channels=8
)
TINY_ENCODER = EncoderConfig(width=16, n_layers=2, n_heads=2)
FACTS = {
    **{"name": "tiny", "version": "0", "licence": "Apache-2.0", "trained_on": []},
    "window_fragments": {"many": 20, "few": 60},
}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TINY).eval()
    encoder = Encoder(TINY_ENCODER, TINY, tokenizer.quantizer.codebooks).eval()
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return write_checkpoint(folder, tokenizer, encoder, embedding_layer=1, facts=FACTS)


@pytest.fixture
def some_record() -> Record:
    """Three leads, 23.4 s, 250 Hz, one lead with a gap, one absent for a while."""
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.normal(0, 0.05, (3, 5850)), axis=1).astype(np.float32)
    signal[1, 1000:2000] = np.nan
    return Record(signal, 250.0, ("II", "V2", "ES"), id="some")
