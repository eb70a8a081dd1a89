"""Ten seconds that every format is asked to hold."""

from datetime import datetime

import numpy as np
import pytest

from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record


def heartbeat(fs: float, seconds: float = 10.0) -> np.ndarray:
    """Return P, QRS and T at 75 beats/min, mV, with a little noise."""
    t = np.arange(round(seconds * fs)) / fs % 0.8
    waves = ((0.15, 0.20, 0.020), (-0.12, 0.335, 0.006), (1.10, 0.35, 0.008), (-0.25, 0.37, 0.007), (0.30, 0.58, 0.040))
    clean = sum(height * np.exp(-(((t - at) / width) ** 2) / 2) for height, at, width in waves)
    return np.asarray(clean + np.random.default_rng(0).normal(0, 0.005, len(t)))


def make_twelve(fs: float = 500.0) -> Record:
    one, two = 0.7 * heartbeat(fs), heartbeat(fs) + 0.02 * np.random.default_rng(1).normal(size=round(10 * fs))
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [scale * heartbeat(fs) + offset for offset, scale in enumerate((-0.8, -0.5, 0.4, 1.2, 1.4, 1.0))]
    return Record(
        np.stack([*limbs, *(lead / 4 for lead in chest)]),
        fs=fs,
        leads=STANDARD_LEADS,
        age=56.0,
        sex="female",
        weight_kg=70.0,
        start_time=datetime(2020, 1, 2, 3, 4, 5),
    )


@pytest.fixture(scope="session")
def twelve() -> Record:
    """12 leads, 500 Hz, 10 s."""
    return make_twelve()


@pytest.fixture(scope="session")
def single() -> Record:
    """Lead I, 300 Hz, 10 s, of a person of 56.5 years, with a gap."""
    signal = heartbeat(300.0)[None, :]
    signal[0, 1000:1100] = np.nan
    return Record(
        signal, fs=300.0, leads=("I",), age=56.5, sex="male", weight_kg=70.5, start_time=datetime(1970, 5, 6, 7, 8, 9)
    )


@pytest.fixture(scope="session")
def odd_rate() -> Record:
    """Leads II and V5, 257.3 Hz, nothing known of person or time; V5 was off at the end."""
    signal = np.stack([heartbeat(257.3), 0.5 * heartbeat(257.3)])
    signal[1, 2000:] = np.nan
    return Record(signal, fs=257.3, leads=("II", "V5"))
