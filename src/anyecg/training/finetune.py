"""Labels of your own files -> a checkpoint with a head that knows them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyecg import __version__
from anyecg.checkpoint import open_checkpoint
from anyecg.codes import codes_of, table
from anyecg.engine import Model, load
from anyecg.errors import AnyECGError, SignalError, WriteError
from anyecg.heads import head_names, write_head
from anyecg.models.encoder import Encoder
from anyecg.models.export import export_head, load_networks, round_to_half
from anyecg.models.heads import RecordHead
from anyecg.readers import read
from anyecg.tasks.arrhythmia import FEW_LEADS, KIND, calibrated, to_probability
from anyecg.training.calibrate import calibrate, decided_and_measured, decided_for_few_leads
from anyecg.training.datasets import load_noise
from anyecg.training.examples import Example, Examples, Variation, tokenise
from anyecg.training.fit_head import HeadSettings, Mode, fit_head, predict_logits
from anyecg.training.label_scores import known_macro_auroc
from anyecg.training.labels import LabelTable, read_labels
from anyecg.training.loop import keep_freed_memory
from anyecg.training.trees import Part, Parts, with_trees


def finetune(
    labels: str | Path,
    output: str | Path,
    checkpoint: str | Path | Model = "nano",
    *,
    head: str = "labels",
    mode: Mode = "linear",
    settings: HeadSettings | None = None,
    data: Path | None = None,
    views: int = 3,
    trees: bool = True,
    force: bool = False,
    progress: Callable[[str], None] = print,
) -> Path:
    """Fit a head to labelled files and write a checkpoint that has it.

    Parameters
    ----------
    labels : path
        CSV: ``file`` (relative to the CSV's folder), then ``label`` (one a record) or one column a label (1, 0, empty
        = not known); optional ``patient`` and ``split`` (train, val, test). Without splits a fifth of the patients
        becomes val; val chooses the epoch, the calibration and the thresholds.
    output : path
        The checkpoint folder to write: a copy of ``checkpoint`` with one head more.
    checkpoint : str, path or Model
    head : str
        The head's name.
    mode : {"linear", "partial", "full"}
        Encoder layers tuned: none (minutes), the last half, all.
    settings : HeadSettings, optional
        Everything else; its ``mode`` and ``exclusive`` are overridden by ``mode`` and by the labels.
    data : Path, optional
        A folder with the noise stress test database: real electrode noise is mixed into training records.
    views : int
        Variations (shift, noise) of each training record.
    trees : bool
        Beside the network on embeddings, trees on measured features (rate, intervals, axes, waves of each lead); val
        chooses what they count, nothing included.
    force : bool
        Replace a head of that name in an ``output`` that exists.
    progress : callable
        Takes one line.

    Returns
    -------
    Path
        ``output``: `anyecg.load` opens it, ``anyecg analyze --model`` uses its head.

    Raises
    ------
    ReadError
        The CSV, or none of its files, can be read.
    ValueError
        The CSV says something else than it may.
    WriteError
        ``output`` exists.

    Examples
    --------
    >>> import anyecg
    >>> anyecg.finetune("labels.csv", "my-model", mode="linear")  # doctest: +SKIP
    """
    output = Path(output)
    model = checkpoint if isinstance(checkpoint, Model) else load(checkpoint)
    refuse_existing(model, output, head, force)
    wanted = read_labels(Path(labels))
    settings = replace(settings or HeadSettings(), mode=mode, exclusive=wanted.exclusive)
    keep_freed_memory()
    torch.set_num_threads(model.threads)
    noise = load_noise(data, "train", model.checkpoint.preparation) if data else {}
    examples = read_examples(model, wanted, progress)
    sets = tokenised(model, examples, noise, views, progress)
    network = fit_network(model, wanted, sets, settings, progress)
    config, graph = network.config, export_head(network.head, network.encoder.config)
    if trees:
        parts = Parts(_part(examples["train"]), _part(examples["val"]), _test_part(examples["test"]))
        config, graph = with_trees(model, head, config, graph, parts, noise, progress=progress)
    else:
        test = tokenise(model, examples["test"]) if examples["test"] else None
        config = {**config, **decided_alone(network, sets.validation, test)}
    for split, numbers in config["measured"].items():
        progress(f"{split}: macro AUROC {numbers['macro_auroc']:.3f}, {numbers['records']} records")
    with_head(model, output, head, config, graph)
    progress(f"{output}: head {head!r} answers {', '.join(wanted.names)}")
    return output


def refuse_existing(model: Model, output: Path, head: str, force: bool) -> None:
    """Raise WriteError if writing would replace something without ``force``."""
    if not head.isidentifier():
        raise ValueError(f"head name {head!r}: expected letters, digits and _, beginning with a letter")
    if not output.exists():
        above = next(path for path in output.absolute().parents if path.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):  # said now, not when the fit is done
            raise WriteError(f"{output}: nothing can be written to {above}, expected a folder. Choose another place.")
        return
    if output.resolve() != model.checkpoint.folder.resolve() and not (output / "config.json").exists():
        raise WriteError(f"{output}: exists and is no checkpoint, expected a new folder. Choose another.")
    if (output / "config.json").exists() and open_checkpoint(output).sha256 != model.checkpoint.sha256:
        raise WriteError(f"{output}: a checkpoint of other weights, expected those of {model.checkpoint.name}.")
    if head in head_names(output) and not force:
        raise WriteError(f"{output}: has a head {head!r} already. Choose another name or pass --force.")
    if not force:
        raise WriteError(f"{output}: exists already. Pass --force to add the head to it, or choose another folder.")


@dataclass
class TokenisedSets:
    """Training records in several views, and validation records."""

    views: list[Examples]
    validation: Examples


def read_examples(model: Model, wanted: LabelTable, progress: Callable[[str], None]) -> dict[str, list[Example]]:
    """Read and prepare every labelled file, by split; what cannot be read is listed and left out."""
    examples: dict[str, list[Example]] = {split: [] for split in ("train", "val", "test")}
    failed: list[str] = []
    for split, example in _examples(model, wanted, failed, progress):
        examples[split].append(example)
    for line in failed[:20]:
        progress(f"left out: {line}")
    if failed:
        progress(f"{len(failed)} of {len(wanted.rows)} files left out")
    for split in ("train", "val"):
        if not examples[split]:
            raise SignalError(f"{wanted.path}: no usable {split} record is left of {len(wanted.rows)}, expected some.")
    return examples


def tokenised(
    model: Model,
    examples: dict[str, list[Example]],
    noise: dict[str, np.ndarray],
    views: int,
    progress: Callable[[str], None],
) -> TokenisedSets:
    """Tokenise the prepared records that a network is fitted to: those of train in several variations."""
    progress("tokenising")
    varied: list[Callable] = [lambda record: record]
    varied += [Variation(noise, seed=number) for number in range(1, views)]
    return TokenisedSets(
        [tokenise(model, examples["train"], vary) for vary in varied], tokenise(model, examples["val"])
    )


def _part(examples: list[Example]) -> Part:
    labels = np.stack([example.labels for example in examples])
    return Part(lambda: (example.record for example in examples), labels, [example.patient for example in examples])


def _test_part(examples: list[Example]) -> Part | None:
    return _part(examples) if examples else None


def _examples(
    model: Model, wanted: LabelTable, failed: list[str], progress: Callable[[str], None]
) -> Iterator[tuple[str, Example]]:
    for number, row in enumerate(wanted.rows):
        if number % 200 == 0:
            progress(f"reading {number} of {len(wanted.rows)}")
        try:
            prepared = model.prepare(read(row.file))
            model.tokenize(prepared.with_(signal=prepared.signal[:, : model.checkpoint.grid.block_samples]))
        except (AnyECGError, OSError) as error:
            failed.append(f"{row.file}: {error}")
            continue
        yield row.split, Example(prepared, row.labels, row.patient)


@dataclass
class Network:
    """A head fitted on the encoder's layers, its weights rounded to float16, and what its JSON says so far.

    What is calibrated, measured and written is the rounded head.
    """

    encoder: Encoder
    head: RecordHead
    config: dict[str, Any]


def fit_network(
    model: Model,
    wanted: LabelTable,
    sets: TokenisedSets,
    settings: HeadSettings,
    progress: Callable[[str], None] = print,
) -> Network:
    """Fit a head's network; it is neither calibrated nor measured, and its labels have no threshold yet."""
    _, encoder = load_networks(model.checkpoint.folder)
    encoder.requires_grad_(False)
    fitted = fit_head(encoder, sets.views, sets.validation, settings, known_macro_auroc, progress)
    round_to_half(fitted.head)
    config: dict[str, Any] = {
        "kind": KIND,
        "exclusive": settings.exclusive,
        "mode": settings.mode,
        "first_layer": fitted.head.first_layer,
        "parent_sha256": model.checkpoint.sha256,
        "anyecg_version": __version__,
        "settings": vars(settings),
        "validation_history": [round(score, 4) for score in fitted.history],
        "labels": [_label(name) for name in wanted.names],
        "n_train": {"records": len(sets.views[0].labels), "patients": len(set(sets.views[0].patients))},
    }
    if max(sets.views[0].valid.any(axis=-1).sum(axis=-1).max(), 1) <= FEW_LEADS:
        config["most_leads"] = FEW_LEADS
    return Network(encoder, fitted.head, config)


