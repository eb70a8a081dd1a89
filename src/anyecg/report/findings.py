"""Findings as HTML: what is present, when, and how sure the heads are; what was looked for and not found."""

from html import escape

from anyecg.report.layout import moment
from anyecg.result import Finding, Result

MOST_EPISODES = 60


def findings_section(result: Result) -> str:
    """Return the section of findings; empty if no head was asked."""
    if not result.findings:
        return ""
    whole, episodes = split_findings(result)
    parts = ['<section class="keep"><h2>Findings</h2>']
    if whole and all(finding.present is None for finding in whole):
        parts.append("<p>Not assessable: the quality of the recording does not allow it.</p>")
    elif whole:
        present = [finding for finding in whole if finding.present]
        absent = sorted((f for f in whole if not f.present), key=lambda f: -(f.score or 0.0))
        parts.append(_present(present) if present else "<p>None of what the heads know passes its threshold.</p>")
        parts.append(_absent(absent))
    if episodes:
        parts.append(_episodes(episodes))
    parts.append(
        '<p class="facts">Probabilities are calibrated on validation patients of public collections; thresholds give '
        "the best F1 there. In other settings both shift. A label without a bar is decided against the others of its "
        "head, not by a threshold.</p></section>"
    )
    return "".join(parts)


def split_findings(result: Result) -> tuple[list[Finding], list[Finding]]:
    """Return what is said of the whole record, and episodes within it in order of time."""
    end_s = result.prepared.duration_s
    whole = [f for f in result.findings if f.start_s <= 0 and f.end_s >= end_s - 1e-6 and f.source not in ("", "rules")]
    episodes = [f for f in result.findings if f not in whole]
    return whole, sorted(episodes, key=lambda f: f.start_s)


def _present(findings: list[Finding]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(f.name or f.code)}</th><td>{escape(f.code)}</td><td>{escape(f.snomed or "none")}'
        f"</td><td>{_bar(f)}</td><td>{escape(_leads(f))}</td></tr>"
        for f in sorted(findings, key=lambda f: -(f.score or 0.0))
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("Present", "Code", "SNOMED CT", "Probability", "Judged from"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _bar(finding: Finding) -> str:
    if finding.score is None:
        return "n/a"
    bar = f'<span class="bar"><i style="width:{100 * min(finding.score, 1):.0f}%"></i></span>{finding.score:.2f}'
    return bar + ("" if finding.threshold is None else f" (threshold {finding.threshold:.2f})")


def _leads(finding: Finding) -> str:
    return finding.lead or (", ".join(finding.leads) if len(finding.leads) < 12 else f"{len(finding.leads)} leads")


def _absent(findings: list[Finding]) -> str:
    if not findings:
        return ""
    words = ", ".join(f"{escape(f.name or f.code)} {f.score:.2f}" for f in findings if f.score is not None)
    return f'<p class="facts">Looked for and not found: {words}.</p>'


def _episodes(episodes: list[Finding]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(f.name or f.code)}</th><td>{escape(f.code)}</td>'
        f"<td>{moment(f.start_s)} to {moment(f.end_s)}</td><td>{f.end_s - f.start_s:.1f} s</td>"
        f"<td>{'n/a' if f.score is None else f'{f.score:.2f}'}</td></tr>"
        for f in episodes[:MOST_EPISODES]
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("Episode", "Code", "Time", "Length", "Score"))
    more = len(episodes) - MOST_EPISODES
    note = f"<p>and {more} more, in the JSON</p>" if more > 0 else ""
    return f"<h3>Episodes</h3><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"
