"""Fits `anyecg.beat_check`: what tells QRS complexes from what a detector takes for them.

    python -m anyecg.training.beat_check data

prints how beats are found on training patients left out, and the numbers to put into `anyecg.beat_check`. The second
round is fitted on what the first one, fitted on other patients, leaves. Training patients are DS1 of MIT-BIH, as
recorded and with noise mixed in as nst does (Moody 1984, Computers in Cardiology 11:381-384); the stretches of the
noise recordings that are kept for validation and tests are not used. Each record is seen with all its leads, and with
the first alone.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anyecg.beat_check import FEWEST, ROUNDS, candidate_features, left_standing
from anyecg.beats import SAME_BEAT_S, candidates
from anyecg.metrics import match_events
from anyecg.quality import assess
from anyecg.record import Record
from anyecg.result import Quality
from anyecg.signals import prepare
from anyecg.training.datasets import BEATS_DATABASE, NOISE_DATABASE, NOISE_SPLIT_AT, READERS_OF, read_splits
from anyecg.training.marks import read_beats

NOISY_S = ((300.0, 420.0), (540.0, 660.0))
"""Of each record that noise is added to, its first eleven minutes: where."""

NOISES = (("em", 6.0), ("em", 0.0), ("ma", 6.0), ("ma", 0.0))
"""Electrode motion and muscle: kind, and the ratio of (QRS height)^2 / 8 to the noise's power, dB."""

AS_RECORDED = "as recorded"
CLEAN_WEIGHT = 0.15
"""Of a candidate of a record as it is: there are seven times as many."""

NO_BEATS = ("207",)
"""Records not learned from: flutter waves of the ventricles, which are marked, but not as beats."""

PART_S = 600.0
"""Beats of so much are found together, as `anyecg.Stream` does."""

N_FOLDS = 5


@dataclass
class Part:
    """Candidates found together: from which second, and what `anyecg.beat_check` is asked of."""

    start_s: float
    peaks: np.ndarray
    bands: np.ndarray
    voted: np.ndarray


@dataclass
class Recording:
    """One record in one condition: its beats, where they count (inside the noise), its candidates."""

    name: str
    condition: str
    beats_s: np.ndarray
    spans_s: tuple[tuple[float, float], ...]
    parts: list[Part]
    fs: float

    def inside(self, at_s: np.ndarray) -> np.ndarray:
        """Return which times count."""
        return np.asarray(np.any([(at_s >= a) & (at_s < b) for a, b in self.spans_s], axis=0))


@dataclass
class Seen:
    """The n candidates of a recording that one round looks at: seconds, features (n, F), which are beats, and count."""

    at_s: np.ndarray
    features: np.ndarray
    beat: np.ndarray
    counts: np.ndarray


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
    some = [c for name in _names(data) for c in recordings(data, name)]
    kept = [[np.arange(len(part.peaks)) for part in c.parts] for c in some]
    print(_fared("unchecked", some, [_times(c, k) for c, k in zip(some, kept, strict=True)]))
    fitted = []
    for number, shipped in enumerate(ROUNDS, start=1):
        seen = [seen_of(c, k) for c, k in zip(some, kept, strict=True)]
        likely = _left_out(some, seen)
        kept = [_standing(c, k, p, shipped.least_probability) for c, k, p in zip(some, kept, likely, strict=True)]
        print(_fared(f"round {number}", some, [_times(c, k) for c, k in zip(some, kept, strict=True)]))
        weights, bias = fitted_on(some, seen)
        numbers = ", ".join(f"{weight:.4f}" for weight in weights)
        fitted.append(f"    Round({shipped.least_probability}, {bias:.4f}, ({numbers})),")
    print("\n".join(["ROUNDS = (", *fitted, ")"]))


def _names(data: Path) -> list[str]:
    splits = read_splits(data / "splits.csv")[BEATS_DATABASE]
    return [name for name, (_, split) in splits.items() if split == "train"]


def recordings(data: Path, name: str) -> Iterator[Recording]:
    """Yield one record in every condition, with all leads and with the first."""
    raw = READERS_OF[BEATS_DATABASE](data / BEATS_DATABASE)(name)[0]
    beats_s = read_beats(data / BEATS_DATABASE / name)[0]
    noise = stress_noise(data, "train")
    as_it_is = [(AS_RECORDED, raw, ((0.0, raw.duration_s),))]
    noisy = [
        (f"{k} {snr_db:g} dB", stressed(raw, beats_s, noise[k], snr_db, int(name)), NOISY_S) for k, snr_db in NOISES
    ]
    for condition, record, spans_s in (*as_it_is, *noisy):
        for leads, seen in (("all leads", record), ("first lead", record.pick(record.leads[:1]))):
            prepared = prepare(seen)
            parts = list(_parts(prepared, assess(seen, prepared)))
            yield Recording(name, f"{condition}, {leads}", beats_s, spans_s, parts, prepared.fs)


