"""Trials: tokenizers trained small, all on one budget, so that designs can be compared.

The rows ``tokenizer`` and ``ablations`` share this. A trial keeps its weights in a folder of its own: one that is done
is not trained again, one that was interrupted goes on. One thread, so that a trial depends on no machine's cores.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from anyecg.models.sizes import ModelConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.training.batches import Part
from anyecg.training.loop import train
from anyecg.training.recipe import DataSection, PretrainStage, Recipe, TokenizerStage
from anyecg.training.train_tokenizer import tokenizer_losses, training_batches

FS_HZ = 300
BLOCK_S = 10
STEPS = 300
WINDOWS = {"n_many": 8, "n_few": 8}
"""A tenth of the steps of nano, with less than half of its windows each: two minutes of one idle core a trial."""


@dataclass(frozen=True)
class Trial:
    """One tokenizer to train.

    ``stage`` overrides loss weights and the like, never the seconds of signal a step sees; ``make`` builds the network;
    ``change`` alters the batches, such as their target.
    """

    name: str
    sizes: TokenizerConfig
    stage: dict[str, Any] = field(default_factory=dict)
    make: Callable[[TokenizerConfig], Tokenizer] = Tokenizer
    change: Callable[[Part], Part] | None = None
    seed: int = 0


def sizes_of(
    fragment_s: float, n_levels: int, codebook_size: int, block_s: int = BLOCK_S, **options: Any
) -> TokenizerConfig:
    """Return nano's sizes with other codes. A block is ten seconds whatever the fragment: all see the same windows."""
    samples = round(fragment_s * FS_HZ)
    return TokenizerConfig(
        fragment_samples=samples,
        block_fragments=block_s * FS_HZ // samples,
        n_levels=n_levels,
        codebook_size=codebook_size,
        **options,
    )


def recipe_of(trial: Trial, data: Path, out: Path) -> Recipe:
    """Return the recipe of a trial: nano's, cut short."""
    stage = {"steps": STEPS, **WINDOWS, "learning_rate": 1.5e-3, "warmup_steps": 50, **trial.stage}
    return Recipe(
        name=trial.name,
        model=ModelConfig(tokenizer=trial.sizes),
        out=out,
        seed=trial.seed,
        threads=1,
        data=DataSection(folder=data, splits=data / "splits.csv"),
        tokenizer=TokenizerStage(**stage),
        pretrain=PretrainStage(steps=0, n_many=0, n_few=0),
    )


def trained(trial: Trial, data: Path, out: Path) -> Tokenizer:
    """Train a trial's tokenizer, or go on where it stopped, in ``out/<name>``; return it in eval mode."""
    recipe = recipe_of(trial, data, out)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    stage, change = recipe.tokenizer, trial.change or (lambda part: part)
    model = trial.make(recipe.sizes.tokenizer)
    batches = training_batches(recipe, stage.noise_probability)
    train(
        model,
        tokenizer_losses(model, stage),
        lambda step: [change(part) for part in batches.parts(recipe.seed, step, stage.n_many, stage.n_few)],
        stage,
        recipe.folder / "tokenizer",
        recipe.seed,
    )
    return model.eval().requires_grad_(False)


def noisy_target(part: Part) -> Part:
    """Let the noisy signal be its own target: no denoising is learned."""
    return replace(part, clean=part.noisy)


def count_numbers(tokenizer: Tokenizer) -> int:
    """Count what was learned: parameters, and codebooks that averages move."""
    learned = sum(p.numel() for p in tokenizer.parameters())
    config = tokenizer.config
    by_averages = config.quantizer == "cosine-vq" and not config.codebook_gradient
    return learned + (tokenizer.quantizer.codebooks.numel() if by_averages else 0)
