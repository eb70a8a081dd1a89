"""Cold start: `anyecg analyze` of a 10 s 12-lead file against neurokit2's ecg_process on one of its leads.

Each side is a fresh process; the sides alternate, so that a busy moment of the machine hits both. Run it as

    make bench

which gives neurokit2 a virtual environment of its own. The file is the real DICOM ECG that comes with pydicom. The
peer gets its lead as a .npy file and so reads no DICOM: the comparison is in its favour.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import sys
import numpy as np
import neurokit2
neurokit2.ecg_process(np.load(sys.argv[1]), sampling_rate=1000)
"""


def seconds(command: list[str]) -> float:
    """Run a command to its end; return its wall time."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peer", required=True, help="a Python that has neurokit2")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/cold_start"))
    arguments = parser.parse_args()

    import numpy as np
    from pydicom.data import get_testdata_file

    import anyecg

    file = Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    with tempfile.TemporaryDirectory() as folder:
        lead = Path(folder) / "lead_II.npy"
        np.save(lead, anyecg.read(file).pick(["II"]).signal[0])
        sides = {
            "anyecg analyze --json, 12 leads": [sys.executable, "-m", "anyecg", "analyze", str(file), "--json"],
            "neurokit2 ecg_process, 1 lead": [arguments.peer, "-c", PEER, str(lead)],
            "anyecg --help": [sys.executable, "-m", "anyecg", "--help"],
        }
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.repeats + 1):
            for name, command in sides.items():
                taken[name].append(seconds(command))
    taken = {name: times[1:] for name, times in taken.items()}  # the first fills the disk cache
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ours, peer, _ = medians.values()
    lines = ["| command, cold | median s | fastest s | slowest s |", "| --- | --- | --- | --- |"]
    lines += [f"| {n} | {medians[n]:.2f} | {min(t):.2f} | {max(t):.2f} |" for n, t in taken.items()]
    lines += [
        "",
        f"Ratio of medians, anyecg / neurokit2: {ours / peer:.2f} ({arguments.repeats} repeats, alternating).",
    ]
    table = "\n".join(lines)
    print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(f"# Cold start\n\n{table}\n")
    arguments.out.with_suffix(".json").write_text(json.dumps({"seconds": taken, "ratio": ours / peer}, indent=1) + "\n")


if __name__ == "__main__":
    main()
