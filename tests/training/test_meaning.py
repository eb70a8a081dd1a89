"""What codes tell: marks on fragments, counts and information against cases whose answer is known."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from sklearn.metrics import adjusted_mutual_info_score, homogeneity_score, normalized_mutual_info_score
from typer.testing import CliRunner

from anyecg.cli import app
from anyecg.engine import load
from anyecg.leads import STANDARD_LEADS
from anyecg.models.export import load_networks
from anyecg.models.tokenizer import wavelet_analysis
from anyecg.training import card
from anyecg.training.codebook import band_shares, decoded_alone, first_level_only, make_atlas, rows_of_each, tally
from anyecg.training.datasets import Corpus, Entry, prepare_databases
from anyecg.training.marks import WAVES, Wave, beat_held, read_beats, read_waves, waves_held
from anyecg.training.meaning import (
    TOLD,
    Sample,
    Seen,
    adjusted_information,
    contingency,
    evaluate_meaning,
    exchanged_between,
    information,
    jackknife_interval,
    joined,
    labels_of,
    look,
    mean_recall,
    measured,
    shuffled_within,
)

# -- marks on fragments --------------------------------------------------------------------------------------


def test_waves_lie_on_the_fragments_they_overlap():
    waves = [
        Wave(0, 0.40, 0.44, 0.48),
        Wave(1, 0.52, 0.56, 0.61),
        Wave(2, 0.75, 0.90, 1.10),
        Wave(0, 1.40, 1.45, 1.515),
        Wave(1, 2.10, 2.20, 2.30),
    ]
    held = waves_held(waves, 6, 0.5)
    np.testing.assert_allclose(held.overlap_s[0], [0.08, 0, 0.1, 0.015, 0, 0], atol=1e-9)
    np.testing.assert_allclose(held.overlap_s[1], [0, 0.09, 0, 0, 0.2, 0], atol=1e-9)
    np.testing.assert_allclose(held.overlap_s[2], [0, 0.25, 0.1, 0, 0, 0], atol=1e-9)
    assert held.kinds_of_peaks().tolist() == [1, 2 + 4, 1, 0, 2, 0]
    # In fragment 3 the P wave reaches 15 ms: less than marks are exact.
    assert held.kind()[[0, 1, 3, 4]].tolist() == [0, 2, 3, 1]
    # Before 0.40 s and after 2.30 s nothing was marked: that is not known, rather than empty.
    assert held.known.tolist() == [False, True, True, True, False, False]


def test_a_lead_without_marks_is_not_known(tmp_path):
    assert read_waves(tmp_path / "1", "V9") == []
    assert not waves_held([], 4, 0.5).known.any()


def test_marks_are_read_as_wfdb_wrote_them(tmp_path):
    symbols = ["(", "p", ")", "(", "N", ")", "t", ")"]
    at = np.array([100, 120, 140, 200, 225, 250, 350, 400])
    wfdb.wrann("7", "avr", at, symbols, fs=500, write_dir=str(tmp_path))
    assert read_waves(tmp_path / "7", "aVR") == [
        Wave(0, 0.2, 0.24, 0.28),
        Wave(1, 0.4, 0.45, 0.5),
        Wave(2, 0.7, 0.7, 0.8),  # its beginning was not marked
    ]


def test_beats_are_read_into_the_five_classes(tmp_path):
    symbols = ["+", "N", "L", "A", "j", "V", "~", "F", "/", "Q"]
    wfdb.wrann("9", "atr", np.arange(1, 11) * 360, symbols, fs=360, write_dir=str(tmp_path))
    beats_s, classes = read_beats(tmp_path / "9")
    assert beats_s.tolist() == [2, 3, 4, 5, 6, 8, 9, 10]
    assert [TOLD["beat"][k] for k in classes] == ["N", "N", "S", "N", "V", "F", "Q", "Q"]


def test_of_two_beats_the_one_nearest_to_the_middle_counts():
    held = beat_held(np.array([0.05, 0.3, 1.45, 9.0]), np.array([0, 2, 1, 3]), 4, 0.5)
    assert held.tolist() == [2, -1, 1, -1]


# -- information ---------------------------------------------------------------------------------------------


def test_information_is_scikit_learns():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 3000)
    cluster = np.where(rng.random(3000) < 0.5, label * 3 + rng.integers(0, 3, 3000), rng.integers(0, 12, 3000))
    table = contingency(np.zeros(3000, int), cluster, label, 13, 4)[0]  # one cluster has no fragment
    nmi, told = information(table)
    assert nmi == pytest.approx(normalized_mutual_info_score(label, cluster), abs=1e-12)
    assert told == pytest.approx(homogeneity_score(label, cluster), abs=1e-12)
    assert adjusted_information(table) == pytest.approx(adjusted_mutual_info_score(label, cluster), abs=1e-9)
    assert 0.05 < nmi < 0.6


def test_information_at_its_ends():
    assert information(np.diag([5, 7, 9])) == pytest.approx((1, 1))
    assert information(np.outer([1, 2, 3], [4, 5])) == pytest.approx((0, 0), abs=1e-12)
    assert information(np.array([[3], [4]])) == (0.0, 0.0) and adjusted_information(np.array([[3], [4]])) == 0.0
    every_label_in_two_clusters = np.repeat(np.diag([5, 5]), 2, axis=0)
    assert information(every_label_in_two_clusters) == pytest.approx((2 / 3, 1))


def test_contingency_adds_up():
    table = contingency(np.array([0, 1, 1]), np.array([2, 0, 0]), np.array([1, 0, 0]), 3, 2)
    assert table.shape == (2, 3, 2)
    assert table[0].tolist() == [[0, 0], [0, 0], [0, 1]] and table[1].tolist() == [[2, 0], [0, 0], [0, 0]]


def test_jackknife_of_a_mean_is_students_interval():
    from scipy.stats import sem, t

    x = np.random.default_rng(0).integers(0, 100, 25)
    tables = np.stack([x, 100 - x], axis=1)[:, None, :]  # every patient has 100 fragments

    def mean(table: np.ndarray) -> float:
        return float(100 * table[0, 0] / table.sum())

    reach = t.ppf(0.975, 24) * sem(x)
    assert jackknife_interval(mean, tables) == pytest.approx([x.mean() - reach, x.mean() + reach], abs=1e-3)


def test_shuffles_keep_what_they_should():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(20), 50))
    values = 1000 * group + rng.integers(0, 50, 1000)
    shuffled = shuffled_within(group, values, rng)
    assert (shuffled // 1000 == group).all() and (shuffled != values).mean() > 0.8
    for k in range(20):
        assert sorted(shuffled[group == k]) == sorted(values[group == k])
    labels = np.arange(20)[group] % 3
    exchanged = exchanged_between(group, labels, rng)
    of_group = [set(exchanged[group == k].tolist()) for k in range(20)]
    assert all(len(found) == 1 for found in of_group)
    assert sorted(x for found in of_group for x in found) == sorted(k % 3 for k in range(20))
    assert (exchanged != labels).any()


def test_mean_recall_counts_each_label_alike():
    table = np.array([[90, 1], [10, 1], [0, 2]])
    read = np.array([0, 1, 1])
    assert mean_recall(table, read, np.array([True, True])) == pytest.approx((0.9 + 0.75) / 2)
    assert mean_recall(table, read, np.array([True, False])) == pytest.approx(0.9)


def made_up(n_patients: int, seed: int, patient_of: str = "p") -> Seen:
    """Return 200 fragments a patient: codes 0-3 are the beat class N, 4-7 V; in the first half also the rhythm."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 200)
    beat = rng.integers(0, 2, len(patient))
    hot = np.zeros((len(patient), len(TOLD["beat"])), dtype=np.int8)
    hot[np.arange(len(patient)), np.where(beat, TOLD["beat"].index("V"), 0)] = 1
    rhythm = np.zeros((len(patient), len(TOLD["rhythm"])), dtype=np.int8)
    rhythm[np.arange(len(patient)), patient % 2] = 1
    return Seen(
        codes=4 * beat + rng.integers(0, 4, len(patient)),
        samples=np.zeros((len(patient), 2), np.float32),
        decoded=None,
        lead=patient,
        record=np.array([f"r{k}" for k in patient]),
        patient=np.array([f"{patient_of}{k}" for k in patient]),
        labels={"beat": hot, "rhythm": rhythm},
    )


