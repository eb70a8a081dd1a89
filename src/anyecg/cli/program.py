"""The program: how errors end it, and the arguments that several verbs share."""

import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from anyecg import __version__
from anyecg.cli.printing import one_line, say
from anyecg.errors import AnyECGError, MissingDependency

if TYPE_CHECKING:
    from anyecg.engine import Model


class _Verbs(TyperGroup):
    """Turns what a verb raises into one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            returned = super().invoke(ctx)
            sys.stdout.flush()
            return returned
        except BrokenPipeError:
            # What is still buffered can go nowhere: keep the interpreter from trying again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None
        except (AnyECGError, OSError, ValueError) as error:
            if ctx.params.get("debug"):
                raise
            say(f"error: {one_line(error)}")
            raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"anyecg {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read any ECG file, turn it into rhythm codes and embeddings, and report what is in it.

    Research software. Not a medical device: not for diagnosis or treatment.
    """


OneFile = Annotated[Path, typer.Argument(metavar="FILE", help="An ECG file of any known format.")]
ManyFiles = Annotated[list[str], typer.Argument(metavar="FILE", help="ECG files, folders or quoted globs.")]
Fs = Annotated[float | None, typer.Option("--fs", help="Sampling rate in Hz, for a file that does not state it.")]
Unit = Annotated[str | None, typer.Option("--unit", help="Unit of the samples, for a file that does not state it.")]
FixUnits = Annotated[bool, typer.Option("--fix-units", help="Correct amplitudes that no heart has by a power of 1000.")]
Start = Annotated[float | None, typer.Option("--start", help="Read from this second on.")]
End = Annotated[float | None, typer.Option("--end", help="Read up to this second.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a model, or a checkpoint folder.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document: a list if several files were asked for.")
]
AsOneJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Files at a time, each in a process with its share of the cores.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]


@cache
def open_model(name: str, n_workers: int = 1) -> "Model":
    """Open a model, once in a process; workers share the cores."""
    from anyecg.engine import load, usable_cores

    return load(name, threads=None if n_workers == 1 else max(usable_cores() // n_workers, 1))


def need_training() -> None:
    """Say in one line that the extra ``train`` is missing, if it is."""
    if find_spec("torch") is None:
        raise MissingDependency("training: no torch found, expected the extra 'train'. pip install 'anyecg[train]'")
