"""A window of a prepared record -> the measures that a head with trees asks for by name.

Three lists: the classical measures (`anyecg.tasks.measures.MEASURES`), what RR intervals say (`rr_features`, and more
of them: `RR`), and what a lead says without its beats (`SHAPE`), both after what entrants of the 2017 challenge used
(Clifford 2017, doi:10.22489/CinC.2017.065-469). NumPy alone: importing scipy.signal and scipy.stats takes longer than
all this.
"""

from itertools import pairwise

import numpy as np

from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.signals import bridge_gaps
from anyecg.tasks import rr_features
from anyecg.tasks.measures import IN_MILLIVOLTS, MEASURES, measure

BANDS_HZ = (0.5, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 75.0)
PIECE_S = 2.0
"""Stretches of a lead whose height, spread and steepness are compared."""

WELCH_S = 4.0
LORENZ_EDGES = (-0.25, 0.0, 0.25)

RR_BASIC = tuple(f"rr: {name}" for name in rr_features.FEATURE_NAMES)
RR = (
    *(f"rr: {p:g} quantile over median" for p in (0.05, 0.25, 0.75, 0.95)),
    *(f"rr: {p:g} quantile of changes" for p in (0.25, 0.5, 0.75, 0.9)),
    *(f"rr: Lorenz cell {i} {j}" for i in range(4) for j in range(4)),
    *("rr: early, then late", "rr: sample entropy", "rr: shortest, s", "rr: longest, s"),
)
SHAPE = (
    *(f"shape: power {low:g}-{high:g} Hz" for low, high in pairwise(BANDS_HZ)),
    *("shape: peak, Hz", "shape: skewness", "shape: kurtosis", "shape: spread, mV", "shape: largest, mV"),
    *("shape: least spread, mV", "shape: most spread, mV", "shape: most spread over median"),
    *("shape: least steepness", "shape: median steepness", "shape: most steepness"),
    *("shape: median height, mV", "shape: most height over median"),
    *(f"shape: {p:g} quantile over spread" for p in (0.01, 0.05, 0.95, 0.99)),
    "shape: seconds",
)
NEED_GAIN = frozenset((*IN_MILLIVOLTS, *(name for name in SHAPE if name.endswith("mV"))))
"""Measures that mean nothing where the gain is unknown."""

_NEED_NAMES = (*(f"{lead}_" for lead in STANDARD_LEADS), "qrs_axis", "t_axis", "qrs_t_angle", "sokolow", "cornell")
_ANY_LEAD = tuple(name for name in MEASURES if not name.startswith((*_NEED_NAMES, "transition")))

ONE_LEAD = (*_ANY_LEAD, *RR_BASIC, *RR, *SHAPE)
"""All that can be measured in one lead, whatever its name."""

KNOWN = frozenset((*MEASURES, *ONE_LEAD))


class Measured:
    """A prepared record and its beats, whose windows are measured once for all who ask.

    Parameters
    ----------
    prepared : Record
        As `anyecg.prepare` returns it; any leads.
    rhythm : Rhythm
        Of the same record; its lead gives the shape, without one the first lead.
    """

    def __init__(self, prepared: Record, rhythm: Rhythm) -> None:
        self.prepared, self.rhythm = prepared, rhythm
        self._found: dict[tuple[tuple[str, ...], float, float], dict[str, float]] = {}

    def window(
        self,
        names: tuple[str, ...],
        start_s: float,
        end_s: float,
        leads: tuple[str, ...] | None = None,
        *,
        any_gain: bool = False,
    ) -> np.ndarray:
        """Return measures of one window.

        Parameters
        ----------
        names : tuple of str
            Of `KNOWN`.
        start_s, end_s : float
        leads : tuple of str, optional
            Those that are measured; default: all.
        any_gain : bool
            Millivolts, too, where the gain is not known: to be divided by each other.

        Returns
        -------
        ndarray of float32, shape (len(names),)
            NaN where a measure cannot be taken: too few beats, a lead that is not there, a gain that is not known.
        """
        leads = self.prepared.leads if leads is None else leads
        end_s = min(end_s, self.prepared.n_samples / self.prepared.fs)
        found = self._found.setdefault((leads, start_s, end_s), {})
        if not found.keys() >= set(names):
            self._measure(found, names, self.prepared.pick(leads), start_s, end_s)
        if any_gain or self.prepared.gain_known:
            return np.array([found[name] for name in names], dtype=np.float32)
        return np.array([np.nan if name in NEED_GAIN else found[name] for name in names], dtype=np.float32)

    def _measure(
        self, found: dict[str, float], names: tuple[str, ...], record: Record, start_s: float, end_s: float
    ) -> None:
        """Add what is missing: the classical measures, then all others."""
        cut = record.with_(signal=record.signal[:, round(start_s * record.fs) : round(end_s * record.fs)])
        lead, peaks_s = self.rhythm.lead, self.rhythm.r_peaks_s
        peaks_s = peaks_s[(peaks_s >= start_s) & (peaks_s < end_s)]
        if not found:
            found |= zip(MEASURES, measure(cut, Rhythm(peaks_s - start_s, lead=lead)).tolist(), strict=True)
        if not found.keys() >= set(names):
            row = cut.leads.index(lead) if lead in cut.leads else 0
            found |= zip(RR_BASIC, rr_features.rr_features(peaks_s, start_s, end_s).tolist(), strict=True)
            found |= zip(RR, _rr(peaks_s).tolist(), strict=True)
            found |= zip(SHAPE, _shape(cut.signal[row : row + 1], cut.fs).tolist(), strict=True)


