"""The codebook as one self-contained HTML page: what each first-level rhythm code looks like and when it is used.

The page sees only an `Atlas`: numbers that somebody else counted (`anyecg.training.meaning`). It needs no network,
prints on A4 landscape, and its one script only sorts and filters: without it everything is still there.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from anyecg import __version__
from anyecg.report.ink import DECODED, INK, MUTED, figure, path_data, text
from anyecg.result import DISCLAIMER

LEAST_FRAGMENTS = 30
"""A share or ratio of fewer fragments is not shown: the standard error of a share of 25 % would exceed 8 %."""

LEAST_FOR_KIND = 10
"""A code is coloured after a wave from so many fragments on: which of four is most frequent needs fewer."""

KINDS = ("P", "QRS", "T", "none")
KIND_COLOURS = {"P": "#0072b2", "QRS": "#d55e00", "T": "#009e73", "none": "#8c8c8c", "unknown": "#c9b8d9"}
"""Of Okabe and Ito's palette, which the colour-blind can tell apart."""

WAVE_MM = (60.0, 22.0)
MAP_MM = (260.0, 150.0)
LEAST_RANGE = 2.0
"""A waveform flatter than this, in RMS, is not drawn any taller: noise should not look like waves."""


@dataclass(frozen=True, eq=False)
class Tally:
    """How often fragments of each of V codes carry each label of one family.

    Parameters
    ----------
    title, about : str
        The family's name; whose labels they are.
    labels : tuple of str
    counts : ndarray of int, shape (V, n_labels)
        Fragments of a code that carry a label. A fragment may carry none or several.
    known : ndarray of int, shape (V,)
        Fragments of a code whose labels are known.
    patients : ndarray of int, shape (V,)
        Patients those fragments come from.
    as_ratio : bool
        Show the share among a code's fragments divided by that among all (enrichment), not the share itself.
    """

    title: str
    about: str
    labels: tuple[str, ...]
    counts: np.ndarray
    known: np.ndarray
    patients: np.ndarray
    as_ratio: bool = True

    @cached_property
    def values(self) -> np.ndarray:
        """Ratios, or shares, (V, n_labels); NaN where a code has under `LEAST_FRAGMENTS` known fragments."""
        share = self.counts / np.maximum(self.known, 1)[:, None]
        enough = (self.known >= LEAST_FRAGMENTS)[:, None]
        if not self.as_ratio:
            return np.where(enough, share, np.nan)
        overall = self.overall()
        return np.where(enough & (overall > 0), share / np.where(overall > 0, overall, 1), np.nan)

    def overall(self) -> np.ndarray:
        """Return each label's share among all fragments whose labels are known (n_labels,)."""
        return self.counts.sum(axis=0) / max(int(self.known.sum()), 1)


@dataclass(frozen=True, eq=False)
class Atlas:
    """What is known of the V codes of a codebook's first level.

    Waveforms are in units of the block's scale (its RMS), shape (V, S).

    Parameters
    ----------
    model : dict
        As ``Model.describe`` returns it.
    fragment_s : float
    n_levels : int
    counts : ndarray of int, shape (V,), or None
        Fragments looked at that got each code; None = no data were looked at.
    decoded : ndarray
        What the decoder makes of the code, residual levels left out.
    typical : ndarray or None
        Median of the measured fragments.
    low, high : ndarray
        10th and 90th percentile: of the measured fragments, or, without data, of decoding in different leads.
    bands_hz : tuple of (float, float)
        Edges of the wavelet bands.
    bands : ndarray, shape (V, n_bands)
        Share of the energy in each band.
    place : ndarray, shape (V, 2)
        Where the code lies on the map.
    kind : ndarray of int, shape (V,)
        The wave most often met, counted in `KINDS`; -1 = unknown.
    tallies : tuple of Tally
    sources : tuple of str
        The databases looked at, with how much of each.
    """

    model: dict[str, Any]
    fragment_s: float
    n_levels: int
    counts: np.ndarray | None
    decoded: np.ndarray
    typical: np.ndarray | None
    low: np.ndarray
    high: np.ndarray
    bands_hz: tuple[tuple[float, float], ...]
    bands: np.ndarray
    place: np.ndarray
    kind: np.ndarray
    tallies: tuple[Tally, ...] = ()
    sources: tuple[str, ...] = ()

    def in_order(self) -> list[int]:
        """Return the codes in use, the most used first; without data all, by number."""
        if self.counts is None:
            return list(range(len(self.decoded)))
        order = np.argsort(-self.counts, kind="stable")
        return order[self.counts[order] > 0].tolist()

    def kind_of(self, code: int) -> str:
        """Return the name of the wave a code is most often met with."""
        return KINDS[self.kind[code]] if self.kind[code] >= 0 else "unknown"


