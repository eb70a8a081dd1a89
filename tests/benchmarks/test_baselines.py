"""The supervised baselines and the two rows that use them: same records for all, honest scores, nothing lost."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

import rhythm
import statements
import superclasses
from baselines import boosting, ssl
from baselines.boosting import boosted_scores, filled, single_lead_features
from baselines.inception import InceptionTime
from baselines.mobilevit import MobileViT
from baselines.training import TrainSettings, Waves, fit_network, predict, random_crops, to_waves
from baselines.xresnet import XResNet
from scored import Fit, drawn, fit_all, kept_scores, mean_difference, mean_metric, shipped_head, shipped_logits

import anyecg
from anyecg.beats import find_beats
from anyecg.metrics import macro_auroc
from anyecg.models.encoder import Encoder
from anyecg.models.sizes import EncoderConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.record import Record
from anyecg.tasks.arrhythmia import label_scores
from anyecg.training.batches import Part
from anyecg.training.datasets import SUPERCLASSES

NETWORKS = {
    "inception": lambda leads, labels: InceptionTime(leads, labels, n_filters=4),
    "xresnet": lambda leads, labels: XResNet(leads, labels, depth=50),
    "mobilevit": MobileViT,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(n, seed=0, length=300):
    """Records whose label says how fast their first lead swings, the second is noise."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.float32)
    t = np.arange(length) / 100
    hz = np.where(labels == 1, 9.0, 3.0)[:, None]
    x = np.stack([np.sin(2 * np.pi * hz * t + rng.uniform(0, 6, (n, 1))), rng.normal(size=(n, length))], axis=1)
    return Waves(x.astype(np.float16), np.full(n, length), labels[:, None])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("n_leads", "n_samples"), [(12, 250), (1, 333)])
def test_networks_answer_any_leads_and_lengths(name, n_leads, n_samples):
    network = NETWORKS[name](n_leads, 5).eval()
    x = torch.randn(3, n_leads, 1, n_samples)
    with torch.no_grad():
        assert network(x).shape == (3, 5)
        assert torch.allclose(network(x)[1], network(x[1:2])[0], atol=1e-4)  # records do not see each other


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_what_is_there_to_learn(name):
    settings = TrainSettings(crop=150, epochs=8, batch_size=8, learning_rate=3e-3, validations=3)
    trained = fit_network(NETWORKS[name], made_up(40), made_up(16, seed=1), settings, macro_auroc)
    test = made_up(24, seed=2)
    assert macro_auroc(test.labels == 1, predict(trained, test)) > 0.9
    assert max(trained.history) > 0.9


def test_the_best_epoch_is_kept():
    scores = iter([0.2, 0.9, 0.3, 0.3])
    weights = []

    def score(labels, probabilities):
        weights.append(probabilities.copy())
        return next(scores)

    settings = TrainSettings(crop=100, epochs=4, batch_size=8, validations=4, validate_from=0.0)
    validation = made_up(8, seed=1)
    trained = fit_network(NETWORKS["inception"], made_up(16), validation, settings, score)
    again = 1 / (1 + np.exp(-predict(trained, validation, settings.crop)))
    assert np.allclose(again, weights[1], atol=1e-6)
    assert not np.allclose(again, weights[3], atol=1e-4)


def test_crops_lie_inside_the_record():
    waves = made_up(4)
    waves.x[:, :, 200:] = 99
    waves.length[:] = 200
    crops = random_crops(waves, np.arange(4), TrainSettings(crop=150, gain_spread=0.0), np.random.default_rng(0))
    assert crops.shape == (4, 2, 150)
    assert crops.max() < 10
    short = random_crops(waves, np.arange(4), TrainSettings(crop=280, gain_spread=0.0), np.random.default_rng(0))
    assert short[:, :, 200:].max() == 99  # the padding follows only where a record is shorter than a window


def test_waves_are_slowed_without_aliases():
    t = np.arange(3000) / 300
    low, high = np.sin(2 * np.pi * 5 * t), np.sin(2 * np.pi * 70 * t)
    waves = to_waves([low[None], high[None, :1500]], np.zeros((2, 1)))
    assert waves.x.shape == (2, 1, 1000)
    assert list(waves.length) == [1000, 500]
    assert waves.x[0, 0, 100:900].astype(float).std() == pytest.approx(0.707, abs=0.01)
    assert np.abs(waves.x[1, 0, 100:400].astype(float)).max() < 0.2  # 70 Hz would come out as 30
    assert (waves.x[1, 0, 500:] == 0).all()


