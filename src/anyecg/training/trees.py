"""Boosted trees beside the network of a record head: fitted to measures, written into the head's ONNX graph.

Measures that a rule-based electrocardiograph takes (`anyecg.tasks.window_measures`) tell other things than embeddings
do, and trees tell them best. Gradient boosting on histograms (Ke 2017, LightGBM; scikit-learn's implementation), one
forest a label, gives log odds; the head's answer is its network's logits plus a weight times these. Training records
are measured in copies, through all leads, some, and one, with electrode noise: a lead that is not there is NaN, and
where NaN goes is learned. Rounds, weights (one for many leads, one for few), calibration and thresholds are chosen on
validation records.

Scikit-learn compares float64 thresholds with measures, which are float32. Rounded *down* to float32 a threshold divides
the same numbers, so graph and forest agree but for the order of additions.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.beats import find_beats
from anyecg.engine import Model, load
from anyecg.heads import Head, open_head, write_head
from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.tasks.arrhythmia import FEW_LEADS, calibrated, head_outputs, window_starts
from anyecg.tasks.measures import MEASURES
from anyecg.tasks.window_measures import ONE_LEAD, window_measures
from anyecg.training.calibrate import best_thresholds, calibrate
from anyecg.training.datasets import LABEL_TABLES, Corpus, Entry, load_noise, prepare_databases
from anyecg.training.examples import Variation
from anyecg.training.finetune import LEAST_AUROC
from anyecg.training.label_scores import each_label, known_auroc, known_macro_auroc, rounded
from anyecg.training.labelled import truth_of

FEW_VIEWS = ("II", "I", "II, unnamed")
"""What stands for records of few leads among the views of validation records."""

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What the trees' log odds may count beside the network's logits."""

UNKNOWN_GAIN = 0.1
"""Share of varied training records whose millivolts are taken to be unknown."""

EVERY = 5
"""The number of rounds is a multiple of it."""

MEASURES_IN, TREES_OUT = "measures", "trees"
ML_OPSET = 3  # TreeEnsembleRegressor; its successor of opset 5 is not in every onnxruntime we allow


@dataclass(frozen=True)
class ForestSettings:
    """How a forest grows.

    Parameters
    ----------
    leaves, rounds : int
        Leaves of a tree; the most trees.
    rate, penalty : float
        Shrinkage; L2 penalty of a leaf.
    least_in_a_leaf : int
        Windows.
    share_of_measures : float
        What a split chooses among: trees are less alike, and grow faster.
    """

    leaves: int = 12
    rounds: int = 80
    rate: float = 0.06
    penalty: float = 5.0
    least_in_a_leaf: int = 20
    share_of_measures: float = 0.2


@dataclass(frozen=True)
class Forest:
    """One label: ``base`` plus the leaves' values are log odds; trees are scikit-learn's arrays of nodes."""

    base: float
    trees: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Part:
    """The labelled records of a split: labels (R, C) are 1, 0 or NaN."""

    corpus: Corpus
    entries: list[Entry]
    labels: np.ndarray


View = Callable[[Record], Record]


