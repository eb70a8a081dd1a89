"""PDF reports of KardiaMobile: the strips, read back from the lines that draw them.

AliveCor does not publish the layout. The public programs that read such reports of 2026 agree on it: the converters of
github.com/joelparkerhenderson (kardiamobile-1l- and -6l-ecg-convert-pdf-to-edf, in Python and in Rust) and a tool that
measures QT in reports of KardiaMobile 6L (measure_qtc.py):

    page 1       a summary, without the trace
    pages 2 ...  25 mm/s and 10 mm/mV, lines of 0.4 points in black: a line across the page at 0 mV of each row, and the
                 trace in paths of many points, a point a sample, 300 a second, so 0.2362 points apart
    one lead     up to four rows a page, which follow one another in time
    six leads    the rows of a page are I, II, III, aVR, aVL and aVF; the pages follow one another in time
    the first row may begin with a pulse of 1 mV

A file of another layout, spacing or number of rows is refused: reports of older apps, and of Apple Watch, differ.

Departures: the paths are placed by their x, so that a piece that is missing stays a gap; six rows must obey Einthoven's
and Goldberger's laws; what the page says in letters (person, time, finding) is not read.
"""

from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers.slices import sample_range
from anyecg.readers.units import rate_of
from anyecg.readers.wearables.pdf_strokes import Stroke, pages
from anyecg.record import Record

NAME = "kardiapdf"

POINTS_PER_MM = 72 / 25.4
MM_PER_S, MM_PER_MV = 25.0, 10.0
FS = 300.0
STEP_POINTS = MM_PER_S * POINTS_PER_MM / FS
"""Between two samples; 0.2362."""

STEP_TOLERANCE = 0.02

LINE_WIDTH_POINTS = (0.35, 0.45)
BASELINE_POINTS = 500.0
"""A line at 0 mV is longer; a letter page is 612 wide."""

TRACE_POINTS = 40
"""A path of the trace has more, a line at 0 mV or a tick less; a shorter one must join a trace."""

MAX_PAGE_POINTS = 14_400
"""The widest page that PDF 1.6 and later allow without a unit of its own (ISO 32000-1, annex C)."""

ROW_POINTS = 80.0
"""How far from its line at 0 mV a trace may lie in the middle."""

MAX_ROWS = 4
"""Of one lead on a page."""

LARGEST_MISFIT_MV = 0.05
"""By which drawn limb leads may miss the laws, root mean square."""

PULSE_MV, PULSE_TOLERANCE_MV, PULSE_SHORTEST_S, PULSE_LATEST_S = 1.0, 0.03, 0.05, 1.0

ADVICE = (
    "Export the recording as data (Kardia: .atc; Apple Health: export all health data; carts: XML, DICOM, SCP-ECG)."
)

