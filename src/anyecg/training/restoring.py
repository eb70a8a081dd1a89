"""Train the network that corrects regressed leads: `anyecg.models.unet.Corrector`.

First a U-Net learns to restore leads from leads alone, as the baseline of our benchmark does. Then it goes on with the
regressed guess beside them. A network that saw only guesses of a mixture fitted on the very same patients would trust
them too much: in training each block's guess comes from a mixture that was fitted without its patient.

The loss of a hidden lead is 1 - r plus log(1 + squared error / variance): leads count alike, whatever their amplitude.
The expected error is learned besides, as the spread of a Laplace distribution, and does not move the guess.

Shapes: B blocks, 12 leads, N samples.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.models.unet import Corrector, UNet
from anyecg.tasks.lead_correction import leads_input, network_input
from anyecg.tasks.lead_regression import Mixture, regress
from anyecg.training.loop import train
from anyecg.training.recipe import StageSection

ALONE = StageSection(steps=1200, n_many=16, n_few=0, learning_rate=2e-3, warmup_steps=100, weight_decay=0.01)
WITH_GUESS = StageSection(steps=2000, n_many=16, n_few=0, learning_rate=1.5e-3, warmup_steps=60, weight_decay=0.02)

VARIANCE_FLOOR = 0.02
"""In units of the squared RMS of what is given: a lead that is nearly flat does not rule the loss."""

SPREAD_WEIGHT = 0.1
"""Of the expected error's loss."""

GAP_SHARE, GAP_SAMPLES = 0.12, (150, 1500)
"""Share of blocks in which leads are missing only for a while, and for how long: 0.5 to 5 s."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Training blocks: ``signal`` float16 (R, 12, N) in mV, NaN beyond a record's end; ``fold`` (R,), of its patient.

    ``mixtures[k]`` was fitted without the patients of fold k.
    """

    signal: np.ndarray
    fold: np.ndarray
    mixtures: list[Mixture]


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


def draw_missing(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Draw what is missing, bool (12, n_samples): leads as `draw_hidden`, or any few, or for a while only."""
    hidden = draw_hidden(rng)
    if rng.random() < 0.1:  # a limb lead or none, and a few precordial ones
        hidden[:] = True
        hidden[rng.integers(len(LIMB_LEADS))] = rng.random() < 0.2
        hidden[len(LIMB_LEADS) + rng.permutation(6)[: rng.integers(1, 4)]] = False
    missing = np.repeat(hidden[:, None], n_samples, axis=1)
    if rng.random() < GAP_SHARE:
        length = int(rng.integers(*GAP_SAMPLES))
        start = int(rng.integers(max(1, n_samples - length)))
        missing[:, :start] = False
        missing[:, start + length :] = False
    return missing


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


def spread_loss(log_spread: Tensor, guess: Tensor, truth: Tensor) -> Tensor:
    """Return -log p of the error under a Laplace distribution, mean over what is asked; (B, 12, N) each."""
    asked = torch.isfinite(truth)
    error = (guess.detach() - torch.where(asked, truth, 0.0)).abs()
    return (error * (-log_spread).exp() + log_spread)[asked].mean()


def fit_alone(network: UNet, signals: np.ndarray, folder: Path, stage: StageSection = ALONE) -> UNet:
    """Train on blocks, float16 (R, 12, N) in mV, NaN beyond a record's end; goes on where it stopped."""

    def make(step: int) -> list[Any]:
        rng = np.random.default_rng((1, step))
        inputs, wanted = [], []
        for truth in signals[rng.choice(len(signals), stage.n_many, replace=False)].astype(np.float32):
            hidden = draw_hidden(rng)[:, None]
            x, scale = leads_input(np.where(hidden, np.nan, truth))
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


def example(rng: np.random.Generator, truth: np.ndarray, mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Hide something of a block (12, N), mV; return the network's input and what is wanted, in its units."""
    recorded = int(np.isfinite(truth).all(axis=0).sum())
    missing = draw_missing(rng, recorded)
    beyond = ((0, 0), (0, truth.shape[1] - recorded))
    given = np.where(missing, np.float32(np.nan), truth[:, :recorded])
    guess = np.where(missing, regress(mixture, given).mean, np.nan)
    whole = [
        np.pad(x, beyond, constant_values=np.nan)
        for x in (given, guess, np.where(missing, truth[:, :recorded], np.nan))
    ]
    x, scale = network_input(whole[0], whole[1])
    return x, (whole[2] / scale).astype(np.float32)


def fit_corrector(network: Corrector, blocks: Blocks, folder: Path, stage: StageSection = WITH_GUESS) -> Corrector:
    """Train the network that corrects guesses; goes on where it stopped."""

    def make(step: int) -> list[Any]:
        rng = np.random.default_rng((2, step))
        chosen = rng.choice(len(blocks.signal), stage.n_many, replace=False)
        made = [example(rng, blocks.signal[i].astype(np.float32), blocks.mixtures[int(blocks.fold[i])]) for i in chosen]
        inputs, wanted = zip(*made, strict=True)
        return [(torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(wanted)))]

    def losses(parts: list[Any], _step: int) -> tuple[Tensor, dict[str, float]]:
        inputs, wanted = parts[0]
        guess, log_spread = network(inputs)[..., : wanted.shape[-1]].chunk(2, dim=1)
        loss, r = restoring_loss(guess, wanted)
        of_spread = spread_loss(log_spread, guess, wanted)
        return loss + SPREAD_WEIGHT * of_spread, {"r": r, "spread": of_spread.item()}

    train(network, losses, make, stage, folder, seed=2)
    return network
