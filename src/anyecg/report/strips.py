"""What the model made of the record: codes under the trace, decoded over measured, surprise in colour."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from anyecg.leads import display_order
from anyecg.report.ink import (
    DECODED,
    INK,
    MEASURED,
    MUTED,
    OUTSTANDING,
    RESTORED,
    code_colour,
    figure,
    hatch,
    heat_colour,
    path_data,
    text,
)
from anyecg.report.layout import MM_PER_S, STRIP_S, clock, outstanding_starts
from anyecg.result import Result

GUTTER_MM = 22.0
"""Left of the traces: lead, r and the scale bar."""

WIDTH_MM = GUTTER_MM + STRIP_S * MM_PER_S + 3.0
TRACE_MM, CODES_MM, SURPRISE_MM, GAP_MM = 15.0, 3.6, 2.2, 3.2
LEADS_A_FIGURE = 6
"""Six leads fill a printed page."""

OTHER_STRETCHES = 2
"""Stretches of 10 s shown beside the first one in a long recording, if it has few leads; one if it has many."""

MAP_COLUMNS = 600
HEART_RATE_FROM_S = 60.0
"""A heart-rate trend is drawn for recordings at least this long."""


@dataclass(frozen=True)
class Scale:
    """The colour scale of surprise: 0 to ``top`` bits; a blind guess among all codes costs ``guess`` bits."""

    top: float
    guess: float


def surprise_scale(result: Result) -> Scale:
    """Return the scale used for every surprise colour of a report."""
    guess = float(np.log2(max(result.tokens.codebook_size, 2)))
    known = result.surprise[np.isfinite(result.surprise)]
    return Scale(max(guess, float(known.max()) if len(known) else 0.0), guess)


def correlations(result: Result) -> dict[str, float | None]:
    """Return Pearson's r between the measured and the decoded signal of each lead; None where it is undefined."""
    found: dict[str, float | None] = {}
    for row, name in enumerate(result.prepared.leads):
        count, sums, products = 0, np.zeros(2), np.zeros((2, 2))
        for start in range(0, result.prepared.n_samples, 1_000_000):  # bounds the memory a day takes
            part = slice(start, start + 1_000_000)
            pair = np.stack([result.prepared.signal[row, part], result.decoded.signal[row, part]])
            pair = pair[:, np.isfinite(pair).all(axis=0)].astype(np.float64)
            count, sums, products = count + pair.shape[1], sums + pair.sum(axis=1), products + pair @ pair.T
        covariance = products - np.outer(sums, sums) / max(count, 1)
        size = float(np.sqrt(max(covariance[0, 0], 0.0) * max(covariance[1, 1], 0.0)))
        found[name] = float(covariance[0, 1] / size) if size > 1e-12 else None
    return found


def code_figures(result: Result, r: dict[str, float | None]) -> list[str]:
    """Return figures of trace, decoded trace, codes and surprise, on one time axis: 10 s and up to six leads each."""
    duration_s = result.prepared.duration_s
    starts = [0.0]
    if duration_s > STRIP_S + 0.5:
        others = OTHER_STRETCHES if result.prepared.n_leads <= 3 else 1
        starts += outstanding_starts(result, others, skip_s=STRIP_S)
    order = display_order(result.prepared.leads)
    groups = [order[i : i + LEADS_A_FIGURE] for i in range(0, len(order), LEADS_A_FIGURE)]
    return [
        _code_figure(result, group, start, r, f"codes-{i}-{k}")
        for i, start in enumerate(starts)
        for k, group in enumerate(groups)
    ]


def _code_figure(result: Result, rows: list[int], start_s: float, r: dict[str, float | None], key: str) -> str:
    stop_s = min(start_s + STRIP_S, result.prepared.duration_s)
    body = [hatch(f"{key}-none"), _time_axis(start_s, stop_s)]
    scale = surprise_scale(result)
    y = 5.0
    for row in rows:
        name = result.prepared.leads[row]
        body.append(_outstanding(result, name, start_s, stop_s, y))
        body.append(_traces(result, row, start_s, stop_s, y))
        body.append(_gutter(name, r[name], y, name in result.restored_leads))
        y += TRACE_MM
        body.append(_codes(result, row, start_s, stop_s, y, f"url(#{key}-none)"))
        y += CODES_MM
        body.append(_surprise(result, row, start_s, stop_s, y, scale, f"url(#{key}-none)"))
        y += SURPRISE_MM + GAP_MM
    names = ", ".join(result.prepared.leads[row] for row in rows)
    title = f"Rhythm codes of {names}, {clock(start_s)} to {clock(stop_s)}"
    words = (
        "For each lead the measured and the decoded trace, a strip of coloured rhythm codes, and a strip of surprise."
    )
    return figure(WIDTH_MM, y, title, words, body, key)


