"""Row ``ablations``: nano's recipe with one part of the method changed at a time, at one small budget.

Tokenizers are judged by what their codes keep, with and without noise, and by what a linear probe reads from the mean
code vectors; encoders, all on the shipped tokenizer, by the ptb-xl superclass probe, by the hidden codes they guess,
and by the probes of `probes`: rhythm statements, one lead, beats.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from probes import Questions, judged
from tokenizer import TRIALS
from trials import STEPS, WINDOWS, Trial, noisy_target, sizes_of, trained
from waveforms import DATABASES, TestRecords, TorchCoder, kept, measure

from anyecg.engine import Model
from anyecg.models.encoder import Encoder
from anyecg.models.export import load_networks
from anyecg.models.sizes import EncoderConfig, ModelConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.tokens import Grid
from anyecg.training.datasets import SUPERCLASS_DATABASE, SUPERCLASSES, Corpus, prepare_databases
from anyecg.training.evaluate import masked_accuracy
from anyecg.training.loop import train
from anyecg.training.pretrain import Student, pretraining_losses
from anyecg.training.probe import (
    Windows,
    labelled_windows,
    layer_features,
    lead_means,
    sex_labels,
    standard_lead_ids,
    superclass_labels,
)
from anyecg.training.recipe import DataSection, PretrainStage, Recipe, TokenizerStage
from anyecg.training.train_tokenizer import grid_of, training_batches

SEEDS = (0, 1, 2)

AS_IT_IS = "as it is"
NANO = (0.5, 6, 256)  # fragment s, levels, codebook size

TOKENIZERS: dict[str, dict[str, Any]] = {
    AS_IT_IS: {"sizes": sizes_of(*NANO)},
    "target is the noisy signal": {"sizes": sizes_of(*NANO), "change": noisy_target},
    "encoder attends to all leads (full)": {"sizes": sizes_of(*NANO, encoder_reach="full")},
    "encoder cardio-sparse": {"sizes": sizes_of(*NANO, encoder_reach="cardio-sparse")},
    "no frequency view": {"sizes": sizes_of(*NANO), "stage": {"frequency": 0.0}},
    "no demography view": {"sizes": sizes_of(*NANO), "stage": {"demography": 0.0}},
    "no steadiness loss": {"sizes": sizes_of(*NANO), "stage": {"steadiness": 0.0}},
    "cardio-sparse throughout, tolerance w = 1": {"sizes": sizes_of(*NANO, encoder_reach="cardio-sparse", tolerance=1)},
    "sees 5 s at once": {"sizes": sizes_of(*NANO, block_s=5), "stage": {"n_many": 16, "n_few": 16}},
    "sees 30 s at once": {"sizes": sizes_of(*NANO, block_s=30), "stage": {"n_many": 8, "n_few": 3}},
}
"""What is changed. As it is: the encoder sees the own lead, the decoder is cardio-sparse with w = 0, both 10 s at once.

Thirty seconds are as good as no bound: few records of the training data are longer. A step sees as many seconds.
"""

N_PROBED = 500
"""Records of a split that probe a tokenizer: enough to see a view that helps, half a minute a tokenizer otherwise."""

ENCODER_STEPS = 300
ENCODER_WINDOWS = {"n_many": 8, "n_few": 4}
ENCODER_LAYERS = 4
PROBED_LAYERS = (2, 4)
"""Each costs half a minute; nano's probes differ little from layer to layer."""
SCATTERED = {"fragments": 1.0, "spans": 0.0, "leads": 0.0, "all_but_few": 0.0}

ENCODERS: dict[str, dict[str, Any]] = {
    AS_IT_IS: {},
    "no latent loss": {"stage": {"latent": 0.0}},
    "scattered masks only": {"stage": {"mask": SCATTERED}},
    "first level guessed only": {"stage": {"guessed_levels": 1}},
    "full attention": {"sizes": {"reach": "full"}},
    "own lead only": {"sizes": {"reach": "own-lead"}},
    "half to three quarters hidden": {"stage": {"mask": {"ratio": (0.5, 0.75)}}},
    "symmetric masks, half the windows": {"stage": {"symmetric": True, "n_many": 4, "n_few": 2}},
}
"""What is changed. As it is: mixture of masks hiding .3 to .5, all levels guessed, latent loss, cardio-sparse."""


