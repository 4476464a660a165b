"""Top floor, the draw page in a real browser: Chromium, driven by playwright; skipped where either is missing."""

import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_draw import PACKED, doodle, prepare, running, top_class

from hbn_ref import draw

PICTURES = Path(__file__).resolve().parents[1] / "runs" / "draw"
__all__ = ["running"]  # a fixture


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    paths = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, paths), None)
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


class Sheet:
    """The page in a tab; leaves with a complaint about errors in its console and requests to anywhere else."""

    expected = ()  # console messages that a test provokes

    def __init__(self, browser, running, **options):
        self.running = running
        self.context = browser.new_context(**({"viewport": {"width": 1100, "height": 900}} | options))
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.errors, self.urls = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("request", lambda request: self.urls.append(request.url))

    def __enter__(self):
        self.page.goto(self.running.url)
        self.until("Boolean(about.classes)")
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert [text for text in self.errors if not any(word in text for word in self.expected)] == []
            assert all(url.startswith(self.running.url) or url == "data:," for url in self.urls), set(self.urls)

    def until(self, expression):
        """Wait for it; playwright's own waiting needs eval, which the page's Content-Security-Policy forbids."""
        for _ in range(3000):
            if self.page.evaluate(expression):
                return
            time.sleep(0.02)
        raise AssertionError(f"not within a minute: {expression}")

    def settle(self):
        """Wait until what is shown is about what is drawn."""
        self.until("!waiting && asked === version && answered === version")

    @property
    def strokes(self):
        return self.page.evaluate("strokes")

    @property
    def headline(self):
        return self.page.inner_text("#headline")

    def draw(self, strokes):
        box = self.page.locator("#paper").bounding_box()
        mouse = self.page.mouse
        for stroke in strokes:
            places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
            mouse.move(*places[0])
            mouse.down()
            for place in [*places[2:-1:2], *places[-1:]]:  # the browser takes a frame for each
                mouse.move(*place)
            mouse.up()

    def picture(self, name):
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    def ink(self):
        """Share of the paper that looks dark."""
        picture = Image.open(io.BytesIO(self.page.locator("#paper").screenshot())).convert("L")
        return (np.asarray(picture)[5:-5, 5:-5] < 128).mean()


@pytest.fixture
def sheet(browser, running):
    with Sheet(browser, running) as found:
        yield found


@pytest.mark.parametrize("name", ["fish", "sun", "teapot"])
def test_browser_draws_a_doodle_and_its_class_comes_first(sheet, name):
    sheet.draw(doodle(name))
    sheet.settle()
    drawn = sheet.strokes
    assert len(drawn) == len(doodle(name)) and sheet.headline == name == top_class(drawn)
    rows = sheet.page.locator("#top li")
    assert rows.count() == 5 and rows.first.inner_text().startswith(name)
    lengths = [bar.bounding_box()["width"] for bar in sheet.page.locator(".bar i").all()]
    percents = [float(text.split()[0]) for text in sheet.page.locator(".number").all_inner_texts()]
    assert lengths == sorted(lengths, reverse=True) and percents == sorted(percents, reverse=True)
    assert "ms in the network" in sheet.page.inner_text("#time")
    assert sheet.page.inner_text("#heard") == name
    sheet.picture(f"{name}")


def test_browser_shows_the_very_bits(sheet):
    sheet.draw(doodle("cat"))
    sheet.settle()
    _, layers = PACKED.trace(prepare([np.array(stroke) for stroke in sheet.strokes], 1.0))
    canvases = sheet.page.locator(".layer canvas")
    assert canvases.count() == len(layers)
    for number, (name, bits) in enumerate(layers):
        height, width, channels = bits.shape[1:]
        text = sheet.page.locator(".layer h3").nth(number).inner_text()
        assert text.startswith(f"{name}: ") and f"{height} × {width}" in text
        assert ("the first 32 of 40" in text) == (channels == 40)
        got = canvases.nth(number).evaluate(
            f"""canvas => {{
                const scale = Number(canvas.dataset.scale), sheet = canvas.getContext("2d");
                const data = sheet.getImageData(2, 2, scale * {width}, scale * {height}).data;
                return [Array.from(data).filter((_, i) => i % 4 === 0), scale];
            }}"""
        )
        enlarged = np.kron(bits[0, :, :, 0], np.ones((got[1], got[1]), int))
        assert np.array_equal(np.array(got[0]).reshape(enlarged.shape) == 0, enlarged == 1)


