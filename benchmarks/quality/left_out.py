"""Row ``left_out``: what is abnormal in sources that no stage has seen, neither labels nor signals.

The shipped networks were pre-trained on the training records of every database, without labels. Here nano's recipe is
run anew, cut short, without the sources that anomaly detection is tried on, so that *all* their records are held out.
The one class is learned from ptb-xl's normal training records, as always.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from anomaly import detection, detection_table, external, scored

from anyecg.engine import Model, load
from anyecg.tasks.anomaly import FILE as ANOMALY
from anyecg.training.datasets import NORMAL, READERS_OF, SUPERCLASS_DATABASE, Corpus, prepare_databases
from anyecg.training.pretrain import pretrain
from anyecg.training.recipe import Recipe, load_recipe
from anyecg.training.release import export
from anyecg.training.train_tokenizer import train_tokenizer

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
    return nano([f"{key}={value!r}" for key, value in changes.items()])


def nano(changes: tuple[str, ...] | list[str] = ()) -> Recipe:
    """Return the recipe of the shipped networks, changed."""
    return load_recipe(RECIPE, changes)


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train without the sources, unless that was done or as far as it was not; score all their records."""
    recipe = recipe_of(data, work)
    train_tokenizer(recipe)
    pretrain(recipe)
    folder = work / "checkpoint"
    if not (folder / ANOMALY).exists():
        export(recipe, folder, "left out", progress, contexts=("many",))
    without = load(folder)
    if set(LEFT_OUT) & set(without.checkpoint.config["trained_on"]):
        raise SystemExit(f"{folder} has seen {LEFT_OUT}: remove it.")
    prepared = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    test = [e for e in Corpus(prepared, "test", (SUPERCLASS_DATABASE,)).entries if e.labels]
    at_home = scored(without, prepared, test, None, None, work / "ours_at_home", progress)
    abnormal = np.array([e.labels != NORMAL for e in test])
    return {
        "external": external(without, prepared, data, work, progress, ((3, True), (3, False))),
        "at_home": {
            name: detection(test, np.array(s), abnormal) for name, s in at_home.items() if name != "percentile"
        },
        "trained_on": without.checkpoint.config["trained_on"],
        "steps": {"tokenizer": recipe.tokenizer.steps, "encoder": recipe.pretrain.steps},
        "shipped_steps": {"tokenizer": nano().tokenizer.steps, "encoder": nano().pretrain.steps},
    }


def tables(numbers: dict[str, Any]) -> str:
    """Write the tables."""
    steps, shipped = numbers["steps"], numbers["shipped_steps"]
    lines = [
        f"Tokenizer and encoder: nano's recipe without {' and '.join(LEFT_OUT)}, {steps['tokenizer']:,} and "
        f"{steps['encoder']:,} steps of one thread in place of {shipped['tokenizer']:,} and {shipped['encoder']:,}; "
        f"trained on {', '.join(numbers['trained_on'])}. What is normal was learned from normal training records of "
        f"{SUPERCLASS_DATABASE} alone, by ours and by every baseline. So no stage has seen a record of these sources, "
        "and all of them are held out. Normal: only sinus rhythm in the header, or (first table of each) a variant of "
        "it. Intervals: 95 %, patients drawn with replacement.",
        "",
    ]
    for name, methods in numbers["external"].items():
        lines += detection_table(name.replace("test + val + train", "all records"), methods)
    lines += ["The same networks where they are at home:", ""]
    lines += detection_table(f"{SUPERCLASS_DATABASE}, test", numbers["at_home"])
    lines += ["The shipped networks: see the row `anomaly`.", ""]
    return "\n".join(lines)
