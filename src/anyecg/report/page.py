"""The report as one self-contained HTML file: no script, no network, prints on A4 landscape."""

from html import escape
from typing import Any

from anyecg.report import paper, strips
from anyecg.report.findings import findings_section
from anyecg.report.layout import HALF_GAIN_ABOVE_MV, MM_PER_MV, MM_PER_S, WHOLE_UP_TO_S, Sheet, clock, moment, sheets
from anyecg.report.overview import overview_section
from anyecg.report.text import anomaly_words, cut, model_words, ms, ordered_leads, patient, percent, quality_words
from anyecg.result import DISCLAIMER, LeadQuality, Result
from anyecg.signals import Preparation

_STYLE = """
:root{color-scheme:light;--ink:#161616;--soft:#5c5c5c;--line:#d9d9d9;--accent:#8a1538}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px 20px;max-width:1120px;color:var(--ink);background:#fff;
 font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{border-bottom:3px solid var(--accent);padding-bottom:8px}
h1{font-size:24px;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:22px 0 6px;color:var(--accent)}
h3{font-size:14px;margin:12px 0 4px}
p{margin:4px 0 8px;max-width:95ch}
.facts{color:var(--soft);margin:2px 0;max-width:none}
.disclaimer{font-weight:600;color:#7a0b0b;background:#fdecec;border:1px solid #e9b5b5;padding:5px 10px;margin:8px 0;
 max-width:none}
.warnings{background:#fff7df;border:1px solid #e6c866;padding:6px 12px;margin:10px 0}
.warnings ul{margin:4px 0;padding-left:20px}
dl.summary{display:grid;grid-template-columns:repeat(6,1fr);gap:8px;margin:12px 0 0}
dl.summary div{border:1px solid var(--line);border-radius:6px;padding:6px 10px}
dt{font-size:12px;color:var(--soft)}
dd{margin:0;font-size:19px;font-weight:600;font-variant-numeric:tabular-nums}
dd small{font-size:12px;font-weight:400;color:var(--soft);display:block}
figure{margin:8px 0 12px}
.scroll{overflow-x:auto}
figure svg{display:block;flex:none;max-width:none}
figcaption{font-size:12px;color:var(--soft);margin-top:3px;max-width:110ch}
svg text{font-family:"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:2px 14px 2px 0;border-bottom:1px solid var(--line);font-size:13px;vertical-align:top}
details{margin:6px 0}summary{cursor:pointer;font-weight:600}
.guide{columns:2;column-gap:32px}.guide div{break-inside:avoid}
.pair{display:grid;grid-template-columns:auto 1fr;gap:0 48px;align-items:start}
.bar{display:inline-block;width:90px;height:9px;background:#eee;border:1px solid #ccc;margin-right:6px}
.bar i{display:block;height:100%;background:#2f7d4f}
.bar.mid i{background:#d19a1c}.bar.low i{background:#b91c1c}
.key{display:inline-block;width:18px;height:0;border-top:3px solid;vertical-align:middle;margin:0 4px 0 10px}
footer{margin-top:18px;border-top:1px solid var(--line);padding-top:8px;color:var(--soft);font-size:12px;
 overflow-wrap:anywhere}
.pair section{min-width:0;overflow-x:auto}
@media screen and (max-width:760px){dl.summary{grid-template-columns:repeat(2,1fr)}
 .pair,.guide{display:block;columns:1}}
@page{size:A4 landscape;margin:10mm}
@media print{
 body{padding:0;max-width:none;font-size:10.5px;line-height:1.3;-webkit-print-color-adjust:exact;print-color-adjust:exact}
 h1{font-size:16px}h2{font-size:13px;margin:4px 0 2px;break-after:avoid}h3{font-size:11px;margin:6px 0 2px}
 header{padding-bottom:2px}header .facts{font-size:10px}
 .warnings{padding:2px 8px;margin:4px 0;font-size:10px}.warnings ul,.warnings li{display:inline;padding:0 0 0 6px}
 .warnings li+li::before{content:" · "}
 main>.facts{font-size:10px;margin:2px 0}.disclaimer{padding:1px 8px;margin:3px 0}
 figcaption,p{max-width:none}figcaption{font-size:10px}
 dl.summary{margin-top:4px}dl.summary div{padding:1px 8px}dd{font-size:13px}dd small,dt{font-size:9px}
 figure,tr,.warnings,.keep{break-inside:avoid}
 figure{margin:3px 0}.scroll{overflow:visible}
 footer{margin-top:6px;padding-top:3px;font-size:9px}th,td{font-size:10.5px}
 .newpage{break-before:page}
}
"""


