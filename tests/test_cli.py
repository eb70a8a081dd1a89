"""The command line as a user meets it: the real command, in a process of its own."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import anyecg
from anyecg.writers import write

COMMAND = [sys.executable, "-m", "anyecg"]
Done = subprocess.CompletedProcess[str]


def run(*arguments: object, cwd: Path | None = None) -> Done:
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300)


def is_one_line_error(done: Done, code: int = 1) -> bool:
    """One line ``error: ...`` ends standard error, and no traceback is in it."""
    lines = done.stderr.strip().splitlines()
    return done.returncode == code and lines[-1].startswith("error: ") and "Traceback" not in done.stderr


@pytest.fixture
def toy(demo_folder: Path) -> Path:
    return demo_folder / "toy_ecg.csv"


# --- help and version ---------------------------------------------------------------------------------------------


def test_version() -> None:
    assert run("--version").stdout == f"anyecg {anyecg.__version__}\n"


def test_help_comes_in_half_a_second() -> None:
    # Processor time: on a quiet machine the time one waits, on a busy one still the command's own.
    def used_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times_s = []
    for _ in range(5):
        before = used_s()
        assert run("--help").returncode == 0
        times_s.append(used_s() - before)
    assert min(times_s) < 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "--help"], ["models", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from anyecg.cli import app
try:
    app({arguments})
except SystemExit:
    pass
print(*sorted({{name.split(".")[0] for name in sys.modules}}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("Usage:")
    assert not set(done.stderr.split()) & {"torch", "numpy", "scipy", "onnxruntime", "matplotlib", "wfdb"}


def test_help_lists_what_is_used_daily_first() -> None:
    lines = run("--help").stdout.split("Commands:")[1].splitlines()
    verbs = [line.split()[0] for line in lines if line[:3].strip()]
    assert verbs[:2] == ["analyze", "info"] and verbs.index("models") < verbs.index("train-tokenizer")


def test_no_library_computes_on_cores_of_its_own(toy: Path) -> None:
    # An analysis runs its graphs on all cores; helpers of a library beside them would only wait, with eyes open.
    pytest.importorskip("threadpoolctl")
    code = f"""
import os, sys, threadpoolctl
def leave(code):
    found = threadpoolctl.threadpool_info()
    print([pool["num_threads"] for pool in found if pool["internal_api"] == "openblas"], file=sys.stderr)
    sys.stderr.flush()
    left(code)