_Row = tuple[float, list[np.ndarray]]
"""y of the line at 0 mV, and the lines of the trace, points (n, 2) each."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is a PDF; whether it is a report of this layout is seen when it is read."""
    return head.startswith(b"%PDF-")


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the one or six leads of a report.

    Raises
    ------
    ReadError
        It is another PDF, or see `anyecg.readers.read`.
    """
    where = str(path)
    drawn = [_rows(strokes) for strokes in pages(path)]
    drawn = [rows for rows in (drawn[1:] if len(drawn) > 1 else drawn) if rows]
    if not drawn:
        raise ReadError(
            f"{where}: a PDF page without the strips of a KardiaMobile report, expected those or a file of samples: "
            f"what is drawn otherwise is not read. {ADVICE}"
        )
    rate = rate_of(where, FS, fs)
    n_rows = {len(rows) for rows in drawn}
    leads: tuple[str, ...]
    if n_rows == {6}:
        leads = STANDARD_LEADS[:6]
        signal = np.concatenate([_page(where, rows) for rows in drawn], axis=1)
        _check_laws(where, signal[:, _pulse(signal, rate) :])
    elif max(n_rows) <= MAX_ROWS:
        leads = STANDARD_LEADS[:1]
        signal = np.concatenate([_page(where, [row]) for rows in drawn for row in rows], axis=1)
    else:
        raise ReadError(
            f"{where}: pages of {sorted(n_rows)} strips, expected six leads or up to {MAX_ROWS} rows. {ADVICE}"
        )
    warnings = [
        "read from the drawing in a PDF report: the app's filtered signal, placed as it is drawn; the recording's ATC "
        "file has the samples",
        "the PDF's text (person, time of recording, finding) is not read",
    ]
    n_pulse = _pulse(signal, rate)
    if n_pulse:
        signal[:, :n_pulse] = np.nan
        warnings.append(f"the calibration pulse of 1 mV until {n_pulse / rate:.2f} s is taken as not recorded")
    else:
        warnings.append("no calibration pulse was found: 10 mm/mV is assumed")
    if len(leads) == 1:
        warnings.append("one strip in rows is taken as lead I")
    first, last = sample_range(where, signal.shape[1], rate, start_s, end_s, warnings)
    return Record(
        signal=signal[:, first:last],
        fs=rate,
        leads=leads,
        id=path.stem,
        format=NAME,
        start_s=first / rate,
        gain_known=bool(n_pulse),
        warnings=tuple(warnings),
    )


def _rows(strokes: list[Stroke]) -> list[_Row]:
    """Return the rows of a page that have a trace, from the top."""
    low, high = LINE_WIDTH_POINTS
    thin = [stroke.lines for stroke in strokes if low < stroke.width < high and max(stroke.colour) < 0.01]
    zeros = sorted({float(y) for lines in thin for line in lines for y in _across(line)}, reverse=True)
    rows: dict[float, list[np.ndarray]] = {zero: [] for zero in zeros}
    rest: list[np.ndarray] = []
    for lines in thin if zeros else ():
        lines = [line for line in lines if not len(_across(line))]
        if lines and max(map(len, lines)) <= TRACE_POINTS < sum(map(len, lines)):
            lines = [np.concatenate(lines)]  # a path may also begin anew at every sample
        for line in lines:
            middle = float(np.median(line[:, 1]))
            zero = min(zeros, key=lambda y: abs(y - middle))
            if len(line) <= TRACE_POINTS:
                rest.append(line)
            elif abs(zero - middle) < ROW_POINTS:
                rows[zero].append(line)
    return [(zero, lines + _continuing(lines, rest)) for zero, lines in rows.items() if lines]


def _continuing(lines: list[np.ndarray], rest: list[np.ndarray]) -> list[np.ndarray]:
    """Return the short lines that begin where a trace ends, or end where it begins, or so with one of their own."""
    at: dict[tuple[float, float], list[int]] = {}
    for i, line in enumerate(rest):
        for point in (line[0], line[-1]):
            at.setdefault(_end(point), []).append(i)
    found: dict[int, np.ndarray] = {}
    ends = [_end(line[place]) for line in lines for place in (0, -1)]
    while ends:
        for i in at.pop(ends.pop(), []):
            if i not in found:
                found[i] = rest[i]
                ends += [_end(rest[i][0]), _end(rest[i][-1])]
    return list(found.values())


def _end(point: np.ndarray) -> tuple[float, float]:
    return round(float(point[0]), 2), round(float(point[1]), 2)


def _across(line: np.ndarray) -> np.ndarray:
    """Return y of those pieces of a line that go straight across the page."""
    pieces = np.abs(np.diff(line, axis=0))
    return line[:-1, 1][(pieces[:, 0] > BASELINE_POINTS) & (pieces[:, 1] < 0.01)]


def _page(where: str, rows: list[_Row]) -> np.ndarray:
    """Return the mV of rows that stand one above the other, a row each; NaN where nothing is drawn.

    Raises
    ------
    ReadError
        The points are not a 300th of a second apart.
    """
    left = min(line[:, 0].min() for _, lines in rows for line in lines)
    right = max(line[:, 0].max() for _, lines in rows for line in lines)
    if not right - left <= MAX_PAGE_POINTS:
        raise ReadError(f"{where}: strips {right - left:g}/72 inch wide, expected at most {MAX_PAGE_POINTS}. {ADVICE}")
    signal = np.full((len(rows), round((right - left) / STEP_POINTS) + 1), np.nan)
    for out, (zero, lines) in zip(signal, rows, strict=True):
        steps = np.concatenate([np.diff(line[:, 0]) for line in lines])
        step = float(np.median(steps[steps > STEP_POINTS / 4])) if (steps > STEP_POINTS / 4).any() else 0.0
        if abs(step / STEP_POINTS - 1) > STEP_TOLERANCE:
            raise ReadError(
                f"{where}: points {step:.4f}/72 inch apart, expected {STEP_POINTS:.4f}: 300 a second at 25 mm/s, as "
                f"KardiaMobile draws them. {ADVICE}"
            )
        for line in lines:
            places = np.round((line[:, 0] - left) / STEP_POINTS).astype(int)
            values = (line[:, 1] - zero) / (MM_PER_MV * POINTS_PER_MM)
            between = np.arange(places.min(), places.max() + 1)  # a straight piece of more than a step is drawn, too
            order = np.argsort(places, kind="stable")
            out[between] = np.interp(between, places[order], values[order])
            out[places] = values
    return signal


def _check_laws(where: str, signal: np.ndarray) -> None:
    """Refuse six rows that are not the six limb leads."""
    one, two, three, avr, avl, avf = signal
    misfits = (three - (two - one), avr + (one + two) / 2, avl - (one - two / 2), avf - (two - one / 2))
    worst = max(float(np.nanmean(misfit**2)) ** 0.5 if np.isfinite(misfit).any() else np.inf for misfit in misfits)
    if not worst <= LARGEST_MISFIT_MV:
        raise ReadError(
            f"{where}: six strips that contradict Einthoven and Goldberger by {worst:.2f} mV, expected I, II, III, "
            f"aVR, aVL and aVF from the top. {ADVICE}"
        )


def _pulse(signal: np.ndarray, fs: float) -> int:
    """Return how many samples a pulse of 1 mV and the zero line around it take at the start; 0 if there is none."""
    begin = signal[:, : round(PULSE_LATEST_S * fs)]
    high = np.asarray((np.abs(begin - PULSE_MV) < PULSE_TOLERANCE_MV).all(axis=0))
    level = high | (np.abs(begin) < PULSE_TOLERANCE_MV).all(axis=0) | np.isnan(begin).all(axis=0)
    n = len(level) if level.all() else int(np.argmin(level))
    if high[:n].sum() < PULSE_SHORTEST_S * fs:
        return 0
    return int(np.flatnonzero(high[:n])[-1]) + 1