def _time_axis(start_s: float, stop_s: float) -> str:
    ticks = []
    for second in range(ceil(start_s), int(stop_s) + 1):
        x = GUTTER_MM + (second - start_s) * MM_PER_S
        ticks.append(text(x, 3.0, f"{clock(second)}", 2.4, MUTED, ' text-anchor="middle"'))
        ticks.append(f'<path d="M{x:.2f} 3.6v1.2" stroke="{MUTED}" stroke-width=".15"/>')
    return "".join(ticks)


def _name_mm(name: str, largest_mm: float) -> float:
    """Return the height of letters with which a lead's name fits into the gutter."""
    return min(largest_mm, (GUTTER_MM - 2.0) / (0.65 * max(len(name), 1)))


def _outstanding(result: Result, name: str, start_s: float, stop_s: float, y: float) -> str:
    """Shade the anomalous segments behind a trace."""
    shaded = []
    for segment in result.anomaly.segments if result.anomaly else ():
        left, right = max(segment.start_s, start_s), min(segment.end_s, stop_s)
        if segment.lead in (None, name) and left < right:
            x = GUTTER_MM + (left - start_s) * MM_PER_S
            size = f'width="{(right - left) * MM_PER_S:.2f}" height="{TRACE_MM:g}"'
            shaded.append(f'<rect x="{x:.2f}" y="{y:.2f}" {size} fill="{OUTSTANDING}" fill-opacity=".4"/>')
    return "".join(shaded)


def _gutter(name: str, r: float | None, y: float, restored: bool) -> str:
    colour = RESTORED if restored else INK
    agreement = "r = n/a" if r is None else f"r = {r:.3f}"
    return (
        text(1.0, y + 5.0, name, _name_mm(name, 3.6), colour, ' font-weight="600"')
        + text(1.0, y + 9.0, "restored" if restored else agreement, 2.5, MUTED)
        + text(1.0, y + TRACE_MM + CODES_MM - 1.1, "codes", 2.2, MUTED)
        + text(1.0, y + TRACE_MM + CODES_MM + SURPRISE_MM - 0.4, "surprise", 2.2, MUTED)
    )


