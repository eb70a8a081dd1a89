"""Reading: `anyecg.read` against the bare library of each format, on the same files, in the same process.

Run it as

    make bench-readers

The files are written by independent libraries, or are the real ones that come with them. Both sides end with the
same: all samples in memory, in physical units, as float32, a row a lead. Most libraries give columns, or float64;
`rows` then turns them as any user would, and that is in their time. Ours also names leads and marks gaps: that is the
column "read", like for like. Then `anyecg.read` audits every sample, which no library does: the column "audits". Sides
alternate, and the files are in the system's cache. Which side comes first changes, too: the one that follows another
finds what both use in the processor's cache, which is up to a fifth of the time of a short file.

What reading costs us beyond the samples hardly grows with them, which is why short files are in the table, too: to look
which format it is, what the file says of leads, rate and unit, and the record. The library's user knows all that, and
names the array that is wanted: of an HDF5 file h5py then opens one object, where we list all, with what they say.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from days import source_ecg, write_day

import anyecg
from anyecg.readers import read_source

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
FS = 500
GIVEN = {"fs": float(FS), "unit": "mV"}

SAMPLES = Path("../shared/formats")
"""Devices' files; a line for each if the folder is there."""


@dataclass
class Case:
    """A file, how its bare library reads it, and what `anyecg.read` must be told."""

    name: str
    path: Path
    library: str
    bare: Callable[[], object]
    arguments: dict[str, Any] = field(default_factory=dict)


def made_up(seconds: float) -> np.ndarray:
    """Return noise on a slow wave in mV, (12, n): reading does not look at what it reads, but audits do."""
    n = int(seconds * FS)
    noise = np.random.default_rng(0).normal(0, 0.3, (len(LEADS), n))
    return (noise + 0.2 * np.sin(np.arange(n) / 200)).clip(-4, 4)


def rows(leads: object) -> np.ndarray:
    """Return leads as a record has them: float32, (n_leads, n_samples), one after the other in memory."""
    return np.ascontiguousarray(leads, dtype=np.float32)


def wfdb_case(folder: Path, form: str, name: str, seconds: float, span_s: tuple[float, float] | None = None) -> Case:
    """Return a WFDB record and how wfdb reads it."""
    import wfdb

    stem = f"rec{form}_{seconds:g}"
    wfdb.wrsamp(
        stem,
        fs=FS,
        units=["mV"] * 12,
        sig_name=LEADS,
        p_signal=made_up(seconds).T,
        fmt=[form] * 12,
        write_dir=str(folder),
    )
    path = folder / f"{stem}.hea"
    limits = {} if span_s is None else {"sampfrom": int(span_s[0] * FS), "sampto": int(span_s[1] * FS)}
    arguments = {} if span_s is None else {"start_s": span_s[0], "end_s": span_s[1]}
    return Case(
        name, path, "wfdb", lambda: rows(wfdb.rdrecord(str(path.with_suffix("")), **limits).p_signal.T), arguments
    )


def edf_case(folder: Path, suffix: str, seconds: float) -> Case:
    """Return an EDF or BDF file and how pyedflib reads it."""
    import pyedflib
    from pyedflib import highlevel

    path = folder / f"rec{seconds:g}{suffix}"
    limits = {"digital_min": -(2**23), "digital_max": 2**23 - 1} if suffix == ".bdf" else {}
    headers = highlevel.make_signal_headers(
        LEADS, dimension="mV", sample_frequency=FS, physical_min=-5, physical_max=5, **limits
    )
    kind = pyedflib.FILETYPE_BDFPLUS if suffix == ".bdf" else pyedflib.FILETYPE_EDFPLUS
    highlevel.write_edf(str(path), np.ascontiguousarray(made_up(seconds)), headers, file_type=kind)

    def bare() -> object:
        with pyedflib.EdfReader(str(path)) as file:
            return rows([file.readSignal(i) for i in range(file.signals_in_file)])

    return Case(f"{suffix[1:].upper()}+", path, "pyedflib", bare)