UNTRAINED, SHIPPED = "untrained", "*shipped nano*"
SHIPPED_LAYERS = (3, 6)
"""Its middle and its last, as of the others."""


class Bench:
    """What all ablations are measured with; each part is made when it is first needed."""

    def __init__(self, model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> None:
        self.model, self.data, self.work, self.progress = model, data, work, progress
        self.prepared = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
        self.shipped, self.shipped_encoder = load_networks(model.checkpoint.folder)

    @cached_property
    def test(self) -> TestRecords:
        """Records whose waveform is compared."""
        return TestRecords.of(self.prepared, self.data, self.model.checkpoint.preparation)

    def windows(self, tokenizer: Tokenizer, grid: Grid, most: int | None = None) -> dict[str, Windows]:
        """Tokenise the labelled records of each split, at most the first ``most``."""
        found = {}
        for split in ("train", "val", "test"):
            corpus = Corpus(self.prepared, split, (SUPERCLASS_DATABASE,))
            corpus.entries = [e for e in corpus.entries if e.labels][:most]
            found[split] = labelled_windows(tokenizer, corpus, grid)
        return found

    @cached_property
    def shipped_windows(self) -> dict[str, Windows]:
        """The labelled records in the shipped tokenizer's codes: what every encoder is probed on."""
        self.progress("tokenising the records with labels")
        return self.windows(self.shipped, self.model.checkpoint.grid)

    @cached_property
    def questions(self) -> Questions:
        """What else every encoder is asked."""
        return Questions(
            self.model,
            self.prepared,
            self.data,
            windows=lambda: self.shipped_windows,
            lead_ids=standard_lead_ids(self.shipped),
            progress=self.progress,
        )


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run every ablation that is missing, seed by seed; Ctrl-C ends it with the table of what is done."""
    bench = Bench(model, data, work, progress)
    done: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in MAKERS}
    not_run: dict[str, list[str]] = {kind: [] for kind in MAKERS}
    stopped = False
    for kind, name, seed in wanted():
        try:
            if stopped and not kept_at(kind, name, seed, work).exists():
                raise KeyboardInterrupt
            progress(f"{kind}: {name}, seed {seed}")
            measured = MAKERS[kind](name, seed, bench)
            done[kind].setdefault(name, []).append(measured)
        except KeyboardInterrupt:
            if not stopped:
                progress("stopped: the table says what is missing")
            stopped = True
            not_run[kind].append(f"{name}, seed {seed}")
    return {
        **done,
        "not_run": not_run,
        "records": bench.test.counts(),
        "probed": kept(work / "probed.json", lambda: probed_records(bench.shipped_windows)),
        "budget": {
            "tokenizers": {"steps": STEPS, **WINDOWS},
            "encoders": {"steps": ENCODER_STEPS, **ENCODER_WINDOWS, "layers": ENCODER_LAYERS},
        },
    }


def wanted() -> list[tuple[str, str, int]]:
    """Return what is measured, in its order: kind, name, seed."""
    units = []
    for seed in SEEDS:
        encoders = (UNTRAINED, *ENCODERS, *([SHIPPED] if seed == SEEDS[0] else []))
        units += [("tokenizers", name, seed) for name in TOKENIZERS]
        units += [(kind, name, seed) for kind in ("encoders", "probes") for name in encoders]
    return units


def kept_at(kind: str, name: str, seed: int, work: Path) -> Path:
    """Return the file that keeps a unit's numbers."""
    folder, file = ("encoders", "probes.json") if kind == "probes" else (kind, "result.json")
    return work / folder / _slug(name, seed) / file


def probed_records(windows: dict[str, Windows]) -> dict[str, Any]:
    """Count the records of the superclass probe."""
    test = windows["test"].entries
    return {
        "n_train": len(windows["train"].entries),
        "n_val": len(windows["val"].entries),
        "n_test": len(test),
        "n_test_patients": len({e.patient for e in test}),
        "prevalence": dict(zip(SUPERCLASSES, superclass_labels(test).mean(axis=0).round(3).tolist(), strict=True)),
    }


def _slug(name: str, seed: int) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()) + f"-seed{seed}"


# -- tokenizers ----------------------------------------------------------------------------------------------