def _traces(result: Result, row: int, start_s: float, stop_s: float, y: float) -> str:
    """Draw decoded (broad, light) under measured (thin, dark), both at the lead's own height."""
    fs = result.prepared.fs
    first, last = round(start_s * fs), min(round(stop_s * fs), result.prepared.n_samples)
    at = np.arange(first, last, max(1, ceil(fs / 500)))
    both = [record.signal[row, at].astype(np.float64) for record in (result.decoded, result.prepared)]
    known = np.concatenate([line[np.isfinite(line)] for line in both])
    if len(known) == 0:
        return text(GUTTER_MM + 10, y + TRACE_MM / 2, "not recorded", 2.8, MUTED)
    # the scale comes from the measured signal, so that a decoded spike cannot flatten it
    base = both[1][np.isfinite(both[1])]
    low, high = np.percentile(base if len(base) else known, [0.05, 99.95])
    mm_per_mv = (TRACE_MM - 2.0) / max(float(high - low), 1e-3)
    x = GUTTER_MM + (at / fs - start_s) * MM_PER_S
    drawn = []
    for line, colour, width in zip(both, (DECODED, MEASURED), (55, 17), strict=True):
        height = np.clip(y + TRACE_MM - 1.0 - (line - low) * mm_per_mv, y - 1.0, y + TRACE_MM)
        pieces = np.split(np.column_stack([x, height]), np.flatnonzero(np.diff(np.isfinite(line).astype(np.int8))) + 1)
        lines = [piece for piece in pieces if len(piece) > 1 and np.isfinite(piece[0, 1])]
        drawn.append(f'<path d="{path_data(lines)}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return f'<g transform="scale(.01)">{"".join(drawn)}</g>' + _scale_bar(result, mm_per_mv, y)


def _scale_bar(result: Result, mm_per_mv: float, y: float) -> str:
    """Draw how much of the trace's height is a round number of mV."""
    if not result.prepared.gain_known:
        return ""
    size_mv = max((s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if s * mm_per_mv <= TRACE_MM - 3), default=0.05)
    length = min(size_mv * mm_per_mv, TRACE_MM)
    bar = f'<path d="M{GUTTER_MM - 1.5} {y + TRACE_MM - 1:.2f}v{-length:.2f}" stroke="{INK}" stroke-width=".35"/>'
    extra = ' text-anchor="end"'
    return bar + text(GUTTER_MM - 2.2, y + TRACE_MM - 1, f"{size_mv:g} mV", 2.1, MUTED, extra)


def _codes(result: Result, row: int, start_s: float, stop_s: float, y: float, none: str) -> str:
    """Draw a cell a fragment, coloured by its first code; all levels appear when hovered over."""
    tokens = result.tokens
    width = tokens.grid.fragment_s * MM_PER_S
    cells = []
    for fragment in _fragments(result, start_s, stop_s):
        x = GUTTER_MM + (fragment * tokens.grid.fragment_s - start_s) * MM_PER_S
        levels = tokens.codes[row, fragment].tolist()
        recorded = bool(tokens.valid[row, fragment]) and levels[0] >= 0
        fill = code_colour(levels[0]) if recorded else none
        words = "codes " + " ".join(map(str, levels)) if recorded else "not recorded"
        at = f"{fragment * tokens.grid.fragment_s:.2f} s"
        place = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{CODES_MM:g}"'
        cells.append(f'<rect {place} fill="{fill}"><title>{at}: {words}</title></rect>')
        if recorded and width > 6:
            cells.append(
                f'<text x="{x + width / 2:.2f}" y="{y + 2.7:.2f}" font-size="2.2" text-anchor="middle" '
                f'pointer-events="none">{levels[0]}</text>'
            )
    return f'<g class="codes">{"".join(cells)}</g>'


def _surprise(result: Result, row: int, start_s: float, stop_s: float, y: float, scale: Scale, none: str) -> str:
    width = result.tokens.grid.fragment_s * MM_PER_S
    cells = []
    for fragment in _fragments(result, start_s, stop_s):
        bits = float(result.surprise[row, fragment])
        x = GUTTER_MM + (fragment * result.tokens.grid.fragment_s - start_s) * MM_PER_S
        fill, words = (
            (heat_colour(bits / scale.top), f"{bits:.1f} bits") if np.isfinite(bits) else (none, "not recorded")
        )
        place = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{SURPRISE_MM:g}"'
        cells.append(f'<rect {place} fill="{fill}"><title>surprise {words}</title></rect>')
    return f'<g class="surprise">{"".join(cells)}</g>'


def _fragments(result: Result, start_s: float, stop_s: float) -> range:
    fragment_s = result.tokens.grid.fragment_s
    return range(round(start_s / fragment_s), min(ceil(stop_s / fragment_s - 1e-6), result.tokens.codes.shape[1]))


def surprise_map(result: Result) -> str:
    """Return surprise over the whole recording, leads x time, with a legend; and the heart rate if it is long."""
    key = "map"
    scale = surprise_scale(result)
    order = display_order(result.prepared.leads)
    duration_s = result.duration_s
    height = 4.0 if len(order) > 2 else 7.0
    body, y = [hatch(f"{key}-none")], 2.0
    if duration_s >= HEART_RATE_FROM_S and len(result.rhythm.r_peaks_s) > 2:
        body.append(_heart_rate(result, y, 18.0))
        y += 22.0
    pooled = _pooled(result.surprise[order], MAP_COLUMNS)
    covered_s = result.surprise.shape[1] * result.tokens.grid.fragment_s
    column = covered_s / duration_s * STRIP_S * MM_PER_S / max(pooled.shape[1], 1)
    width = STRIP_S * MM_PER_S
    body.append(f'<svg x="{GUTTER_MM:g}" y="0" width="{width:g}" height="1000" viewBox="0 0 {width:g} 1000">')
    body.append(f'<rect x="0" y="{y:g}" width="{width:g}" height="{height * len(order):g}" fill="url(#{key}-none)"/>')
    by_colour: dict[str, list[str]] = {}
    for line, bits in enumerate(pooled):
        for at in np.flatnonzero(np.isfinite(bits)).tolist():
            cell = (
                f"M{at * column:.2f} {y + line * height:g}h{column + 0.02:.2f}v{height - 0.3:g}h{-column - 0.02:.2f}z"
            )
            by_colour.setdefault(heat_colour(float(bits[at]) / scale.top), []).append(cell)
    body += [f'<path d="{"".join(cells)}" fill="{colour}"/>' for colour, cells in by_colour.items()]
    body.append("</svg>")
    for line, row in enumerate(order):
        name = result.prepared.leads[row]
        body.append(text(1.0, y + (line + 0.75) * height, name, _name_mm(name, min(3.0, height * 0.75)), INK))
    y += height * len(order)
    body.append(_long_axis(duration_s, y))
    body.append(_legend(scale, y + 7.0, f"url(#{key}-none)"))
    words = "Each row is a lead, each column a stretch of time; bright colours mark fragments the model did not expect."
    return figure(WIDTH_MM, y + 15.0, "Surprise over the whole recording", words, body, key)


def _pooled(surprise: np.ndarray, most: int) -> np.ndarray:
    """Join neighbouring fragments, keeping the largest surprise, until at most ``most`` columns are left."""
    factor = max(1, ceil(surprise.shape[1] / most))
    columns = ceil(surprise.shape[1] / factor)
    padded = np.full((surprise.shape[0], columns * factor), np.nan)
    padded[:, : surprise.shape[1]] = surprise
    grouped = padded.reshape(surprise.shape[0], columns, factor)
    largest = np.where(np.isfinite(grouped), grouped, -np.inf).max(axis=2)
    return np.where(np.isfinite(largest), largest, np.nan)


def _long_axis(duration_s: float, y: float) -> str:
    steps = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
    step = next((s for s in steps if duration_s / s <= 12), 14400)
    marks = []
    for second in range(0, int(duration_s) + 1, step):
        x = GUTTER_MM + second / duration_s * STRIP_S * MM_PER_S
        marks.append(f'<path d="M{x:.2f} {y:.2f}v1.2" stroke="{MUTED}" stroke-width=".15"/>')
        marks.append(text(x, y + 4.0, clock(second), 2.4, MUTED, ' text-anchor="middle"'))
    return "".join(marks)


def _legend(scale: Scale, y: float, none: str) -> str:
    width = 60.0
    bars = "".join(
        f'<rect x="{GUTTER_MM + i * width / 40:.2f}" y="{y:.2f}" width="{width / 40 + 0.05:.2f}" height="2.6" '
        f'fill="{heat_colour((i + 0.5) / 40)}"/>'
        for i in range(40)
    )
    at = GUTTER_MM + scale.guess / scale.top * width
    guess = f'<path d="M{at:.2f} {y - 0.8:.2f}v4.2" stroke="{INK}" stroke-width=".3"/>'
    words = f"{scale.guess:.0f} bits = a blind guess among {2**scale.guess:.0f} codes"
    return (
        bars
        + guess
        + text(GUTTER_MM, y + 6.0, "0 bits: expected", 2.4, MUTED)
        + text(GUTTER_MM + width + 3, y + 2.3, words, 2.4, MUTED)
        + f'<rect x="{GUTTER_MM + 150}" y="{y:.2f}" width="6" height="2.6" fill="{none}"/>'
        + text(GUTTER_MM + 158, y + 2.3, "not recorded, or not looked at", 2.4, MUTED)
    )


def _heart_rate(result: Result, y: float, height: float) -> str:
    """Draw the heart rate of each beat over the whole recording, on the time axis of the map."""
    peaks = result.rhythm.r_peaks_s
    rr_s = np.diff(peaks)
    good = (rr_s >= 0.25) & (rr_s <= 3.0)
    bpm, at = 60 / rr_s[good], peaks[1:][good]
    if len(bpm) == 0:
        return ""
    if len(bpm) > 4000:  # a day: the median of each of 2,000 groups of beats
        groups = np.array_split(np.arange(len(bpm)), 2000)
        bpm, at = (np.array([np.median(values[g]) for g in groups]) for values in (bpm, at))
    low, high = 20 * np.floor(bpm.min() / 20), 20 * np.ceil(bpm.max() / 20 + 0.01)
    x = GUTTER_MM + at / result.duration_s * STRIP_S * MM_PER_S
    points = np.column_stack([x, y + height - (bpm - low) / (high - low) * height])
    line = (
        f'<g transform="scale(.01)"><path d="{path_data([points])}" fill="none" stroke="{INK}" stroke-width="16"/></g>'
    )
    axis = []
    for value in (low, (low + high) / 2, high):
        level = y + height - (value - low) / (high - low) * height
        axis.append(f'<path d="M{GUTTER_MM} {level:.2f}h{STRIP_S * MM_PER_S:g}" stroke="#dddddd" stroke-width=".15"/>')
        axis.append(text(GUTTER_MM - 1, level + 0.9, f"{value:.0f}", 2.4, MUTED, ' text-anchor="end"'))
    return "".join(axis) + line + text(1.0, y + 3.5, "heart rate", 2.4, MUTED) + text(1.0, y + 6.5, "(bpm)", 2.4, MUTED)
