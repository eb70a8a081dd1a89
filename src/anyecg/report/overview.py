"""The overview as HTML: beats by class, burdens, episodes by kind, the strips to look at first, hour by hour."""

from collections.abc import Sequence
from html import escape

import numpy as np

from anyecg.codes import table
from anyecg.overview import MINUTE_S, Overview
from anyecg.record import runs_of
from anyecg.report.findings import split_findings
from anyecg.report.ink import INK, MARK, MUTED, figure, hatch, heat_colour, path_data, text
from anyecg.report.layout import MM_PER_S, STRIP_S, clock, moment
from anyecg.report.strips import GUTTER_MM, WIDTH_MM
from anyecg.result import Result
from anyecg.tasks.episodes import seconds_of
from anyecg.tasks.flutter import CODE

LONG_FROM_S = 60.0
"""Below, strips and hours say nothing that the page does not show anyway."""

PICTURE_FROM_S = 600.0
"""Ten minutes make a trend."""

COLUMNS, SURPRISE_S, ROW_MM = 720, 10.0, 5.0
"""Columns of the picture: two minutes of a day each. Seconds of one value of surprise. Height of a band."""

MOST_HOURS = 24 * 14
MOST_EPISODES = 60
CLASS_NAMES = {"N": "normal", "S": "supraventricular", "V": "ventricular", "F": "fusion", "Q": "unclassifiable"}


def overview_section(result: Result) -> str:
    """Return the section; empty without an overview."""
    overview = result.overview
    if overview is None or not overview.n_beats:
        return ""
    parts = ['<section class="keep"><h2>Overview</h2>', _facts(result, overview)]
    if overview.counts:
        rows = [
            (_name(code), code, str(count.n), clock(count.total_s), f"{count.longest_s:.1f} s")
            for code, count in overview.counts.items()
        ]
        parts.append(_table(("Kind of episode", "Code", "Number", "In all", "Longest"), rows))
    if overview.duration_s >= LONG_FROM_S:
        parts += [_variability(overview), _strips(overview)]
        if overview.duration_s >= PICTURE_FROM_S:
            picture = f'<figure><div class="scroll">{day_picture(overview)}</div></figure>'
            parts.append(f"<h3>The whole recording</h3>{picture}")
        parts += [_hours(overview), _st(overview)]
    parts.append(_episodes(result))
    return "".join(parts) + "</section>"


def _facts(result: Result, overview: Overview) -> str:
    facts = [f"{clock(overview.usable_s)} of {clock(overview.duration_s)} usable", f"{overview.n_beats} beats"]
    if result.beats:
        facts += [f"{n} {CLASS_NAMES[code]} ({code})" for code, n in result.beats.counts().items() if n]
    if overview.af_burden_percent is not None and overview.duration_s >= LONG_FROM_S:
        facts.append(f"atrial fibrillation {overview.af_burden_percent:.1f} % of the usable time")
    if overview.rr.longest_ms is not None:
        facts.append(f"longest RR {overview.rr.longest_ms:.0f} ms")
    caution = ""
    if result.beats:
        caution = (
            '<p class="facts">Beats were classified without knowing the patient. Ventricular beats are told well, '
            "supraventricular ones poorly (docs/benchmarks of AnyECG says how well).</p>"
        )
    if CODE in overview.counts:
        caution += (
            '<p class="facts">Atrial flutter is told by its rate alone: even as a clock, 130 to 175 a minute, between '
            "jumps of it. Other supraventricular tachycardias look the same.</p>"
        )
    return f'<p class="facts">{" · ".join(escape(fact) for fact in facts)}</p>{caution}'


