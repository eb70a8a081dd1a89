"""The list of shipped heads: what the checkpoint has can be made again, and nothing else."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

import anyecg
from anyecg.heads import head_names, open_head
from anyecg.training.shipped_heads import HEADS, train_heads


def test_every_shipped_head_has_a_function_and_opens() -> None:
    folder = anyecg.load("nano").checkpoint.folder
    assert head_names(folder) == sorted(HEADS)
    for name in HEADS:
        head = open_head(folder, name)
        assert head is not None and head.config["kind"]


def test_an_unknown_head_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no head breath; allowed are diagnosis"):
        train_heads(tmp_path, ["beats", "breath"], tmp_path, tmp_path / "splits.csv")


def test_heads_fitted_to_encoder_layers_belong_to_these_weights() -> None:
    model = anyecg.load("nano")
    for name in ("diagnosis", "rhythm"):
        head = open_head(model.checkpoint.folder, name)
        assert head is not None
        assert head.config["parent_sha256"] == model.checkpoint.sha256
