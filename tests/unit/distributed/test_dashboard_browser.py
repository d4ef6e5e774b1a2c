"""The dashboard in a real browser: the best trial, the plots and the pictures are there.

Needs a Chromium or Chrome on PATH, which playwright drives; nothing is downloaded.
"""

import json
import shutil

import pytest
from searching import make_config
from watched import dashboard, make_search

from ssd_dist.distributed.study_storage import new_place

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture
def page():
    """A page, and what its browser complained of and asked for."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(120_000)  # a busy machine
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append((request.method, request.url)))
        yield page
        browser.close()


def test_it_shows_the_trial_that_best_json_names_and_its_pictures(page, tmp_path):
    folder = tmp_path / "search"
    folder.mkdir()
    driver = make_search(folder, make_config(epochs=2, trials=8), new_place(folder, None))
    best = json.loads((folder / "best.json").read_text())
    number = driver.study.best_trial.number
    assert number not in (0, 7)  # neither the first nor the last, which a page might show anyway

    with dashboard(folder) as (_, address, _):
        base = address.partition("/dashboard/")[0]
        page.goto(address)
        page.get_by_text(f"Best Trial (number={number})").wait_for()
        page.get_by_text(str(best["map_11pt"]), exact=True).wait_for()
        page.get_by_text(f"Params = [alpha: {best['config']['alpha']}").wait_for()
        for plot in ("History", "Hyperparameter Importance", "Intermediate values"):
            page.get_by_role("heading", name=plot).wait_for()

        page.goto(f"{address}/trials?numbers={number}")
        page.get_by_role("heading", name=f"Trial {number} ").wait_for()
        picture = page.locator("img[src*='/artifacts/']")
        picture.wait_for()
        page.wait_for_function(
            "() => document.querySelector(\"img[src*='/artifacts/']\").naturalWidth > 800"
        )
        assert picture.count() == 1
        box = picture.bounding_box()
        assert box["width"] > 100
        assert box["height"] > 50

    assert page.complaints == []
    # It reads, and asks nobody else.
    assert {method for method, _ in page.requests} == {"GET"}
    assert all(url.startswith((base, "data:", "blob:")) for _, url in page.requests)
