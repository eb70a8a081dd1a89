"""Classical ECG features of one record: rates, RR statistics, intervals, axes, each lead's waves, spectral shares.

`anyecg.tasks.measures` under the name the baselines know it by: the same prepared signal (mV, 300 Hz, 0.5-75 Hz) and
the same R peaks as the model gets, a vector of fixed length for any leads, NaN where a feature cannot be measured. The
list is in that module's docstring.
"""

import numpy as np

from anyecg.beats import find_beats
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.tasks.measures import MEASURES, measure

FEATURE_NAMES = MEASURES


def record_features(prepared: Record, r_peaks_s: np.ndarray | None = None) -> np.ndarray:
    """Measure one prepared record; its R peaks (seconds) are found if they are not given.

    Returns
    -------
    ndarray of float32, shape (len(FEATURE_NAMES),)
        NaN where a feature cannot be measured.
    """
    rhythm = find_beats(prepared) if r_peaks_s is None else Rhythm(np.asarray(r_peaks_s, dtype=np.float64))
    return measure(prepared, rhythm)
