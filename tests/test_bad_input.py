"""Input as it comes: what cannot be analysed ends in one line that helps, what can be is analysed and says what is odd.

In this process, one model for all. The interrupted command is in ``test_cli.py``: it needs a process of its own.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anyecg
from anyecg.cli import app
from anyecg.engine import Model
from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.writers import write

FS = 500.0


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def model() -> Model:
    return anyecg.load("nano", threads=1)


@pytest.fixture
def run(model, monkeypatch, capsys) -> Callable[..., Done]:
    monkeypatch.setattr("anyecg.engine.load", lambda name, threads=None: model)

    def command(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments])
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return command


def ecg(n_leads: int = 1, duration_s: float = 6.0, fs: float = FS) -> np.ndarray:
    """P, QRS and T at 73 bpm, a little noise; mV."""
    t = np.arange(round(duration_s * fs)) / fs
    beat = np.zeros(len(t))
    for delay, height, width in ((-0.16, 0.12, 0.02), (0, 1.1, 0.011), (0.03, -0.2, 0.01), (0.25, 0.25, 0.045)):
        phase = (t - 0.3 - delay + 0.41) % 0.82 - 0.41
        beat += height * np.exp(-0.5 * (phase / width) ** 2)
    noise = np.random.default_rng(0).standard_normal((n_leads, len(t)))
    return beat * np.linspace(0.5, 1.5, n_leads)[:, None] + 0.008 * noise


def table(path: Path, signal: np.ndarray, names: list[str], fs: float = FS, unit: str = "mV") -> Path:
    header = f"# anyecg csv 1\n# fs_hz: {fs}\n# unit: {unit}\n{','.join(names)}"
    np.savetxt(path, signal.T, delimiter=",", header=header, comments="", fmt="%.6g")
    return path


# --- what cannot be analysed --------------------------------------------------------------------------------------


def empty(folder: Path) -> list[object]:
    (folder / "empty.hea").touch()
    return [folder / "empty.hea"]


def text_garbage(folder: Path) -> list[object]:
    (folder / "notes.csv").write_text("Dear all,\nplease find the minutes below.\n")
    return [folder / "notes.csv"]


def missing_signal(folder: Path) -> list[object]:
    write(Record(ecg(2), FS, ("I", "II")), folder / "lost.hea")
    (folder / "lost.dat").unlink()
    return [folder / "lost.hea"]


def header_pointing_outside(folder: Path) -> list[object]:
    write(Record(ecg(), FS, ("I",)), folder / "secret.hea")
    (folder / "in").mkdir()
    header = (folder / "secret.hea").read_text().replace("secret.dat", "../secret.dat")
    (folder / "in" / "out.hea").write_text(header)
    return [folder / "in" / "out.hea"]


def no_rate(folder: Path) -> list[object]:
    np.savetxt(folder / "plain.csv", ecg()[0], header="II", comments="")
    return [folder / "plain.csv", "--unit", "mV"]


def no_unit(folder: Path) -> list[object]:
    np.savetxt(folder / "plain.csv", ecg()[0], header="II", comments="")
    return [folder / "plain.csv", "--fs", "500"]


def all_nan(folder: Path) -> list[object]:
    write(Record(np.full((2, 3000), np.nan), FS, ("I", "II")), folder / "nan.hea")
    return [folder / "nan.hea"]


def too_short(folder: Path) -> list[object]:
    return [table(folder / "short.csv", ecg(duration_s=0.3), ["II"])]


def every_lead_off(folder: Path) -> list[object]:
    return [table(folder / "off.csv", np.full((2, 3000), -80.0), ["I", "II"])]


UNREADABLE = {
    empty: "an empty file",
    text_garbage: "no numbers",
    missing_signal: "lost.dat",
    header_pointing_outside: "../secret.dat",
    no_rate: "--fs",
    no_unit: "--unit",
}
UNUSABLE = {all_nan: "no lead has a recorded sample", too_short: "0.30 s of signal", every_lead_off: "leads off"}


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refuses(done: Done, where: Path, says: str) -> bool:
    """One line: where, what, expected, do."""
    line = done.stderr.removesuffix("\n")
    return (
        (done.code, done.stdout) == (1, "")
        and re.fullmatch(r"error: .+: .+, expected .+\. .+\.", line) is not None  # "." is no newline
        and where.stem in line
        and says in line
    )


@pytest.mark.parametrize("make", UNREADABLE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("verb", ["info", "convert", "tokenize", "analyze"])
def test_what_cannot_be_read(verb: str, make: Callable[[Path], list[object]], run, tmp_path: Path) -> None:
    source, *options = make(tmp_path)
    (tmp_path / "out").mkdir()
    outputs = {
        "info": ["--json"],
        "convert": [tmp_path / "out" / "copy.csv"],
        "tokenize": ["-o", tmp_path / "out" / "codes.npz"],
        "analyze": ["--json", "--report", tmp_path / "out" / "report.html"],
    }
    before = snapshot(tmp_path)
    done = run(verb, source, *outputs[verb], *options)
    assert refuses(done, source, UNREADABLE[make]), done
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("verb", ["tokenize", "embed", "analyze"])
def test_what_can_be_read_but_not_analysed(verb: str, make: Callable[[Path], list[object]], run, tmp_path) -> None:
    [source] = make(tmp_path)
    before = snapshot(tmp_path)
    output = ["--out", tmp_path / "out"] if verb == "analyze" else ["--output", tmp_path / "model.npz"]
    assert refuses(done := run(verb, source, *output), source, UNUSABLE[make]), done
    assert snapshot(tmp_path) == before
    assert run("info", source).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--report", "report.pdf"],
        ["--fs", "0"],
        ["--unit", "furlong"],
        ["--start", "5", "--end", "2"],
        ["--end", "nan"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_usage(arguments: list[str], run, tmp_path: Path) -> None:
    source = table(tmp_path / "one.csv", ecg(), ["II"])
    before = snapshot(tmp_path)
    done = run("analyze", source, *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .+", done.stderr.removesuffix("\n"))
    assert snapshot(tmp_path) == before


# --- output that cannot be written --------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [["--report", "file/report.html"], ["--out", "file"], ["--out", "file/reports"]])
def test_a_file_where_a_folder_should_be(output: list[str], run, tmp_path: Path) -> None:
    source = table(tmp_path / "one.csv", ecg(), ["II"])
    (tmp_path / "file").write_text("a regular file")  # root could write into a folder without permission
    before = snapshot(tmp_path)
    assert refuses(done := run("analyze", source, output[0], tmp_path / output[1]), tmp_path / "file", ""), done
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("option", "name"), [("--report", "one.html"), ("--report", "one.json"), ("--out", ".")])
def test_existing_output_is_kept_without_force(option: str, name: str, run, tmp_path: Path) -> None:
    source = table(tmp_path / "one.csv", ecg(), ["II"])
    for suffix in (".html", ".json"):
        (tmp_path / f"one{suffix}").write_text("mine")
    before = snapshot(tmp_path)
    done = run("analyze", source, option, tmp_path / name)
    assert refuses(done, source, "--force"), done
    assert snapshot(tmp_path) == before
    assert run("analyze", source, option, tmp_path / name, "--force").code == 0
    assert snapshot(tmp_path).keys() == before.keys()


# --- what is odd, and analysed ------------------------------------------------------------------------------------


def strict(text: str) -> dict[str, Any]:
    """Parse JSON in which NaN and Infinity are errors, as RFC 8259 has it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def analyzed(run, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that analyses a table on the command line, checks what any answer has, and returns it."""

    def answer(signal: np.ndarray, names: list[str], *options: object, fs: float = FS) -> dict[str, Any]:
        source = table(tmp_path / "odd.csv", signal, names, fs)
        done = run("analyze", source, "--json", "--report", tmp_path / "odd.html", *options)
        assert done.code == 0, done
        assert done.stderr == f"{tmp_path / 'odd.html'}: written\n"
        assert (tmp_path / "odd.html").read_text().rstrip().endswith("</html>")
        found = strict(done.stdout)
        leads = found["record"]["leads"]
        assert len(leads) == len(signal)
        assert list(found["quality"]["leads"]) == leads
        assert all(0 <= lead["score"] <= 1 for lead in found["quality"]["leads"].values())
        assert found["record"]["fs_hz"] == pytest.approx(fs)
        assert found["record"]["duration_s"] == pytest.approx(signal.shape[1] / fs, abs=1e-4)
        assert (found["anomaly"]["score"] is None) == (not found["quality"]["usable"])
        return found

    return answer


def test_a_flat_line(analyzed) -> None:
    found = analyzed(np.zeros((2, 3000)), ["I", "II"])
    assert not found["quality"]["usable"]
    assert found["quality"]["leads"]["I"] == {"score": 0.0, "problems": ["flat"]}
    assert (found["rhythm"]["hr_bpm"], found["rhythm"]["n_beats"]) == (None, 0)
    assert "every lead is flat" in found["warnings"]


def test_a_signal_file_that_is_cut_short(run, tmp_path: Path) -> None:
    """What is there is analysed, and what is missing said."""
    write(Record(ecg(2), FS, ("I", "II")), tmp_path / "cut.hea")
    signal = tmp_path / "cut.dat"
    signal.write_bytes(signal.read_bytes()[:5001])
    done = run("analyze", tmp_path / "cut.hea", "--json")
    assert done.code == 0, done
    found = strict(done.stdout)
    assert found["record"]["duration_s"] == 2.5
    assert "cut.dat is cut short: it holds 1250 samples a lead, 3000 by its own count" in found["warnings"]


def test_half_a_second(analyzed) -> None:
    found = analyzed(ecg(2, 0.5), ["I", "II"])
    assert found["quality"]["leads"]["I"]["problems"] == ["too short"]
    assert found["rhythm"]["hr_bpm"] is None
    assert found["tokens"]["n_fragments"] == 1
    assert any("0.5 s of signal" in warning for warning in found["warnings"])


def test_one_lead(analyzed) -> None:
    found = analyzed(ecg(), ["II"])
    assert found["quality"] == {"usable": True, "leads": {"II": {"score": pytest.approx(1, abs=0.1), "problems": []}}}
    assert found["rhythm"]["hr_bpm"] == pytest.approx(60 / 0.82, abs=1)


def test_sixteen_leads(analyzed) -> None:
    names = [*STANDARD_LEADS, "V3R", "V4R", "V8", "V9"]
    found = analyzed(ecg(16), names)
    assert found["record"]["leads"] == names
    assert found["tokens"]["n_leads"] == 16
    assert found["quality"]["usable"]


def test_unknown_leads_are_kept_and_named(analyzed) -> None:
    found = analyzed(ecg(3), ["II", "ECG left", "<b>&é"])
    assert found["record"]["leads"] == ["II", "ECG left", "<b>&é"]
    [warning] = [warning for warning in found["warnings"] if "unknown leads" in warning]
    assert warning.endswith(": ECG left, <b>&é")


def test_duplicated_leads_are_told_apart(analyzed) -> None:
    found = analyzed(ecg(1).repeat(2, axis=0), ["II", "II"])
    assert found["record"]["leads"] == ["II", "II#2"]
    assert any("lead names repeat (II)" in warning for warning in found["warnings"])
    assert any("identical: II#2 = II" in warning for warning in found["warnings"])


@pytest.mark.parametrize("fs", [49.7, 2000.0])
def test_any_rate(fs: float, analyzed) -> None:
    found = analyzed(ecg(2, 10.0, fs), ["I", "II"], fs=fs)
    assert found["quality"]["usable"]
    assert found["rhythm"]["hr_bpm"] == pytest.approx(60 / 0.82, abs=1)


@pytest.mark.parametrize("gain", [1000.0, 0.001])
def test_a_gain_that_is_off_by_a_thousand(gain: float, analyzed) -> None:
    found = analyzed(gain * ecg(2, 10.0), ["I", "II"])
    assert any("implausible" in warning and "unit" in warning for warning in found["warnings"])
    problems = {problem for lead in found["quality"]["leads"].values() for problem in lead["problems"]}
    assert problems & {"implausible amplitude", "flat"}
    assert not found["quality"]["usable"] or gain > 1


def test_one_lead_off(analyzed) -> None:
    signal = ecg(3, 10.0)
    signal[1] = -80.0
    found = analyzed(signal, ["I", "II", "V2"])
    assert found["quality"]["leads"]["II"] == {"score": 0.0, "problems": ["lead off"]}
    assert found["quality"]["leads"]["I"]["problems"] == []
    assert any(re.search(r"leads off.* II 10\.0 s$", warning) for warning in found["warnings"])
    assert found["rhythm"]["hr_bpm"] == pytest.approx(60 / 0.82, abs=1)
    assert not [segment for segment in found["anomaly"]["segments"] if segment["lead"] == "II"]


def test_the_warning_about_a_lead_off_is_printed_by_every_verb(run, tmp_path: Path) -> None:
    source = table(tmp_path / "off.csv", np.stack([ecg()[0], np.full(3000, 80.0)]), ["I", "II"])
    assert "leads off" in run("tokenize", source, "-o", tmp_path / "codes.npz").stderr
    assert "leads off" in run("embed", source, "-o", tmp_path / "embeddings.npz").stderr
    assert "leads off" in run("analyze", source).stdout
