"""One-class convolutional autoencoder: learns to reproduce normal windows; what it reproduces badly is abnormal.

The usual deep baseline of one-class ECG work: strided 1-D convolutions over all leads at once, a narrow code, the
mirror image back, squared error. Fitted on raw (prepared) windows of normal training records alone; the step at which
it stops is chosen by the error on normal validation records. Windows are 10 s at 100 Hz (three samples of 300 Hz
averaged): what a 0.5-40 Hz monitor keeps, and a third of the time to train.

Shapes: B windows, L leads, T samples.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

WINDOW_SAMPLES, AVERAGED = 3000, 3
"""10 s at the prepared rate of 300 Hz; samples averaged to one."""


class ConvAutoencoder(nn.Module):
    """(B, L, T) -> (B, L, T) through ``code`` channels at a 16th of the rate."""

    def __init__(self, n_leads: int, width: int = 32, code: int = 8) -> None:
        super().__init__()
        sizes = [n_leads, width, width, 2 * width, 2 * width]
        down: list[nn.Module] = []
        for before, after in pairwise(sizes):
            down += [nn.Conv1d(before, after, 9, stride=2, padding=4), nn.BatchNorm1d(after), nn.GELU()]
        self.encode = nn.Sequential(*down, nn.Conv1d(sizes[-1], code, 1))
        up: list[nn.Module] = [nn.Conv1d(code, sizes[-1], 1), nn.GELU()]
        for before, after in zip(sizes[:1:-1], sizes[-2:0:-1], strict=True):
            up += [nn.ConvTranspose1d(before, after, 10, stride=2, padding=4), nn.BatchNorm1d(after), nn.GELU()]
        self.decode = nn.Sequential(*up, nn.ConvTranspose1d(sizes[1], n_leads, 10, stride=2, padding=4))

    def forward(self, x: Tensor) -> Tensor:
        """Reproduce."""
        again: Tensor = self.decode(self.encode(x))
        return again[..., : x.shape[-1]]


def to_window(signal: np.ndarray) -> np.ndarray:
    """Return the first 10 s of a prepared signal (n_leads, n_samples), mV, as float32 (n_leads, 992): gaps are 0."""
    first = np.nan_to_num(signal[:, :WINDOW_SAMPLES])
    first = np.pad(first, ((0, 0), (0, WINDOW_SAMPLES - first.shape[1])))
    slow = first.reshape(len(first), -1, AVERAGED).mean(axis=-1)
    return slow[:, :992].astype(np.float32)  # a multiple of the strides' 16


def reconstruction_errors(
    train: np.ndarray,
    validation: np.ndarray,
    others: list[np.ndarray],
    progress: Callable[[str], None],
    *,
    epochs: int = 40,
    seed: int = 0,
) -> list[np.ndarray]:
    """Fit on normal windows; return the error of each window of ``others``.

    Parameters
    ----------
    train, validation : ndarray of float32, shape (B, L, T)
        Normal windows, mV, as `to_window` returns them.
    others : list of ndarray of float32, shape (B, L, T)

    Returns
    -------
    list of ndarray of float32, shape (B,)
        Mean squared error; each lead in units of its own standard deviation over the normal training windows.
    """
    torch.manual_seed(seed)
    unit = torch.from_numpy(train.std(axis=(0, 2), keepdims=True))
    x = torch.from_numpy(train) / unit
    x_validation = torch.from_numpy(validation) / unit
    network = ConvAutoencoder(train.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * (-(-len(x) // 32)))
    best, kept = np.inf, network.state_dict()
    for epoch in range(epochs):
        network.train()
        for rows in torch.randperm(len(x)).split(32):
            # Beats may begin anywhere: windows are turned about by a random number of samples.
            batch = torch.roll(x[rows], int(torch.randint(x.shape[-1], ())), dims=-1)
            loss = (network(batch) - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        reached = float(_errors(network, x_validation).mean())
        if reached < best:
            best, kept = reached, {name: value.clone() for name, value in network.state_dict().items()}
        if epoch % 20 == 19:
            progress(f"autoencoder, epoch {epoch + 1}: normal validation error {reached:.4f}, best {best:.4f}")
    network.load_state_dict(kept)
    return [_errors(network, torch.from_numpy(other) / unit).numpy() for other in others]


@torch.no_grad()
def _errors(network: ConvAutoencoder, x: Tensor) -> Tensor:
    network.eval()
    return torch.cat([(network(part) - part).square().mean(dim=(1, 2)) for part in x.split(64)])