_STYLE = """
:root{color-scheme:light;--ink:#161616;--soft:#5c5c5c;--line:#d9d9d9;--accent:#8a1538}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px 20px;max-width:1180px;color:var(--ink);background:#fff;
 font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{border-bottom:3px solid var(--accent);padding-bottom:8px}
h1{font-size:24px;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:22px 0 6px;color:var(--accent)}
h3{font-size:14px;margin:0}
p{margin:4px 0 8px;max-width:105ch}
.facts,figcaption,footer{color:var(--soft);font-size:12px;overflow-wrap:anywhere}
.disclaimer{font-weight:600;color:#7a0b0b;background:#fdecec;border:1px solid #e9b5b5;padding:5px 10px;margin:8px 0;
 max-width:none}
figure{margin:8px 0}.scroll{overflow-x:auto}svg{display:block;max-width:100%}
svg text{font-family:"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
.key{display:inline-block;width:11px;height:11px;border-radius:50%;vertical-align:-1px;margin:0 4px 0 12px}
form[hidden]{display:none}
form{display:flex;flex-wrap:wrap;gap:8px 18px;align-items:center;padding:8px 10px;background:#f6f6f6;
 border:1px solid var(--line);position:sticky;top:0;z-index:1}
form input{width:7em}
#cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:10px;margin:10px 0}
.code{border:1px solid var(--line);border-left:5px solid;border-radius:4px;padding:6px 8px;break-inside:avoid}
.code{scroll-margin-top:64px}
.code[hidden]{display:none}.code svg{width:100%;height:auto}
.code:target{background:#fffbe8}
.code h3 small{font-weight:400;color:var(--soft);float:right}
table{border-collapse:collapse;width:100%;font-size:11px;font-variant-numeric:tabular-nums;table-layout:fixed}
th{font-weight:400;text-align:left;color:var(--soft);width:88px;padding:1px 2px;vertical-align:top}
td{text-align:center;padding:1px;border:1px solid #fff;line-height:1.2}
td small{display:block;color:#444;font-size:9px}
footer{margin-top:18px;border-top:1px solid var(--line);padding-top:8px}
@page{size:A4 landscape;margin:10mm}
@media print{body{padding:0;max-width:none;font-size:10.5px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
 form{display:none}#cards{grid-template-columns:repeat(3,1fr);gap:6px}h1{font-size:16px}h2{break-after:avoid}
 figure{break-inside:avoid}}
"""

_SCRIPT = """
"use strict";
const cards=document.getElementById("cards"),all=[...cards.children],form=document.querySelector("form");
const values=new Map(all.map(card=>[card,JSON.parse(card.dataset.values)]));
function show(){
 const key=Number(form.sort.value),up=form.order.value==="up",kind=form.kind.value;
 const least=Number(form.least.value)||0,wanted=form.code.value.trim();
 const rank=card=>values.get(card)[key];
 const sorted=[...all].sort((a,b)=>{const x=rank(a),y=rank(b);
  if(x===null||y===null)return (x===null)-(y===null);return up?x-y:y-x;});
 let shown=0;
 for(const card of sorted){
  card.hidden=(kind!==""&&card.dataset.kind!==kind)||Number(card.dataset.n)<least||
   (wanted!==""&&card.dataset.code!==wanted);
  shown+=!card.hidden;
 }
 cards.replaceChildren(...sorted);
 document.getElementById("shown").textContent=shown+" of "+all.length+" codes";
}
form.addEventListener("input",show);form.addEventListener("submit",event=>event.preventDefault());
form.addEventListener("reset",()=>setTimeout(show));form.hidden=false;show();
"""


