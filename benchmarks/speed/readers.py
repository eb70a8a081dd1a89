"""Reading: `anyecg.read` against the bare library of each format, on the same files, in the same process.

Run it as

    make bench-readers

The files are written by independent libraries, or are the real ones that come with them. Both sides end with all
samples in physical units as one floating-point array; ours also names leads, marks gaps, and audits. Sides alternate.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import anyecg

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def made_up(n_leads: int, minutes: float, fs: int) -> np.ndarray:
    """Return noise in mV, (n_samples, n_leads): reading does not look at what it reads."""
    return np.random.default_rng(0).normal(0, 0.3, (int(minutes * 60 * fs), n_leads))


def wfdb_case(
    folder: Path, form: str, minutes: float, slice_s: tuple[float, float] | None
) -> tuple[Path, Callable[[], object]]:
    """Return a WFDB record and how wfdb reads it."""
    import wfdb

    name, fs = f"rec{form}", 500
    wfdb.wrsamp(
        name,
        fs=fs,
        units=["mV"] * 12,
        sig_name=LEADS,
        p_signal=made_up(12, minutes, fs),
        fmt=[form] * 12,
        write_dir=str(folder),
    )
    path = folder / f"{name}.hea"
    limits = {} if slice_s is None else {"sampfrom": int(slice_s[0] * fs), "sampto": int(slice_s[1] * fs)}
    return path, lambda: wfdb.rdrecord(str(path.with_suffix("")), **limits).p_signal


def edf_case(folder: Path, minutes: float) -> tuple[Path, Callable[[], object]]:
    """Return an EDF file and how pyedflib reads it."""
    import pyedflib
    from pyedflib import highlevel

    path = folder / "rec.edf"
    headers = highlevel.make_signal_headers(
        LEADS, dimension="mV", sample_frequency=500, physical_min=-5, physical_max=5
    )
    highlevel.write_edf(str(path), made_up(12, minutes, 500).T.clip(-5, 5), headers)

    def bare() -> object:
        with pyedflib.EdfReader(str(path)) as file:
            return np.stack([file.readSignal(i) for i in range(file.signals_in_file)])

    return path, bare


def dicom_case() -> tuple[Path, Callable[[], object]]:
    """Return the real DICOM ECG of pydicom's wheel and how pydicom reads it."""
    import pydicom
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    return path, lambda: pydicom.dcmread(path).waveform_array(0)


def npy_case(folder: Path, minutes: float) -> tuple[Path, Callable[[], object]]:
    """Return a NumPy file and how numpy reads it."""
    path = folder / "rec.npy"
    np.save(path, made_up(12, minutes, 500).T.astype(np.float32))
    return path, lambda: np.load(path)


def csv_case(folder: Path, minutes: float) -> tuple[Path, Callable[[], object]]:
    """Return a CSV table and how pandas' C parser reads it."""
    import pandas

    from anyecg.writers import write

    path = folder / "rec.csv"
    write(anyecg.Record(made_up(12, minutes, 500).T, 500, tuple(LEADS)), path, force=True)
    return path, lambda: pandas.read_csv(path, comment="#").to_numpy()


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/readers"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"fs": 500.0, "unit": "mV"}
        cases = {
            "WFDB 16, 12 leads x 30 min": (*wfdb_case(folder, "16", 30, None), "wfdb", {}),
            "WFDB 212, 12 leads x 30 min": (*wfdb_case(folder, "212", 30, None), "wfdb", {}),
            "WFDB 24, 30 s out of 30 min": (
                *wfdb_case(folder, "24", 30, (600, 630)),
                "wfdb",
                {"start_s": 600, "end_s": 630},
            ),
            "EDF, 12 leads x 30 min": (*edf_case(folder, 30), "pyedflib", {}),
            "DICOM, 12 leads x 10 s": (*dicom_case(), "pydicom", {}),
            "NPY, 12 leads x 30 min": (*npy_case(folder, 30), "numpy", given),
            "CSV, 12 leads x 1 min": (*csv_case(folder, 1), "pandas", {}),
        }
        rows = []
        for case, (path, bare, library, arguments_of_read) in cases.items():
            pairs = [
                (seconds(lambda p=path, a=arguments_of_read: anyecg.read(p, **a)), seconds(bare))
                for _ in range(arguments.repeats + 1)
            ][1:]  # the first imports, and fills the disk cache
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            rows.append(
                {"case": case, "library": library, "anyecg_s": ours, "library_s": theirs, "ratio": ours / theirs}
            )
    lines = ["| file | anyecg, s | bare library, s | ratio |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {r['case']} | {r['anyecg_s']:.3f} | {r['library']} {r['library_s']:.3f} | {r['ratio']:.2f} |" for r in rows
    ]
    table = "\n".join([*lines, "", f"Medians of {arguments.repeats} repeats, alternating."])
    print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(f"# Reading\n\n{table}\n")
    arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