def _episodes(result: Result) -> str:
    """List the episodes in order of time."""
    _, episodes = split_findings(result)
    if not episodes:
        return ""
    rows = [
        (
            *(f.name or f.code, f"{moment(f.start_s)} to {moment(f.end_s)}", f"{f.end_s - f.start_s:.1f} s"),
            "n/a" if f.score is None else f"{f.score:.2f}",
        )
        for f in episodes[:MOST_EPISODES]
    ]
    more = len(episodes) - MOST_EPISODES
    note = f"<p>and {more} more, in the JSON</p>" if more > 0 else ""
    return "<h3>Episodes</h3>" + _table(("Episode", "Time", "Length", "Score"), rows) + note


def _strips(overview: Overview) -> str:
    if not overview.strips:
        return "<p>No stretch asks for a look.</p>"
    rows = [
        (str(number), f"{moment(strip.start_s)} to {moment(strip.end_s)}", ", ".join(_name(r) for r in strip.reasons))
        for number, strip in enumerate(overview.strips, start=1)
    ]
    return "<h3>Worth a look first</h3>" + _table(("", "Time", "Why"), rows)


def _hours(overview: Overview) -> str:
    with_quality = len(overview.quality) > 0
    rows = [
        (
            moment(hour.start_s),
            f"{100 * hour.usable_share:.0f} %",
            str(hour.n_beats),
            *(_bpm(rate) for rate in (hour.hr_mean_bpm, hour.hr_min_bpm, hour.hr_max_bpm)),
            *("n/a" if n is None else str(n) for n in (hour.n_v, hour.n_s)),
            str(hour.n_pauses),
            f"{hour.af_minutes:.1f}",
            *(["n/a" if hour.quality_mean is None else f"{hour.quality_mean:.2f}"] if with_quality else []),
        )
        for hour in overview.hours[:MOST_HOURS]
    ]
    head = ("From", "Usable", "Beats", "Mean bpm", "Lowest", "Highest", "V", "S", "Pauses", "AF, min")
    columns = (*head, "Quality") if with_quality else head
    return "<h3>Hour by hour</h3>" + _table(columns, rows)


def _variability(overview: Overview) -> str:
    """List heart-rate variability, and say what it is of."""
    found = overview.hrv
    if found is None:
        return ""
    values = (
        *(("SDNN", overview.rr.sdnn_ms, " ms"), ("SDANN", overview.rr.sdann_ms, " ms")),
        *(("SDNN index", found.sdnn_index_ms, " ms"), ("RMSSD", overview.rr.rmssd_ms, " ms")),
        *(("pNN50", overview.rr.pnn50_percent, " %"), ("triangular index", found.triangular_index, "")),
        *(("ULF", found.ulf_ms2, " ms²"), ("VLF", found.vlf_ms2, " ms²"), ("LF", found.lf_ms2, " ms²")),
        *(("HF", found.hf_ms2, " ms²"), ("LF/HF", found.lf_hf, ""), ("SD1", found.sd1_ms, " ms")),
        *(
            ("SD2", found.sd2_ms, " ms"),
            ("DFA alpha 1", found.dfa_alpha1, ""),
            ("sample entropy", found.sample_entropy, ""),
        ),
    )
    facts = [f"{name} {value:.{0 if unit else 2}f}{unit}" for name, value, unit in values if value is not None]
    caution = " In atrial fibrillation it describes the fibrillation." if overview.af_burden_percent else ""
    words = f"Of normal intervals; over {found.n_segments} stretches of five minutes.{caution}"
    return f'<h3>Heart-rate variability</h3><p class="facts">{escape(" · ".join(facts))}</p><p>{escape(words)}</p>'


def _st(overview: Overview) -> str:
    """List the hours in which the ST level of each lead was lowest and highest."""
    rows = []
    for lead in overview.leads:
        levels = [(hour.st_mean_mv.get(lead), hour.start_s) for hour in overview.hours]
        known = [(level, start_s) for level, start_s in levels if level is not None]
        if len(known) > 1:
            rows.append(
                (lead, *(f"{level:+.2f} mV from {clock(start_s)}" for level, start_s in (min(known), max(known))))
            )
    if not rows:
        return ""
    note = "<p>Mean of the minutes' levels at J + 60 ms against PR. Posture and conduction move it too.</p>"
    return "<h3>ST level, hour by hour</h3>" + _table(("Lead", "Lowest hour", "Highest hour"), rows) + note


