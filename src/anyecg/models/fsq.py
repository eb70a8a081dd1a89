"""Finite scalar quantizer: every dimension is rounded to one of a few values; there is nothing to learn.

Source: finite scalar quantization (arXiv 2309.15505, equations 1 and 2, and its appendix's code for even numbers of
values).

Departure, ours: the dimensions fall into K groups of the same shape, and each group's values make up one code, so that
a token has K codes of V = product of the values, as with residual levels. The groups are coded side by side: no group
is finer than another.

Shapes: N tokens, K groups, d dimensions of a group, C = K d, V codebook size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anyecg.models.quantizer import Quantized

EDGE = 1e-3
"""By how much the bound lies beyond the outermost value, so that this can be reached."""


class FiniteScalarQuantizer(nn.Module):
    """K groups of d dimensions; dimension i of a group takes ``values[i]`` values.

    Parameters
    ----------
    n_levels : int
        Groups, K.
    values : sequence of int
        How many values each dimension of a group may take, at least 3 each; their product is the codebook's size.
    """

    codebooks: Tensor
    values: Tensor
    place: Tensor

    def __init__(self, n_levels: int, values: Sequence[int]) -> None:
        super().__init__()
        if min(values) < 3:
            raise ValueError(f"values {tuple(values)}: the rounding is defined for 3 values and more")
        self.n_levels = n_levels
        counts = torch.tensor(list(values))
        self.codebook_size = int(counts.prod())
        self.register_buffer("values", counts, persistent=False)
        self.register_buffer("place", torch.cat([torch.ones(1).long(), counts.cumprod(0)[:-1]]), persistent=False)
        # Each group's codes as vectors of all C dimensions, 0 outside the group: the sum over the groups is the token.
        digits = (torch.arange(self.codebook_size)[:, None] // self.place) % counts  # (V, d)
        own = (digits - counts // 2) / (counts // 2)
        codebooks = torch.zeros(n_levels, self.codebook_size, n_levels, len(values))
        for level in range(n_levels):
            codebooks[level, :, level] = own
        self.register_buffer("codebooks", codebooks.flatten(2))  # (K, V, C)

    def bound(self, z: Tensor) -> Tensor:
        """Squeeze (N, K, d) so that rounding gives ``values`` whole numbers, the lowest -(values // 2)."""
        half = (self.values - 1) * (1 + EDGE) / 2
        offset = torch.where(self.values % 2 == 0, 0.5, 0.0)
        shift = (offset / half).atanh()
        return (z + shift).tanh() * half - offset

    def encode(self, z: Tensor) -> Tensor:
        """Turn vectors (N, C) into codes (N, K)."""
        whole = self.bound(z.unflatten(-1, (self.n_levels, -1))).round().long()  # (N, K, d)
        return ((whole + self.values // 2) * self.place).sum(dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors that codes stand for: (..., K) -> (..., C)."""
        return torch.stack([self.codebooks[level][codes[..., level]] for level in range(self.n_levels)]).sum(dim=0)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize vectors (N, C); the gradient is that of the bound, straight through the rounding."""
        bounded = (self.bound(z.unflatten(-1, (self.n_levels, -1))) / (self.values // 2)).flatten(1)  # (N, C)
        codes = self.encode(z)
        return Quantized(codes, bounded + (self.lookup(codes) - bounded).detach(), z.new_zeros(()))
