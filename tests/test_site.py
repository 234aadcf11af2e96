"""The web site of the documentation: whole, offline, and in step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "site"))
import hooks  # noqa: E402 (a tool, not a package)


def build(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out, *more],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


# Links


@pytest.mark.parametrize(
    ("own", "link", "there"),
    [
        ("proof.md", "recipes.md#fields", "recipes.md#fields"),
        ("index.md", "docs/proof.md", "proof.md"),
        ("check.md", "../ARCHITECTURE.md", "architecture.md"),
        ("check.md", "../results/ports.json", "files/results/ports.json"),
        (
            "check.md",
            "../examples/ports/resnet.py",
            "files/examples/ports/resnet.py.md",
        ),
        ("results.md", "../results", "files/results/index.md"),
        ("article.md", "../notebooks/jax.ipynb", "tutorials/jax.md"),
        ("tutorials/jax.md", "../docs/proof.md", "../proof.md"),
        ("proof.md", "#here", "#here"),
        ("proof.md", "https://example.org/x", "https://example.org/x"),
    ],
)
def test_a_link_leads_to_where_the_site_has_its_target(own, link, there):
    assert hooks.relinked(f"a [b]({link}).", own) == f"a [b]({there})."
    code = f"```python\na[b]({link})\n```"
    assert hooks.relinked(code, own) == code


def test_a_link_to_nothing_is_an_error():
    with pytest.raises(FileNotFoundError, match="no-such"):
        hooks.copied("examples/no-such.py")
    with pytest.raises(ValueError, match="out of the repository"):
        hooks.repository_path("proof.md", "../../elsewhere.md")


def test_columns_of_frameworks_become_tabs():
    text = (ROOT / "docs" / "side-by-side.md").read_text()
    made = hooks.tabbed(text, {"TensorFlow": "Keras"})
    assert "<table>" not in made
    for name in ("PyTorch", "Keras", "JAX"):
        assert made.count(f'=== "{name}"') == text.count("<table>")
    assert "    ```python\n    import torch\n" in made


# The site


@pytest.mark.slow
def test_a_warning_fails_the_build(tmp_path):
    config = tmp_path / "mkdocs.yml"
    docs = tmp_path / "docs"
    docs.mkdir()
    text = (
        (ROOT / "mkdocs.yml").read_text().replace("docs_dir: docs", f"docs_dir: {docs}")
    )
    text = text.replace("- tools/", f"- {ROOT}/tools/").replace(
        "[src]", f"[{ROOT}/src]"
    )
    config.write_text(text)
    for page in (ROOT / "docs").iterdir():
        (docs / page.name).write_bytes(page.read_bytes())
    with (docs / "proof.md").open("a") as file:
        file.write("\n[there](recipes.md#no-such-heading)\n")
    done = build(tmp_path / "out", "--config-file", str(config))
    assert done.returncode == 1
    assert "no-such-heading" in done.stderr


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere_in_it(site):
    """Also those in what was generated, which mkdocs does not check."""
    broken = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
            target = link.partition("#")[0]
            if not target or re.match(r"[a-z]+:", target) or page.name == "404.html":
                continue
            if not (page.parent / target).exists():
                broken.append((page.relative_to(site).as_posix(), link))
    assert broken == []


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    import paripassu

    text = (site / "reference" / "index.html").read_text()
    for name in paripassu.__all__:
        assert name.startswith("__") or f'id="paripassu.{name}"' in text


@pytest.mark.slow
def test_the_site_works_from_a_folder(site, browser):
    """It loads nothing from elsewhere, finds words, and keeps tabs in step."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda x: told.append(x.text) if x.type == "error" else None)
    page.on("pageerror", lambda x: told.append(str(x)))
    page.on("request", lambda x: asked.append(x.url))
    page.goto((site / "side-by-side.html").as_uri())
    page.get_by_text("Keras", exact=True).locator("visible=true").first.click()
    page.goto((site / "layers.html").as_uri())
    chosen = page.locator(
        ".tabbed-set input:checked + input, .tabbed-set input:checked"
    )
    labels = page.evaluate(CHOSEN)
    assert chosen.count() > 0
    assert set(labels) == {"Keras"}
    page.locator("input.md-search__input").click()
    page.keyboard.type("softmax", delay=30)
    found = page.locator(".md-search-result__item a").first
    found.wait_for(state="visible", timeout=20_000)
    assert page.locator(".md-search-result__item").count() > 1
    outside = [
        x for x in asked if not x.startswith(("file:", "data:", "blob:", "about:"))
    ]
    assert outside == []
    assert told == []
    page.close()


# The labels of the chosen tabs.
CHOSEN = """
[...document.querySelectorAll('.tabbed-set input:checked')].map(
  x => document.querySelector(`label[for="${x.id}"]`).innerText.trim()
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(width, scheme, site, browser):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page: Any = context.new_page()
    wide = []
    for path in [*site.glob("*.html"), site / "reference/index.html"]:
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path.name)
    assert wide == []
    context.close()
