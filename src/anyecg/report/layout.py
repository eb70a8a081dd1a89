"""Which lead is drawn where on the ECG paper, in millimetres; no drawing yet, so that SVG and PNG cannot differ.

sheet   what fits on one printed page: rows
row     one or more cells on a common baseline
cell    one lead from start_s to stop_s
"""

from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np

from anyecg.leads import STANDARD_LEADS, display_order
from anyecg.quality import DISABLING
from anyecg.record import Record
from anyecg.result import Result

MM_PER_S = 25.0
MM_PER_MV = 10.0
"""The standard paper speed and gain (AHA/ACC/HRS 2007, part I, doi:10.1016/j.hrthm.2007.01.024)."""

HALF_GAIN_ABOVE_MV = 4.0
"""Where the typical lead is taller than this from top to bottom, half the gain is used, as recorders do."""

STRIP_S = 10.0
MARGIN_MM = 20.0
"""Left of the traces: the calibration pulse, and the name or the time of a rhythm strip."""

SHEET_WIDTH_MM = MARGIN_MM + STRIP_S * MM_PER_S + 3.0
"""273 mm: fits A4 landscape (297 mm) with margins of 10 mm."""

SHEET_HEIGHT_MM = 172.0
MOST_UP_MM, MOST_DOWN_MM = 25.0, 20.0
"""A trace that leaves this band is cut off, and marked: it would run through its neighbours."""

LABEL_MM = 5.0
"""Height kept free above each row for names and beat marks. With it every baseline lies on a heavy line of the grid."""

WHOLE_UP_TO_S = 120.0
MOST_ROWS = 12
ROWS_FROM_START = 4
"""A longer recording is drawn in up to 12 rows: four from the start, the others where it stands out most."""

COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))


@dataclass(frozen=True)
class Cell:
    """One lead from ``start_s`` to ``stop_s``, its first sample at ``x_mm``."""

    lead: str
    start_s: float
    stop_s: float
    x_mm: float


@dataclass(frozen=True)
class Row:
    """Cells on one baseline, with so much room above and below it."""

    cells: tuple[Cell, ...]
    up_mm: float
    down_mm: float
    beats: bool = False
    note: str = ""

    @property
    def height_mm(self) -> float:
        """Height of the row, the label included."""
        return LABEL_MM + self.up_mm + self.down_mm


@dataclass(frozen=True)
class Sheet:
    """One page of ECG paper."""

    title: str
    rows: tuple[Row, ...]
    mm_per_mv: float
    calibrated: bool
    width_mm: float = SHEET_WIDTH_MM

    @property
    def height_mm(self) -> float:
        """Height of the paper, rounded up to a heavy line of the grid."""
        return 5.0 * ceil((sum(row.height_mm for row in self.rows) - 1e-6) / 5.0)


@dataclass(frozen=True, eq=False)
class Trace:
    """A cell's signal as lines.

    Parameters
    ----------
    lines : list of ndarray of float64, shape (n_points, 2)
        x from the sheet's left edge, y upwards from the row's baseline, mm; a new line after each gap.
    cut_mm : list of (float, int)
        x of each stretch that left the band, and +1 (above) or -1 (below).
    """

    lines: list[np.ndarray]
    cut_mm: list[tuple[float, int]] = field(default_factory=list)


def sheets(result: Result, from_s: float | None = None) -> list[Sheet]:
    """Lay a record out: 3 x 4 and a rhythm strip for 12 leads, rows of 10 s otherwise, more rows if it is long.

    ``from_s`` is given for an excerpt of a longer recording: where in it the excerpt begins.
    """
    record = result.prepared
    gain, calibrated = _gain(record)
    first = min(STRIP_S, record.duration_s)
    rhythm = rhythm_lead(result)
    many = record.n_leads > 1
    laid: list[Sheet] = []
    if many or record.duration_s <= STRIP_S:
        rows = _first_rows(record, first, rhythm, gain)
        where = _span(0.0, first) if from_s is None else f"{first:.3g} s from {moment(from_s)} on"
        title = f"{record.n_leads} lead{'s' if many else ''}, {where}"
        laid += _pages(title, rows, gain, calibrated)
    if record.duration_s > STRIP_S + 0.5:
        starts = _row_starts(result)
        up, down = _room(record, [Cell(rhythm, s, s + STRIP_S, MARGIN_MM) for s, _ in starts], gain)
        up = max(up, MM_PER_MV)  # room for the calibration pulse below the row's time
        rows = [
            Row(
                (Cell(rhythm, s, min(s + STRIP_S, record.duration_s), MARGIN_MM),),
                up,
                down,
                True,
                clock((from_s or 0.0) + s) + note,
            )
            for s, note in starts
        ]
        whole = record.duration_s <= WHOLE_UP_TO_S
        what = ": the whole recording" if whole else ": the start, and the stretches that stand out most"
        laid += _pages(f"Lead {rhythm}{what if from_s is None else ''}, 10 s a row", rows, gain, calibrated)
    return laid


