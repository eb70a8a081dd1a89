"""Fits `anyecg.beat_check`: what tells QRS complexes from what a detector takes for them.

    python -m anyecg.training.beat_check data

prints how beats are found on training patients left out, and the numbers to put into `anyecg.beat_check`. Training
patients are DS1 of MIT-BIH, as recorded and with noise mixed in as nst does (Moody 1984, Computers in Cardiology
11:381-384); the stretches of the noise recordings that are kept for validation and tests are not used. Each record is
seen with all its leads, and with the first alone.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anyecg.beat_check import FEWEST, LEAST_PROBABILITY, WEIGHTS, candidate_features
from anyecg.beats import SAME_BEAT_S, candidates
from anyecg.metrics import match_events
from anyecg.quality import assess
from anyecg.record import Record
from anyecg.signals import prepare
from anyecg.training.datasets import BEATS_DATABASE, NOISE_DATABASE, NOISE_SPLIT_AT, READERS_OF, read_splits
from anyecg.training.marks import read_beats

NOISY_S = ((300.0, 420.0), (540.0, 660.0))
"""Of each record that noise is added to, its first eleven minutes: where."""

NOISES = (("em", 6.0), ("em", 0.0), ("ma", 6.0), ("ma", 0.0))
"""Electrode motion and muscle: kind, and the ratio of (QRS height)^2 / 8 to the noise's power, dB."""

CLEAN_WEIGHT = 0.15
"""Of a candidate of a record as it is: there are seven times as many."""

NO_BEATS = ("207",)
"""Records not learned from: flutter waves of the ventricles, which are marked, but not as beats."""

PART_S = 600.0
"""Beats of so much are found together, as `anyecg.Stream` does."""

N_FOLDS = 5


@dataclass
class Candidates:
    """The n candidates of one recording: seconds, features (n, F), which are beats, which count (inside the noise)."""

    name: str
    condition: str
    at_s: np.ndarray
    features: np.ndarray
    beat: np.ndarray
    counts: np.ndarray
    n_beats: int


def stress_noise(data: Path, split: str) -> dict[str, Record]:
    """Return a split's stretch of the noise recordings, by kind (``bw em ma``), in their own units."""
    read, found = READERS_OF[BEATS_DATABASE](data / NOISE_DATABASE), {}
    for kind in ("bw", "em", "ma"):
        record = read(kind)[0]
        first, last = (round(share * record.n_samples) for share in NOISE_SPLIT_AT[split])
        found[kind] = record.with_(signal=record.signal[:, first:last])
    return found


def stressed(record: Record, beats_s: np.ndarray, noise: Record, snr_db: float, seed: int) -> Record:
    """Return the first minutes of a record with noise mixed in at `NOISY_S`.

    Each lead has a stretch of its own of either channel, freed of its mean, whose power is the square of the lead's
    height over 8, divided by the ratio; the height is the median peak-to-peak value of 100 ms about its beats.
    """
    rng = np.random.default_rng(seed)
    fs = record.fs
    signal = record.signal[:, : round(NOISY_S[-1][1] * fs)].astype(np.float64)
    half = round(0.05 * fs)
    at = np.round(beats_s * fs).astype(int)
    at = at[(at >= half) & (at + half < signal.shape[1])]
    for row in signal:
        heights = np.ptp(row[at[:, None] + np.arange(-half, half + 1)], axis=1)
        power = np.median(heights) ** 2 / 8 / 10 ** (snr_db / 10)
        for start_s, end_s in NOISY_S:
            part = slice(round(start_s * fs), round(end_s * fs))
            first = int(rng.integers(noise.n_samples - (part.stop - part.start)))
            added = noise.signal[rng.integers(noise.n_leads), first : first + part.stop - part.start].astype(np.float64)
            added = added - added.mean()
            row[part] += added * np.sqrt(power / np.square(added).mean())
    return record.with_(signal=signal.astype(np.float32))


