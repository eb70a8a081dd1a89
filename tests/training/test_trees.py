"""Trees beside a head's network: the graph answers as the forest does, and an analysis adds both."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
from onnx import helper
from sklearn.ensemble import HistGradientBoostingClassifier

import anyecg
from anyecg.beats import find_beats
from anyecg.errors import CheckpointError
from anyecg.heads import open_head, write_head
from anyecg.metrics import auroc
from anyecg.quality import assess
from anyecg.record import Record
from anyecg.tasks.arrhythmia import head_outputs, label_scores, record_logits, window_logits
from anyecg.tasks.window_measures import Measured
from anyecg.training import trees
from anyecg.training.forests import (
    EVERY,
    Forest,
    ForestSettings,
    RandomSettings,
    fit_forest,
    fit_forests,
    forest_of,
    forest_scores,
    rounded_down,
    with_forests,
)
from anyecg.training.shipped_heads import TREES, calibrate_heads
from anyecg.training.trees import weighed

SETTINGS = ForestSettings(leaves=6, rounds=20, rate=0.2, least_in_a_leaf=5, share_of_measures=1.0)


def made_up(n, seed=0):
    """Measures of which the first tells the label, where it is known; many are NaN, and NaN tells something too."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] ** 2 > 0.3).astype(float)
    x[rng.random(n) < 0.3 * y, 2] = np.nan
    x[rng.random((n, 4)) < 0.15] = np.nan
    return x, y


def test_graph_and_scikit_learn_agree_also_on_thresholds_and_what_is_not_measured():
    x, y = made_up(600)
    model = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=9, random_state=0).fit(x, y)
    forest = forest_of(model, 30)
    on_thresholds = np.concatenate([tree["num_threshold"][tree["is_leaf"] == 0] for tree in forest.trees])
    held = np.concatenate([made_up(400, seed=1)[0], np.repeat(on_thresholds.astype(np.float32)[:, None], 4, axis=1)])
    wanted = model.decision_function(held)
    np.testing.assert_allclose(forest_scores([forest], held)[:, 0], wanted, atol=1e-4)
    fewer = forest_scores([forest_of(model, 7), Forest(-1.5, ())], held)
    staged = list(model.staged_decision_function(held))
    np.testing.assert_allclose(fewer[:, 0], staged[6], atol=1e-4)
    assert (fewer[:, 1] == -1.5).all()


def test_a_threshold_divides_float32_numbers_as_before():
    rng = np.random.default_rng(0)
    thresholds = np.concatenate([rng.normal(size=500), [np.inf, 0.0, 1e-300]])
    below = rounded_down(thresholds)
    assert below.dtype == np.float32 and (below <= thresholds).all()
    for x in (below, np.nextafter(below, np.float32(np.inf)), np.nextafter(below, np.float32(-np.inf))):
        assert ((x <= below) == (x.astype(np.float64) <= thresholds)).all()


def test_forests_learn_and_validation_chooses_the_rounds():
    x, y = made_up(800)
    labels = np.stack([y, np.where(np.arange(800) % 2 == 0, np.nan, 1 - y), np.zeros(800)], axis=1)
    validation = made_up(400, seed=1)
    held = np.stack([validation[1], 1 - validation[1], np.zeros(400)], axis=1)
    forests = fit_forests((x, labels), (validation[0], held), SETTINGS)
    found = forest_scores(forests, made_up(400, seed=2)[0])
    truth = made_up(400, seed=2)[1]
    assert ((found[:, 0] > 0) == truth).mean() > 0.8 and ((found[:, 1] < 0) == truth).mean() > 0.8
    assert forests[2].trees == () and found[0, 2] < -5  # no record has it: no trees, and unlikely
    rng = np.random.default_rng(0)
    by_chance = fit_forest((x, y), (validation[0], rng.permutation(validation[1])), SETTINGS)
    assert len(by_chance.trees) == EVERY < len(forests[0].trees)  # every further round made it worse


