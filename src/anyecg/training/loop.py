"""The training loop both stages share: schedule, log, checkpoint, exact resume.

A step depends on nothing but the state and its number: batches are drawn from (seed, step), and torch's generator is
seeded from them too. So an interrupted run that is started again ends with the very weights of an uninterrupted one.
"""

import ctypes
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from anyecg.training.batches import Part, prefetched
from anyecg.training.recipe import StageSection

Losses = Callable[[list[Part], int], tuple[Tensor, dict[str, float]]]


def learning_rate(stage: StageSection, step: int) -> float:
    """Warm up linearly, then follow half a cosine down to a hundredth."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    return stage.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def make_optimizer(model: nn.Module, stage: StageSection) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=stage.betas)


def train(
    model: nn.Module,
    losses: Losses,
    make: Callable[[int], list[Part]],
    stage: StageSection,
    folder: Path,
    seed: int,
    stop_at: int | None = None,
) -> nn.Module:
    """Train a model to the end of its stage, from where ``folder`` says it stopped.

    Parameters
    ----------
    model : Module
    losses : callable
        ``(parts, step) -> (loss, numbers to log)``.
    make : callable
        ``step -> parts``.
    stage : StageSection
    folder : Path
        Holds ``state.pt`` (weights, optimizer, step), ``log.jsonl`` and TensorBoard's files.
    seed : int
    stop_at : int, optional
        Stop after this many steps although the schedule is longer.
    """
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(model, stage)
    first = _resume(folder / "state.pt", model, optimizer)
    last = min(stage.steps, stop_at or stage.steps)
    log = RunLog(folder, first, last)
    saved_at = time.monotonic()
    model.train()
    with finish_step_on_interrupt() as interrupted:
        for step, parts in enumerate(prefetched(make, first, last), start=first):
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stage.bf16):
                loss, numbers = losses(parts, step)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}; the last good state is in {folder}")
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm)
            optimizer.step()
            log.add(step, {"loss": loss.item(), "grad_norm": norm.item(), **numbers})
            if (step + 1) % stage.log_every == 0 or step + 1 == last:
                log.flush(step + 1, learning_rate(stage, step))
            if interrupted.is_set() or time.monotonic() - saved_at > stage.checkpoint_every_s:
                save_state(folder / "state.pt", model, optimizer, step + 1)
                saved_at = time.monotonic()
            if interrupted.is_set():
                log.close()
                print(f"interrupted after step {step + 1}: the same command goes on from there", file=sys.stderr)
                raise KeyboardInterrupt
    log.close()
    if last > first:
        save_state(folder / "state.pt", model, optimizer, last)
    model.eval()
    return model


def keep_freed_memory() -> None:
    """Tell glibc to keep what was freed for the next step.

    By default it gives every large tensor back to the system at once; to fault the pages in again took 40 % of a
    step of nano on two cores. Where there is no glibc nothing happens.
    """
    mmap_threshold, trim_threshold = -3, -1  # of mallopt(3)
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


@contextmanager
def finish_step_on_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event: the step under way is finished and saved before the run ends."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write weights, optimizer and step; the file is replaced whole."""
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(path)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


class RunLog:
    """Means of the logged numbers: to ``log.jsonl``, to TensorBoard, and as one line with an ETA to stderr."""

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self.sums: dict[str, list[float]] = {}
        self.first, self.last = first, last
        self.started = time.monotonic()
        self.file = open(folder / "log.jsonl", "a")
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, step: int, numbers: dict[str, float]) -> None:
        """Remember the numbers of one step."""
        for key, value in numbers.items():
            self.sums.setdefault(key, []).append(value)

    def flush(self, step: int, rate: float) -> None:
        """Write the means since the last flush."""
        means = {key: sum(values) / len(values) for key, values in self.sums.items()}
        self.sums.clear()
        seconds_a_step = (time.monotonic() - self.started) / max(1, step - self.first)
        self.file.write(json.dumps({"step": step, "lr": rate, "s_per_step": seconds_a_step, **means}) + "\n")
        self.file.flush()
        for key, value in means.items():
            self.board.add_scalar(key, value, step)
        eta_min = seconds_a_step * (self.last - step) / 60
        shown = " ".join(f"{key} {value:.4g}" for key, value in means.items())
        print(f"step {step}/{self.last} ({eta_min:.0f} min left) {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        self.board.close()
