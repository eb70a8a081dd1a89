"""The networks' sizes: what a config holds, and the presets.

``nano`` ships in the wheel. ``paper`` is the AnyECG paper's tokenizer (arXiv 2411.17711): 1 s, one code of 8192 x 64.
``base large xlarge`` follow the trunks of its kin (NeuroLM): the paper gives 254 M, 500 M and 1.7 B without the shapes.
Measured parameter counts: ``anyecg models --presets``.
"""

from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from anyecg.leads import STANDARD_LEADS
from anyecg.models.attention import Reach
from anyecg.tokens import Scope

UNKNOWN_LEAD = "unknown"
TRAINED_LEADS = (UNKNOWN_LEAD, *STANDARD_LEADS, "MLII")
"""Leads with an embedding of their own: those the training data hold. All others share ``unknown``."""


class TokenizerConfig(BaseModel):
    """Sizes of the ECG tokenizer.

    ``fs_hz * fragment_s`` must be whole: the samples of a fragment. A block of ``block_fragments`` fragments is what
    the tokenizer sees at once. With ``quantizer = "fsq"`` each of the ``n_levels`` codes is made of the dimensions that
    ``fsq_values`` lists, by the number of values each may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fs_hz: float = 300.0
    low_hz: float = 0.5
    high_hz: float = 75.0
    fragment_samples: int = 150
    block_fragments: int = 20
    lead_names: tuple[str, ...] = TRAINED_LEADS
    conv_channels: int = 32
    width: int = 192
    n_heads: int = 6
    encoder_layers: int = 4
    decoder_layers: int = 2
    tolerance: int = 0
    encoder_reach: Reach = "own-lead"
    decoder_reach: Reach = "cardio-sparse"
    scale_per: Scope = "lead"
    n_levels: int = 6
    codebook_size: int = 256
    code_dim: int = 64
    decay: float = 0.99
    codebook_gradient: bool = False
    quantizer: Literal["cosine-vq", "fsq"] = "cosine-vq"
    fsq_values: tuple[int, ...] = (8, 8, 4)
    wavelet: str = "db6"

    @model_validator(mode="after")
    def _fits(self) -> "TokenizerConfig":
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} is no multiple of n_heads {self.n_heads}")
        if self.lead_names[0] != UNKNOWN_LEAD:
            raise ValueError(f"lead_names must begin with {UNKNOWN_LEAD!r}")
        if self.quantizer == "fsq":
            size, dims = prod(self.fsq_values), self.n_levels * len(self.fsq_values)
            if (self.codebook_size, self.code_dim) != (size, dims):
                raise ValueError(f"fsq_values {self.fsq_values} need codebook_size {size} and code_dim {dims}")
        return self


class EncoderConfig(BaseModel):
    """Sizes of the masked-code encoder. ``max_fragments`` is the longest window, in fragments, it can look at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 192
    n_layers: int = 6
    n_heads: int = 6
    tolerance: int = 0
    reach: Reach = "cardio-sparse"
    max_fragments: int = 60
    dropout: float = 0.0


class ModelConfig(BaseModel):
    """Tokenizer and encoder together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: TokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()


_WIDE = TokenizerConfig(width=384, n_heads=6, encoder_layers=6, decoder_layers=4)

PRESETS: dict[str, ModelConfig] = {
    "nano": ModelConfig(),
    "paper": ModelConfig(
        tokenizer=TokenizerConfig(
            fragment_samples=300,
            block_fragments=60,
            encoder_reach="cardio-sparse",
            n_levels=1,
            codebook_size=8192,
            codebook_gradient=True,
        ),
    ),
    "small": ModelConfig(
        tokenizer=TokenizerConfig(width=256, n_heads=8), encoder=EncoderConfig(width=384, n_layers=8, n_heads=6)
    ),
    "base": ModelConfig(tokenizer=_WIDE, encoder=EncoderConfig(width=768, n_layers=12, n_heads=12)),
    "large": ModelConfig(tokenizer=_WIDE, encoder=EncoderConfig(width=1024, n_layers=24, n_heads=16)),
    "xlarge": ModelConfig(tokenizer=_WIDE, encoder=EncoderConfig(width=1600, n_layers=48, n_heads=25)),
}
