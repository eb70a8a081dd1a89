"""Heads: small graphs in a checkpoint that turn what the model sees into labels with scores.

A head is two files in the checkpoint's folder ``heads``: ``NAME.json``, which says what it answers and how far it can
be trusted, and ``NAME.onnx``, its weights inside. NumPy in, NumPy out; no torch.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anyecg.checkpoint import file_sha256
from anyecg.errors import CheckpointError
from anyecg.graphs import open_graph

if TYPE_CHECKING:
    import onnxruntime

FOLDER = "heads"


@dataclass(frozen=True)
class Label:
    """One answer of a head.

    Parameters
    ----------
    code : str
        Short name: an MIT-BIH rhythm label or beat class, a superclass, an acronym of `anyecg.codes`.
    snomed : str or None
        SNOMED CT code; None where there is none for it.
    name : str
        In words.
    kind : str
        As `anyecg.Annotation.kind`: ``"diagnosis"``, ``"rhythm"``, ``"beat"``.
    threshold : float
        Scores from here on count as present; chosen on validation records.
    """

    code: str
    snomed: str | None
    name: str
    kind: str
    threshold: float


@dataclass(frozen=True, eq=False)
class Head:
    """A head's graph and config; the graph is opened when it first runs."""

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name: the file's stem."""
        return str(self.config["name"])

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """What it answers, in the order of its outputs."""
        return tuple(Label(**label) for label in self.config["labels"])

    def open_graph(self) -> None:
        """Open the graph now, not when it first runs."""
        _ = self._graph

    def run(self, **inputs: np.ndarray) -> list[np.ndarray]:
        """Run the graph; its inputs by name."""
        outputs: list[np.ndarray] = self._graph.run(None, inputs)
        return outputs

    @cached_property
    def _graph(self) -> "onnxruntime.InferenceSession":
        return open_graph(self.path.with_suffix(".onnx"))


def head_names(checkpoint: Path) -> list[str]:
    """Return the names of the heads in a checkpoint folder."""
    return sorted(path.stem for path in (checkpoint / FOLDER).glob("*.json"))


def head_config(checkpoint: Path, name: str) -> dict[str, Any]:
    """Return what a head says of itself; its graph is not checked.

    Raises
    ------
    CheckpointError
        The JSON is damaged, or there is none.
    """
    path = checkpoint / FOLDER / f"{name}.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error!r}. Take the checkpoint anew from its source.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: {config!r:.40}, expected an object. Take the checkpoint anew from its source.")
    return config


def open_head(checkpoint: Path, name: str) -> Head | None:
    """Open a head of a checkpoint folder; None if it has none of that name.

    Raises
    ------
    CheckpointError
        Its files are damaged.
    """
    path = checkpoint / FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    config = head_config(checkpoint, name)
    try:
        wanted, found = str(config["files"][f"{name}.onnx"]), file_sha256(path.with_suffix(".onnx"))
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {error!r}. Take the checkpoint anew from its source.") from error
    if wanted != found:
        raise CheckpointError(
            f"{path.with_suffix('.onnx')}: SHA-256 {found[:12]}..., expected {wanted[:12]}.... "
            "The file is damaged: take the checkpoint anew from its source."
        )
    return Head(path, config)


def write_head(checkpoint: Path, name: str, config: dict[str, Any], graph: bytes) -> Path:
    """Write a head into a checkpoint folder: its ONNX graph, then the JSON that vouches for it.

    ``config`` has ``kind`` and ``labels`` (a list of the fields of `Label`), and what the task needs besides.
    """
    folder = checkpoint / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.with_suffix(".onnx").write_bytes(graph)
    files = {f"{name}.onnx": file_sha256(path.with_suffix(".onnx"))}
    path.write_text(json.dumps({"name": name, **config, "files": files}, indent=1) + "\n")
    return path
