"""What the command line prints: results to standard output, everything else to standard error."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyecg.record import Record


def say(line: str) -> None:
    """Print a line to standard error, at once: other processes may print, too."""
    sys.stderr.write(f"{line}\n")


def warn(path: Path, warnings: tuple[str, ...]) -> None:
    """Print warnings about a file to standard error."""
    for warning in warnings:
        say(f"{path}: {warning}")


def one_line(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def only_json_on_stdout(as_json: bool) -> AbstractContextManager[Any]:
    """Send whatever a library prints to standard error while the one JSON document is in the making."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def to_json(document: Any) -> str:
    """Return a document as JSON text. A NaN in it is our own mistake, and raises."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def print_json(document: Any) -> None:
    """Print a document as the one thing on standard output."""
    sys.stdout.write(to_json(document))


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table; as wide as the terminal, or 160 columns into a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: brackets in a file's name are no markup
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def describe(path: Path, record: "Record") -> dict[str, Any]:
    """Return what a record says of itself, ready for JSON."""
    return {
        "path": str(path),
        "id": record.id,
        "format": record.format,
        "leads": list(record.leads),
        "fs_hz": record.fs,
        "duration_s": round(record.duration_s, 4),
        "age": record.age,
        "sex": record.sex,
        "start_time": record.start_time.isoformat() if record.start_time else None,
        "gain_known": record.gain_known,
        "n_annotations": len(record.annotations),
        "warnings": list(record.warnings),
    }


def print_records(found: list[dict[str, Any]]) -> None:
    """Print what `describe` returned for each file as a table, then the warnings."""
    if not found:
        return
    header = ["file", "format", "Hz", "length", "age", "sex", "start", "gain", "leads"]
    rows = [
        [
            entry["path"],
            entry["format"],
            f"{entry['fs_hz']:g}",
            _length(entry["duration_s"]),
            "-" if entry["age"] is None else f"{entry['age']:g}",
            entry["sex"] or "-",
            entry["start_time"] or "-",
            "mV" if entry["gain_known"] else "unknown",
            " ".join(entry["leads"]),
        ]
        for entry in found
    ]
    print_table(header, rows)
    for entry in found:
        for warning in entry["warnings"]:
            print(f"{entry['path']}: {warning}")


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.4g} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