def window_measures(
    names: tuple[str, ...], prepared: Record, rhythm: Rhythm, start_s: float, end_s: float
) -> np.ndarray:
    """Return measures of a single window, as `Measured.window` does."""
    return Measured(prepared, rhythm).window(names, start_s, end_s)


def _rr(peaks_s: np.ndarray) -> np.ndarray:
    """Describe RR intervals further: quantiles, shares of changes, runs, sample entropy, a Lorenz plot's cells."""
    rr = np.diff(peaks_s)
    rr = rr[(rr > 0.25) & (rr < 3.0)]
    if len(rr) < 4:
        return np.full(len(RR), np.nan)
    median = np.median(rr)
    change = np.diff(rr) / median
    quantiles = np.quantile(rr / median, (0.05, 0.25, 0.75, 0.95))
    steps = np.quantile(np.abs(change), (0.25, 0.5, 0.75, 0.9))
    pairs = np.stack([change[:-1], change[1:]])
    # A Lorenz plot of changes: a beat too early and its pause lie far from the middle, fibrillation is spread all over.
    row, column = np.searchsorted(LORENZ_EDGES, pairs, side="right")
    cells = np.bincount(4 * row + column, minlength=16)
    early = (rr[1:-1] < 0.85 * rr[:-2]) & (rr[2:] > 1.1 * rr[1:-1])
    return np.concatenate(
        [
            *(quantiles, steps, cells / max(pairs.shape[1], 1)),
            [early.mean(), _sample_entropy(rr, 0.1 * median), rr.min(), rr.max()],
        ]
    )


def _sample_entropy(x: np.ndarray, tolerance: float) -> float:
    """Return -log of the share of pairs alike at two places in a row that stay so at the third."""
    if len(x) < 5:
        return np.nan
    alike = np.abs(x[:, None] - x[None]) < tolerance
    two = alike[:-2, :-2] & alike[1:-1, 1:-1]
    three = two & alike[2:, 2:]
    n = len(two)  # each place is alike to itself
    return float(-np.log((three.sum() - n + 1) / (two.sum() - n + 1)))


def _shape(signal: np.ndarray, fs: float) -> np.ndarray:
    """Describe a lead (1, n_samples) without its beats: spectrum, moments, noise in its noisiest stretches."""
    lead = np.nan_to_num(bridge_gaps(signal)[0].astype(np.float64))
    size = round(PIECE_S * fs)
    if len(lead) < size or not lead.any():
        return np.full(len(SHAPE), np.nan)
    hz, power = _welch(lead, fs)
    share = power / (power[(hz >= BANDS_HZ[0]) & (hz < BANDS_HZ[-1])].sum() + 1e-12)
    bands = [share[(hz >= low) & (hz < high)].sum() for low, high in pairwise(BANDS_HZ)]
    pieces = lead[: len(lead) // size * size].reshape(-1, size)
    spread = pieces.std(axis=1)
    steep = np.abs(np.diff(pieces, axis=1)).mean(axis=1) / (spread + 1e-9)
    height = np.ptp(pieces, axis=1)
    centred = lead - lead.mean()
    squared = np.square(centred)  # powers by multiplication: ** 3 takes as long as all else
    variance = squared.mean()
    return np.array(
        [
            *bands,
            hz[power.argmax()],
            (squared * centred).mean() / variance**1.5,
            np.square(squared).mean() / variance**2 - 3,
            *(lead.std(), np.abs(lead).max()),
            *(spread.min(), spread.max(), spread.max() / (np.median(spread) + 1e-9)),
            *(steep.min(), np.median(steep), steep.max()),
            *(np.median(height), height.max() / (np.median(height) + 1e-9)),
            *np.quantile(lead / (lead.std() + 1e-9), (0.01, 0.05, 0.95, 0.99)),
            len(lead) / fs,
        ]
    )


def _welch(lead: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and power densities as scipy.signal.welch does with its defaults and windows of 4 s."""
    size = min(len(lead), round(WELCH_S * fs))
    step = size - size // 2
    cuts = np.lib.stride_tricks.sliding_window_view(lead, size)[::step]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    spectrum = np.fft.rfft((cuts - cuts.mean(axis=1, keepdims=True)) * window)
    power = np.square(np.abs(spectrum)) / (fs * np.square(window).sum())
    power[:, 1 : len(power[0]) - (size % 2 == 0)] *= 2  # all but 0 Hz and, of an even number, the last stand for two
    return np.fft.rfftfreq(size, 1 / fs), power.mean(axis=0)
