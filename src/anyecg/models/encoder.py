"""The masked-code encoder: rhythm codes, some of them hidden -> embeddings, and a guess at the hidden codes.

Method: AnyECG (arXiv 2411.17711), masked pre-training with cardio-sparse attention.

Departures, ours. A code enters as its direction in the tokenizer's codebook, and is guessed by comparing a query with
these directions: similar codes look similar from the first step on. (With tables learned from nothing, 340 steps had
not left the unigram plateau.) The amplitude of each lead, which the codes do not carry, enters as a vector of its
own; a recording of unknown gain has a learned "unknown" in its place, and so have hidden leads. Of these the amplitude
is guessed, too: a generated lead is in mV. And the record's age, weight and sex are guessed, where known, as the
paper's tokenizer does: what tells them apart is slow to show in single fragments.

Shapes: B windows, L leads, P fragments, K levels, V codebook size, C code dimensions, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.models.attention import GridBlock
from anyecg.models.demography import Demography, read_demography
from anyecg.models.sizes import EncoderConfig, TokenizerConfig


class Encoder(nn.Module):
    """Codes -> embeddings, and from them logits."""

    codebooks: Tensor

    def __init__(self, config: EncoderConfig, tokenizer: TokenizerConfig, codebooks: Tensor) -> None:
        super().__init__()
        self.config = config
        self.n_levels, self.codebook_size = tokenizer.n_levels, tokenizer.codebook_size
        width = config.width
        # Stored with the tokenizer: a checkpoint holds the codebooks once.
        self.register_buffer("codebooks", codebooks.detach().clone(), persistent=False)
        self.from_codes = nn.Linear(self.n_levels * tokenizer.code_dim, width)
        self.hidden_code = nn.Parameter(torch.randn(width) * 0.02)
        self.time = nn.Parameter(torch.randn(config.max_fragments, width) * 0.02)
        self.lead = nn.Parameter(torch.randn(len(tokenizer.lead_names), width) * 0.02)
        self.amplitude = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.unknown_amplitude = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(
            GridBlock(width, config.n_heads, config.tolerance, config.dropout, config.reach)
            for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, self.n_levels * tokenizer.code_dim)
        self.log_frequency = nn.Parameter(torch.zeros(self.n_levels, self.codebook_size))
        self.to_amplitude = nn.Linear(width, 1)
        self.to_demography = nn.Linear(width, 4)

    def embed(self, codes: Tensor, mask: Tensor, lead_ids: Tensor, log_scale: Tensor, scale_known: Tensor) -> Tensor:
        """Look codes up; hide those under the mask: -> (B, L, P, D)."""
        known = codes.clamp_min(0)
        directions = F.normalize(self.codebooks, dim=-1)  # (K, V, C)
        vectors = [directions[level][known[..., level]] for level in range(self.n_levels)]
        # Each code's direction has length 1; times the root of its dimensions its entries have variance 1.
        x = self.from_codes(torch.cat(vectors, dim=-1) * directions.shape[-1] ** 0.5)  # (B, L, P, D)
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
        """Turn the last layer (..., D) into logits (..., K, V): one query a level against all directions."""
        queries = self.to_query(x).unflatten(-1, (self.n_levels, -1)).unsqueeze(-2)  # (..., K, 1, C)
        logits = (queries @ F.normalize(self.codebooks, dim=-1).transpose(-1, -2)).squeeze(-2)  # (..., K, V)
        return logits + self.log_frequency

    def guess_amplitude(self, x: Tensor, valid: Tensor) -> Tensor:
        """Turn the last layer (B, L, P, D) into the natural logarithm of each lead's RMS in mV, (B, L)."""
        share = valid.unsqueeze(-1).to(x.dtype)
        of_lead = (x * share).sum(dim=2) / share.sum(dim=2).clamp_min(1)  # (B, L, D)
        return self.to_amplitude(of_lead).squeeze(-1)

    def guess_demography(self, x: Tensor, valid: Tensor) -> Demography:
        """Turn the last layer (B, L, P, D) into age, weight and sex of each record."""
        return read_demography(x, valid, self.to_demography)
