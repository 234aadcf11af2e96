"""The report page: complete, honest, self-contained, and safe whatever it quotes."""

from __future__ import annotations

import base64
import functools
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import BOTH
from make_bench import made as made_bench
from make_records import (
    make_comparison,
    make_dataset,
    make_environment,
    make_proof,
)
from PIL import Image

from paripassu.analysis.benchmark import BENCH_FILE
from paripassu.analysis.comparison import summarise
from paripassu.analysis.lessons import lesson_text, sections
from paripassu.analysis.report import divergence, svg, words, write_report
from paripassu.analysis.report.gather import png_uri
from paripassu.analysis.schema import Comparison, Spread
from paripassu.core import datasets

COUNT = 300  # test images
HOSTILE = "</pre></style></title>\"'><script>alert(1)</script><img src=x onerror=a()>&"
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr", "path", "rect", "circle"}
HEADINGS = [
    "Data",
    "Network",
    "Loss, optimizer and schedule",
    "Train and evaluate",
    "Predict",
    "Save and load",
    "All together",
]


@pytest.fixture(autouse=True)
def _package_data_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda path: load(path) if path else package_data()
    )


@functools.cache
def package_data(load: Callable[[], datasets.ImageData] = datasets.load) -> Any:
    return load()


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.problems: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.stack[-1:]}")
        else:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag
            and all(value in found.get(key, "") for key, value in attributes.items())
        ]

    def section(self, name: str) -> str:
        """The HTML of a section of the page, from its id to the next one's."""
        start = self.html.index(f'<section id="{name}"')
        end = self.html.find('<section id="', start + 1)
        return self.html[start : end if end > 0 else len(self.html)]

    def row(self, heading: str) -> str:
        """The HTML of a row of the table of key figures."""
        return next(row for row in self.html.split("<tr>") if f'"row">{heading}' in row)


def comparison_of(folder: Path, **options: Any) -> Comparison:
    return summarise(make_comparison(folder, test_count=COUNT, **options))


def written(folder: Path, comparison: Comparison) -> Page:
    path = write_report(folder, comparison)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def page_of(folder: Path, **options: Any) -> Page:
    return written(folder, comparison_of(folder, **options))


def real_dataset(**changes: Any) -> Any:
    return make_dataset(COUNT, package_data().sha256).model_copy(update=changes)


def answers(seeds: range, left: list[int], right: list[int]) -> dict[str, int]:
    sides = zip(seeds, left, right, strict=True)
    return {
        f"{name}-seed{seed}": correct
        for seed, one, other in sides
        for name, correct in (("pytorch", one), ("tensorflow", other))
    }