def _parts(prepared: Record, quality: Quality) -> Iterator[Part]:
    fs = prepared.fs
    n_parts = max(1, round(prepared.duration_s / PART_S))  # the last may be a little longer than the others
    for start_s in (PART_S * np.arange(n_parts)).tolist():
        last = round((start_s + PART_S) * fs) if start_s < PART_S * (n_parts - 1) else prepared.n_samples
        peaks, bands, voted = candidates(prepared.with_(signal=prepared.signal[:, round(start_s * fs) : last]), quality)
        if len(peaks) >= FEWEST:
            yield Part(start_s, peaks, bands.astype(np.float32), voted)


def seen_of(recording: Recording, kept: list[np.ndarray]) -> Seen:
    """Describe the candidates that are left of each part."""
    features = [
        candidate_features(part.peaks[k], part.bands, part.voted[:, k], recording.fs)
        for part, k in zip(recording.parts, kept, strict=True)
    ]
    at_s = _times(recording, kept)
    beat = np.zeros(len(at_s), dtype=bool)
    beat[match_events(recording.beats_s, at_s, SAME_BEAT_S)[:, 1]] = True
    return Seen(at_s, np.concatenate(features), beat, recording.inside(at_s))


def _times(recording: Recording, kept: list[np.ndarray]) -> np.ndarray:
    """Return the seconds of the candidates that are left."""
    return np.concatenate(
        [part.start_s + part.peaks[k] / recording.fs for part, k in zip(recording.parts, kept, strict=True)]
    )


def _left_out(some: list[Recording], seen: list[Seen]) -> list[np.ndarray]:
    """Return the probability of each candidate, by a fit on other patients."""
    names = sorted({c.name for c in some})
    likely: list[np.ndarray] = [np.empty(0)] * len(some)
    for fold in range(N_FOLDS):
        out = names[fold::N_FOLDS]
        learned = [i for i, c in enumerate(some) if c.name not in out]
        weights, bias = fitted_on([some[i] for i in learned], [seen[i] for i in learned])
        for i in sorted(set(range(len(some))) - set(learned)):
            likely[i] = 1 / (1 + np.exp(-(seen[i].features @ weights + bias)))
    return likely


def _standing(recording: Recording, kept: list[np.ndarray], likely: np.ndarray, least: float) -> list[np.ndarray]:
    """Return what of each part is left after a round; a part with too few candidates for the next stays as it is."""
    ends = np.cumsum([len(k) for k in kept])[:-1]
    standing = [
        k[left_standing(part.peaks[k] / recording.fs, p, least)]
        for part, k, p in zip(recording.parts, kept, np.split(likely, ends), strict=True)
    ]
    return [new if len(new) >= FEWEST else old for new, old in zip(standing, kept, strict=True)]


def _fared(step: str, some: list[Recording], times_s: list[np.ndarray]) -> str:
    """Return a line for each condition: F1, beats missed, and false ones."""
    rows: dict[str, np.ndarray] = {}
    for c, at_s in zip(some, times_s, strict=True):
        if c.name in NO_BEATS:
            continue
        counts = c.inside(at_s)
        right = int(counts[match_events(c.beats_s, at_s, SAME_BEAT_S)[:, 1]].sum())
        row = np.array([right, int(c.inside(c.beats_s).sum()) - right, int(counts.sum()) - right])
        rows[c.condition] = rows.get(c.condition, np.zeros(3, dtype=int)) + row
    return "\n".join(
        f"{step}, {name}: F1 {2 * right / (2 * right + missed + false):.4f}, {missed} missed, {false} false"
        for name, (right, missed, false) in rows.items()
    )


def fitted_on(some: list[Recording], seen: list[Seen]) -> tuple[np.ndarray, float]:
    """Fit on standardised features; return weights of the features as they are, and the bias."""
    from sklearn.linear_model import LogisticRegression

    learned = [(c, s) for c, s in zip(some, seen, strict=True) if c.name not in NO_BEATS]
    x = np.concatenate([s.features[s.counts] for _, s in learned])
    y = np.concatenate([s.beat[s.counts] for _, s in learned])
    share = [CLEAN_WEIGHT if c.condition.startswith(AS_RECORDED) else 1.0 for c, _ in learned]
    weight = np.repeat(share, [int(s.counts.sum()) for _, s in learned])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    found = LogisticRegression(max_iter=1000).fit((x - mean) / spread, y, sample_weight=weight)
    weights = found.coef_[0] / spread
    return weights, float(found.intercept_[0] - weights @ mean)


if __name__ == "__main__":
    fit(Path(sys.argv[1]))
