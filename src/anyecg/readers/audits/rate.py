"""A declared sampling rate that cannot be: everything in the record runs too fast or too slow by one factor."""

from math import hypot, log

import numpy as np

from anyecg.readers.audits.heartbeats import Heartbeats
from anyecg.readers.audits.pieces import most_recorded, telling_leads
from anyecg.record import Record

MAINS_HZ = (50.0, 60.0)

DEVICE_RATES_HZ = (
    *(100.0, 125.0, 128.0, 180.0, 200.0, 240.0, 250.0, 256.0, 257.0, 300.0, 360.0, 400.0, 480.0),
    *(500.0, 512.0, 600.0, 960.0, 977.0, 1000.0, 1024.0, 2000.0),
)
"""What recorders sample at. A line at any other fraction of the mains frequency is some other machine."""

LINE_RATIO, BESIDE_HZ = 10.0, 4.0
"""A line's power over the highest beside it, so far to either side; there harmonics of the heart rate have others."""

LINE_MV = 0.001
TOLERANCE = 0.012
"""Mains frequency and the piece's length leave this much of the rate open."""

USUAL_BPM, USUAL_WIDTH_S = 75.0, 0.038
SPREAD_BPM, SPREAD_WIDTH = 0.32, 0.4
"""Of the logarithms, over PTB-XL, CinC 2017 and CODE-15; see `oddity`."""

ODD, BETTER = 1.2, 0.8
"""With a displaced mains line: as oddity declared at least, and by how much less at the rate that the line says."""

TOO_FAST = (200.0, 0.022)
TOO_SLOW = (33.0, 0.12)
"""Heart rate and QRS width that no line is needed for: both beyond, in the same direction, what one in a thousand
recordings shows. A racing heart has no QRS complex narrower than any at rest."""


def oddity(rate_bpm: float, width_s: float) -> float:
    """Return how far heart rate and QRS width lie together from those of a resting adult, in standard deviations."""
    return hypot(log(rate_bpm / USUAL_BPM) / SPREAD_BPM, log(width_s / USUAL_WIDTH_S) / SPREAD_WIDTH)


def wrong_rate(record: Record, beats: Heartbeats) -> list[str]:
    """Return a warning if the declared rate is probably not the true one.

    A line at 25 Hz may be the mains at 50 Hz in a record of 1000 Hz that claims 500 Hz. Alone it proves nothing; it
    counts if heart rate and QRS width are odd as declared and usual at the rate that the line says.
    """
    bpm, width_s = beats.rate_bpm, beats.width_s
    if not (bpm > 0 and width_s > 0):
        return []  # spikes of no width are no QRS complexes
    shown = f"a heart rate of {bpm:.0f} and QRS complexes {width_s * 1000:.0f} ms wide (usual: 24-60)"
    as_declared = oddity(bpm, width_s)
    if as_declared >= ODD:
        piece = most_recorded(record, telling_leads(record.leads))
        for line_hz, mains_hz, fs in displaced_mains(piece, record.fs, max(BESIDE_HZ, 1.3 * bpm / 60)):
            factor = fs / record.fs
            if as_declared - oddity(bpm * factor, width_s / factor) >= BETTER:
                return [
                    f"the declared rate of {record.fs:g} Hz is doubtful: {shown} and a line at {line_hz:.1f} Hz fit "
                    f"{fs:g} Hz and mains of {mains_hz:g} Hz"
                ]
    if bpm > TOO_FAST[0] and width_s < TOO_FAST[1]:
        return [f"the declared rate of {record.fs:g} Hz is doubtful, probably too high: {shown}"]
    if bpm < TOO_SLOW[0] and width_s > TOO_SLOW[1]:
        return [f"the declared rate of {record.fs:g} Hz is doubtful, probably too low: {shown}"]
    return []


def displaced_mains(piece: np.ndarray, fs: float, beside_hz: float = BESIDE_HZ) -> list[tuple[float, float, float]]:
    """Return ``(line, mains frequency, rate that it says)`` in Hz; empty if a line is where mains lines should be."""
    lines = spectral_lines(piece, fs, beside_hz)
    if any(abs(line - mains) < 1 for line in lines for mains in MAINS_HZ):
        return []
    found = []
    for line in lines:
        for mains in MAINS_HZ:
            true_fs = fs * mains / line
            nearest = min(DEVICE_RATES_HZ, key=lambda rate: abs(log(rate / true_fs)))
            if abs(nearest / true_fs - 1) < TOLERANCE and abs(nearest / fs - 1) > 0.02 and 0.2 < nearest / fs < 5:
                found.append((line, mains, nearest))
    return found


def spectral_lines(piece: np.ndarray, fs: float, beside_hz: float = BESIDE_HZ) -> list[float]:
    """Return the frequencies in Hz of narrow lines from 11 Hz up, the strongest first.

    Parameters
    ----------
    piece : ndarray of float, shape (n_leads, n_samples)
        mV, without NaN; at least four seconds.
    """
    n = piece.shape[1]
    if n < 4 * fs:
        return []
    centred = piece - piece.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred * np.hanning(n), axis=1)) ** 2
    power = spectrum.mean(axis=0) * (16 / 3) / n**2  # of a sine of amplitude a: a**2 over its three bins
    step_hz = fs / n
    first, last = round(11 / step_hz), min(len(power), round(300 / step_hz), round(0.48 * fs / step_hz))
    beside, core = round(beside_hz / step_hz), max(3, round(0.4 / step_hz))
    # Candidates stand out of the mean around them: the heart's harmonics at 11 Hz are higher than any hum at 100 Hz.
    total = np.concatenate(([0.0], np.cumsum(power)))
    low, high = np.maximum(np.arange(len(power)) - beside, 0), np.minimum(np.arange(len(power)) + beside, len(power))
    prominence = power * (high - low) / np.maximum(total[high] - total[low], 1e-30)
    lines: list[float] = []
    for at in (first + np.argsort(prominence[first:last])[::-1][:20]).tolist():
        around = np.concatenate(
            (power[max(0, at - beside) : max(0, at - core)], power[at + core + 1 : at + beside + 1])
        )
        if len(around) and power[at] > LINE_RATIO * around.max() and power[at] > LINE_MV**2:
            line = at * step_hz
            if all(abs(line - other) > 1 for other in lines):
                lines.append(line)
    return lines
