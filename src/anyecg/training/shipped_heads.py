"""The heads that ship with a checkpoint: one function each, from the restored databases to the files in ``heads``."""

from collections.abc import Callable
from pathlib import Path

from anyecg.engine import load
from anyecg.training.beat_classes import train_beats
from anyecg.training.datasets import write_label_table
from anyecg.training.finetune import finetune
from anyecg.training.fit_head import HeadSettings, Mode
from anyecg.training.forests import ForestSettings
from anyecg.training.restorer import HEAD as RESTORER
from anyecg.training.restorer import fit_restorer
from anyecg.training.rhythm import train_head as train_rr_rhythm
from anyecg.training.trees import add_trees, calibrate_anew

Progress = Callable[[str], None]


def train_heads(folder: Path, names: list[str], data: Path, splits: Path, progress: Progress = print) -> None:
    """Train heads of a checkpoint folder, and write them into it; those of the same name are replaced.

    Parameters
    ----------
    folder : Path
        A checkpoint.
    names : list of str
        Keys of `HEADS`; empty = all.
    data, splits : Path
        The restored databases, and the CSV of splits: heads learn from train and choose on val.
    """
    unknown = [name for name in names if name not in HEADS]
    if unknown:
        raise ValueError(f"no head {', '.join(unknown)}; allowed are {', '.join(HEADS)}")
    for name in names or HEADS:
        progress(f"head {name}")
        HEADS[name](folder, data, splits, progress)


def calibrate_heads(folder: Path, names: list[str], data: Path, splits: Path, progress: Progress = print) -> None:
    """Choose weights of trees, calibration and thresholds of heads with trees again on val; nothing is fitted.

    Parameters are those of `train_heads`; names are keys of `TREES`.
    """
    unknown = [name for name in names if name not in TREES]
    if unknown:
        raise ValueError(f"no head with trees {', '.join(unknown)}; allowed are {', '.join(TREES)}")
    for name in names or TREES:
        progress(f"head {name}")
        calibrate_anew(folder, name, data, splits, progress)


def _from_labels(
    name: str, mode: Mode, settings: HeadSettings, trees: ForestSettings
) -> Callable[[Path, Path, Path, Progress], None]:
    def train(folder: Path, data: Path, splits: Path, progress: Progress) -> None:
        table = data / f"{name}.csv"
        write_label_table(name, data, splits, table)
        finetune(
            table,
            folder,
            folder,
            head=name,
            mode=mode,
            settings=settings,
            data=data,
            trees=False,  # they are added with settings of their own
            force=True,
            progress=progress,
        )
        add_trees(folder, name, trees, data, splits, progress)

    return train


def _beats(folder: Path, data: Path, splits: Path, progress: Progress) -> None:
    train_beats(folder, data, splits, progress)


def _rr_rhythm(folder: Path, data: Path, splits: Path, progress: Progress) -> None:
    train_rr_rhythm(data, splits, folder, progress=progress)


def _restorer(folder: Path, data: Path, splits: Path, progress: Progress) -> None:
    fit_restorer(load(folder), data, splits, folder, progress)


TREES = {
    "diagnosis": ForestSettings(),
    "rhythm": ForestSettings(leaves=24, rounds=150, least_in_a_leaf=30),
}
"""Trees beside the networks of these heads; sizes chosen on val (dev/LOG.md)."""

HEADS: dict[str, Callable[[Path, Path, Path, Progress], None]] = {
    # 1,400 training records: tuning the encoder gained nothing (dev/LOG.md)
    "diagnosis": _from_labels("diagnosis", "linear", HeadSettings(), TREES["diagnosis"]),
    "rhythm": _from_labels("rhythm", "full", HeadSettings(epochs=6), TREES["rhythm"]),
    "beats": _beats,
    "rr_rhythm": _rr_rhythm,
    RESTORER: _restorer,
}
