"""ECG paper as SVG: 25 mm/s, 10 mm/mV, a grid of 1 and 5 mm, true to scale on screen and in print."""

from html import escape

from anyecg.report.findings import split_findings
from anyecg.report.ink import (
    DERIVED,
    INK,
    MARK,
    MUTED,
    OUTSTANDING,
    PAPER,
    RESTORED,
    THICK,
    THIN,
    figure,
    path_data,
    text,
)
from anyecg.report.layout import LABEL_MM, MARGIN_MM, MM_PER_S, Cell, Row, Sheet, trace
from anyecg.result import Result

PULSE_MM = 5.0
"""Width of the calibration pulse: 0.2 s; its height is that of 1 mV."""

LEAST_RR_LABEL_MM = 7.0
"""Nearer beats have no room for the RR interval between them."""


def draw(result: Result, sheet: Sheet, key: str) -> str:
    """Return one sheet as an inline SVG."""
    body = [grid(sheet.width_mm, sheet.height_mm)]
    baseline = 0.0
    for row in sheet.rows:
        baseline += LABEL_MM + row.up_mm
        body.append(_row(result, sheet, row, baseline))
        baseline += row.down_mm
    leads = ", ".join(dict.fromkeys(cell.lead for row in sheet.rows for cell in row.cells))
    return figure(
        sheet.width_mm,
        sheet.height_mm,
        f"Electrocardiogram: {sheet.title}",
        f"Traces of lead {leads} on a grid of 1 mm and 5 mm at 25 mm/s, {scale_words(sheet)}.",
        body,
        key,
    )


def scale_words(sheet: Sheet) -> str:
    """Say the amplitude scale."""
    if sheet.calibrated:
        return f"{sheet.mm_per_mv:g} mm/mV"
    return "amplitude not calibrated (unknown gain): the shape is right, the millivolts are not"


def grid(width_mm: float, height_mm: float) -> str:
    """Return the paper: lines each millimetre, heavier each five. Lines, not a pattern: a pattern blurs in a PDF."""
    thin: list[str] = []
    thick: list[str] = []
    for extent, draw_line in ((width_mm, f"M{{}} 0v{height_mm:g}"), (height_mm, f"M0 {{}}h{width_mm:g}")):
        for mm in range(int(extent) + 1):
            (thin if mm % 5 else thick).append(draw_line.format(mm))
    return (
        f'<rect width="{width_mm:g}" height="{height_mm:g}" fill="{PAPER}"/><g class="grid" fill="none">'
        f'<path d="{"".join(thin)}" stroke="{THIN}" stroke-width=".1"/>'
        f'<path d="{"".join(thick)}" stroke="{THICK}" stroke-width=".18"/></g>'
    )


def _row(result: Result, sheet: Sheet, row: Row, baseline: float) -> str:
    parts = [_pulse(sheet, baseline)]
    top = baseline - row.up_mm
    for cell in row.cells:
        parts.append(_outstanding(result, cell, top, row))
        parts.append(_cell(result, sheet, row, cell, baseline))
        if cell is not row.cells[0]:
            # above the trace, beside the name: through it, the mark would look like a pacing spike
            parts.append(f'<path d="M{cell.x_mm:.2f} {top - 3.5:.2f}v3.5" stroke="{INK}" stroke-width=".3"/>')
        parts.append(_name(result, row, cell, baseline))
    if row.beats:
        parts.append(_beats(result, row.cells[0], top))
        parts.append(_episodes(result, row.cells[0], top))
    return "".join(parts)


def _pulse(sheet: Sheet, baseline: float) -> str:
    """Return the calibration pulse: 1 mV for 0.2 s. None where the millivolts are not known."""
    if not sheet.calibrated:
        return ""
    height = sheet.mm_per_mv
    path = f"M{MARGIN_MM - 9:g} {baseline:.2f}h1.5v{-height:g}h{PULSE_MM:g}v{height:g}h1.5"
    return f'<path class="pulse" d="{path}" fill="none" stroke="{INK}" stroke-width=".3"/>'


def _cell(result: Result, sheet: Sheet, row: Row, cell: Cell, baseline: float) -> str:
    drawn = trace(result.prepared, cell, row, sheet.mm_per_mv)
    if not drawn.lines:
        words = f"{cell.lead}: not recorded"
        return text(cell.x_mm + 10, baseline + 1, words, 2.8, MUTED)
    lines = []
    for line in drawn.lines:
        placed = line.copy()
        placed[:, 1] = baseline - placed[:, 1]
        lines.append(placed)
    colour = RESTORED if cell.lead in _restored(result) else INK
    seconds = cell.stop_s - cell.start_s
    path = (
        f'<g transform="scale(.01)"><path class="trace" data-lead="{escape(cell.lead)}" data-seconds="{seconds:.4f}"'
        f' d="{path_data(lines)}" fill="none" stroke="{colour}" stroke-width="26" stroke-linejoin="round"/></g>'
    )
    marks = []
    for x, side in drawn.cut_mm[:40]:
        edge = baseline - row.up_mm if side > 0 else baseline + row.down_mm
        marks.append(f'<path d="M{x - 1:.2f} {edge + side * 1.4:.2f}h2l-1 {-1.4 * side:g}z" fill="{MARK}"/>')
    return path + "".join(marks)


