"""xresnet1d (Strodthoff 2020, doi:10.1109/JBHI.2020.3022989): the network behind PTB-XL's published figures.

A residual network with fastai's tweaks (He 2018, arXiv 1812.01187): three convolutions for a stem, shortcuts that
average before they stride, the last batch norm of a block beginning at 0; filters of five samples, 64 (x 4) channels at
every depth, maximum and mean pooled side by side, then 128 units. Depth 101 (3, 4, 23, 3 blocks) is the published
anchor; depth 50 (3, 4, 6, 3) is the same with a shorter third stage.

Shapes: B windows, L leads, T samples, C labels.
"""

import torch
from baselines.training import Conv
from torch import Tensor, nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
SIZE, WIDTH, EXPANSION = 5, 64, 4


def _conv(n_in: int, n_out: int, size: int, stride: int = 1, act: bool = True, gain: float = 1.0) -> nn.Sequential:
    norm = nn.BatchNorm2d(n_out)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(Conv(n_in, n_out, size, stride), norm, *([nn.ReLU(inplace=True)] if act else []))


class Bottleneck(nn.Module):
    """(B, n_in, 1, T) -> (B, 256, 1, T / stride)."""

    def __init__(self, n_in: int, stride: int) -> None:
        super().__init__()
        n_out = WIDTH * EXPANSION
        self.path = nn.Sequential(
            _conv(n_in, WIDTH, 1), _conv(WIDTH, WIDTH, SIZE, stride), _conv(WIDTH, n_out, 1, act=False, gain=0.0)
        )
        shortcut: list[nn.Module] = [nn.AvgPool2d((1, 2), ceil_mode=True)] if stride == 2 else []
        if n_in != n_out:
            shortcut.append(_conv(n_in, n_out, 1, act=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Refine."""
        return torch.relu(self.path(x) + self.shortcut(x))


class XResNet(nn.Module):
    """(B, L, 1, T) -> logits (B, C)."""

    def __init__(self, n_leads: int, n_labels: int, depth: int = 101, dropout: float = 0.5) -> None:
        super().__init__()
        sizes = (n_leads, 32, 32, 64)
        stem = [_conv(sizes[i], sizes[i + 1], SIZE, 2 if i == 0 else 1) for i in range(3)]
        blocks, width = [], 64
        for stage, n_blocks in enumerate(BLOCKS[depth]):
            for i in range(n_blocks):
                blocks.append(Bottleneck(width, 2 if stage and i == 0 else 1))
                width = WIDTH * EXPANSION
        self.body = nn.Sequential(*stem, nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1)), *blocks)
        self.head = nn.Sequential(
            *(nn.BatchNorm1d(2 * width), nn.Dropout(dropout / 2), nn.Linear(2 * width, 128), nn.ReLU()),
            *(nn.BatchNorm1d(128), nn.Dropout(dropout), nn.Linear(128, n_labels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.body(x)
        return self.head(torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1))
