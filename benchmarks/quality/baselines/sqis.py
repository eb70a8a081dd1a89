"""Classical signal quality indices of a lead, as the field uses them, and a classifier on them.

Clifford, Behar, Li, Rezek 2012 (doi:10.1088/0967-3334/33/9/1419): kSQI and sSQI, kurtosis and skewness; pSQI, the
share of power of 5-15 in 5-40 Hz; basSQI, that of 1-40 in 0-40 Hz; the share of flat samples; bSQI, how far two
detectors of beats agree (Li, Mark, Clifford 2008, doi:10.1088/0967-3334/29/1/002). Of several leads: least, median and
most of each.
"""

import warnings

import numpy as np

from anyecg.metrics import match_events
from anyecg.record import Record
from anyecg.signals import power_spectrum

NAMES = ("kSQI", "sSQI", "pSQI", "basSQI", "flat", "bSQI")
WINDOW_S = 4.0
TOLERANCE_S = 0.15
FLAT_MV = 1e-3


def sqis(record: Record) -> np.ndarray:
    """Return the indices of each lead of a record as read, (n_leads, len(NAMES)); NaN where one cannot be had."""
    return np.array([_of_lead(lead, record.fs) for lead in np.nan_to_num(record.signal.astype(np.float64))])


def features(record: Record) -> np.ndarray:
    """Return least, median and most of each index over the leads of a record, (3 len(NAMES),)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an index that no lead has stays NaN
        return np.nanquantile(sqis(record), (0.0, 0.5, 1.0), axis=0).ravel()


def _of_lead(lead: np.ndarray, fs: float) -> list[float]:
    flat = float((np.abs(np.diff(lead)) < FLAT_MV).mean())
    centred = lead - lead.mean()
    spread = centred.std()
    if spread < FLAT_MV:
        return [np.nan] * (len(NAMES) - 2) + [flat, 0.0]
    size = min(len(lead), round(WINDOW_S * fs))
    hz, power = power_spectrum(np.lib.stride_tricks.sliding_window_view(centred, size)[:: max(size // 2, 1)], fs)
    power = power.mean(axis=0)

    def within(low: float, high: float) -> float:
        return float(power[(hz >= low) & (hz < high)].sum())

    standard = centred / spread
    return [
        float((standard**4).mean()),
        float((standard**3).mean()),
        within(5, 15) / (within(5, 40) + 1e-12),
        within(1, 40) / (within(0, 40) + 1e-12),
        flat,
        _agreement(lead, fs),
    ]


def _agreement(lead: np.ndarray, fs: float) -> float:
    """Return the share of beats that two detectors have in common."""
    first, second = by_sleepecg(lead, fs), by_xqrs(lead, fs)
    together = len(match_events(first, second, TOLERANCE_S)) if len(first) and len(second) else 0
    return together / max(len(first) + len(second) - together, 1)


def by_sleepecg(lead_mv: np.ndarray, fs: float) -> np.ndarray:
    """Return R peaks in seconds, by SleepECG (Pan and Tompkins, modified)."""
    from sleepecg import detect_heartbeats

    if np.ptp(lead_mv) == 0:
        return np.empty(0)
    return np.asarray(detect_heartbeats(lead_mv, fs)) / fs


def by_xqrs(lead_mv: np.ndarray, fs: float) -> np.ndarray:
    """Return R peaks in seconds, by wfdb's XQRS; none where it gives up."""
    from wfdb.processing import xqrs_detect

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a lead that is flat
            return np.asarray(xqrs_detect(lead_mv, fs, verbose=False), dtype=np.float64) / fs
    except (IndexError, ValueError):
        return np.empty(0)
