"""Bulk: files a second of `anyecg analyze FILES --out FOLDER` and `anyecg embed FILES`, with one to N workers.

    python benchmarks/speed/bulk.py

Forty copies of the demo's recordings (10 s of 12 leads as DICOM, 5 min of one lead as CSV); N is the number of cores.
One worker uses all cores within a file; several have their share of them each.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from machine import REPEATS, about, finish, in_words, save, spread, start, table, usable_cores

from anyecg.demo import make_files

VERBS = ("analyze", "embed")


def copies(folder: Path, n: int) -> list[Path]:
    """Write n copies of the demo's recordings in turn, each under a name of its own."""
    originals = make_files(folder / "demo")
    found = []
    for i in range(n):
        source = originals[i % len(originals)]
        found.append(folder / f"{source.stem}_{i}{source.suffix}")
        shutil.copyfile(source, found[-1])
    return found


def seconds(verb: str, files: list[Path], n_workers: int, folder: Path) -> float:
    """Return how long a command takes for all files."""
    output = folder / ("reports" if verb == "analyze" else "embeddings.npz")
    asked = ["--out", str(output)] if verb == "analyze" else ["-o", str(output)]
    command = [sys.executable, "-m", "anyecg", verb, *map(str, files), *asked, "--workers", str(n_workers)]
    taken_s = float(finish(start(command))["wall_s"])
    if verb == "analyze":
        written = len(list(output.glob("*.html")))
        assert written == len(files), f"{written} reports of {len(files)} files"
        shutil.rmtree(output)
    else:
        output.unlink()
    return taken_s


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="two files, once: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/bulk"))
    asked = parser.parse_args(arguments)
    n_files, repeats = (2, 1) if asked.quick else (asked.files, asked.repeats)

    ways = [(verb, n) for verb in VERBS for n in range(1, len(usable_cores()) + 1)]
    taken: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        files = copies(Path(name), n_files)
        for _ in range(repeats):
            for verb, n in ways:
                taken[verb, n].append(seconds(verb, files, n, Path(name)))
    rows = [
        [f"`{verb}`", str(n), str(len(times)), spread(times), f"{n_files / statistics.median(times):.2f}",
         f"{statistics.median(taken[verb, 1]) / statistics.median(times):.2f}"]
        for (verb, n), times in taken.items()
    ]  # fmt: skip
    machine = about("onnxruntime")
    text = table(["verb", "workers", "repeats", "wall s, median (range)", "files/s", "x one worker"], rows)
    notes = (
        f"{n_files} files, half 10 s of 12 leads (DICOM), half 5 min of one (CSV): to HTML and JSON each, or to one "
        "table of embeddings. Starting the processes and opening the model in each is included."
    )
    seconds_of = {f"{verb}, {n}": times for (verb, n), times in taken.items()}
    numbers = {"files": n_files, "machine": machine, "seconds": seconds_of}
    save(asked.out, "Bulk", f"{text}\n\n{notes} {in_words(machine)}", numbers)


if __name__ == "__main__":
    main()
