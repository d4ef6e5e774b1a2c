"""The page to drop a picture on, and the OpenAPI page, in a real browser.

Needs a Chromium or Chrome on PATH, which playwright drives; nothing is downloaded.
"""

import shutil

import numpy as np
import pytest
from PIL import Image
from served import Worker, answer_of, application, listening

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TOKEN = "0123456789abcdef"
SIZES = {"desk": {"width": 1200, "height": 800}, "phone": {"width": 375, "height": 700}}


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a page; its `complaints` and `requests` are what the browser told and asked for."""
    contexts = []

    def open_(url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)  # a busy machine
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def picture(tmp_path):
    """A grey picture of the size that the worker says."""
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((100, 200, 3), 128, np.uint8)).save(path)
    return path


def colour_at(page, x, y):
    """Of the canvas, at pixels of the picture."""
    return page.evaluate(
        """([x, y]) => {
            const c = document.getElementById("canvas"), s = c.width / 200;
            return [...c.getContext("2d").getImageData(x * s, y * s, 1, 1).data.slice(0, 3)];
        }""",
        [x, y],
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_is_shown_with_its_boxes(size, scheme, open_page, picture):
    worker = Worker()
    worker.answer = answer_of((0.9, 0.4, 0.1))
    with listening(application(worker)) as url:
        page = open_page(url, viewport=SIZES[size], color_scheme=scheme)
        page.set_input_files("#file", picture)
        page.get_by_text("2 objects found").wait_for()
        assert worker.contents == [picture.read_bytes()]
        assert page.locator("#classes tr").all_inner_texts() == ["cat\t1", "dog\t1"]
        # The first box's right side is in its class's colour; amid the picture it is grey.
        assert colour_at(page, 60.5, 55) == pytest.approx([0, 114, 178], abs=40)
        assert colour_at(page, 150, 50) == pytest.approx([128, 128, 128], abs=2)
        page.locator("#threshold").fill("0.5")
        page.get_by_text("1 object found").wait_for()
        assert colour_at(page, 70.5, 55) == pytest.approx([128, 128, 128], abs=2)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 384) is (scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        # Of the first kind is what this test itself does to the canvas.
        assert [one for one in page.complaints if "getImageData" not in one] == []
        assert all(one.startswith((url, "data:", "blob:")) for one in page.requests)


def test_a_picture_can_be_dropped(open_page, picture):
    with listening(application(Worker())) as url:
        page = open_page(url)
        content = list(picture.read_bytes())
        page.evaluate(
            """(bytes) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
                dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
            }""",
            content,
        )
        page.get_by_text("2 objects found").wait_for()


def test_a_token_is_asked_for_and_sent(open_page, picture):
    worker = Worker()
    with listening(application(worker, token=TOKEN)) as url:
        page = open_page(url)
        page.set_input_files("#file", picture)
        page.locator("#secret").fill(TOKEN)
        page.get_by_role("button", name="Ask again").click()
        page.get_by_text("2 objects found").wait_for()
        assert page.locator("#token").is_hidden()
        assert len(worker.contents) == 1


def test_a_refusal_is_told(open_page, picture):
    with listening(application(Worker(), max_bytes=10)) as url:
        page = open_page(url)
        page.set_input_files("#file", picture)
        page.get_by_text("More than 10 bytes").wait_for()
        assert page.locator("#result").is_hidden()


def test_the_openapi_page_needs_nothing_from_elsewhere(open_page):
    with listening(application(Worker())) as url:
        page = open_page(f"{url}/docs")
        page.get_by_text("What is in a picture?").wait_for()
        page.get_by_text("Numbers for Prometheus").wait_for()
        assert page.complaints == []
        assert all(one.startswith((url, "data:")) for one in page.requests)