def test_codes_that_are_the_label_tell_it_all_and_random_clusters_nothing():
    train, test = made_up(6, 0), made_up(8, 1)
    rng = np.random.default_rng(2)
    clusters = {
        "train": {"codes": train.codes, "k-means": rng.integers(0, 8, len(train.codes))},
        "test": {"codes": test.codes, "k-means": rng.integers(0, 8, len(test.codes))},
    }
    found = measured("beat", train, test, clusters)
    codes, kmeans = found["clusters"]["codes"], found["clusters"]["k-means"]
    assert codes["told"] == 1.0 and codes["read_right"] == 1.0
    assert codes["nmi"] == pytest.approx(0.5, abs=0.01)  # 2 * 1 bit / (1 + 3 bits)
    assert codes["nmi_shuffled"] < 0.01 and kmeans["nmi"] < 0.01
    assert kmeans["read_right"] == pytest.approx(0.5, abs=0.1) and found["chance_read"] == 0.5
    assert kmeans["ami"] == pytest.approx(0, abs=0.01) and kmeans["ami"] < kmeans["nmi"]
    assert found["gain"]["ami"] == pytest.approx(codes["ami"] - kmeans["ami"], abs=1e-3)
    assert found["gain"]["interval"][0] > 0.4
    assert codes["interval"][0] <= codes["ami"] <= codes["interval"][1]
    assert (found["n_fragments"], found["n_patients"]) == (1600, 8)
    assert sum(share for share, _ in found["labels"].values()) == pytest.approx(1, abs=1e-3)


