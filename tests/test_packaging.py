"""What stands around the code: metadata, one address, commands and links that work."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from paripassu.cli import app
from paripassu.core.version import REPOSITORY, __version__, from_repository
from paripassu.frameworks.registry import FRAMEWORKS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import release  # noqa: E402 (a tool, not a package)

BUILDS = "https://download.pytorch.org/whl/cpu"
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / x for x in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TARGETS = set(re.findall(r"(?m)^([a-z]+):.*## ", (ROOT / "Makefile").read_text()))
COMMANDS: Any = typer.main.get_group(app).commands
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# `pip install paripassu` is whoever takes the name first, until it is ours on an index.
BY_NAME = re.compile(
    r"install [^\n`]*?(?<![\w/])paripassu(?!\S* @ )(\[|==|['\"`\s.]|$)"
)


# The address


def test_the_address_is_the_same_everywhere():
    yaml = pytest.importorskip("yaml")
    assert PROJECT["urls"]["Repository"] == REPOSITORY
    assert PROJECT["urls"]["Issues"].startswith(REPOSITORY)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == REPOSITORY
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert f"git clone {REPOSITORY}\n" in README
    assert from_repository("pytorch", "tensorflow") in README
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        wanted = f" @ git+{REPOSITORY}"
        if path.stem in FRAMEWORKS:
            wanted = from_repository(path.stem, "notebooks")
        assert wanted in path.read_text()


def told_by_name(text: str) -> list[str]:
    """Lines that tell to install the package by its name on an index."""
    return [line for line in text.splitlines() if BY_NAME.search(line)]


def test_nothing_tells_to_install_by_name():
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("this is no clone")
    kinds = (".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".json", ".html", ".js")
    found = {
        name: lines
        for name in done.stdout.splitlines()
        if name.endswith(kinds) and not name.startswith(("tests/", "results/"))
        if (ROOT / name).is_file()
        if (lines := told_by_name((ROOT / name).read_text()))
    }
    assert not found, found


@pytest.mark.parametrize(
    "text",
    [
        "pip install paripassu",
        "Type: pip install 'paripassu[onnx]'",
        '%pip install --quiet "paripassu[jax,notebooks]"',
        "pip install --upgrade paripassu.",
        "-m pip install paripassu==0.1.0",
    ],
)
def test_what_installs_by_name_is_found(text):
    assert told_by_name(text)


@pytest.mark.parametrize(
    "text",
    [
        f"pip install '{from_repository('onnx')}'",
        f"pip install --no-deps '{from_repository()}'",
        "pip install '.[onnx]'",
        "docker run paripassu compare",
    ],
)
def test_what_does_not_is_left_alone(text):
    assert not told_by_name(text)


# Commands and links


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line in the blocks to copy, comments left out."""
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", text):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:
                words = words[1:]
            yield words


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command; None if it can be typed as it stands."""
    match words:
        case ["make", *targets]:
            unknown = [x for x in targets if "=" not in x and x not in TARGETS]
            return f"no target {unknown}" if unknown else None
        case ["paripassu", name, *rest]:
            known = COMMANDS.get(name)
            if known is None:
                return f"no command {name}"
            try:
                known.make_context(name, list(rest))
            except Exception as error:  # whichever library typer parses with
                return str(error)
            missing = [
                word
                for word in rest
                if re.fullmatch(r"[\w/]+\.py:\w+", word)
                if not (ROOT / word.partition(":")[0]).is_file()
            ]
            return f"no file {missing}" if missing else None
        case ["python", "-m", module]:
            path = ROOT / "src" / f"{module.replace('.', '/')}.py"
            return None if path.is_file() else f"no module {module}"
        case [("git" | "cd" | "source" | "pip"), *_]:
            return None
    return f"unknown: {words}"


def test_the_readme_can_be_typed_as_it_stands():
    found = list(commands(README))
    assert ["make", "compare"] in found
    assert not [fault for words in found if (fault := fault_of(words))]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("make compere", "no target"),
        ("paripassu chek a b", "no command chek"),
        ("paripassu compare --seed 5", "--seed"),
        ("paripassu check examples/nothing.py:a b.py:b -i 1,2", "no file"),
        ("python -m paripassu.frameworks.none.lesson", "no module"),
        ("$ make compare", "unknown"),
    ],
)
def test_a_command_that_cannot_is_found(line, fault):
    (words,) = commands(f"```sh\n{line}\n```")
    assert fault in (fault_of(words) or "")


def broken_links(text: str, folder: Path) -> list[str]:
    """Links and pictures of a page that lead to no file."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?s)```.*?```", "", text))
    local = (x.partition("#")[0] for x in targets if "://" not in x)
    return [x for x in local if x and not (folder / x).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda x: x.name)
def test_links_lead_to_files(page):
    assert not broken_links(page.read_text(), page.parent)


def test_a_link_to_nothing_is_found():
    assert broken_links("[a](docs/none.md#here)", ROOT) == ["docs/none.md"]


# Continuous integration and containers


def test_the_workflow_makes_what_the_makefile_has():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    assert set(job["strategy"]["matrix"]["target"]) <= TARGETS
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    made = container["postCreateCommand"].removeprefix("make ").split("/")[-1]
    assert f"$(VENV)/{made}" in (ROOT / "Makefile").read_text()


def test_the_image_has_all_that_it_copies():
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"(?m)^COPY (.*) \S+$", text):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such build")
@pytest.mark.parametrize(
    ("driver", "index", "told"),
    [("none", "", True), ("here", "", False), ("none", "x", False)],
)
def test_make_tells_of_the_small_build_where_there_is_no_driver(
    tmp_path, driver, index, told
):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "here"):
        source = ROOT / name
        (tmp_path / name).write_text(source.read_text() if source.is_file() else "")
    programs = tmp_path / ".venv" / "bin"  # which do nothing
    programs.mkdir(parents=True)
    (programs.parent / "created").touch()
    for name in ("python", "paripassu"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["make", "compare", f"DRIVER={driver}"],
        cwd=tmp_path,
        env={**os.environ, "PIP_EXTRA_INDEX_URL": index},
        capture_output=True,
        text=True,
        check=True,
    )
    line = f"PIP_EXTRA_INDEX_URL={BUILDS} make compare"
    assert (line in done.stdout) == told
    assert line in README


# A release


def test_what_a_package_lacks_is_named(tmp_path):
    tracked = ["src/paripassu/a.py", "src/paripassu/data/b.gz", "docs/c.md"]
    tracked.append("src/paripassu/ruff.toml")
    (tmp_path / "a.py").touch()
    assert release.left_out(tracked, tmp_path) == ["data/b.gz"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.gz").touch()
    assert not release.left_out(tracked, tmp_path)


def test_an_address_that_is_nobodys_is_known():
    assert release.is_reserved("https://paripassu.example/paripassu")
    assert not release.is_reserved("https://example.org/paripassu.example")


def test_a_command_that_fails_ends_the_release():
    with pytest.raises(SystemExit, match="no release"):
        release.run(sys.executable, "-c", "raise ValueError('whole')")
