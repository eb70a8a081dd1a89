"""The overview as HTML: beats by class, burdens, episodes by kind, the strips to look at first, hour by hour."""

from collections.abc import Sequence
from html import escape

from anyecg.codes import table
from anyecg.overview import Overview
from anyecg.report.findings import split_findings
from anyecg.report.layout import clock, moment
from anyecg.result import BEAT_CLASSES, Result

LONG_FROM_S = 60.0
"""Below, strips and hours say nothing that the page does not show anyway."""

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
        parts += [_strips(overview), _hours(overview)]
    parts.append(_episodes(result))
    return "".join(parts) + "</section>"


def _facts(result: Result, overview: Overview) -> str:
    facts = [f"{clock(overview.usable_s)} of {clock(overview.duration_s)} usable", f"{overview.n_beats} beats"]
    if result.beats:
        n_of = {code: sum(beat.code == code for beat in result.beats) for code in BEAT_CLASSES}
        facts += [f"{n} {CLASS_NAMES[code]} ({code})" for code, n in n_of.items() if n]
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
    rows = [
        (
            moment(hour.start_s),
            f"{100 * hour.usable_share:.0f} %",
            str(hour.n_beats),
            *(_bpm(rate) for rate in (hour.hr_mean_bpm, hour.hr_min_bpm, hour.hr_max_bpm)),
            *("n/a" if n is None else str(n) for n in (hour.n_v, hour.n_s)),
            str(hour.n_pauses),
            f"{hour.af_minutes:.1f}",
        )
        for hour in overview.hours[:MOST_HOURS]
    ]
    head = ("From", "Usable", "Beats", "Mean bpm", "Lowest", "Highest", "V", "S", "Pauses", "AF, min")
    return "<h3>Hour by hour</h3>" + _table(head, rows)


def _bpm(rate: float | None) -> str:
    return "n/a" if rate is None else f"{rate:.0f}"


def _name(code: str) -> str:
    return table()[code].name if code in table() else code


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
