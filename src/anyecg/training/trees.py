"""Trees beside the network of a record head: fitted to measures, written into the head's ONNX graph.

Measures that a rule-based electrocardiograph takes (`anyecg.tasks.window_measures`) tell other things than embeddings
do, and trees tell them best (`anyecg.training.forests`); the head's answer is its network's logits plus a weight times
the trees' log odds. Training records are measured in copies, through all leads, some, and one, with electrode noise: a
lead that is not there is NaN, and where NaN goes is learned. Rounds, weights (one for many leads, one for few),
calibration and thresholds are chosen on validation records; a weight of 0 is among the choices.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.beats import find_beats
from anyecg.engine import Model, load, window_starts
from anyecg.heads import Head, open_head, write_head
from anyecg.record import Record
from anyecg.tasks.arrhythmia import FEW_LEADS, calibrated, head_outputs
from anyecg.tasks.measures import MEASURES
from anyecg.tasks.window_measures import ONE_LEAD, window_measures
from anyecg.training.calibrate import calibrate, decided_and_measured, decided_for_few_leads, log_loss
from anyecg.training.datasets import LABEL_TABLES, Corpus, load_noise, prepare_databases
from anyecg.training.examples import Variation
from anyecg.training.forests import ForestSettings, RandomSettings, fit_forests, with_forests
from anyecg.training.label_scores import known_macro_auroc
from anyecg.training.labelled import truth_of

FEW_VIEWS = ("II", "I", "II, unnamed")
"""What stands for records of few leads among the views of validation records."""

SHARES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What the trees' log odds may count beside the network's logits, both of the same spread."""

STEP_PENALTY = 1.0
"""Of each step of `SHARES` away from 1, in units of one record's loss: few validation records cannot tell."""

ENOUGH_TO_BOOST = 500
"""Training records from which trees are boosted. Of 1,381 both kinds do as well on val, of 138 and of 13 random trees
do better by .03 to .07 of macro AUROC."""

UNKNOWN_GAIN = 0.1
"""Share of varied training records whose millivolts are taken to be unknown."""


@dataclass(frozen=True)
class Part:
    """The labelled records of a split: ``records()`` yields them prepared; labels (R, C) are 1, 0 or NaN."""

    records: Callable[[], Iterable[Record]]
    labels: np.ndarray
    patients: list[str]


@dataclass(frozen=True)
class Parts:
    """What trees learn from, what chooses, and what is only measured (None if there is none)."""

    train: Part
    validation: Part
    test: Part | None = None


View = Callable[[Record], Record]
Progress = Callable[[str], None]


def add_trees(
    folder: Path, name: str, settings: ForestSettings, data: Path, splits: Path, progress: Progress = print
) -> None:
    """Fit trees to the measures of a public label table's records, and write them into that head of a checkpoint.

    Trees the head has already are replaced; its network stays as it is.

    Parameters
    ----------
    folder : Path
        A checkpoint with a head of that name.
    name : str
        Of the head and of the label table.
    data, splits : Path
        The restored databases, and the CSV of splits: trees learn from train; val chooses.
    """
    model, head = load(folder, threads=1), _opened(folder, name)
    prepared = prepare_databases(data, splits, model.checkpoint.preparation, progress)
    parts = Parts(*(_part(model, prepared, head, split, data, splits) for split in ("train", "val")))
    noise = load_noise(data, "train", model.checkpoint.preparation)
    graph = head.path.with_suffix(".onnx").read_bytes()
    write_head(folder, name, *with_trees(model, name, head.config, graph, parts, noise, settings, progress))


def calibrate_anew(folder: Path, name: str, data: Path, splits: Path, progress: Progress = print) -> None:
    """Choose the weights, calibration and thresholds of a head with trees again, on val; nothing is fitted."""
    model, head = load(folder, threads=1), _opened(folder, name)
    prepared = prepare_databases(data, splits, model.checkpoint.preparation, progress)
    validation = _part(model, prepared, head, "val", data, splits)
    config = head.config | _chosen(model, head, validation, None, progress)
    write_head(folder, name, config, head.path.with_suffix(".onnx").read_bytes())