def day_cases(folder: Path) -> Iterator[Case]:
    """Yield half a minute in the middle of a day of three leads at 250 Hz, and how wfdb and pyedflib read it."""
    import pyedflib
    import wfdb
    from pyedflib import highlevel

    fs, at_s, lasts_s = 250, 12 * 3600, 30
    slice_s = {"start_s": float(at_s), "end_s": float(at_s + lasts_s)}
    day = write_day(folder / "day", source_ecg(None, fs)[0], 24 * 3600, 3, fs)
    stem, first, last = str(day.with_suffix("")), at_s * fs, (at_s + lasts_s) * fs
    yield Case(
        "WFDB 16, 30 s of 24 h",
        day,
        "wfdb",
        lambda: rows(wfdb.rdrecord(stem, sampfrom=first, sampto=last).p_signal.T),
        slice_s,
    )
    whole = anyecg.read(day)
    headers = highlevel.make_signal_headers(
        list(whole.leads), dimension="mV", sample_frequency=fs, physical_min=-33, physical_max=33
    )
    edf = folder / "day.edf"
    highlevel.write_edf(str(edf), whole.signal.astype(np.float64), headers)

    def bare() -> object:
        with pyedflib.EdfReader(str(edf)) as file:
            return rows([file.readSignal(i, first, last - first) for i in range(file.signals_in_file)])

    yield Case("EDF+, 30 s of 24 h", edf, "pyedflib", bare, slice_s)


def dicom_case() -> Case:
    """Return the real DICOM ECG of pydicom's wheel and how pydicom reads it."""
    import pydicom
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    return Case("DICOM", path, "pydicom", lambda: rows(pydicom.dcmread(path).waveform_array(0).T))


def array_cases(folder: Path, seconds: float) -> Iterator[Case]:
    """Yield float32 arrays in NumPy's, MATLAB's and HDF5's files, and how their libraries read them."""
    import h5py
    from scipy.io import loadmat, savemat

    signal = np.ascontiguousarray(made_up(seconds), dtype=np.float32)
    path = folder / f"rows{seconds:g}.npy"
    np.save(path, signal)
    yield Case("NPY, a row a lead", path, "numpy", lambda: np.load(path), GIVEN)
    turned = folder / f"columns{seconds:g}.npy"
    np.save(turned, np.ascontiguousarray(signal.T))
    yield Case("NPY, a column a lead", turned, "numpy", lambda: rows(np.load(turned).T), GIVEN)
    for packed in (False, True):
        mat = folder / f"{'packed' if packed else 'rec'}{seconds:g}.mat"
        savemat(mat, {"val": (signal * 1000).astype(np.int16)}, do_compression=packed)
        yield Case(
            f"MAT 5{', compressed' * packed}",
            mat,
            "scipy",
            # the rows of whole numbers first: half the bytes, and so half the time of turning those of float32
            lambda mat=mat: np.ascontiguousarray(loadmat(mat)["val"]) * np.float32(1e-3),
            {"fs": float(FS), "unit": "uV"},
        )
    hdf = folder / f"rec{seconds:g}.h5"
    with h5py.File(hdf, "w") as file:
        file["ecg"] = signal

    def bare() -> object:
        with h5py.File(hdf, "r") as file:
            return file["ecg"][()]

    yield Case("HDF5", hdf, "h5py", bare, GIVEN)


def table_cases(folder: Path, seconds: float, parquet_seconds: float) -> Iterator[Case]:
    """Yield tables with a column a lead, and how pandas' C parser and pyarrow read them."""
    import pandas
    import pyarrow.parquet

    from anyecg.writers import write

    table, columns = folder / f"rec{seconds:g}.csv", folder / f"rec{parquet_seconds:g}.parquet"
    write(anyecg.Record(made_up(seconds), FS, tuple(LEADS)), table, force=True)
    yield Case("CSV", table, "pandas", lambda: rows(pandas.read_csv(table, comment="#").to_numpy().T))
    write(anyecg.Record(made_up(parquet_seconds), FS, tuple(LEADS)), columns, force=True)

    def bare() -> object:
        found = pyarrow.parquet.read_table(columns)
        return rows([column.to_numpy() for column in found.columns])

    yield Case("Parquet", columns, "pyarrow", bare)


