"""The part of the head ``beats`` that sees the wave: a small network, and how it hears what trees say of RR intervals.

B batch, n beats, R RR features or K verdicts on them, F shape features, C = 5 classes
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from anyecg.tasks.beat_classes import CLASSES, N_LEADS, N_SHAPE_FEATURES, P_ALIKE, SHAPE_GROUPS
from anyecg.training.beat_rr import RRTrees, class_weights

FIBRILLATION, NORMAL = "A, ", "N, "
"""How the names of records begin whose every beat is N, by what is known of them: their rhythm."""

SHARE = (0.6, 0.17, 0.17, 0.05, 0.01)
"""Of a batch, by class. Within a class a patient counts by the root of its beats, so that one does not outvote all."""

STEPS, BATCH = 900, 256
LEARNING_RATE = 3e-3
MEMBERS = 3
"""Networks whose probabilities are averaged."""

HIDDEN = 0.25
N_GROUPS = 6
"""Share of the groups of features hidden in training, and how many groups there are; see `feature_groups`."""


@dataclass(frozen=True, eq=False)
class Beats:
    """Beats to learn from, or to be measured on.

    Parameters
    ----------
    rr, shape : ndarray of float32, shape (n, R) and (n, F)
        As in `anyecg.tasks.beat_classes.BeatInputs`; or, instead of RR features, what trees make of them, (n, K).
    classes : ndarray of int, shape (n,)
        Counted in `anyecg.tasks.beat_classes.CLASSES`.
    records : ndarray of str, shape (n,)
        One record is one patient here.
    whole : ndarray of bool, shape (n,)
        The beat as the whole record with all its leads shows it; False for cuts and single leads.
    """

    rr: np.ndarray
    shape: np.ndarray
    classes: np.ndarray
    records: np.ndarray
    whole: np.ndarray

    def of(self, rows: np.ndarray) -> "Beats":
        """Return some rows."""
        return Beats(self.rr[rows], self.shape[rows], self.classes[rows], self.records[rows], self.whole[rows])

    def told_by(self, trees: RRTrees) -> "Beats":
        """Return the beats with the verdicts of trees in place of RR features."""
        return replace(self, rr=trees.verdicts(self.rr))

    def and_also(self, other: "Beats") -> "Beats":
        """Return these beats, then others."""
        return Beats(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


class Scaled(nn.Module):
    """Standardise features, missing ones becoming the mean: (B, F) -> (B, F)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) + 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return values of about -5 to 5."""
        x = (x - self.mean) / self.std
        return torch.where(torch.isnan(x), torch.zeros_like(x), x).clamp(-5, 5)


class Member(nn.Module):
    """One network of the head: features, standardised, -> logits (B, C).

    In training each group of features is hidden from a beat with `HIDDEN` probability, so that none is trusted alone:
    with patients left out this is worth 0.09 of S beats' F1. ``groups`` (F,) counts the group of each feature.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, width: int = 48) -> None:
        super().__init__()
        n_features = len(groups)
        self.register_buffer("groups", groups)
        self.layers = nn.Sequential(
            *(nn.Linear(n_features, width), nn.GELU(), nn.Dropout(0.3)),
            *(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, len(CLASSES))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if self.training:
            x = x * (torch.rand(len(x), N_GROUPS) > HIDDEN).float()[:, self.groups]
        return self.layers(x)


def feature_groups(n_told: int, n_shape: int) -> Tensor:
    """Return the group of each feature, int64 (F,): what is told of RR, then P, QRS, T, neighbours; 5 = others."""
    of_shape = np.tile(SHAPE_GROUPS, N_LEADS) + 1
    others = np.full(max(0, n_shape - len(of_shape)), N_GROUPS - 1)
    return torch.tensor(np.concatenate([np.zeros(n_told), of_shape[:n_shape], others]).astype(np.int64))


class BeatsNet(nn.Module):
    """The head but for its trees: what is told of RR (n, R) and shape features (n, F) -> probabilities (n, C).

    With ``two_witnesses`` what is told are the log odds of `anyecg.training.beat_rr.VERDICTS`, and N or S is decided by
    a mean of the network's log odds and theirs: the trees know many more patients, so that they count though the
    network, which learned from few, would rather trust the wave. Early beats in fibrillation and ectopic beats in runs
    are the trees' doubt, which P waves settle (``p_wave``, two numbers): they are alike in the one case, and none in
    the other.

    ``slope`` and ``offset`` (C,) undo the shares of the classes in training: p' ~ exp(slope log p + offset).
    """

    slope: Tensor
    offset: Tensor
    p_wave: Tensor

    def __init__(self, beats: Beats, two_witnesses: bool, n_members: int = MEMBERS) -> None:
        super().__init__()
        self.two_witnesses = two_witnesses
        x = np.concatenate([beats.rr, beats.shape], axis=1)
        self.scaled = Scaled(np.nanmean(x, axis=0), np.nanstd(x, axis=0))
        groups = feature_groups(beats.rr.shape[1], beats.shape.shape[1])
        self.members = nn.ModuleList(Member(groups) for _ in range(n_members))
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("offset", torch.zeros(len(CLASSES)))
        self.register_buffer("p_wave", torch.tensor(fit_p_wave(beats) if two_witnesses else [0.0, 0.0]))

    def features(self, rr: Tensor, shape: Tensor) -> Tensor:
        """Return all features, standardised, (n, R + F)."""
        rr = rr - rr.mean(dim=1, keepdim=True) if self.two_witnesses else rr
        return self.scaled(torch.cat([rr, shape], dim=1))

    def fibrillating(self, shape: Tensor) -> Tensor:
        """Return how much likelier fibrillation is for how alike the P waves are, (n,): a logarithm; 0 = not known."""
        alike = shape[:, P_ALIKE::N_SHAPE_FEATURES].amax(dim=1)
        evidence = (self.p_wave[0] + self.p_wave[1] * alike).clamp(-MOST_EVIDENCE, MOST_EVIDENCE)
        return torch.where(torch.isnan(alike), torch.zeros_like(alike), evidence)

    def forward(self, rr: Tensor, shape: Tensor) -> Tensor:
        """Return calibrated probabilities."""
        x = self.features(rr, shape)
        p = torch.stack([member(x).softmax(dim=1) for member in self.members]).mean(dim=0)
        if self.two_witnesses:
            p = heard_with(torch.cat([rr[:, :3], rr[:, 3:] + self.fibrillating(shape)[:, None]], dim=1), p)
        return (self.slope * (p + LEAST_P).log() + self.offset).softmax(dim=1)


MOST_EVIDENCE = 4.0
"""P waves make fibrillation at most so much likelier or less likely, in logarithms."""


def fit_p_wave(beats: Beats) -> list[float]:
    """Return offset and slope: how likely fibrillation is by how alike P waves are, log odds at equal shares."""
    from sklearn.linear_model import LogisticRegression

    alike = beats.shape[:, P_ALIKE::N_SHAPE_FEATURES]
    fibrillating = np.char.startswith(beats.records, FIBRILLATION)
    told = (fibrillating | np.char.startswith(beats.records, NORMAL)) & np.isfinite(alike).all(axis=1)
    if not fibrillating.any() or alike.shape[1] == 0:
        return [0.0, 0.0]
    model = LogisticRegression(class_weight="balanced").fit(alike[told].max(axis=1)[:, None], fibrillating[told])
    return [float(model.intercept_[0]), float(model.coef_[0, 0])]


TREES_SHARE = 0.65
"""What the trees' log odds of S against N count, and the rest the network's; chosen on patients left out: .5 to .8 are
alike there, and the more, the better in records joined from stretches that are mostly S."""

LEAST_P = 1e-7
"""Added before a logarithm is taken."""


def heard_with(verdicts: Tensor, p: Tensor) -> Tensor:
    """Share out p of N and S, of (n, C), anew: by a mean of its log odds and those of ``verdicts`` (n, K)."""
    n, s = CLASSES.index("N"), CLASSES.index("S")
    theirs = verdicts[:, 1] - torch.logsumexp(verdicts[:, [0, 3]], dim=1)  # an N beat in fibrillation is one of N
    ours = (p[:, s] + LEAST_P).log() - (p[:, n] + LEAST_P).log()
    share = ((1 - TREES_SHARE) * ours + TREES_SHARE * theirs).sigmoid()
    both = p[:, n] + p[:, s]
    assert (n, s) == (0, 1)
    return torch.cat([(both * (1 - share))[:, None], (both * share)[:, None], p[:, 2:]], dim=1)


# -- learning ----------------------------------------------------------------------------------------------


class Draw:
    """Draws batches of fixed class shares; within a class a record counts by the root of its beats."""

    def __init__(self, beats: Beats, share: Sequence[float], batch: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pools = []
        for k, part in enumerate(share):
            rows = np.flatnonzero(beats.classes == k)
            if len(rows):
                weight = np.cumsum(class_weights(np.zeros(len(rows), dtype=int), beats.records[rows], (1.0,)))
                self._pools.append((rows, weight / weight[-1], max(1, round(part * batch))))

    def __call__(self) -> np.ndarray:
        """Return the rows of one batch."""
        drawn = [
            rows[np.minimum(np.searchsorted(weight, self._rng.random(n)), len(rows) - 1)]
            for rows, weight, n in self._pools
        ]
        return np.concatenate(drawn)


def _fit(net: nn.Module, x: Tensor, classes: np.ndarray, draw: Draw, steps: int, jitter: float = 0.0) -> None:
    """Fit a network on features (n, F), in place."""
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    target = torch.tensor(classes)
    net.train()
    for _ in range(steps):
        rows = torch.from_numpy(draw())
        seen = x[rows]
        loss = cross_entropy(net(seen + jitter * torch.randn_like(seen)), target[rows], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()


def fit_beats(beats: Beats, two_witnesses: bool, steps: int = STEPS, n_members: int = MEMBERS) -> BeatsNet:
    """Fit the network on beats with a wave."""
    torch.manual_seed(0)
    net = BeatsNet(beats, two_witnesses, n_members).eval()
    with torch.no_grad():
        x = net.features(torch.tensor(beats.rr), torch.tensor(beats.shape))
    for seed, member in enumerate(net.members):
        _fit(member, x, beats.classes, Draw(beats, SHARE, BATCH, seed), steps, jitter=0.1)
    return net


@torch.no_grad()
def probabilities(net: BeatsNet, beats: Beats) -> np.ndarray:
    """Return float64 (n, C)."""
    return net(torch.tensor(beats.rr), torch.tensor(beats.shape)).double().numpy()
