"""The first sheet of ECG paper as a PNG, by matplotlib, from the same layout as the SVG."""

from io import BytesIO

import numpy as np

from anyecg.errors import MissingDependency
from anyecg.report.ink import INK, MARK, MUTED, OUTSTANDING, PAPER, RESTORED, THICK, THIN
from anyecg.report.layout import LABEL_MM, MARGIN_MM, MM_PER_S, Row, Sheet, sheets, trace
from anyecg.report.paper import PULSE_MM, scale_words
from anyecg.report.text import model_words, printable
from anyecg.result import DISCLAIMER, Result

DOTS_PER_INCH = 200
HEAD_MM, FOOT_MM = 9.0, 6.0
_POINTS_PER_MM = 72 / 25.4


def render(result: Result) -> bytes:
    """Return the PNG file's bytes; at 200 dpi, as the file says, it prints true to scale.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("a PNG needs matplotlib, which is not installed. pip install matplotlib") from error

    if not result.prepared.n_samples:  # a long recording: the strip to look at first
        result = result.excerpts[0]
    sheet = sheets(result)[0]
    width, height = sheet.width_mm, sheet.height_mm + HEAD_MM + FOOT_MM
    canvas = Figure(figsize=(width / 25.4, height / 25.4), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(sheet.height_mm + FOOT_MM, -HEAD_MM)  # y grows downwards, 0 is the top of the paper
    _draw(axes, result, sheet)
    buffer = BytesIO()
    canvas.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def _draw(axes, result: Result, sheet: Sheet) -> None:  # type: ignore[no-untyped-def]  # a matplotlib Axes
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    width, height = sheet.width_mm, sheet.height_mm
    axes.add_patch(Rectangle((0, 0), width, height, facecolor=PAPER, edgecolor="none", zorder=0))
    for thick, colour, line_mm in ((False, THIN, 0.1), (True, THICK, 0.2)):
        upright: list[list[tuple[float, float]]] = [
            [(x, 0), (x, height)] for x in range(int(width) + 1) if (x % 5 == 0) == thick
        ]
        level: list[list[tuple[float, float]]] = [
            [(0, y), (width, y)] for y in range(int(height) + 1) if (y % 5 == 0) == thick
        ]
        axes.add_collection(
            LineCollection(upright + level, colors=colour, linewidths=line_mm * _POINTS_PER_MM, zorder=1)
        )
    baseline = 0.0
    for row in sheet.rows:
        baseline += LABEL_MM + row.up_mm
        _draw_row(axes, result, sheet, row, baseline)
        baseline += row.down_mm
    record = result.record
    title = f"{record.id}   {record.start_time or ''}   {sheet.title}"
    axes.text(1, -HEAD_MM / 2, _shown(title), fontsize=9, va="center", weight="bold")
    scale = f"{MM_PER_S:g} mm/s, {scale_words(sheet)}; model {model_words(result)}. {DISCLAIMER}"
    axes.text(1, height + FOOT_MM / 2, _shown(scale), fontsize=7, va="center", color=MUTED)


def _shown(text: str) -> str:
    """Return text as matplotlib takes it: "$" would start mathematics, and half a surrogate ends the drawing."""
    return printable(text).replace("$", r"\$")


def _draw_row(axes, result: Result, sheet: Sheet, row: Row, baseline: float) -> None:  # type: ignore[no-untyped-def]
    top = baseline - row.up_mm
    line = {"linewidth": 0.28 * _POINTS_PER_MM, "solid_joinstyle": "round", "zorder": 3}
    if sheet.calibrated:
        steps = np.array([(0, 0), (1.5, 0), (1.5, 1), (1.5 + PULSE_MM, 1), (1.5 + PULSE_MM, 0), (3 + PULSE_MM, 0)])
        axes.plot(MARGIN_MM - 9 + steps[:, 0], baseline - steps[:, 1] * sheet.mm_per_mv, color=INK, **line)
    restored = result.prepared.restored | frozenset(result.restored_leads)
    for cell in row.cells:
        colour = RESTORED if cell.lead in restored else INK
        note = " (restored)" if cell.lead in restored else " (derived)" if cell.lead in result.prepared.derived else ""
        x, y = (0.8, baseline + 1.0) if row.note else (0.8 if row.beats else cell.x_mm + 0.8, top - 0.8)
        axes.text(x, y, _shown(cell.lead + note), fontsize=8.5, weight="bold", color=colour, zorder=4)
        axes.text(0.8, top - 0.8, row.note, fontsize=6.5, color=MUTED, zorder=4)
        for segment in result.anomaly.segments if result.anomaly else ():
            start, stop = max(segment.start_s, cell.start_s), min(segment.end_s, cell.stop_s)
            if segment.lead in (None, cell.lead) and start < stop:
                left = cell.x_mm + (start - cell.start_s) * MM_PER_S
                right = cell.x_mm + (stop - cell.start_s) * MM_PER_S
                axes.fill_between(
                    [left, right], top, baseline + row.down_mm, color=OUTSTANDING, alpha=0.4, lw=0, zorder=2
                )
        drawn = trace(result.prepared, cell, row, sheet.mm_per_mv)
        if not drawn.lines:
            axes.text(cell.x_mm + 10, baseline + 1, "not recorded", fontsize=7, color=MUTED, zorder=4)
        for points in drawn.lines:
            axes.plot(points[:, 0], baseline - points[:, 1], color=colour, **line)
        for x, side in drawn.cut_mm[:40]:
            edge = top - 0.5 if side > 0 else baseline + row.down_mm + 0.5
            axes.plot([x], [edge], marker="^" if side > 0 else "v", color=MARK, markersize=4, zorder=4)
        if row.beats:
            peaks = result.rhythm.r_peaks_s
            inside = peaks[(peaks >= cell.start_s) & (peaks < cell.stop_s)]
            marks = cell.x_mm + (inside - cell.start_s) * MM_PER_S
            axes.plot(marks, np.full(len(marks), top - 1.0), "v", color=MARK, markersize=3.5, zorder=4)