def day_picture(overview: Overview) -> str:
    """Return the recording on one time axis: rate, fibrillation, ST of the lead that moves most, quality, surprise.

    A column is a minute, or, of more than `COLUMNS` minutes, the median of several (of surprise the highest).
    """
    key, y = "day", 2.0
    body = [hatch(f"{key}-none")]
    body.append(_trend(overview, overview.hr_trend_bpm, "heart rate", "bpm", y, 20.0))
    y += 20.0
    body.append(_band_of_fibrillation(overview, y))
    y += ROW_MM
    row = moving_most(overview.st_mv)
    if row is not None:
        body.append(_trend(overview, overview.st_mv[row], f"ST {overview.leads[row]}", "mV", y, 12.0))
        y += 12.0
    if overview.quality.size:
        known = np.isfinite(overview.quality)
        mean = np.nan_to_num(overview.quality).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        body.append(
            _colours(overview, *_columns(np.where(known.any(axis=0), mean, np.nan), MINUTE_S), "quality", y, key)
        )
        y += ROW_MM
    if np.isfinite(overview.surprise_bits).any():
        bits, starts_s = _columns(overview.surprise_bits, SURPRISE_S, highest=True)
        body.append(_colours(overview, bits / max(float(np.nanmax(bits)), 1e-9), starts_s, "surprise", y, key))
        y += ROW_MM
    body.append(_hour_marks(overview.duration_s, y))
    words = "Red: atrial fibrillation. Quality and surprise: bright is high; hatched is not known."
    return figure(WIDTH_MM, y + 6.0, "The whole recording", words, body, key)


def moving_most(st_mv: np.ndarray) -> int | None:
    """Return the row of (n_leads, n_minutes) whose middle 90 % span most, None where no row has ten minutes."""
    spans = [
        np.ptp(np.percentile(row[np.isfinite(row)], (5, 95))) if np.isfinite(row).sum() > 9 else -1 for row in st_mv
    ]
    return int(np.argmax(spans)) if spans and max(spans) >= 0 else None


