"""The page in a real browser: drawing, the keyboard, phones, dark mode, silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import wait_for
from serving import Server, strokes_of

from paripassu.core import datasets
from paripassu.frameworks.registry import asked_by_default

ANSWERING = [x for x in asked_by_default() if not x.problem]
TITLES = [x.title for x in ANSWERING]
NAMES = [x.name for x in ANSWERING]
PATIENCE = 60_000  # milliseconds


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, served: Server) -> Iterator[Open]:
    """Opens the page; at the end it must have been quiet and stayed at home."""
    contexts = []
    messages: list[str] = []
    requests: list[str] = []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(served.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A browser says every 503 on its console; only one test has any.
    assert [x for x in messages if "status of 503" not in x] == []
    assert requests
    assert [x for x in requests if not x.startswith(served.url)] == []


def draw(page: Any, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw with the mouse; points in widths of the sheet."""
    box = page.locator("#sheet").bounding_box()
    for stroke in strokes:
        points = [
            (box["x"] + x * box["width"], box["y"] + y * box["height"])
            for x, y in stroke
        ]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def settled(page: Any) -> None:
    """Wait until the last stroke is answered."""
    page.locator("#answers[aria-busy=false]").wait_for()


def answers(page: Any) -> list[str]:
    settled(page)
    found = [page.locator(f'[data-digit="{x}"]').inner_text() for x in NAMES]
    return [x.strip() for x in found]


def ink(page: Any) -> int:
    """How many pixels of the sheet are drawn on."""
    return int(page.evaluate(INK)[0])


def shade_of_ink(page: Any) -> float:
    """The mean of what is drawn on the sheet, 0..255."""
    return float(page.evaluate(INK)[1])


# Of a copy of the sheet, since reading the sheet itself would make it slow.
INK = """
() => {
  const sheet = document.getElementById("sheet");
  const copy = new OffscreenCanvas(sheet.width, sheet.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(sheet, 0, 0);
  const data = context.getImageData(0, 0, copy.width, copy.height).data;
  const shades = data.filter((x, i) => i % 4 === 0 && data[i + 3]);
  return [shades.length, shades.reduce((sum, x) => sum + x, 0) / shades.length];
}
"""


def test_drawn_test_digits_are_read(open_page: Open, mnist: datasets.ImageData) -> None:
    page = open_page()
    right = 0
    for digit in range(10):
        number = int((mnist.test_labels == digit).argmax())
        draw(page, strokes_of(mnist.test_images[..., 0][number]))
        found = answers(page)
        assert len(set(found)) == 1
        right += found[0] == str(digit)
        page.get_by_role("button", name="Clear").click()
        assert answers(page) == [""] * len(NAMES)
    assert right >= 8


def test_everything_about_one_digit(open_page: Open, mnist: datasets.ImageData) -> None:
    page = open_page()
    assert page.get_by_role("heading", level=1).inner_text() == "Draw a digit"
    assert page.get_by_role("heading", level=2).all_inner_texts() == TITLES
    draw(page, strokes_of(mnist.test_images[..., 0][0]))
    assert answers(page) == ["7"] * len(NAMES)
    for name in NAMES:
        shares = [
            float(page.locator(f'[data-share="{name}/{i}"]').inner_text().strip("%"))
            for i in range(10)
        ]
        assert sum(shares) == pytest.approx(100, abs=0.6)
        assert shares[7] == max(shares)
        widths = [
            page.locator(f'[data-bar="{name}/{i}"]').bounding_box()["width"]
            for i in range(10)
        ]
        whole = page.locator(".track").first.bounding_box()["width"]
        assert widths == pytest.approx([x / 100 * whole for x in shares], abs=1)
        time = page.locator(f'[data-time="{name}"]').inner_text()
        assert re.fullmatch(r"[\d.]+ ms", time)
    assert re.fullmatch(r"\d[\d.]* ms", page.locator("#trip").inner_text())
    if len(NAMES) > 1:
        gap = page.locator("#difference").inner_text()
        assert gap == "0" or re.fullmatch(r"\d\.\d × 10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+", gap)
        assert "same to" in page.locator("#meaning").inner_text()
    seen = page.evaluate(SEEN)
    assert max(seen) == 255
    assert 30 < sum(x > 0 for x in seen) < 250
    spoken = page.locator("#spoken")
    spoken.filter(has_text=TITLES[0]).wait_for(state="attached")
    text = spoken.inner_text()
    assert spoken.get_attribute("aria-live") == "polite"
    assert all(f"{title}: 7, " in text for title in TITLES)


SEEN = """
() => {
  const context = document.getElementById("seen").getContext("2d");
  return [...context.getImageData(0, 0, 28, 28).data].filter((x, i) => i % 4 === 0);
}
"""


def test_answers_come_while_drawing(open_page: Open, mnist: datasets.ImageData) -> None:
    page = open_page()
    (stroke, *_) = strokes_of(mnist.test_images[..., 0][0])
    box = page.locator("#sheet").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    for x, y in stroke:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.locator("[data-digit]").first.filter(has_text=re.compile(r"\d")).wait_for()
    page.mouse.up()
    settled(page)