def render(atlas: Atlas) -> str:
    """Return the whole page."""
    script_hash = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    codes = atlas.in_order()
    title = escape(f"Codebook of {atlas.model.get('name', 'a model')}")
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            # nothing may be fetched, and no script runs but the one below
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            f"img-src data:; script-src 'sha256-{script_hash}'\">",
            '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            _header(atlas, codes),
            "<main>",
            _guide(atlas),
            _map(atlas, codes),
            "<section><h2>Codes</h2>",
            _form(atlas),
            '<div id="cards">',
            *(_card(atlas, code) for code in codes),
            "</div></section></main>",
            _footer(atlas),
            f"<script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def _header(atlas: Atlas, codes: list[int]) -> str:
    model = atlas.model
    facts = [f"first of {atlas.n_levels} levels, {len(atlas.decoded)} codes, {atlas.fragment_s:g} s each"]
    if atlas.counts is not None:
        facts += [f"{len(codes)} in use in {int(atlas.counts.sum()):,} fragments looked at"]
    facts += [f"weights {model.get('version', '')}", f"sha256 {str(model.get('sha256', 'not stated'))[:12]}"]
    return (
        f"<header><h1>Codebook of {escape(str(model.get('name', 'a model')))}</h1>"
        f'<p class="facts">{" · ".join(escape(fact) for fact in facts)}</p></header>'
        f'<p class="disclaimer">{escape(DISCLAIMER)}</p>'
    )


def _guide(atlas: Atlas) -> str:
    words = [
        "A rhythm code stands for a stretch of one lead, as the tokenizer heard it amid the seconds around it. A code "
        "has no meaning of its own: below is what it was found to go with. Amplitudes are in units of the signal's RMS "
        "in its block.",
    ]
    key = f'<span class="key" style="background:{DECODED}"></span>'
    if atlas.typical is None:
        words.append(
            f"{key}<b>Decoded alone</b>: the code in the middle of an otherwise unrecorded block, residual levels left "
            "out; median over the leads the model has a name for, grey from the 10th to the 90th percentile. Wavelet "
            "bands are those of this waveform. Without recordings nothing can be said about use, waves, rhythm or "
            "diagnosis: give the databases with --data."
        )
    else:
        words += [
            f'<span class="key" style="background:{INK}"></span><b>Measured</b>: the median of the real fragments that '
            "got the code, grey from their 10th to their 90th percentile. "
            f"{key}<b>Decoded in context</b>: what the decoder makes of the same fragments when every code of their "
            "block keeps its first level only; again the median. Where orange leaves black, the residual levels carry "
            "the rest.",
            "<b>All counts come from train records</b>, which the model has seen: this page explains the model, it "
            "claims no performance. Performance on test patients: <code>anyecg evaluate meaning</code>.",
            "<b>x ratios</b> are enrichment: the label's share among the code's fragments, divided by its share among "
            "all fragments of the same database; 1 is no relation. Below a ratio or a share: how many of the code's "
            "fragments carry the label; below a family's name: the code's fragments / the patients they come from. "
            f"Nothing is shown for codes with under {LEAST_FRAGMENTS} fragments in a family. Fragments of one patient "
            "are not independent: a ratio from few patients may be theirs alone. Rhythm, diagnosis, sex and age are "
            "those of the whole record, so a single fragment need not show them.",
            "<b>Waves</b>: share of fragments that a marked wave reaches into; beat = the peak of a QRS lies inside. A "
            f"code's colour is the wave that most often overlaps its fragments most; unknown below {LEAST_FOR_KIND} "
            "fragments with marks.",
            "<b>Use</b> is the share among the fragments looked at, a mixture of databases that is listed at the foot; "
            "another mixture gives other shares.",
        ]
    return "<section><h2>How to read this</h2>" + "".join(f"<p>{w}</p>" for w in words) + "</section>"


def _map(atlas: Atlas, codes: list[int]) -> str:
    width, height = MAP_MM
    margin = 5.0
    place = atlas.place[codes]
    span = np.maximum(np.ptp(place, axis=0), 1e-9)
    at = margin + (place - place.min(axis=0)) / span * (np.array(MAP_MM) - 2 * margin)
    counts = np.ones(len(atlas.decoded)) if atlas.counts is None else atlas.counts
    largest_mm = 3.0 * min(1.0, (256 / max(len(codes), 1)) ** 0.5)  # the more discs, the smaller
    radius = largest_mm * (0.25 + 0.75 * np.sqrt(counts[codes] / counts[codes].max()))
    body = [f'<rect width="{width:g}" height="{height:g}" fill="#fbfbfb" stroke="#d9d9d9" stroke-width=".2"/>']
    for code, (x, y), r in zip(codes, at, radius, strict=True):
        kind = atlas.kind_of(code)
        note = f"code {code}: {kind}" + ("" if atlas.counts is None else f", {int(atlas.counts[code]):,} fragments")
        body.append(
            f'<a href="#code-{code}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.2f}" fill="{KIND_COLOURS[kind]}" '
            f'fill-opacity=".75"><title>{escape(note)}</title></circle></a>'
        )
        if r > 1.4:
            body.append(text(x, y + 0.6, str(code), 1.7, INK, ' text-anchor="middle" pointer-events="none"'))
    drawn = figure(
        width, height, "Map of the codes", "One disc a code; similar codes lie near each other.", body, "map"
    )
    kinds = [k for k in (*KINDS, "unknown") if any(atlas.kind_of(code) == k for code in codes)]
    keys = "".join(f'<span class="key" style="background:{KIND_COLOURS[k]}"></span>{k}' for k in kinds)
    size = "" if atlas.counts is None else " The area of a disc grows with use."
    return (
        f'<section><h2>Map</h2><figure><div class="scroll">{drawn}</div><figcaption>{keys}<br>t-SNE of the code '
        "vectors (cosine distance): neighbours are alike, far distances and the axes mean nothing."
        f"{size} A disc leads to its code.</figcaption></figure></section>"
    )