def _columns(values: np.ndarray, step_s: float, *, highest: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return values as at most `COLUMNS`, and the seconds at which each begins; NaN is left out."""
    size = -(-len(values) // COLUMNS)
    padded = np.full(-(-len(values) // size) * size, np.nan)
    padded[: len(values)] = values
    grouped = padded.reshape(-1, size)
    found = np.full(len(grouped), np.nan)
    known = np.isfinite(grouped).any(axis=1)
    found[known] = (np.nanmax if highest else np.nanmedian)(grouped[known], axis=1)
    return found, np.arange(len(found)) * size * step_s


def _x_mm(overview: Overview, at_s: np.ndarray) -> np.ndarray:
    return GUTTER_MM + at_s / max(overview.duration_s, 1e-9) * STRIP_S * MM_PER_S


def _trend(overview: Overview, values: np.ndarray, name: str, unit: str, y: float, height: float) -> str:
    """Draw a value a minute as a line that is broken where it is unknown, with its lowest and highest level."""
    course, starts_s = _columns(values, MINUTE_S)
    known = np.isfinite(course)
    label = text(1.0, y + 4.0, name, 2.4, MUTED) + text(1.0, y + 7.0, f"({unit})", 2.4, MUTED)
    if not known.any():
        return label
    low, high = float(course[known].min()), float(course[known].max())
    middle = (low + high) / 2
    reach = max(high - low, 0.1 if unit == "mV" else 10.0)  # a flat trend stays flat
    width_s = starts_s[1] - starts_s[0] if len(starts_s) > 1 else MINUTE_S
    x = _x_mm(overview, np.minimum(starts_s + width_s / 2, overview.duration_s))
    points = np.column_stack([x, y + height / 2 - (course - middle) / reach * (height - 5.0)])
    # a lone minute is drawn as a short dash
    lines = [points[a:b] if b - a > 1 else points[a] + np.array([[-0.2, 0], [0.2, 0]]) for a, b in runs_of(known)]
    drawn = f'<path d="{path_data(lines)}" fill="none" stroke="{INK}" stroke-width="16"/>'
    marks = []
    for level in (low, high) if high > low else (low,):
        at = y + height / 2 - (level - middle) / reach * (height - 5.0)
        words = f"{level:+.2f}" if unit == "mV" else f"{level:.0f}"
        marks.append(f'<path d="M{GUTTER_MM:g} {at:.2f}h{STRIP_S * MM_PER_S:g}" stroke="#dddddd" stroke-width=".15"/>')
        marks.append(text(GUTTER_MM - 1, at + 0.9, words, 2.4, MUTED, ' text-anchor="end"'))
    return label + "".join(marks) + f'<g transform="scale(.01)">{drawn}</g>'


def _band_of_fibrillation(overview: Overview, y: float) -> str:
    """Draw atrial fibrillation as a bar, each episode at least a fifth of a millimetre wide."""
    edges = _x_mm(overview, seconds_of(overview.episodes, "AFIB"))
    bars = "".join(f"M{a:.2f} {y + 1:g}h{max(b - a, 0.2):.2f}v3h{-max(b - a, 0.2):.2f}z" for a, b in edges.tolist())
    ground = f'<rect x="{GUTTER_MM:g}" y="{y + 1:g}" width="{STRIP_S * MM_PER_S:g}" height="3" fill="#f1f1f1"/>'
    path = f'<path class="fibrillation" d="{bars}" fill="{MARK}"/>' if bars else ""
    return text(1.0, y + 3.5, "fibrillation", 2.4, MUTED) + ground + path


def _colours(overview: Overview, shares: np.ndarray, starts_s: np.ndarray, name: str, y: float, key: str) -> str:
    """Draw numbers from 0 to 1 as a row of colours, hatched where unknown."""
    x = np.append(_x_mm(overview, np.minimum(starts_s, overview.duration_s)), GUTTER_MM + STRIP_S * MM_PER_S)
    by_colour: dict[str, list[str]] = {}
    for at in np.flatnonzero(np.isfinite(shares)).tolist():
        width = x[at + 1] - x[at] + 0.02
        cell = f"M{x[at]:.2f} {y + 1:g}h{width:.2f}v3h{-width:.2f}z"
        by_colour.setdefault(heat_colour(float(shares[at])), []).append(cell)
    place = f'x="{GUTTER_MM:g}" y="{y + 1:g}" width="{STRIP_S * MM_PER_S:g}" height="3"'
    cells = "".join(f'<path d="{"".join(cells)}" fill="{colour}"/>' for colour, cells in by_colour.items())
    return text(1.0, y + 3.5, name, 2.4, MUTED) + f'<rect {place} fill="url(#{key}-none)"/>' + cells


def _hour_marks(duration_s: float, y: float) -> str:
    """Draw the time axis: at most 13 marks, at whole minutes, hours or days."""
    steps = (60, 120, 300, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 2 * 86_400)
    step = next((s for s in steps if duration_s / s <= 12), steps[-1])
    marks = []
    for second in range(0, int(duration_s) + 1, step):
        x = GUTTER_MM + second / duration_s * STRIP_S * MM_PER_S
        marks.append(f'<path d="M{x:.2f} {y:.2f}v1.2" stroke="{MUTED}" stroke-width=".15"/>')
        marks.append(text(x, y + 4.2, clock(second), 2.4, MUTED, ' text-anchor="middle"'))
    return "".join(marks)


def _bpm(rate: float | None) -> str:
    return "n/a" if rate is None else f"{rate:.0f}"


def _name(code: str) -> str:
    return table()[code].name if code in table() else code


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
