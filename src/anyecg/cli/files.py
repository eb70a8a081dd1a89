"""The files that a command reads, one or many, and those it writes: whole or not at all."""

import csv
import io
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from anyecg.cli.printing import one_line, say
from anyecg.errors import AnyECGError, WriteError

if TYPE_CHECKING:
    import numpy as np

    from anyecg.tokens import Tokens

T = TypeVar("T")
Job = tuple[Path, Callable[[], T]]

TOKENS_FORMAT_VERSION = 1
"""Version of the ``.npz`` that ``anyecg tokenize`` writes; stored in it as ``format_version``."""


class Batch:
    """The files a command names.

    One file: its error is the command's error. Several, a folder or a glob (``many``): a bad one is reported, skipped
    and counted, and the command ends with exit code 1. A folder is not searched in ``out``, where reports go.
    """

    def __init__(self, patterns: list[str], out: Path | None = None) -> None:
        from anyecg.readers import find_files

        first = Path(patterns[0])
        self.many = len(patterns) > 1 or first.is_dir() or (not first.exists() and any(c in patterns[0] for c in "*?["))
        self.n_bad = self.n_asked = 0
        found: dict[Path, None] = {}  # a set that keeps the order
        for pattern in patterns:
            try:
                here = find_files([pattern])
                if out is not None and Path(pattern).resolve() in out.resolve().parents:
                    here = [path for path in here if out.resolve() not in path.resolve().parents]
                found |= dict.fromkeys(here)
            except (AnyECGError, OSError) as error:
                self.n_asked += 1
                self._count(error, pattern)
        self.files = list(found)
        self.many = self.many or len(self.files) > 1  # one archive, or HDF5 file, of several recordings
        self.n_asked += len(self.files)

    def leave(self, files: list[Path]) -> None:
        """Leave files out, and say how many."""
        left = set(files)
        self.files = [path for path in self.files if path not in left]
        self.n_asked -= len(files)
        if files:
            say(f"{len(files)} of {len(files) + len(self.files)} have their reports already: left alone")

    def run(self, work: Callable[[Path], T], *, streams: bool = False, n_workers: int = 1) -> list[T]:
        """Return what work returns for each good file.

        With ``streams`` work itself prints results as it goes. With several workers it must be picklable, see
        `anyecg.cli.workers`.
        """
        results = []
        shown = self.many and sys.stderr.isatty() and not (streams and sys.stdout.isatty())
        with closing(_jobs(work, self.files, n_workers)) as jobs:
            for path, result in _with_progress(jobs, len(self.files)) if shown else jobs:
                try:
                    results.append(result())
                except BrokenPipeError:
                    raise
                except Exception as error:  # noqa: BLE001  in a batch a mistake of ours costs one file, not the others
                    self._count(error, str(path))
        return results

    def finish(self) -> None:
        """End the command with exit code 1 if a file was bad."""
        if self.n_bad:
            say(f"error: {self.n_bad} of {self.n_asked} failed")
            raise typer.Exit(1)

    def _count(self, error: Exception, where: str) -> None:
        if not self.many:
            raise error
        self.n_bad += 1
        line = one_line(error)
        if not isinstance(error, AnyECGError | OSError | ValueError):
            line = f"{type(error).__name__}: {line} (a mistake in anyecg: please report it; --debug on this file alone)"
        say(f"error: {line}" if where in line else f"error: {where}: {line}")


def _jobs(work: Callable[[Path], T], files: list[Path], n_workers: int) -> Generator[Job[T], None, None]:
    """Yield each file with a function that returns the result of the work on it, or raises."""
    if min(n_workers, len(files)) <= 1:
        yield from ((path, partial(work, path)) for path in files)
    else:
        from anyecg.cli.workers import side_by_side

        yield from side_by_side(work, files, min(n_workers, len(files)))


def _with_progress(jobs: Iterable[Job[T]], n_jobs: int) -> Iterator[Job[T]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    # Standard output is left alone: rich would send it to standard error while the bar is shown.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=n_jobs)
        for job in jobs:
            progress.update(task, description=job[0].name)
            yield job
            progress.advance(task)


def output_names(files: list[Path], folder: Path, force: bool, suffixes: tuple[str, ...]) -> dict[Path, str]:
    """Give each file its own name in a folder, without suffix; refuse a folder that cannot be."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise WriteError(f"{folder}: {above} is a file, expected a folder. Give another path.")
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in files:
        name, count = path.stem, 1
        while name in taken:  # two files of one name from two folders
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name)
        names[path] = name
    for name in names.values() if folder.exists() else ():
        for suffix in suffixes:
            check_output(
                folder / f"{name}{suffix}", force, way_out="Overwrite with --force, or --resume what is missing."
            )
    return names


def check_output(
    path: Path, force: bool, suffixes: list[str] | None = None, way_out: str = "Overwrite it with --force."
) -> None:
    """Refuse an output path before any work is done."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: suffix {path.suffix!r}, expected {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        found = "is a file" if path.parent.exists() else "is not there"
        raise WriteError(f"{path}: {path.parent} {found}, expected a folder. Make it, or give another path.")
    if path.is_dir():
        raise WriteError(f"{path}: is a folder, expected the path of a file. Give one.")
    if path.exists() and not force:
        raise WriteError(f"{path}: exists, expected a new file. {way_out}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: first under a hidden name beside it.

    Raises
    ------
    WriteError
        There is no room, or no right.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"{path}: cannot be written ({reason}). Check the folder, its rights and the free space."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises
    ------
    WriteError
        There is no room, or no right.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"{path}: the folder cannot be made ({reason}). Check its place, rights and free space."
        ) from error


def encoded(text: str) -> bytes:
    r"""Return text as UTF-8; bytes of a file's name that are none become ``\udcXX``, as on standard output."""
    return text.encode(errors="backslashreplace")


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays as a compressed ``.npz`` file."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write rows as a ``.csv`` file."""
    content = io.StringIO(newline="")
    csv.writer(content).writerows([header, *rows])
    write_whole(path, encoded(content.getvalue()))


def write_parquet(path: Path, columns: dict[str, list[str]], name: str, vectors: "np.ndarray") -> None:
    """Write columns of text, and one of vectors (n_rows, n), as a ``.parquet`` file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    texts = {key: [encoded(value).decode() for value in values] for key, values in columns.items()}
    content = io.BytesIO()
    pq.write_table(pa.table({**texts, name: lists}), content, compression="zstd")
    write_whole(path, content.getvalue())


def tokens_arrays(tokens: "Tokens") -> dict[str, Any]:
    """Return tokens as the arrays of a self-describing ``.npz`` file; no pickle in it."""
    return {
        "format_version": TOKENS_FORMAT_VERSION,
        "codes": tokens.codes,
        "valid": tokens.valid,
        "scale_mv": tokens.scale_mv,
        "leads": list(tokens.leads),
        "fs_hz": tokens.grid.fs_hz,
        "fragment_samples": tokens.grid.fragment_samples,
        "block_fragments": tokens.grid.block_fragments,
        "codebook_size": tokens.codebook_size,
        "n_samples": tokens.n_samples,
        "record_id": tokens.record_id,
        "gain_known": tokens.gain_known,
    }
