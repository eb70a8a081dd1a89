"""The verbs of training. They need the extra ``train``; each imports it when it is called."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from anyecg.cli.files import check_output, write_whole
from anyecg.cli.printing import only_json_on_stdout, print_json, say
from anyecg.cli.program import AsOneJson, Force, app, need_training

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML recipe, such as recipes/nano_cpu.toml.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe: tokenizer.steps=100 seed=1")
]


@app.command("train-tokenizer")
def train_tokenizer(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the tokenizer of a recipe: the first stage.

    Started again after an interruption, it goes on where it stopped.
    """
    need_training()
    from anyecg.training.recipe import load_recipe
    from anyecg.training.train_tokenizer import train_tokenizer

    print(train_tokenizer(load_recipe(recipe, overrides or [])))


@app.command()
def pretrain(recipe: Recipe, overrides: Overrides = None) -> None:
    """Pre-train the encoder of a recipe on its tokenizer's codes: the second stage.

    Started again after an interruption, it goes on where it stopped.
    """
    need_training()
    from anyecg.training.pretrain import pretrain
    from anyecg.training.recipe import load_recipe

    print(pretrain(load_recipe(recipe, overrides or [])))


@app.command()
def export(
    recipe: Recipe,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The checkpoint folder to write.")],
    overrides: Overrides = None,
    version: Annotated[str, typer.Option("--weights-version", help="Version of the weights.")] = "0",
    force: Force = False,
) -> None:
    """Write the checkpoint of a trained recipe: weights, graphs, config, normal reference, card."""
    need_training()
    from anyecg.errors import WriteError
    from anyecg.training.recipe import load_recipe
    from anyecg.training.release import export

    if (folder / "config.json").exists() and not force:
        raise WriteError(
            f"{folder}: holds a checkpoint already, expected a new folder. Choose another or pass --force."
        )
    print(export(load_recipe(recipe, overrides or []), folder, version, say))


@app.command()
def labels(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="diagnosis (12 leads) or rhythm (one lead)")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .csv file; default: WHAT.csv in --data.")
    ] = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of the restored databases.")] = Path("data"),
    splits: Annotated[
        Path | None, typer.Option("--splits", help="CSV of splits; default: splits.csv in --data.")
    ] = None,
    force: Force = False,
) -> None:
    """Write the CSV of labels of public databases, as finetune reads it."""
    from anyecg.training.datasets import write_label_table

    path = output or data / f"{what}.csv"
    check_output(path, force, [".csv"])
    print(f"{path}: {write_label_table(what, data, splits or data / 'splits.csv', path)} rows")


@app.command()
def finetune(
    checkpoint: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a model, or a checkpoint folder.")
    ] = "nano",
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="CSV: file; label, or a column a label (1, 0, empty); maybe patient, split."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The checkpoint folder to write: MODEL with one head more.")
    ] = None,
    head: Annotated[str, typer.Option("--head", help="Name of the head.")] = "labels",
    mode: Annotated[
        str, typer.Option("--mode", help="linear (minutes), partial or full: the encoder layers tuned.")
    ] = "linear",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Most epochs of tuning.")] = None,
    noise: Annotated[
        Path | None, typer.Option("--noise", help="Folder of the restored databases, for real electrode noise.")
    ] = None,
    trees: Annotated[
        bool, typer.Option("--trees/--no-trees", help="Trees on measured features beside the network; val weighs them.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is drawn at random.")] = 0,
    force: Force = False,
) -> None:
    """Fit a head to labelled files of any format, and write a checkpoint that has it.

    Use it with analyze --model FOLDER. The files need not have the same leads, rate or length. The head adds what a
    network makes of embeddings and what trees make of measured features; val records choose how much trees count.
    """
    if labels is None or output is None:
        raise ValueError("finetune needs --labels CSV and --output FOLDER. See anyecg finetune --help")
    if mode not in ("linear", "partial", "full"):
        raise ValueError(f"--mode {mode!r}; allowed are linear, partial, full")
    need_training()
    from anyecg.training.finetune import finetune
    from anyecg.training.fit_head import HeadSettings

    settings = HeadSettings(seed=seed) if epochs is None else HeadSettings(seed=seed, epochs=epochs)
    wanted = cast(Literal["linear", "partial", "full"], mode)
    written = finetune(
        *(labels, output, checkpoint),
        head=head,
        mode=wanted,
        settings=settings,
        data=noise,
        trees=trees,
        force=force,
        progress=say,
    )
    print(written)


