"""Forests over measured features, one a label, and how they are written into a head's ONNX graph.

Of many records gradient boosting on histograms (Ke 2017, LightGBM; scikit-learn's implementation); of few, extremely
randomised trees (Geurts 2006, doi:10.1007/s10994-006-6226-1), which overfit less. Either gives log odds that are sums
over trees. Departure from Geurts: leaves vote with smoothed log odds, not with shares, so that votes add up.

Scikit-learn compares float64 thresholds with measures, which are float32. Rounded *down* to float32 a threshold divides
the same numbers, so graph and forest agree but for the order of additions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

EVERY = 5
"""The number of rounds is a multiple of it."""

MEASURES_IN, TREES_OUT = "measures", "trees"
ML_OPSET = 3  # TreeEnsembleRegressor; its successor of opset 5 is not in every onnxruntime we allow


@dataclass(frozen=True)
class ForestSettings:
    """How a boosted forest grows.

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
class RandomSettings:
    """How a forest of random trees grows: for few records.

    Parameters
    ----------
    trees, leaves : int
        Their number; the most leaves of one.
    least_in_a_leaf : int
        Windows.
    share_of_measures : float
        What a split chooses among, a threshold of each drawn at random.
    prior : float
        So many windows of the training share are added to each leaf.
    """

    trees: int = 100
    leaves: int = 64
    least_in_a_leaf: int = 2
    share_of_measures: float = 0.3
    prior: float = 2.0


@dataclass(frozen=True)
class Forest:
    """One label: ``base`` plus the leaves' values are log odds; trees are arrays of nodes (see `NODE`)."""

    base: float
    trees: tuple[np.ndarray, ...]


NODE = [
    *(("value", np.float64), ("feature_idx", np.int64), ("num_threshold", np.float64)),
    *(("missing_go_to_left", np.uint8), ("left", np.int64), ("right", np.int64), ("is_leaf", np.uint8)),
]
"""Of a node: those fields of scikit-learn's boosted trees that are needed."""


def fit_forests(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: ForestSettings | RandomSettings,
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
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: ForestSettings | RandomSettings,
) -> Forest:
    """Fit the forest of one label, measures (N, F) and labels (N,), 1 or 0.

    Validation chooses the rounds of boosting, by log loss. A label that training has not in both kinds gets a forest
    without trees; so does one that validation has not, as nothing says how far to boost it.
    """
    (x, y), (_, y_held) = train, validation
    held = y if isinstance(settings, RandomSettings) else y_held
    if min(y.sum(), (1 - y).sum(), held.sum(), (1 - held).sum()) < 1:
        share = np.clip(y.mean() if len(y) else 0.5, 1e-4, 1 - 1e-4)
        return Forest(float(np.log(share / (1 - share))), ())
    if isinstance(settings, RandomSettings):
        return _random_forest(x, y, settings)
    return _boosted_forest(train, validation, settings)


def _boosted_forest(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], settings: ForestSettings
) -> Forest:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    (x, y), (x_held, y_held) = train, validation
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


def _random_forest(x: np.ndarray, y: np.ndarray, settings: RandomSettings) -> Forest:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        settings.trees,
        max_leaf_nodes=settings.leaves,
        min_samples_leaf=settings.least_in_a_leaf,
        max_features=settings.share_of_measures,
        random_state=0,
        n_jobs=1,
    ).fit(np.where(np.isfinite(x), x, np.nan), y)
    trees = []
    for member in model.estimators_:
        tree = member.tree_
        n, share = tree.n_node_samples, tree.value[:, 0, 1]
        smoothed = (share * n + settings.prior * y.mean()) / (n + settings.prior)
        nodes = np.zeros(tree.node_count, dtype=NODE)
        nodes["is_leaf"] = tree.children_left < 0
        nodes["value"] = np.log(smoothed / (1 - smoothed)) / settings.trees
        nodes["feature_idx"], nodes["num_threshold"] = tree.feature, tree.threshold
        nodes["left"], nodes["right"] = tree.children_left, tree.children_right
        nodes["missing_go_to_left"] = tree.missing_go_to_left
        trees.append(nodes)
    return Forest(0.0, tuple(trees))


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


def forest_scores(forests: list[Forest], measures: np.ndarray) -> np.ndarray:
    """Return the log odds (N, C) that forests make of measures (N, F), as a head's graph does."""
    import onnxruntime
    from onnx import helper

    empty = helper.make_model(helper.make_graph([], "forests", [], []), opset_imports=[helper.make_opsetid("", 18)])
    empty.ir_version = 9
    graph = with_forests(empty.SerializeToString(), forests, measures.shape[1])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([TREES_OUT], {MEASURES_IN: measures.astype(np.float32)})[0])


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
    return np.array([(forest.base, 0, 0.0, 0, 0, 0, 1)], dtype=NODE)


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each float64: both divide float32 numbers in the same way."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