def test_random_trees_vote_as_in_scikit_learn_and_learn_from_few_records():
    from sklearn.ensemble import ExtraTreesClassifier

    x, y = made_up(60)
    forest = fit_forest((x, y), (x[:0], y[:0]), RandomSettings(trees=30, prior=1e-9))  # validation is not asked
    model = ExtraTreesClassifier(30, max_leaf_nodes=64, min_samples_leaf=2, max_features=0.3, random_state=0).fit(x, y)
    held, truth = made_up(500, seed=1)
    for tree, member in zip(forest.trees, model.estimators_, strict=True):
        votes = 1 / (1 + np.exp(-30 * forest_scores([Forest(0.0, (tree,))], held)[:, 0]))
        np.testing.assert_allclose(votes, member.predict_proba(held)[:, 1], atol=1e-5)
    assert auroc(truth == 1, forest_scores([fit_forest((x, y), (x, y), RandomSettings())], held)[:, 0]) > 0.8
    assert fit_forest((x, np.ones(60)), (x, y), RandomSettings()).trees == ()


def test_validation_may_weigh_trees_with_nothing():
    rng = np.random.default_rng(0)
    truth = (np.arange(400) % 2 == 0).astype(float)[:, None]
    good, noise = 2 * truth - 1 + rng.normal(0, 0.8, (400, 1)), rng.normal(size=(400, 1))
    assert weighed(good, noise, truth, False)["tree_weight"] == 0
    assert weighed(noise, good, truth, False)["tree_weight"] > 4
    assert weighed(good, np.zeros((400, 1)), truth, False)["tree_weight"] == 0
    unit = good[:10].std() / noise[:10].std()
    assert weighed(good[:10], noise[:10], truth[:10], False)["tree_weight"] < unit  # ten records move it a little


def test_new_forests_take_the_place_of_the_old():
    x, y = made_up(300)
    forest = fit_forest((x, y), (x, y), SETTINGS)
    empty = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 18)])
    once = with_forests(empty.SerializeToString(), [Forest(0.0, ())], 2)
    twice = onnx.load_from_string(with_forests(once, [forest], 4))
    assert len(twice.graph.node) == len(twice.graph.input) == len(twice.graph.output) == 1
    assert with_forests(empty.SerializeToString(), [forest], 4) == twice.SerializeToString()


# -- the head that ships --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return anyecg.load("nano", threads=1)


@pytest.fixture(scope="module")
def prepared(model, dicom_file):
    return model.prepare(anyecg.read(dicom_file))


def slopes(config):
    """The head that ships was calibrated with a slope a label."""
    found = np.array(config["slopes"])
    assert len(set(config["slopes"])) > 1 or len(found) == 4
    return found


def test_an_analysis_adds_what_the_trees_make_of_the_measures(model, prepared):
    head = model.head("diagnosis")
    tokens, rhythm = model.tokenize(prepared), find_beats(prepared)
    network, found = head_outputs(model, head, tokens, rhythm, prepared)
    config = head.config
    wanted = (network + config["tree_weight"] * found) * slopes(config) / config["temperature"] + config["shifts"]
    logits = record_logits(model, head, tokens, rhythm, prepared=prepared)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    assert np.abs(found - found.mean()).max() > 1 and not np.allclose(network, found)
    np.testing.assert_allclose(
        label_scores(model, head, tokens, rhythm, prepared=prepared), 1 / (1 + np.exp(-logits)), atol=1e-6
    )
    quality = assess(prepared, prepared)
    by_window = window_logits(model, tokens, rhythm, quality, measured=Measured(prepared, rhythm))["diagnosis"]
    np.testing.assert_allclose(by_window.mean(axis=0), network + config["tree_weight"] * found, atol=1e-4)


def test_few_leads_have_a_weight_of_their_own(model, prepared):
    head = model.head("diagnosis")
    one = prepared.pick(("II",))
    tokens, rhythm = model.tokenize(one), find_beats(one)
    network, found = head_outputs(model, head, tokens, rhythm, one)
    few = head.config["few_leads"]
    wanted = (network + few["tree_weight"] * found) * slopes(few) / few["temperature"] + few["shifts"]
    np.testing.assert_allclose(record_logits(model, head, tokens, rhythm, prepared=one), wanted, atol=1e-4)