def device_cases() -> Iterator[Case]:
    """Yield devices' files of `SAMPLES`, and how ecgdatakit reads them."""
    from ecgdatakit import FileParser

    for path in sorted(SAMPLES.glob("*/*")):
        if path.suffix in (".xml", ".scp") and path.stem.upper() != "LICENSE":
            try:
                FileParser.parse(path)
            except Exception:  # noqa: BLE001  nothing to compare with
                continue
            yield Case(
                path.name,
                path,
                "ecgdatakit",
                lambda path=path: [rows(lead.samples) for lead in FileParser.parse(path).leads],  # may differ in length
            )


def all_cases(folder: Path) -> Iterator[Case]:
    """Yield every case: long records, a slice, short ones, devices' files."""
    yield wfdb_case(folder, "16", "WFDB 16", 1800)
    yield wfdb_case(folder, "212", "WFDB 212", 1800)
    yield wfdb_case(folder, "516", "WFDB FLAC", 1800)
    yield wfdb_case(folder, "24", "WFDB 24, 30 s of it", 1800, (600, 630))
    yield from day_cases(folder)
    yield edf_case(folder, ".edf", 1800)
    yield edf_case(folder, ".bdf", 1800)
    yield from array_cases(folder, 1800)
    yield from table_cases(folder, 60, 1800)
    yield wfdb_case(folder, "16", "WFDB 16", 10)
    yield edf_case(folder, ".edf", 10)
    yield dicom_case()
    yield from array_cases(folder, 10)
    yield from table_cases(folder, 10, 10)
    yield from device_cases()


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call, which other programs on the machine hardly change."""
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Return the medians of both sides, and the middle half of the ratios of neighbouring runs."""
    bytes_of = [case.path] if case.path.suffix != ".hea" else list(case.path.parent.glob(f"{case.path.stem}*"))
    asked = [case.arguments.get(name) for name in ("start_s", "end_s", "fs", "unit")]
    sides = (
        lambda: anyecg.read(case.path, **case.arguments),
        lambda: read_source(case.path, *asked),
        case.bare,
    )
    runs = []
    for repeat in range(repeats + 1):
        order = [(repeat + i) % len(sides) for i in range(len(sides))]
        taken = {side: seconds(sides[side]) for side in order}
        runs.append([taken[side] for side in range(len(sides))])
    del runs[0]  # which imports, and fills the disk cache
    ours, unaudited, theirs = (statistics.median(side) for side in zip(*runs, strict=True))
    quarters = statistics.quantiles([read / bare for _, read, bare in runs], n=4)
    record = anyecg.read(case.path, **case.arguments)
    return {
        "case": case.name,
        "library": case.library,
        "leads": record.n_leads,
        "seconds": round(record.duration_s, 1),
        "megabytes": round(sum(path.stat().st_size for path in bytes_of) / 1e6, 2),
        "anyecg_s": ours,
        "read_s": unaudited,
        "library_s": theirs,
        "ratio": ours / theirs,
        "read_ratio": unaudited / theirs,
        "read_ratio_quartiles": [quarters[0], quarters[2]],
    }


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="best a multiple of three")
    parser.add_argument("--only", default="", help="only cases whose name begins so")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/readers"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries, about their own calls
    rows = []
    lines = [
        "| file | leads x s | MB | library, ms | read, ms | audits, ms | read / library (middle half) | both |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as name:
        for case in all_cases(Path(name)):
            if not case.name.startswith(arguments.only):
                continue
            r = measure(case, arguments.repeats)
            rows.append(r)
            low, high = r["read_ratio_quartiles"]
            lines.append(
                f"| {r['case']} | {r['leads']} x {r['seconds']:g} | {r['megabytes']:g} | {r['library']} "
                f"{1e3 * r['library_s']:.2f} | {1e3 * r['read_s']:.2f} | {1e3 * (r['anyecg_s'] - r['read_s']):.2f} "
                f"| {r['read_ratio']:.2f} ({low:.2f}-{high:.2f}) | {r['ratio']:.2f} |"
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        f"Medians of {arguments.repeats} repeats, alternating, each side as often first, second and third: processor "
        "time of one process, files in the system's cache. Left out: the first reading in a process, which imports. "
        "Read: the samples that the library gives, as a record. Audits: what `anyecg.read` then looks for "
        "(amplitudes, marks, gaps, clipping, electrodes, rate); no library does: the difference of two medians. Both: "
        "over the library's time.",
    ]
    table = "\n".join(lines)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(f"# Reading\n\n{table}\n")
    arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