def _keys(atlas: Atlas) -> list[str]:
    """Return the names of what cards can be sorted by, in the order of `_sort_values`."""
    bands = [f"wavelet energy {_band(band)}" for band in atlas.bands_hz]
    return ["use", "code", *bands, *(f"{tally.title}: {label}" for tally in atlas.tallies for label in tally.labels)]


def _sort_values(atlas: Atlas, code: int) -> list[float | None]:
    use = 0.0 if atlas.counts is None else float(atlas.counts[code])
    values = [use, float(code), *atlas.bands[code].tolist()]
    for tally in atlas.tallies:
        values += tally.values[code].tolist()
    return [round(v, 4) if np.isfinite(v) else None for v in values]


def _form(atlas: Atlas) -> str:
    first = 1 if atlas.counts is None else 0
    options = "".join(
        f'<option value="{k}"{" selected" if k == first else ""}>{escape(name)}</option>'
        for k, name in enumerate(_keys(atlas))
        if k or atlas.counts is not None
    )
    order = "".join(
        f'<option value="{value}"{" selected" if (value == "up") == (atlas.counts is None) else ""}>{words}</option>'
        for value, words in (("down", "largest first"), ("up", "smallest first"))
    )
    kinds = "".join(f'<option value="{k}">{k}</option>' for k in KINDS)
    return (
        f'<form hidden><label>sort by <select name="sort">{options}</select></label> '
        f'<select name="order" aria-label="order">{order}</select>'
        f'<label>wave <select name="kind"><option value="">any</option>{kinds}</select></label>'
        '<label>at least <input name="least" type="number" min="0" value="0"> fragments</label>'
        '<label>code <input name="code" type="number" min="0"></label>'
        '<button type="reset">reset</button><span id="shown"></span></form>'
    )


def _card(atlas: Atlas, code: int) -> str:
    kind = atlas.kind_of(code)
    n = 0 if atlas.counts is None else int(atlas.counts[code])
    use = ""
    if atlas.counts is not None:
        use = f"<small>{_percent(n / max(int(atlas.counts.sum()), 1))} of fragments ({n:,})</small>"
    values = escape(json.dumps(_sort_values(atlas, code), separators=(",", ":")))
    rows = [_band_row(atlas, code), *(_tally_row(tally, code) for tally in atlas.tallies)]
    return (
        f'<article class="code" id="code-{code}" style="border-left-color:{KIND_COLOURS[kind]}" data-code="{code}" '
        f'data-kind="{kind}" data-n="{n}" data-values="{values}"><h3>{code} {use}</h3>{_waveform(atlas, code)}'
        + "".join(f"<table><tr>{row}</tr></table>" for row in rows if row)
        + "</article>"
    )