def test_few_leads_leave_zeros_in_the_others():
    waves = made_up(3).only([1])
    assert (waves.x[:, 0] == 0).all()
    assert waves.x[:, 1].any()


def test_boosting_learns_and_bears_missing_features(monkeypatch):
    monkeypatch.setattr(boosting, "ROUNDS", 40)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    y = np.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] > 0.5], axis=1).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    parts = (x[:150], y[:150]), (x[150:220], y[150:220])
    validation, test = boosted_scores(*parts, [x[220:]])
    assert validation.shape == (70, 2)
    assert macro_auroc(y[220:] == 1, test) > 0.85
    train, rest = filled(x[:150], [x[150:]])
    assert np.isfinite(train).all()
    assert np.isfinite(rest).all()


def test_single_lead_features_tell_regular_from_irregular():
    rng = np.random.default_rng(0)

    def record(spread):
        peaks = np.cumsum(rng.uniform(0.8 - spread, 0.8 + spread, 40))
        t = np.arange(9000) / 300
        signal = sum(np.exp(-(((t - p) / 0.012) ** 2)) for p in peaks) + rng.normal(0, 0.01, 9000)
        return Record(signal[None].astype(np.float32), 300.0, ("ECG",), id="made up")

    steady = np.stack([single_lead_features(record(0.01)) for _ in range(3)])
    unsteady = np.stack([single_lead_features(record(0.3)) for _ in range(3)])
    assert steady.shape == unsteady.shape
    assert np.isfinite(steady).all()
    apart = np.abs(steady.mean(axis=0) - unsteady.mean(axis=0)) / (steady.std(axis=0) + unsteady.std(axis=0) + 1e-6)
    assert (apart > 5).sum() > 10


def test_few_labels_are_drawn_by_patient_and_stratified():
    rng = np.random.default_rng(0)
    labels = (rng.random((900, 5)) < [0.5, 0.25, 0.2, 0.2, 0.12]).astype(np.float32)
    patients = np.array([f"p{i // 2}" for i in range(900)])
    rows = drawn(labels, patients, 0.1, seed=0)
    assert 80 <= len(rows) <= 100
    assert not set(patients[rows]) & set(np.delete(patients, rows))  # whole patients
    assert np.abs(labels[rows].mean(axis=0) - labels.mean(axis=0)).max() < 0.08
    assert (rows == drawn(labels, patients, 0.1, seed=0)).all()
    assert set(rows) != set(drawn(labels, patients, 0.1, seed=1))
    few = drawn(labels, patients, 0.012, seed=3)
    assert ((labels[few].mean(axis=0) > 0) & (labels[few].mean(axis=0) < 1)).all()


def test_fits_are_kept_resumed_and_reported_when_stopped(tmp_path):
    plan = [Fit("a"), Fit("b", "1 %", draw=1), Fit("c")]
    asked = []

    def fitted(fit):
        asked.append(fit.line)
        if fit.line == "b" and asked.count("b") == 1:
            raise KeyboardInterrupt
        return {"test": np.full((2, 1), len(asked))}

    kept, missing = fit_all(plan, lambda fit: tmp_path, fitted, lambda line: None)
    assert [fit.line for fit in missing] == ["b", "c"]
    assert list(kept) == [Fit("a")]
    kept, missing = fit_all(plan, lambda fit: tmp_path, fitted, lambda line: None)
    assert asked == ["a", "b", "b", "c"]  # a was not fitted again
    assert not missing
    assert kept[Fit("a")]["test"][0, 0] == 1
    assert len({fit.file for fit in plan}) == 3
    assert not list(tmp_path.glob("*.partial*"))
    assert (kept_scores(tmp_path / Fit("a").file, dict)["test"] == 1).all()


def test_figures_are_means_over_fits():
    rng = np.random.default_rng(0)
    labels = rng.random((80, 1)) < 0.4
    good, bad = labels + rng.normal(0, 0.4, (80, 1)), rng.normal(size=(80, 1))
    patients = np.arange(80)
    reached, (low, high) = mean_metric(macro_auroc, labels, [good, bad], patients)
    assert reached == pytest.approx((macro_auroc(labels, good) + macro_auroc(labels, bad)) / 2)
    assert low < reached < high
    gap, (low, high) = mean_difference(macro_auroc, labels, [good], [bad], patients)
    assert gap == pytest.approx(macro_auroc(labels, good) - macro_auroc(labels, bad))
    assert 0 < low < gap < high


