"""Peers on an hour: what others need for one lead, against our whole analysis of all leads of the file.

    make bench-peers        # gives the peers a virtual environment of their own

The file is made (see `days`): an hour of 3 leads at 250 Hz. Each side is a fresh process; the sides alternate. Peers
get their lead as a .npy file and read no format. Ours is timed whole; of a peer the time within its call is shown, too,
without start and imports: the comparison with that is in its favour. wfdb and sleepecg find beats only; openecg writes
three label tracks of one lead.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from days import in_seconds, source_ecg, write_day
from machine import REPEATS, about, finish, in_words, save, spread, start, table

FS = 250
N_LEADS = 3

CALLS = {
    "neurokit2 ecg_process": ("peer", "neurokit2", "neurokit2.ecg_process(ecg, sampling_rate=FS)"),
    "openecg encode_stream": ("peer", "openecg", "openecg.encode_stream(ecg, fs=FS, model=openecg.load_codec_onnx())"),
    "wfdb xqrs (beats only)": ("own", "wfdb.processing", "wfdb.processing.xqrs_detect(ecg, FS, verbose=False)"),
    "sleepecg detect_heartbeats (beats only)": ("own", "sleepecg", "sleepecg.detect_heartbeats(ecg, FS)"),
}
"""Whose Python, what it imports, the call. ``ecg``: one lead, float64, mV."""

SCRIPT = """
import json, sys, time
import numpy as np
import {module}
FS = {fs}
ecg = np.load(sys.argv[1]).astype(float)
started = time.perf_counter()
{call}
took_s = time.perf_counter() - started
from importlib.metadata import version
print(json.dumps({{"call_s": took_s, "version": version("{package}")}}))
"""


def sides(file: Path, lead: Path, peer: str | None) -> dict[str, list[str]]:
    """Return the command of each side; those that need a Python of the peers are left out without one."""
    found = {
        f"anyecg analyze --json, {N_LEADS} leads": [sys.executable, "-m", "anyecg", "analyze", str(file), "--json"]
    }
    for name, (whose, module, call) in CALLS.items():
        python = sys.executable if whose == "own" else peer
        if python is not None:
            script = SCRIPT.format(module=module, call=call, fs=FS, package=module.split(".")[0])
            found[f"{name}, 1 lead"] = [python, "-c", script, str(lead)]
    return found


def measure(commands: dict[str, list[str]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run the sides in turn, once more to fill the disk cache; a side that takes over a minute runs once."""
    import json

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            if runs[name] and runs[name][-1]["wall_s"] > 60:
                continue
            run = finish(start(command))
            found = {key: run[key] for key in ("wall_s", "cpu_s", "peak_mib")}
            if not name.startswith("anyecg"):
                found |= json.loads(run["out"].splitlines()[-1])
            runs[name] = [*runs[name], found] if turn > 1 else [found]  # the first turn is forgotten
    return runs


def all_tables(numbers: dict[str, Any]) -> str:
    """Return the table: time, time within the call, memory, and ratios to ours."""
    ours, *_ = numbers["runs"].values()
    our_s = statistics.median([run["wall_s"] for run in ours])
    rows = []
    for name, runs in numbers["runs"].items():
        calls = [run["call_s"] for run in runs if "call_s" in run]
        wall_s = statistics.median([run["wall_s"] for run in runs])
        rows.append([
            f"{name}{' (' + runs[0]['version'] + ')' if 'version' in runs[0] else ''}", str(len(runs)),
            spread([run["wall_s"] for run in runs]), spread(calls) if calls else "",
            f"{statistics.median([run['cpu_s'] for run in runs]):.1f}",
            f"{statistics.median([run['peak_mib'] for run in runs]):.0f}",
            f"{our_s / wall_s:.2f}", f"{our_s / statistics.median(calls):.2f}" if calls else "",
        ])  # fmt: skip
    header = ["command", "repeats", "wall s, median (range)", "within the call, s", "processor s", "peak MiB",
              "ours / it", "ours / its call"]  # fmt: skip
    notes = f"{numbers['length']} at {FS} Hz: {numbers['ecg']}. {in_words(numbers['machine'])}"
    return f"{table(header, rows)}\n\n{notes}{numbers['missing']}"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--length", default="1h")
    parser.add_argument("--peer", help="a Python that has neurokit2 and openecg; without it they are left out")
    parser.add_argument("--data", type=Path, help="restored databases to join records of")
    parser.add_argument("--quick", action="store_true", help="twenty seconds, once: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/peers"))
    asked = parser.parse_args(arguments)
    length, repeats = ("20s", 0) if asked.quick else (asked.length, asked.repeats)

    ecg_mv, ecg = source_ecg(asked.data, FS)
    with tempfile.TemporaryDirectory() as folder:
        file = write_day(Path(folder) / "made", ecg_mv, in_seconds(length), N_LEADS, FS)
        lead = Path(folder) / "lead.npy"
        np.save(lead, np.resize(ecg_mv, in_seconds(length) * FS))
        runs = measure(sides(file, lead, asked.peer), repeats)
    missing = "" if asked.peer else " Not measured for want of --peer: neurokit2, openecg."
    numbers = {"length": length, "ecg": ecg, "machine": about("onnxruntime"), "missing": missing, "runs": runs}
    save(asked.out, "Peers", all_tables(numbers), numbers)


if __name__ == "__main__":
    main()
