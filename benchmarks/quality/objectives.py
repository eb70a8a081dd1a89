"""Row ``objectives``: masked codes against SimCLR, BYOL and MAE, the encoder, codes, data and budget being the same.

Each is judged by the ptb-xl superclass probe, twice: pre-trained on the 12-lead records of all databases, and on those
of all databases but ptb-xl (a source left out: what is learned must carry over). Pre-training takes 12-lead records
alone, so that two more sources are left out of all of it, and are probed: handheld recordings of one lead, and Holter
beats. Labels are never pre-trained on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ablations import AS_IT_IS, UNTRAINED, Bench, encoder_recipe, pretrained, probed, probed_records
from baselines.ssl import OBJECTIVES, losses_of
from waveforms import kept

from anyecg.engine import Model
from anyecg.models.encoder import Encoder
from anyecg.models.tokenizer import Tokenizer
from anyecg.training.datasets import (
    BEATS_DATABASE,
    SINGLE_LEAD_DATABASE,
    SUPERCLASS_DATABASE,
    TWELVE_LEAD_DATABASES,
)
from anyecg.training.loop import train
from anyecg.training.probe import layer_features, standard_lead_ids, superclass_labels
from anyecg.training.recipe import Recipe
from anyecg.training.train_tokenizer import training_batches

MASKED = "masked codes (ours)"
NAMES = (UNTRAINED, MASKED, *OBJECTIVES)
SOURCES = {
    "all sources": TWELVE_LEAD_DATABASES,
    f"without {SUPERCLASS_DATABASE}": tuple(d for d in TWELVE_LEAD_DATABASES if d != SUPERCLASS_DATABASE),
}
RUNS = ((0, "all sources"), (0, f"without {SUPERCLASS_DATABASE}"), (1, "all sources"))
"""Seed and sources, in the order in which they run; a second seed shows how far apart equal runs end."""

BUDGET = {"steps": 80, "warmup_steps": 20, "n_many": 16, "n_few": 0}
"""Two hundredths of the steps of nano: one to two core-minutes a run, so that all of them are half an hour."""

PROBED_LAYERS = (2, 4)

ELSEWHERE = {"one lead": SINGLE_LEAD_DATABASE, "beats": BEATS_DATABASE}
"""What is asked of sources that are left out of all pre-training here; see `probes`."""


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Pre-train and probe whatever is missing, seed by seed; Ctrl-C ends it with the table of what is done."""
    bench = Bench(model, data, work, progress)
    done: dict[str, dict[str, list[dict[str, Any]]]] = {}
    missing, stopped = [], False
    for seed, sources in RUNS:
        for name in NAMES:
            unit = f"{name}, {sources}, seed {seed}"
            try:
                if stopped and not (work / slug_of(name, sources, seed) / "result.json").exists():
                    raise KeyboardInterrupt
                progress(unit)
                measured = one(name, sources, seed, bench) | {"elsewhere": elsewhere(name, sources, seed, bench)}
                done.setdefault(name, {}).setdefault(sources, []).append(measured)
            except KeyboardInterrupt:
                if not stopped:
                    progress("stopped: the table says what is missing")
                stopped = True
                missing.append(unit)
    return {
        "objectives": done,
        "missing": missing,
        "probed": kept(work / "probed.json", lambda: probed_records(bench.shipped_windows)),
        "budget": BUDGET,
    }


def slug_of(name: str, sources: str, seed: int) -> str:
    """Return the folder's name of a run."""
    if name == UNTRAINED:
        sources = next(iter(SOURCES))  # nothing was learned from any
    return "-".join("".join(c if c.isalnum() else " " for c in f"{name} {sources} seed{seed}").split())


def one(name: str, sources: str, seed: int, bench: Bench) -> dict[str, Any]:
    """Pre-train one encoder and probe it, unless that was done."""

    def make() -> dict[str, Any]:
        encoder = encoder_of(name, sources, seed, bench)
        windows, lead_ids = bench.shipped_windows, standard_lead_ids(bench.shipped)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as it was trained, in half the time
            features = {split: layer_features(encoder, w, lead_ids) for split, w in windows.items()}
        by_layer = [{split: layers[k] for split, layers in features.items()} for k in PROBED_LAYERS]
        found = probed(by_layer, windows, superclass_labels)
        return {"seed": seed, **found, "layer": PROBED_LAYERS[found["layer"]]}

    return kept(bench.work / slug_of(name, sources, seed) / "result.json", make)


def elsewhere(name: str, sources: str, seed: int, bench: Bench) -> dict[str, Any]:
    """Probe the same encoder on what no encoder here was pre-trained on, unless that was done."""
    path = bench.work / slug_of(name, sources, seed) / "elsewhere.json"
    return kept(path, lambda: bench.questions.of(encoder_of(name, sources, seed, bench), PROBED_LAYERS, ELSEWHERE))


