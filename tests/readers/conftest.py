"""Small files of every format that we can write ourselves, each with the signal that must come back."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FS = 250.0


class QuietWfdb:
    """wfdb 4.3 to write files with, without its warnings of pandas calls that pandas 3.1 deprecates."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                import wfdb

                return getattr(wfdb, name)(*args, **kwargs)

        return call


@pytest.fixture
def wfdb() -> QuietWfdb:
    return QuietWfdb()


@dataclass(frozen=True)
class Sample:
    """A file, the mV in it, and how exactly they are stored."""

    path: Path
    signal: np.ndarray
    leads: tuple[str, ...]
    fs: float
    step_mv: float


def beats_mv(n_leads: int, n_samples: int, fs: float = FS) -> np.ndarray:
    """Return something like an ECG: a spike a second, another wave, of another size in each lead, on a breath."""
    t = np.arange(n_samples) / fs
    phase = t % 1.0
    qrs = np.exp(-(((phase - 0.4) / 0.012) ** 2))
    breath = 0.05 * np.sin(2 * np.pi * 0.27 * t)  # a baseline without it stands still, as a clipped one does
    wave = 0.25 * np.exp(-(((phase - 0.65) / 0.05) ** 2))
    return np.stack([(1 + 0.1 * i) * qrs + (1 - 0.05 * i) * wave + breath - 0.02 * i for i in range(n_leads)])


@pytest.fixture
def make_wfdb(tmp_path: Path, wfdb: QuietWfdb) -> Callable[..., Sample]:
    """Return a function that writes a WFDB record with wfdb itself."""

    def make(
        name: str = "rec",
        fmt: str = "16",
        n_samples: int = 2500,
        leads: tuple[str, ...] = ("I", "II", "V1"),
        units: str = "mV",
        comments: tuple[str, ...] = (),
        fs: float = FS,
        gain: float | None = None,
    ) -> Sample:
        gain = gain or {"212": 200.0, "508": 50.0}.get(fmt, 1000.0)
        signal = beats_mv(len(leads), n_samples, fs)
        wfdb.wrsamp(
            name,
            fs=fs,
            units=[units] * len(leads),
            sig_name=list(leads),
            p_signal=signal.T.copy(),
            fmt=[fmt] * len(leads),
            adc_gain=[gain] * len(leads),
            baseline=[0] * len(leads),
            comments=list(comments),
            write_dir=str(tmp_path),
        )
        return Sample(tmp_path / f"{name}.hea", signal, leads, fs, 1 / gain)

    return make


@pytest.fixture
def make_edf(tmp_path: Path) -> Callable[..., Sample]:
    """Return a function that writes EDF+ or BDF+ with pyedflib."""
    import pyedflib

    def make(
        suffix: str = ".edf",
        labels: tuple[str, ...] = ("ECG I", "ECG II"),
        dimension: str | tuple[str, ...] = "mV",
        rates: tuple[int, ...] | None = None,
        n_seconds: int = 10,
        **patient: object,
    ) -> Sample:
        path = tmp_path / f"rec{suffix}"
        bdf = suffix == ".bdf"
        rates = rates or (250,) * len(labels)
        dimensions = (dimension,) * len(labels) if isinstance(dimension, str) else dimension
        filetype = pyedflib.FILETYPE_BDFPLUS if bdf else pyedflib.FILETYPE_EDFPLUS
        digital = 2**23 if bdf else 2**15
        writer = pyedflib.EdfWriter(str(path), len(labels), file_type=filetype)
        per_mv = {"mV": 1.0, "uV": 1000.0, "V": 0.001}
        try:
            writer.setStartdatetime(datetime(2020, 5, 4, 3, 2, 1))
            if "birthdate" in patient:
                writer.setBirthdate(patient["birthdate"])
            if "sex" in patient:
                writer.setSex(patient["sex"])
            if "patientname" in patient:
                writer.setPatientName(patient["patientname"])
            writer.setSignalHeaders(
                [
                    {
                        "label": label,
                        "dimension": unit,
                        "sample_frequency": rate,
                        "physical_min": -5.0 * per_mv.get(unit, 1.0),
                        "physical_max": 5.0 * per_mv.get(unit, 1.0),
                        "digital_min": -digital,
                        "digital_max": digital - 1,
                    }
                    for label, rate, unit in zip(labels, rates, dimensions, strict=True)
                ]
            )
            signals = [beats_mv(len(labels), n_seconds * rate, rate)[i] for i, rate in enumerate(rates)]
            writer.writeSamples([s * per_mv.get(u, 1.0) for s, u in zip(signals, dimensions, strict=True)])
        finally:
            writer.close()
        same = len(set(rates)) == 1
        return Sample(path, np.stack(signals) if same else np.empty((0, 0)), labels, max(rates), 10 / (2 * digital))

    return make
