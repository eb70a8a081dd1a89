"""A head's two files: written, read, and refused when damaged."""

from pathlib import Path

import pytest

from anyecg.errors import CheckpointError
from anyecg.heads import head_config, head_names, open_head, write_head

CONFIG = {"kind": "record", "labels": []}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_head(tmp_path, "mine", CONFIG, b"graph")
    assert head_names(tmp_path) == ["mine"]
    head = open_head(tmp_path, "mine")
    assert head is not None and head.path == written and head.name == "mine"
    assert head.config == head_config(tmp_path, "mine") and head.config["kind"] == "record"
    assert open_head(tmp_path, "another") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", "\u00ff"])
def test_a_json_that_is_none_is_refused_however_it_is_read(tmp_path: Path, content: str) -> None:
    path = write_head(tmp_path, "mine", CONFIG, b"graph")
    path.write_bytes(content.encode("latin-1"))
    for read in (head_config, open_head):
        with pytest.raises(CheckpointError, match=r"mine\.json: .*Take the checkpoint anew"):
            read(tmp_path, "mine")


@pytest.mark.parametrize("files", ["null", "[]", "{}", '{"mine.onnx": null}', '{"mine.onnx": "00"}'])
def test_a_graph_that_is_not_vouched_for_is_refused(tmp_path: Path, files: str) -> None:
    path = write_head(tmp_path, "mine", CONFIG, b"graph")
    path.write_text(f'{{"name": "mine", "files": {files}}}')
    assert head_config(tmp_path, "mine")["name"] == "mine"
    with pytest.raises(CheckpointError, match=r"[Tt]ake the checkpoint anew"):
        open_head(tmp_path, "mine")
