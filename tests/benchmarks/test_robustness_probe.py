"""The robustness probe: each condition changes a record as it says, and a change is measured against the clean one."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

import robustness_probe as row

ENTRY = SimpleNamespace(record="records500/00000/00009_hr")


def spikes(fs):
    """Ten seconds of twelve leads, one narrow wave every 0.8 s."""
    phase = np.arange(10 * fs) / fs % 0.8
    beat = np.exp(-(((phase - 0.4) / 0.02) ** 2))
    return (np.linspace(0.5, 1.5, 12)[:, None] * beat).astype(np.float32)


@pytest.fixture
def prepared():
    return Record(spikes(300), 300.0, STANDARD_LEADS, source_fs=500.0)


@pytest.fixture
def found(prepared, monkeypatch):
    """Every condition by group and name, over one made-up record and made-up noise."""
    noise = {kind: np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32) for kind in row.KINDS}
    raw = Record(spikes(500), 500.0, STANDARD_LEADS)
    monkeypatch.setattr(row, "load_noise", lambda *_: noise)
    monkeypatch.setattr(row, "READERS_OF", {row.SUPERCLASS_DATABASE: lambda _: lambda _: (raw, {})})
    corpus = SimpleNamespace(record=lambda *_: prepared)
    model = SimpleNamespace(checkpoint=SimpleNamespace(preparation=SimpleNamespace(fs_hz=300.0)))
    return {(c.group, c.name): c for c in row.conditions(corpus, Path("data"), model)}


def test_conditions_are_all_there_and_kept_apart(found):
    for kind in row.KINDS:
        for snr_db in row.SNRS_DB:
            assert {("noise", f"{kind} {snr_db:g} dB"), ("noise", f"{kind} {snr_db:g} dB, denoised")} <= set(found)
    assert next(iter(found)) == ("clean", row.AS_IS)
    assert len({c.file for c in found.values()}) == len(found)


def test_conditions_change_the_record_as_they_say(found, prepared):
    changed = {key: condition.change(ENTRY) for key, condition in found.items()}
    np.testing.assert_array_equal(changed["clean", row.AS_IS].signal, prepared.signal)
    assert changed["leads", "I, II, V2"].leads == ("I", "II", "V2")
    assert changed["rate", "257.3 Hz"].fs == 257.3
    assert changed["rate", "100 Hz"].duration_s == pytest.approx(10.0)
    assert not changed["gain", "unknown"].gain_known
    np.testing.assert_allclose(changed["gain", "10"].signal, 10 * prepared.signal, rtol=1e-6)
    np.testing.assert_array_equal(changed["polarity", "all leads inverted"].signal, -prepared.signal)
    added = changed["noise", "em 0 dB"].signal - prepared.signal
    np.testing.assert_allclose((added**2).mean(axis=1) / (prepared.signal**2).mean(axis=1), 1.0, rtol=0.15)
    smoothed = changed["noise", "em 0 dB, denoised"].signal - prepared.signal
    assert (smoothed**2).mean() < 0.5 * (added**2).mean()  # white here: what the wavelets are made for


def test_noise_of_a_record_is_the_same_every_time(found):
    change = found["noise", "ma 6 dB"].change
    np.testing.assert_array_equal(change(ENTRY).signal, change(ENTRY).signal)
    other = SimpleNamespace(record="records500/00000/00010_hr")
    assert not np.array_equal(change(ENTRY).signal, change(other).signal)


def test_changes_are_paired_and_tables_say_what_is_missing():
    rng = np.random.default_rng(0)
    labels = rng.random((80, len(row.SUPERCLASSES))) < 0.4
    clean = labels + rng.normal(0, 0.6, labels.shape)
    scores = {
        ("clean", row.AS_IS): clean,
        ("noise", "em 0 dB"): clean + rng.normal(0, 3.0, labels.shape),
        ("noise", "em 0 dB, denoised"): 2 * clean + 1,  # in the same order: nothing is lost
    }
    measured = row.measured(labels, scores, np.arange(80) // 2)
    noisy, denoised = measured["noise"]["em 0 dB"], measured["noise"]["em 0 dB, denoised"]
    assert noisy["change_interval"][1] < 0
    assert noisy["change"] == pytest.approx(
        noisy["macro_auroc"] - measured["clean"][row.AS_IS]["macro_auroc"], abs=2e-4
    )
    assert (denoised["change"], denoised["change_interval"]) == (0.0, [0.0, 0.0])
    text = row.tables(
        {
            **{"split": "test", "n_records": 80, "n_patients": 40, "prevalence": {"NORM": 0.4}},
            **{"head": {"name": "diagnosis", "mode": "linear"}, "conditions": measured, "missing": ["rate: 100 Hz"]},
        }
    )
    line = next(line for line in text.splitlines() if line.startswith("| em 0 dB |"))
    assert line.count("|") == 6
    assert f"{denoised['macro_auroc']:.3f}" in line
    assert "Not run:** rate: 100 Hz" in text