def one_tokenizer(name: str, seed: int, bench: Bench) -> dict[str, Any]:
    """Train and measure one tokenizer, unless that was done."""
    slug = _slug(name, seed)
    trial = Trial(slug, **TOKENIZERS[name], seed=seed)
    out = bench.work / "tokenizers"
    if name == AS_IT_IS and seed == TRIALS[0].seed:  # the very trial of the row `tokenizer`
        trial, out = TRIALS[0], bench.work.parent / "tokenizer"

    def make() -> dict[str, Any]:
        network = trained(trial, bench.data, out)
        windows = bench.windows(network, grid_of(network.config), N_PROBED)
        features = {split: lead_means(w.vectors, w.valid).numpy() for split, w in windows.items()}
        return {
            "seed": seed,
            **measure(TorchCoder(network), bench.test),
            "superclasses": probed([features], windows, superclass_labels),
            "sex": probed([features], windows, sex_labels),
        }

    return kept(bench.work / "tokenizers" / slug / "result.json", make)


# -- encoders ------------------------------------------------------------------------------------------------


def one_encoder(name: str, seed: int, bench: Bench) -> dict[str, Any]:
    """Pre-train and measure one encoder on the shipped tokenizer's codes, unless that was done."""
    layers = layers_of(name)

    def make() -> dict[str, Any]:
        encoder = encoder_of(name, seed, bench)
        windows, lead_ids = bench.shipped_windows, standard_lead_ids(bench.shipped)
        features = {split: layer_features(encoder, w, lead_ids) for split, w in windows.items()}
        by_layer = [{split: of_layers[k] for split, of_layers in features.items()} for k in layers]
        superclasses = probed(by_layer, windows, superclass_labels)
        guesses = masked_accuracy(encoder, windows["test"], lead_ids, windows["train"])
        return {
            "seed": seed,
            "superclasses": superclasses | {"layer": layers[superclasses["layer"]]},
            "guessed": guesses["accuracy"]["encoder"],
            "guessed_unigram": guesses["accuracy"]["unigram"],
        }

    return kept(kept_at("encoders", name, seed, bench.work), make)


def other_probes(name: str, seed: int, bench: Bench) -> dict[str, Any]:
    """Ask one pre-trained encoder everything else, unless that was done."""
    path = kept_at("probes", name, seed, bench.work)
    return kept(path, lambda: bench.questions.of(encoder_of(name, seed, bench), layers_of(name)))


def layers_of(name: str) -> tuple[int, int]:
    """Return which layers of an encoder are probed."""
    return SHIPPED_LAYERS if name == SHIPPED else PROBED_LAYERS


def encoder_of(name: str, seed: int, bench: Bench) -> Encoder:
    """Pre-train an encoder, unless that was done; the shipped one and the untrained one are what they are."""
    if name == SHIPPED:
        return bench.shipped_encoder
    recipe = encoder_recipe(_slug(name, seed), ENCODERS.get(name, {}), seed, bench)
    return pretrained(recipe, bench.shipped, trained=name in ENCODERS)


def encoder_recipe(slug: str, changed: dict[str, Any], seed: int, bench: Bench) -> Recipe:
    """Return the recipe of one pre-training: nano's, cut short and with fewer layers."""
    shipped = ModelConfig(**bench.model.checkpoint.config["model"])
    encoder = EncoderConfig(n_layers=ENCODER_LAYERS, **changed.get("sizes", {}))
    budget = {"steps": ENCODER_STEPS, **ENCODER_WINDOWS, "learning_rate": 1.5e-3, "warmup_steps": 50}
    return Recipe(
        name=slug,
        model=ModelConfig(tokenizer=shipped.tokenizer, encoder=encoder),
        out=bench.work / "encoders",
        seed=seed,
        threads=1,
        data=DataSection(folder=bench.data, splits=bench.data / "splits.csv"),
        tokenizer=TokenizerStage(steps=0, n_many=0, n_few=0),
        pretrain=PretrainStage(**budget | changed.get("stage", {})),
    )


