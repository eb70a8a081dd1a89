"""Heart-rate variability: series whose numbers follow from a formula, and another program's numbers."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from anyecg.tasks.hrv import LEAST_COVER, SEGMENT_S, hrv, sample_entropy, scaling_exponent
from anyecg.tasks.long import summarize

OTHER_PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
import neurokit2 as nk, numpy as np
peaks = np.rint(1000 * np.array(json.load(sys.stdin))).astype(int)
found = {}
for measure in (nk.hrv_time, nk.hrv_nonlinear):
    found.update(measure(peaks, sampling_rate=1000).iloc[0].to_dict())
found.update(nk.hrv_frequency(peaks, sampling_rate=1000, normalize=False, interpolation_rate=4).iloc[0].to_dict())
print(json.dumps({name: float(value) for name, value in found.items()}))
"""


def breathing(duration_s: float, lf_ms: float = 30.0, hf_ms: float = 40.0, noise_ms: float = 0.0) -> np.ndarray:
    """Return beats whose RR intervals swing by so much at 0.1 and 0.25 Hz, to the millisecond."""
    rng = np.random.default_rng(0)
    times = [0.3]
    while times[-1] < duration_s - 1.0:
        now = times[-1]
        swing = lf_ms * np.sin(2 * np.pi * 0.1 * now) + hf_ms * np.sin(2 * np.pi * 0.25 * now)
        times.append(round(now + 0.8 + (swing + noise_ms * rng.standard_normal()) / 1000, 3))
    return np.array(times)


def test_power_of_a_sine_is_half_its_amplitude_squared() -> None:
    found = hrv(breathing(1500))
    assert found is not None and found.n_segments == 5
    assert found.lf_ms2 == pytest.approx(30**2 / 2, rel=0.1)
    assert found.hf_ms2 == pytest.approx(40**2 / 2, rel=0.1)
    assert found.vlf_ms2 is not None and found.vlf_ms2 < 10
    assert found.lf_hf == pytest.approx(found.lf_ms2 / found.hf_ms2)
    assert found.total_ms2 == pytest.approx(found.vlf_ms2 + found.lf_ms2 + found.hf_ms2)
    assert found.ulf_ms2 is None


def test_successive_intervals_give_sd1_and_sd2() -> None:
    rng = np.random.default_rng(0)
    rr_s = rng.normal(0.8, 0.04, 1874)  # five segments
    found = hrv(np.concatenate([[0.0], np.cumsum(rr_s)]))
    assert found is not None
    assert found.sd1_ms == pytest.approx(40, rel=0.05) and found.sd2_ms == pytest.approx(40, rel=0.05)
    assert found.sd1_sd2 == pytest.approx(1, abs=0.06)
    assert found.sdnn_index_ms == pytest.approx(40, rel=0.05)


def test_scaling_exponent_tells_noise_from_its_sum() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(20_000)
    assert scaling_exponent(np.cumsum(noise)) == pytest.approx(1.5, abs=0.1)
    assert 0.5 < scaling_exponent(noise) < 0.65  # small windows bias it upwards (Peng 1995)
    assert np.isnan(scaling_exponent(np.full(100, 800.0)))


def test_sample_entropy_is_that_of_counting_by_hand() -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(800, 40, 60)
    tolerance = 0.2 * series.std(ddof=1)

    def alike(length: int) -> int:
        patterns = [series[i : i + length] for i in range(len(series) - 2)]
        return sum(bool(np.abs(a - b).max() <= tolerance) for i, a in enumerate(patterns) for b in patterns[i + 1 :])

    assert sample_entropy(series) == pytest.approx(np.log(alike(2) / alike(3)))
    assert sample_entropy(np.tile([700.0, 800.0, 900.0], 40)) < 0.02
    assert np.isnan(sample_entropy(np.full(50, 800.0)))


def test_triangular_index_is_intervals_over_the_highest_column() -> None:
    rr_s = np.tile([0.753, 0.753, 0.803, 0.853], 500)  # not on a border
    found = hrv(np.concatenate([[0.0], np.cumsum(rr_s)]))
    assert found is not None and found.triangular_index == pytest.approx(2)
    short = hrv(np.concatenate([[0.0], np.cumsum(rr_s[:500])]))
    assert short is not None and short.triangular_index is None


