"""Labelled records -> windows of codes that heads are fitted to.

Codes of a lead do not depend on the other leads, so records are tokenised once and leads are left out later, for
nothing. Noise and shifts change codes: each training record is tokenised in a few varied *views*.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from anyecg.beats import find_beats
from anyecg.engine import Model
from anyecg.record import Record
from anyecg.tasks.rr_features import rr_features
from anyecg.training.batches import mixed_in


@dataclass
class Example:
    """One prepared record, its labels (n_labels,) float32 (1, 0, NaN = not known) and its patient."""

    record: Record
    labels: np.ndarray
    patient: str


@dataclass
class Examples:
    """N windows of R records: L leads (of the record with most), P fragments (of the longest window), K levels.

    ``codes`` int16 (N, L, P, K), ``valid`` bool (N, L, P), ``lead_ids`` int64 (N, L), ``log_scale`` float32 (N, L),
    ``gain_known`` bool (N,), ``features`` float32 (N, F), ``record`` int64 (N,) which record; ``labels`` float32
    (R, C), ``patients`` (R,).
    """

    codes: np.ndarray
    valid: np.ndarray
    lead_ids: np.ndarray
    log_scale: np.ndarray
    gain_known: np.ndarray
    features: np.ndarray
    record: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def of_records(self, chosen: np.ndarray) -> "Examples":
        """Return the windows of some records (indices), which are numbered anew."""
        number = np.full(len(self.labels), -1)
        number[chosen] = np.arange(len(chosen))
        rows = number[self.record] >= 0
        return Examples(
            codes=self.codes[rows],
            valid=self.valid[rows],
            lead_ids=self.lead_ids[rows],
            log_scale=self.log_scale[rows],
            gain_known=self.gain_known[rows],
            features=self.features[rows],
            record=number[self.record[rows]],
            labels=self.labels[chosen],
            patients=self.patients[chosen],
        )

    def to_records(self, per_window: np.ndarray) -> np.ndarray:
        """Average what was found in each window (N, C) over each record's windows: (R, C)."""
        total = np.zeros((len(self.labels), per_window.shape[1]))
        np.add.at(total, self.record, per_window)
        return total / np.maximum(np.bincount(self.record, minlength=len(self.labels)), 1)[:, None]


def tokenise(
    model: Model,
    examples: Iterable[Example],
    varied: Callable[[Record], Record] = lambda record: record,
) -> Examples:
    """Tokenise records, cut them into the encoder's windows, find beats for the features.

    Parameters
    ----------
    model : Model
    examples : iterable of Example
    varied : callable
        Prepared record -> a varied one (see `Variation`).
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*_AXES, "features", "record")}
    labels, patients = [], []
    for number, example in enumerate(examples):
        record = varied(example.record)
        tokens = model.tokenize(record)
        windows = model.windows(tokens)
        n_windows, _, size = windows.valid.shape
        fragment_s = tokens.grid.fragment_s
        starts = windows.starts * fragment_s
        peaks = find_beats(record).r_peaks_s
        features = np.stack([rr_features(peaks, start, start + size * fragment_s) for start in starts])
        found = {
            "codes": windows.codes.astype(np.int16),
            "valid": windows.valid,
            "lead_ids": windows.lead_ids,
            "log_scale": windows.log_scale,
            "gain_known": np.full(n_windows, record.gain_known),
            "features": features,
            "record": np.full(n_windows, number),
        }
        for name, array in found.items():
            parts[name].append(array)
        labels.append(example.labels)
        patients.append(example.patient)
    joined = {name: _padded(arrays, _AXES.get(name, ())) for name, arrays in parts.items()}
    return Examples(**joined, labels=np.stack(labels), patients=np.array(patients))


_AXES = {"codes": (1, 2), "valid": (1, 2), "lead_ids": (1,), "log_scale": (1,), "gain_known": ()}
"""The axes of leads and fragments, along which windows of different records are filled up."""


def _padded(arrays: list[np.ndarray], axes: tuple[int, ...]) -> np.ndarray:
    """Join windows, filled up with zeros (not valid) to the most leads and the longest window."""
    wanted = {axis: max(array.shape[axis] for array in arrays) for axis in axes}
    return np.concatenate(
        [
            np.pad(array, [(0, wanted.get(axis, length) - length) for axis, length in enumerate(array.shape)])
            for array in arrays
        ]
    )


class Variation:
    """Vary a prepared record: shift it against the grid, mix real electrode noise in.

    Parameters
    ----------
    noise : dict of ndarray
        As `anyecg.training.datasets.load_noise` returns it; may be empty.
    snr_db : (float, float)
    noise_probability : float
    seed : int
    """

    def __init__(
        self,
        noise: dict[str, np.ndarray],
        snr_db: tuple[float, float] = (6.0, 24.0),
        noise_probability: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.noise, self.snr_db, self.noise_probability = noise, snr_db, noise_probability
        self.rng = np.random.default_rng(seed)

    def __call__(self, record: Record) -> Record:
        """Return a varied copy."""
        rng = self.rng
        first = int(rng.integers(min(150, record.n_samples // 4) + 1))
        signal = record.signal[:, first:].copy()
        if self.noise and rng.random() < self.noise_probability:
            kinds = sorted(self.noise)
            source = self.noise[kinds[rng.integers(len(kinds))]]
            snr_db = rng.uniform(*self.snr_db)
            n_samples = min(signal.shape[1], source.shape[1])
            for row in signal:
                start = int(rng.integers(source.shape[1] - n_samples + 1))
                stretch = source[rng.integers(len(source)), start : start + n_samples]
                row[:n_samples] += mixed_in(row[:n_samples], stretch, snr_db)
        return record.with_(signal=signal)