def rhythm_lead(result: Result) -> str:
    """Return the lead for the rhythm strip: II if it is measured and sound, else the lead the beats were found in."""
    leads = result.prepared.leads

    def sound(name: str | None) -> bool:
        quality = result.quality.leads.get(name or "")
        return (
            name in leads
            and name not in result.restored_leads
            and (quality is None or (quality.score >= 0.2 and not DISABLING.intersection(quality.problems)))
        )

    for name in ("II", "MLII", result.rhythm.lead):
        if name is not None and sound(name):
            return name
    return max(leads, key=lambda name: result.quality.leads[name].score if name in result.quality.leads else 0.0)


def outstanding_starts(result: Result, count: int, skip_s: float = 0.0) -> list[float]:
    """Return where the ``count`` 10 s stretches begin that stand out most: anomalous segments, then mean surprise."""
    n_blocks = ceil(result.prepared.duration_s / STRIP_S - 1e-6)
    fragment_s = result.tokens.grid.fragment_s
    per_block = max(1, round(STRIP_S / fragment_s))
    merit = np.full(n_blocks, -np.inf)
    surprise = np.where(np.isfinite(result.surprise), result.surprise, 0.0).max(axis=0, initial=0.0)
    for block in range(n_blocks):
        here = surprise[block * per_block : (block + 1) * per_block]
        merit[block] = here.mean() if len(here) else -np.inf
    spread = float(np.ptp(merit[np.isfinite(merit)])) + 1.0 if np.isfinite(merit).any() else 1.0
    segments = sorted(result.anomaly.segments if result.anomaly else (), key=lambda a: a.score or 0.0)
    for rank, segment in enumerate(segments):
        block = floor(segment.start_s / STRIP_S)
        if 0 <= block < n_blocks:
            merit[block] += spread * (rank + 1)
    allowed = [b for b in np.argsort(-merit, kind="stable").tolist() if b * STRIP_S >= skip_s]
    return sorted(block * STRIP_S for block in allowed[:count])


def trace(record: Record, cell: Cell, row: Row, mm_per_mv: float) -> Trace:
    """Return a cell's samples as lines in mm, at up to 500 points a second."""
    start = max(0, round(cell.start_s * record.fs))
    stop = min(record.n_samples, round(cell.stop_s * record.fs) + 1)
    step = max(1, ceil(record.fs / 500))
    at = np.arange(start, stop, step)
    height = record.signal[record.leads.index(cell.lead), at].astype(np.float64) * mm_per_mv
    x = cell.x_mm + (at / record.fs - cell.start_s) * MM_PER_S
    above, below = height > row.up_mm, height < -row.down_mm
    cut = [(float(x[i]), 1) for i in _run_starts(above)] + [(float(x[i]), -1) for i in _run_starts(below)]
    points = np.column_stack([x, np.clip(height, -row.down_mm, row.up_mm)])
    breaks = np.flatnonzero(np.diff(np.isfinite(height).astype(np.int8))) + 1
    lines = [line for line in np.split(points, breaks) if len(line) > 1 and np.isfinite(line[0, 1])]
    return Trace(lines, cut)