def _restored(result: Result) -> frozenset[str]:
    return result.prepared.restored | frozenset(result.restored_leads)


def _name(result: Result, row: Row, cell: Cell, baseline: float) -> str:
    """Write the lead's name above its trace; in a rhythm strip, where the beats are marked, left of it."""
    words, colour = cell.lead, INK
    if cell.lead in _restored(result):
        words, colour = f"{cell.lead} (restored)", RESTORED
    elif cell.lead in result.prepared.derived:
        words, colour = f"{cell.lead} (derived)", DERIVED
    extra, top = ' class="lead" font-weight="600"', baseline - row.up_mm - 0.8
    if row.note:
        note_mm = min(2.5, (MARGIN_MM - 1.0) / (0.55 * len(row.note)))
        room_mm = MARGIN_MM - 10.0  # left of the calibration pulse; a letter is about 0.62 of its height wide
        size = min(3.4, room_mm / (0.62 * max(len(words), 1)))
        return text(0.8, baseline + 1.0, words, size, colour, extra) + text(0.8, top, row.note, note_mm, MUTED)
    if row.beats:
        size = min(3.4, (MARGIN_MM - 1.0) / (0.62 * max(len(words), 1)))
        return text(0.8, top, words, size, colour, extra)
    return text(cell.x_mm + 0.8, top, words, 3.4, colour, extra)


def _outstanding(result: Result, cell: Cell, top: float, row: Row) -> str:
    """Shade the anomalous segments of a cell."""
    shaded = []
    for segment in result.anomaly.segments if result.anomaly else ():
        start, stop = max(segment.start_s, cell.start_s), min(segment.end_s, cell.stop_s)
        if segment.lead in (None, cell.lead) and start < stop:
            x = cell.x_mm + (start - cell.start_s) * MM_PER_S
            size = f'width="{(stop - start) * MM_PER_S:.2f}" height="{row.up_mm + row.down_mm:g}"'
            shaded.append(f'<rect x="{x:.2f}" y="{top:.2f}" {size} fill="{OUTSTANDING}" fill-opacity=".4"/>')
    return "".join(shaded)


def _beats(result: Result, cell: Cell, top: float) -> str:
    """Mark the R peaks above a strip, with the RR interval in ms between two marks."""
    peaks = result.rhythm.r_peaks_s
    inside = peaks[(peaks >= cell.start_s) & (peaks < cell.stop_s)]
    if len(inside) == 0:
        return ""
    at = cell.x_mm + (inside - cell.start_s) * MM_PER_S
    marks = "".join(f"M{x:.2f} {top - 0.3:.2f}l-.7-1.5h1.4z" for x in at)
    parts = [f'<path class="beats" d="{marks}" fill="{MARK}"/>']
    for left, right, rr_s in zip(at[:-1], at[1:], inside[1:] - inside[:-1], strict=True):
        if right - left >= LEAST_RR_LABEL_MM:
            extra = ' text-anchor="middle"'
            parts.append(text((left + right) / 2, top - 0.6, f"{rr_s * 1000:.0f}", 2.1, MUTED, extra))
    for beat in result.beats:
        if beat.code != "N" and cell.start_s <= beat.start_s < cell.stop_s:
            x = cell.x_mm + (beat.start_s - cell.start_s) * MM_PER_S
            parts.append(
                text(x, top - 2.2, beat.code, 2.4, MARK, ' class="beat" font-weight="600" text-anchor="middle"')
            )
    return "".join(parts)


def _episodes(result: Result, cell: Cell, top: float) -> str:
    """Draw a bar above a strip where a rhythm episode lies, with its code."""
    drawn = []
    for episode in split_findings(result)[1]:
        start, stop = max(episode.start_s, cell.start_s), min(episode.end_s, cell.stop_s)
        if episode.kind == "rhythm" and start < stop:
            x = cell.x_mm + (start - cell.start_s) * MM_PER_S
            bar = f"M{x:.2f} {top - 4.6:.2f}h{(stop - start) * MM_PER_S:.2f}"
            drawn.append(f'<path class="episode" d="{bar}" stroke="{MARK}" stroke-width=".5"/>')
            drawn.append(text(x, top - 5.1, episode.code, 2.1, MARK))
    return "".join(drawn)
