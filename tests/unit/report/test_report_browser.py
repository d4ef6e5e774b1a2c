"""The report in a real browser: it opens without an error, and works as it should.

Needs a Chromium or Chrome on PATH, which playwright drives; nothing is downloaded.
"""

import shutil

import pytest

from ssd_dist.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE = {"width": 375, "height": 800}


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(content_with, trial, tmp_path_factory):
    """A report with every section but the law, whose fixture is made anew for each test."""
    trials = [trial(i, 0.1 * i, ms_per_image=9.0 - i, pareto=True) for i in range(5)]
    return write_report(tmp_path_factory.mktemp("report"), content_with(leaderboard=trials))


@pytest.fixture
def open_report(browser, report):
    """Opens the report, as `browser.new_context` is told; the page, and what the browser complained
    of and asked for."""
    contexts = []

    def open_(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        return page, complaints, requests

    yield open_
    for context in contexts:
        context.close()


def test_it_opens_without_a_complaint_and_fetches_nothing(open_report):
    page, complaints, requests = open_report()
    sections = page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
    assert sections == [
        "accuracy",
        "pictures",
        "search",
        "training",
        "complexity",
        "timing",
        "provenance",
    ]
    for name in sections:
        page.click(f"nav a[href='#{name}']")
    assert complaints == []
    assert [
        url for url in requests if not url.startswith(("data:", page.url.partition("#")[0]))
    ] == []
    # The pictures are there: what can't be decoded has no size.
    assert page.locator("image").evaluate_all(
        "all => all.every(one => one.getBoundingClientRect().width > 0)"
    )


def test_a_click_sorts_a_table(open_report):
    page, complaints, _ = open_report()
    table = page.locator("#search table.sortable")

    def numbers():
        return table.locator("tbody th").all_inner_texts()

    assert numbers() == ["4", "3", "2", "1", "0"]  # best first
    header = table.locator("thead th", has_text="ms a picture")
    header.locator("button").click()
    assert numbers() == ["0", "1", "2", "3", "4"]  # the first click: the largest first
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").click()
    assert numbers() == ["4", "3", "2", "1", "0"]
    assert header.get_attribute("aria-sort") == "ascending"

    # A row that says why nothing was measured has fewer cells, and stays at the end.
    devices = page.locator("#timing table.sortable").last
    for _ in range(2):
        devices.locator("button", has_text="Speed-up").click()
        assert devices.locator("tbody th").all_inner_texts() == ["1 CPU thread", "GPU"]
    assert complaints == []


def test_a_phone_shows_it_without_scrolling_sideways(open_report):
    page, complaints, _ = open_report(viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    too_wide = page.locator("main *, header *").evaluate_all(
        """all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1
                             && !one.closest('.scroll') && !one.closest('svg'))
                  .map(one => one.outerHTML.slice(0, 80))"""
    )
    assert too_wide == []
    assert complaints == []


def test_it_follows_the_reader_s_light_or_dark(open_report):
    def lightness(page, property_):
        colour = page.evaluate(f"getComputedStyle(document.body).{property_}")
        return sum(int(part) for part in colour[4:-1].split(","))

    for scheme, is_dark in (("light", False), ("dark", True)):
        page, _, _ = open_report(color_scheme=scheme)
        paper, ink = lightness(page, "backgroundColor"), lightness(page, "color")
        assert (paper < ink) == is_dark
        assert abs(paper - ink) > 500  # of 765


def test_on_paper_it_is_whole(open_report):
    page, _, _ = open_report()
    assert not page.locator("details[data-print]").get_attribute("open")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details[data-print]").get_attribute("open") is not None
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("details[data-print] pre").is_visible()
