"""The HTML page, without a browser: is everything in it, is nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from anyecg.report import page, strips, summary
from anyecg.report.ink import code_colour, heat_colour, path_data
from anyecg.result import DISCLAIMER, Finding, Rhythm

VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Collect the visible words and check that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.tags if name in (attrs.get("class") or "").split()]


@pytest.fixture(scope="module")
def html(twelve):
    return page.render(twelve)


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_the_facts_are_in_the_page(read, twelve):
    assert f"{twelve.rhythm.hr_bpm:.0f} bpm" in read.text
    for words in (
        *("synthetic", "2024-05-06 07:08:09", "61 years, female", "12 leads", "array, 500 Hz", "nano 0 (sha 01234567)"),
        *("Heart rate", "SDNN / RMSSD", "usable", "87 %", "a warning in plain words", "426783006"),
        *("25 mm/s", "10 mm/mV", "filtered 0.5 to 75 Hz", "trained on set one, set two", "AnyECG 0.0"),
    ):
        assert words in read.text
    assert read.text.count(DISCLAIMER) == 2


def test_sections_come_in_the_order_of_reading(read):
    sections = ("Electrocardiogram", "Rhythm codes", "Surprise over", "Quality of each", "Anomaly ", "How to read")
    places = [read.text.rindex(words) if words == "Anomaly " else read.text.index(words) for words in sections]
    assert places[:4] == sorted(places[:4]) and places[5] > places[3]


def test_every_lead_has_a_trace_of_true_length(read):
    traces = read.of_class("trace")
    assert {trace["data-lead"] for trace in traces} == {
        *("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    }
    for trace in traces:
        start, steps = re.match(r"M(\d+) \d+l(.*)", trace["d"]).groups()
        numbers = np.array(re.findall(r"-?\d+", steps), dtype=int).reshape(-1, 2)
        assert numbers[:, 0].sum() / 100 == pytest.approx(25 * float(trace["data-seconds"]), abs=0.15)
        assert int(start) >= 2000


def test_pulse_is_one_millivolt_for_a_fifth_of_a_second(read):
    pulses = read.of_class("pulse")
    assert len(pulses) == 4
    assert all(re.search(r"v-10h5v10", pulse["d"]) for pulse in pulses)


def test_svg_units_are_millimetres(read):
    drawings = [attrs for tag, attrs in read.tags if tag == "svg" and "role" in attrs]
    assert len(drawings) == 4  # the paper, two code figures, the map
    for svg in drawings:
        width, height = svg["width"].removesuffix("mm"), svg["height"].removesuffix("mm")
        assert svg["viewbox"] == f"0 0 {width} {height}"
        assert svg["role"] == "img" and svg["aria-labelledby"]


def test_every_beat_is_marked(read, twelve):
    (beats,) = read.of_class("beats")
    assert beats["d"].count("M") == len(twelve.rhythm.r_peaks_s)


def test_every_fragment_has_its_codes_and_surprise(read, twelve):
    titles = [words for words in read.words if ": codes " in words]
    assert len(titles) == twelve.tokens.valid.sum()
    first = " ".join(map(str, twelve.tokens.codes[0, 0].tolist()))
    assert titles[0] == f"0.00 s: codes {first}"
    assert sum(words.startswith("surprise ") for words in read.words) >= twelve.tokens.valid.size


def test_nothing_is_fetched_and_nothing_runs(html):
    assert "<script" not in html and "default-src 'none'" in html
    assert re.findall(r'(?:src|href)="(?!data:,")', html) == []
    assert "@import" not in html and "url(http" not in html


def test_texts_from_files_are_escaped(make):
    evil = '<script>alert("1")</script>'
    result = make((evil, "a\"b'c&<i>"), id=evil, warnings=(evil,))
    result = replace(
        result,
        warnings=(evil,),
        findings=(
            Finding(0, 1, evil, evil, evil, 0.5, evil, evil, 0.4, True, (evil,), evil),
            Finding(0, 1e9, evil, evil, evil, 0.3, evil, evil, 0.4, False, (evil,), evil),
            Finding(0, 1e9, evil, evil, None, 0.5, evil, evil, 0.4, True, (evil,), evil),
        ),
        model={"name": evil, "sha256": evil, "trained_on": evil},
        anyecg_version=evil,
    )
    html = page.render(result)
    assert "<script" not in html and "<i>" not in html.replace('<i style="width', "")
    assert Reader(html).text.count("<script>alert") >= 8  # as words


def test_findings_say_what_is_there_what_is_not_and_when(make):
    result = make(("I", "II", "V1"))
    text = Reader(page.render(result)).text
    assert "sinus rhythm" in text and "426783006" in text and "0.93 (threshold 0.50)" in text
    assert "Looked for and not found: right bundle branch block 0.02" in text
    assert "atrial fibrillation" in text and "2.0 s" in text
    assert "sinus rhythm 0.93" in summary(result) and "right bundle" not in summary(result)
    nothing = tuple(replace(f, present=None, score=None) for f in result.findings[:2])
    unclear = replace(result, findings=nothing)
    assert "Not assessable" in Reader(page.render(unclear)).text and "not assessable" in summary(unclear)
    assert "Findings" not in Reader(page.render(replace(result, findings=()))).text


def test_the_overview_counts_beats_lists_strips_and_hours(make):
    short = Reader(page.render(make(("I", "II"))))
    assert "1 ventricular (V)" in short.text and "supraventricular ones poorly" in short.text
    assert "Hour by hour" not in short.text  # ten seconds
    long = Reader(page.render(make(("II",), duration_s=150.0)))
    for words in ("Hour by hour", "Worth a look first", "atrial fibrillation 1.3 % of the usable time", "2.0 s"):
        assert words in long.text, words
    assert [t for t in short.of_class("beat")] and [t for t in short.of_class("episode")]
    assert "Overview" not in Reader(page.render(replace(make(("I",)), overview=None))).text


def test_restored_and_derived_leads_are_marked(twelve):
    assert "III (derived)" in Reader(page.render(twelve)).text
    words = Reader(page.render(replace(twelve, restored_leads=("V6",))))
    assert "V6 (restored)" in words.text and "restored by the model" in words.text
    blue = [t for t in words.of_class("trace") if t["data-lead"] == "V6"]
    black = [t for t in words.of_class("trace") if t["data-lead"] == "V5"]
    assert blue[0]["stroke"] != black[0]["stroke"]


def test_a_lead_without_samples_is_said_to_be_missing(make):
    result = make(("I", "II"), missing=("I",))
    words = Reader(page.render(result)).text
    assert "I: not recorded" in words and "r = n/a" in words


def test_no_beats_no_anomaly_no_warnings_is_still_a_page(twelve):
    bare = replace(twelve, rhythm=Rhythm(np.empty(0)), anomaly=None, warnings=(), findings=())
    words = Reader(page.render(bare)).text
    assert "n/a" in words and "not scored" in words and "Warnings" not in words


def test_unknown_gain_draws_no_pulse(make):
    read = Reader(page.render(make(("II",), gain_known=False)))
    assert read.of_class("pulse") == []
    assert "not calibrated" in read.text


def test_long_recording(long_single):
    html = page.render(long_single)
    read = Reader(html)
    assert len(html) < 3e6
    assert "the stretches that stand out most" in read.text and "heart rate" in read.text


def test_size_of_ten_seconds(html):
    assert len(html) < 1.5e6


def test_correlation_is_pearsons(twelve):
    r = strips.correlations(twelve)
    expected = np.corrcoef(twelve.prepared.signal[1], twelve.decoded.signal[1])[0, 1]
    assert r["II"] == pytest.approx(expected, abs=1e-6)
    flat = twelve.decoded.with_(signal=np.zeros_like(twelve.decoded.signal))
    assert strips.correlations(replace(twelve, decoded=flat))["II"] is None


def test_surprise_map_keeps_the_largest_of_what_it_joins():
    surprise = np.zeros((1, 5000), np.float32)
    surprise[0, 4321] = 9.0
    pooled = strips._pooled(surprise, 600)
    assert pooled.shape[1] <= 600 and pooled.max() == 9.0
    assert np.isnan(strips._pooled(np.full((1, 10), np.nan), 600)).all()


def test_path_data_rounds_before_it_steps():
    line = np.column_stack([np.arange(1000) / 3, np.zeros(1000)])
    steps = np.array(path_data([line]).split("l")[1].split(" "), dtype=int)[::2]
    assert steps.sum() == 33300


def test_colours():
    assert code_colour(5) == code_colour(5)
    assert len({code_colour(code) for code in range(256)}) > 240
    assert (heat_colour(0.0), heat_colour(1.0), heat_colour(7.0)) == ("#440154", "#fde725", "#fde725")
