"""Other ways to pre-train the very same encoder on the very same codes: SimCLR, BYOL and MAE.

- SimCLR (Chen 2020, arXiv 2002.05709): two views of a window shall be nearer to each other than to other windows.
- BYOL (Grill 2020, arXiv 2006.07733): one view shall foretell what a slowly following copy makes of the other.
- MAE (He 2021, arXiv 2111.06377): three quarters of the fragments are taken away, a light decoder draws them.

Departures: the input is rhythm codes, as for our own objective, so that only the objective differs. The two views of a
window are its noisy and its clean signal (the noise is real), each of some leads and without a stretch of time. MAE's
decoder draws the clean waveform of a fragment, in units of its lead's RMS. Batches are small (what a CPU bears), which
hurts SimCLR the most.

Shapes: B windows, L leads, P fragments, D width, S samples of a fragment.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.models.attention import GridBlock
from anyecg.models.encoder import Encoder
from anyecg.models.tokenizer import Tokenizer
from anyecg.training.batches import Part
from anyecg.training.loop import Losses
from anyecg.training.pretrain import codes_of, window_amplitudes

TEMPERATURE = 0.1
DECAY = 0.99
HIDDEN_SHARE = 0.75
PROJECTED = 64


def _mlp(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_in), nn.BatchNorm1d(n_in), nn.ReLU(), nn.Linear(n_in, n_out))


def _seen(encoder: Encoder, tokenizer: Tokenizer, part: Part, keep: np.ndarray) -> tuple[Tensor, Tensor]:
    """Encode the tokens of a part that ``keep`` (B, L, P) leaves: the last layer (B, L, P, D), and valid (B, L, P)."""
    valid = part.valid & keep
    log_scale, known = window_amplitudes(part, ~keep, np.zeros(len(keep), dtype=bool))
    shown = torch.from_numpy(valid)
    lead_ids = torch.from_numpy(part.lead_ids)
    layers = encoder(codes_of(tokenizer, part), shown, torch.zeros_like(shown), lead_ids, log_scale, known)
    return layers[-1], shown


def _pooled(tokens: Tensor, valid: Tensor) -> Tensor:
    share = valid.unsqueeze(-1).to(tokens.dtype)
    return ((tokens * share).sum(dim=(1, 2)) / share.sum(dim=(1, 2)).clamp_min(1)).float()  # (B, D)


def some_tokens(valid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Leave each window some of its leads, and take up to half of its time away: bool (B, L, P), True = kept."""
    keep = np.ones_like(valid)
    n_fragments = valid.shape[2]
    for kept, recorded in zip(keep, valid, strict=True):
        leads = np.flatnonzero(recorded.any(axis=1))
        kept[rng.permutation(leads)[int(rng.integers(1, len(leads) + 1)) :]] = False
        length = int(rng.integers(n_fragments // 2 + 1))
        start = int(rng.integers(n_fragments - length + 1))
        shorter = kept.copy()
        shorter[:, start : start + length] = False
        if (recorded & shorter).any():  # a short recording may lie wholly within the stretch
            kept[:] = shorter
    return keep


class SimCLR(nn.Module):
    """The encoder, and the projection in which views are compared."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.encoder, self.project = encoder, _mlp(encoder.config.width, PROJECTED)
        self._tokenizer = [tokenizer]  # in a list: frozen, no part of what is trained

    def losses(self, parts: list[Part], rng: np.random.Generator) -> Tensor:
        """Compare both views of every window with all other views."""
        (part,) = parts
        tokenizer = self._tokenizer[0]
        views = [
            self.project(_pooled(*_seen(self.encoder, tokenizer, view, some_tokens(part.valid, rng))))
            for view in (part, replace(part, noisy=part.clean))
        ]
        return contrast(*views)


def contrast(a: Tensor, b: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent: row i of ``a`` (B, D) belongs to row i of ``b``."""
    both = F.normalize(torch.cat([a, b]).float(), dim=1)
    alike = both @ both.T / temperature
    alike.fill_diagonal_(float("-inf"))  # a view is not compared with itself
    partner = torch.arange(len(both)).roll(len(a))
    return F.cross_entropy(alike, partner)


class BYOL(nn.Module):
    """The encoder with a projection and a prediction, and the copy that follows slowly."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        width = encoder.config.width
        self.encoder, self.project = encoder, _mlp(width, PROJECTED)
        self.predict = _mlp(PROJECTED, PROJECTED)
        self.slow_encoder = deepcopy(encoder).requires_grad_(False)
        self.slow_project = deepcopy(self.project).requires_grad_(False)
        self._tokenizer = [tokenizer]

    @torch.no_grad()
    def follow(self, decay: float = DECAY) -> None:
        """Move the copy a little towards what is trained."""
        for slow, fast in ((self.slow_encoder, self.encoder), (self.slow_project, self.project)):
            for mine, theirs in zip(slow.parameters(), fast.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)

    def losses(self, parts: list[Part], rng: np.random.Generator) -> Tensor:
        """Foretell each view's slow projection from the other view."""
        (part,) = parts
        self.follow()
        tokenizer = self._tokenizer[0]
        foretold, wanted = [], []
        for view in (part, replace(part, noisy=part.clean)):
            keep = some_tokens(part.valid, rng)
            foretold.append(self.predict(self.project(_pooled(*_seen(self.encoder, tokenizer, view, keep)))))
            with torch.no_grad():
                wanted.append(self.slow_project(_pooled(*_seen(self.slow_encoder, tokenizer, view, keep))))
        pairs = zip(foretold, wanted[::-1], strict=True)
        apart = [2 - 2 * F.cosine_similarity(p.float(), w.float()).mean() for p, w in pairs]
        return torch.stack(apart).mean()


class MAE(nn.Module):
    """The encoder, which sees a quarter of the fragments, and one block that draws the others."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.hidden = nn.Parameter(torch.randn(config.width) * 0.02)
        self.time = nn.Parameter(torch.randn(config.max_fragments, config.width) * 0.02)
        self.lead = nn.Parameter(torch.randn(len(tokenizer.config.lead_names), config.width) * 0.02)
        self.decode = GridBlock(config.width, config.n_heads, config.tolerance, config.dropout, config.reach)
        self.draw = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, tokenizer.config.fragment_samples)
        )
        self._tokenizer = [tokenizer]

    def losses(self, parts: list[Part], rng: np.random.Generator) -> Tensor:
        """Draw the clean waveform of every fragment that was taken away: mean squared error."""
        (part,) = parts
        hidden = part.valid & (rng.random(part.valid.shape) < HIDDEN_SHARE)
        hidden &= (part.valid & ~hidden).any(axis=(1, 2))[:, None, None]  # something is left of every window
        tokens, visible = _seen(self.encoder, self._tokenizer[0], part, ~hidden)
        x = torch.where(visible.unsqueeze(-1), tokens, self.hidden.to(tokens.dtype))
        x = x + self.time[: x.shape[2]] + self.lead[torch.from_numpy(part.lead_ids)].unsqueeze(2)
        gone = torch.from_numpy(hidden)
        drawn = self.draw(self.decode(x, torch.from_numpy(part.valid)))[gone].float()  # (hidden, S)
        recorded = torch.from_numpy(part.recorded)[gone]
        wanted = torch.from_numpy(part.clean)[gone].nan_to_num()
        return ((drawn - wanted).square() * recorded).sum() / recorded.sum().clamp_min(1)


OBJECTIVES: dict[str, Callable[[Encoder, Tokenizer], nn.Module]] = {"SimCLR": SimCLR, "BYOL": BYOL, "MAE": MAE}


def losses_of(objective: nn.Module, seed: int) -> Losses:
    """Return what `anyecg.training.loop.train` asks for: ``(parts, step) -> (loss, numbers to log)``."""

    def losses(parts: list[Part], step: int) -> tuple[Tensor, dict[str, float]]:
        loss: Tensor = objective.losses(parts, np.random.default_rng([seed, step, 3]))  # type: ignore[operator]
        return loss, {}

    return losses
