"""The ONNX graphs of a folder, run over many items on all cores. NumPy in, NumPy out.

A graph runs on one core; several parts of a batch run beside each other. That is faster than all cores on one part:
nobody waits for anybody in the middle, and what a small part becomes on its way stays in a core's own cache.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

TOKENS_AT_ONCE = 480
"""Fragments of leads that go through a graph together, such as two blocks of 12 leads. Their widest layer takes a
megabyte and a half; with eight times as many both networks are a tenth to a half slower, with half as many, too."""

FEWEST_PARTS = 2
"""Parts of a batch of several items, however many cores there are: a graph that multiplies in 8 bits scales its numbers
to the part they are in, and a recording shall have the same result on every machine."""


class Graphs:
    """Opens graphs when they are first needed, or before that in a thread, and runs them.

    Parameters
    ----------
    folder : Path
    threads : int
        Parts of a batch that run beside each other.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="anyecg-opener")
        self._open: dict[str, Future[onnxruntime.InferenceSession]] = {}

    def open(self, name: str) -> "Future[onnxruntime.InferenceSession]":
        """Begin to open a graph, unless that was done."""
        if name not in self._open:
            self._open[name] = self._opener.submit(open_graph, self.folder / name)
        return self._open[name]

    def run(self, name: str, outputs: list[str] | None, **inputs: np.ndarray) -> list[np.ndarray]:
        """Run a graph over many items.

        Parameters
        ----------
        name : str
            The graph's file.
        outputs : list of str or None
            None means all; what only others need is not computed.
        **inputs : ndarray
            Items lie along the first axis; the first input has leads and fragments along the next two.

        Returns
        -------
        list of ndarray
            An array an output, items along the first axis.
        """
        n_items, n_leads, n_fragments = next(iter(inputs.values())).shape[:3]
        at_once = max(1, min(TOKENS_AT_ONCE // (n_leads * n_fragments), ceil(n_items / FEWEST_PARTS)))
        session, options = self.open(name).result(), _only_what_is_asked()

        def run(start: int) -> list[np.ndarray]:
            part = {key: x[start : start + at_once] for key, x in inputs.items()}
            found: list[np.ndarray] = session.run(outputs, part, options)
            return found

        starts = range(0, n_items, at_once)
        alone = self.threads == 1 or len(starts) == 1
        parts = [run(start) for start in starts] if alone else list(self._runners.map(run, starts))
        return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]

    def run_by_lead(self, name: str, outputs: list[str] | None, **inputs: np.ndarray) -> list[np.ndarray]:
        """Run a graph in which no lead sees another: each is an item, so that one record keeps all cores busy.

        Parameters and returned arrays as in `run`; leads lie along the second axis of each.
        """
        shape = next(iter(inputs.values())).shape[:2]
        alone = {key: x.reshape(-1, 1, *x.shape[2:]) for key, x in inputs.items()}
        return [found.reshape(*shape, *found.shape[2:]) for found in self.run(name, outputs, **alone)]

    @cached_property
    def _runners(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="anyecg-graphs")


def open_graph(path: Path) -> "onnxruntime.InferenceSession":
    """Open a graph that runs on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # what cannot be folded is slower, not wrong
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _only_what_is_asked() -> "onnxruntime.RunOptions":
    """Return options that leave out what no output needs: otherwise the guesses are made for embeddings, too."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options
