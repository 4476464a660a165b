"""Top floor, the draw page in a real browser: Chromium, driven by playwright; skipped where either is missing."""

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import JIT
from PIL import Image
from test_draw import PACKED, Nearest, Running, doodle, prepare, running, shown, top_class
from test_gallery import write

import data_tools
from hbn_ref import deploy, draw, gallery, models

PICTURES = Path(__file__).resolve().parents[1] / "runs" / "draw"
__all__ = ["running"]  # a fixture


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
        self.until("about.classes.length > 0")  # before the server has answered it is empty
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
    def verdict(self):
        return self.page.inner_text("#verdict")

    @property
    def says(self):
        """What each network says."""
        return self.page.locator(".says .class").all_inner_texts()

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

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


@pytest.fixture(scope="module", autouse=True)
def folder_of_pictures():
    PICTURES.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def sheet(browser, running):
    with Sheet(browser, running) as found:
        yield found


@pytest.mark.parametrize("name", ["fish", "sun", "teapot"])
def test_browser_draws_a_doodle_and_its_class_comes_first(sheet, name):
    sheet.draw(doodle(name))
    sheet.settle()
    drawn = sheet.strokes
    assert len(drawn) == len(doodle(name)) and sheet.says == [name] == [top_class(drawn)]
    assert sheet.verdict == f"Looks like: {name}."
    rows = sheet.page.locator(".top li")
    assert rows.count() == 3 and rows.first.inner_text().startswith(name)
    lengths = [bar.bounding_box()["width"] for bar in sheet.page.locator(".bar i").all()]
    percents = [float(text.split()[0]) for text in sheet.page.locator(".number").all_inner_texts()]
    assert lengths == sorted(lengths, reverse=True) and percents == sorted(percents, reverse=True)
    assert "from question to answer" in sheet.page.inner_text("#time")
    assert sheet.page.inner_text("#heard") == f"Looks like: {name}."
    assert sheet.page.inner_text(".figures dl").split("\n")[1::2][1:] == ["2.5 M", "12 k"]


def pixels(canvas, x, y, width, height, scale):
    """Grey levels of a part of a canvas, a value for each square of ``scale``."""
    data = canvas.evaluate(
        f"""canvas => Array.from(canvas.getContext("2d").getImageData({x}, {y}, {scale * width}, {scale * height}).data)
            .filter((_, i) => i % 4 === 0)"""
    )
    found = np.array(data).reshape(height, scale, width, scale)
    assert (found == found[:, :1, :, :1]).all()  # squares of one colour
    return found[:, 0, :, 0]


def test_browser_shows_the_very_bits_and_the_values_beside_them(sheet):
    sheet.draw(doodle("cat"))
    sheet.settle()
    sheet.expected = ("willReadFrequently",)
    _, seen = PACKED.look(prepare([np.array(stroke) for stroke in sheet.strokes], 1.0))
    canvases, titles = sheet.page.locator(".layer canvas"), sheet.page.locator(".layer h3")
    assert canvases.count() == 3
    starts = ["conv2 takes bits: the first 32 of 40", "conv3 takes bits: 8 ", "conv6 takes real inputs: 12 "]
    assert all(text.startswith(start) for text, start in zip(titles.all_inner_texts(), starts, strict=True))
    assert ["E = " in text for text in titles.all_inner_texts()] == [True, False, True]
    scales = [int(canvases.nth(k).get_attribute("data-scale")) for k in range(3)]
    bits = np.where(seen[2][2][0, :, :, 0], 0, 255)  # of conv3: alone
    assert np.array_equal(pixels(canvases.nth(1), 2, 2, 16, 16, scales[1]), bits)
    values, signs = seen[1][1][0, :, :, 0], np.where(seen[1][2][0, :, :, 0], 0, 255)  # of conv2: side by side
    assert np.array_equal(pixels(canvases.nth(0), 2 + scales[0] * 32 + 2, 2, 32, 32, scales[0]), signs)
    grey = 1 - pixels(canvases.nth(0), 2, 2, 32, 32, scales[0]) / 127.5
    np.testing.assert_allclose(2 * grey, np.clip(values, -2, 2), atol=0.02)
    together = pixels(canvases.nth(2), 2 + scales[2] * 16 + 2, 2, 16, 1, scales[2])  # of conv6: a value a channel
    usual = shown().usual["conv6"]
    expected = np.where((seen[3][1][0, 0, 0] - usual[0]) / usual[1] >= 0, 0, 255)
    assert np.array_equal(together[0, :12], expected)