OPEN_EXCERPTS = 3


def render(result: Result) -> str:
    """Return the whole page."""
    r, kept = strips.correlations(result), bool(result.prepared.n_samples)
    title = escape(f"ECG report: {result.record.id}")
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        # nothing may be fetched, whatever a file's texts try to smuggle in
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        _header(result),
        "<main>",
        _summary(result),
        _warnings(result),
        findings_section(result),
        *([_paper(result), overview_section(result), _codes(result, r)] if kept else [overview_section(result)]),
        excerpts_section(result),
        _surprise(result),
        '<div class="pair keep">',
        _quality(result, r),
        _anomaly(result),
        "</div>",
        _guide(result),
        "</main>",
        _footer(result),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _header(result: Result) -> str:
    record = result.record
    when = record.start_time.strftime("%Y-%m-%d %H:%M:%S") if record.start_time else "no date in the file"
    facts = [
        when,
        patient(result) or "age and sex not in the file",
        f"{clock(result.duration_s)} ({result.duration_s:.1f} s)",
        *([cut(result)] if cut(result) else []),
        f"{record.n_leads} {'lead' if record.n_leads == 1 else 'leads'}",
        f"{record.format}, {record.fs:g} Hz",
        f"model {model_words(result)}",
    ]
    return (
        f"<header><h1>{escape(record.id)}</h1>"
        f'<p class="facts">{" · ".join(escape(fact) for fact in facts)}</p></header>'
        f'<p class="disclaimer">{escape(DISCLAIMER)}</p>'
    )


def _summary(result: Result) -> str:
    rhythm = result.rhythm
    rate = "n/a" if rhythm.hr_bpm is None else f"{rhythm.hr_bpm:.0f} bpm"
    found = f"found in {rhythm.lead}" if rhythm.lead else "no beat was found"
    verdict, share = quality_words(result).split(": ", 1)
    percentile = "not scored" if result.anomaly is None else percent(result.anomaly.percentile)
    meaning = "quality does not allow it" if result.anomaly is None else "of normal records stand out less"
    boxes = [
        ("Heart rate", rate, "median of RR"),
        ("Beats", str(len(rhythm.r_peaks_s)), found),
        ("RR mean", ms(rhythm.rr_mean_ms), "plausible intervals only"),
        ("SDNN / RMSSD", f"{ms(rhythm.sdnn_ms).removesuffix(' ms')} / {ms(rhythm.rmssd_ms)}", "spread of RR"),
        ("Quality", verdict, share),
        ("Anomaly percentile", percentile, meaning),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in boxes
    )
    return f'<dl class="summary">{cells}</dl><p class="facts">Anomaly: this record {escape(_sentence(result))}.</p>'


def _sentence(result: Result) -> str:
    words = anomaly_words(result)
    return "was " + words if result.anomaly is None else words


def _warnings(result: Result) -> str:
    warnings = list(dict.fromkeys((*result.record.warnings, *result.warnings)))
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings" role="note"><strong>Warnings</strong><ul>{items}</ul></div>'


def _paper(result: Result) -> str:
    return "<section><h2>Electrocardiogram</h2>" + paper_figures(result, "paper") + "</section>"


