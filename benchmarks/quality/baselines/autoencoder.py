"""Plain autoencoder: the tokenizer's own trunk, its latent rounded to whole steps; nothing but the waveform is learned.

A latent of C dimensions, each of V values, costs C log2 V bits a fragment. It learns with uniform noise of one step
in place of the rounding (Balle, end-to-end optimized image compression, arXiv 1611.01704); rounding comes after.
"""

from typing import Any

import torch
from torch import Tensor

from anyecg.models.fsq import FiniteScalarQuantizer
from anyecg.models.quantizer import Quantized
from anyecg.models.sizes import TokenizerConfig
from anyecg.models.tokenizer import Tokenizer

ONLY_WAVEFORM = {"frequency": 0.0, "demography": 0.0, "commitment": 0.0, "steadiness": 0.0}
"""Loss weights of a plain autoencoder: no views but the waveform's, and no wish for steady codes."""


class RoundedLatent(FiniteScalarQuantizer):
    """Noise of one step in training, rounding otherwise; each dimension is a code of its own."""

    def forward(self, z: Tensor) -> Quantized:
        """Return the codes of vectors (N, C), and in training the vectors with noise."""
        codes = self.encode(z)
        if not self.training:
            return Quantized(codes, self.lookup(codes), z.new_zeros(()))
        bounded = self.bound(z.unflatten(-1, (self.n_levels, -1)))  # (N, K, d)
        noisy = (bounded + torch.rand_like(bounded) - 0.5) / (self.values // 2)
        return Quantized(codes, noisy.flatten(1), z.new_zeros(()))


def latent_options(n_dims: int, n_values: int) -> dict[str, Any]:
    """Return the config's options for a latent of so many dimensions."""
    return {"quantizer": "fsq", "fsq_values": (n_values,), "code_dim": n_dims}


def autoencoder(config: TokenizerConfig) -> Tokenizer:
    """Build the network."""
    network = Tokenizer(config)
    network.quantizer = RoundedLatent(config.n_levels, config.fsq_values)
    return network
