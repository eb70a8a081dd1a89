"""A checkpoint is a folder: config.json, model.safetensors, three ONNX graphs, anomaly.npz, card.md. Never a pickle.

The weights lie in ``model.safetensors`` alone, as float16; the ONNX graphs point into it (ONNX external data) and
widen them when they are loaded. This module finds folders, reads configs and checks hashes. It is the only one that
reads environment variables.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from anyecg.errors import CheckpointError
from anyecg.signals import Preparation
from anyecg.tokens import Grid

FORMAT_VERSION = 2

CHECKPOINTS = {"nano": Path(__file__).parent / "weights" / "nano"}
"""Checkpoints that come with the package. ``ANYECG_CHECKPOINTS`` may name a folder of more."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and its parsed config."""

    folder: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name, such as ``"nano"``."""
        return str(self.config["name"])

    @property
    def preparation(self) -> Preparation:
        """How it wants records prepared."""
        sizes = self.config["model"]["tokenizer"]
        return Preparation(sizes["fs_hz"], sizes["low_hz"], sizes["high_hz"])

    @property
    def grid(self) -> Grid:
        """Its lead x time grid."""
        sizes = self.config["model"]["tokenizer"]
        return Grid(sizes["fs_hz"], sizes["fragment_samples"], sizes["block_fragments"], sizes["scale_per"])

    @property
    def lead_names(self) -> tuple[str, ...]:
        """Leads with an embedding of their own; the first is "unknown"."""
        return tuple(self.config["model"]["tokenizer"]["lead_names"])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights, as they lie on the disk."""
        return file_sha256(self.folder / "model.safetensors")

    def describe(self) -> dict[str, Any]:
        """Return what a Result says of its model."""
        return {
            "name": self.name,
            "version": self.config["version"],
            "sha256": self.sha256,
            "trained_on": self.config["trained_on"],
            "low_hz": self.preparation.low_hz,
            "high_hz": self.preparation.high_hz,
        }


def open_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Find a checkpoint by name or folder, read its config and check its weights.

    Raises
    ------
    CheckpointError
        There is none, it is of another format version, or its weights are not those it was written with.
    """
    folder = _find(name_or_path)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}. Take the folder anew from its source.") from error
    version = config.get("format_version")
    if version == 1:
        config = with_reach_and_scale(config)
    elif version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: checkpoint format {version}, expected 1 to {FORMAT_VERSION}. "
            "Use the anyecg version that wrote it."
        )
    checkpoint = Checkpoint(folder, config)
    missing = [name for name in config["files"] if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} missing. Take the folder anew from its source.")
    if checkpoint.sha256 != config["files"]["model.safetensors"]:
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: SHA-256 {checkpoint.sha256[:12]}..., expected "
            f"{config['files']['model.safetensors'][:12]}.... The file is damaged: take it anew from its source."
        )
    return checkpoint


def with_reach_and_scale(config: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a config of format 1 to 2, which says how far attention reaches and what shares a scale in a block."""
    model = config["model"]
    reaches = {"encoder_reach": "cardio-sparse", "decoder_reach": "cardio-sparse", "scale_per": "lead"}
    tokenizer = {**reaches, **model["tokenizer"]}
    encoder = {"reach": "cardio-sparse", **model["encoder"]}
    return {
        **config,
        "format_version": 2,
        "upgraded_from": 1,
        "model": {**model, "tokenizer": tokenizer, "encoder": encoder},
    }


def list_models() -> list[dict[str, Any]]:
    """Return what is known of every checkpoint at hand: name, version, parameters, sha256, licence, data, folder."""
    return [_entry(open_checkpoint(folder)) for folder in _known().values()]


def _entry(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    return {
        **checkpoint.describe(),
        "parameters": config["parameters"],
        "licence": config["licence"],
        "folder": str(checkpoint.folder),
    }


def _known() -> dict[str, Path]:
    known = {name: folder for name, folder in CHECKPOINTS.items() if (folder / "config.json").is_file()}
    extra = os.environ.get("ANYECG_CHECKPOINTS")
    if extra:
        known |= {config.parent.name: config.parent for config in sorted(Path(extra).glob("*/config.json"))}
    return known


def _find(name_or_path: str | Path) -> Path:
    known = _known()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    folder = Path(name_or_path)
    if (folder / "config.json").is_file():
        return folder
    raise CheckpointError(
        f"{name_or_path}: no such model, expected one of {', '.join(known) or 'none'} or a checkpoint folder. "
        "See anyecg models."
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