def paper_figures(result: Result, key: str, from_s: float | None = None) -> str:
    """Return every sheet of a result; ``key`` tells its drawings from others of the page."""
    figures = []
    for number, sheet in enumerate(sheets(result, from_s)):
        caption = f"{sheet.title} · {_scale(sheet)} · {_filter_words(result)}"
        figures.append(
            f'<figure><div class="scroll">{paper.draw(result, sheet, f"{key}-{number}")}</div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "".join(figures)


def excerpts_section(result: Result) -> str:
    """Return the strips of a long recording, a fold each; the first ones are open."""
    if not result.excerpts:
        return ""
    folds = []
    for number, excerpt in enumerate(result.excerpts):
        start_s = excerpt.record.start_s - result.record.start_s
        reasons = list(dict.fromkeys(f.name or f.code for f in excerpt.findings))
        reasons += ["anomaly"] if excerpt.anomaly and excerpt.anomaly.segments else []
        folds.append(
            f"<details{' open' * (number < OPEN_EXCERPTS)}><summary>{moment(start_s)} to "
            f"{moment(start_s + excerpt.duration_s)}: {escape(', '.join(reasons) or 'the start')}</summary>"
            f"{paper_figures(excerpt, f'strip-{number}', start_s)}</details>"
        )
    return f"<section><h2>Strips worth a look</h2>{''.join(folds)}</section>"


def _scale(sheet: Sheet) -> str:
    half = f" (half gain: the leads are over {HALF_GAIN_ABOVE_MV:g} mV tall)" if _is_half(sheet) else ""
    return f"{MM_PER_S:g} mm/s · {paper.scale_words(sheet)}{half}"


def _is_half(sheet: Sheet) -> bool:
    return sheet.calibrated and sheet.mm_per_mv < MM_PER_MV


def _filter_words(result: Result) -> str:
    default = Preparation()
    low = result.model.get("low_hz", default.low_hz)
    high = result.model.get("high_hz", default.high_hz)
    return f"filtered {low:g} to {high:g} Hz, zero-phase; mains hum removed where found; {result.prepared.fs:g} Hz"


def _codes(result: Result, r: dict[str, float | None]) -> str:
    figures = "".join(
        f'<figure class="codes-figure"><div class="scroll">{svg}</div></figure>'
        for svg in strips.code_figures(result, r)
    )
    grid = result.tokens.grid
    measured = f'<span class="key" style="color:{strips.MEASURED}"></span>measured'
    decoded = f'<span class="key" style="color:{strips.DECODED}"></span>decoded from the codes'
    return (
        '<section class="newpage"><h2>Rhythm codes</h2>'
        f"<p>{measured} {decoded}. Below each trace: the code of every {grid.fragment_s:g} s (the number is its first "
        f"of {result.tokens.n_levels} levels; hover for all), and how surprising the model finds it. "
        f"r is Pearson's correlation of decoded with measured over the whole lead.</p>{figures}</section>"
    )


def _surprise(result: Result) -> str:
    trend = " and heart rate" if result.duration_s >= strips.HEART_RATE_FROM_S else ""
    return (
        f'<section class="keep"><h2>Surprise{trend} over the whole recording</h2>'
        f'<figure><div class="scroll">{strips.surprise_map(result)}</div></figure></section>'
    )


def _quality(result: Result, r: dict[str, float | None]) -> str:
    rows = []
    for name in ordered_leads(result):
        quality = result.quality.leads.get(name, LeadQuality(0.0, ("not assessed",)))
        colour = "" if quality.score >= 0.7 else " mid" if quality.score >= 0.3 else " low"
        bar = f'<span class="bar{colour}"><i style="width:{100 * quality.score:.0f}%"></i></span>{quality.score:.2f}'
        problems = ", ".join(quality.problems) or "none"
        agreement = "n/a" if r[name] is None else f"{r[name]:.3f}"
        origin = _origin(result, name)
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th><td>{bar}</td><td>{escape(problems)}</td>'
            f"<td>{agreement}</td><td>{origin}</td></tr>"
        )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("Lead", "Score", "Problems", "r of decoding", "Origin"))
    return (
        '<section class="keep"><h2>Quality of each lead</h2>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _origin(result: Result, name: str) -> str:
    if name in result.restored_leads or name in result.prepared.restored:
        return "restored by the model"
    return "derived from other leads" if name in result.prepared.derived else "measured"


def _anomaly(result: Result) -> str:
    parts = [f'<section class="keep"><h2>Anomaly</h2><p>This record {escape(_sentence(result))}.</p>']
    if result.anomaly and result.anomaly.segments:
        ranked = sorted(result.anomaly.segments, key=lambda a: -(a.score or 0.0))[:20]
        rows = "".join(
            f"<tr><td>{moment(s.start_s)} to {moment(s.end_s)}</td><td>{escape(s.lead or 'all leads')}</td>"
            f"<td>{_number(s.score)}</td></tr>"
            for s in ranked
        )
        more = len(result.anomaly.segments) - len(ranked)
        note = f"<p>and {more} more of lower score</p>" if more > 0 else ""
        parts.append(
            '<table><thead><tr><th scope="col">Stretch</th><th scope="col">Lead</th><th scope="col">Score</th></tr>'
            f"</thead><tbody>{rows}</tbody></table>{note}"
        )
    elif result.anomaly:
        parts.append("<p>No single stretch stands out.</p>")
    return "".join(parts) + "</section>"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _guide(result: Result) -> str:
    levels, size = result.tokens.n_levels, result.tokens.codebook_size
    numbers = "number" if levels == 1 else "numbers"
    guide = [
        (
            "ECG paper",
            "A small square is 1 mm: 0.04 s across and, at 10 mm/mV, 0.1 mV up. The step at the left of a row is 1 mV "
            "for 0.2 s. Printed at 100 %, the squares can be measured with a ruler. Red marks above the rhythm strip "
            "are the beats found, with the RR interval in ms between them and a letter above beats that are not normal "
            "(S supraventricular, V ventricular, F fusion, Q unclassifiable); a bar is a rhythm episode. An amber "
            "background marks an anomalous "
            f"stretch. A recording of more than {WHOLE_UP_TO_S:g} s shows its start and the stretches that stand out "
            "most. A lead in blue was generated by the model, not measured; red triangles mark where a trace that "
            "would run into its neighbours was cut off.",
        ),
        (
            "Rhythm codes",
            f"The tokenizer describes every {result.tokens.grid.fragment_s:g} s of a lead by {levels} {numbers}, each "
            f"out of {size}. Equal colours are equal codes: a regular rhythm repeats colours, as far as beats fall "
            "alike into the fragments. A code has no meaning of its own.",
        ),
        (
            "Decoded over measured",
            "The orange line is what the codes alone still know of the signal. Where it leaves the dark line, the "
            "codes lost something: noise, or a shape seldom seen in training. Each lead has its own height, given by "
            "its scale bar.",
        ),
        (
            "Surprise",
            "The model guesses each hidden fragment from the others. Surprise, in bits, is how improbable it held the "
            "real one. Ectopic beats, artefacts and lead faults are all surprising; it says where to look, not what "
            "is wrong.",
        ),
        (
            "Quality",
            "Classical indices (kurtosis, band powers, flat lines, rails, wander, hum), 0 to 1. A lead near 0 should "
            "not be read, whatever the model makes of it.",
        ),
    ]
    items = "".join(f"<div><h3>{escape(name)}</h3><p>{escape(words)}</p></div>" for name, words in guide)
    return f'<section class="keep"><h2>How to read this</h2><div class="guide">{items}</div></section>'


def _footer(result: Result) -> str:
    model: dict[str, Any] = result.model
    trained = model.get("trained_on") or "not stated"
    if not isinstance(trained, str):
        trained = ", ".join(map(str, trained))
    facts = [
        f"AnyECG {result.anyecg_version}",
        f"model {model_words(result)}, sha256 {model.get('sha256', 'not stated')}",
        f"trained on {trained}",
        f"source {result.record.format}, {result.record.fs:g} Hz; seen by the model at {result.prepared.fs:g} Hz",
    ]
    return (
        f'<p class="disclaimer">{escape(DISCLAIMER)}</p><footer>{"<br>".join(escape(fact) for fact in facts)}</footer>'
    )
