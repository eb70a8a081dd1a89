"""A small multi-scale network: convolutions of three lengths with channel attention, a MobileViT block, an LSTM.

What recent light ECG classifiers are made of. Inverted residuals (Sandler 2018, arXiv 1801.04381) whose depthwise
filters have three lengths; efficient channel attention (ECA, Wang 2020, arXiv 1910.03151); the MobileViT block (Mehta
2022, arXiv 2110.02178), in which equal places of all patches attend to each other; a bidirectional LSTM whose mean
over time is classified. The composition is ours: no published network is reproduced layer by layer.

Shapes: B windows, L leads, T samples, D channels, C labels.
"""

import torch
from baselines.training import Conv
from torch import Tensor, nn

LENGTHS = (5, 11, 23)
PATCH = 4


class ChannelAttention(nn.Module):
    """ECA: a channel's weight comes from its mean and its neighbours' means."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weight (B, D, 1, T)."""
        weight = torch.sigmoid(self.mix(x.mean(dim=(2, 3)).unsqueeze(1))).squeeze(1)  # (B, D)
        return x * weight[:, :, None, None]


class MultiScale(nn.Module):
    """Inverted residual: widen, filter a third of the channels with each length, attend, narrow."""

    def __init__(self, n_in: int, n_out: int, stride: int, widen: int = 3) -> None:
        super().__init__()
        inner = n_in * widen
        self.widen = nn.Sequential(Conv(n_in, inner, 1), nn.BatchNorm2d(inner), nn.SiLU())
        self.filters = nn.ModuleList([Conv(n_in, n_in, size, stride, groups=n_in) for size in LENGTHS])
        self.after = nn.Sequential(
            nn.BatchNorm2d(inner), nn.SiLU(), ChannelAttention(), Conv(inner, n_out, 1), nn.BatchNorm2d(n_out)
        )
        self.same = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, n_in, 1, T)."""
        parts = self.widen(x).chunk(len(LENGTHS), dim=1)
        found = self.after(torch.cat([f(part) for f, part in zip(self.filters, parts, strict=True)], dim=1))
        return x + found if self.same else found


class MobileViTBlock(nn.Module):
    """Local convolution, attention between patches, and both joined: (B, D, 1, T) -> (B, D, 1, T)."""

    def __init__(self, width: int, inner: int = 96, n_layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.local = nn.Sequential(Conv(width, width, 3), nn.BatchNorm2d(width), nn.SiLU(), Conv(width, inner, 1))
        layer = nn.TransformerEncoderLayer(
            inner, 4, 2 * inner, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.attend = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(inner), enable_nested_tensor=False)
        self.back = nn.Sequential(Conv(inner, width, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.join = nn.Sequential(Conv(2 * width, width, 3), nn.BatchNorm2d(width), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Let the patches attend; the time must be a multiple of `PATCH`."""
        local = self.local(x)
        n, inner, _, length = local.shape
        # A patch's first samples attend to other patches' first samples, and so on: (B * PATCH, T / PATCH, D)
        cut = local.reshape(n, inner, length // PATCH, PATCH).permute(0, 3, 2, 1)
        attended = self.attend(cut.reshape(n * PATCH, length // PATCH, inner))
        whole = attended.reshape(n, PATCH, length // PATCH, inner).permute(0, 3, 2, 1).reshape(n, inner, 1, length)
        return self.join(torch.cat([x, self.back(whole)], dim=1))


class MobileViT(nn.Module):
    """(B, L, 1, T) -> logits (B, C)."""

    def __init__(self, n_leads: int, n_labels: int, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(n_leads, width, 15, stride=2), nn.BatchNorm2d(width), nn.SiLU())
        self.body = nn.Sequential(
            *(MultiScale(width, width, 1), MultiScale(width, 2 * width, 2), MultiScale(2 * width, 2 * width, 1)),
            *(MultiScale(2 * width, 3 * width, 2), MultiScale(3 * width, 3 * width, 1)),
        )
        self.vit = MobileViTBlock(3 * width)
        self.lstm = nn.LSTM(3 * width, 64, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(256, n_labels))

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.body(self.stem(x))  # an eighth of the samples
        x = nn.functional.pad(x, (0, -x.shape[-1] % PATCH))
        series = self.vit(x).squeeze(2).transpose(1, 2)  # (B, T / 8, D)
        states, _ = self.lstm(series)
        return self.head(torch.cat([states.mean(dim=1), states.amax(dim=1)], dim=1))