def test_slow_waves_of_a_day_are_ulf() -> None:
    times_s = np.arange(0, 86_400, 0.8)
    rr_s = 0.8 + 0.05 * np.sin(2 * np.pi * times_s / 3600)
    found = hrv(np.cumsum(rr_s))
    assert found is not None and found.ulf_ms2 == pytest.approx(50**2 / 2, rel=0.05)
    assert found.vlf_ms2 is not None and found.vlf_ms2 < 20


def test_an_ectopic_beat_counts_for_nothing() -> None:
    beats_s = breathing(300)
    early = beats_s.copy()
    early[[50, 150, 250]] -= 0.3
    classes = np.full(len(beats_s), "N")
    classes[[50, 150, 250]] = "V"
    clean, marked, unmarked = hrv(beats_s), hrv(early, classes), hrv(early)
    assert clean is not None and marked is not None and unmarked is not None
    assert marked.sd1_ms == pytest.approx(clean.sd1_ms, rel=0.05)
    assert marked.hf_ms2 == pytest.approx(clean.hf_ms2, rel=0.1)
    assert unmarked.sd1_ms is not None and unmarked.sd1_ms > 1.5 * clean.sd1_ms


def test_five_minutes_are_needed() -> None:
    assert hrv(breathing(LEAST_COVER * SEGMENT_S - 5)) is None
    assert hrv(np.empty(0)) is None and hrv(np.array([1.0])) is None
    beats_s = breathing(600)
    gap = np.array([[100.0, 200.0]])
    heard = beats_s[(beats_s < 100) | (beats_s > 200)]
    found = hrv(heard, unusable_s=gap)
    assert found is not None and found.n_segments == 1  # the second
    assert hrv(beats_s, np.full(len(beats_s), "V")) is None


def test_a_summary_holds_it() -> None:
    summary = summarize(breathing(600), 600.0)
    assert summary.hrv == hrv(breathing(600))
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["hrv"]["n_segments"] == 2
    assert summarize(breathing(60), 60.0).to_dict()["hrv"] is None


def test_a_regular_heart_has_numbers_or_none() -> None:
    found = hrv(np.arange(0.5, 600, 0.8))
    assert found is not None and found.sdnn_index_ms == pytest.approx(0, abs=1e-6)
    json.dumps(summarize(np.arange(0.5, 600, 0.8), 600.0).to_dict(), allow_nan=False)


def other_numbers(root: Path, beats_s: np.ndarray) -> dict[str, float]:
    """Return the numbers of neurokit2, which lives in an environment of its own; the test is skipped without it."""
    python = root / ".venv-peers" / "bin" / "python"
    if not python.is_file():
        pytest.skip("needs .venv-peers with neurokit2")
    done = subprocess.run(
        [str(python), "-c", OTHER_PROGRAM], input=json.dumps(beats_s.tolist()), capture_output=True, text=True
    )
    if "No module named 'neurokit2'" in done.stderr:
        pytest.skip("needs neurokit2")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SAME = {"sdnn_index_ms": "SDNN", "sd1_ms": "SD1", "sd2_ms": "SD2", "sd1_sd2": "SD1SD2", "sample_entropy": "SampEn"}
NEAR = {"lf_ms2": "LF", "hf_ms2": "HF"}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("record", ["103", "115", "117", "122"])
def test_another_program_agrees(root: Path, database: object, record: str) -> None:
    """Of five minutes of normal beats neurokit2 0.2.13 gives the same SDs and entropy, LF and HF within 15 %.

    Left out: VLF, which it integrates by trapezia over bins of which the lowest holds most of the power.
    """
    from anyecg.training.beat_series import read_series

    folder = database("mitdb")  # type: ignore[operator]
    beats_s = np.round(read_series(folder / record, "mitdb", record).beats_s, 3)
    beats_s = beats_s[beats_s < 300]
    ours, theirs = hrv(beats_s), other_numbers(root, beats_s)
    for name, other in SAME.items():
        assert getattr(ours, name) == pytest.approx(theirs[f"HRV_{other}"], rel=1e-6), name
    for name, other in NEAR.items():
        assert getattr(ours, name) == pytest.approx(theirs[f"HRV_{other}"], rel=0.15), name
    assert ours is not None and ours.dfa_alpha1 == pytest.approx(theirs["HRV_DFA_alpha1"], abs=0.07)