SIX = range(6)
STATES: dict[str, dict[str, Any]] = {
    "one seed": {},
    "two seeds": {"seeds": (1, 2), "epochs": 1},
    "equivalent": {
        "seeds": SIX,
        "correct": answers(SIX, [296] * 6, [296] * 6),
        "proof": make_proof(),
    },
    "different": {
        "seeds": SIX,
        "correct": answers(
            SIX, [296, 297, 296, 298, 296, 297], [280, 281, 283, 281, 280, 282]
        ),
    },
    "undecided": {
        "seeds": SIX,
        "correct": answers(
            SIX, [296, 290, 294, 291, 296, 290], [290, 296, 291, 294, 290, 296]
        ),
    },
    "many seeds": {"seeds": range(26)},
    "one framework": {"frameworks": ("pytorch",), "seeds": (1, 2)},
    "three frameworks": {"frameworks": (*BOTH, "jax"), "seeds": (1, 2)},
    "missing": {
        "unavailable": {
            "tensorflow": "TensorFlow is not installed. Type: pip install it"
        }
    },
    "failed": {"failures": {"tensorflow-seed42": "killed: out of memory"}},
    "partly failed": {
        "seeds": (1, 2),
        "failures": {"tensorflow-seed2": "killed: out of memory"},
    },
    "no runs": {"failures": {f"{name}-seed42": "no luck" for name in BOTH}},
    "nothing at all": {"unavailable": dict.fromkeys(BOTH, "not installed")},
    "proof fails": {"proof": make_proof(holds=False)},
    "proof without rows": {
        "proof": {
            "precision": "float64",
            "holds": False,
            "rows": [],
            "message": "tensorflow did not answer",
        }
    },
    "busy": {"other_load": 0.4},
    "resumed": {"sessions": 2},
    "validation": {"monitor": "validation"},
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_makes_a_whole_page(state: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES[state])
    assert page.problems == []
    assert page.html.startswith("<!doctype html>")
    assert "Which one, for me, on this machine?" in page.text
    assert "None" not in page.html.replace(page.section("code"), "")
    assert "nan" not in page.text.split()
    assert len(page.html.encode()) < 1_500_000
    check_self_contained(page)
    check_names(page)
    for drawing in re.findall(r"<svg.*?</svg>", page.html, re.DOTALL):
        ElementTree.fromstring(drawing)
    for chart in page.all("svg", role="img"):
        assert chart["aria-labelledby"]


def check_self_contained(page: Page) -> None:
    assert page.all("script") == []
    assert {found["rel"] for found in page.all("link")} == {"icon"}
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form", "use"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert value.startswith(("#", "data:image/png;base64,", "data:,"))
    assert "url(" not in page.html
    assert "@import" not in page.html
    policy = page.all("meta", content="default-src")[0]["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_names(page: Page) -> None:
    names = [found["id"] for _, found in page.elements if "id" in found]
    assert len(names) == len(set(names))
    for _, found in page.elements:
        targets = found.get("aria-labelledby", "").split()
        targets += [found["href"][1:]] if found.get("href", "").startswith("#") else []
        assert set(targets) <= set(names)


# What the page says


@pytest.mark.parametrize("verdict", ["equivalent", "different", "undecided"])
def test_the_verdict_opens_the_page(verdict: str, tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, **STATES[verdict])
    page = written(tmp_path, comparison)
    assert [pair.verdict for pair in comparison.pairs] == [verdict]
    opening = page.html[: page.html.index("<nav")]
    known = "no difference shown" if verdict == "undecided" else verdict
    assert f"Accuracy: {known}, n = " in opening
    assert "For a verdict" not in opening  # decided, or out of reach: 200 seeds
    assert comparison.pairs[0].sentence in page.text


def test_what_to_type_for_a_verdict_stands_before_the_details(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, **STATES["one seed"])
    page = written(tmp_path, comparison)
    told = page.html.index("For a verdict: <code>paripassu compare --quick --seeds ")
    assert page.html.index("no difference shown, n = 1") < told
    assert told < page.html.index(comparison.pairs[0].sentence.partition(":")[0])


def test_accuracy_is_bold_only_where_the_verdict_is_different(tmp_path: Path) -> None:
    bold = {
        state: page_of(tmp_path / state, **STATES[state])
        .row("Test accuracy")
        .count("<strong>")
        for state in ("one seed", "equivalent", "different", "undecided")
    }
    assert bold == {"one seed": 0, "equivalent": 0, "different": 1, "undecided": 0}


def test_speed_is_called_from_five_seeds_on(tmp_path: Path) -> None:
    few = page_of(tmp_path / "few", seeds=range(4))
    assert "too few for a verdict on speed" in few.text
    assert "<strong>" not in few.row("Time per epoch")
    enough = page_of(tmp_path / "enough", seeds=range(5))
    assert "TensorFlow trains faster here" in enough.text
    assert enough.row("Time per epoch").count("<strong>") == 1


def test_speed_stays_open_where_the_interval_holds_one(tmp_path: Path) -> None:
    runs = {
        f"{name}-seed{seed}": {"seconds": 40.0 + (seed % 2 == place)}
        for place, name in enumerate(BOTH)
        for seed in range(6)
    }
    page = page_of(tmp_path, seeds=range(6), runs=runs)
    assert "Neither trains faster beyond doubt" in page.text
    assert "<strong>" not in page.row("Time per epoch")


@pytest.mark.parametrize("busy", ["pytorch", "tensorflow"])
@pytest.mark.parametrize(("load", "called"), [(0.10, True), (0.11, False)])
def test_speed_is_not_called_on_a_busy_machine(
    busy: str, load: float, called: bool, tmp_path: Path
) -> None:
    runs = {f"{busy}-seed3": {"other_load": load}}
    comparison = comparison_of(tmp_path, seeds=range(6), runs=runs)
    page = written(tmp_path, comparison)
    assert ("TensorFlow trains faster here" in page.text) == called
    assert ("<strong>" in page.row("Time per epoch")) == called
    assert ("the machine was busy" in page.text) == (not called)
    assert ("no verdict on speed" in "".join(comparison.warnings)) == (not called)
    assert ("An epoch of training took" in page.text) == (not called)
    assert ("up to 11% of it in a run's median epoch" in page.text) == (not called)


def test_a_busy_framework_leaves_the_verdict_on_the_others(tmp_path: Path) -> None:
    runs = {f"jax-seed{seed}": {"other_load": 0.6} for seed in range(6)}
    page = page_of(tmp_path, frameworks=(*BOTH, "jax"), seeds=range(6), runs=runs)
    assert page.text.count("TensorFlow trains faster here") == 1
    assert page.text.count("No verdict on speed.") == 2
    assert "<strong>" not in page.row("Time per epoch")


def test_few_seeds_on_a_busy_machine(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["busy"])
    assert "1 paired seed), but the machine was busy" in page.text
    assert "too few" not in page.text


def test_constants_of_normalisation_are_called_that(tmp_path: Path) -> None:
    dataset = real_dataset(mean=0.5, std=0.25)
    page = page_of(tmp_path, dataset=dataset)
    assert "0.5000, 0.2500" in page.row("Normalised with mean, deviation")


def test_a_damaged_run_is_told_and_the_others_shown(tmp_path: Path) -> None:
    make_comparison(tmp_path, seeds=(1, 2), test_count=COUNT, proof=make_proof())
    path = tmp_path / "runs/pytorch-seed2/predictions.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "proof.json").write_text("{")
    page = written(tmp_path, summarise(tmp_path))
    assert f"{path} cannot be read" in page.section("warnings")
    assert "The proof is left out" in page.section("warnings")
    assert "There is no proof in this comparison" in page.text
    assert "PyTorch is incomplete" in page.text
    assert page.row("Test accuracy").count("n\N{NO-BREAK SPACE}=") == 2


def test_every_figure_has_its_n_and_its_method(tmp_path: Path) -> None:
    many = page_of(tmp_path / "many", **STATES["undecided"])
    for heading in ("Test accuracy", "Time per epoch", "Start-up", "Peak memory"):
        assert many.row(heading).count("n\N{NO-BREAK SPACE}=") == 2
    assert "Student’s t, 95% interval of the mean over seeds" in many.text
    assert "two one-sided paired t tests" in many.text
    assert "BCa bootstrap" in many.text
    single = page_of(tmp_path / "single")
    assert "Wilson 95% interval for one run" in single.text
    assert "exact McNemar test" in single.text
    assert "share of test images that the two answer differently" in single.text


@pytest.mark.parametrize("monitor", ["test", "validation"])
def test_the_page_names_the_monitored_split(monitor: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, monitor=monitor)
    assert f"measured on the {monitor} set" in page.text
    assert "after the last epoch, never the best one" in page.text


def test_a_missing_framework_is_told_with_what_to_type(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["missing"])
    assert "TensorFlow is missing" in page.text
    assert "Type: pip install it" in page.text
    assert "No verdict: only PyTorch has finished runs" in page.text


def test_a_failed_framework_is_told(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["failed"])
    assert "TensorFlow failed" in page.text
    assert "killed: out of memory" in page.text
    partly = page_of(tmp_path / "partly", **STATES["partly failed"])
    assert "TensorFlow is incomplete" in partly.text


def test_without_any_run_there_are_no_figures(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["no runs"])
    assert "No verdict: no run has finished" in page.text
    assert page.all("svg", role="img") == []
    assert 'id="accuracy"' not in page.html


def test_warnings_have_a_section_and_a_pointer_to_it(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["busy"])
    assert "Other programs used more than" in page.section("warnings")
    assert page.all("a", href="#warnings")
    assert 'id="warnings"' not in page_of(tmp_path / "calm").html


def test_a_proof_that_fails_is_loud(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["proof fails"])
    assert "The proof does not hold: 1 of 4 quantities" in page.text
    assert page.section("proof").count("✗ does not hold") == 1
    assert page.section("proof").count("✓ holds") == 3
    assert page.all("details", open="")[0] == {"open": ""}
    opening = page.html[: page.html.index("<nav")]
    assert "The proof does not hold." in opening


def test_a_proof_that_holds_is_quiet(tmp_path: Path) -> None:
    page = page_of(tmp_path, **STATES["equivalent"])
    assert "The proof holds." in page.text
    assert "8.0 × 10⁻¹⁶" in page.section("proof")
    assert "1 × 10⁻¹²" in page.section("proof")


def climbed(**parts: Any) -> dict[str, Any]:
    """A proof with its ladder, its first divergence and its curves."""
    names = ("draws", "forward", "loss and gradients")
    rungs = [
        {
            "rung": number,
            "name": name,
            "claim": f"what <{name}> is",
            "precision": "float64",
            "status": ("holds", "fails", "not run")[number],
            "count": (12, 34, 0)[number],
            "quantity": "evaluation conv2" if number == 1 else None,
            "difference": (0.0, 1e300, None)[number],
            "bound": (0.0, 1e-12, None)[number],
            "note": None,
        }
        for number, name in enumerate(names)
    ]
    divergence = {
        "framework": "tensorflow",
        "rung": 1,
        "precision": "float64",
        "step": 0,
        "layer": "conv2",
        "quantity": "evaluation conv2",
        "difference": 1.05,
        "bound": 1e-12,
        "cause": "the input is padded",
    }
    curves = [
        {
            "label": f"PyTorch and {other}",
            "precision": precision,
            "kind": kind,
            "steps": [1, 10, 100],
            "gaps": gaps,
        }
        for other, precision, kind, gaps in (
            ("TensorFlow", "float64", "frameworks", [0.0, 1e-16, 2e-15]),
            ("itself", "float32", "control", [1e-7, 1e-3, 1e300]),
        )
    ]
    ladder = {"rungs": rungs, "divergence": divergence, "curves": curves}
    return {**make_proof(holds=False), **ladder, **parts}


def test_the_ladder_shows_rungs_first_divergence_and_curves(tmp_path: Path) -> None:
    page = page_of(tmp_path, proof=climbed())
    assert page.problems == []
    section = page.section("proof")
    for said in (
        "1 forward",
        "same bytes",
        "– not run",
        "Where they part first",
        "TensorFlow, rung 1, float64, step 1; 1.1 × 10⁰ where 1 × 10⁻¹² is allowed",
        "the input is padded",
        "How the trainings part",
        "float64: PyTorch and TensorFlow",
        "infinite",
    ):
        assert said in section, said
    assert "what &lt;draws&gt; is" in page.html
    assert page.html.count('class="parting float64 like0"') == 2  # curve and key
    assert page.html.count('class="control float32 like0"') == 2


def test_a_ladder_without_curves_and_divergence_is_whole(tmp_path: Path) -> None:
    page = page_of(tmp_path, proof=climbed(divergence=None, curves=[]))
    assert page.problems == []
    assert "Where they part first" not in page.text
    assert "How the trainings part" not in page.text


def test_the_picture_of_the_proof_is_svg_by_itself(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, proof=climbed())
    assert comparison.proof
    tree = ElementTree.fromstring(divergence.picture(comparison.proof.curves))
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    paths = [x.get("d", "") for x in tree.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 4
    _left, top, _right, bottom = 0, 10, 360, 220
    for path in paths[::2]:
        heights = [float(point.split()[1]) for point in path[1:].split("L")]
        assert all(top <= y <= bottom for y in heights)
        assert heights == sorted(heights, reverse=True)  # gaps only grow: upwards


def test_a_run_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, seeds=(1, 2))
    (tmp_path / "runs/pytorch-seed1/predictions.safetensors").write_bytes(b"?")
    (tmp_path / "runs/pytorch-seed2/run.json").write_text("{")
    page = written(tmp_path, comparison)
    assert "not a whole safetensors file" in page.section("warnings")
    assert "not readable JSON" in page.section("warnings")


# Disagreements


def test_disagreements_have_pictures(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, dataset=real_dataset(), seeds=(1, 2))
    page = written(tmp_path, comparison)
    listed = comparison.pairs[0].disagreements
    assert listed
    pictures = page.all("img")
    assert len(pictures) == len(listed)
    assert pictures[0]["alt"] == f"Test image {listed[0].index}, a {listed[0].label}"


@pytest.mark.parametrize("change", ["sums", "path"])
def test_without_the_data_disagreements_are_listed(change: str, tmp_path: Path) -> None:
    changes = {
        "sums": {"sha256": {"t10k-images-idx3-ubyte": "0" * 64}},
        "path": {"source": str(tmp_path / "gone")},
    }[change]
    comparison = comparison_of(tmp_path / "c", dataset=real_dataset(**changes))
    page = written(tmp_path / "c", comparison)
    assert page.all("img") == []
    assert "The list is here without pictures" in page.text
    found = page.section("disagreements").count("<li>")
    assert found == len(comparison.pairs[0].disagreements) > 0


def test_confusions_count_every_answer(tmp_path: Path) -> None:
    page = page_of(tmp_path, seeds=(1, 2))
    tables = re.findall(r'<table class="matrix.*?</table>', page.html, re.DOTALL)
    assert len(tables) == 2
    for table in tables:
        cells = re.findall(r"<td[^>]*>(\d+)</td>", table)
        assert sum(map(int, cells)) == 2 * COUNT


def test_pictures_are_ink_with_transparency() -> None:
    image = np.arange(28 * 28).reshape(28, 28, 1).astype(np.uint8)
    content = base64.b64decode(png_uri(image).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture)
    assert (pixels[..., 0] == 0).all()
    assert (pixels[..., 1] == image[..., 0]).all()


# Safety


def test_nothing_that_is_quoted_is_markup(tmp_path: Path) -> None:
    """Every text of the comparison and of its records that anybody could choose."""
    environment = make_environment("pytorch", device=HOSTILE, version=HOSTILE)
    environment = environment.model_copy(
        update={
            "processor": HOSTILE,
            "platform": HOSTILE,
            "python": HOSTILE,
            "settings": {HOSTILE: HOSTILE},
            "versions": {"torch": HOSTILE, HOSTILE: HOSTILE},
        }
    )
    comparison = comparison_of(
        tmp_path,
        seeds=(1, 2),
        proof={**make_proof(holds=False), "message": HOSTILE},
        failures={"tensorflow-seed2": HOSTILE},
        environment=environment,
        dataset=make_dataset(COUNT, {HOSTILE: "0" * 64}, [HOSTILE]).model_copy(
            update={"name": HOSTILE, "source": f"/tmp/{HOSTILE}"}
        ),
    )
    table = poisoned(comparison.model_dump())
    page = written(tmp_path, Comparison.model_validate(table))
    assert page.problems == []
    check_self_contained(page)
    assert HOSTILE not in page.html
    assert "<script" not in page.html
    assert page.text.count("alert(1)") > 40
    for drawing in re.findall(r"<svg.*?</svg>", page.html, re.DOTALL):
        ElementTree.fromstring(drawing)


FIXED = {"kind", "status", "verdict", "runs", "left", "right", "created", "method"}


def poisoned(value: Any, key: str = "") -> Any:
    if key in FIXED:
        return value
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    if isinstance(value, dict):
        new = {k: poisoned(v, k) for k, v in value.items()}
        return {**new, HOSTILE: HOSTILE} if key == "recipe" else new
    return value


def test_hostile_names_of_frameworks_are_escaped(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, seeds=(1,))
    table = comparison.model_dump()
    table["frameworks"][HOSTILE] = table["frameworks"].pop("tensorflow")
    table["frameworks"]["../../core/files"] = table["frameworks"][HOSTILE]
    table["pairs"][0]["right"] = HOSTILE
    page = written(tmp_path, Comparison.model_validate(table))
    assert page.problems == []
    check_self_contained(page)
    assert "No lesson is at hand for" in page.text


def test_a_benchmark_in_the_folder_is_in_the_report(tmp_path: Path) -> None:
    assert "of the ceiling" not in page_of(tmp_path / "without").html
    folder = tmp_path / "with"
    comparison = comparison_of(folder)
    (folder / BENCH_FILE).write_text(made_bench().model_dump_json())
    page = written(folder, comparison)
    assert "PyTorch, lesson: 15% of the ceiling" in page.section("time")
    check_self_contained(page)
    check_names(page)
    (folder / BENCH_FILE).write_text("{}")
    page = written(folder, comparison)
    assert "bench.json is damaged" in page.section("warnings")
    assert "lesson: 15%" not in page.html


def test_control_characters_do_not_reach_the_page(tmp_path: Path) -> None:
    message = "\x1b[31mred\x1b[0m \x00 \x85 \ufffe"
    page = page_of(tmp_path, failures={"tensorflow-seed42": message})
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe]", page.html)
    assert "red" in page.text


# Code


def test_all_headings_of_the_lessons_stand_side_by_side(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    code = page.section("code")
    lessons = re.split(r'<section class="lesson">', page.html)[1:]
    found = [re.search(r"<h3>(.*?)</h3>", part) for part in lessons]
    assert [match[1] for match in found if match] == ["Imports", *HEADINGS]
    for part in lessons:
        assert part.count('<div class="pane">') == 2
        assert part.count('<pre class="code"') == 2
        assert part.count('<div class="prose differs">') == 1
        assert "Nothing under this heading" not in part
    assert "The code" in code


def test_sections_of_a_lesson() -> None:
    found = sections(
        "# %% [markdown]\n# # Title\n# One.\n#\n# Two.\n\n# %%\nimport this\n\n"
        "# %% [markdown]\n# ## Data\n# `x` it is.\n\n\n# %%\nx = 1\n\n# %%\ny = 2\n\n"
        "# %% [markdown]\n# More.\n\n# %% [markdown]\n# ## Empty\n"
    )
    assert [(s.heading, s.level) for s in found] == [
        ("Title", 1),
        ("Data", 2),
        ("Empty", 2),
    ]
    assert found[0].prose == "One.\n\nTwo."
    assert found[0].code == "import this"
    assert found[1].prose == "`x` it is.\n\nMore."
    assert found[1].code == "x = 1\n\n\ny = 2"
    assert (found[2].prose, found[2].code) == ("", "")


def test_sections_of_text_without_cells() -> None:
    assert sections("") == []
    assert [(s.heading, s.code) for s in sections("x = 1\n")] == [("", "x = 1")]


@pytest.mark.parametrize("framework", BOTH)
def test_the_sections_hold_the_whole_lesson(framework: str) -> None:
    text = lesson_text(framework)
    assert text is not None
    parts = sections(text)
    assert [part.heading for part in parts[1:]] == HEADINGS
    code = [line for line in text.splitlines() if line and not line.startswith("# ")]
    kept = [line for part in parts for line in part.code.splitlines() if line]
    assert [line for line in kept if not line.startswith("# ")] == [
        line for line in code if line != "#"
    ]


def test_there_is_no_lesson_outside_the_frameworks() -> None:
    assert lesson_text("nobody") is None
    assert lesson_text("../core") is None


# Numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 s"),
        (3.14e-7, "0.31 µs"),
        (0.00041, "410 µs"),
        (0.0123, "12.3 ms"),
        (0.6, "600 ms"),
        (0.9996, "1.00 s"),
        (2.5, "2.50 s"),
        (42.14, "42.1 s"),
        (99.96, "100 s"),
        (458, "458 s"),
        (3600, "60.0 min"),
    ],
)
def test_seconds(value: float, expected: str) -> None:
    assert words.seconds(value) == expected


def test_numbers_in_words() -> None:
    assert words.percent(0.99123) == "99.12%"
    assert words.memory(700 * 2**20) == "700 MiB"
    assert words.memory(24 * 2**30) == "24.00 GiB"
    assert words.scientific(8.2e-16) == "8.2 × 10⁻¹⁶"
    assert words.scientific(0.0) == "0"
    spread = Spread(median=0.5, low=0.4, high=1.2, n=3)
    assert words.seconds_range(spread) == "400 ms to 1.20 s"
    assert words.for_each([("A", "n = 1"), ("B", "n = 1")]) == "Each: n = 1."
    assert words.for_each([("A", "n = 1"), ("B", "n = 2")]) == "A: n = 1. B: n = 2."


@pytest.mark.parametrize("length", [1e-6, 0.003, 0.7, 1, 3, 5, 12, 99, 4567])
def test_ticks_are_round_and_inside(length: float) -> None:
    scale = svg.Scale(0.3, 0.3 + length, 0, 360)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 7
    assert all(tick * (1 + 1e-9) >= 0.3 and tick <= 0.3 + length for tick in ticks)
    step = ticks[1] - ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-3


def test_swarm_keeps_marks_apart() -> None:
    xs = [10.0, 10.0, 10.0, 12.0, 30.0]
    places = list(zip(xs, svg.swarm(xs, 3.2, 12), strict=True))
    for index, (x, y) in enumerate(places):
        for other_x, other_y in places[:index]:
            assert math.hypot(x - other_x, y - other_y) >= 1.55 * 3.2
    assert places[-1] == (30.0, 0.0)


def test_thousands_of_epochs_fit_into_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, seeds=(1, 2), epochs=5000)
    assert len(page.html) < 1_500_000
    assert page.problems == []


# Colours


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(scheme: int) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for marks and lines that carry meaning."""
    css = (files("paripassu.analysis.report") / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w]+): *(#[0-9a-f]{6});", blocks[scheme]))
    for name in ("ink", "soft", "alarm", "keyword", "string", "number", "function"):
        for ground in ("paper", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, name
    for name in ("s0", "s1", "s2", "s3", "s4", "s5"):
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_the_report_is_not_loaded_before_it_is_needed() -> None:
    program = (
        "import sys, paripassu, paripassu.analysis.report\n"
        "heavy = {'jinja2', 'matplotlib', 'pygments', 'scipy', 'torch', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_two_pages_of_the_same_records_are_the_same(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, seeds=(1, 2))
    assert written(tmp_path, comparison).html == written(tmp_path, comparison).html