def test_without_the_signal_the_codes_are_measured(model, prepared):
    head = model.head("diagnosis")
    tokens, rhythm = model.tokenize(prepared), find_beats(prepared)
    _, measured = head_outputs(model, head, tokens, rhythm, prepared)
    _, decoded = head_outputs(model, head, tokens, rhythm)
    _, of_codes = head_outputs(model, head, tokens, rhythm, model.decode(tokens))
    np.testing.assert_array_equal(decoded, of_codes)
    assert not np.allclose(decoded, measured) and np.corrcoef(decoded, measured)[0, 1] > 0.8


def test_leads_of_no_use_are_not_measured(model, prepared):
    bad = prepared.signal.copy()
    bad[3] = 0
    tokens, rhythm = model.tokenize(prepared.with_(signal=bad)), find_beats(prepared)
    quality = assess(prepared.with_(signal=bad), prepared.with_(signal=bad))
    assert quality.leads[prepared.leads[3]].score == 0
    found = window_logits(model, tokens, rhythm, quality, measured=Measured(prepared.with_(signal=bad), rhythm))[
        "diagnosis"
    ]
    without = window_logits(model, tokens, rhythm, quality, measured=Measured(prepared, rhythm))["diagnosis"]
    np.testing.assert_array_equal(found, without)


def test_one_window_of_a_long_record_stands_for_all(model, toy_record):
    record = model.prepare(toy_record.with_(signal=toy_record.signal[:, : 120 * 360]))
    tokens, rhythm = model.tokenize(record), find_beats(record)
    quality = assess(record, record)
    arguments = (model, tokens, rhythm, quality, None, Measured(record, rhythm))
    each = window_logits(*arguments)["rhythm"]
    weight = model.head("rhythm").config["tree_weight"]
    network = window_logits(*arguments, only=1)["rhythm"] - each
    assert len(each) == 4
    assert np.abs(network[1]).max() < 1e-4  # the one that was measured is as before
    assert np.abs(network[[0, 2, 3]]).max() > 0.01 * weight
    np.testing.assert_array_equal(window_logits(*arguments, only=5)["rhythm"], network + each)


def test_a_head_that_wants_measures_of_another_version_is_refused(model, prepared, tmp_path):
    head = model.head("diagnosis")
    write_head(tmp_path, "later", {**head.config, "measures": ["moon"]}, head.path.with_suffix(".onnx").read_bytes())
    with pytest.raises(CheckpointError, match=r"later\.json: asks for measures \['moon'\].*Update anyecg"):
        head_outputs(model, open_head(tmp_path, "later"), model.tokenize(prepared), find_beats(prepared), prepared)


def test_heads_without_trees_answer_as_before(model, prepared, tmp_path):
    """A checkpoint of the time before trees: the network's logits alone."""
    head = model.head("diagnosis")
    tokens, rhythm = model.tokenize(prepared), find_beats(prepared)
    graph = onnx.load_from_string(head.path.with_suffix(".onnx").read_bytes())
    for values, name in ((graph.graph.input, "measures"), (graph.graph.output, "trees")):
        values.remove(next(v for v in values if v.name == name))
    graph.graph.node.remove(next(n for n in graph.graph.node if n.op_type == "TreeEnsembleRegressor"))
    config = {k: v for k, v in head.config.items() if k not in ("measures", "tree_weight", "slopes")}
    write_head(tmp_path, "old", config, graph.SerializeToString())
    old = open_head(tmp_path, "old")
    network, _ = head_outputs(model, head, tokens, rhythm, prepared)
    wanted = network / config["temperature"] + config["shifts"]  # as heads without slopes are told
    np.testing.assert_allclose(record_logits(model, old, tokens, rhythm), wanted, atol=1e-4)


