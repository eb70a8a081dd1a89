"""Fit a head to labelled windows: linear, or with the encoder's last layers tuned, or all of them.

A linear head is fitted first in any case, on what the encoder as it is makes of each window; tuning starts from there,
so that the first steps do not tear up what pre-training learned (LP-FT: Kumar 2022, arXiv 2202.10054).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anyecg.metrics import macro_auroc
from anyecg.models.encoder import Encoder
from anyecg.models.heads import RecordHead
from anyecg.tasks.arrhythmia import to_probability
from anyecg.training.examples import Examples

Mode = Literal["linear", "partial", "full"]


@dataclass(frozen=True)
class HeadSettings:
    """How a head is fitted.

    Parameters
    ----------
    mode : {"linear", "partial", "full"}
        Encoder layers tuned: none, the last half, all. (The embedding of codes is never tuned.)
    exclusive : bool
        True: one label a record (softmax). False: any number (sigmoids).
    epochs, batch_size, patience : int
        Training stops when ``patience`` epochs have not raised the validation score.
    learning_rate : float
        Of the linear part, before anything is tuned.
    tuned_learning_rate : float
        Of everything, afterwards; each layer has ``layer_decay`` times the rate of the one above.
    subset_probability, unknown_lead_probability, unknown_gain_probability : float
        A window loses some of its leads, all lead names, its gain.
    balance : float
        Weight of positives: (negatives / positives) ** balance. 0: none, which keeps scores calibrated.
    """

    mode: Mode = "full"
    exclusive: bool = False
    epochs: int = 12
    batch_size: int = 32
    patience: int = 4
    learning_rate: float = 3e-3
    tuned_learning_rate: float = 2e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    dropout: float = 0.1
    subset_probability: float = 0.3
    unknown_lead_probability: float = 0.05
    unknown_gain_probability: float = 0.1
    balance: float = 0.0
    linear_epochs: int = 40
    linear_weight_decay: float = 0.3
    seed: int = 0


@dataclass
class Fitted:
    """The best head of a fit, and the validation score after each epoch."""

    head: RecordHead
    history: list[float] = field(default_factory=list)


def first_layer(encoder: Encoder, mode: Mode) -> int:
    """Return the layer a head of a mode begins from."""
    n_layers = encoder.config.n_layers
    return {"linear": n_layers, "partial": n_layers - n_layers // 2, "full": 0}[mode]


def fit_head(
    encoder: Encoder,
    views: list[Examples],
    validation: Examples,
    settings: HeadSettings,
    score: Callable[[np.ndarray, np.ndarray], float] = macro_auroc,
    progress: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Fit a head.

    Parameters
    ----------
    encoder : Encoder
        Pre-trained; it is not changed.
    views : list of Examples
        The training records, tokenised in one or more variations; each epoch takes one.
    validation : Examples
    settings : HeadSettings
    score : callable
        ``(labels (R, C), probabilities (R, C)) -> float``, the larger the better; chooses the epoch.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    head = RecordHead(
        encoder,
        first_layer(encoder, settings.mode),
        validation.features.shape[1],
        validation.labels.shape[1],
        settings.dropout,
    )
    run = _Run(encoder, head, validation, settings, score, _positive_weights(views[0].labels, settings.balance))
    progress("a linear head first: what the encoder makes of every window")
    _fit_linear(run, views, rng, progress)
    if settings.mode != "linear":
        _tune(run, views, rng, progress)
    return Fitted(head.eval(), run.history)


@dataclass
class _Run:
    """What both stages of a fit share; ``best_state`` are the weights with the best validation score so far."""

    encoder: Encoder
    head: RecordHead
    validation: Examples
    settings: HeadSettings
    score: Callable[[np.ndarray, np.ndarray], float]
    positive_weight: Tensor
    history: list[float] = field(default_factory=list)
    best: float = -np.inf
    best_state: dict[str, Tensor] = field(default_factory=dict)
    since: int = 0

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.settings.exclusive:
            return F.cross_entropy(logits, labels.argmax(dim=1), self.positive_weight)
        known = torch.isfinite(labels)
        each = F.binary_cross_entropy_with_logits(
            logits, torch.where(known, labels, 0.0), pos_weight=self.positive_weight, reduction="none"
        )
        return (each * known).sum() / known.sum().clamp_min(1)

    def note(self, logits: np.ndarray) -> float:
        """Take the validation records' logits after an epoch; keep the weights if they are the best so far."""
        reached = self.score(self.validation.labels, to_probability(logits, self.settings.exclusive))
        self.history.append(reached)
        self.since += 1
        if reached > self.best:
            self.best, self.since = reached, 0
            self.best_state = {name: x.clone() for name, x in self.head.state_dict().items()}
        return reached

    def end(self) -> None:
        """Go back to the best weights."""
        self.head.load_state_dict(self.best_state)
        self.since = 0


