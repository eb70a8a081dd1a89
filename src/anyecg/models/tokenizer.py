"""The ECG tokenizer: fragments -> rhythm codes -> three views of what the codes still know.

Method: AnyECG (arXiv 2411.17711), ECG tokenizer with multi-view decoder; layer shapes of its kin LaBraM (arXiv
2405.18765).

Departures, all ours:
- the embedding of a fragment is convolution *plus* a linear view of the samples, plus the log of its amplitude;
- the decoder is a Transformer that sees all codes of a block, so that fragments meet without seams;
- by configuration the encoder looks along the own lead only: a lead's codes then do not depend on which other leads
  were recorded, while the decoder still draws on all of them;
- losses are means, not sums; demography is read from the record, with unknown attributes masked;
- wavelet bands above the source's own Nyquist rate carry no loss.

Shapes: B blocks, L leads, P fragments, S samples of a fragment, D width, C code dimensions, K levels, W wavelet
coefficients.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.models.attention import GridBlock
from anyecg.models.demography import Demography, read_demography
from anyecg.models.fsq import FiniteScalarQuantizer
from anyecg.models.quantizer import Quantized, ResidualCosineQuantizer
from anyecg.models.sizes import TokenizerConfig


class FragmentEmbedding(nn.Module):
    """Samples of one fragment -> one vector: (N, S) -> (N, D). No fragment sees another here."""

    def __init__(self, n_samples: int, channels: int, width: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv1d(1, channels, kernel_size=15, stride=8, padding=7),
            nn.GroupNorm(4, channels),
            nn.GELU(),
            nn.Conv1d(channels, channels, kernel_size=3, padding=1),
            nn.GroupNorm(4, channels),
            nn.GELU(),
            nn.Conv1d(channels, channels, kernel_size=3, padding=1),
            nn.GroupNorm(4, channels),
            nn.GELU(),
        )
        n_steps = (n_samples - 1) // 8 + 1
        self.from_convolution = nn.Linear(channels * n_steps, width)
        self.from_samples = nn.Linear(n_samples, width)
        self.from_amplitude = nn.Linear(1, width)

    def forward(self, samples: Tensor) -> Tensor:
        """Embed fragments."""
        features = self.convolve(samples[:, None, :]).flatten(1)  # (N, channels * steps)
        # GroupNorm and the wish for a waveform both hide how large a fragment is.
        amplitude = (samples.square().mean(dim=-1, keepdim=True) + 1e-4).log()  # (N, 1)
        return self.from_convolution(features) + self.from_samples(samples) + self.from_amplitude(amplitude)


class Views(NamedTuple):
    """What the decoder makes of the codes.

    ``samples`` (B, L, P, S) in units of the block's scale; ``wavelet`` (B, L, P, W) normalised coefficients.
    """

    samples: Tensor
    wavelet: Tensor
    demography: Demography


class Encoded(NamedTuple):
    """What one training pass returns: vectors before quantisation (B, L, P, C), their codes, the views."""

    z: Tensor
    quantized: Quantized
    views: Views


class Tokenizer(nn.Module):
    """Fragments -> codes -> views."""

    wavelet_matrix: Tensor
    wavelet_std: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = FragmentEmbedding(config.fragment_samples, config.conv_channels, width)
        self.encoder_time = nn.Parameter(torch.randn(config.block_fragments, width) * 0.02)
        self.encoder_lead = nn.Parameter(torch.randn(len(config.lead_names), width) * 0.02)
        self.encoder = nn.ModuleList(
            GridBlock(width, config.n_heads, config.tolerance, reach=config.encoder_reach)
            for _ in range(config.encoder_layers)
        )
        self.to_code = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.code_dim))
        self.quantizer = make_quantizer(config)
        self.from_code = nn.Linear(config.code_dim, width)
        self.decoder_time = nn.Parameter(torch.randn(config.block_fragments, width) * 0.02)
        self.decoder_lead = nn.Parameter(torch.randn(len(config.lead_names), width) * 0.02)
        self.decoder = nn.ModuleList(
            GridBlock(width, config.n_heads, config.tolerance, reach=config.decoder_reach)
            for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.morphology = nn.Linear(width, config.fragment_samples)
        matrix, self.wavelet_bands_hz = wavelet_analysis(config)
        self.frequency = nn.Linear(width, matrix.shape[1])
        self.demography = nn.Linear(width, 4)  # age, weight, sex logits
        self.register_buffer("wavelet_matrix", torch.from_numpy(matrix), persistent=False)
        self.register_buffer("wavelet_std", torch.ones(matrix.shape[1]))

    def encode(self, samples: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        """Fragments (B, L, P, S) -> vectors (B, L, P, C) that await quantisation: of length 1, but for FSQ."""
        n_positions = samples.shape[2]
        x = self.embed(samples.flatten(0, 2)).unflatten(0, samples.shape[:3])  # (B, L, P, D)
        x = x + self.encoder_time[:n_positions] + self.encoder_lead[lead_ids][:, :, None, :]
        for block in self.encoder:
            x = block(x, valid)
        z = self.to_code(x).float()  # (B, L, P, C)
        return z if self.config.quantizer == "fsq" else F.normalize(z, dim=-1)

    def codes(self, samples: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        """Fragments (B, L, P, S) -> codes (B, L, P, K), int64. Where not valid they mean nothing."""
        z = self.encode(samples, valid, lead_ids)
        return self.quantizer.encode(z.flatten(0, 2)).unflatten(0, z.shape[:3])

    def _decode(self, vectors: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        n_positions = vectors.shape[2]
        x = self.from_code(vectors) + self.decoder_time[:n_positions] + self.decoder_lead[lead_ids][:, :, None, :]
        for block in self.decoder:
            x = block(x, valid)
        return self.decoder_norm(x)  # (B, L, P, D)

    def decode(self, codes: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        """Codes (B, L, P, K) -> samples (B, L, P, S), in units of the block's scale."""
        return self.morphology(self._decode(self.quantizer.lookup(codes), valid, lead_ids))

    def forward(self, samples: Tensor, valid: Tensor, lead_ids: Tensor) -> Encoded:
        """Encode, quantise, decode into all views. Only valid tokens teach the codebooks."""
        z = self.encode(samples, valid, lead_ids)
        quantized = self.quantizer(z[valid])
        vectors = torch.zeros_like(z)
        vectors[valid] = quantized.vectors
        x = self._decode(vectors, valid, lead_ids)
        demography = read_demography(x, valid, self.demography)
        return Encoded(z, quantized, Views(self.morphology(x), self.frequency(x), demography))

    def wavelet_view(self, samples: Tensor) -> Tensor:
        """Return the frequency view's target: samples (B, L, P, S) -> normalised wavelet coefficients (B, L, P, W)."""
        return samples @ self.wavelet_matrix / self.wavelet_std


