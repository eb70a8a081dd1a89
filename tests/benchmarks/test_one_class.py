"""The row ``anomaly`` and what it shares with ``restoration``: who counts as normal elsewhere, who learns how long."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

import anomaly
import restoration
from baselines import one_class, unet

from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.training.datasets import Entry
from anyecg.training.restoring import ALONE, WITH_GUESS


@pytest.mark.parametrize(
    ("codes", "strictly", "loosely"),
    [
        ("426783006", True, True),
        ("Normal", True, True),
        ("426783006,427393009", False, True),
        ("426177001", False, True),
        ("426783006,164934002", False, False),
        ("164889003", False, False),
    ],
)
def test_variants_of_sinus_rhythm_are_normal_where_asked_for(tmp_path, codes, strictly, loosely):
    header = tmp_path / "a.hea"
    header.write_text(f"a 12 500 5000\n# Age: 60\n# Dx: {codes}\n")
    assert anomaly._cinc2021_normal(header, variants=False) is strictly
    assert anomaly._cinc2021_normal(header, variants=True) is loosely


@pytest.mark.parametrize(
    ("said", "strictly", "loosely"),
    [
        ("Rhythm: Sinus rhythm.\n#Electric axis of the heart: normal.", True, True),
        ("Rhythm: Sinus bradycardia.\n#Electric axis of the heart: vertical.", False, True),
        ("Rhythm: Sinus rhythm.\n#Electric axis of the heart: left axis deviation.", False, False),
        ("Rhythm: Sinus tachycardia.\n#Left ventricular hypertrophy.", False, False),
        ("Rhythm: Atrial fibrillation.\n#Electric axis of the heart: normal.", False, False),
    ],
)
def test_the_same_goes_for_diagnoses_in_words(tmp_path, said, strictly, loosely):
    header = tmp_path / "1.hea"
    header.write_text(f"1 12 500 5000\n#<age>: 51\n#<diagnoses>:\n#{said}\n")
    assert anomaly._ludb_normal(header, variants=False) is strictly
    assert anomaly._ludb_normal(header, variants=True) is loosely


def test_features_of_other_records_are_not_taken_for_these(tmp_path, monkeypatch):
    class Made:
        def __init__(self, prepared, split, databases):
            self.split = split

        def record(self, entry, fs_hz):
            height = {"train": 1.0, "test": 2.0}[self.split]
            lead = height * np.exp(-0.5 * (((np.arange(3000) / fs_hz) % 0.8 - 0.4) / 0.01) ** 2)
            return Record(np.tile(lead, (12, 1)), fs_hz, STANDARD_LEADS, source_fs=500.0)

    class Model:
        class checkpoint:  # noqa: N801
            class grid:  # noqa: N801
                fs_hz = 300.0

    monkeypatch.setattr(one_class, "Corpus", Made)
    entries = [Entry("db", s, s, s, ["I"], 3000, 500.0) for s in ("test", "train")]
    found = [
        one_class._features(Model, tmp_path, "here", some, ("II",), tmp_path, lambda _: None)
        for some in (entries, entries[:1], entries[:1])
    ]
    assert [len(x) for x in found] == [2, 1, 1]
    r = one_class.FEATURE_NAMES.index("II_r")
    assert found[0][0, r] == pytest.approx(2 * found[0][1, r], rel=0.05)  # each from the corpus of its own split
    np.testing.assert_array_equal(found[1], found[2])


def test_the_longer_u_net_sees_other_batches_by_our_heads_schedule(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(unet, "fit_alone", lambda network, signals, folder, stage: seen.append((signals, stage)))
    blocks = np.arange(40, dtype=np.float16)
    unet.fit_unet(blocks, tmp_path)
    unet.fit_longer(None, blocks, tmp_path)
    (first, alone), (then, longer) = seen
    assert (alone, longer) == (ALONE, WITH_GUESS)
    drawn = [set(x[np.random.default_rng((1, 0)).choice(40, 16, replace=False)]) for x in (first, then)]
    assert drawn[0] != drawn[1]
    assert sorted(then) == sorted(first)


def test_both_u_nets_are_compared_with_ours():
    rng = np.random.default_rng(0)
    scores = {}
    for level, name in enumerate((restoration.REGRESSION, restoration.UNET, restoration.LONGER, restoration.OURS)):
        one = 0.1 * level + rng.uniform(0, 0.01, (30, 6))
        scores[name] = restoration.Scores(*(one for _ in range(6)))
    found = restoration.summarise(scores, [str(i) for i in range(30)])[restoration.OURS]
    assert found["r_above_unet"][0] == pytest.approx(0.2, abs=0.01)
    assert found["r_above_longer"][0] == pytest.approx(0.1, abs=0.01)
