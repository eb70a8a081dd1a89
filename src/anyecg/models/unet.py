"""A 1-D U-Net (Ronneberger 2015, arXiv 1505.04597), and the network that corrects regressed leads with it.

Shapes: B blocks, L leads (12), N samples, a multiple of 16.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (32, 64, 96, 128, 128)
"""At 1, 1/2, 1/4, 1/8 and 1/16 of the rate."""

LOG_SPREAD, LOG_SPREAD_AT_FIRST = (-6.0, 2.0), -2.0
"""Bounds of the logarithm of the expected error, in units of the RMS of what is given."""


class Level(nn.Sequential):
    """Two convolutions of 9 samples, each normalised."""

    def __init__(self, n_in: int, n_out: int) -> None:
        layers: list[nn.Module] = []
        for n_before in (n_in, n_out):
            layers += [nn.Conv1d(n_before, n_out, 9, padding=4), nn.GroupNorm(8, n_out), nn.GELU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """(B, n_inputs, N) -> (B, n_outputs, N)."""

    def __init__(self, n_inputs: int = 24, n_outputs: int = 12) -> None:
        super().__init__()
        inputs = (n_inputs, *CHANNELS[:-1])
        self.down = nn.ModuleList(Level(n_in, n_out) for n_in, n_out in zip(inputs, CHANNELS, strict=True))
        backward = list(zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.wider = nn.ModuleList(nn.ConvTranspose1d(n_in, n_out, 2, stride=2) for n_in, n_out in backward)
        self.up = nn.ModuleList(Level(2 * n_out, n_out) for _, n_out in backward)
        self.out = nn.Conv1d(CHANNELS[0], n_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run down and up again."""
        kept = []
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else F.max_pool1d(x, 2))
            kept.append(x)
        for wider, level, skipped in zip(self.wider, self.up, kept[-2::-1], strict=True):
            x = level(torch.cat([wider(x), skipped], dim=1))
        return self.out(x)


class Corrector(nn.Module):
    """(B, 3 L, N) -> (B, 2 L, N): restored leads, and the natural logarithm of how far off they are to be expected.

    In: leads that are there, 0 where missing; 1 where they are there; the regressed guess, 0 where they are there. A
    U-Net draws its own guess, and says sample by sample how much of it to take instead of the regressed one.
    """

    def __init__(self, n_leads: int = 12) -> None:
        super().__init__()
        self.n_leads = n_leads
        self.unet = UNet(3 * n_leads, 3 * n_leads)

    def begin_from(self, plain: UNet) -> "Corrector":
        """Take over a U-Net that restores from leads alone: at first, half of it and half of the regressed guess."""
        own, given = self.unet.state_dict(), plain.state_dict()
        for name, weights in given.items():
            if own[name].shape != weights.shape:  # the first layer has more inputs, the last more outputs
                own[name].zero_()
            own[name][tuple(slice(n) for n in weights.shape)].copy_(weights)
        own["out.bias"][2 * self.n_leads :] = LOG_SPREAD_AT_FIRST
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Restore."""
        regressed = x[:, 2 * self.n_leads :]
        drawn, share, log_spread = self.unet(x).float().split(self.n_leads, dim=1)  # (B, L, N) each
        mixed = regressed + share.sigmoid() * (drawn - regressed)
        return torch.cat([mixed, log_spread.clamp(*LOG_SPREAD)], dim=1)  # (B, 2 L, N)
