"""Which of a file's channels are ECG leads, and how leads of several rates become one array."""

import re
from math import ceil

import numpy as np

from anyecg.leads import KNOWN_LEADS, standard_name

# Names of what is recorded beside the ECG: respiration, pulse, pressures, brain, muscle, eyes, markers.
_OTHER = re.compile(
    r"^(?:imp[ ._-]*)?resp|pleth|^ppg|^pulse|^[an]?bp\b|^(?:abp|art|cvp|pap|icp|nibp|lap|rap|uap|uvp)\b|spo2|sao2"
    r"|^co2|etco2|^(?:eeg|emg|eog|eda|gsr|acc|imu|scg|pcg|bcg)(?![a-z])|^chin|airflow|^flow|thor|abdo|snor|^temp|^pos"
    r"|body ?pos|^marker|^event|^trigger|^status|annotation|^hr$|heart ?rate|^battery|^light",
    re.IGNORECASE,
)
_ECG = re.compile(r"ecg|ekg|electrocardio", re.IGNORECASE)


def says_ecg(name: str) -> bool:
    """Return whether a channel's name says that it is an ECG lead."""
    return bool(_ECG.search(name)) or standard_name(name) in KNOWN_LEADS


def says_other(name: str) -> bool:
    """Return whether a channel's name says that it is something else than an ECG lead."""
    return not says_ecg(name) and bool(_OTHER.search(name.strip()))


def to_one_rate(rows: list[np.ndarray], rates_hz: list[float], n_samples: int) -> np.ndarray:
    """Bring rows of several rates to the highest one, so that no lead is lost.

    Parameters
    ----------
    rows : list of 1-D float arrays
        mV, NaN where not recorded; all begin at the same time.
    rates_hz : list of float
        One a row.
    n_samples : int
        Length of the result; a short row is filled with NaN.

    Returns
    -------
    ndarray of float32, shape (n_leads, n_samples), at ``max(rates_hz)``
    """
    to_hz = max(rates_hz)
    signal = np.full((len(rows), n_samples), np.nan, dtype=np.float32)
    for out, row, from_hz in zip(signal, rows, rates_hz, strict=True):
        if from_hz != to_hz:
            row = _raise_rate(row, from_hz, to_hz)
        n = min(len(row), n_samples)
        out[:n] = row[:n]
    return signal


def _raise_rate(row: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Resample one row with soxr; gaps are bridged for the filter and put back after it."""
    import soxr

    recorded = np.isfinite(row)
    if not recorded.any():
        return np.full(round(len(row) * to_hz / from_hz), np.nan)
    times = np.arange(len(row))
    bridged = np.interp(times, times[recorded], row[recorded])
    # A second of point reflection at either end: no ringing from a sudden start. A rate may claim 1e9 Hz.
    pad = min(ceil(from_hz), len(row))
    if len(row) == 1:
        extended = np.pad(bridged, pad, mode="edge")
    else:
        extended = np.pad(bridged, pad, mode="reflect", reflect_type="odd")
    raised = soxr.resample(extended, from_hz, to_hz, quality="HQ")
    n_out = round(len(row) * to_hz / from_hz)
    start = round(pad * to_hz / from_hz)
    raised = raised[start : start + n_out]
    nearest = np.minimum(np.round(np.arange(len(raised)) * from_hz / to_hz).astype(np.int64), len(row) - 1)
    return np.where(recorded[nearest], raised, np.nan)
