"""The report page in a real browser: quiet, offline, never wider than the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from make_records import make_comparison, make_dataset, make_proof

from paripassu.analysis.comparison import summarise
from paripassu.analysis.report import write_report
from paripassu.core import datasets

LONG = "/a/very/long/path/without/any/space/" + "0123456789" * 12


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A full page, and one with trouble of many kinds in very long words."""
    real = make_dataset(300, datasets.load().sha256)
    folders = {
        "full": make_comparison(
            tmp_path_factory.mktemp("full"),
            frameworks=("pytorch", "tensorflow", "jax"),
            seeds=range(6),
            test_count=300,
            dataset=real,
            proof=make_proof(),
        ),
        "trouble": make_comparison(
            tmp_path_factory.mktemp("trouble"),
            seeds=(1, 2),
            test_count=300,
            dataset=real.model_copy(update={"source": LONG, "warnings": [LONG]}),
            proof=make_proof(holds=False),
            failures={"tensorflow-seed2": f"Killed: {LONG}"},
            other_load=0.5,
        ),
    }
    return {
        name: write_report(folder, summarise(folder))
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("state", ["full", "trouble"])
def test_page_in_a_browser(
    state: str, width: int, scheme: str, browser: Any, pages: dict[str, Path]
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    address = pages[state].as_uri()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    assert messages == []
    assert {url for url in requests if not url.startswith("data:")} == {address}
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(part) for part in background.strip("rgb()").split(",")]
    assert (sum(shades) < 150) == (scheme == "dark")
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(SQUEEZED) == []
    if state == "full":  # three frameworks: none is out of sight, on paper neither
        assert page.evaluate(FIGURES) <= width
        page.set_viewport_size({"width": PRINTED, "height": 900})
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == PRINTED
    context.close()


PRINTED = 688  # pixels between the margins of A4
FIGURES = "document.querySelector('.figures').getBoundingClientRect().right"
# Labels that a chart cuts off or pushes out of its figure.
OUTSIDE = """
[...document.querySelectorAll('svg.chart text')].filter(text => {
  const own = text.getBoundingClientRect();
  const chart = text.ownerSVGElement.getBoundingClientRect();
  return own.left < chart.left - 4 || own.right > chart.right + 4
      || own.top < chart.top - 4 || own.bottom > chart.bottom + 4;
}).map(text => text.textContent)
"""


# Headings and captions of tables that stand letter below letter.
SQUEEZED = """
[...document.querySelectorAll('th, caption')].filter(
  cell => cell.innerText.length > 3
    && cell.clientWidth < (cell.tagName === 'TH' ? 30 : 60)
).map(cell => cell.innerText)
"""


def test_page_works_without_scripts_and_prints(
    browser: Any, pages: dict[str, Path]
) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    assert page.get_by_role("heading", level=1).inner_text() == (
        "Which one, for me, on this machine?"
    )
    assert page.get_by_role("link", name="The code").get_attribute("href") == "#code"
    content = page.pdf(format="A4", print_background=True)
    assert content.startswith(b"%PDF-")
    context.close()


def test_print_is_light_and_keeps_details_closed(
    browser: Any, pages: dict[str, Path]
) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.get_by_text("gradient conv1.kernel", exact=True).is_hidden()
    context.close()