def _fit_linear(run: _Run, views: list[Examples], rng: np.random.Generator, progress: Callable[[str], None]) -> None:
    """Fit the linear part to pooled windows, which are computed once: each view through leads of its own."""
    head, settings = run.head, run.settings
    pooled = [_pooled(run, view, rng if number else None) for number, view in enumerate(views)]
    held_out = _pooled(run, run.validation, None)
    _standardise(head, pooled, views)
    linear = [parameter for name, parameter in head.named_parameters() if not name.startswith(("blocks", "norm"))]
    optimizer = torch.optim.AdamW(linear, lr=settings.learning_rate, weight_decay=settings.linear_weight_decay)
    n_steps = settings.linear_epochs * -(-len(views[0]) // settings.batch_size)
    schedule = _warm_up_and_fall(optimizer, n_steps)
    for epoch in range(settings.linear_epochs):
        head.train()
        number = epoch % len(views)
        order = rng.permutation(len(views[number]))
        for rows in _slices(len(order), settings.batch_size):
            chosen = torch.from_numpy(order[rows])
            labels = torch.from_numpy(views[number].labels[views[number].record[order[rows]]])
            loss = run.loss(head.answer(*(x[chosen] for x in pooled[number])), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        head.eval()
        with torch.no_grad():
            logits = head.answer(*held_out).numpy()
        reached = run.note(run.validation.to_records(logits.astype(np.float64)))
    progress(f"linear head: validation {run.best:.4f} (at the end {reached:.4f})")
    run.end()


def _tune(run: _Run, views: list[Examples], rng: np.random.Generator, progress: Callable[[str], None]) -> None:
    """Tune the encoder's last layers, and the linear part with them."""
    head, settings = run.head, run.settings
    optimizer = _optimizer(head, settings)
    n_steps = settings.epochs * -(-len(views[0]) // settings.batch_size)
    schedule = _warm_up_and_fall(optimizer, n_steps)
    for epoch in range(settings.epochs):
        head.train()
        for batch, labels in _training_batches(views[epoch % len(views)], settings, rng):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = head(*_inputs(run.encoder, batch, head.first_layer)).float()
            loss = run.loss(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        reached = run.note(predict_logits(run.encoder, head, run.validation))
        progress(f"epoch {epoch + 1}/{settings.epochs}: validation {reached:.4f}")
        if run.since >= settings.patience:
            break
    run.end()


@torch.no_grad()
def _pooled(run: _Run, examples: Examples, rng: np.random.Generator | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `RecordHead.answer` takes for every window; with ``rng``, leads go missing from some."""
    run.head.eval()
    parts = []
    for rows in _slices(len(examples), 64):
        batch = _batch(examples, rows)
        if rng is not None:
            _vary(batch, run.settings, rng)
        hidden, valid, lead_ids, features = _inputs(run.encoder, batch, run.head.first_layer)
        parts.append((run.head.pool(hidden, valid), valid, lead_ids, features))
    pooled, valid, lead_ids, features = (torch.cat(x) for x in zip(*parts, strict=True))
    return pooled, valid, lead_ids, features


def _standardise(head: RecordHead, pooled: list[tuple[Tensor, Tensor, Tensor, Tensor]], views: list[Examples]) -> None:
    """Set the means and spreads by which the linear part standardises its inputs: those of the training windows."""
    seen = torch.cat([x[valid.any(dim=-1)] for x, valid, _, _ in pooled])
    head.pooled_mean.copy_(seen.mean(dim=0))
    head.pooled_std.copy_(seen.std(dim=0) + 1e-3)
    features = np.concatenate([view.features for view in views])
    known = features[features[:, -1] > 0]
    if len(known) > 1:
        head.feature_mean.copy_(torch.from_numpy(known.mean(axis=0)))
        head.feature_std.copy_(torch.from_numpy(known.std(axis=0) + 1e-3))


@torch.no_grad()
def predict_logits(
    encoder: Encoder, head: RecordHead, examples: Examples, leads: list[int] | None = None
) -> np.ndarray:
    """Return each record's mean logits (R, C), float64; ``leads``: rows that are kept, default all."""
    head.eval()
    found = []
    for batch in _slices(len(examples), 64):
        inputs = _batch(examples, batch)
        if leads is not None:
            gone = torch.ones(inputs["valid"].shape[1], dtype=torch.bool)
            gone[leads] = False
            inputs["valid"][:, gone] = False
        found.append(head(*_inputs(encoder, inputs, head.first_layer)).float().numpy())
    return examples.to_records(np.concatenate(found).astype(np.float64))


def _optimizer(head: RecordHead, settings: HeadSettings) -> torch.optim.AdamW:
    tuned = {id(p) for p in head.blocks.parameters()}
    groups = [{"params": [p for p in head.parameters() if id(p) not in tuned], "lr": settings.tuned_learning_rate}]
    for depth, block in enumerate(reversed(head.blocks)):
        rate = settings.tuned_learning_rate * settings.layer_decay ** (depth + 1)
        groups.append({"params": list(block.parameters()), "lr": rate})
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=(0.9, 0.98))


def _warm_up_and_fall(optimizer: torch.optim.Optimizer, n_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Raise the rate over a fifth of the steps, then let it fall along half a cosine."""
    warm_up = max(1, n_steps // 5)

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _positive_weights(labels: np.ndarray, balance: float) -> Tensor:
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return torch.from_numpy(((negative + 1) / (positive + 1)) ** balance).float()


def _training_batches(
    examples: Examples, settings: HeadSettings, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield the varied batches of one epoch."""
    order = rng.permutation(len(examples))
    for rows in _slices(len(order), settings.batch_size):
        chosen = order[rows]
        batch = _batch(examples, chosen)
        _vary(batch, settings, rng)
        yield batch, torch.from_numpy(examples.labels[examples.record[chosen]])


def _vary(batch: dict[str, Tensor], settings: HeadSettings, rng: np.random.Generator) -> None:
    """Let leads, lead names and the gain go missing from some windows, in place."""
    n_items, n_leads = batch["lead_ids"].shape
    if n_leads > 1:
        for i in np.flatnonzero(rng.random(n_items) < settings.subset_probability):
            present = np.flatnonzero(batch["valid"][i].any(dim=-1).numpy())
            if len(present) > 1:
                batch["valid"][i, rng.permutation(present)[int(rng.integers(1, len(present))) :]] = False
    batch["lead_ids"][torch.from_numpy(rng.random(n_items) < settings.unknown_lead_probability)] = 0
    batch["scale_known"] &= torch.from_numpy(rng.random(n_items) >= settings.unknown_gain_probability)[:, None]


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


def _batch(examples: Examples, rows: slice | np.ndarray) -> dict[str, Tensor]:
    valid = torch.from_numpy(examples.valid[rows].copy())
    gain_known = torch.from_numpy(examples.gain_known[rows].copy())
    return {
        "codes": torch.from_numpy(examples.codes[rows].astype(np.int64)),
        "valid": valid,
        "lead_ids": torch.from_numpy(examples.lead_ids[rows].copy()),
        "log_scale": torch.from_numpy(examples.log_scale[rows].copy()),
        "scale_known": valid.any(dim=-1) & gain_known[:, None],
        "features": torch.from_numpy(examples.features[rows].copy()),
    }


def _inputs(encoder: Encoder, batch: dict[str, Tensor], first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the frozen part of the encoder: a head's hidden, valid, lead_ids, features."""
    valid = batch["valid"]
    with torch.no_grad():
        hidden = encoder.embed(
            batch["codes"],
            torch.zeros_like(valid),  # nothing is hidden
            batch["lead_ids"],
            batch["log_scale"],
            batch["scale_known"] & valid.any(dim=-1),
        )
        for block in encoder.blocks[:first]:
            hidden = block(hidden, valid)
        if first == len(encoder.blocks):
            hidden = encoder.norm(hidden)
    return hidden, valid, batch["lead_ids"], batch["features"]
