"""More levels for a trained tokenizer, after the fact: what its residual codes would keep at a higher rate.

Encoder, decoder and the levels there are stay as they are, so codes that were written stay what they are. Each further
level is placed by spherical k-means over what the levels before it leave of training records, as every level is placed
when training begins. The decoder has never seen vectors as fine as these.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from waveforms import Coder

from anyecg.metrics import snr_db
from anyecg.models.quantizer import ResidualCosineQuantizer
from anyecg.models.tokenizer import Tokenizer
from anyecg.record import Record
from anyecg.tokens import to_fragments
from anyecg.training.datasets import Corpus
from anyecg.training.robustness import with_noise
from anyecg.training.train_tokenizer import grid_of

N_RECORDS = {"ptb-xl": 150, "cinc2017": 250}
"""The first so many clean records of split train: fifty thousand fragments, two hundred for each code."""


@torch.no_grad()
def training_vectors(tokenizer: Tokenizer, prepared: Path) -> Tensor:
    """Return what the tokenizer's encoder makes of fragments of training records, before quantisation: (N, C)."""
    grid, names = grid_of(tokenizer.config), tokenizer.config.lead_names
    found = []
    for database, most in N_RECORDS.items():
        corpus = Corpus(prepared, "train", (database,))
        for entry in [e for e in corpus.entries if e.clean][:most]:
            cut = to_fragments(corpus.record(entry, grid.fs_hz), grid)
            lead_ids = torch.tensor([[names.index(lead) if lead in names else 0 for lead in entry.leads]])
            valid = torch.from_numpy(cut.valid)
            found.append(tokenizer.encode(torch.from_numpy(cut.samples), valid, lead_ids.expand(len(valid), -1))[valid])
    return torch.cat(found)


@torch.no_grad()
def with_more_levels(tokenizer: Tokenizer, n_levels: int, vectors: Tensor, seed: int = 0) -> Tokenizer:
    """Return the tokenizer with ``n_levels`` levels of codes; those it had are the first of them.

    Parameters
    ----------
    tokenizer : Tokenizer
    n_levels : int
    vectors : Tensor, shape (N, C)
        Of training fragments, see `training_vectors`.
    seed : int
    """
    config = tokenizer.config
    torch.manual_seed(seed)
    further = ResidualCosineQuantizer(n_levels - config.n_levels, config.codebook_size, config.code_dim).train()
    further(vectors - tokenizer.quantizer.lookup(tokenizer.quantizer.encode(vectors)))  # places the codes
    longer = Tokenizer(config.model_copy(update={"n_levels": n_levels}))
    state = tokenizer.state_dict()
    for name in ("quantizer.codebooks", "quantizer.counts"):
        state[name] = torch.cat([state[name], further.state_dict()[name.removeprefix("quantizer.")]])
    longer.load_state_dict(state)
    return longer.eval().requires_grad_(False)


def snr_gain_db(coder: Coder, records: list[Record], noise: np.ndarray, added_db: float) -> float:
    """Mix noise in; return how much nearer decoding is to the clean signal than the noisy one, dB, median over leads.

    As `anyecg.training.robustness` does it, the same noise for the same records.
    """
    rng = np.random.default_rng(0)
    gained = []
    for clean in records:
        noisy = with_noise(clean, noise, added_db, rng)
        decoded = coder.decode(coder.tokenize(noisy))
        rows = zip(clean.signal, noisy.signal, decoded.signal, strict=True)
        gained += [snr_db(reference, ours) - snr_db(reference, before) for reference, before, ours in rows]
    return round(float(np.nanmedian(gained)), 2)
