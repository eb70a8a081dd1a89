"""Many files at once: folders and globs of mixed formats. A bad file is skipped, listed with its reason and counted."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import anyecg.readers
from anyecg.cli import app
from anyecg.record import Record
from anyecg.writers import write

FS = 250.0


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def command(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments])
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return command


@pytest.fixture
def mixed(tmp_path: Path, dicom_file: Path) -> Path:
    """Four good recordings of four formats in three folders, three bad ones, and what is no recording."""
    folder = tmp_path / "mixed"
    (folder / "ward" / "deep").mkdir(parents=True)
    t = np.arange(1500) / FS
    record = Record(np.stack([np.sin(7 * t), np.cos(5 * t)]), FS, ("I", "II"))
    write(record, folder / "a.hea")
    write(record, folder / "ward" / "b.edf")
    write(record, folder / "ward" / "deep" / "c.csv")
    shutil.copy(dicom_file, folder / "ward" / "d")
    (folder / "cut.edf").write_bytes((folder / "ward" / "b.edf").read_bytes()[:700])
    (folder / "empty.dcm").touch()
    np.save(folder / "no_rate.npy", np.zeros((1, 1500)))
    (folder / "README.txt").write_text("read me")
    (folder / ".hidden.csv").write_text("I [mV]\n1\n")
    return folder


GOOD = ["a.hea", "c.csv", "b.edf", "d"]
BAD = {"cut.edf": "cut short", "empty.dcm": "an empty file", "no_rate.npy": "no sampling rate"}


def test_a_folder_of_mixed_formats(mixed: Path, run: Callable[..., Done]) -> None:
    done = run("info", mixed, "--json")
    assert done.code == 1
    found = json.loads(done.stdout)
    assert sorted(Path(entry["path"]).name for entry in found) == sorted(GOOD)
    assert {entry["format"] for entry in found} == {"wfdb", "edf", "csv", "dicom"}
    lines = done.stderr.splitlines()
    assert lines[-1] == "error: 3 of 7 failed"
    for name, reason in BAD.items():
        [line] = [line for line in lines if name in line]
        assert line.startswith("error: ")
        assert reason in line
    assert len(lines) == 4


def test_globs_and_names_together(mixed: Path, run: Callable[..., Done]) -> None:
    done = run("info", f"{mixed}/*.edf", mixed / "a.hea", f"{mixed}/**/*.csv", mixed / "absent.scp")
    assert done.code == 1
    assert "a.hea" in done.stdout
    assert "c.csv" in done.stdout
    assert "absent.scp: no such file" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: 2 of 4 failed"


def test_all_good_is_exit_0(mixed: Path, run: Callable[..., Done]) -> None:
    done = run("info", mixed / "ward", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 3


def test_all_bad_is_exit_1_and_still_json(mixed: Path, run: Callable[..., Done]) -> None:
    done = run("info", mixed / "cut.edf", mixed / "empty.dcm", "--json")
    assert (done.code, json.loads(done.stdout)) == (1, [])
    assert done.stderr.splitlines()[-1] == "error: 2 of 2 failed"


def test_one_bad_file_is_the_command_s_error(mixed: Path, run: Callable[..., Done]) -> None:
    done = run("info", mixed / "cut.edf")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


def test_a_folder_without_a_recording(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "README.txt").write_text("read me")
    done = run("info", tmp_path)
    assert done.code == 1
    assert "no ECG there" in done.stderr


def test_a_mistake_of_ours_costs_one_file(mixed: Path, run: Callable[..., Done], monkeypatch) -> None:
    real = anyecg.readers.read

    def read(path: Path, **options: object) -> Record:
        if path.name == "b.edf":
            raise KeyError("slip")
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(anyecg.readers, "read", read)
    done = run("info", mixed / "ward", "--json")
    assert done.code == 1
    assert len(json.loads(done.stdout)) == 2
    assert "KeyError" in done.stderr
    assert "please report" in done.stderr
    with pytest.raises(KeyError):  # of one file the traceback is shown
        app(["info", str(mixed / "ward" / "b.edf")])


def test_what_cannot_be_opened_is_counted_not_lost(mixed: Path, run: Callable[..., Done], monkeypatch) -> None:
    """The file without a suffix is looked into to see whether it is DICOM: for root, too, as if that were forbidden."""
    real = Path.open

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        if self.name == "d":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    done = run("info", mixed / "ward")
    assert done.code == 1
    assert "Permission denied" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: 1 of 3 failed"


def test_a_stopped_batch_goes_on_where_it_was(mixed: Path, run: Callable[..., Done], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("analyze", mixed / "ward", "--out", out).code == 0
    again = run("analyze", mixed / "ward", "--out", out)
    assert again.code == 1 and "--force, or --resume" in again.stderr
    (out / "c.json").unlink()  # stopped between the two reports of a file
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.stem != "c"}
    again = run("analyze", mixed / "ward", "--out", out, "--resume")
    assert again.code == 0, again.stderr
    assert "2 of 3 have their reports already" in again.stderr and "1 report written" in again.stderr
    assert sorted(path.name for path in out.glob("c.*")) == ["c.html", "c.json"]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir() if path.stem != "c"} == kept
    assert "0 reports written" in run("analyze", mixed / "ward", "--out", out, "--resume").stderr
    for options in (["--resume"], ["--resume", "--out", out, "--json"]):
        assert run("analyze", mixed / "ward", *options).code == 2


def test_reports_below_the_folder_that_is_searched_are_no_recordings(mixed: Path, run: Callable[..., Done]) -> None:
    ward, out = mixed / "ward", mixed / "ward" / "reports"
    for options in ([], ["--force"]):
        done = run("analyze", ward, "--out", out, "--tables", *options)
        assert done.code == 0 and "3 reports written" in done.stderr
    done = run("info", out / "b.json")
    assert done.code == 1 and "b.json: a report of anyecg, expected samples" in done.stderr


def test_an_empty_name_is_not_the_current_folder(mixed: Path, run: Callable[..., Done], monkeypatch) -> None:
    monkeypatch.chdir(mixed / "ward")
    done = run("info", "")
    assert done.code == 1 and "an empty name" in done.stderr


@pytest.fixture
def odd_name(mixed: Path) -> Path:
    """A recording whose name is no UTF-8: as files of older systems are named."""
    path = Path(os.fsdecode(os.fsencode(mixed) + b"/Gr\xf6\xdfe.edf"))
    try:
        shutil.copy(mixed / "ward" / "b.edf", path)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return path


def test_reports_of_a_file_whose_name_is_no_utf8(odd_name: Path, run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("analyze", odd_name, odd_name.with_name("a.hea"), "--out", tmp_path / "out")
    assert done.code == 0, done.stderr
    (stored,) = (tmp_path / "out").glob("G*.json")
    assert json.loads(stored.read_text())["path"] == str(odd_name)  # escaped, and so read back as it is
    for suffix in (".json", ".png"):
        assert run("analyze", odd_name, "--report", tmp_path / f"report{suffix}").code == 0
    assert json.loads((tmp_path / "report.json").read_text())["record"]["id"] == odd_name.stem


@pytest.mark.parametrize("suffix", [".csv", ".hea", ".parquet", ".json"])
def test_half_a_surrogate_in_a_lead_name_can_be_converted(
    suffix: str, run: Callable[..., Done], tmp_path: Path
) -> None:
    content = {"fs_hz": 250, "unit": "mV", "leads": ["II", "x\ud800"], "signal": [[0.0, 1.0] * 500, [1.0, 0.0] * 500]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert run("convert", tmp_path / "a.json", tmp_path / f"b{suffix}").code == 0
    assert anyecg.readers.read(tmp_path / f"b{suffix}").leads == ("II", "x?")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_embeddings_of_it(suffix: str, odd_name: Path, run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("embed", odd_name, "-o", tmp_path / f"rows{suffix}")
    assert done.code == 0, done.stderr


def test_a_full_disk_is_told_with_the_file(mixed: Path, run: Callable[..., Done], tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", full)
    done = run("embed", mixed / "a.hea", "-o", tmp_path / "rows.npz")
    assert done.code == 1
    assert done.stderr.endswith(
        "rows.npz: cannot be written (No space left on device). Check the folder, its rights and the free space.\n"
    )
    done = run("analyze", mixed / "a.hea", "--report", tmp_path / "a.html")
    assert done.code == 1 and "a.html: cannot be written (No space left on device)" in done.stderr
    assert "quality" in done.stdout  # what was found is told, with or without its report
    monkeypatch.setattr(Path, "mkdir", refuse)
    done = run("analyze", mixed / "a.hea", "--out", tmp_path / "out")
    assert done.code == 1 and "out: the folder cannot be made (Read-only file system). Check" in done.stderr


def test_what_a_long_analysis_tells_names_its_file(mixed: Path, run: Callable[..., Done], monkeypatch) -> None:
    analyze_file = anyecg.analysis.analyze_file

    def telling(path: Path, *arguments: object, tell: Callable[[str], None], **options: object) -> object:
        tell("goes on from there")
        return analyze_file(path, *arguments, tell=tell, **options)

    monkeypatch.setattr(anyecg.analysis, "analyze_file", telling)
    done = run("analyze", mixed / "a.hea", "--json")
    assert f"{mixed / 'a.hea'}: goes on from there\n" in done.stderr and json.loads(done.stdout)


@pytest.mark.parametrize("verb", ["info", "convert", "restore"])
def test_units_are_corrected_only_if_asked_for(verb: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    t = np.arange(5000) / 500
    lead = 1500 * np.exp(-(((t % 0.8 - 0.4) / 0.01) ** 2)) + np.random.default_rng(0).normal(0, 8, 5000)  # uV
    source = tmp_path / "a.csv"
    np.savetxt(source, lead, header="II [mV]", comments="")
    outputs = {"info": [], "convert": [tmp_path / "b.csv"], "restore": ["-o", tmp_path / "b.csv", "--leads", "V5"]}[
        verb
    ]
    options = ["--fs", 500, *outputs, *(["--force"] if outputs else [])]
    warned, fixed = run(verb, source, *options), run(verb, source, "--fix-units", *options)
    assert (warned.code, fixed.code) == (0, 0)
    assert "--fix-units" in warned.stdout + warned.stderr
    assert "as asked for" in fixed.stdout + fixed.stderr
    if outputs:
        assert 1 < np.ptp(anyecg.readers.read(tmp_path / "b.csv").pick(("II",)).signal) < 2.5
