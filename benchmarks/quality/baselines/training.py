"""Train a network from scratch on raw waveforms at 100 Hz: the recipe all deep supervised baselines share.

After Strodthoff 2020 (doi:10.1109/JBHI.2020.3022989): random crops in training, the mean over overlapping crops in
testing, AdamW with one cycle of the learning rate. Here the epoch is chosen on validation records. The signals are
those our model gets (prepared: 0.5-75 Hz, mV, 300 Hz), brought to 100 Hz and standardised with training statistics.

Shapes: B windows, L leads, T samples, N records, C labels. Networks take (B, L, 1, T): one-dimensional convolutions
are written as two-dimensional ones of height 1, because in the channels-last layout they take half the time on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.tasks.arrhythmia import to_probability

FS_HZ, PREPARED_FS_HZ = 100, 300


class Conv(nn.Conv2d):
    """A convolution over time, of (B, C, 1, T)."""

    def __init__(self, n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, (1, size), stride=(1, stride), padding=(0, size // 2), groups=groups, bias=False)


@dataclass
class Waves:
    """N records: ``x`` float16 (N, L, T) mV at 100 Hz, zeros after a record's end; ``length`` int64 (N,), samples.

    ``labels`` float32 (N, C), 1 or 0.
    """

    x: np.ndarray
    length: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def of(self, rows: np.ndarray) -> "Waves":
        """Return some records."""
        return Waves(self.x[rows], self.length[rows], self.labels[rows])

    def only(self, leads: list[int]) -> "Waves":
        """Return the same records with zeros in all other leads."""
        x = np.zeros_like(self.x)
        x[:, leads] = self.x[:, leads]
        return Waves(x, self.length, self.labels)


def to_waves(signals: list[np.ndarray], labels: np.ndarray) -> Waves:
    """Bring prepared signals (n_leads, n_samples), mV at 300 Hz, to 100 Hz; gaps become 0."""
    slow = [resample_poly(np.nan_to_num(x), FS_HZ, PREPARED_FS_HZ, axis=1) for x in signals]
    length = np.array([x.shape[1] for x in slow])
    filled = np.zeros((len(slow), len(slow[0]), length.max()), dtype=np.float16)
    for row, x in zip(filled, slow, strict=True):
        row[:, : x.shape[1]] = x
    return Waves(filled, length, labels.astype(np.float32))


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Parameters
    ----------
    crop : int
        Samples of a training window; testing averages windows that overlap by half.
    epochs, least_steps : int
        Passes over the records; of few records more, until there are so many steps.
    validations, validate_from : int, float
        Validated after about so many epochs, evenly; not in the first share of them, while the rate is still high.
    gain_spread : float
        Each window is multiplied by exp(normal * spread).
    exclusive : bool
        True: one label a record (softmax). False: any number (sigmoids).
    """

    crop: int = 250
    epochs: int = 25
    least_steps: int = 0
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    gain_spread: float = 0.15
    validations: int = 15
    validate_from: float = 0.3
    exclusive: bool = False
    seed: int = 0


@dataclass
class Trained:
    """A trained network with the statistics (L,) of its inputs, and the validation score of each epoch measured."""

    network: nn.Module
    mean: np.ndarray
    std: np.ndarray
    settings: TrainSettings
    history: list[float] = field(default_factory=list)


def fit_network(
    network_of: Callable[[int, int], nn.Module],
    train: Waves,
    validation: Waves,
    settings: TrainSettings,
    score: Callable[[np.ndarray, np.ndarray], float],
    progress: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Train; return the epoch that scores best on the validation records.

    Parameters
    ----------
    network_of : callable
        ``(n_leads, n_labels) -> nn.Module``, from (B, L, 1, T) to logits (B, C).
    score : callable
        ``(labels (N, C), probabilities (N, C)) -> float``, the larger the better.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    inside = np.arange(train.x.shape[2]) < train.length[:, None]
    samples = train.x.transpose(1, 0, 2)[:, inside].astype(np.float32)
    network = network_of(train.x.shape[1], train.labels.shape[1]).to(memory_format=torch.channels_last)
    trained = Trained(network, samples.mean(axis=1), samples.std(axis=1) + 1e-6, settings)
    steps_each = -(-len(train) // settings.batch_size)
    epochs = max(settings.epochs, -(-settings.least_steps // steps_each))
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=epochs * steps_each + 1, pct_start=0.25
    )
    every = max(1, round(epochs / settings.validations))
    best, best_state = -np.inf, {}
    for epoch in range(1, epochs + 1):
        network.train()
        for rows in np.array_split(rng.permutation(len(train)), steps_each):
            crops = random_crops(train, rows, settings, rng)
            logits = _logits(trained, crops)
            loss = _loss(logits, torch.from_numpy(train.labels[rows]), settings.exclusive)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if epoch == epochs or (epoch >= settings.validate_from * epochs and epoch % every == 0):
            probabilities = to_probability(predict(trained, validation, settings.crop), settings.exclusive)
            trained.history.append(score(validation.labels, probabilities))
            if trained.history[-1] > best:
                best, best_state = trained.history[-1], {k: v.clone() for k, v in network.state_dict().items()}
    progress(f"{epochs} epochs, validation {best:.4f} (at the end {trained.history[-1]:.4f})")
    network.load_state_dict(best_state)
    return trained


def random_crops(waves: Waves, rows: np.ndarray, settings: TrainSettings, rng: np.random.Generator) -> np.ndarray:
    """Cut a window at a random place of each record, scaled at random: float32 (B, L, crop)."""
    room = np.maximum(waves.length[rows] - settings.crop, 0)
    starts = (rng.random(len(rows)) * (room + 1)).astype(np.int64)
    cut = [_cut(waves.x[row], start, settings.crop) for row, start in zip(rows, starts, strict=True)]
    gain = np.exp(rng.normal(scale=settings.gain_spread, size=(len(rows), 1, 1)))
    return (np.stack(cut) * gain).astype(np.float32)


def _cut(x: np.ndarray, start: int, size: int) -> np.ndarray:
    piece = x[:, start : start + size].astype(np.float32)
    return np.pad(piece, ((0, 0), (0, size - piece.shape[1])))


@torch.no_grad()
def predict(trained: Trained, waves: Waves, step: int | None = None) -> np.ndarray:
    """Return each record's mean logits over windows ``step`` apart (default: half a window): float64 (N, C)."""
    trained.network.eval()
    crop = trained.settings.crop
    step = step or crop // 2
    places = [
        (row, start)
        for row, length in enumerate(waves.length)
        for start in [*range(0, max(length - crop, 0), step), max(length - crop, 0)]
    ]
    total, count = np.zeros((len(waves), waves.labels.shape[1])), np.zeros((len(waves), 1))
    for first in range(0, len(places), 64):
        part = places[first : first + 64]
        logits = _logits(trained, np.stack([_cut(waves.x[row], start, crop) for row, start in part])).numpy()
        rows = np.array([row for row, _ in part])
        np.add.at(total, rows, logits)
        np.add.at(count, rows, 1)
    return total / count


def _logits(trained: Trained, windows: np.ndarray) -> Tensor:
    standard = (windows - trained.mean[:, None]) / trained.std[:, None]
    x = torch.from_numpy(standard.astype(np.float32)).unsqueeze(2)  # (B, L, 1, T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits: Tensor = trained.network(x.contiguous(memory_format=torch.channels_last))
    return logits.float()


def _loss(logits: Tensor, labels: Tensor, exclusive: bool) -> Tensor:
    if exclusive:
        return F.cross_entropy(logits, labels.argmax(dim=1))
    return F.binary_cross_entropy_with_logits(logits, labels)
