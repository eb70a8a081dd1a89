"""Cosine vector quantizer with residual levels: an embedding -> one code a level.

Sources: VQ-VAE with EMA codebooks (arXiv 1711.00937, appendix A.1); cosine codes, k-means start and revival of dead
codes as in LaBraM and vector-quantize-pytorch; residual levels as in SoundStream (arXiv 2107.03312).

Departures, all ours:
- A code is *chosen* by direction (cosine, as in the paper) but *stands for* the mean of the vectors it was chosen
  for. At level 1 these have length 1; at the residual levels the mean carries their length, which a unit vector could
  not.
- The codebook moves by EMA only; ``codebook_gradient=True`` gives the paper's explicit form, in which the codebook loss
  ||sg(z) - c||^2 trains it.

Shapes: N tokens, C code dimensions, K levels, V codebook size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Quantized(NamedTuple):
    """What the quantizer returns.

    ``codes`` (N, K) int64; ``vectors`` (N, C), the sum of the levels' code vectors, straight-through in training;
    ``loss`` scalar, commitment (and, if asked, codebook) loss.
    """

    codes: Tensor
    vectors: Tensor
    loss: Tensor


class ResidualCosineQuantizer(nn.Module):
    """K levels of V codes; each level codes what the levels before it left over.

    Parameters
    ----------
    n_levels, codebook_size, code_dim : int
    decay : float
        Of the moving averages.
    dead_below : float
        A code whose moving count of uses a batch falls below this is moved onto a token of the batch.
    codebook_gradient : bool
        Train the codebook by gradient (the paper's form) instead of by EMA.
    """

    codebooks: Tensor
    counts: Tensor
    started: Tensor

    def __init__(
        self,
        n_levels: int,
        codebook_size: int,
        code_dim: int,
        decay: float = 0.99,
        dead_below: float = 0.1,
        codebook_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.codebook_size = codebook_size
        self.decay = decay
        self.dead_below = dead_below
        self.codebook_gradient = codebook_gradient
        codebooks = torch.randn(n_levels, codebook_size, code_dim) * code_dim**-0.5
        if codebook_gradient:
            self.codebooks = nn.Parameter(codebooks)
        else:
            self.register_buffer("codebooks", codebooks)
        self.register_buffer("counts", torch.ones(n_levels, codebook_size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def nearest(self, vectors: Tensor, level: int) -> Tensor:
        """Return the index of the code with the most similar direction: (N, C) -> (N,)."""
        directions = F.normalize(self.codebooks[level], dim=-1)
        return (vectors @ directions.T).argmax(dim=-1)

    def encode(self, z: Tensor) -> Tensor:
        """Turn unit vectors (N, C) into codes (N, K)."""
        residual, codes = z, []
        for level in range(self.n_levels):
            code = self.nearest(residual, level)
            residual = residual - self.codebooks[level][code]
            codes.append(code)
        return torch.stack(codes, dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the sum of the codes' vectors: (..., K) -> (..., C)."""
        return torch.stack([self.codebooks[level][codes[..., level]] for level in range(self.n_levels)]).sum(dim=0)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize unit vectors (N, C); in training mode also learn the codebooks."""
        if self.training and not self.started:
            self._start(z.detach())
        residual, codes, loss = z, [], z.new_zeros(())
        for level in range(self.n_levels):
            code = self.nearest(residual.detach(), level)
            chosen = self.codebooks[level][code]
            if self.codebook_gradient:
                loss = loss + F.mse_loss(chosen, residual.detach())
            if self.training:
                self._learn(level, residual.detach(), code)
            residual = residual - chosen.detach()
            codes.append(code)
        vectors = z - residual
        # Commitment: z is pulled to what its codes stand for. A mean over the dimensions, as in LaBraM: a sum pulls so
        # hard that all tokens fall onto one code in the first steps.
        loss = loss + residual.square().mean()
        # Straight-through: the value is the codes' sum, the gradient is that of z.
        return Quantized(torch.stack(codes, dim=-1), z + (vectors - z).detach(), loss)

    @torch.no_grad()
    def _start(self, z: Tensor) -> None:
        """Place the codes of every level by spherical k-means over the first batch and what it leaves over."""
        residual = z
        for level in range(self.n_levels):
            picks = torch.randint(len(residual), (self.codebook_size,), device=z.device)
            self.codebooks.data[level] = residual[picks]
            for _ in range(10):
                code = self.nearest(residual, level)
                sums, counts = self._gather(residual, code)
                used = counts > 0
                self.codebooks.data[level][used] = sums[used] / counts[used, None]
            code = self.nearest(residual, level)
            self.counts[level] = self._gather(residual, code)[1]
            residual = residual - self.codebooks[level][code]
        self.started.fill_(True)

    @torch.no_grad()
    def _learn(self, level: int, vectors: Tensor, code: Tensor) -> None:
        """Move each code towards the mean of its vectors; move dead codes onto random vectors of the batch."""
        sums, counts = self._gather(vectors, code)
        new_counts = self.counts[level] * self.decay + counts * (1 - self.decay)
        if not self.codebook_gradient:
            # codebook * counts is the moving sum, so sums and means need not be kept both.
            moving_sums = self.codebooks[level] * self.counts[level, :, None] * self.decay + sums * (1 - self.decay)
            self.codebooks.data[level] = moving_sums / new_counts.clamp_min(1e-6)[:, None]
        dead = new_counts < self.dead_below
        n_dead = int(dead.sum())
        if n_dead:
            picks = torch.randint(len(vectors), (n_dead,), device=vectors.device)
            self.codebooks.data[level][dead] = vectors[picks]
            new_counts[dead] = 1.0
        self.counts[level] = new_counts

    def _gather(self, vectors: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return per code the sum of its vectors (V, C) and their number (V,)."""
        sums = vectors.new_zeros(self.codebook_size, vectors.shape[-1]).index_add_(0, code, vectors)
        counts = torch.bincount(code, minlength=self.codebook_size).to(vectors.dtype)
        return sums, counts