def encoder_of(name: str, sources: str, seed: int, bench: Bench) -> Encoder:
    """Pre-train one encoder, or load it where that was done."""
    recipe = recipe_of(slug_of(name, sources, seed), sources, seed, bench)
    if name in (UNTRAINED, MASKED):
        return pretrained(recipe, bench.shipped, name == MASKED)
    return pretrained_otherwise(name, recipe, bench.shipped)


def recipe_of(slug: str, sources: str, seed: int, bench: Bench) -> Recipe:
    """Return the recipe of one pre-training, the same for every objective."""
    recipe = encoder_recipe(slug, {"stage": BUDGET}, seed, bench)
    data = recipe.data.model_copy(update={"databases": SOURCES[sources]})
    return recipe.model_copy(update={"data": data, "out": bench.work})


def pretrained_otherwise(name: str, recipe: Recipe, tokenizer: Tokenizer) -> Encoder:
    """Pre-train an encoder with another objective, or go on where it stopped."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed + 1)
    encoder = Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks)
    objective = OBJECTIVES[name](encoder, tokenizer.requires_grad_(False))
    stage, seed = recipe.pretrain, recipe.seed + 1
    batches = training_batches(recipe, stage.noise_probability)
    train(
        objective,
        losses_of(objective, seed),
        lambda step: batches.parts(seed, step, stage.n_many, stage.n_few, stage.few_blocks),
        stage,
        recipe.folder / "encoder",
        seed,
    )
    return encoder.eval()


# -- tables --------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Print one line an objective."""
    records, budget = numbers["probed"], numbers["budget"]
    prevalence = ", ".join(f"{name} {share:.3f}" for name, share in records["prevalence"].items())
    lines = [
        f"Each: {budget['steps']} steps of {budget['n_many']} 12-lead windows of 10 s, {AS_IT_IS} otherwise (lr "
        f"1.5e-3 after {budget['warmup_steps']} steps, 4 encoder layers, the shipped tokenizer's codes, noise, lead "
        f"subsets), one thread. **Very short runs, {budget['steps'] * budget['n_many']:,} windows each: they rank "
        "objectives at this budget, no more.** "
        "Batches of 16 are far from what SimCLR and BYOL were made for. Equal steps are not equal cost: SimCLR and "
        "BYOL encode two views of each window, BYOL and ours also let a slow copy look.",
        f"Superclass probe: ptb-xl, fitted on {records['n_train']} train records, layer and strength chosen on "
        f"{records['n_val']} val records, macro AUROC on {records['n_test']} test records of "
        f"{records['n_test_patients']} patients (prevalence {prevalence}; chance .5). Mean over seeds; in brackets the "
        "95 % interval of each seed, patients resampled. Published comparisons of these objectives (OpenECG) pre-train "
        "on millions of records.",
    ]
    heading = [
        f"| objective | {' | '.join(SOURCES)} | on val, all sources |",
        "| --- |" + " --- |" * (len(SOURCES) + 1),
    ]
    table = []
    for name, by_source in numbers["objectives"].items():
        cells = [_cell(by_source.get(sources, [])) for sources in SOURCES]
        first = by_source.get(next(iter(SOURCES)), [])
        cells.append(f"{sum(r['validation'] for r in first) / len(first):.3f}" if first else "")
        table.append(f"| {name} | {' | '.join(cells)} |")
    parts = [*lines, "\n".join([*heading, *table]), *_elsewhere_table(numbers["objectives"])]
    if numbers["missing"]:
        parts.append("Not run for want of time: " + "; ".join(numbers["missing"]) + ".")
    return "\n\n".join(parts)


def _elsewhere_table(objectives: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Print how the encoders of each objective do on the sources left out, all runs of it together."""
    counted = next(iter(next(iter(objectives.values())).values()))[0]["elsewhere"]
    lines, said = [], []
    for name, database in ELSEWHERE.items():
        counts = counted[name]["counted"]
        each = ", ".join(f"{label} {n}" for label, n in counts["n_test_of_each"].items())
        said.append(
            f"*{name}*: {database}, fitted on {counts['n_train']}, chosen on {counts['n_val']}, measured on "
            f"{counts['n_test']} of {counts['n_test_patients']} test patients ({each})"
        )
    for objective, by_source in objectives.items():
        runs = [run for runs in by_source.values() for run in runs]
        lines.append(
            f"| {objective} | {' | '.join(_cell([r['elsewhere'][name] for r in runs]) for name in ELSEWHERE)} |"
        )
    return [
        "**Sources left out of all of them.** Pre-training took 12-lead records alone, so that none of these encoders "
        "has seen a recording of the following (the tokenizer, which is the shipped one, has). Linear probes, macro "
        f"AUROC; all runs of an objective. {'; '.join(said)}.",
        "\n".join([f"| objective | {' | '.join(ELSEWHERE.values())} |", "| --- |" + " --- |" * len(ELSEWHERE), *lines]),
    ]


def _cell(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    mean = sum(r["macro_auroc"] for r in runs) / len(runs)
    return f"{mean:.3f} (" + "; ".join(f"{r['interval'][0]:.3f}-{r['interval'][1]:.3f}" for r in runs) + ")"
