"""Second stage: hide rhythm codes and learn to guess them.

Method: AnyECG (arXiv 2411.17711), masked modelling of rhythm codes; the tokenizer is frozen.

Ours, beside the codes: where they are hidden the encoder also guesses what a slowly following copy of itself, which
sees everything, thinks there (data2vec, arXiv 2202.03555; for ECG, ECG-JEPA, arXiv 2410.08559). Codes alone reward
detail that a diagnosis does not need.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.errors import CheckpointError
from anyecg.models.encoder import Encoder
from anyecg.models.tokenizer import Tokenizer
from anyecg.tokens import to_blocks, to_timeline
from anyecg.training.batches import Part
from anyecg.training.loop import train
from anyecg.training.masks import mixed_mask
from anyecg.training.recipe import PretrainStage, Recipe
from anyecg.training.train_tokenizer import demography_loss, training_batches

TEACHER_LAYERS = 3
"""The teacher's view is the mean of its last layers: the very last serves the code book most of all."""


class Student(nn.Module):
    """The encoder in training, and its teacher: the moving average of its weights."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.teacher = deepcopy(encoder).requires_grad_(False)
        self.to_latent = nn.Linear(encoder.config.width, encoder.config.width)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher a little towards the encoder."""
        for slow, fast in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)

    @torch.no_grad()
    def teachers_view(self, codes: Tensor, valid: Tensor, lead_ids: Tensor, *amplitudes: Tensor) -> Tensor:
        """Return what the teacher makes of a window of which nothing is hidden, (B, L, P, D), standardised."""
        layers = self.teacher(codes, valid, torch.zeros_like(valid), lead_ids, *amplitudes)
        views = [F.layer_norm(layer.float(), layer.shape[-1:]) for layer in layers[-TEACHER_LAYERS:]]
        return F.layer_norm(torch.stack(views).mean(dim=0), views[0].shape[-1:])


def pretrain(recipe: Recipe, stop_at: int | None = None) -> Path:
    """Pre-train the encoder of a recipe on the codes of its trained tokenizer; resume if it was interrupted.

    Parameters
    ----------
    recipe : Recipe
    stop_at : int, optional
        Stop after this many steps; a later call goes on.

    Returns
    -------
    Path
        The folder with ``state.pt`` and the logs.

    Raises
    ------
    CheckpointError
        The recipe's tokenizer is not trained yet.
    """
    torch.set_num_threads(recipe.threads)
    stage, folder = recipe.pretrain, recipe.folder / "encoder"
    tokenizer = load_trained_tokenizer(recipe)
    torch.manual_seed(recipe.seed + 1)
    model = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    batches = training_batches(recipe, stage.noise_probability)
    train(
        model,
        pretraining_losses(model, tokenizer, stage, recipe.seed),
        lambda step: batches.parts(recipe.seed + 1, step, stage.n_many, stage.n_few, stage.few_blocks),
        stage,
        folder,
        recipe.seed + 1,
        stop_at,
    )
    return folder


def load_trained_tokenizer(recipe: Recipe) -> Tokenizer:
    """Return the frozen tokenizer of a recipe's first stage."""
    path = recipe.folder / "tokenizer" / "state.pt"
    if not path.exists():
        raise CheckpointError(f"{path}: no trained tokenizer, expected one. Run anyecg train-tokenizer with it first.")
    tokenizer = Tokenizer(recipe.sizes.tokenizer)
    tokenizer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    return tokenizer.eval().requires_grad_(False)