def add_trees(
    folder: Path,
    name: str,
    settings: ForestSettings,
    data: Path,
    splits: Path,
    progress: Callable[[str], None] = print,
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
    model, head = load(folder, threads=1), open_head(folder, name)
    if head is None:
        raise ValueError(f"{folder}: no head {name!r} to add trees to")
    prepared = prepare_databases(data, splits, model.checkpoint.preparation, progress)
    train, validation = (_part(prepared, name, split, data, splits, head) for split in ("train", "val"))
    many = len(train.entries[0].leads) > FEW_LEADS
    names = tuple(n for n in (MEASURES if many else ONE_LEAD) if n != "beats")  # their number is the window's length
    progress(f"{name}: measuring {len(train.entries)} training records")
    views = _training_views(load_noise(data, "train", model.checkpoint.preparation)) if many else [_as_it_is]
    x, y = (np.concatenate(parts) for parts in zip(*(_windows(model, train, names, v) for v in views), strict=True))
    seen = _validation_views() if many else {"one lead": _as_it_is}
    held = [_windows(model, validation, names, view) for view in seen.values()]
    x_held, y_held = (np.concatenate(parts) for parts in zip(*held, strict=True))
    forests = fit_forests((x, y), (x_held, y_held), settings, progress)
    graph = with_forests(head.path.with_suffix(".onnx").read_bytes(), forests, len(names))
    config = {**head.config, "measures": list(names), "trees": {**asdict(settings), "windows": len(x)}}
    with tempfile.TemporaryDirectory() as place:
        write_head(Path(place), name, config, graph)
        with_trees = open_head(Path(place), name)
        assert with_trees is not None
        outputs = {view: _outputs(model, with_trees, validation, seen[view]) for view in seen}
    config |= _chosen(outputs, validation, config, many, progress)
    write_head(folder, name, config, graph)


# -- records -------------------------------------------------------------------------------------------------


def _part(prepared: Path, name: str, split: str, data: Path, splits: Path, head: Head) -> Part:
    rows = {row["file"]: row for row in LABEL_TABLES[name](data, splits) if row["split"] == split}
    corpus = Corpus(prepared, split)
    entries = [e for e in corpus.entries if f"{e.database}/{e.record}.hea" in rows]
    codes = [label.code for label in head.labels]
    labels = [truth_of(rows[f"{e.database}/{e.record}.hea"], codes) for e in entries]
    return Part(corpus, entries, np.stack(labels))


def _as_it_is(record: Record) -> Record:
    return record


def _training_views(noise: dict[str, np.ndarray]) -> list[View]:
    """Return copies of 12-lead records: clean; then noisy, and of these one through some leads, one through one."""
    rng = np.random.default_rng(0)

    def some(record: Record) -> Record:
        if rng.random() < 1 / 3:
            return record.pick(("I", "II", "V2"))
        rows = sorted(rng.permutation(record.n_leads)[: rng.integers(2, 9)])
        return record.pick([record.leads[row] for row in rows])

    def one(record: Record) -> Record:
        lead = ("II", "II", "I", None, None, None)[rng.integers(6)] or record.leads[rng.integers(record.n_leads)]
        return unnamed(record.pick((lead,))) if rng.random() < 1 / 6 else record.pick((lead,))

    def noisy(number: int, pick: View) -> View:
        vary = Variation(noise, seed=number)
        return lambda record: pick(vary(record).with_(gain_known=bool(rng.random() >= UNKNOWN_GAIN)))

    return [_as_it_is, noisy(1, _as_it_is), noisy(2, some), noisy(3, one)]


def unnamed(record: Record) -> Record:
    """Return a record of one lead without its name."""
    return record.with_(leads=("unknown",))


def _validation_views() -> dict[str, View]:
    """Return what validation 12-lead records are seen through."""
    return {
        "12 leads": lambda record: record.pick(STANDARD_LEADS),
        "I, II, V2": lambda record: record.pick(("I", "II", "V2")),
        "II": lambda record: record.pick(("II",)),
        "I": lambda record: record.pick(("I",)),
        "II, unnamed": lambda record: unnamed(record.pick(("II",))),
    }


def _windows(model: Model, part: Part, names: tuple[str, ...], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Measure the encoder's windows of all records of a part: (W, F), and their labels (W, C)."""
    grid, sizes = model.checkpoint.grid, model.checkpoint.config["window_fragments"]
    x, y = [], []
    for entry, labels in zip(part.entries, part.labels, strict=True):
        record = view(part.corpus.record(entry, grid.fs_hz))
        rhythm = find_beats(record)
        n_fragments = -(-record.n_samples // grid.fragment_samples)
        size = min(sizes["few" if record.n_leads <= FEW_LEADS else "many"], n_fragments)
        for start in window_starts(n_fragments, size) * grid.fragment_s:
            x.append(window_measures(names, record, rhythm, start, start + size * grid.fragment_s))
            y.append(labels)
    return np.stack(x), np.stack(y)


def _outputs(model: Model, head: Head, part: Part, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return what a head's network and its trees make of each record, (R, C) each."""
    found = []
    for entry in part.entries:
        record = view(part.corpus.record(entry, model.checkpoint.grid.fs_hz))
        found.append(head_outputs(model, head, model.tokenize(record), find_beats(record), record))
    network, trees = zip(*found, strict=True)
    return np.stack(network), np.stack(trees)


# -- what validation records choose --------------------------------------------------------------------------


def _chosen(
    outputs: dict[str, tuple[np.ndarray, np.ndarray]],
    validation: Part,
    config: dict[str, Any],
    many: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Return what changes in a head's config: weights, calibration, thresholds, and how well it does on val."""
    views, labels, exclusive = list(outputs), validation.labels, bool(config["exclusive"])
    first = outputs[views[0]]
    found = _weighed(*first, labels, exclusive)
    probabilities = calibrated(first[0] + found["tree_weight"] * first[1], {**found, "exclusive": exclusive})
    thresholds = best_thresholds(probabilities, labels)
    found["labels"] = [
        {**label, "threshold": round(float(t), 4)} for label, t in zip(config["labels"], thresholds, strict=True)
    ]
    decided = probabilities.argmax(axis=1)[:, None] == np.arange(labels.shape[1])
    decided = decided if exclusive else probabilities >= thresholds
    rows = each_label(labels, probabilities, decided)
    found["measured"] = {
        "val": {
            "records": len(labels),
            "patients": len({entry.patient for entry in validation.entries}),
            "macro_auroc": rounded(known_macro_auroc(labels, probabilities)),
            "labels": [{"code": x["code"], **row} for x, row in zip(found["labels"], rows, strict=True)],
        }
    }
    if many:
        few = [np.concatenate(parts) for parts in zip(*(outputs[view] for view in FEW_VIEWS), strict=True)]
        found["few_leads"] = _for_few(few[0], few[1], np.concatenate([labels] * len(FEW_VIEWS)), exclusive)
    for view, (network, trees) in outputs.items():
        weight = (found["few_leads"] if view in FEW_VIEWS else found)["tree_weight"]
        each = [known_macro_auroc(labels, x) for x in (network, trees, network + weight * trees)]
        progress(f"val, {view}: network {each[0]:.4f}, trees {each[1]:.4f}, with weight {weight:g} {each[2]:.4f}")
    return found


def _for_few(network: np.ndarray, trees: np.ndarray, labels: np.ndarray, exclusive: bool) -> dict[str, Any]:
    """Weigh and calibrate for one or two leads; a label of an AUROC under `LEAST_AUROC` is not told of them."""
    found = _weighed(network, trees, labels, exclusive)
    probabilities = calibrated(network + found["tree_weight"] * trees, {**found, "exclusive": exclusive})
    each = [known_auroc(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])]
    return {
        **found,
        "thresholds": best_thresholds(probabilities, labels).round(4).tolist(),
        "validation_auroc": [rounded(value) for value in each],
        "told": [bool(np.isfinite(value) and value >= LEAST_AUROC) for value in each],
    }


def _weighed(network: np.ndarray, trees: np.ndarray, labels: np.ndarray, exclusive: bool) -> dict[str, Any]:
    """Choose the trees' weight with the least log loss once calibrated; return it with that calibration."""
    known = np.isfinite(labels)
    found: dict[str, Any] = {}
    least = np.inf
    for weight in WEIGHTS:
        calibration = calibrate(network + weight * trees, labels, exclusive)
        chosen = {
            "tree_weight": weight,
            "temperature": calibration.temperature,
            "shifts": calibration.shifts.tolist(),
        }
        p = np.clip(calibrated(network + weight * trees, {**chosen, "exclusive": exclusive}), 1e-7, 1 - 1e-7)
        loss = -float(np.log(np.where(labels[known] == 1, p[known], 1 - p[known])).mean())
        if loss < least:
            found, least = chosen, loss
    return found


# -- forests -------------------------------------------------------------------------------------------------


def fit_forests(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: ForestSettings,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Forest]:
    """Fit a forest a label.

    Parameters
    ----------
    train, validation : (ndarray (N, F) float32, ndarray (N, C))
        Measures of windows, NaN = not measured; labels 1, 0 or NaN = not known.
    """
    forests = []
    for k in range(train[1].shape[1]):
        parts = [(x[np.isfinite(y[:, k])], y[np.isfinite(y[:, k]), k]) for x, y in (train, validation)]
        forests.append(fit_forest(parts[0], parts[1], settings))
    progress(f"trees of each label: {', '.join(str(len(forest.trees)) for forest in forests)}")
    return forests


def fit_forest(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], settings: ForestSettings
) -> Forest:
    """Fit the forest of one label, measures (N, F) and labels (N,), 1 or 0; val chooses the rounds, by log loss.

    A label that either part does not have in both kinds gets a forest without trees.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    (x, y), (x_held, y_held) = train, validation
    if min(y.sum(), (1 - y).sum(), y_held.sum(), (1 - y_held).sum()) < 1:
        share = np.clip(y.mean() if len(y) else 0.5, 1e-4, 1 - 1e-4)
        return Forest(float(np.log(share / (1 - share))), ())
    with threadpool_limits(limits=1):
        model = HistGradientBoostingClassifier(
            learning_rate=settings.rate,
            max_iter=settings.rounds,
            max_leaf_nodes=settings.leaves,
            l2_regularization=settings.penalty,
            min_samples_leaf=min(settings.least_in_a_leaf, max(2, len(x) // 10)),
            max_features=settings.share_of_measures,
            early_stopping=False,
            random_state=0,
        ).fit(x, y)
        staged = enumerate(model.staged_decision_function(x_held), start=1)
        losses = {n: float(np.mean(np.logaddexp(0, z) - y_held * z)) for n, z in staged if n % EVERY == 0}
    return forest_of(model, min(losses, key=lambda n: losses[n]))


def forest_of(model: Any, rounds: int) -> Forest:
    """Take the first trees out of a fitted scikit-learn classifier.

    They have no public name; those who export them to ONNX take them from there, too.
    """
    return Forest(
        float(model._baseline_prediction.item()), tuple(stage[0].nodes for stage in model._predictors[:rounds])
    )


def with_forests(graph: bytes, forests: list[Forest], n_measures: int) -> bytes:
    """Give a head's graph the input ``measures`` (B, F) and the output ``trees`` (B, C): a forest's log odds a label.

    Forests that the graph has already are replaced.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(graph)
    for values, name in ((model.graph.input, MEASURES_IN), (model.graph.output, TREES_OUT)):
        for value in [v for v in values if v.name == name]:
            values.remove(value)
    for node in [node for node in model.graph.node if TREES_OUT in node.output]:
        model.graph.node.remove(node)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        [MEASURES_IN],
        [TREES_OUT],
        name=TREES_OUT,
        domain="ai.onnx.ml",
        n_targets=len(forests),
        aggregate_function="SUM",
        post_transform="NONE",
    )
    node.attribute.extend(helper.make_attribute(name, values) for name, values in _attributes(forests).items())
    model.graph.node.append(node)
    model.graph.input.append(helper.make_tensor_value_info(MEASURES_IN, TensorProto.FLOAT, ["B", n_measures]))
    model.graph.output.append(helper.make_tensor_value_info(TREES_OUT, TensorProto.FLOAT, ["B", len(forests)]))
    if not any(opset.domain == "ai.onnx.ml" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    return bytes(model.SerializeToString())


def _attributes(forests: list[Forest]) -> dict[str, list[Any]]:
    """Lay all nodes of all trees side by side, as the operator wants them."""
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    found: dict[str, list[Any]] = {f"nodes_{name}": [] for name in (*names, "missing_value_tracks_true")}
    leaves: dict[str, list[Any]] = {f"target_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}
    trees = [(label, nodes) for label, forest in enumerate(forests) for nodes in (_base(forest), *forest.trees)]
    for number, (label, nodes) in enumerate(trees):
        leaf = nodes["is_leaf"].astype(bool)
        n = len(nodes)
        found["nodes_treeids"] += [number] * n
        found["nodes_nodeids"] += list(range(n))
        found["nodes_featureids"] += np.where(leaf, 0, nodes["feature_idx"]).astype(int).tolist()
        found["nodes_values"] += rounded_down(np.where(leaf, 0.0, nodes["num_threshold"])).tolist()
        found["nodes_modes"] += ["LEAF" if x else "BRANCH_LEQ" for x in leaf]
        found["nodes_truenodeids"] += np.where(leaf, 0, nodes["left"]).astype(int).tolist()
        found["nodes_falsenodeids"] += np.where(leaf, 0, nodes["right"]).astype(int).tolist()
        found["nodes_missing_value_tracks_true"] += np.where(leaf, 0, nodes["missing_go_to_left"]).astype(int).tolist()
        at = np.flatnonzero(leaf)
        leaves["target_treeids"] += [number] * len(at)
        leaves["target_nodeids"] += at.tolist()
        leaves["target_ids"] += [label] * len(at)
        leaves["target_weights"] += nodes["value"][at].tolist()
    return found | leaves


def _base(forest: Forest) -> np.ndarray:
    """Return a tree of one leaf: onnxruntime forgets the operator's ``base_values`` where a label has no tree."""
    kinds = [("value", float), ("feature_idx", int), ("num_threshold", float), ("missing_go_to_left", np.uint8)]
    kinds += [("left", int), ("right", int), ("is_leaf", np.uint8)]
    return np.array([(forest.base, 0, 0.0, 0, 0, 0, 1)], dtype=kinds)


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each float64: both divide float32 numbers in the same way."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
