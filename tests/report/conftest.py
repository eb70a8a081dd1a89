"""Results without a model: the drawing side sees only Record and Result."""

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pytest

from anyecg.beats import find_beats
from anyecg.quality import assess
from anyecg.record import Annotation, Record
from anyecg.result import Anomaly, Beats, Finding, Result
from anyecg.signals import prepare
from anyecg.tasks.long import summarize
from anyecg.tokens import Grid, Tokens, to_fragments, to_timeline

LEADS_12 = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


# delay after the R peak in s, height in mV, width in s
WAVES = ((-0.17, 0.12, 0.025), (-0.03, -0.1, 0.009), (0, 1.1, 0.011), (0.03, -0.22, 0.01), (0.26, 0.28, 0.05))


def synthetic_ecg(duration_s: float, fs: float, hr_bpm: float = 72.0, seed: int = 0) -> np.ndarray:
    """Return one lead, mV: P, QRS and T as Gaussians on a slightly varying rhythm, with a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * fs)) / fs
    ecg = 0.01 * rng.standard_normal(len(t))
    beat = 0.4
    while beat < duration_s + 1:
        for delay, height, width in WAVES:
            ecg += height * np.exp(-0.5 * ((t - beat - delay) / width) ** 2)
        beat += 60 / hr_bpm * (1 + 0.03 * rng.standard_normal())
    return ecg


def synthetic_record(leads: tuple[str, ...], duration_s: float = 10.0, fs: float = 500.0, **fields: object) -> Record:
    lead = synthetic_ecg(duration_s, fs)
    gains = {"aVR": -0.8, "V1": -0.5, "V2": 0.7, "V3": 1.2, "V4": 1.5, "III": 0.5, "aVL": 0.45}
    signal = np.stack([gains.get(name, 1.0) * lead for name in leads])
    return Record(signal, fs, leads, **{"id": "synthetic", **fields})


def fake_findings(end_s: float, leads: tuple[str, ...]) -> tuple[Finding, ...]:
    """Return a label that is present, one that is not, and an episode."""
    told = {"leads": leads, "source": "diagnosis"}
    return (
        Finding(0.0, end_s, "rhythm", "SR", None, 0.93, "426783006", "sinus rhythm", 0.5, True, **told),
        Finding(
            0.0, end_s, "diagnosis", "RBBB", None, 0.02, "59118001", "right bundle branch block", 0.4, False, **told
        ),
        Finding(
            2.0, 4.0, "rhythm", "AFIB", None, 0.81, "164889003", "atrial fibrillation", 0.5, True, source="rr_rhythm"
        ),
    )


def fake_result(record: Record, n_levels: int = 4, codebook_size: int = 1024, seed: int = 0) -> Result:
    """Return what analyze() would: true quality and rhythm, invented codes and surprise."""
    rng = np.random.default_rng(seed)
    prepared = prepare(record)
    grid = Grid()
    fragments = to_fragments(prepared, grid)
    n_fragments = -(-prepared.n_samples // grid.fragment_samples)
    valid = to_timeline(fragments.valid, n_fragments)
    codes = rng.integers(0, codebook_size, (*valid.shape, n_levels)).astype(np.int32)
    codes[:, ::2, 0] = 17  # a code that repeats
    codes[~valid] = -1
    surprise = np.where(valid, rng.gamma(3.0, 1.2, valid.shape), np.nan).astype(np.float32)
    filled = np.nan_to_num(prepared.signal)
    smooth = np.stack([np.convolve(row, np.ones(5) / 5, mode="same") for row in filled])
    decoded = prepared.with_(signal=np.where(np.isfinite(prepared.signal), 0.95 * smooth, np.nan))
    quality = assess(record, prepared)
    last = prepared.duration_s
    rhythm = find_beats(prepared, quality)
    segments = (Annotation(min(3.0, last / 3), min(4.0, last / 2), "anomaly", "surprise", record.leads[0], 7.5),)
    if last > 200:
        segments += (Annotation(152.0, 154.0, "anomaly", "surprise", None, 9.0),)
    return Result(
        record=record,
        prepared=prepared,
        quality=quality,
        rhythm=rhythm,
        tokens=Tokens(
            codes, valid, fragments.scale_mv, grid, codebook_size, record.leads, prepared.n_samples, record.id
        ),
        decoded=decoded,
        surprise=surprise,
        embedding=np.zeros(8, np.float32),
        anomaly=Anomaly(3.21, 87.0, segments) if quality.usable else None,
        model={"name": "nano", "version": "0", "sha256": "0123456789abcdef" * 4, "trained_on": ["set one", "set two"]},
        anyecg_version="0.0",
        findings=fake_findings(prepared.duration_s, record.leads),
        beats=Beats(
            rhythm.r_peaks_s,
            np.array([2 if i == 2 else 0 for i in range(len(rhythm.r_peaks_s))], dtype=np.uint8),
            np.full(len(rhythm.r_peaks_s), 0.9, dtype=np.float32),
        ),
        overview=summarize(
            rhythm.r_peaks_s,
            prepared.duration_s,
            classes=np.array(["V" if i == 2 else "N" for i in range(len(rhythm.r_peaks_s))]),
            episodes=(Annotation(2.0, 4.0, "rhythm", "AFIB", score=0.81),),
        ),
        warnings=("a warning in plain words",),
    )


@pytest.fixture(scope="session")
def make() -> Callable[..., Result]:
    """Return a function of leads, duration, rate and Record's fields; ``missing`` leads have no sample."""

    def result(
        leads: tuple[str, ...],
        duration_s: float = 10.0,
        fs: float = 500.0,
        missing: tuple[str, ...] = (),
        **fields: object,
    ) -> Result:
        record = synthetic_record(leads, duration_s, fs, **fields)
        signal = record.signal.copy()
        signal[[name in missing for name in leads]] = np.nan
        return fake_result(record.with_(signal=signal))

    return result


@pytest.fixture(scope="session")
def twelve() -> Result:
    record = synthetic_record(
        LEADS_12, age=61.0, sex="female", start_time=datetime(2024, 5, 6, 7, 8, 9), derived=frozenset({"III"})
    )
    return fake_result(record)


@pytest.fixture(scope="session")
def long_single() -> Result:
    return fake_result(synthetic_record(("ECG0",), 300.0, 250.0, id="five minutes"))
