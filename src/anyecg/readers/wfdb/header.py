"""A WFDB header, read by ourselves before wfdb sees it: it must name only files that are there, inside its folder.

Format: https://physionet.org/physiotools/wag/header-5.htm
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from anyecg.errors import ReadError
from anyecg.readers.patient import age_from_text, plausible_age, sex_from_text

MAX_HEADER_BYTES = 32_000_000
"""A header of a hundred thousand segments has 2 MB."""

MAX_SIGNALS = 4096

BYTES_PER_SAMPLE = {
    **{8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0, 61: 2.0, 80: 1.0, 160: 2.0},
    **{212: 1.5, 310: 4 / 3, 311: 4 / 3},
}
FLAC_FORMATS = (508, 516, 524)

MISSING_COUNT = {
    **{80: -(2**7), 508: -(2**7), 310: -(2**9), 311: -(2**9), 212: -(2**11)},
    **{16: -(2**15), 61: -(2**15), 160: -(2**15), 516: -(2**15), 24: -(2**23), 524: -(2**23), 32: -(2**31)},
}
"""The count of a sample that was not recorded, by format (signal-5): the smallest. Format 8 (differences) has none."""

_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(?:/(?P<n_segments>\d+))?\s+(?P<n_signals>\d+)"
    r"(?:\s+(?P<fs>[^\s/]+)(?:/\S+)?(?:\s+(?P<n_samples>\d+)(?:\s+(?P<when>.*))?)?)?\s*$"
)
_FORMAT = re.compile(r"(?P<fmt>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?")
_GAIN = re.compile(r"(?P<gain>[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?:\((?P<baseline>[-+]?\d+)\))?(?:/(?P<unit>\S+))?")
_DATE_FORMATS = ("%d/%m/%Y", "%d-%b-%Y")


@dataclass(frozen=True)
class Signal:
    """A signal line."""

    file: str
    fmt: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    unit: str
    name: str
    baseline: int = 0
    initial: int = 0
    checksum: int | None = None


@dataclass(frozen=True)
class Header:
    """A header file: either signals, or segments, each with a header of its own."""

    path: Path
    fs: float | None
    n_samples: int | None
    start_time: datetime | None
    n_signals: int
    signals: tuple[Signal, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()
    comments: tuple[str, ...] = field(default=())


def _damaged(path: Path, found: str, expected: str) -> ReadError:
    return ReadError(f"{path}: {found}, expected {expected}. The WFDB header is damaged or is none.")


def parse_header(path: Path) -> Header:
    """Parse a header file.

    Raises
    ------
    ReadError
        It is not a WFDB header, or claims what cannot be.
    """
    if path.suffix != ".hea":  # wfdb opens no other
        raise ReadError(
            f"{path}: a WFDB header whose suffix is {path.suffix}, expected .hea. Rename it, and its signal files as "
            "it names them."
        )
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise _damaged(path, f"{path.stat().st_size} bytes", f"at most {MAX_HEADER_BYTES}")
    lines = [line.strip() for line in path.read_bytes().decode("utf-8", errors="replace").splitlines()]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    match = _RECORD.match(lines[0]) if lines else None
    if match is None:
        raise _damaged(path, f"a first line {lines[0][:60] if lines else ''!r}", "'NAME SIGNALS RATE SAMPLES'")
    n_signals = int(match["n_signals"])
    if not 0 < n_signals <= MAX_SIGNALS:
        raise _damaged(path, f"{n_signals} signals", f"1 to {MAX_SIGNALS}")
    try:
        fs = None if match["fs"] is None else float(match["fs"])
    except ValueError:
        raise _damaged(path, f"a rate of {match['fs'][:40]!r}", "a number of Hz") from None
    signals, segments = _parse_body(path, match, lines[1:], n_signals)
    return Header(
        path=path,
        fs=fs,
        # "If it is zero or missing, the number of samples is unspecified" (header-5).
        n_samples=int(match["n_samples"] or 0) or None,
        start_time=_start_time(match["when"] or ""),
        n_signals=n_signals,
        signals=signals,
        segments=segments,
        comments=comments,
    )


def _parse_body(
    path: Path, match: re.Match[str], lines: list[str], n_signals: int
) -> tuple[tuple[Signal, ...], tuple[tuple[str, int], ...]]:
    """Return the signals or the segments of a header."""
    if match["n_segments"] is None:
        if len(lines) < n_signals:
            raise _damaged(path, f"{len(lines)} signal lines", f"{n_signals} as the first line says")
        return tuple(_parse_signal(path, line) for line in lines[:n_signals]), ()
    n_segments = int(match["n_segments"])
    if len(lines) < n_segments or n_segments == 0:
        raise _damaged(path, f"{len(lines)} segment lines", f"{n_segments} as the first line says")
    segments = []
    for line in lines[:n_segments]:
        name, _, length = line.partition(" ")
        if not length.strip().isdigit() or not (name == "~" or re.fullmatch(r"[-\w.]+", name)):
            raise _damaged(path, f"a segment line {line[:60]!r}", "'NAME SAMPLES', a name inside the header's folder")
        segments.append((name, int(length)))
    return (), tuple(segments)


def _parse_signal(path: Path, line: str) -> Signal:
    """Parse a signal line: ``FILE FORMAT GAIN(BASELINE)/UNIT RESOLUTION ZERO INITIAL CHECKSUM BLOCK NAME``."""
    fields = line.split(maxsplit=8)
    fmt = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
    gain = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else None
    if fmt is None or (gain is None and len(fields) > 2):
        raise _damaged(path, f"a signal line {line[:60]!r}", "'FILE FORMAT GAIN ...'")
    if int(fmt["fmt"]) not in (0, *BYTES_PER_SAMPLE, *FLAC_FORMATS):
        raise _damaged(path, f"signal format {fmt['fmt']}", "one of the WFDB formats")
    zero = (_whole(fields[4]) or 0) if len(fields) > 4 else 0
    return Signal(
        file=fields[0],
        fmt=int(fmt["fmt"]),
        per_frame=max(1, int(fmt["per_frame"] or 1)),
        skew=int(fmt["skew"] or 0),
        offset=int(fmt["offset"] or 0),
        gain=float(gain["gain"]) if gain else 0.0,
        unit=(gain["unit"] if gain else None) or "mV",
        name=fields[8].strip() if len(fields) > 8 else "",
        # "If the baseline is omitted, it is taken to be the ADC zero" (header-5).
        baseline=int(gain["baseline"]) if gain and gain["baseline"] else zero,
        initial=(_whole(fields[5]) or 0) if len(fields) > 5 else zero,  # likewise
        checksum=_whole(fields[6]) if len(fields) > 6 else None,
    )


def _whole(text: str) -> int | None:
    """Return a whole number, or None if it is none."""
    return int(text) if re.fullmatch(r"[-+]?\d{1,12}", text) else None


MOST_WORDS_OF_TIME = 8
"""A record line ends with a time and a date: in a damaged line of thousands of words every pair cost seconds."""


def _start_time(text: str) -> datetime | None:
    """Return date and time of a record line, in either order; None unless both are there.

    CinC headers write ``23-Mar-2021 20:21:30``, which is not the standard's order and which wfdb takes for 23 seconds.
    """
    words = text.split()[:MOST_WORDS_OF_TIME]
    for day in words:
        for date_format in _DATE_FORMATS:
            for clock in words:
                for clock_format in ("%H:%M:%S", "%H:%M:%S.%f", "%H:%M"):
                    try:
                        return datetime.strptime(f"{day} {clock}", f"{date_format} {clock_format}")
                    except ValueError:
                        continue
    return None


def inside_folder(header: Path, name: str) -> Path:
    """Return the path of a file that a header names, if it lies in the header's own folder.

    Raises
    ------
    ReadError
        The name leads out of the folder, also by a symbolic link, or the file is missing.
    """
    # '::' starts a chain of remote protocols in fsspec, through which wfdb opens files.
    if not name or name in (".", "..") or re.search(r"[/\\\x00]|::", name):
        raise ReadError(
            f"{header}: it names the file {name[:80]!r}, expected one in its own folder. "
            "Do not trust this header; correct it by hand if you know it."
        )
    path = header.parent / name
    if not path.is_file():
        raise ReadError(f"{header}: the file {name} that it names is missing, expected beside it. Copy it there too.")
    if path.resolve().parent != header.parent.resolve():
        raise ReadError(
            f"{header}: the file {name} is a link to another folder, expected a file in the header's own. "
            "Replace the link by the file."
        )
    return path


def person(comments: tuple[str, ...]) -> dict[str, float | str | None]:
    """Return age, sex and weight_kg from the comments in the styles of CinC, LUDB, PTB-XL, MIT-BIH and ECG-ID.

    Examples
    --------
    >>> person(("69 M 1085 1629 x1", "Aldomet, Inderal"))
    {'age': 69.0, 'sex': 'male', 'weight_kg': None}
    """
    age = sex = weight_kg = None
    for line in comments:
        if match := re.search(r"(?<!\w)<?age>?\s*[:=]\s*([^\s,;<>]+)", line, re.IGNORECASE):
            age = age if age is not None else age_from_text(match[1])
        if match := re.search(r"(?<!\w)<?(?:sex|gender)>?\s*[:=]\s*(\w+)", line, re.IGNORECASE):
            sex = sex or sex_from_text(match[1])
        if match := re.search(r"(?<!\w)<?weight>?\s*[:=]\s*(\d+(?:\.\d+)?)\s*(?:kg)?\s*$", line, re.IGNORECASE):
            weight_kg = weight_kg or float(match[1])
        if match := re.match(r"(-?\d{1,3})\s+([MF])(?:\s|$)", line):  # MIT-BIH: '69 M 1085 1629 x1'
            age = age if age is not None else plausible_age(float(match[1]))
            sex = sex or sex_from_text(match[2])
    return {"age": age, "sex": sex, "weight_kg": weight_kg}


def named_leads(comments: tuple[str, ...], kind: str, leads: tuple[str, ...]) -> frozenset[str]:
    """Return the leads that our own writer marked as ``"Derived"`` or ``"Restored"``."""
    found = (line.removeprefix(f"{kind} leads:") for line in comments if line.startswith(f"{kind} leads:"))
    return frozenset(name for line in found for name in line.strip().split(", ") if name in leads)


def uncalibrated(comments: tuple[str, ...]) -> bool:
    """Return whether our own writer noted that the millivolts are not calibrated."""
    return any(line.startswith("Gain: not known") for line in comments)