def with_trees(
    model: Model,
    name: str,
    config: dict[str, Any],
    graph: bytes,
    parts: Parts,
    noise: dict[str, np.ndarray],
    settings: ForestSettings | None = None,
    progress: Progress = print,
) -> tuple[dict[str, Any], bytes]:
    """Fit trees beside a head's network; return the head's new config and graph.

    Parameters
    ----------
    model : Model
    name, config, graph
        Of the head.
    parts : Parts
    noise : dict of ndarray
        As `anyecg.training.datasets.load_noise` returns it; may be empty.
    settings : ForestSettings, optional
        Default: boosted trees of `ENOUGH_TO_BOOST` training records and more, random ones of fewer.
    """
    many = "most_leads" not in config
    names = tuple(n for n in (MEASURES if many else ONE_LEAD) if n != "beats")  # their number is the window's length
    views = _training_views(noise) if many else [_as_it_is]
    chosen: ForestSettings | RandomSettings = settings or ForestSettings()
    if settings is None and len(parts.train.labels) < ENOUGH_TO_BOOST:
        chosen = RandomSettings(least_in_a_leaf=2 * len(views))  # copies are no records of their own
    progress(f"{name}: measuring {len(parts.train.labels)} training records")
    x, y = _through(model, parts.train, names, views)
    held = _through(model, parts.validation, names, _validation_views(many).values())
    graph = with_forests(graph, fit_forests((x, y), held, chosen, progress), len(names))
    config = {**config, "measures": list(names), "trees": {**asdict(chosen), "windows": len(x)}}
    with tempfile.TemporaryDirectory() as place:
        write_head(Path(place), name, config, graph)
        head = _opened(Path(place), name)
        config |= _chosen(model, head, parts.validation, parts.test, progress)
    return config, graph


def _opened(folder: Path, name: str) -> Head:
    head = open_head(folder, name)
    if head is None:
        raise ValueError(f"{folder}: no head {name!r} to add trees to")
    return head


# -- records -------------------------------------------------------------------------------------------------


def _part(model: Model, prepared: Path, head: Head, split: str, data: Path, splits: Path) -> Part:
    rows = {row["file"]: row for row in LABEL_TABLES[head.name](data, splits) if row["split"] == split}
    corpus = Corpus(prepared, split)
    entries = [e for e in corpus.entries if f"{e.database}/{e.record}.hea" in rows]
    codes = [label.code for label in head.labels]
    labels = [truth_of(rows[f"{e.database}/{e.record}.hea"], codes) for e in entries]
    fs_hz = model.checkpoint.grid.fs_hz
    return Part(lambda: (corpus.record(e, fs_hz) for e in entries), np.stack(labels), [e.patient for e in entries])


def _as_it_is(record: Record) -> Record:
    return record


def _only(record: Record, wanted: tuple[str, ...]) -> Record:
    """Return a record through those of some leads it has; through its first if it has none."""
    return record.pick(tuple(lead for lead in wanted if lead in record.leads) or record.leads[:1])


def _training_views(noise: dict[str, np.ndarray]) -> list[View]:
    """Return copies of records: clean; then noisy, and of these one through some leads, one through one."""
    rng = np.random.default_rng(0)

    def some(record: Record) -> Record:
        if record.n_leads <= FEW_LEADS:
            return record
        if rng.random() < 1 / 3:
            return _only(record, ("I", "II", "V2"))
        rows = sorted(rng.permutation(record.n_leads)[: rng.integers(2, max(3, record.n_leads - 3))])
        return record.pick([record.leads[row] for row in rows])

    def one(record: Record) -> Record:
        lead = ("II", "II", "I", None, None, None)[rng.integers(6)] or record.leads[rng.integers(record.n_leads)]
        picked = _only(record, (lead,))
        return unnamed(picked) if rng.random() < 1 / 6 else picked

    def noisy(number: int, pick: View) -> View:
        vary = Variation(noise, seed=number)
        return lambda record: pick(_with_gain(vary(record), bool(rng.random() >= UNKNOWN_GAIN)))

    return [_as_it_is, noisy(1, _as_it_is), noisy(2, some), noisy(3, one)]


def _with_gain(record: Record, known: bool) -> Record:
    return record.with_(gain_known=known and record.gain_known)


def unnamed(record: Record) -> Record:
    """Return a record of one lead without its name."""
    return record.with_(leads=("unknown",))


def _validation_views(many: bool) -> dict[str, View]:
    """Return what validation records are seen through; of one or two leads, as they are."""
    if not many:
        return {"as recorded": _as_it_is}
    return {
        "as recorded": _as_it_is,
        "I, II, V2": lambda record: _only(record, ("I", "II", "V2")),
        "II": lambda record: _only(record, ("II",)),
        "I": lambda record: _only(record, ("I",)),
        "II, unnamed": lambda record: unnamed(_only(record, ("II",))),
    }


