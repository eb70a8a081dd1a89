"""InceptionTime (Ismail Fawaz 2019, arXiv 1909.04939): parallel convolutions of three lengths, deep, with shortcuts.

Six modules of 32 filters each length, bottleneck 32, a shortcut over every third, global average pooling. Departures:
filters of 39, 19 and 9 samples instead of 40, 20 and 10 (odd ones keep the length), and our shared training recipe
instead of 1,500 epochs. The paper's InceptionTime is an ensemble of five such networks; tables list one network, and
the mean logits of the seeds that were trained.

Shapes: B windows, L leads, T samples, C labels.
"""

import torch
from baselines.training import Conv
from torch import Tensor, nn

LENGTHS = (39, 19, 9)


class InceptionModule(nn.Module):
    """(B, n_in, 1, T) -> (B, 4 * n_filters, 1, T)."""

    def __init__(self, n_in: int, n_filters: int) -> None:
        super().__init__()
        # One lead has nothing to squeeze.
        self.bottleneck = Conv(n_in, n_filters, 1) if n_in > 1 else nn.Identity()
        self.long = nn.ModuleList([Conv(n_filters if n_in > 1 else 1, n_filters, size) for size in LENGTHS])
        self.pooled = nn.Sequential(nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)), Conv(n_in, n_filters, 1))
        self.norm = nn.BatchNorm2d(4 * n_filters)

    def forward(self, x: Tensor) -> Tensor:
        """Filter."""
        narrow = self.bottleneck(x)
        return torch.relu(self.norm(torch.cat([*(conv(narrow) for conv in self.long), self.pooled(x)], dim=1)))


class InceptionTime(nn.Module):
    """(B, L, 1, T) -> logits (B, C)."""

    def __init__(self, n_leads: int, n_labels: int, n_filters: int = 32, depth: int = 6) -> None:
        super().__init__()
        width = 4 * n_filters
        self.modules_ = nn.ModuleList([InceptionModule(n_leads if i == 0 else width, n_filters) for i in range(depth)])
        self.shortcuts = nn.ModuleList(
            [
                nn.Sequential(Conv(n_leads if i == 0 else width, width, 1), nn.BatchNorm2d(width))
                for i in range(depth // 3)
            ]
        )
        self.head = nn.Linear(width, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        kept = x
        for i, module in enumerate(self.modules_):
            x = module(x)
            if i % 3 == 2:
                x = kept = torch.relu(x + self.shortcuts[i // 3](kept))
        return self.head(x.mean(dim=(2, 3)))