def test_browser_predicts_while_drawing(sheet):
    box = sheet.page.locator("#paper").bounding_box()
    stroke = doodle("apple")[0]
    sheet.page.mouse.move(box["x"] + stroke[0][0] * box["width"], box["y"] + stroke[0][1] * box["height"])
    sheet.page.mouse.down()
    for x, y in stroke[1:]:
        sheet.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    sheet.settle()  # the pen is still down
    assert sheet.says == [top_class(sheet.strokes)]
    sheet.page.mouse.up()
    asked = sum(url.endswith("/predict") for url in sheet.urls)
    assert 1 <= asked <= len(stroke) + 1


def test_browser_undo_and_clear(sheet):
    page = sheet.page
    assert sheet.verdict == "Nothing drawn yet." and page.get_by_role("button", name="Undo").is_disabled()
    sheet.draw(doodle("tree"))
    sheet.settle()
    count, ink = len(sheet.strokes), sheet.ink()
    page.get_by_role("button", name="Undo").click()
    sheet.settle()
    assert len(sheet.strokes) == count - 1 and sheet.ink() < ink
    assert sheet.says == [top_class(sheet.strokes)]
    page.get_by_role("button", name="Clear").click()
    sheet.settle()
    assert sheet.strokes == [] and sheet.ink() == 0 and sheet.verdict == "Nothing drawn yet."
    assert page.locator(".top li").count() == 0 and page.locator(".layer").count() == 0
    sheet.picture("empty")
    page.get_by_role("button", name="Undo").click()  # also brings back what was cleared
    sheet.settle()
    assert len(sheet.strokes) == count - 1 and sheet.says == [top_class(sheet.strokes)]


def test_browser_keys_and_pen_width(sheet):
    page = sheet.page
    sheet.draw(doodle("sun"))
    sheet.settle()
    count, thin = len(sheet.strokes), sheet.ink()
    for key in ("+", "+", "-", "+"):
        page.keyboard.press(key)
    sheet.settle()
    assert page.inner_text("#width-text") == "1.5 ×" and sheet.ink() > 1.2 * thin
    assert sheet.says == [top_class(sheet.strokes, 1.5)]
    page.keyboard.press("u")
    page.keyboard.press("Control+z")
    sheet.until(f"strokes.length === {count - 2}")
    page.keyboard.press("c")
    sheet.until("strokes.length === 0")
    page.keyboard.press("Control+z")
    sheet.until(f"strokes.length === {count - 2}")
    page.keyboard.press("Escape")
    sheet.settle()
    assert sheet.strokes == [] and sheet.verdict == "Nothing drawn yet."
    slider = page.get_by_role("slider", name="Pen")
    slider.fill("4")
    assert page.inner_text("#width-text") == "4 ×"
    page.keyboard.press("+")
    assert page.inner_text("#width-text") == "4 ×"


def test_browser_draws_with_the_keyboard_alone(sheet):
    page = sheet.page
    for stop in ("ten", "chips", "paper"):  # all the chips are one stop
        page.keyboard.press("Tab")
        sheet.until(f"document.activeElement.closest('[id]')?.id === '{stop}'")
    for key in ["ArrowLeft"] * 10 + [" "] + ["ArrowRight"] * 20 + [" "] + ["ArrowUp"] * 10:
        page.keyboard.press(key)
    sheet.picture("keyboard")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    sheet.settle()
    assert [len(stroke) for stroke in sheet.strokes] == [21, 2]
    assert sheet.strokes[0][-1] == [0.7, 0.5] and sheet.says == [top_class(sheet.strokes)]