def make_quantizer(config: TokenizerConfig) -> ResidualCosineQuantizer | FiniteScalarQuantizer:
    """Build the quantizer a config asks for."""
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.n_levels, config.fsq_values)
    return ResidualCosineQuantizer(
        config.n_levels,
        config.codebook_size,
        config.code_dim,
        decay=config.decay,
        codebook_gradient=config.codebook_gradient,
    )


def wavelet_analysis(config: TokenizerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the discrete wavelet transform of one fragment as a matrix, and each coefficient's lower band edge.

    Only bands that begin below the pass-band's upper edge are kept: the others are empty by preparation.

    Returns
    -------
    matrix : ndarray of float32, shape (S, W)
    lower_hz : ndarray of float32, shape (W,)
    """
    import pywt

    n = config.fragment_samples
    level = min(4, pywt.dwt_max_level(n, config.wavelet))
    columns = [pywt.wavedec(row, config.wavelet, level=level, mode="symmetric") for row in np.eye(n)]
    nyquist_hz = config.fs_hz / 2
    edges_hz = [0.0] + [nyquist_hz / 2**k for k in range(level, 0, -1)]  # cA, cD_level ... cD_1
    kept = [i for i, edge in enumerate(edges_hz) if edge < config.high_hz]
    matrix = np.stack([np.concatenate([row[i] for i in kept]) for row in columns])
    lower_hz = np.concatenate([np.full(len(columns[0][i]), edges_hz[i]) for i in kept])
    return matrix.astype(np.float32), lower_hz.astype(np.float32)