def test_browser_predicts_while_drawing(sheet):
    box = sheet.page.locator("#paper").bounding_box()
    stroke = doodle("apple")[0]
    sheet.page.mouse.move(box["x"] + stroke[0][0] * box["width"], box["y"] + stroke[0][1] * box["height"])
    sheet.page.mouse.down()
    for x, y in stroke[1:]:
        sheet.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    sheet.settle()  # the pen is still down
    assert sheet.headline == top_class(sheet.strokes)
    sheet.page.mouse.up()
    asked = sum(url.endswith("/predict") for url in sheet.urls)
    assert 1 <= asked <= len(stroke) + 1


def test_browser_undo_and_clear(sheet):
    page = sheet.page
    assert sheet.headline == "nothing yet" and page.get_by_role("button", name="Undo").is_disabled()
    sheet.draw(doodle("tree"))
    sheet.settle()
    count, ink = len(sheet.strokes), sheet.ink()
    page.get_by_role("button", name="Undo").click()
    sheet.settle()
    assert len(sheet.strokes) == count - 1 and sheet.ink() < ink
    assert sheet.headline == top_class(sheet.strokes)
    page.get_by_role("button", name="Clear").click()
    sheet.settle()
    assert sheet.strokes == [] and sheet.ink() == 0 and sheet.headline == "nothing yet"
    assert page.locator("#top li").count() == 0 and page.locator(".layer").count() == 0
    sheet.picture("empty")
    page.get_by_role("button", name="Undo").click()  # also brings back what was cleared
    sheet.settle()
    assert len(sheet.strokes) == count - 1 and sheet.headline == top_class(sheet.strokes)


def test_browser_keys_and_pen_width(sheet):
    page = sheet.page
    sheet.draw(doodle("sun"))
    sheet.settle()
    count, thin = len(sheet.strokes), sheet.ink()
    for key in ("+", "+", "-", "+"):
        page.keyboard.press(key)
    sheet.settle()
    assert page.inner_text("#width-text") == "1.5 ×" and sheet.ink() > 1.2 * thin
    assert sheet.headline == top_class(sheet.strokes, 1.5)
    page.keyboard.press("u")
    page.keyboard.press("Control+z")
    assert len(sheet.strokes) == count - 2
    page.keyboard.press("c")
    assert sheet.strokes == []
    page.keyboard.press("Control+z")
    assert len(sheet.strokes) == count - 2
    page.keyboard.press("Escape")
    sheet.settle()
    assert sheet.strokes == [] and sheet.headline == "nothing yet"
    slider = page.get_by_role("slider", name="Pen")
    slider.fill("4")
    assert page.inner_text("#width-text") == "4 ×"
    page.keyboard.press("+")
    assert page.inner_text("#width-text") == "4 ×"


def test_browser_draws_with_the_keyboard_alone(sheet):
    page = sheet.page
    page.keyboard.press("Tab")  # to the paper: the buttons come after it
    assert page.evaluate("document.activeElement.id") == "paper"
    for key in ["ArrowLeft"] * 10 + [" "] + ["ArrowRight"] * 20 + [" "] + ["ArrowUp"] * 10:
        page.keyboard.press(key)
    sheet.picture("keyboard")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    sheet.settle()
    assert [len(stroke) for stroke in sheet.strokes] == [21, 2]
    assert sheet.strokes[0][-1] == [0.7, 0.5] and sheet.headline == top_class(sheet.strokes)


