"""Training and measuring the rhythm head: reading marks, drawing crops, learning, counting episodes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anyecg.heads import open_head, write_head
from anyecg.record import Annotation
from anyecg.tasks.rhythm import HEAD, NETWORK_REACH_BEATS
from anyecg.training.beat_series import BeatSeries, load_series, read_marks, read_series
from anyecg.training.rhythm import (
    SEEN,
    Calibrated,
    Crops,
    RhythmSettings,
    RRNetwork,
    Together,
    balanced_accuracy,
    choose,
    choose_temperature,
    disturbed,
    episode_counts,
    graph_of,
    halves,
    left_out_probabilities,
    logits_of,
    merits,
    overlap_s,
    seconds_agreed,
    series_loss,
    train_head,
    train_network,
    train_together,
)


def made_up(seed: int, n_each: int = 400) -> BeatSeries:
    """Regular, irregular, regular; a stretch of flutter at the end that nobody is to learn from."""
    rng = np.random.default_rng(seed)
    rr_s = [rng.normal(0.85, 0.02, n_each), rng.uniform(0.4, 1.2, n_each), rng.normal(0.7, 0.02, n_each)]
    beats_s = np.cumsum(np.concatenate([*rr_s, np.full(100, 0.4)]))
    edges_s = [0.0, *beats_s[[n_each, 2 * n_each, 3 * n_each]].tolist(), float(beats_s[-1])]
    codes = ("N", "AFIB", "SBR", "AFL")
    marks = tuple(Annotation(a, b, "rhythm", c) for a, b, c in zip(edges_s, edges_s[1:], codes, strict=False))
    return BeatSeries("made up", str(seed), f"made up/{seed}", beats_s, np.full(len(beats_s), "N"), marks)


def write_record(folder: Path, name: str, samples: list[int], symbols: list[str], notes: list[str]) -> None:
    import wfdb

    wfdb.wrann(name, "atr", np.array(samples), symbols, aux_note=notes, fs=128, write_dir=str(folder))
    (folder / f"{name}.hea").write_text(f"{name} 2 128 100000\n{name}.dat 212\n{name}.dat 212\n")


def test_marks_are_read_as_wfdb_reads_them(tmp_path: Path) -> None:
    import wfdb

    rng = np.random.default_rng(0)
    steps = rng.choice([1, 100, 1023, 1024, 5000, 200_000, 5_000_000], 3000)  # over 1023 a SKIP is needed
    symbols = rng.choice(list("NVA~+|"), 3000).tolist()
    texts = ["(AFIB", "(N\x00", "x" * 255, "odd", chr(0xEC) + chr(0xFC) * 3]  # the last looks like SKIP and AUX
    notes = [str(rng.choice(texts)) if s == "+" else "" for s in symbols]
    write_record(tmp_path, "some", np.cumsum(steps).tolist(), symbols, notes)
    expected = wfdb.rdann(str(tmp_path / "some"), "atr")
    samples, types, found = read_marks((tmp_path / "some.atr").read_bytes())
    with_note = [i for i in range(len(types)) if i in found and types[i] != 22]
    offset = len(types) - len(symbols)  # wrann may put the rate before all
    np.testing.assert_array_equal(samples[offset:], expected.sample[-3000:])
    assert [s == "+" for s in symbols] == (types[offset:] == 28).tolist()
    assert {i - offset: found[i] for i in with_note} == {i: note.strip("\x00 ") for i, note in enumerate(notes) if note}


def test_a_series_knows_its_rhythm_at_any_time(tmp_path: Path) -> None:
    samples, symbols = [10, 20, 128, 256, 384, 500, 640, 700], ["N", "+", "N", "V", "+", "A", "~", "N"]
    write_record(tmp_path, "one", samples, symbols, ["", "(N", "", "", "(AFIB", "", "", ""])
    one = read_series(tmp_path / "one", "made up", "p")
    np.testing.assert_allclose(one.beats_s, np.array([10, 128, 256, 500, 700]) / 128)
    assert "".join(one.classes) == "NNVSN"
    assert [(m.code, m.start_s, m.end_s) for m in one.marks] == [("N", 20 / 128, 3.0), ("AFIB", 3.0, 700 / 128)]
    assert one.labels().tolist() == [-1, 0, 0, 1, 1]  # nothing is known before the first mark
    assert one.labels(np.array([2.99, 3.0])).tolist() == [0, 1]


def test_a_normal_day_without_marks_is_normal(tmp_path: Path) -> None:
    write_record(tmp_path, "one", [10, 128, 256], ["N", "N", "V"], ["", "", ""])
    assert read_series(tmp_path / "one", "d", "p").labels().tolist() == [-1, -1, -1]
    assert read_series(tmp_path / "one", "d", "p", unmarked="N").labels().tolist() == [0, 0, 0]


@pytest.mark.parametrize("n_seen", SEEN)
def test_a_network_reaches_as_far_as_it_says_and_sees_so_many_features(n_seen: int) -> None:
    torch.manual_seed(0)
    network = RRNetwork(n_seen).eval()
    features = torch.randn(1, 5, 1200, requires_grad=True)
    network(features)[0, 600].backward()
    assert features.grad is not None
    assert np.flatnonzero(features.grad.abs().sum(dim=(0, 2)).numpy()).tolist() == list(range(n_seen))
    moved = np.flatnonzero(features.grad.abs().sum(dim=(0, 1)).numpy())
    assert (moved[0], moved[-1]) == (600 - NETWORK_REACH_BEATS, 600 + NETWORK_REACH_BEATS)
    assert sum(p.numel() for p in network.parameters()) < 100_000


def test_crops_show_both_rhythms_and_hide_what_is_unknown() -> None:
    crops = Crops([made_up(0), made_up(1)], seed=0)
    features, labels = crops.batch(20)
    assert features.shape == (20, 5, 1024) and labels.shape == (20, 1024)
    assert all((row == k % 2).any() for k, row in enumerate(labels))
    outside = labels == -1
    assert outside.any() and not features[:, 3][outside].all()
    again = Crops([made_up(0), made_up(1)], seed=0).batch(20)
    torch.testing.assert_close(again[0], features)


def test_crops_of_patients_without_fibrillation_are_drawn_all_the_same() -> None:
    one = made_up(0)
    calm = BeatSeries("d", "r", "p", one.beats_s[:400], one.classes[:400], one.marks[:1])
    assert not (Crops([calm], seed=0).batch(4)[1] == 1).any()


def test_disturbed_beats_are_missed_invented_and_moved() -> None:
    beats_s = np.arange(2000) * 0.8
    counts, moved = [], []
    for seed in range(30):
        noisy = disturbed(beats_s, np.random.default_rng(seed))
        assert (np.diff(noisy) > 0.1).all()
        nearest = np.abs(noisy[:, None] - beats_s[np.clip(np.round(noisy / 0.8).astype(int), 0, 1999)][:, None])
        counts.append(len(noisy))
        moved.append(float(np.median(nearest)))
    assert min(counts) < 1980 < max(counts) and 0 < np.mean(moved) < 0.01


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    train, val = [made_up(k) for k in range(3)], [made_up(9)]
    settings = RhythmSettings(steps=60, batch_size=2, check_every=20, learning_rate=1e-2)
    before = series_loss([logits_of(RRNetwork(), val[0])], val, 1.0)
    lines: list[str] = []
    whole = train_network(train, val, settings, progress=lines.append)
    logits = [logits_of(whole, val[0])]
    assert series_loss(logits, val, 1.0) < 0.5 * before and len(lines) == 3

    class Interrupted(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("step 40"):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_network(train, val, settings, tmp_path / "state.pt", stop)
    resumed = train_network(train, val, settings, tmp_path / "state.pt", lines.append)
    np.testing.assert_allclose(logits_of(resumed, val[0]), logits[0], atol=1e-4)


def test_networks_answer_together_and_go_on_apart(tmp_path: Path) -> None:
    train, val = [made_up(k) for k in range(2)], [made_up(9)]
    settings, lines = RhythmSettings(steps=4, batch_size=2, check_every=2), list[str]()
    both = train_together(train, val, settings, tmp_path / "state.pt", lines.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-of-4.pt", "state-of-5.pt"]
    each = [logits_of(network, val[0]) for network in both.networks]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(logits_of(both, val[0]), (each[0] + each[1]) / 2, atol=1e-5)
    again = train_together(train, val, settings, tmp_path / "state.pt", lines.append)
    np.testing.assert_array_equal(logits_of(again, val[0]), logits_of(both, val[0]))
    assert sum(line.startswith("step") for line in lines) == 4  # nothing was left to do the second time


def test_the_graph_answers_as_the_networks_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Calibrated(Together([RRNetwork(n_seen) for n_seen in SEEN]), 1.3)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
    network.eval()
    path = write_head(tmp_path, HEAD, {"kind": "rhythm", "labels": [], "n_features": 5}, graph_of(network))
    head = open_head(tmp_path, path.stem)
    assert head is not None
    for n_beats in (2, 700, 1500):
        features = torch.randn(1, 5, n_beats)
        with torch.inference_mode():
            wanted = network(features).numpy()
        np.testing.assert_allclose(head.run(features=features.numpy())[0], wanted, atol=1e-5)


def test_a_temperature_undoes_confidence() -> None:
    one = made_up(0)
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, len(one.beats_s))
    labels = rng.random(len(honest)) < 1 / (1 + np.exp(-honest))
    marks = tuple(
        Annotation(t, u, "rhythm", "AFIB" if label else "N")
        for t, u, label in zip(one.beats_s, [*one.beats_s[1:], np.inf], labels, strict=True)
    )
    series = [BeatSeries("d", "r", "p", one.beats_s, one.classes, marks)]
    assert choose_temperature([3 * honest], series) == pytest.approx(3, rel=0.2)


def test_the_threshold_is_chosen_for_the_episodes_it_makes() -> None:
    series = [made_up(k) for k in range(3)]
    scores = [np.where(one.labels() == 1, 0.35, 0.25) for one in series]
    found = merits(scores, series, [0.2, 0.3, 0.4])
    assert choose(found).threshold == 0.3 and max(found.values()) > 0.99
    for score in scores:  # short false alarms cost little time, but they are episodes
        for start in range(20, 380, 60):
            score[start : start + 45] = 0.31
        score[450:750] = 0.41
    assert choose(merits(scores, series, [0.3, 0.4])).threshold == 0.4


def test_evidence_is_asked_where_it_tells_fibrillation_from_premature_beats() -> None:
    def with_premature_beats(seed: int) -> BeatSeries:
        one = made_up(seed)
        rr_s = np.diff(one.beats_s)
        for start in (20, 120, 220, 820, 920, 1020):  # 60 beats, every third a premature one
            rr_s[start : start + 60] = np.tile([0.8, 0.5, 1.1], 20)
        beats_s = np.concatenate(([one.beats_s[0]], one.beats_s[0] + np.cumsum(rr_s)))
        edges_s = np.interp(one.spans_s, one.beats_s, beats_s)
        marks = tuple(Annotation(a, b, "rhythm", m.code) for (a, b), m in zip(edges_s, one.marks, strict=True))
        return BeatSeries("made up", str(seed), f"made up/{seed}", beats_s, one.classes, marks)

    series = [with_premature_beats(k) for k in range(2)]
    scores = []
    for one in series:
        score = np.where(one.labels() == 1, 0.8, 0.1)
        for start in (20, 120, 220, 820, 920, 1020):
            score[start : start + 60] = 0.8
        scores.append(score)
    alone = merits(scores, series, [0.5])
    assert max(alone.values()) < 0.8 and choose(alone).least_evidence == -np.inf
    found = merits(scores, series, [0.5], by_evidence=True)
    rule = choose(found)
    assert found[rule] > 0.98 and np.isfinite(rule.least_evidence) and rule.log_odds_weight > 0


def test_patients_left_out_choose_among_the_equals_of_val() -> None:
    of_val = {"a": 0.990, "b": 0.994, "c": 0.9935, "d": 0.8}
    assert choose(of_val) == "b"
    assert choose(of_val, {"a": 0.7, "b": 0.6, "c": 0.65, "d": 0.9}) == "a"


def test_halves_part_patients_of_every_database() -> None:
    def one_of(database: str, patient: str, record: str) -> BeatSeries:
        return BeatSeries(database, record, patient, np.arange(3.0), np.full(3, "N"), ())

    series = [one_of("a", f"a/{k // 2}", str(k)) for k in range(8)] + [one_of("b", f"b/{k}", str(k)) for k in range(2)]
    half = halves(series)
    assert (half[0:8:2] == half[1:8:2]).all()  # both records of a patient
    assert half[:8].sum() == 4 and half[8:].sum() == 1
    np.testing.assert_array_equal(halves(series[::-1])[::-1], half)  # whatever their order


def test_a_patient_is_scored_by_a_network_that_never_saw_him(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    series, val = [made_up(k) for k in range(4)], [made_up(9)]

    def watched(train: list[BeatSeries], *rest: object) -> RRNetwork:
        seen.append({one.patient for one in train})
        torch.manual_seed(len(seen))
        return RRNetwork().eval()

    monkeypatch.setattr("anyecg.training.rhythm.train_together", watched)
    found = left_out_probabilities(series, val, RhythmSettings(), None, lambda line: None)
    assert [len(patients) for patients in seen] == [2, 2] and not seen[0] & seen[1]
    for number, one in enumerate(series):
        (which,) = (k for k in range(2) if one.patient not in seen[k])
        torch.manual_seed(which + 1)
        said = logits_of(RRNetwork().eval(), one)
        assert found[number].shape == one.beats_s.shape
        assert np.corrcoef(np.log(found[number] / (1 - found[number])), said)[0, 1] > 0.999


def test_seconds_agreed_by_hand() -> None:
    marks = [("N", 0, 100), ("AFIB", 100, 200), ("AFL", 200, 250), ("N", 250, 400)]
    one = BeatSeries("", "", "", np.empty(0), np.empty(0), tuple(Annotation(a, b, "rhythm", c) for c, a, b in marks))
    found = np.array([[150.0, 230.0], [300.0, 310.0]])
    assert seconds_agreed(one, found) == {"tp": 50, "fp": 10, "fn": 50, "tn": 240}  # flutter is not counted
    assert overlap_s(found, np.array([[0.0, 160.0], [305.0, 900.0]])) == pytest.approx(15)
    each = [{"tp": 1.0, "fn": 1.0, "tn": 0.0, "fp": 0.0}, {"tp": 0.0, "fn": 0.0, "tn": 3.0, "fp": 1.0}]
    assert balanced_accuracy(each) == pytest.approx((0.5 + 0.75) / 2)


def test_episodes_are_counted_by_overlap() -> None:
    true = np.array([[0.0, 100.0], [200.0, 300.0], [400.0, 500.0]])
    short = np.array([[600.0, 610.0]])
    found = np.array([[90.0, 210.0], [240.0, 310.0], [605.0, 640.0], [800.0, 900.0]])
    every = np.concatenate([true, short])
    assert episode_counts(true, every, found) == {"true": 3, "true_hit": 2, "found": 4, "found_hit": 3}
    assert episode_counts(true, every, found, 0.5) == {"true": 3, "true_hit": 1, "found": 4, "found_hit": 1}
    assert episode_counts(true, every, np.empty((0, 2)))["true_hit"] == 0


@pytest.mark.data
def test_real_days_are_read(database: Callable[[str], Path]) -> None:
    folder = database("nsrdb")
    one = read_series(folder / "16265", "d", "p", unmarked="N")
    import wfdb

    expected = wfdb.rdann(str(folder / "16265"), "atr")
    beats = np.isin(expected.symbol, list("NLRBAaJSVrFejnE/fQ?"))
    np.testing.assert_allclose(one.beats_s, expected.sample[beats] / 128)
    assert len(one.marks) == 1


@pytest.mark.data
def test_a_head_is_trained_chosen_and_written(
    database: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyecg.tasks.rhythm import EpisodeRule, af_probability

    folder = database("mitdb")
    splits = tmp_path / "splits.csv"
    rows = [("203", "train"), ("101", "train"), ("219", "val"), ("103", "val"), ("100", "test")]
    lines = [f"mitdb,{record},{record},{split}," for record, split in rows]
    splits.write_text("\n".join(["database,record,patient_id,split,strat_fold", *lines]) + "\n")
    assert [one.record for one in load_series(folder.parent, splits, "val", ("mitdb",))] == ["103", "219"]
    settings = RhythmSettings(steps=6, batch_size=2, check_every=3)
    train_head(folder.parent, splits, tmp_path, settings, progress=lambda line: None)
    head = open_head(tmp_path, HEAD)
    assert head is not None and head.config["n_train_records"] == 2 and head.config["n_val_records"] == 2
    assert head.config["n_features"] == 5
    rule = EpisodeRule.of(head)
    assert rule.threshold == head.labels[0].threshold and rule.join_s == head.config["join_s"]
    assert head.config["evidence"] or rule.least_evidence == -np.inf
    probability = af_probability(head, np.arange(100) * 0.8)
    assert probability.shape == (100,) and ((probability > 0) & (probability < 1)).all()
