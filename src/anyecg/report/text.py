"""The report as words: the terminal's summary, and the sentences that the HTML page shares with it."""

import numpy as np

from anyecg.leads import display_order
from anyecg.report.layout import clock, moment, rhythm_lead
from anyecg.result import DISCLAIMER, Finding, Result

_BARS = "▁▂▃▄▅▆▇█"

LEAST_SPAN_MV = 1e-3
"""What spans less is drawn flat: what filters leave of a constant is no trace."""


def summary(result: Result) -> str:
    """Return about twenty lines of plain text, for a terminal.

    Returns
    -------
    str
        Without a newline at the end, without control characters: what a file says cannot move the cursor.
    """
    record, rhythm = result.record, result.rhythm
    lines = [
        f"{record.id}  ({record.format}, {record.n_leads} {'lead' if record.n_leads == 1 else 'leads'}, "
        f"{clock(result.duration_s)}, {record.fs:g} Hz{', ' + patient(result) if patient(result) else ''})",
        f"  quality   {quality_words(result)}",
        f"  rhythm    {rhythm_words(result)}",
    ]
    if cut(result):
        lines.append(f"  slice     {cut(result)}")
    if rhythm.rr_mean_ms is not None:
        lines.append(
            f"  RR        mean {ms(rhythm.rr_mean_ms)}, SDNN {ms(rhythm.sdnn_ms)}, RMSSD {ms(rhythm.rmssd_ms)}"
        )
    lines.append(f"  anomaly   {anomaly_words(result)}")
    if result.prepared.n_samples:
        lead = rhythm_lead(result)
        lines.append(f"  trace     {sparkline(result, lead)}  {lead}, first {min(5.0, record.duration_s):g} s")
    else:
        lines += long_lines(result)
    lines += finding_lines(result)
    for segment in (result.anomaly.segments if result.anomaly else ())[:5]:
        where = segment.lead or "all leads"
        lines.append(f"  stands out {moment(segment.start_s)}-{moment(segment.end_s)} {where} {_score(segment.score)}")
    troubled = [(n, q) for n, q in result.quality.leads.items() if q.problems]
    lines += [f"  lead {name:<8} {quality.score:.2f}  {', '.join(quality.problems)}" for name, quality in troubled[:16]]
    if result.restored_leads:
        lines.append(f"  restored  {', '.join(result.restored_leads)} (generated, not measured)")
    lines += [f"  warning   {warning}" for warning in result.warnings]
    lines.append(f"  model     {model_words(result)}, AnyECG {result.anyecg_version}")
    lines.append(DISCLAIMER)
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """Return text with a question mark for what cannot be shown: control characters, a file name's broken bytes."""
    return "".join(c if c.isprintable() else "?" for c in text)


MOST_LINES = 8

WHOLE_TO_S = 0.01
"""What ends this near to the end of a recording is said of all of it: rates differ by a sample."""


def long_lines(result: Result) -> list[str]:
    """Return what a long recording comes to: usable time, burdens, and the stretches worth a look first."""
    overview = result.overview
    if overview is None:
        return []
    shares = [f"{clock(overview.usable_s)} usable"]
    named = (("AF", overview.af_burden_percent), ("V beats", overview.v_percent), ("S beats", overview.s_percent))
    shares += [f"{name} {value:.1f} %" for name, value in named if value is not None]
    looks = [f"  look at   {moment(s.start_s)}-{moment(s.end_s)} {', '.join(s.reasons)}" for s in overview.strips[:5]]
    return [f"  overview  {', '.join(shares)}", *looks]


def finding_lines(result: Result) -> list[str]:
    """Return a line for each label and episode that is present, the most probable first; or that none can be judged."""
    if result.findings and all(finding.present is None for finding in result.findings):
        return ["  found     not assessable: the quality does not allow it"]
    present = sorted((f for f in result.findings if f.present), key=lambda f: -(f.score or 0.0))
    lines = [
        f"  found     {f.name or f.code} {_score(f.score)}{_when(f, result)}".rstrip() for f in present[:MOST_LINES]
    ]
    if len(present) > MOST_LINES:
        lines.append(f"  found     and {len(present) - MOST_LINES} more")
    return lines


def _when(finding: Finding, result: Result) -> str:
    if finding.start_s <= 0 and finding.end_s >= result.duration_s - WHOLE_TO_S:
        return ""
    return f" {moment(finding.start_s)}-{moment(finding.end_s)}"


def sparkline(result: Result, lead: str, seconds: float = 5.0, width: int = 60) -> str:
    """Return a lead's largest deflections as a row of block characters."""
    signal = result.prepared.signal[result.prepared.leads.index(lead), : round(seconds * result.prepared.fs)]
    columns = []
    for piece in np.array_split(signal, min(width, max(len(signal), 1))):
        known = piece[np.isfinite(piece)]
        columns.append(float(known[np.abs(known).argmax()]) if len(known) else np.nan)
    values = np.array(columns)
    if not np.isfinite(values).any():
        return "not recorded"
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    steps = (values - low) / max(high - low, LEAST_SPAN_MV) * (len(_BARS) - 1)
    return "".join(_BARS[round(s)] if np.isfinite(s) else " " for s in steps.tolist())


def patient(result: Result) -> str:
    """Return age and sex, as far as they are known."""
    age = None if result.record.age is None else f"{result.record.age:g} years"
    return ", ".join(part for part in (age, result.record.sex) if part)


def ms(value: float | None) -> str:
    """Return a time in whole milliseconds."""
    return "n/a" if value is None else f"{value:.0f} ms"


def rhythm_words(result: Result) -> str:
    """Return heart rate and beats in one line."""
    rhythm = result.rhythm
    n_beats = len(rhythm.r_peaks_s)
    if n_beats == 0:
        return "no beats found"
    rate = "" if rhythm.hr_bpm is None else f"{rhythm.hr_bpm:.0f} bpm, "
    return f"{rate}{n_beats} {'beat' if n_beats == 1 else 'beats'}, found in {rhythm.lead}"


def quality_words(result: Result) -> str:
    """Return the verdict on quality in one line."""
    leads = result.quality.leads
    clean = sum(not lead.problems for lead in leads.values())
    verdict = "usable" if result.quality.usable else "NOT usable"
    return f"{verdict}: {clean} of {len(leads)} {'lead' if len(leads) == 1 else 'leads'} without a problem"


def anomaly_words(result: Result) -> str:
    """Say in one sentence where the record lies among normal ones."""
    if result.anomaly is None:
        return "not scored: the quality does not allow it"
    return (
        f"stands out more than {percent(result.anomaly.percentile)} of normal records "
        f"(score {result.anomaly.score:.2f}); how unusual it is, not a diagnosis"
    )


def percent(percentile: float) -> str:
    """Return a percentile in whole percent; never 100 %: the normal records are a sample."""
    return f"{min(int(percentile), 99)} %"


def cut(result: Result) -> str:
    """Say where in the source a slice begins; empty for a record that was read from its start."""
    start_s = result.record.start_s
    return f"cut from {moment(start_s)} of the source on, times count from there" if start_s > 0 else ""


def model_words(result: Result) -> str:
    """Return the model's name, version and the head of its hash."""
    model = result.model
    parts = [str(model.get("name", "unnamed model")), str(model.get("version", "") or "")]
    sha = str(model.get("sha256", "") or "")[:8]
    return " ".join(part for part in parts if part) + (f" (sha {sha})" if sha else "")


def ordered_leads(result: Result) -> list[str]:
    """Return the lead names in the order of display."""
    return [result.prepared.leads[i] for i in display_order(result.prepared.leads)]


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"
