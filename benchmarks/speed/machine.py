"""What the rows of this folder share: the machine in words, medians with their spread, and the two files of a row."""

import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPEATS = 5
"""At least so many repeats, unless one takes over a minute."""

MEASURED = """
import json, os, resource, subprocess, sys, time
own = {int(core) for core in sys.argv[1].split(",")}
os.sched_setaffinity(0, own)
started = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
wall_s = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024,
    "rc": done.returncode, "out": done.stdout.decode(errors="replace")[-2000:],
    "err": done.stderr.decode(errors="replace")[-2000:]}))
"""
"""Runs a command in a small process between it and us: on Linux a child's peak memory begins at its parent's size.

Linux only, like the numbers: ru_maxrss is in KiB there.
"""


def start(command: list[str], cores: list[int] | None = None) -> "subprocess.Popen[str]":
    """Start a command, on some cores only if asked to; `finish` measures it."""
    own = ",".join(map(str, cores or usable_cores()))
    small = [sys.executable, "-S", "-E", "-c", MEASURED, own]
    return subprocess.Popen([*small, *command], stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a command; return its wall and processor time in s, its peak memory in MiB, and the end of its output.

    Raises
    ------
    SystemExit
        The command failed: there is nothing to measure.
    """
    found: dict[str, Any] = json.loads(process.communicate()[0])
    if found["rc"]:
        raise SystemExit(f"error: {process.args[-4:]} ended with code {found['rc']}: {found['err'][-500:]}")
    return found


def usable_cores() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def about(*packages: str) -> dict[str, Any]:
    """Return the machine and the versions that a table stands on."""
    model = next((line for line in _cpuinfo() if line.startswith("model name")), ": unknown").split(":", 1)[1].strip()
    versions = {name: version(name) for name in ("anyecg", "numpy", *packages)}
    return {"cpu": model, "cores": len(usable_cores()), "python": platform.python_version(), "versions": versions}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def in_words(machine: dict[str, Any]) -> str:
    """Return the machine as one line below a table."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['cores']} cores of {machine['cpu']}; Python {machine['python']}; {versions}."


def spread(times: list[float], digits: int = 2) -> str:
    """Return times as ``median (fastest-slowest)``; ``digits`` behind the point."""
    return f"{statistics.median(times):.{digits}f} ({min(times):.{digits}f}-{max(times):.{digits}f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(out: Path, title: str, text: str, numbers: dict[str, Any]) -> None:
    """Print a row's tables, and write them."""
    print(text)
    write(out, title, text, numbers)


def write(out: Path, title: str, text: str, numbers: dict[str, Any]) -> None:
    """Write a row's tables and beside them the numbers: ``out`` with .md and .json."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(f"# {title}\n\n{text}\n")
    out.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