def clock(seconds: float) -> str:
    """Return ``m:ss`` or ``h:mm:ss``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def moment(seconds: float) -> str:
    """Return ``m:ss.t`` or ``h:mm:ss.t``: fragments are shorter than a second."""
    whole, tenth = divmod(round(seconds * 10), 10)
    return f"{clock(whole)}.{tenth}"


def _span(start_s: float, stop_s: float) -> str:
    return f"{start_s:g} to {stop_s:.3g} s"


def _run_starts(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask & ~np.concatenate(([False], mask[:-1]))).tolist()


def _gain(record: Record) -> tuple[float, bool]:
    """Return mm per mV (or per unit), and whether that is a calibrated scale."""
    step = max(1, record.n_samples // 300_000)  # of a day, a thousand seconds' worth of samples is enough
    rows = [row[np.isfinite(row)] for row in record.signal[:, ::step]]
    heights = [float(np.ptp(np.percentile(row, [0.2, 99.8]))) for row in rows if len(row)]
    typical = float(np.median(heights)) if heights else 0.0
    if not record.gain_known:
        return (15.0 / typical if typical > 0 else MM_PER_MV), False
    return (MM_PER_MV / 2 if typical > HALF_GAIN_ABOVE_MV else MM_PER_MV), True


def _room(record: Record, cells: list[Cell], gain: float) -> tuple[float, float]:
    """Return the room above and below the baseline, in steps of the heavy grid."""
    top, bottom = 5.0, 5.0
    for cell in cells:
        piece = record.signal[record.leads.index(cell.lead), slice(*_samples(cell, record.fs))]
        piece = piece[np.isfinite(piece)]
        if len(piece):
            top, bottom = max(top, float(piece.max()) * gain), max(bottom, -float(piece.min()) * gain)
    return min(5.0 * ceil(top / 5.0), MOST_UP_MM), min(5.0 * ceil(bottom / 5.0), MOST_DOWN_MM)


def _samples(cell: Cell, fs: float) -> tuple[int, int]:
    return max(0, round(cell.start_s * fs)), round(cell.stop_s * fs)


def _first_rows(record: Record, first_s: float, rhythm: str, gain: float) -> list[Row]:
    """Lay out the first ten seconds of all leads."""
    rows: list[Row] = []
    stacked = [record.leads[i] for i in display_order(record.leads)]
    if set(STANDARD_LEADS) <= set(record.leads):
        column_s = first_s / 4
        for line in range(3):
            cells = tuple(
                Cell(column[line], k * column_s, (k + 1) * column_s, MARGIN_MM + k * column_s * MM_PER_S)
                for k, column in enumerate(COLUMNS)
            )
            rows.append(Row(cells, *_room(record, list(cells), gain)))
        stacked = [rhythm, *(name for name in stacked if name not in STANDARD_LEADS and name != rhythm)]
    for name in stacked:
        cell = Cell(name, 0.0, first_s, MARGIN_MM)
        rows.append(Row((cell,), *_room(record, [cell], gain), beats=name == rhythm))
    return rows


def _row_starts(result: Result) -> list[tuple[float, str]]:
    """Return start and note of each row of the rhythm lead of a long recording."""
    duration_s = result.prepared.duration_s
    if duration_s <= WHOLE_UP_TO_S:
        return [(k * STRIP_S, "") for k in range(ceil(duration_s / STRIP_S - 0.05))]
    start = [(k * STRIP_S, "") for k in range(ROWS_FROM_START)]
    chosen = outstanding_starts(result, MOST_ROWS - ROWS_FROM_START, skip_s=ROWS_FROM_START * STRIP_S)
    return start + [(s, " stands out") for s in chosen]


def _pages(title: str, rows: list[Row], gain: float, calibrated: bool) -> list[Sheet]:
    """Break rows into sheets of about equal height that fit a printed page."""
    total = sum(row.height_mm for row in rows)
    target = total / ceil(total / SHEET_HEIGHT_MM)
    pages: list[list[Row]] = [[]]
    for row in rows:
        height = sum(r.height_mm for r in pages[-1])
        if pages[-1] and (height + row.height_mm > SHEET_HEIGHT_MM or height >= target):
            pages.append([])
        pages[-1].append(row)
    n = len(pages)
    return [
        Sheet(title if n == 1 else f"{title} (sheet {i + 1} of {n})", tuple(page), gain, calibrated)
        for i, page in enumerate(pages)
    ]