def test_the_shipped_heads_say_how_their_trees_grew(model):
    for name, settings in TREES.items():
        config = model.head(name).config
        assert config["trees"]["leaves"] == settings.leaves and config["trees"]["windows"] > 4000
        assert config["tree_weight"] > 0
    few = model.head("diagnosis").config["few_leads"]
    assert few["tree_weight"] > 0 and sum(few["told"]) > 10


# -- fitted and written, small ---------------------------------------------------------------------------------


def test_trees_are_added_to_a_head_of_a_checkpoint(monkeypatch, tmp_path, tiny_checkpoint):
    """The whole way on made-up 12-lead records: the label is the rate, which the untrained network cannot tell."""
    import shutil

    from anyecg.models.export import export_head, load_networks
    from anyecg.models.heads import RecordHead

    folder = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    _, encoder = load_networks(folder)
    graph = export_head(RecordHead(encoder, len(encoder.blocks), 12, 1), encoder.config)
    label = {"code": "FAST", "snomed": None, "name": "fast", "kind": "rhythm", "threshold": 0.5}
    model = anyecg.load(folder, threads=1)
    config = {"kind": "record", "exclusive": False, "first_layer": 2, "temperature": 1.0, "shifts": [0.0]}
    write_head(folder, "fast", {**config, "labels": [label], "parent_sha256": model.checkpoint.sha256}, graph)
    monkeypatch.setattr(trees, "_part", lambda _a, _b, _c, split, *_: part(24 if split == "train" else 10))
    monkeypatch.setattr(trees, "prepare_databases", lambda *_: tmp_path)
    monkeypatch.setattr(trees, "load_noise", lambda *_: {})
    said = []
    settings = replace(SETTINGS, rounds=10, least_in_a_leaf=3)
    trees.add_trees(folder, "fast", settings, tmp_path, tmp_path / "splits.csv", said.append)
    head = open_head(folder, "fast")
    assert head.config["tree_weight"] > 0 and head.config["few_leads"]["tree_weight"] > 0
    assert head.config["few_leads"]["told"] == [True]
    assert head.config["measured"]["val"]["macro_auroc"] == 1.0
    assert any(line.startswith("val, II, unnamed: network") for line in said)
    for seed, fast in ((100, True), (101, False)):
        record = beats(fast, seed)
        for seen in (record, record.pick(("V3",))):
            (score,) = label_scores(model, head, model.tokenize(seen), find_beats(seen), prepared=seen)
            assert (score >= head.labels[0].threshold) == fast
    spoiled = {**head.config, "temperature": 50.0, "tree_weight": 0.0, "few_leads": {}}
    write_head(folder, "fast", spoiled, head.path.with_suffix(".onnx").read_bytes())
    trees.calibrate_anew(folder, "fast", tmp_path, tmp_path / "splits.csv", said.append)
    assert open_head(folder, "fast").config == head.config
    with pytest.raises(ValueError, match="no head with trees fast; allowed are diagnosis, rhythm"):
        calibrate_heads(folder, ["fast"], tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no head 'slow' to add trees to"):
        trees.add_trees(folder, "slow", SETTINGS, tmp_path, tmp_path)


def beats(fast, seed):
    """12 leads, 10 s at 300 Hz with narrow beats, 40 or 110 a minute. Synthetic: for mechanics, never for claims."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(3000) / 300
    period_s = 60 / (110 if fast else 40) * rng.uniform(0.95, 1.05)
    beat = np.exp(-((((time_s - rng.uniform(0.1, 0.5)) % period_s - 0.2) / 0.012) ** 2))
    signal = rng.uniform(0.6, 1.4, (12, 1)) * beat + rng.normal(0, 0.01, (12, 3000))
    return Record(signal.astype(np.float32), 300.0, all_leads(), id=f"r{seed}", source_fs=300.0)


def all_leads():
    from anyecg.leads import STANDARD_LEADS

    return STANDARD_LEADS


def part(n):
    """A part of a database: half the records have fast beats."""
    labels = (np.arange(n) % 2).astype(float)[:, None]
    records = [beats(i % 2 == 1, 1000 * n + i) for i in range(n)]
    return trees.Part(lambda: iter(records), labels, [str(i) for i in range(n)])