def test_what_the_record_alone_tells_stays_in_the_control():
    """Codes that only know the patient: shuffling in time takes nothing from them."""
    train, test = made_up(6, 0), made_up(8, 1)
    patient = np.array([int(name[1:]) for name in test.patient])
    hot = np.zeros_like(test.labels["beat"])
    hot[np.arange(len(patient)), patient % 2] = 1  # one class a patient
    test = replace(test, codes=patient, labels={"beat": hot})
    clusters = {split: {"codes": s.codes, "k-means": s.codes} for split, s in (("train", train), ("test", test))}
    codes = measured("beat", train, test, clusters)["clusters"]["codes"]
    assert codes["told"] == 1.0
    assert codes["nmi_shuffled"] == pytest.approx(codes["nmi"], abs=1e-3)


def test_rhythm_is_controlled_by_exchange_between_records():
    train, test = made_up(40, 0), made_up(40, 1)
    of_record = np.array([int(name[1:]) % 2 for name in test.record])
    test = replace(test, codes=of_record)
    clusters = {split: {"codes": s.codes, "k-means": s.codes} for split, s in (("train", train), ("test", test))}
    found = measured("rhythm", train, test, clusters)
    assert found["clusters"]["codes"]["nmi"] == pytest.approx(1.0)
    assert found["clusters"]["codes"]["nmi_shuffled"] < 0.2
    assert "~" not in found["labels"]


# -- counting ------------------------------------------------------------------------------------------------


def test_tally_counts_fragments_and_patients():
    hot = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [-1] * 4], dtype=np.int8)
    seen = replace(
        made_up(1, 0),
        codes=np.array([2, 2, 0, 2]),
        patient=np.array(["a", "a", "b", "c"]),
        labels={"rhythm": hot},
    )
    found = tally(seen, "rhythm", 4, "Rhythm", "")
    assert found.counts.tolist() == [[1, 0, 0, 0], [0] * 4, [1, 1, 0, 0], [0] * 4]
    assert found.known.tolist() == [1, 0, 2, 0] and found.patients.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(found.overall(), [2 / 3, 1 / 3, 0, 0])


def test_rows_of_each_finds_every_row_once():
    codes = np.random.default_rng(0).integers(0, 9, 500)
    codes = codes[codes != 4]
    found = dict(rows_of_each(codes))
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all((codes[rows] == code).all() for code, rows in found.items())
    assert sum(map(len, found.values())) == len(codes)


def test_joining_marks_what_a_part_was_not_told():
    a, b = made_up(1, 0), made_up(1, 1)
    both = joined([replace(a, labels={"beat": a.labels["beat"]}), replace(b, labels={"rhythm": b.labels["rhythm"]})])
    assert (both.labels["rhythm"][:200] == -1).all() and (both.labels["rhythm"][200:] >= 0).all()
    assert (both.labels["beat"][200:] == -1).all() and both.decoded is None


# -- the tokenizer's side ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return load_networks(tiny_checkpoint)[0]


def test_band_shares_find_a_tones_band(tokenizer):
    matrix, lower_hz = wavelet_analysis(tokenizer.config)
    time_s = np.arange(150) / 300
    tones = np.stack([np.sin(2 * np.pi * hz * time_s) for hz in (3, 25, 55)] + [np.zeros(150)]).astype(np.float32)
    shares = band_shares(tones, matrix, lower_hz)
    assert np.unique(lower_hz).tolist() == [0.0, 18.75, 37.5]
    assert shares[:3].argmax(axis=1).tolist() == [0, 1, 2] and (shares[:3].max(axis=1) > 0.75).all()
    np.testing.assert_allclose(shares.sum(axis=1), [1, 1, 1, 0], atol=1e-6)


