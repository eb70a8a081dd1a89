"""A head on the encoder: its last layers, tuned, then one linear map a lead.

A lead keeps a map of its own, as in a linear probe on leads side by side, but the maps of the leads that are there are
averaged: any subset of leads has an answer.

Shapes: B windows, L leads, P fragments, D width, F features of the RR intervals, C labels.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from anyecg.models.encoder import Encoder


class RecordHead(nn.Module):
    """What layer ``first_layer`` of the encoder makes of a window -> logits.

    Parameters
    ----------
    encoder : Encoder
        Its layers after ``first_layer`` are copied, to be tuned.
    first_layer : int
        ``n_layers``: no layer is tuned, a linear head. 0: all are.
    n_features, n_labels : int
    dropout : float
    """

    pooled_mean: Tensor
    pooled_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self, encoder: Encoder, first_layer: int, n_features: int, n_labels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        width, n_lead_names = encoder.config.width, len(encoder.lead)
        self.first_layer = first_layer
        self.blocks = deepcopy(encoder.blocks[first_layer:]).requires_grad_(True)
        for part in self.blocks.modules():
            if isinstance(part, nn.Dropout):
                part.p = dropout
        self.norm = deepcopy(encoder.norm).requires_grad_(True) if len(self.blocks) else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pooled_mean", torch.zeros(2 * width))
        self.register_buffer("pooled_std", torch.ones(2 * width))
        self.of_lead = nn.Parameter(torch.zeros(n_lead_names, 2 * width, n_labels))
        self.bias = nn.Parameter(torch.zeros(n_labels))
        self.of_rhythm = nn.Sequential(nn.Linear(n_features, 32), nn.GELU(), nn.Linear(32, n_labels))
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_std", torch.ones(n_features))

    def pool(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Tune a window (B, L, P, D); return the mean and spread over time of each lead, (B, L, 2 D)."""
        for block in self.blocks:
            hidden = block(hidden, valid)
        hidden = self.norm(hidden)
        share = valid.unsqueeze(-1).to(hidden.dtype)
        n_valid = share.sum(dim=2).clamp_min(1)
        mean = (hidden * share).sum(dim=2) / n_valid
        spread = (((hidden - mean.unsqueeze(2)).square() * share).sum(dim=2) / n_valid + 1e-5).sqrt()
        return torch.cat([mean, spread], dim=-1)

    def forward(self, hidden: Tensor, valid: Tensor, lead_ids: Tensor, features: Tensor) -> Tensor:
        """Answer.

        Parameters
        ----------
        hidden : Tensor, shape (B, L, P, D)
            Output of the encoder's layer ``first_layer``.
        valid : bool Tensor, shape (B, L, P)
            True = recorded, of a lead that may be used.
        lead_ids : int64 Tensor, shape (B, L)
        features : float Tensor, shape (B, F)
            As `anyecg.tasks.rr_features` gives them; the last says whether they are known.

        Returns
        -------
        Tensor, shape (B, C)
        """
        return self.answer(self.pool(hidden, valid), valid, lead_ids, features)

    def answer(self, pooled: Tensor, valid: Tensor, lead_ids: Tensor, features: Tensor) -> Tensor:
        """Turn what `pool` returned into logits (B, C)."""
        standard = (pooled - self.pooled_mean) / self.pooled_std
        of_each = torch.einsum("bld,bldc->blc", self.dropout(standard), self.of_lead[lead_ids])
        present = valid.any(dim=-1).unsqueeze(-1).to(of_each.dtype)  # (B, L, 1)
        of_leads = (of_each * present).sum(dim=1) / present.sum(dim=1).clamp_min(1)
        known = features[:, -1:]
        rhythm = self.of_rhythm((features - self.feature_mean) / self.feature_std) * known
        return self.bias + of_leads + rhythm
