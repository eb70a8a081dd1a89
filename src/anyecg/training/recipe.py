"""A recipe: the whole run in one TOML file. An unknown key is an error; ``key=value`` on the command line overrides."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from anyecg.models.sizes import PRESETS, ModelConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """Where the restored databases and the splits are."""

    folder: Path = Path("data")
    splits: Path = Path("data/splits.csv")
    databases: tuple[str, ...] | None = None


class StageSection(_Section):
    """One training stage. A step takes ``n_many`` windows of many leads and ``n_few`` of few."""

    steps: int
    n_many: int
    n_few: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 3.0
    bf16: bool = True
    log_every: int = 20
    checkpoint_every_s: float = 180.0


class TokenizerStage(StageSection):
    """First stage. Loss weights of the three views, of the commitment, of noisy vectors agreeing with clean ones."""

    morphology: float = 1.0
    frequency: float = 0.2
    demography: float = 0.02
    commitment: float = 1.0
    steadiness: float = 0.2
    noise_probability: float = 0.5


class MaskSection(_Section):
    """How codes are hidden: the share of windows that get each kind of mask, and the share hidden."""

    fragments: float = 0.5
    spans: float = 0.2
    leads: float = 0.2
    all_but_few: float = 0.1
    ratio: tuple[float, float] = (0.3, 0.5)


class PretrainStage(StageSection):
    """Second stage. Loss weights of guessing a hidden lead's amplitude, age and sex, and the teacher's view.

    ``guessed_levels`` leaves the codes of all later levels unguessed. ``symmetric``: every window is seen twice, the
    second time with all that was visible hidden, and the other way round.
    """

    few_blocks: int = 3
    noise_probability: float = 0.2
    mask: MaskSection = MaskSection()
    unknown_gain_probability: float = 0.2
    amplitude: float = 0.1
    demography: float = 0.05
    latent: float = 1.0
    teacher_decay: float = 0.998
    guessed_levels: int | None = None
    symmetric: bool = False


class Recipe(_Section):
    """A whole run."""

    name: str
    preset: str = "nano"
    model: ModelConfig | None = None
    out: Path = Path("runs")
    seed: int = 0
    threads: int = 2
    data: DataSection = DataSection()
    tokenizer: TokenizerStage
    pretrain: PretrainStage

    @property
    def sizes(self) -> ModelConfig:
        """The networks' sizes: given in full, or the preset's."""
        return self.model or PRESETS[self.preset]

    @property
    def folder(self) -> Path:
        """Where the run keeps its checkpoints and logs."""
        return self.out / self.name


def load_recipe(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a TOML recipe; ``overrides`` are ``section.key=value`` with values in TOML spelling.

    Raises
    ------
    ValueError
        The file is no recipe, or an override does not fit; the message names the key.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe. Recipes are TOML files, such as recipes/nano_cpu.toml.")
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"override {override!r} is not of the form key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *sections, name = key.strip().split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    try:
        return Recipe(**values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path}: {problems}") from error