def pretrained(recipe: Recipe, tokenizer: Tokenizer, trained: bool = True) -> Encoder:
    """Pre-train an encoder, or go on where it stopped; ``trained`` False: as it begins."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed + 1)
    student = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    if trained:
        stage, seed = recipe.pretrain, recipe.seed + 1
        batches = training_batches(recipe, stage.noise_probability)
        train(
            student,
            pretraining_losses(student, tokenizer.requires_grad_(False), stage, recipe.seed),
            lambda step: batches.parts(seed, step, stage.n_many, stage.n_few, stage.few_blocks),
            stage,
            recipe.folder / "encoder",
            seed,
        )
    return student.encoder.eval()


def probed(
    layers: list[dict[str, np.ndarray]], windows: dict[str, Windows], labels_of: Callable[[list[Any]], np.ndarray]
) -> dict[str, Any]:
    """Fit a linear probe on each layer's features; validation chooses the layer, test patients judge it."""
    labels = {split: labels_of(w.entries) for split, w in windows.items()}
    patients = np.array([e.patient for e in windows["test"].entries])
    features = {split: {k: layer[split] for k, layer in enumerate(layers)} for split in labels}
    classes = tuple(str(k) for k in range(labels["test"].shape[1]))
    found = judged(features, labels, patients, classes)
    return {key: found[key] for key in ("macro_auroc", "interval", "layer", "validation")}


MAKERS: dict[str, Callable[[str, int, Bench], dict[str, Any]]] = {
    "tokenizers": one_tokenizer,
    "encoders": one_encoder,
    "probes": other_probes,
}
"""By kind of unit. All encoders come before all other probes: the table of the superclasses is whole first."""


# -- tables --------------------------------------------------------------------------------------------------

Read = Callable[[dict[str, Any]], float]

TOKENIZER_COLUMNS: dict[str, Read] = {
    "r ptb-xl": lambda n: n["databases"][DATABASES[0]]["r"],
    "r cinc2017": lambda n: n["databases"][DATABASES[1]]["r"],
    "r at 12 dB": lambda n: n["noise"]["12"]["r"],
    "r at 6 dB": lambda n: n["noise"]["6"]["r"],
    "level 1 kept, 12 dB": lambda n: n["noise"]["12"]["codes_kept"][0],
    "level 1 kept, 6 dB": lambda n: n["noise"]["6"]["codes_kept"][0],
    "perplexity, level 1": lambda n: n["databases"][DATABASES[0]]["codes"][0]["perplexity"],
    "superclass AUROC": lambda n: n["superclasses"]["macro_auroc"],
    "sex AUROC": lambda n: n["sex"]["macro_auroc"],
}

ENCODER_COLUMNS: dict[str, Read] = {
    "superclass AUROC": lambda n: n["superclasses"]["macro_auroc"],
    "on val": lambda n: n["superclasses"]["validation"],
    "layer": lambda n: n["superclasses"]["layer"],
    "level 1 guessed": lambda n: n["guessed"][0],
    "level 2 guessed": lambda n: n["guessed"][1],
}


PROBES = {
    "rhythm statements": "ptb-xl, mean embedding of all leads",
    "one lead": "cinc2017, mean embedding of the first half minute",
    "beats": "mitdb, DS1 -> DS2, embedding of the half second that holds the R peak, first lead",
}


