"""First stage: learn rhythm codes that decode into waveform, wavelets and demography.

Method: AnyECG (arXiv 2411.17711), multi-view tokenizer training; the noisy signal goes in, the clean one is the target.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from anyecg.metrics import usage_and_perplexity
from anyecg.models.demography import Demography
from anyecg.models.sizes import TokenizerConfig
from anyecg.models.tokenizer import Tokenizer, Views
from anyecg.signals import Preparation
from anyecg.tokens import Grid
from anyecg.training.batches import Augmentation, BatchMaker, Part
from anyecg.training.datasets import Corpus, load_noise, prepare_databases
from anyecg.training.loop import train
from anyecg.training.recipe import Recipe, TokenizerStage

AGE_CENTRE, AGE_UNIT = 60.0, 20.0  # years
WEIGHT_CENTRE, WEIGHT_UNIT = 75.0, 15.0  # kg


def grid_of(config: TokenizerConfig) -> Grid:
    """Return the lead x time grid a tokenizer works on."""
    return Grid(config.fs_hz, config.fragment_samples, config.block_fragments, config.scale_per)


def preparation_of(config: TokenizerConfig) -> Preparation:
    """Return how a tokenizer wants records prepared."""
    return Preparation(config.fs_hz, config.low_hz, config.high_hz)


def training_batches(recipe: Recipe, noise_probability: float) -> BatchMaker:
    """Return the batch maker over the train split that both stages use."""
    sizes = recipe.sizes.tokenizer
    folder = prepare_databases(recipe.data.folder, recipe.data.splits, preparation_of(sizes))
    corpus = Corpus(folder, "train", recipe.data.databases)
    noise = load_noise(recipe.data.folder, "train", preparation_of(sizes))
    augmentation = Augmentation(noise_probability=noise_probability)
    return BatchMaker(corpus, noise, grid_of(sizes), sizes.lead_names, augmentation)


def train_tokenizer(recipe: Recipe, stop_at: int | None = None) -> Path:
    """Train the tokenizer of a recipe; resume if it was interrupted.

    Parameters
    ----------
    recipe : Recipe
        See `anyecg.training.recipe.load_recipe`.
    stop_at : int, optional
        Stop after this many steps; a later call goes on.

    Returns
    -------
    Path
        The folder with ``state.pt`` and the logs.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    stage, folder = recipe.tokenizer, recipe.folder / "tokenizer"
    model = Tokenizer(recipe.sizes.tokenizer)
    batches = training_batches(recipe, stage.noise_probability)
    train(
        model,
        tokenizer_losses(model, stage),
        lambda step: batches.parts(recipe.seed, step, stage.n_many, stage.n_few),
        stage,
        folder,
        recipe.seed,
        stop_at,
    )
    return folder


def tokenizer_losses(
    model: Tokenizer, stage: TokenizerStage
) -> Callable[[list[Part], int], tuple[Tensor, dict[str, float]]]:
    """Return the function from the parts of a step to the loss and the numbers to log."""

    def losses(parts: list[Part], step: int) -> tuple[Tensor, dict[str, float]]:
        if step == 0:
            measure_wavelets(model, parts)
        total = torch.zeros(())
        numbers: dict[str, float] = {}
        for part in parts:
            name = "many" if part.lead_ids.shape[1] > 2 else "few"
            valid, lead_ids = torch.from_numpy(part.valid), torch.from_numpy(part.lead_ids)
            z, quantized, views = model(torch.from_numpy(part.noisy), valid, lead_ids)
            morphology = masked_mse(views.samples.float(), torch.from_numpy(part.clean), recorded_in(part))
            frequency = frequency_loss(model, views, part)
            demography = demography_loss(views.demography, part)
            steadiness = steadiness_loss(model, z, part)
            total = total + (
                stage.morphology * morphology
                + stage.frequency * frequency
                + stage.demography * demography
                + stage.commitment * quantized.loss
                + stage.steadiness * steadiness
            )
            usage, perplexity = usage_and_perplexity(quantized.codes[:, 0].numpy(), model.config.codebook_size)
            numbers |= {f"morphology_{name}": morphology.item(), f"frequency_{name}": frequency.item()}
            numbers |= {f"demography_{name}": demography.item(), f"commitment_{name}": quantized.loss.item()}
            numbers |= {f"steadiness_{name}": steadiness.item()}
            numbers |= {f"usage_{name}": usage, f"perplexity_{name}": perplexity}
        return total / len(parts), numbers

    return losses


