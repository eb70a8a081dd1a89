"""The atlas of a codebook as a page: is everything in it, in order, and is nothing shown that was hardly counted."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from anyecg.report.atlas import LEAST_FRAGMENTS, Atlas, Tally, render
from anyecg.result import DISCLAIMER

VOID = {"meta", "link", "br", "input"}


class Reader(HTMLParser):
    """Collect tags and words, and check that tags are closed in order."""

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
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def cards(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "article"]


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """Five codes: 3 is used most, 1 never; of two labels, code 0 has only the first, code 3 has both as all have."""
    wave = np.sin(np.linspace(0, 6, 150)) * np.arange(1, 6)[:, None]
    known = np.array([100, 0, 29, 200, 60])
    counts = np.array([[100, 0], [0, 0], [29, 0], [100, 100], [60, 0]])
    # of the labelled fragments 289 of 389 carry the first label
    return Atlas(
        model={"name": "made-up", "version": "1", "sha256": "ab" * 32, "trained_on": ["set one"]},
        fragment_s=0.5,
        n_levels=6,
        counts=np.array([100, 0, 40, 500, 60]),
        decoded=wave,
        typical=wave + 0.1,
        low=wave - 1,
        high=wave + 1,
        bands_hz=((0.0, 18.75), (18.75, 37.5)),
        bands=np.tile([0.9, 0.1], (5, 1)),
        place=np.arange(10.0).reshape(5, 2),
        kind=np.array([0, -1, -1, 1, 2]),
        tallies=(
            Tally("Rhythm", "of the record", ("N", "A"), counts, known, np.array([7, 0, 2, 9, 3])),
            Tally("Waves", "marked", ("beat",), known[:, None] // 2, known, np.ones(5, int), as_ratio=False),
        ),
        sources=("set one: 700 fragments",),
    )


@pytest.fixture(scope="module")
def html(atlas):
    return render(atlas)


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_codes_in_use_come_sorted_by_use(read):
    assert [card["data-code"] for card in read.cards] == ["3", "0", "4", "2"]
    assert "4 in use in 700 fragments" in read.text and "71 % of fragments (500)" in read.text


def test_enrichment_is_a_ratio_to_all_with_its_count(atlas, read):
    overall = 289 / 389
    np.testing.assert_allclose(atlas.tallies[0].values[0], [1 / overall, 0])
    np.testing.assert_allclose(atlas.tallies[0].values[3], [0.5 / overall, 0.5 / (1 - overall)])
    assert "N x0.7 100 A x1.9 100" in read.text
    np.testing.assert_allclose(atlas.tallies[1].values[[0, 3], 0], [0.5, 0.5])


def test_nothing_is_shown_below_thirty_fragments(atlas, read):
    assert LEAST_FRAGMENTS == 30
    assert np.isnan(atlas.tallies[0].values[2]).all()
    assert np.isfinite(atlas.tallies[0].values[4]).all()
    card = read.cards[3]
    assert card["data-code"] == "2"
    values = json.loads(card["data-values"])
    assert values[:4] == [40.0, 2.0, 0.9, 0.1] and values[4:] == [None, None, None]
    assert read.text.count("N x") == 3


def test_the_page_says_what_it_is(read):
    assert read.text.count(DISCLAIMER) == 2
    for words in ("train records", "claims no performance", "set one: 700 fragments", "first of 6 levels, 5 codes"):
        assert words in read.text


def test_every_card_has_its_waveforms(read):
    for name in ("measured", "decoded"):
        assert sum(attrs.get("class") == name for _, attrs in read.tags) == 4


def test_only_its_own_script_runs_and_nothing_is_fetched(html):
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "default-src 'none'" in html
    assert re.findall(r'(?:src|href)="(?!data:,"|#code-)', html) == []
    assert "url(http" not in html and "@import" not in html


def test_texts_are_escaped(atlas):
    evil = '<script>alert("1")</script>'
    tally = replace(atlas.tallies[0], title=evil, about=evil, labels=(evil, "b"))
    page = render(replace(atlas, model=dict.fromkeys(("name", "version", "trained_on"), evil), tallies=(tally,)))
    assert page.count("<script") == 1
    assert Reader(page).text.count("<script>alert") >= 6


def test_without_data_every_code_is_there_and_nothing_is_claimed(atlas):
    bare = replace(atlas, counts=None, typical=None, tallies=(), kind=np.full(5, -1), sources=())
    read = Reader(render(bare))
    assert [card["data-code"] for card in read.cards] == ["0", "1", "2", "3", "4"]
    assert "Decoded alone" in read.text and "of fragments (" not in read.text and "in use" not in read.text
    assert not any(attrs.get("class") == "measured" for _, attrs in read.tags)


@pytest.mark.browser
def test_sorting_and_filtering_in_a_browser(html, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium)")
    path = tmp_path / "codebook.html"
    path.write_text(html)
    flags = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags, chromium_sandbox=False)
        page = browser.new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())

        def shown() -> list[str]:
            cards = page.locator("article").all()
            return [card.get_attribute("data-code") for card in cards if card.is_visible()]

        assert shown() == ["3", "0", "4", "2"]
        page.locator("select[name=sort]").select_option(label="Rhythm: A")
        assert shown()[0] == "3" and shown()[-1] == "2"  # what is not known comes last
        page.locator("select[name=sort]").select_option(label="code")
        page.locator("select[name=order]").select_option("up")
        assert shown() == ["0", "2", "3", "4"]
        page.locator("input[name=least]").fill("60")
        assert shown() == ["0", "3", "4"]
        page.locator("select[name=kind]").select_option("T")
        assert shown() == ["4"] and page.locator("#shown").text_content() == "1 of 4 codes"
        browser.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
