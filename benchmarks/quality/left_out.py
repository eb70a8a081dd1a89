"""Row ``left_out``: what is abnormal in sources that no stage has seen, neither labels nor signals.

The shipped networks were pre-trained on the training records of every database, without labels. Here nano's recipe is
run anew, cut short, without the sources that anomaly detection is tried on, so that *all* their records are held out.
The one class is learned from ptb-xl's normal training records, as always.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyecg.training.datasets import READERS_OF
from anyecg.training.recipe import Recipe, load_recipe

LEFT_OUT = ("cinc2021", "ludb")

BUDGET = {"tokenizer.steps": 1200, "pretrain.steps": 1200}
"""Two fifths and three tenths of nano's: about an hour of one core."""

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "nano_cpu.toml"


def recipe_of(data: Path, work: Path) -> Recipe:
    """Return nano's recipe without the sources, cut short, on one thread."""
    seen = [name for name in READERS_OF if name not in LEFT_OUT]
    changes: dict[str, Any] = {
        "name": "nano-left-out",
        "out": str(work),
        "threads": 1,
        "data.folder": str(data),
        "data.splits": str(data / "splits.csv"),
        "data.databases": seen,
        **BUDGET,
    }
    return load_recipe(RECIPE, [f"{key}={value!r}" for key, value in changes.items()])