left, os._exit = os._exit, leave
sys.argv = ["anyecg", "analyze", {str(toy)!r}, "--json"]
from anyecg.__main__ import main
main()
"""
    alone = {
        name: value for name, value in os.environ.items() if name not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=alone)
    assert set(json.loads(done.stderr.splitlines()[-1])) <= {1}


def test_help_says_it_is_no_medical_device() -> None:
    assert "Not a medical device" in run("--help").stdout


# --- wrong usage: exit 2 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["no-such-verb"], ["info"], ["info", "--no-such-option", "x"], ["convert", "x"]])
def test_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_value_is_usage(toy: Path, tmp_path: Path) -> None:
    assert is_one_line_error(run("tokenize", toy, "-o", tmp_path / "codes.txt"), code=2)
    assert is_one_line_error(run("convert", toy, tmp_path / "out.csv", "--leads", "V9"), code=2)
    assert is_one_line_error(run("analyze", toy, toy.with_name("waveform_ecg.dcm"), "--report", "x.html"), code=2)
    assert list(tmp_path.iterdir()) == []


# --- bad input: exit 1, one line ----------------------------------------------------------------------------------


def empty(folder: Path) -> list[object]:
    (folder / "empty.edf").touch()
    return [folder / "empty.edf"]


def garbage_text(folder: Path) -> list[object]:
    (folder / "notes.csv").write_text("Dear all,\nplease find the minutes below.\n")
    return [folder / "notes.csv"]


def garbage_bytes(folder: Path) -> list[object]:
    (folder / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    return [folder / "noise.dcm"]


def absent(folder: Path) -> list[object]:
    return [folder / "absent.hea"]


def no_rate(folder: Path) -> list[object]:
    np.savetxt(folder / "plain.csv", np.sin(np.arange(5000) / 40), header="II", comments="")
    return [folder / "plain.csv", "--unit", "mV"]


def no_unit(folder: Path) -> list[object]:
    np.savetxt(folder / "plain.csv", np.sin(np.arange(5000) / 40), header="II", comments="")
    return [folder / "plain.csv", "--fs", "500"]


BAD = [empty, garbage_text, garbage_bytes, absent, no_rate, no_unit]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
@pytest.mark.parametrize("verb", ["info", "analyze"])
def test_bad_input(verb: str, bad: Callable[[Path], list[object]], tmp_path: Path) -> None:
    arguments = bad(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = run(verb, *arguments, "--json")
    assert is_one_line_error(done), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_the_error_names_the_option_that_helps(tmp_path: Path) -> None:
    assert "--fs" in run("info", *no_rate(tmp_path)).stderr
    assert "--unit" in run("info", *no_unit(tmp_path)).stderr


def test_rate_and_unit_given(tmp_path: Path) -> None:
    path, *_ = no_unit(tmp_path)
    done = run("info", path, "--fs", 500, "--unit", "mV", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fs_hz"] == 500


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("--debug", "info", *empty(tmp_path))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ReadError" in done.stderr


# --- output -------------------------------------------------------------------------------------------------------

WRITES = [
    lambda source, target: ["convert", source, target / "out.csv"],
    lambda source, target: ["tokenize", source, "-o", target / "codes.npz"],
    lambda source, target: ["embed", source, "-o", target / "embeddings.npz"],
    lambda source, target: ["analyze", source, "--report", target / "report.html"],
    lambda source, target: ["analyze", source, "--out", target],
]
IDS = ["convert", "tokenize", "embed", "analyze-report", "analyze-out"]


@pytest.mark.parametrize("write", WRITES, ids=IDS)
def test_nothing_is_overwritten_without_force(write: Callable, toy: Path, tmp_path: Path) -> None:
    first = run(*write(toy, tmp_path))
    assert first.returncode == 0, first.stderr
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert written
    assert not any(path.name.endswith(".part") for path in written)

    again = run(*write(toy, tmp_path))
    assert is_one_line_error(again), again.stderr
    assert "--force" in again.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == written

    forced = run(*write(toy, tmp_path), "--force")
    assert forced.returncode == 0, forced.stderr
    assert sorted(tmp_path.iterdir()) == sorted(written)


@pytest.mark.parametrize("write", WRITES, ids=IDS)
def test_a_folder_that_cannot_be_written(write: Callable, toy: Path, tmp_path: Path) -> None:
    # Not a folder without permission, which root would write into all the same.
    (tmp_path / "file").write_text("a regular file")
    done = run(*write(toy, tmp_path / "file"))
    assert is_one_line_error(done), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_convert_a_slice_and_back(dicom_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "slice.csv"
    done = run("convert", dicom_file, target, "--leads", "ii,v1", "--start", 2, "--end", 5)
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout.splitlines()
    wanted = anyecg.read(dicom_file, start_s=2, end_s=5).pick(["II", "V1"])
    got = anyecg.read(target)
    assert got.leads == wanted.leads
    assert got.fs == wanted.fs
    np.testing.assert_allclose(got.signal, wanted.signal, atol=1e-3)


def test_the_help_of_convert_names_every_format() -> None:
    from anyecg.writers import SUFFIXES

    text = " ".join(run("convert", "--help").stdout.split())
    for suffix in (*(suffix for suffix in SUFFIXES if suffix not in ("", ".dat", ".atr")), "--flac"):
        assert suffix in text, suffix


@pytest.mark.parametrize("name", ["a.edf", "a.dcm", "a.scp", "a.xml", "a.parquet", "a.json"])
def test_convert_to_each_format(name: str, dicom_file: Path, tmp_path: Path) -> None:
    done = run("convert", dicom_file, tmp_path / name, "--leads", "I,II", "--end", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / name}\n"
    wanted = anyecg.read(dicom_file, end_s=3).pick(["I", "II"])
    got = anyecg.read(tmp_path / name)
    assert (got.leads, got.fs, got.age, got.sex) == (wanted.leads, wanted.fs, wanted.age, wanted.sex)
    np.testing.assert_allclose(got.signal, wanted.signal, atol=1e-3)


def test_convert_to_flac(dicom_file: Path, tmp_path: Path) -> None:
    done = run("convert", dicom_file, tmp_path / "a", "--flac")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hea", "a_1.flac", "a_2.flac"]
    assert is_one_line_error(run("convert", dicom_file, tmp_path / "a.edf", "--flac"), code=2)


def test_convert_says_what_is_lost(tmp_path: Path) -> None:
    lines = ["# anyecg csv 1", "# fs_hz: 257.3", "# unit: mV", "# start_time: 2020-01-02T03:04:05.5", "# restored: II"]
    values = [f"{np.sin(i / 40):.4f}" for i in range(2573)]
    (tmp_path / "a.csv").write_text("\n".join([*lines, "II", *values[:1000], *["nan"] * 10, *values[1010:]]) + "\n")
    done = run("convert", tmp_path / "a.csv", tmp_path / "a.scp")
    assert done.returncode == 0, done.stderr
    told = [line.removeprefix(f"{tmp_path / 'a.scp'}: ") for line in done.stderr.splitlines() if "a.scp: " in line]
    assert len(told) == 3
    assert told[0].startswith("10 samples that were not recorded are written as")
    assert told[1].startswith("257.3 Hz is kept as 257.2678158 Hz")
    assert told[2].startswith("the start time is kept to whole seconds: 0.5 s")
    assert anyecg.read(tmp_path / "a.scp").restored == {"II"}


def test_convert_refuses_what_a_format_cannot_hold(toy: Path, tmp_path: Path) -> None:
    done = run("convert", toy, tmp_path / "a.scp")
    assert is_one_line_error(done), done.stderr
    assert "--start" in done.stderr or "slice" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tokenize(dicom_file: Path, tmp_path: Path) -> None:
    done = run("tokenize", dicom_file, "-o", tmp_path / "codes.npz")
    assert done.returncode == 0, done.stderr
    tokens = anyecg.load("nano").tokenize(anyecg.read(dicom_file))
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["codes"], tokens.codes)
        assert tuple(stored["leads"]) == tokens.leads
        assert int(stored["format_version"]) == 1


def test_embed_as_npz_and_csv(toy: Path, dicom_file: Path, tmp_path: Path) -> None:
    for name in ("emb.npz", "emb.csv"):
        done = run("embed", toy, dicom_file, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "emb.npz", allow_pickle=False) as stored:
        assert list(stored["path"]) == [str(toy), str(dicom_file)]
        pooled = stored["pooled"]
    table = np.genfromtxt(tmp_path / "emb.csv", delimiter=",", skip_header=1)[:, 2:]
    np.testing.assert_allclose(table, pooled, rtol=1e-6)


def test_embed_fragments(dicom_file: Path, tmp_path: Path) -> None:
    done = run("embed", dicom_file, "-o", tmp_path / "emb.npz", "--fragments")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "emb.npz", allow_pickle=False) as stored:
        assert stored["per_fragment_0"].shape[0] == len(stored["leads_0"]) == 12


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_info_json_is_an_object_for_one_file_and_a_list_for_several(toy: Path, dicom_file: Path) -> None:
    one = json.loads(run("info", dicom_file, "--json").stdout)
    assert one["format"] == "dicom"
    assert one["fs_hz"] == 1000
    assert len(one["leads"]) == 12
    several = json.loads(run("info", dicom_file, toy, "--json").stdout)
    assert several[0] == one
    assert several[1]["leads"] == ["MLII"]
    assert len(json.loads(run("info", toy.parent, "--json").stdout)) == 2
    assert len(json.loads(run("info", toy.parent / "*.csv", "--json").stdout)) == 1


def test_analyze_json_is_pure_and_complete(dicom_file: Path) -> None:
    done = run("analyze", dicom_file, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    expected = """path record quality rhythm findings anomaly tokens restored_leads warnings model anyecg_version"""
    assert set(expected.split()) <= set(document)
    assert document["record"]["fs_hz"] == 1000
    assert document["anyecg_version"] == anyecg.__version__
    assert document["quality"]["leads"].keys() == set(document["record"]["leads"])


def test_models_json() -> None:
    document = json.loads(run("models", "--json").stdout)
    nano = next(entry for entry in document if entry["name"] == "nano")
    assert {"version", "parameters", "sha256", "folder", "licence", "trained_on"} <= set(nano)


# --- several files ------------------------------------------------------------------------------------------------


def test_a_bad_file_among_several_is_skipped_and_counted(toy: Path, tmp_path: Path) -> None:
    done = run("info", *empty(tmp_path), toy, tmp_path / "absent.hea", "--json")
    assert done.returncode == 1
    assert [entry["path"] for entry in json.loads(done.stdout)] == [str(toy)]
    errors = done.stderr.splitlines()
    assert len(errors) == 3
    assert "empty.edf" in errors[0] or "empty.edf" in errors[1]
    assert errors[2] == "error: 2 of 3 failed"


def test_analyze_a_folder_with_a_bad_file(demo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in (*demo_folder.iterdir(), *map(Path, map(str, garbage_bytes(tmp_path)))):
        os.link(path, tmp_path / "in" / path.name)
    done = run("analyze", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "toy_ecg.html",
        "toy_ecg.json",
        "waveform_ecg.html",
        "waveform_ecg.json",
    ]


def test_files_of_one_name_get_reports_of_their_own(toy: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.link(toy, tmp_path / name / "same.csv")
    done = run("analyze", tmp_path / "a" / "same.csv", tmp_path / "b" / "same.csv", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    stored = [json.loads((tmp_path / "out" / name).read_text())["path"] for name in ("same.json", "same-2.json")]
    assert stored == [str(tmp_path / "a" / "same.csv"), str(tmp_path / "b" / "same.csv")]


# --- interrupted --------------------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def many_copies(toy: Path, folder: Path, n: int = 2000) -> Path:
    folder.mkdir()
    for i in range(n):
        os.link(toy, folder / f"toy{i:04d}.csv")
    return folder


def test_ctrl_c_while_reading(toy: Path, tmp_path: Path) -> None:
    copies = many_copies(toy, tmp_path / "copies")
    process = start("info", *empty(tmp_path), copies, "--json")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("error: ")  # the first file is done: the work has begun
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["interrupted"]
    assert stdout == ""


def test_ctrl_c_leaves_only_whole_reports(toy: Path, tmp_path: Path) -> None:
    copies = many_copies(toy, tmp_path / "copies")
    out = tmp_path / "out"
    process = start("analyze", copies, "--out", out)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in stderr
    for path in out.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.suffix == ".html"
            assert path.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("delay_s", [0.1, 0.2, 0.3, 0.4, 0.6])
def test_ctrl_c_at_any_time(delay_s: float, toy: Path, tmp_path: Path) -> None:
    """Also while C++ libraries are being imported, which an exception would abort."""
    process = start("embed", many_copies(toy, tmp_path / "copies"), "-o", tmp_path / "emb.npz")
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    # On a slow machine the signal may come before our own code runs at all: that is Python's business.
    assert process.returncode == 130 or stderr.rstrip().endswith("KeyboardInterrupt") or process.returncode == -2
    assert "ImportError" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["copies"]


def test_a_reader_that_goes_away(toy: Path, tmp_path: Path) -> None:
    folder = many_copies(toy, tmp_path / "copies", n=3)
    process = start("info", folder, "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


# --- restore ------------------------------------------------------------------------------------------------------


def test_restore_fills_a_lead_and_says_that_it_is_generated(dicom_file: Path, tmp_path: Path) -> None:
    three, twelve = tmp_path / "three.csv", tmp_path / "restored.csv"
    assert run("convert", dicom_file, three, "--leads", "I,II,V2", "--end", 4).returncode == 0
    done = run(
        *("restore", three, "--leads", "aVF,V3", "-o", twelve, "--band", tmp_path / "band.npz"),
        *("--report", tmp_path / "restored.html"),
    )
    assert done.returncode == 0, done.stderr
    assert "generated: V3" in done.stderr
    assert "computed from other leads: aVF" in done.stderr
    record = anyecg.read(twelve)
    assert record.leads == ("I", "II", "aVF", "V2", "V3")
    assert (record.restored, record.derived) == ({"V3"}, {"aVF"})
    assert np.isfinite(record.signal).all()
    with np.load(tmp_path / "band.npz") as band:
        row = list(band["leads"]).index("V3")
        assert (band["low_mv"][row] <= band["high_mv"][row]).all()
    assert "V3 (restored)" in (tmp_path / "restored.html").read_text()


def test_restore_auto_finds_the_lead_that_is_off(dicom_file: Path, tmp_path: Path) -> None:
    record = anyecg.read(dicom_file)
    signal = record.signal.copy()
    signal[record.leads.index("V5")] = 0.0
    write(record.with_(signal=signal), tmp_path / "flat.csv")
    done = run("restore", tmp_path / "flat.csv", "--auto", "-o", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "V5" in anyecg.read(tmp_path / "out.csv").restored
    done = run("restore", dicom_file, "--auto", "-o", tmp_path / "none.csv")
    assert "nothing to restore" in done.stderr
    assert not (tmp_path / "none.csv").exists()


def test_restore_replaces_a_named_lead_or_fills_its_gaps(dicom_file: Path, tmp_path: Path) -> None:
    record = anyecg.read(dicom_file)
    signal = record.signal.copy()
    row = record.leads.index("V5")
    signal[row, 4000:6000] = np.nan
    write(record.with_(signal=signal), tmp_path / "gap.csv")
    for flags, name in (((), "whole.csv"), (("--gaps",), "filled.csv")):
        done = run("restore", tmp_path / "gap.csv", "--leads", "V5", "-o", tmp_path / name, *flags)
        assert done.returncode == 0, done.stderr
    prepared = anyecg.prepare(anyecg.read(tmp_path / "gap.csv"))
    whole, filled = (anyecg.read(tmp_path / name).signal[row] for name in ("whole.csv", "filled.csv"))
    kept = np.isfinite(prepared.signal[row])
    np.testing.assert_allclose(filled[kept], prepared.signal[row, kept], atol=1e-5)
    assert np.isfinite(filled).all()
    assert np.abs(whole[kept] - prepared.signal[row, kept]).max() > 0.01


@pytest.mark.parametrize("which", [[], ["--leads", ""], ["--leads", "V3", "--auto"]])
def test_restore_wants_to_know_which_leads(dicom_file: Path, tmp_path: Path, which: list[str]) -> None:
    done = run("restore", dicom_file, "-o", tmp_path / "out.csv", *which)
    assert is_one_line_error(done, 2)
    assert "--leads V3,V5 or --auto" in done.stderr
