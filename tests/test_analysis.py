"""analyze() from file to Result with the shipped model: its parts fit together. What it is worth the benchmarks say."""

import json
from pathlib import Path

import numpy as np
import pytest

import anyecg
from anyecg.record import Record
from anyecg.result import Result


@pytest.fixture(scope="module")
def twelve(dicom_file: Path) -> Result:
    return anyecg.analyze(dicom_file)


@pytest.fixture(scope="module")
def holter(toy_record: Record) -> Result:
    return anyecg.analyze(toy_record)


def test_a_normal_ecg_is_called_so_by_twelve_leads(twelve: Result) -> None:
    found = {f.code: f for f in twelve.findings}
    assert found["SR"].present and found["NORM"].present
    assert found["SR"].snomed == "426783006" and len(found["SR"].leads) == 12
    assert not found["AFIB"].present and not found["LBBB"].present
    assert all(0 <= f.score <= 1 for f in twelve.findings if f.score is not None)


def test_every_beat_has_a_class(twelve: Result, holter: Result) -> None:
    for result in (twelve, holter):
        assert [b.start_s for b in result.beats] == result.rhythm.r_peaks_s.tolist()
    assert {b.code for b in twelve.beats} == {"N"}
    ventricular = sum(b.code == "V" for b in holter.beats)
    assert 20 < ventricular < 200  # an excerpt of MIT-BIH with many ventricular beats


def test_a_holter_strip_with_fibrillation_has_an_episode_of_it(holter: Result) -> None:
    episodes = [f for f in holter.findings if f.code == "AFIB" and f.source == "rr_rhythm"]
    assert sum(f.end_s - f.start_s for f in episodes) > 60
    assert holter.overview is not None and holter.overview.af_burden_percent > 20
    assert holter.anomaly is not None and holter.anomaly.percentile > 90


def test_the_json_holds_it_all_and_is_json(holter: Result) -> None:
    printed = json.loads(json.dumps(holter.to_dict(), allow_nan=False))
    assert sum(printed["rhythm"]["beats"].values()) == printed["rhythm"]["n_beats"] == printed["long"]["n_beats"]
    finding = printed["findings"][0]
    assert set(finding) >= {"code", "snomed", "name", "kind", "score", "threshold", "present"}
    assert set(finding) >= {"start_s", "end_s", "lead", "leads", "source"}
    assert printed["long"]["hours"][0]["n_v"] == printed["rhythm"]["beats"]["V"]


def test_an_answer_does_not_depend_on_rate_or_format(twelve: Result) -> None:
    from anyecg.signals import Preparation, prepare

    slower = prepare(twelve.record, Preparation(250.0, 0.05, 100.0)).with_(source_fs=None)
    again = {f.code: f.score for f in anyecg.analyze(slower).findings}
    for finding in twelve.findings:
        assert again[finding.code] == pytest.approx(finding.score, abs=0.1), finding.code


def test_what_cannot_be_judged_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    flat = Record(rng.normal(0, 1e-4, (2, 5000)).astype(np.float32), 500.0, ("I", "II"))
    result = anyecg.analyze(flat)
    assert not result.quality.usable and result.anomaly is None and not result.beats
    assert result.findings and all(f.present is None for f in result.findings if f.source != "rules")


def test_what_the_model_has_to_do_without_is_said(twelve: Result) -> None:
    from anyecg.signals import Preparation, prepare

    slow = prepare(twelve.record, Preparation(50.0, 0.05, 20.0)).with_(source_fs=None, gain_known=False)
    warnings = "\n".join(anyecg.analyze(slow.pick(("I", "II"))).warnings)
    assert "recorded at 50 Hz: nothing above 25 Hz is in it" in warnings
    assert "the gain is unknown" in warnings
    assert "recorded at" not in "\n".join(twelve.warnings) and "gain" not in "\n".join(twelve.warnings)
