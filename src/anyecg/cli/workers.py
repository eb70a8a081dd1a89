"""The same work on many files in several processes: results in the files' order, and nothing is left running."""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from anyecg.errors import AnyECGError

T = TypeVar("T")

AHEAD = 4
"""Files that each process may be ahead of the one whose result is waited for: bounds what waits in memory."""

LOST = (
    "its process was ended from outside, expected it to finish: most likely the memory was full, with this file or one "
    "beside it. Try it alone, or with fewer --workers."
)


def side_by_side(
    work: Callable[[Path], T], files: list[Path], n_workers: int
) -> Generator[tuple[Path, Callable[[], T]], None, None]:
    """Yield each file, in order, with a function that waits for its result, and returns or raises it.

    Parameters
    ----------
    work : callable
        A function of a module, or a `functools.partial` of one: each process gets it once.
    files : list of Path
    n_workers : int

    Notes
    -----
    A process that dies takes with it the files that were waiting; the others go on in new ones. Closed before its end,
    as by Ctrl-C, the generator ends its processes at once.
    """
    waiting: deque[tuple[Path, Callable[[], T]]] = deque()
    pool, done = _pool(work, n_workers), False
    try:
        for path in files:
            try:
                future = pool.submit(_do, path)
            except BrokenProcessPool:
                pool = _pool(work, n_workers)
                future = pool.submit(_do, path)
            waiting.append((path, lambda future=future: _result(future)))  # type: ignore[misc]
            if len(waiting) > AHEAD * n_workers:
                yield waiting.popleft()
        yield from waiting
        done = True
    finally:
        for process in () if done else multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=not done)


def _pool(work: Callable[[Path], Any], n_workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy the locks of the libraries' threads, held as they are.
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), _begin, (work,))


def _result(future: "Future[T]") -> T:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise AnyECGError(LOST) from error


_work: Callable[[Path], Any]


def _begin(work: Callable[[Path], Any]) -> None:
    """Make a process ready. Ctrl-C reaches it, too, but is the command's affair, which then ends its processes."""
    global _work
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output is the command's: one JSON document, perhaps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _do(path: Path) -> Any:
    return _work(path)
