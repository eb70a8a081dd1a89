"""Baseline for lead generation: the mean beat of training records, put at each R peak found in what is given."""

import numpy as np

from anyecg.beats import find_beats
from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record

BEFORE_S, AFTER_S = 0.3, 0.5
"""Of the R peak: what a mean beat covers."""


def mean_beat(train: list[Record]) -> np.ndarray:
    """Return the mean of each lead round the R peak over training records, mV, (12, n_samples)."""
    total, count = 0.0, 0
    for record in train:
        before, after = round(BEFORE_S * record.fs), round(AFTER_S * record.fs)
        for peak_s in find_beats(record).r_peaks_s:
            peak = round(peak_s * record.fs)
            if before <= peak < record.n_samples - after:
                total = total + record.signal[:, peak - before : peak + after].astype(np.float64)
                count += 1
    return np.asarray(total / count)


def restore_by_beat(beat: np.ndarray, given: Record) -> np.ndarray:
    """Return the standard leads in mV, (12, n_samples): the beat at each R peak, zero between."""
    before = round(BEFORE_S * given.fs)
    signal = np.zeros((len(STANDARD_LEADS), given.n_samples + 2 * beat.shape[1]))
    for peak_s in find_beats(given).r_peaks_s:
        start = round(peak_s * given.fs) - before + beat.shape[1]
        signal[:, start : start + beat.shape[1]] = beat
    return signal[:, beat.shape[1] : -beat.shape[1]]
