"""A finished run -> a checkpoint folder: choose the embedding layer, write weights and graphs, fit what is normal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyecg import __version__
from anyecg.checkpoint import file_sha256
from anyecg.engine import Model, load
from anyecg.errors import CheckpointError
from anyecg.leads import STANDARD_LEADS
from anyecg.models.encoder import Encoder
from anyecg.models.export import round_to_half, write_checkpoint
from anyecg.record import Record
from anyecg.tasks.anomaly import NormalReference, save_references
from anyecg.training.card import write_card
from anyecg.training.datasets import (
    NORMAL,
    SINGLE_LEAD_DATABASE,
    SINGLE_LEAD_NORMAL,
    SUPERCLASS_DATABASE,
    Corpus,
    prepare_databases,
)
from anyecg.training.pretrain import load_trained_tokenizer
from anyecg.training.probe import choose_layer
from anyecg.training.recipe import Recipe
from anyecg.training.train_tokenizer import grid_of, preparation_of

LICENCE = "Apache-2.0"
MOST_NORMAL = 250
"""Normal records of a database that are looked at; more change little."""


def export(recipe: Recipe, folder: Path, version: str, progress: Callable[[str], None] = print) -> Path:
    """Write the checkpoint of a trained recipe.

    Parameters
    ----------
    recipe : Recipe
        Both stages trained.
    folder : Path
        Where to write; existing files are replaced.
    version : str
        Of the weights, such as ``"2026.11"``.

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
    references = {context: fit_reference(model, prepared, context, progress) for context in ("many", "few")}
    save_references(folder, references)
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


def fit_reference(model: Model, prepared: Path, context: str, progress: Callable[[str], None]) -> NormalReference:
    """Fit what is normal on normal training records; measure it on normal validation records."""
    leads = ("unknown", *STANDARD_LEADS)
    progress(f"embedding normal records, {context} leads at a time")
    train = [_views(model, record, context) for record in _normal_records(model, prepared, "train")]
    by_lead = np.stack([per_lead for per_lead, _ in train])  # (n_records, 13, width)
    if context == "few":
        unknown = [
            model.embed(record).pooled
            for record in _normal_records(model, prepared, "train", SINGLE_LEAD_DATABASE, SINGLE_LEAD_NORMAL)
        ]
        means = np.stack([np.mean(unknown, axis=0), *by_lead[:, 1:].mean(axis=0)])
    else:
        means = by_lead.mean(axis=0)
    reference = NormalReference(leads, means, _whitening(by_lead[:, 1:] - means[1:]), np.zeros((0, 0)), 0.0)

    validation = [_views(model, record, context) for record in _normal_records(model, prepared, "val")]
    distances = np.stack([reference.distance(per_lead, leads) for per_lead, _ in validation])
    if context == "few":
        unknown_distance = [
            reference.distance(model.embed(record).pooled[None], ("unknown",))[0]
            for record in _normal_records(model, prepared, "val", SINGLE_LEAD_DATABASE, SINGLE_LEAD_NORMAL)
        ]
        # As many rows as the 12-lead records: quantiles of a larger sample.
        distances[:, 0] = np.quantile(unknown_distance, (np.arange(len(distances)) + 0.5) / len(distances))
    limit = float(np.nanquantile(np.concatenate([surprise.ravel() for _, surprise in validation]), 0.99))
    return NormalReference(leads, means, reference.whitening, distances, limit)


def _normal_records(
    model: Model, prepared: Path, split: str, database: str = SUPERCLASS_DATABASE, labels: list[str] | None = None
) -> list[Record]:
    corpus = Corpus(prepared, split, (database,))
    normal = [e for e in corpus.entries if e.labels == (labels or NORMAL) and e.clean]
    return [corpus.record(e, model.checkpoint.grid.fs_hz) for e in normal[:MOST_NORMAL]]


def _views(model: Model, record: Record, context: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean embeddings (13, width), the record's leads as unknown ones first, and surprise (12, n_fragments)."""
    if context == "many":
        nameless = record.with_(leads=tuple(f"lead {i + 1}" for i in range(record.n_leads)))
        as_unknown = model.embed(nameless).pooled
        tokens = model.tokenize(record)
        return np.stack([as_unknown, *model.embed(tokens).per_lead()]), model.surprise(tokens)
    singles = [model.tokenize(record.pick([lead])) for lead in record.leads]
    per_lead = [model.embed(tokens).pooled for tokens in singles]
    surprise = np.concatenate([model.surprise(tokens) for tokens in singles])
    return np.stack([np.mean(per_lead, axis=0), *per_lead]), surprise


def _whitening(centred: np.ndarray) -> np.ndarray:
    """Return W with W W' = inverse of the shrunk covariance of vectors (n_records, n_leads, width)."""
    from sklearn.covariance import LedoitWolf

    covariance = LedoitWolf(assume_centered=True).fit(centred.reshape(-1, centred.shape[-1]))
    return np.linalg.cholesky(covariance.precision_)