def test_clear_and_undo(open_page: Open) -> None:
    page = open_page()
    undo = page.get_by_role("button", name="Undo")
    clear = page.get_by_role("button", name="Clear")
    for button in (undo, clear):
        assert button.get_attribute("aria-disabled") == "true"
        button.click(force=True)
    hint = page.get_by_text("draw here")
    assert hint.is_visible()
    amounts = [ink(page)]
    for x in (0.3, 0.5, 0.7):
        draw(page, [[(x, 0.2), (x, 0.8)]])
        amounts.append(ink(page))
    assert amounts == sorted(set(amounts))
    assert not hint.is_visible()
    undo.click()
    assert ink(page) == amounts[2]
    clear.click()
    assert ink(page) == 0
    assert answers(page) == [""] * len(NAMES)
    assert clear.get_attribute("aria-disabled") == "true"
    page.keyboard.press("Control+z")  # a clear can be undone
    assert ink(page) == amounts[2]
    assert answers(page) != [""] * len(NAMES)
    undo.click()
    undo.click()
    assert ink(page) == 0
    assert undo.get_attribute("aria-disabled") == "true"


def test_a_one_drawn_with_the_keyboard_alone(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    sheet = page.get_by_role("application", name="Drawing sheet")
    assert sheet.evaluate("x => x === document.activeElement")
    described = page.locator(f"#{sheet.get_attribute('aria-describedby')}")
    assert "Space puts the pen down" in described.inner_text()
    cursor = ink(page)
    assert cursor > 0  # the pen's place is shown
    for _ in range(6):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.locator("#spot").filter(has_text="pen down, column 10, row 4 of 20").wait_for()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    page.locator("#spot").filter(has_text="pen up, column 10, row 17 of 20").wait_for()
    assert answers(page) == ["1"] * len(NAMES)
    drawn = ink(page)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    page.keyboard.press("Escape")
    page.keyboard.press("PageUp")
    assert ink(page) > drawn + 20
    page.keyboard.press("Backspace")
    settled(page)
    page.keyboard.press("Delete")
    assert answers(page) == [""] * len(NAMES)
    assert ink(page) < 2 * cursor
    for name in ("Undo", "Clear"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert answers(page) == ["1"] * len(NAMES)


def test_drawn_with_a_finger_on_a_phone(
    open_page: Open, mnist: datasets.ImageData
) -> None:
    page = open_page(
        viewport={"width": 360, "height": 740},
        device_scale_factor=3,
        is_mobile=True,
        has_touch=True,
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator("#sheet").bounding_box()
    assert box["y"] + box["height"] < 740
    session = page.context.new_cdp_session(page)

    def touch(kind: str, point: tuple[float, float] | None = None) -> None:
        points = []
        if point:
            x = box["x"] + point[0] * box["width"]
            y = box["y"] + point[1] * box["height"]
            points = [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for stroke in strokes_of(mnist.test_images[..., 0][0]):
        touch("touchStart", stroke[0])
        for point in stroke[1:]:
            touch("touchMove", point)
        touch("touchEnd")
    assert answers(page) == ["7"] * len(NAMES)
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("Undo", "Clear"):
        target = page.get_by_role("button", name=name).bounding_box()
        assert min(target["width"], target["height"]) >= 44
    assert page.evaluate(OUTSIDE) == []


# What is cut off at the side, or runs out of its own box.
OUTSIDE = """
[...document.querySelectorAll('main *')].filter(x => {
  const box = x.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1
      || x.scrollWidth > x.clientWidth + 1 && getComputedStyle(x).display !== 'inline'
      && !x.matches('.unseen, .unseen *'));
}).map(x => x.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (800, "dark"), (1280, "light")]
)
def test_widths_and_colours(
    width: int, scheme: str, open_page: Open, mnist: datasets.ImageData
) -> None:
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    draw(page, strokes_of(mnist.test_images[..., 0][0]))
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(part) for part in background.strip("rgb()").split(",")]
    assert (sum(shades) < 150) == (scheme == "dark")
    assert (shade_of_ink(page) > 128) == (scheme == "dark")
    assert page.evaluate(FAINT) == []


# Text whose contrast to what is behind it is below the 4.5 of WCAG 2, AA.
FAINT = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => {
    const [r, g, b] = numbers(text).map(x => x / 255).map(
      x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = x => {
    for (; x; x = x.parentElement) {
      const colour = getComputedStyle(x).backgroundColor;
      if (numbers(colour).length === 3) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter(x => {
    const text = [...x.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!text || x.matches(".digit, [aria-disabled=true]")) return false;
    const pair = [getComputedStyle(x).color, behind(x)].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5;
  }).map(x => x.outerHTML.slice(0, 80));
})()
"""


def test_the_colours_change_with_the_system(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    draw(page, [[(0.5, 0.2), (0.5, 0.8)]])
    settled(page)
    assert shade_of_ink(page) < 64
    page.emulate_media(color_scheme="dark")
    wait_for(lambda: shade_of_ink(page) > 128, "light ink", 10)


@pytest.mark.slow
def test_a_page_survives_a_worker_that_dies(open_page: Open, served: Server) -> None:
    page = open_page()
    draw(page, [[(0.5, 0.2), (0.5, 0.5)]])
    settled(page)
    served.worker(NAMES[0]).kill()
    draw(page, [[(0.5, 0.5), (0.5, 0.8)]])
    message = page.get_by_role("status").filter(has_text=f"{TITLES[0]} is restarting")
    message.wait_for()
    assert answers(page) == ["1"] * len(NAMES)
    assert page.locator("#message").inner_text() == ""


def test_the_api_page(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("link", name="HTTP API").click()
    assert page.get_by_role("heading", level=1).inner_text() == "HTTP API"
    assert page.get_by_text("POST /predict").first.is_visible()
    assert page.evaluate("document.scripts.length") == 0
    page.get_by_role("link", name="Draw a digit").click()
    page.get_by_role("application").wait_for()


def test_without_scripts_the_page_says_so(served: Server) -> None:
    page = served.request("GET", "/")[2].decode()
    (told,) = re.findall("<noscript>(.*?)</noscript>", page)
    assert "This page draws with JavaScript" in told