def tables(numbers: dict[str, Any]) -> str:
    """Print one table for the tokenizers, one for the encoders."""
    budget, records, probe = numbers["budget"], numbers["records"], numbers["probed"]
    counts = "; ".join(f"{name} {c['n_records']} of {c['n_patients']}" for name, c in records.items())
    prevalence = ", ".join(f"{name} {share:.3f}" for name, share in probe["prevalence"].items())
    t, e = budget["tokenizers"], budget["encoders"]
    parts = [
        "One change at a time. Each cell: mean over the seeds, in brackets the lowest and the highest seed. **Short "
        "runs: they say which way a part pulls early in training, not what it is worth in the shipped model.** "
        "Differences that are no larger than the spread of the seeds mean nothing.",
        f"## Tokenizer\n\n{t['steps']} steps of {t['n_many']} windows of many and {t['n_few']} of few leads; 0.5 s, "
        f"6 x 256 codes. Split: test, first clean records (records and patients: {counts}). Noise: electrode motion "
        "(NSTDB em, the stretch kept for tests) on the first 50 ptb-xl records; r is that of the decoded noisy signal "
        "with the clean one. AUROC: linear probe on the mean code vectors of each lead (ptb-xl superclasses, macro; "
        f"sex), fitted on the first {N_PROBED} labelled train records, all test records. Those that see 5 or 30 s at "
        "once learn from as many seconds a step; of a record the probe has the first such stretch: half of it where "
        "that is 5 s.\n\n" + _table(numbers["tokenizers"], TOKENIZER_COLUMNS) + _input_r(numbers["tokenizers"]),
        f"## Pre-training\n\nThe shipped tokenizer, {e['layers']} encoder layers, {e['steps']} steps of {e['n_many']} "
        f"windows of 10 s of many and {e['n_few']} of 30 s of few leads. Superclass probe: ptb-xl, fitted on "
        f"{probe['n_train']} train records, layer and strength chosen on {probe['n_val']} val records, measured on "
        f"{probe['n_test']} test records of {probe['n_test_patients']} patients (prevalence {prevalence}; chance .5). "
        "Guessed: share of hidden codes of test records, under the mixture of masks at 40 % whatever the training's "
        f"mask. *Shipped nano*, for scale: {SHIPPED_LAYERS[1]} layers, 4,200 steps of 16 and 10 windows.\n\n"
        + _table(numbers["encoders"], ENCODER_COLUMNS)
        + _intervals("superclasses", {row: runs[0]["superclasses"] for row, runs in numbers["encoders"].items()}),
        "### Other probes of the same encoders\n\n" + _other_probes(numbers["probes"]),
    ]
    missing = [f"{kind}: {'; '.join(names)}" for kind, names in numbers["not_run"].items() if names]
    if missing:
        parts.append(f"Not run for want of time: {'. '.join(missing)}.")
    return "\n\n".join(parts)


def _table(rows: dict[str, list[dict[str, Any]]], columns: dict[str, Read]) -> str:
    lines = [f"| | seeds | {' | '.join(columns)} |", "| --- |" + " --- |" * (len(columns) + 1)]
    for name, runs in rows.items():
        cells = [_cell([read(n) for n in runs]) for read in columns.values()]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    def shown(x: float) -> str:
        return f"{x:.0f}" if abs(x) >= 2 or isinstance(x, int) else f"{x:.3f}"

    if len(values) == 1:
        return shown(values[0])
    mean = sum(values) / len(values)
    return f"{shown(mean)} ({shown(min(values))}-{shown(max(values))})"


def _input_r(rows: dict[str, list[dict[str, Any]]]) -> str:
    if not rows:
        return ""
    noise = next(iter(rows.values()))[0]["noise"]
    return (
        f"\n\nThe noisy signal itself: r {noise['12']['r_of_input']:.3f} at 12 dB, {noise['6']['r_of_input']:.3f} at 6."
    )


def _other_probes(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Say what the other probes were asked of, how each fares, and how each of its classes does."""
    if not rows:
        return "None was run."
    first = next(iter(rows.values()))[0]
    lines = ["Macro AUROC, and each class's; layer and strength chosen on validation patients. Chance is .5.", ""]
    columns: dict[str, Read] = {}
    for name, what in PROBES.items():
        n = first[name]["counted"]
        of_each = ", ".join(f"{label} {count}" for label, count in n["n_test_of_each"].items())
        lines.append(
            f"- **{name}**: {what}; fitted on {n['n_train']}, chosen on {n['n_val']}, measured on {n['n_test']} of "
            f"{n['n_test_patients']} test patients ({of_each})."
        )
        columns[f"**{name}**"] = lambda run, name=name: run[name]["macro_auroc"]
        columns |= {  # two questions have a class N
            f"{name}, {label}": lambda run, name=name, label=label: run[name]["each"][label]
            for label in first[name]["each"]
        }
    parts = ["\n".join(lines), _table(rows, columns)]
    text = "\n\n".join(parts)
    return text + "".join(_intervals(name, {row: runs[0][name] for row, runs in rows.items()}) for name in PROBES)


def _intervals(what: str, by_row: dict[str, dict[str, Any]]) -> str:
    if not by_row:
        return ""
    each = [f"{row} {probe['interval'][0]:.3f}-{probe['interval'][1]:.3f}" for row, probe in by_row.items()]
    return f"\n\n95 % patient-bootstrap intervals, {what}, seed 0: {'; '.join(each)}."