def fit(data: Path) -> None:
    """Print how left-out training patients fare, and what was fitted on all of them."""
    some = [c for name in _names(data) for c in _recordings(data, name)]
    names = sorted({c.name for c in some})
    kept: dict[str, np.ndarray] = {}
    for fold in range(N_FOLDS):
        out = names[fold::N_FOLDS]
        weights, bias = _fitted([c for c in some if c.name not in out])
        for c in some:
            if c.name in out:
                likely = 1 / (1 + np.exp(-(c.features @ weights + bias))) >= LEAST_PROBABILITY
                for key, chosen in (("unchecked", np.ones_like(likely)), ("checked", likely)):
                    counted = chosen & c.counts
                    right = int((c.beat & counted).sum())
                    row = np.array([right, c.n_beats - right, int(counted.sum()) - right])
                    kept[f"{c.condition}, {key}"] = kept.get(f"{c.condition}, {key}", 0) + row
    for name, (right, missed, false) in kept.items():
        print(f"{name}: F1 {2 * right / (2 * right + missed + false):.4f}, {missed} missed, {false} false")
    weights, bias = _fitted(some)
    print("WEIGHTS = {")
    for name, weight in zip(WEIGHTS, weights, strict=True):
        print(f'    "{name}": {weight:.4f},')
    print(f"}}\nBIAS = {bias:.4f}")


def _names(data: Path) -> list[str]:
    splits = read_splits(data / "splits.csv")[BEATS_DATABASE]
    return [name for name, (_, split) in splits.items() if split == "train"]


def _recordings(data: Path, name: str) -> Iterator[Candidates]:
    """Yield the candidates of one record in every condition, with all leads and with the first."""
    raw = READERS_OF[BEATS_DATABASE](data / BEATS_DATABASE)(name)[0]
    beats_s = read_beats(data / BEATS_DATABASE / name)[0]
    noise = stress_noise(data, "train")
    as_it_is = [("as recorded", raw, ((0.0, raw.duration_s),))]
    noisy = [
        (f"{k} {snr_db:g} dB", stressed(raw, beats_s, noise[k], snr_db, int(name)), NOISY_S) for k, snr_db in NOISES
    ]
    for condition, record, spans_s in (*as_it_is, *noisy):
        for leads, seen in (("all leads", record), ("first lead", record.pick(record.leads[:1]))):
            at_s, features = _described(seen)
            inside = np.any([(at_s >= a) & (at_s < b) for a, b in spans_s], axis=0)
            beat = np.zeros(len(at_s), dtype=bool)
            beat[match_events(beats_s, at_s, SAME_BEAT_S)[:, 1]] = True
            n_beats = sum(int(((beats_s >= a) & (beats_s < b)).sum()) for a, b in spans_s)
            yield Candidates(name, f"{condition}, {leads}", at_s, features, beat, inside, n_beats)


def _described(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of a recording's candidates, and their features, part by part."""
    prepared = prepare(record)
    quality, fs = assess(record, prepared), prepared.fs
    times, features = [], []
    n_parts = max(1, round(prepared.duration_s / PART_S))  # the last may be a little longer than the others
    for start_s in PART_S * np.arange(n_parts):
        last = round((start_s + PART_S) * fs) if start_s < PART_S * (n_parts - 1) else prepared.n_samples
        part = prepared.with_(signal=prepared.signal[:, round(start_s * fs) : last])
        peaks, bands, voted = candidates(part, quality)
        if len(peaks) >= FEWEST:
            times.append(start_s + peaks / fs)
            features.append(candidate_features(peaks, bands, voted, fs))
    return np.concatenate(times), np.concatenate(features)


def _fitted(some: list[Candidates]) -> tuple[np.ndarray, float]:
    """Fit on standardised features; return weights of the features as they are, and the bias."""
    from sklearn.linear_model import LogisticRegression

    learned = [c for c in some if c.name not in NO_BEATS]
    x = np.concatenate([c.features[c.counts] for c in learned])
    y = np.concatenate([c.beat[c.counts] for c in learned])
    share = [CLEAN_WEIGHT if c.condition.startswith("as recorded") else 1.0 for c in learned]
    weight = np.repeat(share, [int(c.counts.sum()) for c in learned])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    found = LogisticRegression(max_iter=1000).fit((x - mean) / spread, y, sample_weight=weight)
    weights = found.coef_[0] / spread
    return weights, float(found.intercept_[0] - weights @ mean)


if __name__ == "__main__":
    fit(Path(sys.argv[1]))
