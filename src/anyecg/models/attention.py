"""Attention on the lead x time grid. Cardio-sparse: a token looks along its own lead, and across at its own time.

Method: Cross-Mask attention of AnyECG (arXiv 2411.17711). With tolerance 0 it is CroPA, cross-pattern attention, of
ECG-JEPA (arXiv 2410.08559), which had the idea first. Beside it what it stands between: the own lead alone, and all
tokens of all leads.

Shapes: B batch, H heads, L leads, P positions (fragments in time), D width, d width of one head.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reach = Literal["cardio-sparse", "own-lead", "full"]
"""What a token may look at."""


def cardio_sparse_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor, tolerance: int = 0) -> Tensor:
    """Attend to (own lead, any time) and (any other lead, own time +- tolerance) under one softmax.

    The two families of scores are computed apart and joined before the softmax: P + L (2 tolerance + 1) scores a query
    (of which 2 tolerance + 1 are the own lead's again, masked) instead of the L P of a dense matrix.

    Parameters
    ----------
    q, k, v : Tensor, shape (B, H, L, P, d)
    valid : bool Tensor, shape (B, L, P)
        True = a real token. Others are never attended to; their own output means nothing.
    tolerance : int
        In fragments.

    Returns
    -------
    Tensor, shape (B, H, L, P, d)
    """
    n_leads, n_positions = q.shape[2], q.shape[3]
    q = q * q.shape[-1] ** -0.5

    own_lead = q @ k.transpose(-1, -2)  # (B, H, L, P, P)
    own_lead_open = valid[:, None, :, None, :]  # (B, 1, L, 1, P)

    q_at = q.transpose(2, 3)  # (B, H, P, L, d)
    lead = torch.arange(n_leads, device=q.device)
    other_lead = lead[:, None] != lead  # the own lead is counted in own_lead already
    k_near, v_near, near_open = [], [], []
    for shift in range(-tolerance, tolerance + 1):
        k_near.append(_shifted(k.transpose(2, 3), shift, dim=2))  # (B, H, P, L, d)
        v_near.append(_shifted(v.transpose(2, 3), shift, dim=2))
        valid_at = _shifted(valid.transpose(1, 2), shift, dim=1)  # (B, P, L)
        near_open.append(valid_at[:, None, :, None, :] & other_lead)  # (B, 1, P, L, L)
    across = q_at @ torch.cat(k_near, dim=3).transpose(-1, -2)  # (B, H, P, L, L(2w+1))
    across_open = torch.cat(near_open, dim=-1)

    # A very low finite score, not -inf: a row with nothing to attend to then stays a number.
    own_lead = own_lead.masked_fill(~own_lead_open, torch.finfo(own_lead.dtype).min)
    across = across.masked_fill(~across_open, torch.finfo(across.dtype).min)
    weights = torch.cat([own_lead, across.transpose(2, 3)], dim=-1).softmax(dim=-1)  # (B, H, L, P, P + L(2w+1))
    along, aside = weights.to(v.dtype).split([n_positions, n_leads * (2 * tolerance + 1)], dim=-1)
    mixed_across = aside.transpose(2, 3) @ torch.cat(v_near, dim=3)  # (B, H, P, L, d)
    return along @ v + mixed_across.transpose(2, 3)  # (B, H, L, P, d)


def own_lead_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
    """Attend to the own lead only, at any time; arguments as in `cardio_sparse_attention`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, H, L, P, P)
    scores = scores.masked_fill(~valid[:, None, :, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def full_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
    """Attend to every token of every lead; arguments as in `cardio_sparse_attention`."""
    shape = q.shape[2:4]
    q, k, v = (x.flatten(2, 3).unsqueeze(2) for x in (q, k, v))  # as if all leads were one: (B, H, 1, L P, d)
    return own_lead_attention(q, k, v, valid.flatten(1).unsqueeze(1)).squeeze(2).unflatten(2, shape)


def _shifted(x: Tensor, shift: int, dim: int) -> Tensor:
    """Return y with y[p] = x[p + shift] along ``dim``; zero (False) outside."""
    if shift == 0:
        return x
    size = x.shape[dim]
    kept = min(abs(shift), size)
    edge = torch.zeros_like(x.narrow(dim, 0, kept))
    inner = size - kept
    if shift > 0:
        return torch.cat([x.narrow(dim, kept, inner), edge], dim=dim)
    return torch.cat([edge, x.narrow(dim, 0, inner)], dim=dim)


class GridBlock(nn.Module):
    """One pre-norm Transformer layer on the lead x time grid: (B, L, P, D) -> (B, L, P, D)."""

    def __init__(
        self, width: int, n_heads: int, tolerance: int = 0, dropout: float = 0.0, reach: Reach = "cardio-sparse"
    ) -> None:
        super().__init__()
        self.reach = reach
        self.n_heads = n_heads
        self.tolerance = tolerance
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor, valid: Tensor) -> Tensor:
        """Mix tokens along leads and, if the reach allows, across leads."""
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1))  # (B, L, P, 3, H, d)
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).unbind()  # each (B, H, L, P, d)
        if self.reach == "own-lead":
            mixed = own_lead_attention(q, k, v, valid)
        elif self.reach == "full":
            mixed = full_attention(q, k, v, valid)
        else:
            mixed = cardio_sparse_attention(q, k, v, valid, self.tolerance)
        return self.project(mixed.permute(0, 2, 3, 1, 4).flatten(-2))  # (B, L, P, D)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Attend, then think."""
        x = x + self.dropout(self.attend(self.attention_norm(x), valid))
        return x + self.dropout(self.contract(F.gelu(self.expand(self.mlp_norm(x)))))
