"""Beats with rhythm marks -> the head that tells atrial fibrillation from RR intervals; and how it is measured.

    anyecg train-heads src/anyecg/weights/nano rr_rhythm

Trained on crops of the beat annotations of patients of split train. Beats are dropped, added and moved, as detectors
do; split val chooses the step and the temperature (arXiv 1706.04599). Two networks answer together, and only one of
them sees the entropy: what one takes for fibrillation in a patient unlike the others, the other may not. What makes an
episode is chosen on split val and, among its equals there, on patients of split train, each scored by networks trained
on the other half of them.

Shapes: B crops, F features, N beats, D width.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor, nn

from anyecg.codes import table
from anyecg.heads import write_head
from anyecg.models.export import OneRow, quietly_exported
from anyecg.tasks.episodes import covered_until, seconds_of
from anyecg.tasks.rhythm import (
    HEAD,
    N_FEATURES,
    NETWORK_REACH_BEATS,
    SHORTEST_AF_S,
    EpisodeRule,
    af_episodes,
    convincing,
    evidence_of,
    irregularity,
    rr_features,
)
from anyecg.training.beat_series import AF, UNKNOWN, BeatSeries, load_series
from anyecg.training.datasets import RHYTHM_DATABASES

CROP_BEATS, LEAST_BEATS = 1024, 10
DILATIONS = (1, 2, 4, 8, 16, 32, 64)
WIDTH, KERNEL = 32, 5
SEEN = (N_FEATURES - 1, N_FEATURES)
"""How many of the features each network sees: the last of them is the entropy."""

JOINS_S = (0.0, 10.0, 30.0)
"""Stretches of fibrillation nearer than one of these are joined; see `merits`."""

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(2, 11))
LOG_ODDS_WEIGHTS, LEASTS = (0.1, 0.2, 0.3), (-1.6, -1.4, -1.2, -1.0, -0.8, -0.6)
"""What the network's threshold, and the evidence asked of an episode, are chosen from."""

EQUAL_MERIT = 0.005
"""Rules this near to the best on split val are its equals: hardly an episode there is false, with any of them."""

Choice = TypeVar("Choice")

TRAINED_ON = [
    "Long-Term AF Database, Petrutiu 2007, doi:10.13026/C2QG6Q, ODC-By 1.0 (annotations)",
    "MIT-BIH Normal Sinus Rhythm Database, doi:10.13026/C2NK5R, ODC-By 1.0 (annotations)",
    "MIT-BIH Arrhythmia Database, Moody 2001, doi:10.1109/51.932724, ODC-By 1.0 (DS1, annotations)",
]


