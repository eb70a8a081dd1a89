"""Bulk: files a second of `anyecg analyze FILES --out FOLDER`, with one command and with several side by side.

    python benchmarks/speed/bulk.py

Forty copies of the demo's recordings (10 s of 12 leads as DICOM, 5 min of one lead as CSV) are shared out among 1 to N
commands, N the cores. There is no worker option: several commands are how a user fills a machine today. They run once
with all cores each, as they would by default, and once with a core each, which leaves nothing to fight about.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import REPEATS, about, finish, in_words, save, spread, start, table, usable_cores

from anyecg.demo import make_files


def copies(folder: Path, n: int) -> list[Path]:
    """Write n copies of the demo's recordings in turn, each under a name of its own."""
    originals = make_files(folder / "demo")
    found = []
    for i in range(n):
        source = originals[i % len(originals)]
        found.append(folder / f"{source.stem}_{i}{source.suffix}")
        shutil.copyfile(source, found[-1])
    return found


def seconds(files: list[Path], n_commands: int, apart: bool, folder: Path) -> float:
    """Analyse all files with some commands side by side; return the time until the last has ended.

    Files go to commands in turn by pairs, so that each has its share of short and long ones.
    """
    cores = usable_cores()
    started = time.perf_counter()
    running = []
    for k in range(n_commands):
        own = [path for i, path in enumerate(files) if i // 2 % n_commands == k]
        if not own:  # fewer files than commands
            continue
        command = [sys.executable, "-m", "anyecg", "analyze", *map(str, own), "--out", str(folder / f"out{k}")]
        running.append(start(command, cores[k::n_commands] if apart else cores))
    for process in running:
        finish(process)
    took_s = time.perf_counter() - started
    written = len(list(folder.glob("out*/*.html")))
    assert written == len(files), f"{written} reports of {len(files)} files"
    for out in folder.glob("out*"):
        shutil.rmtree(out)
    return took_s


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="two files, once: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/bulk"))
    asked = parser.parse_args(arguments)
    n_files, repeats = (2, 1) if asked.quick else (asked.files, asked.repeats)

    n_cores = len(usable_cores())
    ways = [(1, False), *((n, apart) for n in range(2, n_cores + 1) for apart in (False, True))]
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        files = copies(Path(name), n_files)
        for _ in range(repeats):
            for n, apart in ways:
                way = f"{n} command{'s' * (n > 1)}, {'cores of its own each' if apart else 'all cores'}"
                taken.setdefault(way, []).append(seconds(files, n, apart, Path(name)))
    one_s = statistics.median(next(iter(taken.values())))
    rows = [
        [way, str(len(times)), spread(times), f"{n_files / statistics.median(times):.2f}",
         f"{one_s / statistics.median(times):.2f}"]
        for way, times in taken.items()
    ]  # fmt: skip
    machine = about("onnxruntime")
    text = table(["way", "repeats", "wall s, median (range)", "files/s", "x one command"], rows)
    notes = f"{n_files} files, half 10 s of 12 leads (DICOM), half 5 min of one (CSV), to HTML and JSON each."
    numbers = {"files": n_files, "machine": machine, "seconds": taken}
    save(asked.out, "Bulk", f"{text}\n\n{notes} {in_words(machine)}", numbers)


if __name__ == "__main__":
    main()
