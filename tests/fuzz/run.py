"""Fuzz every reader: ``python tests/fuzz/run.py --inputs 100000 --seed 0``; exit 1 if an input failed.

A mutated file must be read or be refused with an AnyECGError of one line, within 2 s of processor time and 512 MB.
Failing inputs are kept in ``--keep``, a folder each; ``--seed N --first INDEX --inputs 1`` makes one again.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from inputs import Maker, Seed, make_seeds, save_seeds
from worker import Outcome, Worker


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long, however many inputs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="only seeds whose name begins so")
    parser.add_argument("--samples", type=Path, default=None, help="a folder of devices' files: FOLDER/project/file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="anyecg-fuzz-") as name:
        folder = Path(name)
        seeds, missing = make_seeds(folder / "made", options.samples)
        seeds = [seed for seed in seeds if seed.name.startswith(options.only)]
        for line in missing:
            print(f"no seeds of {line}", file=sys.stderr)
        save_seeds(seeds, folder)
        unread = refused_seeds(seeds, folder)
        begin = time.monotonic()
        counts, slowest, largest = fuzz(folder, options)
        took_s = time.monotonic() - begin
    print_table(counts)
    n_inputs, n_failed = sum(sum(c.values()) for c in counts.values()), sum(c["failed"] for c in counts.values())
    print(
        f"{n_inputs} inputs of {len(seeds)} seeds in {took_s:.0f} s; slowest {slowest:.2f} s, most memory "
        f"{largest:.0f} MB; {n_failed} failed" + (f", kept in {options.keep}" if n_failed else "")
    )
    return 1 if n_failed or unread or missing else 0


def refused_seeds(seeds: list[Seed], folder: Path) -> int:
    """Read each seed as it is; name those that cannot be read, since their mutations teach little."""
    worker, n_refused = Worker(), 0
    for i, seed in enumerate(seeds):
        path = folder / "seeds" / f"{i:03d}" / seed.main
        outcome = worker.ask({"path": str(path), "arguments": seed.arguments})
        if outcome.outcome != "read":
            n_refused += 1
            print(f"seed {seed.name} is not read: {outcome.why}", file=sys.stderr)
    worker.close()
    return n_refused


def fuzz(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Counter[str]], float, float]:
    """Feed the workers; return counts by seed's name, the slowest input in s and the most memory in MB."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest = largest = 0.0
    pending = iter(range(options.first, options.first + options.inputs))
    lock = threading.Lock()
    until = time.monotonic() + 60 * options.minutes

    def feed() -> None:
        nonlocal slowest, largest
        worker = Worker(folder)
        while True:
            with lock:
                index = next(pending, None) if time.monotonic() < until else None
            if index is None:
                break
            outcome = worker.ask({"seed": options.seed, "index": index})
            with lock:
                slowest, largest = max(slowest, outcome.cpu_s), max(largest, outcome.peak_mb)
                counts[outcome.name or keep(folder, options, index, outcome)][outcome.outcome] += 1
                if outcome.failed and outcome.name:
                    keep(folder, options, index, outcome)
        worker.close()

    threads = [threading.Thread(target=feed) for _ in range(options.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, slowest, largest


def keep(folder: Path, options: argparse.Namespace, index: int, outcome: Outcome) -> str:
    """Make a failing input again in the folder for failures; return the name of its seed."""
    maker = Maker(folder)
    path, arguments, name = maker.make(options.seed, index)
    place = options.keep / f"{name}-{options.seed}-{index}"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path.parent, place)
    about = {"main": path.name, "arguments": arguments, "why": outcome.why, "cpu_s": outcome.cpu_s}
    (place / "about.json").write_text(json.dumps(about, indent=1))
    print(f"failed: {place}: {outcome.why[:200]}", file=sys.stderr, flush=True)
    shutil.rmtree(maker.scratch)
    return name


def print_table(counts: dict[str, Counter[str]]) -> None:
    """Print a line for each seed's name."""
    print(f"{'seed':18}{'inputs':>9}{'read':>9}{'refused':>9}{'failed':>9}")
    for name in sorted(counts):
        found = counts[name]
        print(f"{name:18}{sum(found.values()):9}{found['read']:9}{found['refused']:9}{found['failed']:9}")


if __name__ == "__main__":
    sys.exit(main())