def test_statements_of_ludb_become_superclasses():
    header = "1 12 500\n#<age>: 5\n#<diagnoses>:\n#Rhythm: Sinus rhythm.\n#Electric axis of the heart: normal. \n"
    order = {name: i for i, name in enumerate(("NORM", "MI", "STTC", "CD", "HYP"))}
    normal = statements._ludb_superclasses(header)
    assert normal[order["NORM"]] == 1
    assert normal[order["CD"]] == normal[order["HYP"]] == 0
    assert np.isnan([normal[order["MI"]], normal[order["STTC"]]]).all()
    ill = statements._ludb_superclasses(header + "#Left anterior hemiblock. \n#Left atrial hypertrophy. \n")
    assert ill[order["NORM"]] == 0
    assert ill[order["CD"]] == ill[order["HYP"]] == 1
    fibrillating = statements._ludb_superclasses(header.replace("Sinus rhythm", "Atrial fibrillation"))
    assert fibrillating[order["NORM"]] == 0


@pytest.mark.data
def test_all_headers_of_ludb_can_be_read(database):
    headers = sorted((database("ludb") / "data").glob("*.hea"))
    found = np.array([statements._ludb_superclasses(path.read_text(errors="replace")) for path in headers])
    assert found.shape == (150, 5)
    normal, conduction, hypertrophy = found[:, 0], found[:, 3], found[:, 4]
    assert (normal.sum(), conduction.sum(), hypertrophy.sum()) == (20, 52, 106)
    assert not (normal * (conduction + hypertrophy)).any()


def test_a_shipped_head_is_asked_as_analyze_asks_it(dicom_file):
    model = anyecg.load("nano")
    head = shipped_head(model, SUPERCLASSES)
    assert head is not None
    assert shipped_head(model, ("no such label",)) is None
    record = model.prepare(anyecg.read(dicom_file))
    logits = shipped_logits(model, head, [record, record.pick(("II",))], SUPERCLASSES)
    scores = label_scores(model, head, model.tokenize(record), find_beats(record), prepared=record)
    wanted = [scores[[label.code for label in head.labels].index(code)] for code in SUPERCLASSES]
    assert 1 / (1 + np.exp(-logits[0])) == pytest.approx(wanted, abs=1e-6)
    found = {finding.code: finding.score for finding in anyecg.analyze(dicom_file, model).findings}
    assert 1 / (1 + np.exp(-logits[0])) == pytest.approx([found[code] for code in SUPERCLASSES], abs=0.02)
    one = shipped_logits(model, head, [record], SUPERCLASSES, leads=("II",))
    assert (one[0] == logits[1]).all() and not np.allclose(one[0], logits[0])


def test_offsets_raise_the_challenge_score():
    rng = np.random.default_rng(0)
    chosen = rng.choice(4, size=600, p=[0.6, 0.1, 0.25, 0.05])
    labels = np.eye(4)[chosen]
    logits = 1.5 * labels + rng.normal(size=(600, 4)) + np.array([2.0, 0, 0, 0])  # says N too often
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    offsets = rhythm.best_offsets(logs, labels)
    assert offsets[0] == 0
    assert rhythm.scored_f1(labels, logs + offsets) > rhythm.scored_f1(labels, logs) + 0.05
    perfect = np.log(labels + 1e-6)
    assert rhythm.scored_f1(labels, perfect) == 1
    assert (rhythm.best_offsets(perfect, labels) == 0).all()
    noise_only = np.eye(4)[[3, 3, 0, 1, 2]]
    missed = np.eye(4)[[0, 0, 0, 1, 2]]
    assert rhythm.scored_f1(noise_only, missed) == pytest.approx((0.5 + 1 + 1) / 3)  # noise taken for N costs N


def test_every_line_is_in_both_plans():
    model = anyecg.load("nano")
    plan = list(superclasses.plan(model))
    wanted = set(superclasses.CHEAP) | set(superclasses.NETWORKS) | {superclasses.LINEAR, superclasses.TUNED}
    assert wanted <= {fit.line for fit in plan}
    assert len(plan) == len(set(plan))
    for line in wanted:
        fractions = {fit.fraction for fit in plan if fit.line == line}
        assert fractions == set(superclasses.FRACTIONS)
    assert {*rhythm.NETWORKS, rhythm.LINEAR, rhythm.TUNED, rhythm.RAW_LINEAR, rhythm.BOOSTING, rhythm.MAJORITY} <= {
        f.line for f in rhythm.plan(model)
    }


# -- objectives ----------------------------------------------------------------------------------------------


