import csv
from pathlib import Path

import numpy as np
import pytest

from anyecg.quality import DISABLING, assess
from anyecg.record import Record
from anyecg.result import LeadQuality, Quality
from anyecg.signals import find_leads_off, prepare

FS = 500.0
SPLITS = Path(__file__).parents[2] / "shared" / "ecg" / "splits.csv"


def ecg(duration_s: float = 10.0, fs: float = FS, seed: int = 0) -> np.ndarray:
    t = np.arange(round(duration_s * fs)) / fs
    lead = 0.008 * np.random.default_rng(seed).standard_normal(len(t))
    for delay, height, width in ((-0.16, 0.12, 0.02), (0, 1.1, 0.011), (0.03, -0.2, 0.01), (0.25, 0.25, 0.045)):
        phase = (t - 0.5 - delay + 0.41) % 0.82 - 0.41
        lead += height * np.exp(-0.5 * (phase / width) ** 2)
    return lead


def judge(lead: np.ndarray, fs: float = FS, **fields: object) -> LeadQuality:
    return judge_all(lead[None], fs, **fields).leads["II"]


def judge_all(signal: np.ndarray, fs: float = FS, **fields: object) -> Quality:
    record = Record(signal, fs, ("II", "V1", "V2")[: len(signal)], **fields)
    return assess(record, prepare(record))


def test_a_clean_lead_has_no_problem():
    assert judge(ecg()) == LeadQuality(pytest.approx(1.0, abs=0.05), ())


@pytest.mark.parametrize("fs", [128.0, 257.3, 1000.0])
def test_the_rate_does_not_change_the_verdict(fs):
    quality = judge(ecg(fs=fs), fs)
    assert quality.score > 0.9 and quality.problems == ()


def test_flat():
    quality = judge_all(np.stack([np.zeros(5000), ecg()]))
    assert quality.leads["II"].problems == ("flat",)
    assert quality.leads["II"].score == 0
    assert quality.leads["V1"].problems == ()
    assert quality.usable


def test_lead_off_is_a_flat_line_at_the_rail():
    quality = judge_all(np.stack([np.full(5000, -80.0), ecg()]))
    assert quality.leads["II"].problems == ("lead off",)


def test_an_electrode_offset_is_not_lead_off():
    assert judge(ecg() + 120.0).problems == ()


def test_saturated():
    lead = 4 * ecg() + 0.8 * np.sin(np.arange(5000) / 300)
    assert "saturated" in judge(np.clip(lead, -0.5, 0.9)).problems
    assert "saturated" not in judge(lead).problems


def test_muscle_noise():
    lead = ecg()
    loud = judge(lead + 0.35 * np.random.default_rng(1).standard_normal(5000))
    assert "noise" in loud.problems
    assert loud.score < 0.2


def test_noise_alone_is_not_usable():
    quality = judge_all(np.random.default_rng(1).standard_normal((1, 5000)))
    assert not quality.usable


def test_more_noise_never_raises_the_score():
    noise = np.random.default_rng(2).standard_normal(5000)
    scores = [judge(ecg() + level * noise).score for level in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 0.8


def test_a_burst_is_noise():
    lead = ecg()
    lead[2000:2600] += 12 * np.random.default_rng(3).standard_normal(600)
    assert "noise" in judge(lead).problems


def test_wander():
    wave = 2.5 * np.sin(2 * np.pi * 0.2 * np.arange(5000) / FS)
    assert judge(ecg() + wave).problems == ("wander",)


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_mains(mains_hz):
    wave = 0.8 * np.sin(2 * np.pi * mains_hz * np.arange(5000) / FS)
    assert judge(ecg() + wave).problems == ("mains",)
    assert "mains" not in judge(ecg() + 0.02 * wave).problems


def test_gaps():
    lead = ecg()
    lead[1000:3000] = np.nan
    assert judge(lead).problems == ("gaps",)
    assert 0 < judge(lead).score < 0.5


def test_nothing_recorded():
    quality = judge_all(np.stack([np.full(5000, np.nan), ecg()]))
    assert quality.leads["II"] == LeadQuality(0.0, ("gaps",))


def test_too_short():
    quality = judge_all(ecg(1.5)[None])
    assert quality.leads["II"] == LeadQuality(0.0, ("too short",))
    assert not quality.usable


@pytest.mark.parametrize("gain", [40.0, 0.03])
def test_implausible_amplitude(gain):
    assert "implausible amplitude" in judge(gain * ecg()).problems


@pytest.mark.parametrize("gain", [40.0, 4000.0, 0.001])
def test_amplitude_is_not_judged_where_the_gain_is_unknown(gain):
    quality = judge(gain * ecg(), gain_known=False)
    assert quality.problems == () and quality.score > 0.9


def test_only_part_of_a_long_record_counts_in_proportion():
    lead = ecg(100.0)
    lead[:25_000] = 0.0
    quality = judge(lead)
    assert quality.score == pytest.approx(0.5, abs=0.06)
    assert "flat" in quality.problems


def test_usable_needs_one_lead_without_a_disabling_problem():
    assert not judge_all(np.stack([np.full(5000, 80.0), np.zeros(5000)])).usable
    assert {"flat", "lead off", "too short"} == DISABLING


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, called by wfdb
def test_cinc2011_validation_records_are_told_apart(database):
    """Acceptable against unacceptable by the mean log score: 0.946 when written."""
    import wfdb
    from sklearn.metrics import roc_auc_score

    folder = database("cinc2011")
    unacceptable = set((folder / "set-a" / "RECORDS-unacceptable").read_text().split())
    labels, scores = [], []
    with SPLITS.open() as lines:
        names = [r["record"] for r in csv.DictReader(lines) if (r["database"], r["split"]) == ("cinc2011", "val")]
    for name in names:
        source = wfdb.rdrecord(str(folder / name))
        record = Record(source.p_signal.T, source.fs, tuple(source.sig_name))
        if find_leads_off(record).all():
            continue  # prepare refuses it
        quality = assess(record, prepare(record))
        labels.append(name.split("/")[-1] not in unacceptable)
        scores.append(np.mean([np.log(0.05 + lead.score) for lead in quality.leads.values()]))
    assert roc_auc_score(labels, scores) > 0.92