@pytest.fixture(scope="module")
def three():
    """A server of three that disagree: as it is, another class, and none of these for all but clear cases."""
    others = {"WBin": Nearest(), "Hybrid": Nearest(none_of_these=9.0), "FBin": Nearest(shift=1)}
    with Running(*[shown(one, name, 10**6) for name, one in others.items()]) as server:
        yield server


def test_browser_on_a_phone(browser, three):
    with Sheet(browser, three, viewport={"width": 360, "height": 740}, device_scale_factor=3, is_mobile=True,
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
        assert sheet.says[0] == "fish" == top_class(sheet.strokes) and page.evaluate(fits)
        last = page.locator(".says").last.bounding_box()
        assert last["y"] + last["height"] <= 740  # paper, tools and what all networks say at once
        visible = [b.bounding_box() for b in page.get_by_role("button").all() if b.is_visible()]
        assert all(one["height"] >= 44 for one in visible)
        page.locator("#chips button").first.tap()
        assert page.evaluate(fits) and page.locator("#wish").is_visible()
        box = page.locator("#paper").bounding_box()
        assert box["y"] + box["height"] <= 740  # in a game, too
        sheet.picture("phone")


# ---------------------------------------------------------------------------------- several networks


def test_browser_shows_who_disagrees_without_colour(browser, three):
    with Sheet(browser, three) as sheet:
        page, cards = sheet.page, sheet.page.locator(".card")
        assert page.locator(".says .name").all_inner_texts() == ["WBin", "Hybrid", "FBin"]
        sheet.draw(doodle("fish"))
        sheet.settle()
        assert sheet.says == ["fish", "fish", "\u2260 flower"]
        assert sheet.verdict == "They disagree. WBin and Hybrid: fish. FBin: flower."
        assert page.inner_text("#heard") == sheet.verdict
        assert [cards.nth(k).evaluate("card => card.classList.contains('differs')") for k in range(3)] == [
            False, False, True,
        ]  # fmt: skip
        heights = [cards.nth(k).bounding_box()["height"] for k in range(3)]
        assert max(heights) - min(heights) < 1  # what they say does not move the page
        sheet.picture("disagree")
        sheet.press("Clear")
        sheet.draw([[(0.3, 0.3), (0.5, 0.5), (0.7, 0.3)]])
        sheet.settle()
        assert sheet.says[1] == "\u2260 none of these" and "Hybrid: none of these looks likely." in sheet.verdict
        assert cards.nth(1).locator(".top li").first.get_attribute("class") == "none"


def test_browser_strip_says_which_inputs_are_bits(browser, three):
    with Sheet(browser, three) as sheet:
        strip = sheet.page.locator(".card").first.locator(".strip")
        kinds = [cell.get_attribute("class") for cell in strip.locator(".cell").all()]
        assert kinds == [f"cell {kind}" for kind in ["real", "bits", "bits", "real", "real", "bits", "bits", "bits"]]
        assert strip.get_attribute("aria-label") == (
            "WBin: inputs bits in conv2 and conv3, real in conv1 and conv6; "
            "weights bits in conv2, conv3 and conv6, real in conv1"
        )
        names = strip.locator(".layer-name:not(.title)")
        assert names.all_inner_texts() == ["1", "2", "3", "last"]
        places = [round(part.bounding_box()["x"]) for part in [*names.all(), *strip.locator(".cell").all()]]
        assert places[:4] == places[4:8] == places[8:] and len(set(places)) == 4  # each name above its cells


def test_browser_looks_into_the_network_that_is_asked_for(browser, three):
    with Sheet(browser, three) as sheet:
        page = sheet.page
        sheet.draw(doodle("sun"))
        sheet.settle()
        for k, name in ((2, "FBin"), (0, "WBin")):
            sheet.press(f"Look inside {name}")
            sheet.settle()
            assert page.inner_text("#maps-title") == f"Inside {name}" and page.locator(".layer").count() == 3
            pressed = [b.get_attribute("aria-pressed") for b in page.locator(".figures button").all()]
            assert pressed == [str(i == k).lower() for i in range(3)]
        page.keyboard.press("2")
        sheet.settle()
        assert page.inner_text("#maps-title") == "Inside Hybrid"


def test_browser_plays_a_game_of_three_drawings(browser, three):
    with Sheet(browser, three) as sheet:
        page = sheet.page
        for number, name in enumerate(("fish", "sun", "apple"), start=1):
            sheet.press(name)
            assert page.inner_text("#wish") in (f"Draw a {name}.", f"Draw an {name}.") and sheet.strokes == []
            assert page.inner_text("#wish-text") == f"{number} of 10"
            assert page.locator(".got").all_inner_texts() == ["not yet"] * 3
            sheet.draw(doodle(name))
            sheet.settle()
            got = page.locator(".got").all_inner_texts()
            assert got[0].startswith("\u2713 after ") and int(got[0].split()[2]) <= len(doodle(name))
            if number == 1:
                sheet.picture("game")
        sheet.press("End")
        table = [row.inner_text().split("\t") for row in page.locator("#score-table tr").all()]
        assert table[0] == ["drawing", "WBin", "Hybrid", "FBin"]
        assert [row[0] for row in table[1:]] == [
            "1. fish", "2. sun", "3. apple", "recognised", "mean",
        ]  # fmt: skip
        assert table[4][1] == "3 of 3"
        strokes = [int(row[1]) for row in table[1:4]]
        assert table[5][1] == f"{sum(strokes) / 3:.1f}"
        right = sum(row[3] != "no" for row in table[1:4])
        assert table[4][3] == f"{right} of 3"
        assert page.locator("#chips .done").all_inner_texts() == ["apple", "fish", "sun"]
        assert page.locator("#game").is_hidden() and page.evaluate("document.activeElement.id") == "score-title"
        sheet.picture("score")
        sheet.press("Close")
        assert page.locator("#score").is_hidden() and page.locator("#chips .done").count() == 0


def test_browser_plays_ten_drawings_by_keys_alone(browser, three):
    with Sheet(browser, three) as sheet:
        page, asked = sheet.page, []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        for number in range(1, 11):
            sheet.until("document.activeElement.id === 'paper'")
            sheet.until(f"document.getElementById('wish-text').textContent.startsWith('{number} of 10')")
            asked.append(page.evaluate("game.wish"))
            if number == 5:
                page.keyboard.press("n")  # not begun: another one in its place
                sheet.until(f"game.wish !== {asked[-1]!r}")
                asked[-1] = page.evaluate("game.wish")
                assert page.inner_text("#wish-text").startswith("5 of 10")
            for key in (" ", "ArrowRight", " "):
                page.keyboard.press(key)
            sheet.settle()
            page.keyboard.press("n")
        sheet.until("!document.getElementById('score').hidden")
        assert len(set(asked)) == 10
        assert page.locator("#score-table tr").count() == 13 and "of 10 drawings" in page.inner_text("#score-text")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # again
        sheet.until("document.getElementById('wish-text').textContent.startsWith('1 of 10')")
        assert page.locator("#score").is_hidden()
        for _ in ("end", "next", "chips"):
            page.keyboard.press("Shift+Tab")
        for key in ("Home", "ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        sheet.until("document.activeElement.id === 'paper'")
        assert page.inner_text("#wish") == "Draw a car."


class Held(Nearest):
    """Waits in the middle of an answer for as long as it is told to."""

    def __init__(self):
        super().__init__()
        self.free, self.entered = threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, x):
        self.entered.set()
        assert self.free.wait(60)
        return super().__call__(x)


def test_browser_never_shows_an_older_answer_after_a_newer_one(browser):
    packed = Held()
    with Running(packed) as server, Sheet(browser, server) as sheet:
        sheet.page.evaluate(
            """() => {
                window.shownAfter = [];
                const old = show;
                show = (...all) => { shownAfter.push(all[1]); old(...all); };
            }"""
        )
        packed.entered.clear()
        packed.free.clear()
        sheet.draw(doodle("fish")[:1])
        assert packed.entered.wait(60)
        sheet.draw(doodle("fish")[1:])  # while an answer is under way
        packed.free.set()
        sheet.settle()
        assert sheet.says == ["fish"] == [top_class(sheet.strokes)]
        order = sheet.page.evaluate("shownAfter")
        assert order == sorted(order) and order[-1] == len(doodle("fish"))
        packed.entered.clear()
        packed.free.clear()
        sheet.draw([[(0.2, 0.2)]])
        assert packed.entered.wait(60)
        sheet.press("Clear")  # what is under way is about a drawing that is gone
        count = len(sheet.page.evaluate("shownAfter"))
        packed.free.set()
        sheet.settle()
        assert sheet.verdict == "Nothing drawn yet." and len(sheet.page.evaluate("shownAfter")) == count


def test_browser_closed_in_the_middle_of_an_answer_leaves_the_server_well(browser, caplog):
    packed = Held()
    with Running(packed) as server:
        for _ in range(3):
            with Sheet(browser, server) as sheet:
                packed.entered.clear()
                packed.free.clear()
                sheet.draw(doodle("fish")[:1])
                assert packed.entered.wait(60)
            packed.free.set()
            server.lives()
    assert not caplog.records


def test_browser_waits_when_the_server_is_busy(sheet):
    sheet.expected = ("503 (Service Unavailable)",)
    busy = json.dumps({"error": "too many pages"})
    sheet.page.route("**/predict", lambda route: route.fulfill(status=503, content_type="application/json", body=busy))
    sheet.draw(doodle("fish"))
    sheet.until("byId('message').textContent.includes('is busy')")
    sheet.page.unroute("**/predict")
    sheet.until("byId('verdict').textContent === 'Looks like: fish.'")
    assert sheet.page.inner_text("#message") == ""


def test_browser_links_the_notebooks_of_each_part(sheet):
    links = sheet.page.locator("[data-notebook] a")
    targets = [link.get_attribute("href") for link in links.all()]
    assert len(set(targets)) == sheet.page.locator("[data-notebook]").count() == 5
    assert all((draw.NOTEBOOKS.parent / target).exists() for target in targets)
    for details in sheet.page.locator("details.about").all():
        details.locator("summary").click()
        assert details.locator("p").inner_text().replace("\n", " ").count(". ") >= 2  # three sentences
    with sheet.page.expect_download() as download:
        links.first.click()
    assert download.value.suggested_filename == Path(targets[0]).name


@pytest.mark.skipif(not JIT, reason="whole networks as plain Python take minutes")
@pytest.mark.parametrize("kind", ["built-in", "study", "file"])
def test_browser_with_packed_networks(browser, tmp_path, kind):
    """Those that come with the package, the four of a small study's folder with a damaged one, and a single file."""
    paths = {"built-in": [], "study": [tmp_path], "file": [gallery.BUILT_IN / "hybrid.npz"]}[kind]
    names = {"built-in": ["WBin", "Hybrid", "FBin"], "study": ["FPrec", "WBin", "Hybrid", "FBin"], "file": ["Hybrid"]}
    if kind == "study":
        about = deploy.load(gallery.BUILT_IN / "hybrid.npz").preprocessing | {"size": 16, "stored": 18}
        for variant in models.VARIANTS:
            options = {"keep_real": ["c"]} if variant == "hybrid" else {}
            write(tmp_path / f"{variant}-packed.npz", variant, ["cat", "dog"], about, **options)
        (tmp_path / "other-packed.npz").write_bytes(b"PK")
    networks, rest = gallery.load(paths)
    networks = [
        replace(one, usual=gallery.usual_inputs(one, data_tools.doodles_for(one.packed.preprocessing, 1)))
        for one in networks
    ]

    def prepare(*args):
        return data_tools.prepare_strokes(*args)

    with Running(*networks, prepare=prepare, rest=rest) as server, Sheet(browser, server) as sheet:
        page = sheet.page
        assert page.locator(".says .name").all_inner_texts() == names[kind]
        sheet.draw(doodle("fish"))
        sheet.settle()
        x = [prepare([np.array(line) for line in sheet.strokes], one.packed.preprocessing, 1.0) for one in networks]
        expected = [deploy.best(one.packed, x[k], 1)[0][0][0] for k, one in enumerate(networks)]
        assert [text.removeprefix("\u2260 ") for text in sheet.says] == expected
        assert page.inner_text("#maps-title") == "Inside Hybrid"
        assert page.locator(".layer").count() == (2 if kind == "study" else 5)
        lines = page.locator("#rest li").all_inner_texts()
        assert len(lines) == (kind == "study") and all("other-packed.npz" in line for line in lines)
        for name in names[kind]:
            sheet.press(f"Look inside {name}")
            sheet.settle()
        sheet.picture(kind)


def test_browser_keeps_the_drawing_when_the_server_is_gone_or_refuses(sheet):
    page = sheet.page
    sheet.expected = ("Failed to load resource",)
    page.route("**/predict", lambda route: route.abort())
    sheet.draw(doodle("fish"))
    sheet.until("byId('message').textContent.includes('does not answer')")
    assert len(sheet.strokes) == len(doodle("fish")) and sheet.verdict == "No answer."
    page.unroute("**/predict")
    sheet.until("byId('verdict').textContent === 'Looks like: fish.'")  # it asks again by itself
    assert page.inner_text("#message") == ""
    refusal = json.dumps({"error": "strokes: expected fish & <chips>"})
    page.route("**/predict", lambda route: route.fulfill(status=400, content_type="application/json", body=refusal))
    sheet.draw([[(0.1, 0.1)]])
    sheet.until("byId('message').textContent.includes('<chips>')")
    assert len(sheet.strokes) == len(doodle("fish")) + 1 and sheet.verdict == "No answer."
    sheet.picture("refused")


def test_browser_says_when_no_ink_is_seen(sheet):
    sheet.expected = ("400 (Bad Request)",)
    sheet.draw([[(0.005, 0.005)]])
    sheet.until("byId('message').textContent.includes('nothing to see')")
    assert sheet.verdict == "No answer."


def test_browser_draws_a_dot_as_the_network_sees_it(sheet):
    sheet.draw([[(0.5, 0.5)]])
    sheet.settle()
    assert sheet.strokes == [[[0.5, 0.5]]] and sheet.says == [top_class(sheet.strokes)]
    assert sheet.ink() == pytest.approx(np.pi / 4 * draw.PEN**2, rel=0.2)


def test_browser_says_when_the_drawing_is_full(sheet):
    sheet.expected = ("400 (Bad Request)",)  # the line of long numbers lies off the paper
    sheet.page.evaluate("strokes = Array.from({length: 499}, (_, k) => [[0.3 + k / 1500, 0.5]])")
    sheet.draw([[(0.5, 0.6)]])  # the 500th
    sheet.settle()
    assert sheet.says == [top_class(sheet.strokes)] and len(sheet.strokes) == 500
    sheet.draw([[(0.5, 0.7), (0.6, 0.7)]])
    assert len(sheet.strokes) == 500 and "Undo or clear" in sheet.page.inner_text("#message")
    sheet.page.evaluate("strokes = [Array.from({length: 14499}, (_, k) => [-0.1234, limited((k % 100 + 1.2) / 123)])]")
    sheet.draw([[(0.5, 0.2)]])
    assert len(sheet.strokes) == 1
    sheet.page.evaluate("strokes[0].length = 14400, changed()")  # the longest numbers still fit into a request
    sheet.draw([[(0.5, 0.2)]])
    sheet.settle()
    assert len(sheet.strokes) == 2 and sheet.says == [top_class(sheet.strokes)]
