"""Findings as HTML: what is present and how sure the heads are; what was looked for and not found."""

from html import escape

from anyecg.report.text import WHOLE_TO_S
from anyecg.result import Finding, Result


def findings_section(result: Result) -> str:
    """Return the section of what is said of the whole record; empty if no head was asked."""
    if not result.findings:
        return ""
    whole, _ = split_findings(result)
    if not whole:
        return ""
    parts = ['<section class="keep"><h2>Findings</h2>']
    if all(finding.present is None for finding in whole):
        parts.append("<p>Not assessable: the quality of the recording does not allow it.</p>")
    else:
        present = [finding for finding in whole if finding.present]
        absent = sorted((f for f in whole if not f.present), key=lambda f: -(f.score or 0.0))
        parts.append(_present(present) if present else "<p>None of what the heads know passes its threshold.</p>")
        parts.append(_absent(absent))
    parts.append(
        '<p class="facts">Probabilities are calibrated on validation patients of public collections; thresholds give '
        "the best F1 there and lie low for what is rare. In other settings both shift. A label without a threshold is "
        "decided against the others of its head.</p></section>"
    )
    return "".join(parts)


def split_findings(result: Result) -> tuple[list[Finding], list[Finding]]:
    """Return what is said of the whole record, and episodes within it in order of time."""
    whole = [
        f
        for f in result.findings
        if f.start_s <= 0 and f.end_s >= result.duration_s - WHOLE_TO_S and f.source not in ("", "rules")
    ]
    episodes = [f for f in result.findings if f not in whole]
    return whole, sorted(episodes, key=lambda f: f.start_s)


def _present(findings: list[Finding]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(f.name or f.code)}</th><td>{escape(f.code)}</td><td>{escape(f.snomed or "none")}'
        f"</td><td>{_bar(f)}</td><td>{escape(_leads(f))}</td></tr>"
        for f in sorted(findings, key=lambda f: -(f.score or 0.0))
    )
    head = "".join(
        f'<th scope="col">{h}</th>' for h in ("Above threshold", "Code", "SNOMED CT", "Probability", "Judged from")
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


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