def test_a_code_alone_is_decoded_without_residual_levels(tokenizer):
    config = tokenizer.config
    first = first_level_only(tokenizer)
    assert tokenizer.quantizer.codebooks[1].abs().sum() > 0  # the original is as it was
    codes = torch.randint(config.codebook_size, (1, 2, 5, config.n_levels))
    other = codes.clone()
    other[..., 1:] = (other[..., 1:] + 1) % config.codebook_size
    valid, ids = torch.ones(1, 2, 5, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(first.decode(codes, valid, ids), first.decode(other, valid, ids))
        assert not torch.equal(tokenizer.decode(codes, valid, ids), tokenizer.decode(other, valid, ids))
    alone = decoded_alone(tokenizer)
    assert alone.shape == (config.codebook_size, len(config.lead_names), config.fragment_samples)
    assert np.isfinite(alone).all() and np.abs(alone[0] - alone[1]).max() > 1e-3


# -- whole way, on a made-up database of three --------------------------------------------------------------

R_PEAKS_S = np.arange(0.25, 9.8, 0.8)  # none within 50 ms of a border between fragments


@pytest.fixture(scope="module")
def made_up_data(tmp_path_factory) -> tuple[Path, Path]:
    """Return (data, prepared): three databases, three train and three test records each, with marks at known places."""
    data, prepared = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    time_s = np.arange(3000) / 300
    beat = sum(np.exp(-(((time_s - r) / 0.012) ** 2)) for r in R_PEAKS_S)
    for name, leads in (("ludb", ("II", "aVF")), ("mitdb", ("MLII",)), ("cinc2017", ("ECG",))):
        (data / name).mkdir()
        entries, offset = [], 0
        with open(prepared / f"{name}.f16", "wb") as file:
            for k in range(6):
                signal = beat + rng.normal(0, 0.05, (len(leads), 3000))
                signal.astype(np.float16).tofile(file)
                split = "train" if k % 2 else "test"
                labels = [["N", "A"][k // 2 % 2]] if name == "cinc2017" else []
                entries.append(
                    Entry(name, str(k), f"{name}/{k}", split, list(leads), 3000, 360.0, offset, labels=labels)
                )
                offset += signal.size
                if name == "ludb":
                    at = np.concatenate([[r - 0.04, r, r + 0.04, r + 0.2, r + 0.25, r + 0.3] for r in R_PEAKS_S])
                    for lead in leads:
                        marks = ["(", "N", ")", "(", "t", ")"] * len(R_PEAKS_S)
                        wfdb.wrann(
                            str(k), lead.lower(), (at * 500).astype(int), marks, fs=500, write_dir=str(data / name)
                        )
                if name == "mitdb":
                    symbols = ["NV"[i % 2] for i in range(len(R_PEAKS_S))]
                    wfdb.wrann(
                        str(k), "atr", (R_PEAKS_S * 360).astype(int), symbols, fs=360, write_dir=str(data / name)
                    )
        (prepared / f"{name}.json").write_text(json.dumps([asdict(entry) for entry in entries]))
    return data, prepared


def test_evaluation_on_a_made_up_database(tiny_checkpoint, made_up_data):
    data, prepared = made_up_data
    found = evaluate_meaning(load(tiny_checkpoint, threads=1), prepared, data, lambda line: None)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found and set(found["tasks"]) == {"wave", "peaks", "beat", "rhythm"}
    assert 1 <= found["n_clusters"] <= 16
    beat = found["tasks"]["beat"]
    assert beat["n_fragments"] == 3 * 12 and beat["n_patients"] == 3  # each R peak lies in a fragment of its own
    assert {label: n for label, (_, n) in beat["labels"].items() if n} == {"N": 18, "V": 18}
    assert found["tasks"]["rhythm"]["n_fragments"] == 3 * 20
    wave = found["tasks"]["wave"]["labels"]
    assert wave["P"][1] == 0 and wave["QRS"][1] > 0 and wave["T"][1] > 0
    printed = card.tables("meaning", found)
    assert "| beat | codes |" in printed and "k-means" in printed and "N 50.0 % (18)" in printed


def test_a_missing_database_is_named(tiny_checkpoint, made_up_data, tmp_path):
    from anyecg.errors import ReadError

    data, _ = made_up_data
    with pytest.raises(ReadError, match="no train records found, expected some"):
        evaluate_meaning(load(tiny_checkpoint, threads=1), tmp_path, data, lambda line: None)
    with pytest.raises(ReadError, match="none of"):
        make_atlas(load(tiny_checkpoint, threads=1), tmp_path, data, lambda line: None)


def test_atlas_of_a_made_up_database(tiny_checkpoint, made_up_data):
    data, prepared = made_up_data
    atlas = make_atlas(load(tiny_checkpoint, threads=1), prepared, data, lambda line: None)
    assert atlas.counts.sum() == 3 * 20 * (2 + 1 + 1)  # train records only
    tallies = {t.title: t for t in atlas.tallies}
    assert set(tallies) == {"Waves", "Beat class", "Rhythm"}
    assert tallies["Beat class"].counts.sum(axis=0).tolist() == [18, 0, 18, 0, 0]
    used = atlas.in_order()
    np.testing.assert_allclose(atlas.bands[used].sum(axis=1), 1, atol=1e-5)
    assert (atlas.low <= atlas.typical).all() and (atlas.typical <= atlas.high).all()
    assert np.abs(atlas.decoded[used]).max() > 0


def test_the_marked_r_peaks_lie_on_the_signals(tiny_checkpoint, made_up_data):
    data, prepared = made_up_data
    model = load(tiny_checkpoint, threads=1)
    seen = look(model, Corpus(prepared, "train", ("ludb",)), data, Sample(9, 10.0))
    known = seen.labels["overlap"][:, 0] >= 0
    beat = seen.labels["overlap"][:, 0] == 1
    height = seen.samples.max(axis=1)
    assert height[beat].min() > 3 * height[known & ~beat].max()


def test_labels_of_a_record_without_superclass_are_not_known(tiny_checkpoint, some_record):
    tokens = load(tiny_checkpoint, threads=1).tokenize(some_record)
    entry = Entry("ptb-xl", "x", "p", "train", ["II"], 1, 500.0, age=64.0, sex="female")
    found = labels_of(Path(), entry, tokens)
    assert (found["diagnosis"] == -1).all()
    assert found["age"][0, 0].tolist() == [0, 0, 1, 0] and found["sex"][0, 0].tolist() == [1, 0]
    known = labels_of(Path(), replace(entry, labels=["MI", "STTC"], age=None), tokens)
    assert known["diagnosis"][0, 0].tolist() == [0, 1, 1, 0, 0] and (known["age"] == -1).all()


def test_the_verb_writes_a_page_and_replaces_none(tiny_checkpoint, tmp_path):
    page = tmp_path / "codebook.html"
    arguments = ["codebook", str(tiny_checkpoint), "-o", str(page)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "16 codes" in done.output
    html = page.read_text()
    assert html.count("<article") == 16 and "Decoded alone" in html
    page.write_text("mine")
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1 and "--force" in refused.output and page.read_text() == "mine"
    assert CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "codebook.pdf")]).exit_code == 2


@pytest.mark.data
def test_the_real_marks_lie_on_the_real_signals(database, tiny_checkpoint, tmp_path):
    """LUDB, six patients: fragments marked with a QRS peak are steeper than those marked without any wave."""
    source = database("ludb")
    (tmp_path / "ludb").symlink_to(source, target_is_directory=True)
    with open(tmp_path / "splits.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["database", "record", "patient_id", "split", "strat_fold"])
        rows.writerows(["ludb", f"data/{header.stem}", header.stem, "train", ""] for header in _headers(source)[:6])
    model = load(tiny_checkpoint, threads=1)
    folder = prepare_databases(tmp_path, tmp_path / "splits.csv", model.checkpoint.preparation, lambda line: None)
    corpus = Corpus(folder, "train", ("ludb",))
    assert tuple(corpus.entries[0].leads) == STANDARD_LEADS
    seen = look(model, corpus, tmp_path, Sample(6, 10.0))
    overlap = seen.labels["overlap"]
    known = overlap[:, 0] >= 0
    assert 0.5 < known.mean() < 0.95  # the first and last beats are not marked
    steepest = np.abs(np.diff(seen.samples, axis=1)).max(axis=1)
    beat, nothing = overlap[:, 0] == 1, known & (overlap.max(axis=1) == 0)
    assert beat.sum() > 300 and nothing.sum() > 30
    assert np.median(steepest[beat]) > 4 * np.median(steepest[nothing])
    share = overlap[known].mean(axis=0)
    assert dict(zip(("beat", *WAVES), share > 0.2, strict=True)) == {"beat": True, "P": True, "QRS": True, "T": True}


def _headers(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("*.hea"))