@app.command("train-heads")
def train_heads(
    checkpoint: Annotated[Path, typer.Argument(metavar="FOLDER", help="A checkpoint folder.")],
    heads: Annotated[list[str] | None, typer.Argument(metavar="HEAD", help="Default: all that ship with nano.")] = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of the restored databases.")] = Path("data"),
    splits: Annotated[
        Path | None, typer.Option("--splits", help="CSV of splits; default: splits.csv in --data.")
    ] = None,
    only_calibrate: Annotated[
        bool, typer.Option("--only-calibrate", help="Fit nothing: weights of trees, calibration, thresholds on val.")
    ] = False,
) -> None:
    """Train the heads that ship with nano on public databases, and write them into a checkpoint folder.

    diagnosis (12 leads), rhythm (one lead), beats, rr_rhythm (episodes), restorer (missing leads). Heads of the same
    name are replaced.
    """
    need_training()
    from anyecg.checkpoint import open_checkpoint
    from anyecg.training.shipped_heads import calibrate_heads, train_heads

    (calibrate_heads if only_calibrate else train_heads)(
        open_checkpoint(checkpoint).folder, heads or [], data, splits or data / "splits.csv", say
    )


@app.command()
def evaluate(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="tokenizer, pretraining, robustness, meaning, restoration or heads")
    ],
    checkpoint: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a model, or a checkpoint folder.")
    ] = "nano",
    data: Annotated[Path, typer.Option("--data", help="Folder of the restored databases.")] = Path("data"),
    splits: Annotated[
        Path | None, typer.Option("--splits", help="CSV of splits; default: splits.csv in --data.")
    ] = None,
    as_json: AsOneJson = False,
    keep: Annotated[bool, typer.Option("--keep", help="Write the numbers into the checkpoint's card.")] = False,
) -> None:
    """Measure a checkpoint on test patients and print the tables of its card."""
    need_training()
    from anyecg.checkpoint import open_checkpoint
    from anyecg.training.card import keep as keep_in_card
    from anyecg.training.card import tables
    from anyecg.training.evaluate import evaluate

    with only_json_on_stdout(as_json):
        measured = evaluate(what, checkpoint, data, splits or data / "splits.csv", say)
    if as_json:
        print_json(measured)
    else:
        print(tables(what, measured))
    if keep:
        keep_in_card(open_checkpoint(checkpoint).folder, what, measured)


@app.command()
def codebook(
    checkpoint: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a model, or a checkpoint folder.")
    ] = "nano",
    output: Annotated[Path, typer.Option("--output", "-o", help="The .html file to write.")] = Path("codebook.html"),
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the restored databases; without: the checkpoint alone.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option("--splits", help="CSV of splits; default: splits.csv in --data.")
    ] = None,
    force: Force = False,
) -> None:
    """Write an atlas of a model's rhythm codes: what each looks like, and what it goes with in train records."""
    check_output(output, force, [".html"])
    need_training()
    from anyecg.engine import load
    from anyecg.report.atlas import render
    from anyecg.training.codebook import make_atlas
    from anyecg.training.datasets import prepare_databases

    model = load(checkpoint)
    folder = None
    if data is not None:
        folder = prepare_databases(data, splits or data / "splits.csv", model.checkpoint.preparation, say)
    atlas = make_atlas(model, folder, data, say)
    write_whole(output, render(atlas).encode())
    print(f"{output}: {len(atlas.in_order())} codes")
