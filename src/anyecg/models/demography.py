"""Age, weight and sex read from all tokens of a record: the demography view."""

from typing import NamedTuple

from torch import Tensor, nn


class Demography(NamedTuple):
    """``age`` (B,) in units of 20 years around 60; ``weight`` (B,) in units of 15 kg around 75; ``sex`` (B, 2) logits.

    The logits are of (female, male).
    """

    age: Tensor
    weight: Tensor
    sex: Tensor


def read_demography(tokens: Tensor, valid: Tensor, head: nn.Linear) -> Demography:
    """Read a record's demography from the mean of its tokens (B, L, P, D); ``head`` maps D to 4."""
    share = valid.unsqueeze(-1).to(tokens.dtype)
    record = (tokens * share).sum(dim=(1, 2)) / share.sum(dim=(1, 2)).clamp_min(1)  # (B, D)
    age, weight, sex = head(record).float().split([1, 1, 2], dim=-1)
    return Demography(age[:, 0], weight[:, 0], sex)
