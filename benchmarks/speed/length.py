"""Length: `anyecg analyze FILE --json`, as a user calls it, from a minute to a fortnight. Time, and peak memory.

    python benchmarks/speed/length.py                          # all of it: an hour on two cores
    python benchmarks/speed/length.py --lengths 1m,10m,1h      # a part; what was measured before stays in the tables
    python benchmarks/speed/length.py --lengths 24h --leads 12
    python benchmarks/speed/length.py --data data              # real half hours of 22 people instead of five minutes

Files are made in a folder that is removed afterwards (the largest has three gigabytes). Each analysis is a process of
its own; peak memory is what the kernel says of it. A case is repeated five times, or once if it takes over a minute.
Results of another source of ECG are not mixed with those kept.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from days import in_seconds, source_ecg, write_day
from machine import REPEATS, about, finish, in_words, spread, start, table, write

CASES = [
    *((length, n_leads, 250) for n_leads in (1, 3) for length in ("1m", "10m", "1h", "6h", "24h", "72h")),
    ("7d", 1, 250),
    ("14d", 1, 250),
    *((length, 12, 500) for length in ("1m", "10m", "1h", "6h", "24h", "72h")),
]
"""Length, leads, Hz."""

QUICK = [("10s", 3, 250)]

AIMS = {
    ("24h", 3, 250): "at least 1,000 x real time, at most 1 GiB, at most 1.15 of the peak of 1 h",
    ("72h", 3, 250): "time per hour at most 1.2 of that of 1 h",
    ("24h", 12, 500): "at least 250 x real time, at most 1.5 GiB",
    ("7d", 1, 250): "works",
}


def name_of(length: str, n_leads: int, fs: int) -> str:
    """Return a case's name in the tables."""
    return f"{length} x {n_leads} at {fs} Hz"


def measure(path: Path, repeats: int) -> list[dict[str, Any]]:
    """Analyse a file in processes of their own, once more to fill the disk cache; return time and memory of each.

    Without repeats the one that fills the cache counts.
    """
    runs: list[dict[str, Any]] = []
    while len(runs) <= repeats:
        found = finish(start([sys.executable, "-m", "anyecg", "analyze", str(path), "--json"]))
        runs.append({key: found[key] for key in ("wall_s", "cpu_s", "peak_mib")})
        if found["wall_s"] > 60:
            return runs[-1:]
    return runs[1:] or runs


def all_tables(cases: dict[str, Any]) -> str:
    """Return the table of every case measured so far, with the ratios against an hour and the aims."""
    rows = []
    for length, n_leads, fs in [*CASES, *QUICK]:
        case = cases.get(name_of(length, n_leads, fs))
        if case is None:
            continue
        walls, peaks, hours = ([run[key] for run in case["runs"]] for key in ("wall_s", "peak_mib", "cpu_s"))
        seconds, wall_s, peak = in_seconds(length), statistics.median(walls), statistics.median(peaks)
        per_hour = against_hour = ""
        if (hour := cases.get(name_of("1h", n_leads, fs))) is not None and seconds >= 3600:
            hour_s = statistics.median([run["wall_s"] for run in hour["runs"]])
            hour_mib = statistics.median([run["peak_mib"] for run in hour["runs"]])
            per_hour, against_hour = f"{wall_s / (seconds / 3600) / hour_s:.2f}", f"{peak / hour_mib:.2f}"
        rows.append([
            name_of(length, n_leads, fs), str(len(walls)), spread(walls), f"{statistics.median(hours):.1f}",
            f"{seconds / wall_s:,.0f}", per_hour, f"{peak:.0f}", against_hour, AIMS.get((length, n_leads, fs), ""),
        ])  # fmt: skip
    header = ["file", "repeats", "wall s, median (range)", "processor s", "x real time", "per hour / 1 h",
              "peak MiB", "peak / 1 h", "aim"]  # fmt: skip
    machines = {f"{in_words(case['machine'])} Signal: {case['ecg']}." for case in cases.values()}
    notes = "`anyecg analyze FILE --json`, a process of its own each time, imports and model loading included."
    return "\n\n".join([table(header, rows), notes, *sorted(machines)])


def main(arguments: list[str] | None = None) -> None:
    """Measure the cases asked for, merge them with those measured before, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", help="1m,10m,1h,6h,24h,72h,7d,14d; default: all")
    parser.add_argument("--leads", help="1,3,12; default: all")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--data", type=Path, help="restored databases to join records of")
    parser.add_argument("--folder", type=Path, help="where files are made; default: the system's temporary folder")
    parser.add_argument("--quick", action="store_true", help="ten seconds, once: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/length"))
    asked = parser.parse_args(arguments)

    cases = QUICK if asked.quick else CASES
    lengths = asked.lengths.split(",") if asked.lengths else [length for length, _, _ in cases]
    leads = [int(n) for n in asked.leads.split(",")] if asked.leads else [n for _, n, _ in cases]
    chosen = [case for case in cases if case[0] in lengths and case[1] in leads]
    if not chosen:
        parser.error("no such case; " + ", ".join(name_of(*case) for case in cases))
    kept = asked.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    machine = about("onnxruntime", "scipy")
    sources: dict[int, Any] = {}
    for length, n_leads, fs in chosen:
        if fs not in sources:
            sources[fs] = source_ecg(asked.data, fs)
        ecg_mv, ecg = sources[fs]
        if any(case["ecg"] != ecg for case in found.values()):
            parser.error(f"{kept} holds results of another source ({next(iter(found.values()))['ecg']}): give --out")
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            path = write_day(Path(folder) / "made", ecg_mv, in_seconds(length), n_leads, fs)
            runs = measure(path, 0 if asked.quick else asked.repeats)
        found[name_of(length, n_leads, fs)] = {"runs": runs, "machine": machine, "ecg": ecg}
        write(asked.out, "Length", all_tables(found), found)  # after each: the rest may take long
        print(f"{name_of(length, n_leads, fs)}: {runs[-1]['wall_s']:.1f} s", file=sys.stderr, flush=True)
    print(all_tables(found))


if __name__ == "__main__":
    main()
