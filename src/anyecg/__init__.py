"""AnyECG: any ECG in; rhythm codes, embeddings and a report out.

The data's way, written once, here; a module imports only from what stands before it:

    errors, leads, codes, ranks, record,
    readers, writers, source, signals, pieces, tokens, overview, result, quality, beat_check, beats,
    metrics, checkpoint, graphs, heads, engine, tasks, seen, stream, excerpts, saved, analysis, report,
    models, training,
    cli, demo

Research software. Not a medical device.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyecg.analysis import analyze as analyze
    from anyecg.checkpoint import list_models as list_models
    from anyecg.engine import load as load
    from anyecg.errors import AnyECGError as AnyECGError
    from anyecg.readers import read as read
    from anyecg.record import Annotation as Annotation
    from anyecg.record import Record as Record
    from anyecg.report import write_report as write_report
    from anyecg.result import Result as Result
    from anyecg.signals import prepare as prepare
    from anyecg.stream import Stream as Stream
    from anyecg.tokens import Tokens as Tokens
    from anyecg.training.evaluate import evaluate as evaluate
    from anyecg.training.finetune import finetune as finetune
    from anyecg.training.pretrain import pretrain as pretrain
    from anyecg.training.train_tokenizer import train_tokenizer as train_tokenizer

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first used (PEP 562), so that `import anyecg` is
# instant and only the training functions need torch.
_HOME = {
    "read": "anyecg.readers",
    "prepare": "anyecg.signals",
    "Record": "anyecg.record",
    "Annotation": "anyecg.record",
    "load": "anyecg.engine",
    "list_models": "anyecg.checkpoint",
    "Tokens": "anyecg.tokens",
    "analyze": "anyecg.analysis",
    "Stream": "anyecg.stream",
    "Result": "anyecg.result",
    "write_report": "anyecg.report",
    "train_tokenizer": "anyecg.training.train_tokenizer",
    "pretrain": "anyecg.training.pretrain",
    "finetune": "anyecg.training.finetune",
    "evaluate": "anyecg.training.evaluate",
    "AnyECGError": "anyecg.errors",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'anyecg' has no attribute {name!r}")
    home = _HOME[name]
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if not home.startswith("anyecg.training") or (error.name or "").startswith("anyecg"):
            raise
        from anyecg.errors import MissingDependency

        raise MissingDependency(
            f"anyecg.{name}: {error.name} is not installed, expected the extra 'train'. pip install 'anyecg[train]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Without torch the training functions stay unnamed here, so that help(anyecg) works all the same.
    usable = _HOME if find_spec("torch") else [name for name, home in _HOME.items() if "training" not in home]
    return sorted({*globals(), *usable})