class RRNetwork(nn.Module):
    """features (B, F, N) -> logit of atrial fibrillation at each beat (B, N).

    Residual dilated convolutions (arXiv 1803.01271, not causal): nothing depends on the length, so the answer at a beat
    depends on ``NETWORK_REACH_BEATS`` to either side alone. Where nothing is known, zeros stand, as beyond the ends.
    Of the features it sees the first ``n_seen``.
    """

    def __init__(self, n_seen: int = N_FEATURES) -> None:
        super().__init__()
        self.n_seen = n_seen
        self.first = nn.Conv1d(n_seen, WIDTH, 1)
        self.spread = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2 * dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.mix = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in DILATIONS)
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in DILATIONS)
        self.answer = nn.Conv1d(WIDTH, 1, 1)
        assert sum(KERNEL // 2 * dilation for dilation in DILATIONS) == NETWORK_REACH_BEATS

    def forward(self, features: Tensor) -> Tensor:
        """Answer."""
        hidden = self.first(features[:, : self.n_seen])  # (B, D, N)
        for spread, mix, norm in zip(self.spread, self.mix, self.norms, strict=True):
            hidden = hidden + mix(F.gelu(spread(norm(hidden))))
        return self.answer(F.gelu(hidden)).squeeze(1)  # (B, N)


class Together(nn.Module):
    """features (B, F, N) -> logit (B, N): the mean of networks that learned apart."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, features: Tensor) -> Tensor:
        """Answer."""
        return torch.stack([network(features) for network in self.networks]).mean(dim=0)


class Calibrated(nn.Module):
    """A network and its temperature: features (B, F, N) -> probability (B, N)."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        """Answer."""
        return torch.sigmoid(self.network(features) / self.temperature)


class Crops:
    """Draws crops of beats: patients alike, and of each patient as much fibrillation as not, where there is both."""

    def __init__(self, series: list[BeatSeries], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.series = series
        of_label = [
            [(i, at) for i, one in enumerate(series) if len(at := np.flatnonzero(one.labels() == label))]
            for label in (0, 1)
        ]
        self.centres = [of_one or of_label[1 - label] for label, of_one in enumerate(of_label)]

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return features (B, F, N) and labels (B, N)."""
        drawn = [self.crop(label=k % 2) for k in range(size)]
        features, labels = zip(*drawn, strict=True)
        return torch.from_numpy(np.stack(features)), torch.from_numpy(np.stack(labels))

    def crop(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one crop that holds a beat of this label: features (F, N), labels (N,)."""
        rng = self.rng
        number, centres = self.centres[label][rng.integers(len(self.centres[label]))]
        one = self.series[number]
        n_beats = CROP_BEATS if rng.random() < 0.75 else int(rng.integers(20, 300))  # short recordings, too
        first = int(centres[rng.integers(len(centres))] - rng.integers(n_beats))
        beats_s = one.beats_s[max(first, 0) : max(first, 0) + n_beats]
        if len(beats_s) >= LEAST_BEATS:
            beats_s = disturbed(beats_s, rng)[:CROP_BEATS]
        features = np.zeros((N_FEATURES, CROP_BEATS), dtype=np.float32)
        labels = np.full(CROP_BEATS, -1, dtype=np.int64)
        offset = int(rng.integers(max(CROP_BEATS - len(beats_s), 0) + 1))
        features[:, offset : offset + len(beats_s)] = rr_features(beats_s)
        features[1] += features[3] * rng.uniform(-0.15, 0.15)  # at another rate
        labels[offset : offset + len(beats_s)] = one.labels(beats_s)
        return features, labels


def disturbed(beats_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return beats as a detector might have found them: moved, missed, invented."""
    beats_s = beats_s + rng.uniform(-0.004, 0.004, len(beats_s))  # the marks are a sample of 1/128 s apart
    if rng.random() < 0.5:
        missed, invented = rng.uniform(0, 0.05, 2)
        kept = beats_s[rng.random(len(beats_s)) >= missed]
        extra = rng.uniform(beats_s[0], beats_s[-1], rng.poisson(invented * len(beats_s)))
        beats_s = np.sort(np.concatenate([kept, extra]))
        beats_s = beats_s[np.concatenate(([True], np.diff(beats_s) > 0.15))]
    if rng.random() < 0.15:  # noise: for some seconds beats come at random
        start_s = rng.uniform(beats_s[0], beats_s[-1])
        end_s = start_s + rng.uniform(3, 30)
        noise_s = rng.uniform(start_s, end_s, rng.poisson(1.5 * (end_s - start_s)))
        beats_s = np.sort(np.concatenate([beats_s[(beats_s < start_s) | (beats_s > end_s)], noise_s]))
        beats_s = beats_s[np.concatenate(([True], np.diff(beats_s) > 0.2))]
    return beats_s


@dataclass(frozen=True)
class RhythmSettings:
    """How the head is trained."""

    steps: int = 600
    batch_size: int = 24
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    check_every: int = 150
    seed: int = 0


def train_together(
    train: list[BeatSeries],
    val: list[BeatSeries],
    settings: RhythmSettings,
    kept: Path | None = None,
    progress: Callable[[str], None] = print,
) -> Together:
    """Train a network for each of `SEEN`, one after the other."""
    networks = []
    for n_seen in SEEN:
        mine = kept.with_name(f"{kept.stem}-of-{n_seen}{kept.suffix}") if kept is not None else None
        progress(f"a network that sees {n_seen} features")
        networks.append(train_network(train, val, settings, mine, progress, n_seen))
    return Together(networks)


def train_network(
    train: list[BeatSeries],
    val: list[BeatSeries],
    settings: RhythmSettings,
    kept: Path | None = None,
    progress: Callable[[str], None] = print,
    n_seen: int = N_FEATURES,
) -> RRNetwork:
    """Train; return the network of the step with the least loss on ``val``.

    With a file to keep its state in, an interrupted training goes on where it last looked at ``val``.
    """
    torch.manual_seed(settings.seed)
    network, crops = RRNetwork(n_seen), Crops(train, settings.seed)
    warmup = min(50, settings.steps / 10)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(step / settings.steps, 1)))
    )
    stateful: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    done, best, best_loss = 0, network.state_dict(), math.inf
    if kept is not None and kept.is_file():
        state = torch.load(kept, weights_only=True)
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        crops.rng.bit_generator.state = state["rng"]
        done, best, best_loss = state["done"], state["best"], state["best_loss"]
    for step in range(done + 1, settings.steps + 1):
        features, labels = crops.batch(settings.batch_size)
        loss = masked_loss(network.train()(features), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % settings.check_every == 0 or step == settings.steps:
            of_val = series_loss([logits_of(network, one) for one in val], val, 1.0)
            progress(f"step {step} of {settings.steps}: loss {loss.item():.4f}, val {of_val:.4f}")
            if of_val < best_loss:
                best, best_loss = copy.deepcopy(network.state_dict()), of_val
            if kept is not None:
                state = {name: part.state_dict() for name, part in stateful.items()}
                state |= {"rng": crops.rng.bit_generator.state, "done": step, "best": best, "best_loss": best_loss}
                torch.save(state, kept)
    network.load_state_dict(best)
    return network.eval()


def masked_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy (nats) over beats of known rhythm: logits (B, N), labels (B, N)."""
    known = labels >= 0
    return F.binary_cross_entropy_with_logits(logits[known], labels[known].to(logits.dtype))


def logits_of(network: nn.Module, one: BeatSeries) -> np.ndarray:
    """Return the logit at every beat of a recording (n_beats,)."""
    with torch.inference_mode():
        features = torch.from_numpy(rr_features(one.beats_s))[None]
        return np.asarray(network.eval()(features)[0])


def series_loss(logits: list[np.ndarray], series: list[BeatSeries], temperature: float) -> float:
    """Return the mean over recordings of their cross entropy, nats a beat."""
    losses = []
    for logit, one in zip(logits, series, strict=True):
        labels = one.labels()
        scaled = np.where(labels == 1, -logit, logit)[labels >= 0] / temperature
        losses.append(float(np.logaddexp(0, scaled).mean()))
    return float(np.mean(losses))


def choose_temperature(logits: list[np.ndarray], series: list[BeatSeries]) -> float:
    """Return the temperature of the least loss on validation records, from a grid of 5 % steps."""
    grid = np.exp(np.arange(-20, 31) * 0.05)
    return float(grid[np.argmin([series_loss(logits, series, float(t)) for t in grid])])


def choose(of_val: dict[Choice, float], of_left_out: dict[Choice, float] | None = None) -> Choice:
    """Return the choice of most merit on split val; among its equals there, of most merit on patients left out."""
    least = max(of_val.values()) - (EQUAL_MERIT if of_left_out else 1e-6)
    return max((one for one in of_val if of_val[one] >= least), key=(of_left_out or of_val).__getitem__)


def merits(
    scores: list[np.ndarray], series: list[BeatSeries], thresholds: Sequence[float], *, by_evidence: bool = False
) -> dict[EpisodeRule, float]:
    """Return the merit that rules have on these recordings; they ask for evidence only if told to.

    Merit is the mean of what time and episodes say: `balanced_accuracy` in seconds, and the F1 of episodes of 30 s and
    more, pooled, half of it by any overlap and half by an overlap of half. Time alone would not mind a thousand false
    episodes of a minute; any overlap would not mind one episode made of many.
    """
    irregular = [irregularity(one.beats_s) for one in series] if by_evidence else []
    found = {}
    for threshold, join_s in itertools.product(thresholds, JOINS_S):
        merged = [af_episodes(one.beats_s, s, threshold, join_s) for one, s in zip(series, scores, strict=True)]
        found_s = [seconds_of(episodes, AF) for episodes in merged]
        rules, evidence = [EpisodeRule(threshold, join_s)], []
        if by_evidence:
            evidence = [
                evidence_of(episodes, one.beats_s, score, values)
                for episodes, one, score, values in zip(merged, series, scores, irregular, strict=True)
            ]
            rules += [EpisodeRule(threshold, join_s, *asked) for asked in itertools.product(LOG_ODDS_WEIGHTS, LEASTS)]
        for tried in rules:
            kept_s = found_s
            if tried.least_evidence > -math.inf:
                kept_s = [stretches[convincing(e, tried)] for stretches, e in zip(found_s, evidence, strict=True)]
            found[tried] = episode_merit(series, kept_s)
    return found


def episode_merit(series: list[BeatSeries], found_s: list[np.ndarray]) -> float:
    """Return the merit of the stretches (n, 2) found in each recording (see `merits`)."""
    names = ("true", "true_hit", "found", "found_hit")
    of_any, of_half = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for one, stretches in zip(series, found_s, strict=True):
        true_s = one.spans_s[one.codes == AF]
        for counts, least_share in ((of_any, 0.0), (of_half, 0.5)):
            for name, n in episode_counts(long_enough(true_s), true_s, stretches, least_share).items():
                counts[name] += n
    seconds = [seconds_agreed(one, stretches) for one, stretches in zip(series, found_s, strict=True)]
    return 0.5 * balanced_accuracy(seconds) + 0.25 * (episode_f1(of_any) + episode_f1(of_half))


def halves(series: list[BeatSeries]) -> np.ndarray:
    """Deal patients out to two halves: 0 or 1 for each recording; of each database half."""
    databases = {one.patient: one.database for one in series}
    dealt: dict[str, int] = {}
    for name in sorted(set(databases.values())):
        patients = sorted(patient for patient, database in databases.items() if database == name)
        dealt |= {patient: k % 2 for k, patient in enumerate(patients)}
    return np.array([dealt[one.patient] for one in series])


def left_out_probabilities(
    train: list[BeatSeries],
    val: list[BeatSeries],
    settings: RhythmSettings,
    kept: Path | None,
    progress: Callable[[str], None],
) -> list[np.ndarray]:
    """Return the probability at every beat of ``train``, from networks that never saw the patient: two halves."""
    half, found = halves(train), [np.empty(0)] * len(train)
    for k in range(2):
        mine = kept.with_name(f"{kept.stem}-without-{k}{kept.suffix}") if kept is not None else None
        rest = [one for one, of in zip(train, half, strict=True) if of != k]
        network = train_together(rest, val, settings, mine, progress)
        temperature = choose_temperature([logits_of(network, one) for one in val], val)
        for i in np.flatnonzero(half == k).tolist():
            found[i] = expit(logits_of(network, train[i]) / temperature)
    return found


def long_enough(stretches_s: np.ndarray) -> np.ndarray:
    """Return those stretches (n, 2) that are long enough to be an episode."""
    return stretches_s[stretches_s[:, 1] - stretches_s[:, 0] >= SHORTEST_AF_S]


def episode_f1(counts: dict[str, int]) -> float:
    """Return the F1 of the counts of `episode_counts`: NaN without true episodes."""
    if not counts["true"]:
        return float("nan")
    sensitivity = counts["true_hit"] / counts["true"]
    precision = counts["found_hit"] / max(counts["found"], 1)
    return 2 * sensitivity * precision / max(sensitivity + precision, 1e-12)


def seconds_agreed(one: BeatSeries, found_s: np.ndarray, code: str = AF) -> dict[str, float]:
    """Return seconds of true and false positives and negatives of found stretches (n, 2) of a rhythm.

    Time of unknown rhythm is left out, if ``code`` is atrial fibrillation; else only what has no mark is.
    """
    unknown = UNKNOWN if code == AF else ("",)
    known_s, true_s = one.spans_s[~np.isin(one.codes, unknown)], one.spans_s[one.codes == code]
    both = overlap_s(true_s, found_s)
    found_known, true, known = overlap_s(known_s, found_s), length_s(true_s), length_s(known_s)
    return {"tp": both, "fp": found_known - both, "fn": true - both, "tn": known - true - found_known + both}


def length_s(stretches_s: np.ndarray) -> float:
    """Return the total length of stretches (n, 2); overlaps count once."""
    return float(covered_until(stretches_s, np.array([np.inf]))[0]) if len(stretches_s) else 0.0


def overlap_s(first_s: np.ndarray, second_s: np.ndarray) -> float:
    """Return the length of what two sets of stretches (n, 2) share."""
    both = np.concatenate([first_s, second_s])
    return length_s(first_s) + length_s(second_s) - length_s(both)


def balanced_accuracy(each: list[dict[str, float]]) -> float:
    """Return the mean of sensitivity and specificity, each averaged over the recordings where it is defined."""
    rates = []
    for right, wrong in (("tp", "fn"), ("tn", "fp")):
        shares = [one[right] / (one[right] + one[wrong]) for one in each if one[right] + one[wrong] > 0]
        rates.append(float(np.mean(shares)) if shares else float("nan"))
    return float(np.nanmean(rates))


def episode_counts(
    true_s: np.ndarray, any_true_s: np.ndarray, found_s: np.ndarray, least_share: float = 0.0
) -> dict[str, int]:
    """Count episodes found and missed, by overlap.

    Parameters
    ----------
    true_s : ndarray, shape (n, 2)
        Episodes to be found.
    any_true_s : ndarray, shape (m, 2)
        Every marked episode, those too short to be looked for too: a finding on one of them is not false.
    found_s : ndarray, shape (k, 2)
    least_share : float
        0: any overlap counts, as in ANSI/AAMI EC57 (episode sensitivity and positive predictivity); else the
        share of an episode that must be covered.

    Returns
    -------
    dict
        ``true``, ``true_hit``, ``found``, ``found_hit``.
    """

    def hit(episodes_s: np.ndarray, by_s: np.ndarray) -> int:
        if not len(episodes_s):
            return 0
        covered = np.diff(covered_until(by_s, episodes_s), axis=1)[:, 0]
        return int((covered > least_share * (episodes_s[:, 1] - episodes_s[:, 0])).sum())

    return {
        **{"true": len(true_s), "true_hit": hit(true_s, found_s)},
        **{"found": len(found_s), "found_hit": hit(found_s, any_true_s)},
    }


def graph_of(network: nn.Module) -> bytes:
    """Export features (B, F, N) -> probability (B, N) as ONNX; N is free."""
    some = {"features": torch.zeros(1, N_FEATURES, CROP_BEATS)}
    shapes = ({2: torch.export.Dim("n_beats", min=2)},)
    return bytes(quietly_exported(OneRow(network), some, ["probability"], shapes).SerializeToString())


def train_head(
    data: Path,
    splits_csv: Path,
    checkpoint: Path,
    settings: RhythmSettings | None = None,
    kept: Path | None = None,
    progress: Callable[[str], None] = print,
) -> Path:
    """Train the head, choose on split val, write it into a checkpoint folder; return the path of its JSON."""
    settings = settings or RhythmSettings()
    progress("reading beats")
    train = load_series(data, splits_csv, "train", RHYTHM_DATABASES)
    val = load_series(data, splits_csv, "val", RHYTHM_DATABASES)
    progress(f"{len(train)} train records, {len(val)} val records")
    network = train_together(train, val, settings, kept, progress)
    logits = [logits_of(network, one) for one in val]
    temperature = choose_temperature(logits, val)
    probabilities = [expit(logit / temperature) for logit in logits]
    progress(f"temperature {temperature:.3f}; training without half of the patients, without the other half")
    left_out = left_out_probabilities(train, val, settings, kept, progress)
    of_val = merits(probabilities, val, THRESHOLDS, by_evidence=True)
    of_train = merits(left_out, train, THRESHOLDS, by_evidence=True)
    rule = choose(of_val, of_train)
    progress(f"merit {of_val[rule]:.4f} on val, {of_train[rule]:.4f} on patients left out: {rule}")
    snomed, name = table()[AF].snomed, table()[AF].name
    config: dict[str, Any] = {
        "kind": "rhythm",
        "version": "3",
        "labels": [{"code": AF, "snomed": snomed, "name": name, "kind": "rhythm", "threshold": rule.threshold}],
        "n_features": N_FEATURES,
        "temperature": temperature,
        "join_s": rule.join_s,
        "evidence": _asked(rule),
        "trained_on": TRAINED_ON,
        "n_train_records": len(train),
        "n_val_records": len(val),
        "val_loss_nats": series_loss(logits, val, temperature),
        "settings": vars(settings),
    }
    return write_head(checkpoint, HEAD, config, graph_of(Calibrated(network, temperature)))


def _asked(rule: EpisodeRule) -> dict[str, float]:
    """Return what a rule asks of an episode, as JSON can hold it: nothing, if it asks for nothing."""
    if rule.least_evidence == -math.inf:
        return {}
    return {"log_odds_weight": rule.log_odds_weight, "least_evidence": rule.least_evidence}
