"""Baseline for lead generation: a 1-D U-Net (Ronneberger 2015, arXiv 1505.04597) from scratch.

Twelve leads, zeros where missing, and twelve masks in; twelve leads out. One network for every set of given leads, on
the same training blocks as our head: sets are drawn anew in each step, those that are measured more often. The loss of
a hidden lead is 1 - r plus log(1 + squared error / variance): leads count alike, whatever their amplitude. Our own head
begins from a network trained in the very same way (`anyecg.training.restoring.fit_alone`). `fit_longer` goes on for as
many steps as our head does, by the same schedule, without the regressed guess: what is left between the two is that.
"""

from pathlib import Path

import numpy as np
import torch

from anyecg.engine import Model
from anyecg.leads import STANDARD_LEADS
from anyecg.models.unet import UNet
from anyecg.tasks.lead_correction import leads_input
from anyecg.training.datasets import TWELVE_LEAD_DATABASES, Corpus
from anyecg.training.recipe import StageSection
from anyecg.training.restorer import each_block
from anyecg.training.restoring import ALONE, WITH_GUESS, fit_alone


def training_blocks(model: Model, prepared: Path) -> np.ndarray:
    """Return the blocks our head learned from, float16 (R, 12, N) in mV, NaN beyond a record's end."""
    grid = model.checkpoint.grid
    signals = [block.signal for block in each_block(Corpus(prepared, "train", TWELVE_LEAD_DATABASES), grid)]
    room = [((0, 0), (0, grid.block_samples - signal.shape[1])) for signal in signals]
    blocks = [np.pad(x, r, constant_values=np.nan).astype(np.float16) for x, r in zip(signals, room, strict=True)]
    return np.stack(blocks)


def fit_unet(signals: np.ndarray, folder: Path, stage: StageSection = ALONE) -> UNet:
    """Train on blocks, float16 (R, 12, N) in mV, NaN beyond a record's end; goes on where it stopped."""
    torch.manual_seed(0)
    return fit_alone(UNet(), signals, folder, stage)


def fit_longer(network: UNet, signals: np.ndarray, folder: Path, stage: StageSection = WITH_GUESS) -> UNet:
    """Train a network of `fit_unet` as much further as our head learns with its guess; goes on where it stopped.

    The blocks are put in another order first, or its steps would draw the very batches it has seen.
    """
    order = np.random.default_rng(2).permutation(len(signals))
    return fit_alone(network, signals[order], folder, stage)


@torch.no_grad()
def restore_by_unet(network: UNet, given: np.ndarray) -> np.ndarray:
    """Return all standard leads in mV, (12, N), from leads (12, N) of which some are NaN."""
    assert len(given) == len(STANDARD_LEADS)
    x, scale = leads_input(given)
    restored: np.ndarray = network(torch.from_numpy(x[None]))[0, :, : given.shape[1]].numpy()
    return restored * scale
