"""Baseline for lead generation: a 1-D U-Net (Ronneberger 2015, arXiv 1505.04597) from scratch.

Twelve leads, zeros where missing, and twelve masks in; twelve leads out. One network for every set of given leads, on
the same training blocks as our head: sets are drawn anew in each step, those that are measured more often. The loss of
a hidden lead is 1 - r plus log(1 + squared error / variance): leads count alike, whatever their amplitude.

Shapes: B blocks, 12 leads, N samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.training.loop import train
from anyecg.training.recipe import StageSection

CHANNELS = (32, 64, 96, 128, 128)
"""At 1, 1/2, 1/4, 1/8 and 1/16 of the rate."""

STAGE = StageSection(steps=1200, n_many=16, n_few=0, learning_rate=2e-3, warmup_steps=100, weight_decay=0.01)


VARIANCE_FLOOR = 0.02
"""In units of the squared RMS of what is given: a lead that is nearly flat does not rule the loss."""


class Level(nn.Sequential):
    """Two convolutions of 9 samples, each normalised."""

    def __init__(self, n_in: int, n_out: int) -> None:
        layers: list[nn.Module] = []
        for n_before in (n_in, n_out):
            layers += [nn.Conv1d(n_before, n_out, 9, padding=4), nn.GroupNorm(8, n_out), nn.GELU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """(B, 24, N) -> (B, 12, N); N is a multiple of 16."""

    def __init__(self, n_leads: int = 12) -> None:
        super().__init__()
        inputs = (2 * n_leads, *CHANNELS[:-1])
        self.down = nn.ModuleList(Level(n_in, n_out) for n_in, n_out in zip(inputs, CHANNELS, strict=True))
        backward = list(zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.wider = nn.ModuleList(nn.ConvTranspose1d(n_in, n_out, 2, stride=2) for n_in, n_out in backward)
        self.up = nn.ModuleList(Level(2 * n_out, n_out) for _, n_out in backward)
        self.out = nn.Conv1d(CHANNELS[0], n_leads, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Restore."""
        kept = []
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else F.max_pool1d(x, 2))
            kept.append(x)
        for wider, level, skipped in zip(self.wider, self.up, kept[-2::-1], strict=True):
            x = level(torch.cat([wider(x), skipped], dim=1))
        return self.out(x)


def draw_hidden(rng: np.random.Generator) -> np.ndarray:
    """Draw which of 12 leads are hidden, bool (12,). Where two limb leads are given, all are, by algebra."""
    n_limb, given = len(LIMB_LEADS), np.zeros(len(STANDARD_LEADS), dtype=bool)
    kind = rng.choice(["one", "limb", "limb and chest", "all but few"], p=[0.3, 0.2, 0.3, 0.2])
    if kind == "one":
        given[rng.choice(12, p=[0.5, *[0.5 / 11] * 11])] = True
        return ~given
    n_chest = {"limb": 0, "limb and chest": rng.integers(1, 3), "all but few": 6 - rng.integers(1, 4)}[str(kind)]
    given[:n_limb] = True
    given[n_limb + rng.permutation(6)[:n_chest]] = True
    if n_chest == 1 and rng.random() < 0.5:
        given[n_limb:] = np.array(PRECORDIAL_LEADS) == "V2"
    return ~given


def restoring_loss(guess: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """Compare with the truth (B, 12, N), NaN = not asked; return the loss and the mean r."""
    asked = torch.isfinite(truth)
    share = asked.float()
    truth = torch.where(asked, truth, 0.0)
    count = share.sum(dim=-1)

    def mean(x: Tensor) -> Tensor:
        return (x * share).sum(dim=-1) / count.clamp_min(1)

    about, of_guess = (x - mean(x).unsqueeze(-1) for x in (truth, guess.float()))
    variance = mean(about.square())
    r = mean(about * of_guess) / ((variance + 1e-4) * (mean(of_guess.square()) + 1e-4)).sqrt()
    relative = mean((guess.float() - truth).square()) / (variance + VARIANCE_FLOOR)
    leads = count > 0
    return (1 - r + 0.5 * torch.log1p(relative))[leads].mean(), r[leads].mean().item()


def inputs_of(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's input for leads (12, N) with NaN, and the RMS in mV of what is given."""
    there = np.isfinite(given)
    filled = np.where(there, given, np.float32(0))
    scale = np.float32(max(1e-3, np.sqrt(np.square(given[there], dtype=np.float64).mean())))
    beyond = ((0, 0), (0, -given.shape[1] % 16))
    return np.pad(np.concatenate([filled / scale, there.astype(np.float32)]), beyond), scale


def fit_unet(signals: np.ndarray, folder: Path, stage: StageSection = STAGE) -> UNet:
    """Train on blocks, float16 (R, 12, N) in mV, NaN beyond a record's end; goes on where it stopped."""
    torch.manual_seed(0)
    network = UNet()

    def make(step: int) -> list[Any]:
        rng = np.random.default_rng((1, step))
        inputs, wanted = [], []
        for truth in signals[rng.choice(len(signals), stage.n_many, replace=False)].astype(np.float32):
            hidden = draw_hidden(rng)[:, None]
            x, scale = inputs_of(np.where(hidden, np.nan, truth))
            inputs.append(x)
            wanted.append(np.where(hidden, truth, np.nan) / scale)
        return [(torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(wanted)))]

    def losses(parts: list[Any], _step: int) -> tuple[Tensor, dict[str, float]]:
        inputs, wanted = parts[0]
        guess = network(inputs)[..., : wanted.shape[-1]]
        loss, r = restoring_loss(guess, wanted)
        return loss, {"r": r}

    train(network, losses, make, stage, folder, seed=1)
    return network


@torch.no_grad()
def restore_by_unet(network: UNet, given: np.ndarray) -> np.ndarray:
    """Return all standard leads in mV, (12, N), from leads (12, N) of which some are NaN."""
    assert len(given) == len(STANDARD_LEADS)
    x, scale = inputs_of(given)
    return network(torch.from_numpy(x[None]))[0, :, : given.shape[1]].numpy() * scale
