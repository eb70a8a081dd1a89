"""Reads files in a process of its own, with limits, and says what happened: ``python tests/fuzz/worker.py [FOLDER]``.

One request a line on standard input, one answer a line on standard output, both JSON:

    {"path": "a.edf", "arguments": {"fs": 250}}     read this file
    {"seed": 0, "index": 17}                        make this mutated input in FOLDER, and read it

    {"outcome": "read" | "refused" | "failed", "why": "...", "cpu_s": 0.01, "peak_mb": 140.2, "name": "..."}

A reader that runs for longer than `KILL_S` ends the process (SIGPROF, which no C code can ignore), and so does a crash
in a library: `Worker` reports that as a failure and starts another process.
"""

import json
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 2.0
"""Of processor time: on a busy machine the wall clock measures the others. Waiting is caught by `WALL_S`."""

KILL_S = 6.0
WALL_S = 300.0
LIMIT_MB = 512.0
"""Resident memory at its peak, the libraries' own 150 MB included."""

BACKSTOP_BYTES = 6_000_000_000
"""Of address space, so that a bomb harms nobody. A reader that reaches it has failed, though it says so politely."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    outcome: str
    why: str
    cpu_s: float
    peak_mb: float
    name: str

    @property
    def failed(self) -> bool:
        return self.outcome == "failed"


class Worker:
    """The parent's end of a process that reads."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any], wall_s: float = WALL_S) -> Outcome:
        """Send a request; return the answer, or a failure if the process died or does not answer."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], wall_s)
        line = process.stdout.readline() if ready else ""
        if line:
            outcome = Outcome(**json.loads(line))
            if outcome.peak_mb > LIMIT_MB:
                self.close()  # what was freed may stay with the process, and would be counted again
            return outcome
        self.close()
        why = f"no answer within {wall_s:g} s" if not ready else f"the process ended with {process.returncode}"
        if process.returncode == -signal.SIGPROF:
            why = f"more than {KILL_S:g} s of processor time"
        return Outcome("failed", why, KILL_S, 0.0, "")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            if self._process.poll() is None:
                try:
                    self._process.stdin.close()
                    self._process.wait(2)
                except (subprocess.TimeoutExpired, BrokenPipeError):
                    self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, *([str(self.folder)] if self.folder else [])]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


def main(folder: Path | None) -> None:
    """Answer requests until standard input ends."""
    _warm_up()
    resource.setrlimit(resource.RLIMIT_AS, (BACKSTOP_BYTES, BACKSTOP_BYTES))
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    maker = None
    if folder is not None:
        from inputs import Maker

        maker = Maker(folder)
    for line in sys.stdin:
        request = json.loads(line)
        name = ""
        if maker is not None and "index" in request:
            path, arguments, name = maker.make(request["seed"], request["index"])
        else:
            path, arguments = Path(request["path"]), request.get("arguments", {})
        answers.write(json.dumps({**attempt(path, arguments), "name": name}) + "\n")
        answers.flush()


def _warm_up() -> None:
    """Import what the readers import when they are first used, so that no input pays for it."""
    from importlib import import_module

    import anyecg.readers  # noqa: F401

    libraries = (
        "wfdb",
        "pydicom",
        "pyedflib",
        "ecgdatakit",
        "soundfile",
        "soxr",
        "scipy.io",
        "h5py",
        "pyarrow.parquet",
    )
    for name in libraries:
        try:
            import_module(name)
        except ImportError:
            continue
    try:
        from ecgdatakit import FileParser

        FileParser.supported_formats()
    except ImportError:
        pass


def attempt(path: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Read one file; return outcome, reason, processor time in s and peak memory in MB."""
    from anyecg.errors import AnyECGError
    from anyecg.readers import read

    _forget_peak()
    signal.setitimer(signal.ITIMER_PROF, KILL_S)
    begin = time.process_time()
    try:
        record = read(path, **arguments)
        outcome, why = "read", f"{record.format} {record.n_leads} x {record.n_samples}"
        if record.n_samples < 1:
            outcome, why = "failed", "a record without samples"
    except AnyECGError as error:
        outcome, why = "refused", str(error)
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                outcome = "failed"
            cause = cause.__cause__
        if "\n" in why:
            outcome, why = "failed", f"not one line: {why!r}"
    except Exception as error:  # noqa: BLE001  what the fuzzer is after
        outcome, why = "failed", f"{type(error).__name__}: {error}"
    cpu_s = time.process_time() - begin
    signal.setitimer(signal.ITIMER_PROF, 0)
    peak_mb = _peak_mb()
    if outcome != "failed" and cpu_s > LIMIT_S:
        outcome, why = "failed", f"{cpu_s:.1f} s of processor time ({why})"
    if outcome != "failed" and peak_mb > LIMIT_MB:
        outcome, why = "failed", f"{peak_mb:.0f} MB ({why})"
    return {"outcome": outcome, "why": why[:600], "cpu_s": round(cpu_s, 4), "peak_mb": round(peak_mb, 1)}


def _forget_peak() -> None:
    """Set the peak of resident memory back to what is in use (Linux: proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1000
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
