"""A finished run -> a checkpoint folder: choose the embedding layer, write weights and graphs, fit what is normal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from anyecg import __version__
from anyecg.checkpoint import file_sha256
from anyecg.engine import load
from anyecg.errors import CheckpointError
from anyecg.models.encoder import Encoder
from anyecg.models.export import round_to_half, write_checkpoint
from anyecg.tasks.anomaly import CONTEXTS, save_references
from anyecg.training.card import write_card
from anyecg.training.datasets import Corpus, prepare_databases
from anyecg.training.normal import fit_references
from anyecg.training.pretrain import load_trained_tokenizer
from anyecg.training.probe import choose_layer
from anyecg.training.recipe import Recipe
from anyecg.training.train_tokenizer import grid_of, preparation_of

LICENCE = "Apache-2.0"


def export(
    recipe: Recipe,
    folder: Path,
    version: str,
    progress: Callable[[str], None] = print,
    contexts: tuple[str, ...] = tuple(CONTEXTS),
) -> Path:
    """Write the checkpoint of a trained recipe.

    Parameters
    ----------
    recipe : Recipe
        Both stages trained.
    folder : Path
        Where to write; existing files are replaced.
    version : str
        Of the weights, such as ``"2026.11"``.
    progress : callable
    contexts : tuple of str
        Numbers of leads, of `anyecg.tasks.anomaly.CONTEXTS`, for which is learned what is normal.

    Returns
    -------
    Path
        ``folder``.
    """
    torch.set_num_threads(recipe.threads)
    tokenizer = load_trained_tokenizer(recipe)
    round_to_half(tokenizer)
    encoder = _load_trained_encoder(recipe, tokenizer.quantizer.codebooks)
    round_to_half(encoder)
    prepared = prepare_databases(
        recipe.data.folder, recipe.data.splits, preparation_of(recipe.sizes.tokenizer), progress
    )
    progress("choosing the embedding layer on validation records")
    layer, by_layer = choose_layer(tokenizer, encoder, prepared, grid_of(recipe.sizes.tokenizer))
    trained_on = sorted({e.database for e in Corpus(prepared, "train", recipe.data.databases).entries})
    facts: dict[str, Any] = {
        "name": recipe.name,
        "version": version,
        "licence": LICENCE,
        "trained_on": trained_on,
        "anyecg_version": __version__,
        "seed": recipe.seed,
        "splits_sha256": file_sha256(recipe.data.splits),
        "window_fragments": {
            "many": recipe.sizes.tokenizer.block_fragments,
            "few": recipe.sizes.tokenizer.block_fragments * recipe.pretrain.few_blocks,
        },
        "embedding_layer_validation_auroc": [round(a, 4) for a in by_layer],
        "recipe": recipe.model_dump(mode="json", exclude={"data", "out", "threads"}),
    }
    progress("writing weights and graphs")
    write_checkpoint(folder, tokenizer, encoder, embedding_layer=layer, facts=facts)
    model = load(folder, threads=recipe.threads)
    save_references(folder, fit_references(model, prepared, progress, contexts))
    write_card(folder)
    return folder


def _load_trained_encoder(recipe: Recipe, codebooks: torch.Tensor) -> Encoder:
    path = recipe.folder / "encoder" / "state.pt"
    if not path.exists():
        raise CheckpointError(
            f"{path}: no pre-trained encoder, expected one. Run anyecg pretrain with the recipe first."
        )
    encoder = Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, codebooks)
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    own = {name.removeprefix("encoder."): x for name, x in state.items() if name.startswith("encoder.")}
    encoder.load_state_dict(own)  # its teacher stays behind
    return encoder.eval()
