"""The masked-code encoder: rhythm codes, some of them hidden -> embeddings, and a guess at the hidden codes.

Method: AnyECG (arXiv 2411.17711), masked pre-training with cardio-sparse attention.

Departure, ours: the amplitude of each lead, which the codes do not carry, enters as a vector of its own; a recording of
unknown gain has a learned "unknown" in its place, and so have hidden leads.

Shapes: B windows, L leads, P fragments, K levels, V codebook size, D width.
"""

import torch
from torch import Tensor, nn

from anyecg.models.attention import CardioSparseBlock
from anyecg.models.sizes import EncoderConfig, TokenizerConfig


class Encoder(nn.Module):
    """Codes -> embeddings, and from them logits."""

    def __init__(self, config: EncoderConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.n_levels, self.codebook_size = tokenizer.n_levels, tokenizer.codebook_size
        width = config.width
        # One table for all levels: code c of level k is row k * V + c.
        self.code_table = nn.Embedding(self.n_levels * self.codebook_size, width)
        nn.init.normal_(self.code_table.weight, std=0.02)
        self.hidden_code = nn.Parameter(torch.randn(width) * 0.02)
        self.time = nn.Parameter(torch.randn(config.max_fragments, width) * 0.02)
        self.lead = nn.Parameter(torch.randn(len(tokenizer.lead_names), width) * 0.02)
        self.amplitude = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.unknown_amplitude = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(
            CardioSparseBlock(width, config.n_heads, config.tolerance, config.dropout) for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, self.n_levels * self.codebook_size)

    def embed(self, codes: Tensor, mask: Tensor, lead_ids: Tensor, log_scale: Tensor, scale_known: Tensor) -> Tensor:
        """Look codes up; hide those under the mask: -> (B, L, P, D)."""
        offsets = torch.arange(self.n_levels, device=codes.device) * self.codebook_size
        x = self.code_table(codes.clamp_min(0) + offsets).sum(dim=-2)  # (B, L, P, D)
        x = torch.where(mask.unsqueeze(-1), self.hidden_code.to(x.dtype), x)  # True = hidden from the model
        amplitude = self.amplitude(log_scale.unsqueeze(-1))  # (B, L, D)
        amplitude = torch.where(scale_known.unsqueeze(-1), amplitude, self.unknown_amplitude.to(amplitude.dtype))
        return x + self.time[: codes.shape[2]] + (self.lead[lead_ids] + amplitude).unsqueeze(2)

    def forward(
        self, codes: Tensor, valid: Tensor, mask: Tensor, lead_ids: Tensor, log_scale: Tensor, scale_known: Tensor
    ) -> list[Tensor]:
        """Encode a window.

        Parameters
        ----------
        codes : int64 Tensor, shape (B, L, P, K)
        valid : bool Tensor, shape (B, L, P)
            True = really recorded. Tokens that are not valid are absent: nothing attends to them.
        mask : bool Tensor, shape (B, L, P)
            True = hidden from the model, to be guessed.
        lead_ids : int64 Tensor, shape (B, L)
        log_scale : float Tensor, shape (B, L)
            Natural logarithm of the lead's RMS in mV.
        scale_known : bool Tensor, shape (B, L)
            False = the gain is unknown, or the lead is wholly hidden.

        Returns
        -------
        list of Tensor, each (B, L, P, D)
            The input embedding, then each layer's output; the last is normalised.
        """
        x = self.embed(codes, mask, lead_ids, log_scale, scale_known)
        layers = [x]
        for block in self.blocks:
            x = block(x, valid)
            layers.append(x)
        layers[-1] = self.norm(x)
        return layers

    def guess(self, x: Tensor) -> Tensor:
        """Turn the last layer (..., D) into logits (..., K, V). In training only on hidden tokens: it costs much."""
        return self.to_logits(x).unflatten(-1, (self.n_levels, self.codebook_size))