def steadiness_loss(model: Tokenizer, z: Tensor, part: Part) -> Tensor:
    """Return how far the vectors of noisy fragments point away from those of the clean ones, 0 to 2.

    Ours: decoding the clean signal alone lets one heartbeat have many codes, one for each noise.
    """
    samples, recorded, valid = torch.from_numpy(part.clean), recorded_in(part), torch.from_numpy(part.valid)
    noisy_too = (samples != torch.from_numpy(part.noisy)).flatten(1).any(dim=1)  # (B,); the others agree already
    if not noisy_too.any():
        return z.new_zeros(())
    samples, recorded, valid = samples[noisy_too], recorded[noisy_too], valid[noisy_too]
    # The clean signal is in units of the noisy one's scale; alone it would be scaled to RMS 1.
    power = (samples.square() * recorded).sum(dim=(2, 3)) / recorded.sum(dim=(2, 3)).clamp_min(1)
    if model.config.scale_per == "record":
        power = power.mean(dim=1, keepdim=True)
    scaled = samples / power.sqrt().clamp_min(1e-3)[:, :, None, None]
    with torch.no_grad():
        clean_z = model.encode(scaled, valid, torch.from_numpy(part.lead_ids)[noisy_too])
    if model.config.quantizer == "fsq":
        return (1 - F.cosine_similarity(z[noisy_too], clean_z, dim=-1))[valid].mean()
    return (1 - (z[noisy_too] * clean_z).sum(dim=-1))[valid].mean()


def recorded_in(part: Part) -> Tensor:
    """Return the samples that were recorded, in tokens that count: bool (B, L, P, S)."""
    return torch.from_numpy(part.recorded & part.valid[..., None])


def masked_mse(guess: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean squared error over the elements that count."""
    return ((guess - target).square() * where).sum() / where.sum().clamp_min(1)


def measure_wavelets(model: Tokenizer, parts: list[Part]) -> None:
    """Set the scale of each wavelet coefficient from the first batch: one figure a band."""
    model.wavelet_std.fill_(1.0)
    seen = torch.cat([model.wavelet_view(torch.from_numpy(p.clean))[torch.from_numpy(p.valid)] for p in parts])
    bands = torch.from_numpy(model.wavelet_bands_hz)
    for lower_hz in bands.unique():
        model.wavelet_std[bands == lower_hz] = seen[:, bands == lower_hz].square().mean().sqrt().clamp_min(1e-3)


def frequency_loss(model: Tokenizer, views: Views, part: Part) -> Tensor:
    """Mean squared error of the wavelet view, only in bands that the source could record."""
    target = model.wavelet_view(torch.from_numpy(part.clean))  # (B, L, P, W)
    nyquist_hz = torch.from_numpy(part.source_fs)[:, None, None, None] / 2
    could_be_recorded = torch.from_numpy(model.wavelet_bands_hz) < nyquist_hz  # (B, 1, 1, W)
    whole = torch.from_numpy(part.recorded.all(axis=-1) & part.valid)[..., None]  # a gap would ring in every band
    return masked_mse(views.wavelet.float(), target, (whole & could_be_recorded).expand_as(target))


def demography_loss(guess: Demography, part: Part) -> Tensor:
    """Huber for age and weight, cross-entropy for sex; unknown attributes carry no loss."""
    age, weight, sex = (torch.from_numpy(x) for x in (part.age, part.weight_kg, part.sex))
    losses = [
        _masked_mean(F.huber_loss(guess.age, (age.nan_to_num() - AGE_CENTRE) / AGE_UNIT, reduction="none"), age),
        _masked_mean(
            F.huber_loss(guess.weight, (weight.nan_to_num() - WEIGHT_CENTRE) / WEIGHT_UNIT, reduction="none"), weight
        ),
        _masked_mean(F.cross_entropy(guess.sex, sex.nan_to_num().long(), reduction="none"), sex),
    ]
    return torch.stack(losses).sum()


def _masked_mean(loss: Tensor, attribute: Tensor) -> Tensor:
    known = torch.isfinite(attribute)
    return (loss * known).sum() / known.sum().clamp_min(1)