def small_part(tokenizer, n=6):
    """Made-up windows of three leads, noisy and clean, as `BatchMaker` draws them."""
    rng = np.random.default_rng(0)
    t = np.arange(3000) / 300
    clean = np.stack([np.sin(2 * np.pi * (1 + i) * t + rng.uniform(0, 6, (3, 1))) for i in range(n)])
    shape = (n, 3, 20, 150)
    clean = clean.reshape(shape).astype(np.float32)
    noisy = clean + rng.normal(0, 0.1, shape).astype(np.float32)
    valid = np.ones(shape[:3], dtype=bool)
    valid[0, 2] = False
    nothing = np.full(n, np.nan, dtype=np.float32)
    lead_ids = np.tile(np.array([1, 2, 7]), (n, 1))
    return Part(
        *(noisy, clean, np.broadcast_to(valid[..., None], shape).copy(), valid, lead_ids),
        *(np.ones((n, 1, 3), dtype=np.float32), np.ones(n, dtype=bool), np.full(n, 500.0), *[nothing] * 3),
    )


@pytest.fixture
def small_networks():
    """A tokenizer and an encoder, untrained, of few numbers."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(width=32, n_heads=2, encoder_layers=1, decoder_layers=1, n_levels=2))
    encoder = Encoder(EncoderConfig(width=32, n_heads=2, n_layers=1), tokenizer.config, tokenizer.quantizer.codebooks)
    return tokenizer.eval().requires_grad_(False), encoder


@pytest.mark.parametrize("name", ssl.OBJECTIVES)
def test_each_objective_teaches_the_encoder(name, small_networks):
    tokenizer, encoder = small_networks
    objective = ssl.OBJECTIVES[name](encoder, tokenizer)
    part = small_part(tokenizer)
    losses = ssl.losses_of(objective, 0)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=6e-3)
    before = encoder.from_codes.weight.detach().clone()
    reached = []
    for _ in range(25):
        loss, _ = losses([part], 0)  # the same views each time: they can be learned by heart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reached.append(loss.item())
    assert np.mean(reached[-5:]) < 0.8 * np.mean(reached[:5])
    assert not torch.equal(before, encoder.from_codes.weight)
    assert not any(p.requires_grad for p in tokenizer.parameters())


def test_contrast_wants_partners_alike_and_others_not():
    torch.manual_seed(0)
    a = torch.randn(8, 16)
    matched, mixed = ssl.contrast(a, a), ssl.contrast(a, a.roll(1, dims=0))
    assert matched < 0.1 < 2 < mixed
    even = ssl.contrast(torch.ones(8, 16), torch.ones(8, 16))
    assert float(even) == pytest.approx(np.log(15), abs=1e-4)  # collapsed: any of the 15 others


def test_views_keep_something_of_every_window():
    rng = np.random.default_rng(0)
    valid = np.ones((50, 12, 20), dtype=bool)
    valid[0, 1:] = False
    valid[0, :, 3:] = False  # one lead, three fragments
    kept = [ssl.some_tokens(valid, rng) for _ in range(20)]
    assert all((k & valid).any(axis=(1, 2)).all() for k in kept)
    share = np.mean([(k & valid).sum() / valid.sum() for k in kept])
    assert 0.3 < share < 0.6  # half the leads, three quarters of the time


def test_byols_copy_follows_slowly(small_networks):
    tokenizer, encoder = small_networks
    objective = ssl.BYOL(encoder, tokenizer)
    with torch.no_grad():
        encoder.hidden_code += 1.0

    def gap():
        return (encoder.hidden_code - objective.slow_encoder.hidden_code).mean().item()

    before = gap()
    objective.follow(decay=0.9)
    assert gap() == pytest.approx(0.9 * before)


def test_mae_draws_nothing_from_what_is_hidden(small_networks, monkeypatch):
    tokenizer, encoder = small_networks
    part = small_part(tokenizer)
    objective = ssl.MAE(encoder, tokenizer).eval()
    seen = {}

    def draw(x, valid, inner=objective.decode.forward):
        seen["x"] = x.detach().clone()
        return inner(x, valid)

    monkeypatch.setattr(objective.decode, "forward", draw)
    with torch.no_grad():
        objective.losses([part], np.random.default_rng(1))
        first = seen["x"]
        hidden = part.valid & (np.random.default_rng(1).random(part.valid.shape) < ssl.HIDDEN_SHARE)
        part.noisy[hidden] = 0.0
        objective.losses([part], np.random.default_rng(1))
    at_hidden = torch.from_numpy(hidden)
    assert torch.equal(first[at_hidden], seen["x"][at_hidden])