def _through(model: Model, part: Part, names: tuple[str, ...], views: Iterable[View]) -> tuple[np.ndarray, np.ndarray]:
    """Measure the encoder's windows of all records of a part in each view: (W, F), and their labels (W, C)."""
    grid, sizes = model.checkpoint.grid, model.checkpoint.config["window_fragments"]
    x, y = [], []
    for view in views:
        for record, labels in zip(part.records(), part.labels, strict=True):
            seen = view(record)
            rhythm = find_beats(seen)
            n_fragments = -(-seen.n_samples // grid.fragment_samples)
            size = min(sizes["few" if seen.n_leads <= FEW_LEADS else "many"], n_fragments)
            for start in window_starts(n_fragments, size) * grid.fragment_s:
                x.append(window_measures(names, seen, rhythm, start, start + size * grid.fragment_s))
                y.append(labels)
    return np.stack(x), np.stack(y)


def _outputs(model: Model, head: Head, part: Part, view: View = _as_it_is) -> tuple[np.ndarray, np.ndarray]:
    """Return what a head's network and its trees make of each record, (R, C) each."""
    found = []
    for record in part.records():
        seen = view(record)
        found.append(head_outputs(model, head, model.tokenize(seen), find_beats(seen), seen))
    network, trees = zip(*found, strict=True)
    return np.stack(network), np.stack(trees)


# -- what validation records choose --------------------------------------------------------------------------


def _chosen(model: Model, head: Head, validation: Part, test: Part | None, progress: Progress) -> dict[str, Any]:
    """Return what changes in a head's config: weights, calibration, thresholds, and how well it does on val."""
    many, exclusive = "most_leads" not in head.config, bool(head.config["exclusive"])
    labels = validation.labels
    outputs = {name: _outputs(model, head, validation, view) for name, view in _validation_views(many).items()}
    network, trees = outputs["as recorded"]
    found = weighed(network, trees, labels, exclusive)
    asked = {**found, "exclusive": exclusive}
    splits = {"val": (labels, validation.patients, calibrated(network + found["tree_weight"] * trees, asked))}
    if test is not None:
        network, trees = _outputs(model, head, test)
        splits["test"] = (test.labels, test.patients, calibrated(network + found["tree_weight"] * trees, asked))
    found |= decided_and_measured(head.config["labels"], splits, exclusive)
    if many:
        few = [np.concatenate(parts) for parts in zip(*(outputs[view] for view in FEW_VIEWS), strict=True)]
        found["few_leads"] = _for_few(few[0], few[1], np.concatenate([labels] * len(FEW_VIEWS)), exclusive)
    for view, (network, trees) in outputs.items():
        weight = (found["few_leads"] if view in FEW_VIEWS else found)["tree_weight"]
        each = [known_macro_auroc(labels, x) for x in (network, trees, network + weight * trees)]
        progress(f"val, {view}: network {each[0]:.4f}, trees {each[1]:.4f}, with weight {weight:.2f} {each[2]:.4f}")
    return found


def _for_few(network: np.ndarray, trees: np.ndarray, labels: np.ndarray, exclusive: bool) -> dict[str, Any]:
    """Weigh and calibrate for one or two leads; say which labels these can tell."""
    found = weighed(network, trees, labels, exclusive)
    probabilities = calibrated(network + found["tree_weight"] * trees, {**found, "exclusive": exclusive})
    return {**found, **decided_for_few_leads(labels, probabilities)}


def weighed(network: np.ndarray, trees: np.ndarray, labels: np.ndarray, exclusive: bool) -> dict[str, Any]:
    """Choose the trees' weight with the least log loss once calibrated; return it with that calibration.

    Parameters
    ----------
    network, trees : ndarray, shape (R, C)
        Logits and log odds of validation records.
    labels : ndarray, shape (R, C)
        1, 0 or NaN.
    """
    spread = trees.std(axis=0).mean()
    unit = network.std(axis=0).mean() / spread if spread > 0 else 0.0
    found: dict[str, Any] = {}
    least = np.inf
    for step, share in enumerate(SHARES):
        logits = network + share * unit * trees
        chosen = {"tree_weight": float(share * unit), **calibrate(logits, labels, exclusive).config}
        loss = log_loss(logits, labels, {**chosen, "exclusive": exclusive})
        loss += STEP_PENALTY * abs(step - SHARES.index(1.0))
        if loss < least:
            found, least = chosen, loss
    return found
