"""The page in a real browser: true to scale, silent, offline."""

import shutil
from pathlib import Path

import pytest

from anyecg.report import write_report

pytestmark = pytest.mark.browser

PX_PER_MM = 96 / 25.4
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS, chromium_sandbox=False)
        yield running
        running.close()


@pytest.fixture
def opened(browser, twelve, tmp_path):
    """Return the page, what it asked the network for, and what it complained about."""
    path: Path = write_report(twelve, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    yield page, requests, complaints
    page.close()


def box(page, selector: str) -> dict[str, float]:
    return page.locator(selector).first.bounding_box()


def test_one_second_is_25_mm_and_one_millivolt_10_mm(opened):
    page, _, _ = opened
    seconds = page.locator("path.trace").last.evaluate("p => Number(p.dataset.seconds)")
    width = page.locator("path.trace").last.evaluate("p => p.getBoundingClientRect().width")
    assert seconds == 10
    assert width / seconds == pytest.approx(25 * PX_PER_MM, rel=0.003)
    pulse = page.locator("path.pulse").first.evaluate(
        "p => { const b = p.getBBox(), m = p.getScreenCTM(); return [b.width * m.a, b.height * m.d]; }"
    )
    assert pulse == pytest.approx([8 * PX_PER_MM, 10 * PX_PER_MM], rel=1e-3)


def test_silent_and_offline(opened):
    page, requests, complaints = opened
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == 1
    assert complaints == []


def test_all_lead_labels_are_visible(opened):
    page, _, _ = opened
    labels = page.locator("svg text.lead").all_text_contents()
    expected = ["I", "II", "III (derived)", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "II"]
    assert sorted(labels) == sorted(expected)
    assert all(label.is_visible() for label in page.locator("svg text.lead").all())


def test_scale_holds_on_a_small_screen(opened):
    page, _, _ = opened
    page.set_viewport_size({"width": 400, "height": 800})
    width = page.locator("path.trace").last.evaluate("p => p.getBoundingClientRect().width")
    assert width == pytest.approx(250 * PX_PER_MM, rel=0.003)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400  # the figure scrolls, not the page


def test_print_keeps_the_first_page_together_and_the_scale(opened):
    page, _, _ = opened
    content = page.pdf(prefer_css_page_size=True)
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page>") + content.count(b"/Type /Page ") <= 6
    page.emulate_media(media="print")
    page.set_viewport_size({"width": round(277 * PX_PER_MM), "height": round(190 * PX_PER_MM)})
    svg = box(page, "svg[role=img]")
    assert svg["width"] == pytest.approx(273 * PX_PER_MM, rel=1e-3)
    assert svg["y"] + svg["height"] < 190 * PX_PER_MM