def test_browser_on_a_phone(browser, running):
    with Sheet(browser, running, viewport={"width": 360, "height": 740}, device_scale_factor=3, is_mobile=True,
               has_touch=True) as sheet:  # fmt: skip
        page = sheet.page
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits) and page.evaluate("innerWidth") == 360
        box = page.locator("#paper").bounding_box()
        assert box["width"] > 300 and abs(box["width"] - box["height"]) < 1
        touch = sheet.context.new_cdp_session(page)
        for stroke in doodle("fish"):
            places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in stroke]
            for kind, points in [
                ("touchStart", places[:1]),
                *[("touchMove", [p]) for p in places[1:]],
                ("touchEnd", []),
            ]:
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        sheet.settle()
        assert page.evaluate("scrollY") == 0 and len(sheet.strokes) == len(doodle("fish"))
        assert sheet.headline == "fish" == top_class(sheet.strokes) and page.evaluate(fits)
        last = page.locator("#top li").last.bounding_box()
        assert last["y"] + last["height"] <= 740  # paper, tools and the five classes at once
        assert all(b.bounding_box()["height"] >= 44 for b in page.get_by_role("button").all())
        sheet.picture("phone")


def test_browser_keeps_the_drawing_when_the_server_is_gone_or_refuses(sheet):
    page = sheet.page
    sheet.expected = ("Failed to load resource",)
    page.route("**/predict", lambda route: route.abort())
    sheet.draw(doodle("fish"))
    sheet.until("byId('message').textContent.includes('does not answer')")
    assert len(sheet.strokes) == len(doodle("fish")) and sheet.headline == "no answer"
    page.unroute("**/predict")
    sheet.until("byId('headline').textContent === 'fish'")  # it asks again by itself
    assert page.inner_text("#message") == ""
    refusal = json.dumps({"error": "strokes: expected fish & <chips>"})
    page.route("**/predict", lambda route: route.fulfill(status=400, content_type="application/json", body=refusal))
    sheet.draw([[(0.1, 0.1)]])
    sheet.until("byId('message').textContent.includes('<chips>')")
    assert len(sheet.strokes) == len(doodle("fish")) + 1 and sheet.headline == "no answer"
    sheet.picture("refused")


def test_browser_says_when_no_ink_is_seen(sheet):
    sheet.expected = ("400 (Bad Request)",)
    sheet.draw([[(0.005, 0.005)]])
    sheet.until("byId('message').textContent.includes('nothing to see')")
    assert sheet.headline == "no answer"


def test_browser_draws_a_dot_as_the_network_sees_it(sheet):
    sheet.draw([[(0.5, 0.5)]])
    sheet.settle()
    assert sheet.strokes == [[[0.5, 0.5]]] and sheet.headline == top_class(sheet.strokes)
    assert sheet.ink() == pytest.approx(np.pi / 4 * draw.PEN**2, rel=0.2)


def test_browser_says_when_the_drawing_is_full(sheet):
    sheet.expected = ("400 (Bad Request)",)  # the line of long numbers lies off the paper
    sheet.page.evaluate("strokes = Array.from({length: 499}, (_, k) => [[0.3 + k / 1500, 0.5]])")
    sheet.draw([[(0.5, 0.6)]])  # the 500th
    sheet.settle()
    assert sheet.headline == top_class(sheet.strokes) and len(sheet.strokes) == 500
    sheet.draw([[(0.5, 0.7), (0.6, 0.7)]])
    assert len(sheet.strokes) == 500 and "Undo or clear" in sheet.page.inner_text("#message")
    sheet.page.evaluate("strokes = [Array.from({length: 14499}, (_, k) => [-0.1234, limited((k % 100 + 1.2) / 123)])]")
    sheet.draw([[(0.5, 0.2)]])
    assert len(sheet.strokes) == 1
    sheet.page.evaluate("strokes[0].length = 14400, changed()")  # the longest numbers still fit into a request
    sheet.draw([[(0.5, 0.2)]])
    sheet.settle()
    assert len(sheet.strokes) == 2 and sheet.headline == top_class(sheet.strokes)