def _waveform(atlas: Atlas, code: int) -> str:
    width, height = WAVE_MM
    lines = {"decoded": atlas.decoded[code], "low": atlas.low[code], "high": atlas.high[code]}
    if atlas.typical is not None:
        lines["measured"] = atlas.typical[code]
    bottom, top = min(x.min() for x in lines.values()), max(x.max() for x in lines.values())
    middle, span = (top + bottom) / 2, max(top - bottom, LEAST_RANGE) * 1.08
    x = np.linspace(0, width, atlas.decoded.shape[1])

    def line(name: str) -> np.ndarray:
        return np.column_stack([x, height / 2 - (lines[name] - middle) / span * height])

    outline = np.concatenate([line("low"), line("high")[::-1]])
    zero_mm = height / 2 + middle / span * height
    body = [f'<g transform="scale(.01)"><path d="{path_data([outline])}z" fill="#dcdcdc"/>']
    for name, colour in (("measured", INK), ("decoded", DECODED)):
        if name in lines:
            body.append(
                f'<path class="{name}" d="{path_data([line(name)])}" fill="none" stroke="{colour}" stroke-width="30"/>'
            )
    body.append("</g>")
    if 0 < zero_mm < height:
        body.append(f'<path d="M0 {zero_mm:.2f}h{width:g}" stroke="{MUTED}" stroke-width=".1" stroke-dasharray="1"/>')
    bar_mm = height / span  # one RMS
    body.append(f'<path d="M{width - 0.5:g} {height - 0.5:g}v{-bar_mm:.2f}" stroke="{MUTED}" stroke-width=".4"/>')
    body.append(text(width - 1.2, height - 0.8, "1 RMS", 2.0, MUTED, ' text-anchor="end"'))
    note = f"{atlas.fragment_s:g} s, from {bottom:.1f} to {top:.1f} RMS"
    return figure(width, height, f"Waveform of code {code}", note, body, f"w{code}")


def _band_row(atlas: Atlas, code: int) -> str:
    cells = "".join(
        f'<td style="background:{_share_colour(share)}">{_percent(share)}<small>{_band(band)}</small></td>'
        for share, band in zip(atlas.bands[code].tolist(), atlas.bands_hz, strict=True)
    )
    return f"<th>Wavelet energy, Hz</th>{cells}"


def _tally_row(tally: Tally, code: int) -> str:
    known, patients = int(tally.known[code]), int(tally.patients[code])
    if known < LEAST_FRAGMENTS:
        return ""
    cells = []
    for label, value, n in zip(tally.labels, tally.values[code], tally.counts[code].tolist(), strict=True):
        if not np.isfinite(value):
            words, colour = "n/a", "#fff"
        elif tally.as_ratio:
            words, colour = f"x{value:.1f}" if value < 9.95 else f"x{value:.0f}", _ratio_colour(value)
        else:
            words, colour = _percent(value), _share_colour(value)
        cells.append(f'<td style="background:{colour}"><b>{escape(label)}</b> {words}<small>{n:,}</small></td>')
    about = f"{known:,} / {patients:,}"
    return f'<th title="{escape(tally.about)}">{escape(tally.title)}<br><small>{about}</small></th>{"".join(cells)}'


def _band(band: tuple[float, float]) -> str:
    return f"{band[0]:.3g}-{band[1]:.3g}"


def _percent(share: float) -> str:
    """Return a share in percent with two digits or so; a share of nothing without decimals."""
    digits = 0 if share >= 0.0995 or share == 0 else 1 if share >= 0.00995 else 2
    return f"{100 * share:.{digits}f} %"


def _share_colour(share: float) -> str:
    return f"rgb({round(255 - 75 * share)},{round(255 - 45 * share)},255)"


def _ratio_colour(ratio: float) -> str:
    """Return white for 1, deeper orange up to four times as often, deeper blue down to a quarter."""
    depth = float(np.clip(np.log2(max(ratio, 1e-6)) / 2, -1, 1))
    red, green, blue = (
        (255 + depth * 130, 255 + depth * 60, 255) if depth < 0 else (255, 255 - depth * 90, 255 - depth * 170)
    )
    return f"rgb({round(red)},{round(green)},{round(blue)})"


def _footer(atlas: Atlas) -> str:
    trained = atlas.model.get("trained_on") or "not stated"
    facts = [
        f"AnyECG {__version__}",
        f"model {atlas.model.get('name', '')} {atlas.model.get('version', '')}, "
        f"sha256 {atlas.model.get('sha256', 'not stated')}",
        f"trained on {trained if isinstance(trained, str) else ', '.join(map(str, trained))}",
        *(f"looked at: {source}" for source in atlas.sources),
        *(f"{tally.title}: {tally.about}; overall {_overall(tally)}" for tally in atlas.tallies),
    ]
    return (
        f'<p class="disclaimer">{escape(DISCLAIMER)}</p><footer>{"<br>".join(escape(fact) for fact in facts)}</footer>'
    )


def _overall(tally: Tally) -> str:
    shares = zip(tally.labels, tally.overall().tolist(), strict=True)
    return ", ".join(f"{label} {_percent(share)}" for label, share in shares)