def decided_alone(network: Network, validation: Examples, test: Examples | None) -> dict[str, Any]:
    """Calibrate and measure a network that answers without trees; return what that adds to its JSON."""
    encoder, head, exclusive = network.encoder, network.head, bool(network.config["exclusive"])
    logits = predict_logits(encoder, head, validation)
    calibration = calibrate(logits, validation.labels, exclusive).config
    asked = {**calibration, "exclusive": exclusive}
    splits = {"val": (validation.labels, validation.patients, calibrated(logits, asked))}
    if test is not None:
        splits["test"] = (test.labels, test.patients, calibrated(predict_logits(encoder, head, test), asked))
    found = {**calibration, **decided_and_measured(network.config["labels"], splits, exclusive)}
    if "most_leads" not in network.config:
        found["few_leads"] = calibrated_for_one_lead(encoder, head, validation, exclusive)
    return found


def calibrated_for_one_lead(
    encoder: Encoder, head: RecordHead, validation: Examples, exclusive: bool
) -> dict[str, Any]:
    """Calibrate a head for records of one or two leads: on validation records seen through single leads."""
    rows = [row for row in range(validation.valid.shape[1]) if validation.valid[:, row].any(axis=-1).mean() > 0.5]
    seen = [predict_logits(encoder, head, validation, [row]) for row in rows[:FEW_LEADS]]
    logits, labels = np.concatenate(seen), np.concatenate([validation.labels] * len(seen))
    calibration = calibrate(logits, labels, exclusive)
    probabilities = to_probability(calibration.logits(logits), exclusive)
    return {**calibration.config, **decided_for_few_leads(labels, probabilities)}


def _label(name: str) -> dict[str, Any]:
    """Describe a label: a name that `anyecg.codes` knows brings its SNOMED CT code."""
    known = {name} & set(table()) or codes_of(name)
    if len(known) == 1:
        code = table()[known.pop()]
        return {"code": code.code, "snomed": code.snomed, "name": code.name, "kind": code.kind}
    return {"code": name, "snomed": None, "name": name, "kind": "diagnosis"}


def with_head(model: Model, output: Path, name: str, config: dict[str, Any], graph: bytes) -> Path:
    """Write a head into ``output``: a copy of the model's checkpoint, made beside its place and moved there whole."""
    if not output.exists():
        partial = output.with_name(output.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model.checkpoint.folder, partial)
        partial.rename(output)
    return write_head(output, name, config, graph)
