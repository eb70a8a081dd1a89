"""Graphs run over many items: in parts, beside each other, in order."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.checkpoint import open_checkpoint
from anyecg.graphs import TOKENS_AT_ONCE, Graphs

TOKENIZER = "tokenizer_encoder.onnx"


@pytest.fixture(scope="module")
def folder() -> Path:
    """The checkpoint that ships."""
    return open_checkpoint("nano").folder


def blocks(n: int, n_leads: int = 2) -> dict[str, np.ndarray]:
    """Return n blocks of noise, no two alike."""
    samples = np.random.default_rng(n).normal(size=(n, n_leads, 20, 150)).astype(np.float32)
    lead_ids = np.tile(np.arange(1, n_leads + 1), (n, 1))
    return {"samples": samples, "valid": np.ones(samples.shape[:3], dtype=bool), "lead_ids": lead_ids}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parts_beside_each_other_give_what_each_item_gives_alone(folder: Path, threads: int) -> None:
    """Their order is that of the items, and none is left out, also when the last part is short."""
    n = 2 * TOKENS_AT_ONCE // 40 + 1
    inputs = blocks(n)
    (codes,) = Graphs(folder, threads).run(TOKENIZER, None, **inputs)
    one = Graphs(folder, 1)
    alone = [one.run(TOKENIZER, None, **{k: x[i : i + 1] for k, x in inputs.items()})[0] for i in range(n)]
    np.testing.assert_array_equal(codes, np.concatenate(alone))


def test_parts_do_not_depend_on_the_cores(folder: Path) -> None:
    """A part holds no more than fits a core's cache; few items are two parts on any machine."""
    sizes: list[int] = []

    class Session:
        def run(self, outputs: object, inputs: dict[str, np.ndarray], options: object) -> list[np.ndarray]:
            sizes.append(len(inputs["samples"]))
            return [inputs["lead_ids"]]

    class Opened:
        def result(self) -> Session:
            return Session()

    for n_items, n_leads, threads, expected in (
        (16, 12, 2, [2] * 8),
        (4, 1, 2, [2, 2]),
        (3, 1, 1, [1, 2]),
        (6, 3, 8, [3, 3]),
        (1, 12, 4, [1]),
    ):
        sizes.clear()
        graphs = Graphs(folder, threads)
        graphs.open = lambda name: Opened()  # type: ignore[method-assign, assignment, return-value]
        graphs.run("a graph", None, **blocks(n_items, n_leads))
        assert sorted(sizes) == expected


def test_leads_that_do_not_see_each_other_run_beside_each_other(folder: Path) -> None:
    inputs = blocks(3, 12)
    for key in ("samples", "lead_ids"):
        inputs[key] = inputs[key][:, ::-1].copy()
    graphs = Graphs(folder, 2)
    (together,), (by_lead,) = graphs.run(TOKENIZER, None, **inputs), graphs.run_by_lead(TOKENIZER, None, **inputs)
    np.testing.assert_array_equal(by_lead, together)