def pretraining_losses(
    student: Student, tokenizer: Tokenizer, stage: PretrainStage, seed: int
) -> Callable[[list[Part], int], tuple[Tensor, dict[str, float]]]:
    """Return the function from the parts of a step to the loss and the numbers to log."""
    model = student.encoder
    # The first level carries most of the waveform, the last mostly noise.
    level_weights = 1.0 / torch.arange(1, model.n_levels + 1)
    if stage.guessed_levels is not None:
        level_weights[stage.guessed_levels :] = 0
    level_weights = level_weights / level_weights.sum()

    def losses(parts: list[Part], step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, step, 2])
        student.follow(stage.teacher_decay if step else 0.0)
        total = torch.zeros(())
        numbers: dict[str, float] = {}
        for part in parts:
            name = "many" if part.lead_ids.shape[1] > 2 else "few"
            mask = mixed_mask(part.valid, stage.mask, rng)
            if stage.symmetric:
                part, mask = with_complement(part, mask)
            codes = codes_of(tokenizer, part)
            hidden = torch.from_numpy(mask)
            forget_gain = rng.random(len(mask)) < stage.unknown_gain_probability
            log_scale, scale_known = window_amplitudes(part, mask, forget_gain)
            valid, lead_ids = torch.from_numpy(part.valid), torch.from_numpy(part.lead_ids)
            last = model(codes, valid, hidden, lead_ids, log_scale, scale_known)[-1]
            logits = model.guess(last[hidden]).float()  # (hidden tokens, K, V)
            nll = F.cross_entropy(logits.flatten(0, 1), codes[hidden].flatten(), reduction="none")
            loss = nll.unflatten(0, (-1, model.n_levels)).mean(dim=0)  # (K,)
            # Asked for: leads that are hidden whole, in a recording whose gain is known.
            asked = torch.from_numpy(part.gain_known & ~forget_gain)[:, None] & valid.any(dim=-1) & ~scale_known
            amplitude = amplitude_loss(model.guess_amplitude(last, valid).float(), log_scale, asked)
            seen = student.teachers_view(codes, valid, lead_ids, log_scale, scale_known)[hidden]
            latent = F.smooth_l1_loss(student.to_latent(last[hidden]).float(), seen)
            demography = demography_loss(model.guess_demography(last, valid), part)
            total = total + (loss * level_weights).sum()
            total = total + stage.amplitude * amplitude + stage.demography * demography + stage.latent * latent
            right = (logits.argmax(dim=-1) == codes[hidden]).float().mean(dim=0)
            numbers |= {f"loss_{name}": (loss * level_weights).sum().item(), f"amplitude_{name}": amplitude.item()}
            # A spread that falls to 0 would say that the teacher thinks the same everywhere: collapse.
            numbers |= {f"latent_{name}": latent.item(), f"latent_spread_{name}": seen.std(dim=0).mean().item()}
            numbers |= {f"demography_{name}": demography.item()}
            numbers |= {f"accuracy_{name}_level{k + 1}": right[k].item() for k in range(model.n_levels)}
        return total / len(parts), numbers

    return losses


def with_complement(part: Part, mask: np.ndarray) -> tuple[Part, np.ndarray]:
    """Return every window twice, the second time with exactly those tokens hidden that were visible."""
    twice = {field.name: np.concatenate([getattr(part, field.name)] * 2) for field in fields(part)}
    return Part(**twice), np.concatenate([mask, part.valid & ~mask])


def amplitude_loss(guess: Tensor, log_scale: Tensor, asked: Tensor) -> Tensor:
    """Huber loss of the guessed log RMS (B, L) over the leads that are asked for."""
    loss = F.huber_loss(guess, log_scale, reduction="none")
    return (loss * asked).sum() / asked.sum().clamp_min(1)


@torch.no_grad()
def codes_of(tokenizer: Tokenizer, part: Part) -> Tensor:
    """Tokenise the noisy signal of a part, block by block, in float32 as users do: codes (B, L, P, K)."""
    n_items, n_block = len(part.noisy), tokenizer.config.block_fragments

    def in_blocks(x: np.ndarray) -> Tensor:  # (B, L, P, ...) -> (B * blocks, L, P of a block, ...)
        return torch.from_numpy(np.concatenate([to_blocks(item, n_block, 0) for item in x]))

    n_blocks = part.valid.shape[2] // n_block
    lead_ids = torch.from_numpy(np.repeat(part.lead_ids, n_blocks, axis=0))
    with torch.autocast("cpu", enabled=False):
        codes = tokenizer.codes(in_blocks(part.noisy), in_blocks(part.valid), lead_ids).numpy()
    windows = codes.reshape(n_items, n_blocks, *codes.shape[1:])
    return torch.from_numpy(np.stack([to_timeline(w, part.valid.shape[2]) for w in windows]))


def window_amplitudes(part: Part, mask: np.ndarray, forget_gain: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return log RMS (B, L), and whether it may be known: not if the gain is unknown or the whole lead is hidden."""
    in_blocks = part.valid.reshape(*part.valid.shape[:2], part.scale_mv.shape[1], -1).any(axis=-1)  # (B, L, n_blocks)
    log_scale = np.log(part.scale_mv).transpose(0, 2, 1)
    mean = (log_scale * in_blocks).sum(axis=-1) / np.maximum(in_blocks.sum(axis=-1), 1)
    visible = (part.valid & ~mask).any(axis=-1)
    known = visible & (part.gain_known & ~forget_gain)[:, None]
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(known)
