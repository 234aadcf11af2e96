"""The ablation: what each difference between two recipes does, and that it adds up."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers import (
    BOTH,
    Running,
    hide_module,
    needs_both,
    run_paripassu,
    skip_without,
    type_here,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from make_records import make_dataset, make_environment
from rich.console import Console

from paripassu.analysis import schema
from paripassu.analysis.ablation import attribution
from paripassu.analysis.ablation.attribution import Ablation, Inquiry, Key
from paripassu.analysis.ablation.differences import (
    NOT_A_DIFFERENCE,
    Walk,
    applied,
    differences,
    walk,
)
from paripassu.analysis.report.waterfall import picture
from paripassu.core import files, record
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe, load, validate
from paripassu.terminal.ablation import ablation_table

needs_pytorch = skip_without("pytorch")

FIRST = Recipe(name="first")
SECOND = FIRST.changed(
    name="second",
    dropout={"dropout1": 0.1, "dropout2": 0.5},
    optimizer={"kind": "adadelta", "rho": 0.95},
)


# What tells recipes apart


def names(start: Recipe, end: Recipe) -> list[str]:
    return [difference.name for difference in differences(start, end)]


def test_notebooks_differ_in_seven_values_in_the_order_of_the_fields():
    found = differences(
        load("article-pytorch-notebook"), load("article-tensorflow-notebook")
    )
    assert {x.name: str(x) for x in found} == {
        "shuffle": "false → true",
        "loss": "cross_entropy_on_logits → cross_entropy_on_probabilities, "
        "so softmax twice → once",
        "initializer.kernel": "fan_in_uniform → glorot_uniform",
        "initializer.bias": "fan_in_uniform → zeros",
        "optimizer.rho": "0.9 → 0.95",
        "optimizer.epsilon": "1e-06 → 1e-07",
        "decay": "interval 1, unit epoch → interval 60000, unit step",
    }


def test_names_seeds_and_sources_are_no_differences():
    other = FIRST.changed(name="other", description="words", seed=7, source="a book")
    with pytest.raises(UserError, match="nothing to explain"):
        differences(FIRST, other)


def test_networks_cannot_be_exchanged():
    with pytest.raises(UserError, match="two recipes of the same network"):
        differences(FIRST, load("lenet5"))


def test_tables_whose_parts_belong_together_change_whole():
    other = FIRST.changed(
        normalization={"mean": 0.0, "std": "computed"},
        decay={"factor": 0.5, "interval": 100.0, "unit": "step"},
        optimizer={"kind": "adam"},
        initializer={"kernel": "zeros", "bias": "fan_in_uniform"},
    )
    found = {x.name: str(x) for x in differences(FIRST, other)}
    assert list(found) == [
        "normalization",
        "initializer.kernel",
        "initializer.bias",
        "optimizer",
        "decay",
    ]
    assert found["optimizer"] == "adadelta → adam"
    assert found["normalization"] == "mean 0.1307, std 0.3081 → mean 0, std computed"


def test_changes_that_hold_only_together_are_one_difference():
    """Taking only the softmax away would leave a loss that wants probabilities."""
    end = FIRST.changed(
        output="probabilities",
        loss="cross_entropy_on_probabilities",
        optimizer={"kind": "adadelta", "rho": 0.95},
        epochs=3,
    )
    assert names(FIRST, end) == ["epochs", "output + loss", "optimizer.rho"]
    assert names(end, FIRST) == ["epochs", "output + loss", "optimizer.rho"]


def recipes() -> st.SearchStrategy[Recipe]:
    optimizer = st.one_of(
        st.fixed_dictionaries(
            {
                "kind": st.just("adadelta"),
                "rho": st.sampled_from([0.9, 0.95]),
                "epsilon": st.sampled_from([1e-6, 1e-7]),
            }
        ),
        st.fixed_dictionaries(
            {"kind": st.just("sgd"), "momentum": st.sampled_from([0.0, 0.9])}
        ),
    )
    tails = [
        ("logits", "cross_entropy_on_logits"),
        ("probabilities", "cross_entropy_on_logits"),
        ("probabilities", "cross_entropy_on_probabilities"),
    ]
    return st.builds(
        lambda tail, **values: validate({**values, "output": tail[0], "loss": tail[1]}),
        tail=st.sampled_from(tails),
        seed=st.integers(0, 3),
        epochs=st.integers(1, 2),
        shuffle=st.booleans(),
        dropout=st.fixed_dictionaries(
            {
                "dropout1": st.sampled_from([0.0, 0.25]),
                "dropout2": st.sampled_from([0.25, 0.5]),
            }
        ),
        decay=st.fixed_dictionaries(
            {
                "interval": st.sampled_from([1.0, 10.0]),
                "unit": st.sampled_from(["epoch", "step"]),
            }
        ),
        optimizer=optimizer,
    )


def decisive(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude=NOT_A_DIFFERENCE)


@settings(deadline=None, max_examples=60)
@given(start=recipes(), end=recipes())
def test_all_differences_make_one_recipe_the_other(start: Recipe, end: Recipe):
    if decisive(start) == decisive(end):
        return
    found = differences(start, end)
    assert decisive(applied(start, found)) == decisive(end)
    way = walk(start, end)
    count = len(found)
    assert len({stop.recipe.hash() for stop in way.stops}) == 2 * count
    assert {stop.recipe.seed for stop in way.stops} == {start.seed}
    ends = way.stops[way.start].recipe, way.stops[way.end].recipe
    assert list(map(decisive, ends)) == [decisive(start), decisive(end)]
    assert (way.back[0], way.back[-1]) == (way.end, way.start)
    for number, difference in enumerate(found):
        for one, other in (
            way.forward[number : number + 2],
            reversed(way.back[number : number + 2]),
        ):
            before, after = way.stops[one].recipe, way.stops[other].recipe
            assert decisive(applied(before, [difference])) == decisive(after)
            assert set(way.stops[other].taken) == {*way.stops[one].taken, number}


# What the runs say


def make_record(
    framework: str,
    recipe: Recipe,
    accuracy: float,
    loss: float | None = 0.1,
    first: float = 0.5,
    **environment: Any,
) -> record.RunRecord:
    epoch = record.Epoch(
        epoch=1,
        session=0,
        seconds=1,
        evaluation_seconds=1,
        learning_rate=1,
        training_loss=1,
        training_accuracy=0.5,
        monitor_loss=1,
        monitor_accuracy=first,
        other_load=0,
    )
    return record.RunRecord(
        status="finished",
        framework=framework,
        recipe=recipe.model_dump(),
        recipe_hash=recipe.hash(),
        dataset=make_dataset(),
        environment=make_environment(framework, **environment),
        command="made up",
        monitor="validation" if recipe.validation_size else "test",
        sessions=[],
        epochs=[epoch],
        result=record.Result(
            test_loss=1,
            test_accuracy=accuracy,
            test_correct=1,
            test_count=2,
            test_cross_entropy=loss,
        ),
    )


Value = Callable[[str, frozenset[int], int], float]  # framework, taken, seed


def made_up(
    way: Walk,
    value: Value,
    *,
    framework: str = "pytorch",
    frameworks: tuple[str, ...] = BOTH,
    seeds: tuple[int, ...] = (0, 1, 2),
    without: set[Key] | None = None,
    change: Mapping[Key, Any] | None = None,
) -> Ablation:
    inquiry = Inquiry(way, framework, frameworks, seeds, {"images": "0" * 64})
    records = {}
    for name, stop in inquiry.cells:
        for seed in seeds:
            if (name, stop, seed) in (without or set()):
                continue
            taken = frozenset(way.stops[stop].taken)
            recipe = way.stops[stop].recipe.changed(seed=seed)
            found = value(name, taken, seed)
            records[name, stop, seed] = make_record(
                name,
                recipe,
                **{
                    "accuracy": found,
                    "loss": 10 * found,
                    "first": found / 2,
                    **(change or {}).get((name, stop, seed), {}),
                },
            )
    return attribution.attribute(inquiry, records)


SIZES = {0: 0.03, 1: -0.01, 2: 0.005}
THREE = FIRST.changed(
    name="three",
    epochs=2,
    dropout={"dropout1": 0.1, "dropout2": 0.5},
    optimizer={"kind": "adadelta", "rho": 0.95},
)


def additive(framework: str, taken: frozenset[int], seed: int) -> float:
    """Effects that do not depend on each other, a level of each seed."""
    offset = 0.002 if framework == "tensorflow" else 0.0
    return 0.9 + 0.004 * seed + offset + sum(SIZES[x] for x in taken)


def test_additive_effects_are_found_again_and_add_up():
    ablation = made_up(walk(FIRST, THREE), additive)
    assert ablation.complete == [0, 1, 2]
    assert ablation.notes == [
        "The number of epochs is one of the differences: test accuracy and loss are "
        "taken after each stop's own last epoch."
    ]
    for number, effects in enumerate(ablation.effects):
        for metric, factor in (
            ("test_accuracy", 1),
            ("test_cross_entropy", 10),
            ("first_epoch_accuracy", 0.5),
        ):
            effect = effects[metric]
            for way in (effect.both, effect.forward, effect.back):
                assert way.mean == pytest.approx(factor * SIZES[number])
                assert (way.n, way.method) == (3, "all values equal")
            assert effect.order.mean == pytest.approx(0, abs=1e-12)
    total = ablation.total["test_accuracy"]
    assert total.mean == pytest.approx(sum(SIZES.values()))
    level = ablation.level("pytorch", "FROM")["test_accuracy"]
    assert level.mean == pytest.approx(0.904)
    half = 4.302653 * 0.004 / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert level.low == pytest.approx(0.904 - half, abs=1e-8)
    assert level.high == pytest.approx(0.904 + half, abs=1e-8)
    assert [x.figures["test_accuracy"].mean for x in ablation.framework_effects] == [
        pytest.approx(0.002)
    ] * 2
    (gap,) = ablation.gaps
    assert (gap.start_framework, gap.end_framework) == BOTH
    assert gap.figures["test_accuracy"].mean == pytest.approx(0.027)
    assert gap.rest["test_accuracy"].mean == pytest.approx(0.002)


def test_rest_is_the_same_story_in_the_other_framework():
    """Then it is the frameworks' difference at FROM, not at TO."""

    def value(framework: str, taken: frozenset[int], seed: int) -> float:
        more = 0.01 if framework == "tensorflow" and taken else 0.0
        return additive(framework, taken, seed) + more

    way = walk(FIRST, SECOND)
    rests = {
        name: made_up(way, value, framework=name).gaps[0].rest["test_accuracy"].mean
        for name in BOTH
    }
    assert rests["pytorch"] == pytest.approx(0.012)
    assert rests["tensorflow"] == pytest.approx(0.002)


def test_differences_that_work_together_show_in_the_order_effect():
    both_ways = 0.006

    def value(_name: str, taken: frozenset[int], seed: int) -> float:
        noise = 0.001 * seed * len(taken)
        return 0.9 + 0.03 * (0 in taken) + both_ways * (len(taken) == 2) + noise

    ablation = made_up(walk(FIRST, SECOND), value, seeds=(0, 1))
    one, other = (effects["test_accuracy"] for effects in ablation.effects)
    assert one.forward.mean == pytest.approx(0.03 + 0.0005)
    assert one.back.mean == pytest.approx(0.03 + both_ways + 0.0005)
    assert one.order.mean == pytest.approx(-both_ways)
    assert other.forward.mean == pytest.approx(both_ways + 0.0005)
    assert other.back.mean == pytest.approx(0.0005)
    assert other.order.mean == pytest.approx(both_ways)
    half = 12.7062047 * math.sqrt(2) * 0.0005 / math.sqrt(2)  # 1 degree of freedom
    assert one.both.mean == pytest.approx(0.03 + both_ways / 2 + 0.0005)
    assert one.both.high - one.both.mean == pytest.approx(half, rel=1e-6)
    total = ablation.total["test_accuracy"].mean
    assert one.both.mean + other.both.mean == pytest.approx(total)
    assert shown(ablation).count("†") == 1  # explained, and used nowhere


def test_order_effect_is_marked_once_its_interval_excludes_zero():
    def value(_name: str, taken: frozenset[int], seed: int) -> float:
        return 0.9 + (0.05 + 0.0001 * seed) * (len(taken) == 2)

    ablation = made_up(walk(FIRST, SECOND), value, seeds=(0, 1, 2))
    text = shown(ablation)
    assert text.count("†") == 3  # both rows, and the explanation
    assert "interacts with others" in text.replace("\n", " ")


def test_only_difference_has_no_order():
    way = walk(FIRST, FIRST.changed(epochs=3))
    assert len(way.stops) == 2
    effect = made_up(way, additive).effects[0]["test_accuracy"]
    assert effect.order is None
    assert effect.forward == effect.back == effect.both


def test_seed_without_a_run_counts_nowhere():
    way = walk(FIRST, SECOND)
    ablation = made_up(way, additive, without={("pytorch", 1, 2)}, seeds=(0, 1, 2))
    assert ablation.complete == [0, 1]
    assert "the 2 of 3 seeds that have all runs" in " ".join(ablation.notes)
    estimates = [
        estimate
        for effects in ablation.effects
        for effect in effects.values()
        for estimate in (effect.both, effect.forward, effect.back)
    ]
    estimates += [*ablation.total.values(), *ablation.gaps[0].rest.values()]
    assert {estimate.n for estimate in estimates} == {2}
    assert len(ablation.stops[0].runs) == 6  # kept in the file all the same


def test_stop_that_always_fails_leaves_what_does_not_need_it():
    way = walk(FIRST, SECOND)
    without = {("pytorch", way.forward[1], seed) for seed in (0, 1, 2)}
    ablation = made_up(way, additive, without=without)
    assert ablation.complete == []
    assert "may not add up" in " ".join(ablation.notes)
    for number, effects in enumerate(ablation.effects):
        effect = effects["test_accuracy"]
        assert (effect.both, effect.forward, effect.order) == (None, None, None)
        assert effect.back.mean == pytest.approx(SIZES[number])
    assert ablation.total["test_accuracy"].n == 3
    assert "–" in shown(ablation)
    assert "not known" in picture(ablation)


def test_without_the_other_framework_there_is_no_rest():
    ablation = made_up(walk(FIRST, SECOND), additive, frameworks=("pytorch",))
    assert (ablation.gaps, ablation.framework_effects) == ([], [])
    assert "rest" not in shown(ablation)


def test_three_frameworks_have_three_gaps():
    def value(framework: str, taken: frozenset[int], seed: int) -> float:
        more = 0.001 if framework == "toy" else 0.0
        return additive(framework, taken, seed) + more

    ablation = made_up(walk(FIRST, SECOND), value, frameworks=(*BOTH, "toy"))
    rests = {
        (gap.start_framework, gap.end_framework): gap.rest["test_accuracy"].mean
        for gap in ablation.gaps
    }
    # Of the frameworks, less the total in PyTorch: the second's offset at TO, less the
    # first's at FROM.
    assert rests == {
        ("pytorch", "tensorflow"): pytest.approx(0.002),
        ("pytorch", "toy"): pytest.approx(0.001),
        ("tensorflow", "toy"): pytest.approx(-0.001),
    }
    text = shown(ablation)
    assert text.count("unexplained rest, gap − total") == 3
    assert "gap, TO in Toy − FROM in TensorFlow" in text
    drawn = picture(ablation)
    ElementTree.fromstring(drawn)
    assert "TO in Toy − FROM in PyTorch" in drawn


def test_a_record_of_one_gap_is_read():
    ablation = made_up(walk(FIRST, SECOND), additive)
    older = ablation.model_dump()
    (older["gap"],) = older.pop("gaps")
    assert Ablation.model_validate(older) == ablation
    assert Ablation.model_validate({**older, "gap": None}).gaps == []


def test_metric_that_some_run_lacks_is_left_out():
    way = walk(FIRST, SECOND)
    ablation = made_up(way, additive, change={("pytorch", 1, 1): {"loss": None}})
    assert ablation.metrics == ["test_accuracy", "first_epoch_accuracy"]
    assert "test loss is left out" in " ".join(ablation.notes)
    assert "test loss" not in shown(ablation).partition("n = ")[0]
    assert "Test loss" not in picture(ablation)


def test_first_epochs_on_different_images_are_not_compared():
    ablation = made_up(walk(FIRST, SECOND.changed(validation_size=50)), additive)
    assert "first_epoch_accuracy" not in ablation.metrics
    assert "not always measured on the same images" in " ".join(ablation.notes)
    same = [x.changed(validation_size=50) for x in (FIRST, SECOND)]
    ablation = made_up(walk(*same), additive)
    assert "first_epoch_accuracy" in ablation.metrics
    assert "on the validation images" in " ".join(ablation.notes)


def test_runs_of_several_versions_are_told():
    way = walk(FIRST, SECOND)
    change = {("pytorch", 1, 1): {"version": "1.0"}}
    notes = made_up(way, additive, change=change).notes
    assert "in PyTorch were not all made on the same versions" in " ".join(notes)


def test_ablation_can_be_read_back(tmp_path):
    ablation = made_up(walk(FIRST, SECOND), additive)
    attribution.save(tmp_path, ablation)
    assert attribution.load(tmp_path) == ablation
    assert json.loads(schema.document(attribution.Ablation))["title"] == "Ablation"


# How it is shown


def shown(ablation: Ablation, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(ablation_table(ablation))
    return console.export_text()


def test_table_has_a_row_for_every_difference_and_what_is_left():
    text = shown(made_up(walk(FIRST, SECOND), additive))
    for words in (
        "FROM first TO second, in PyTorch",
        "dropout.dropout1",
        "0.25 → 0.1",
        "optimizer.rho",
        "+3.00",
        "−1.00",
        "total, TO − FROM",
        "FROM in TensorFlow − in PyTorch",
        "gap, TO in TensorFlow − FROM in PyTorch",
        "unexplained rest, gap − total",
        "n = 3 seeds (0 to 2)",
    ):
        assert words in text
    row = next(x for x in text.splitlines() if x.startswith("unexplained rest"))
    assert re.findall(r"[+−]?\d[\d.]*", row) == ["+0.20", "+0.0200", "+0.10"]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [x.text or "" for x in root.iter("{http://www.w3.org/2000/svg}text")]


def test_picture_has_three_panels_with_every_label():
    found = texts(picture(made_up(walk(FIRST, SECOND), additive)))
    for label in ("FROM first", "TO second", "dropout.dropout1", "optimizer.rho"):
        assert found.count(label) == 3
    assert "0.25 → 0.1" in found
    assert found.count("PyTorch 93.40%") == 0
    assert "PyTorch 90.40%" in found
    assert any("unexplained rest +0.20" in x for x in found)


def test_labels_in_the_picture_are_escaped():
    ablation = made_up(walk(FIRST, SECOND), additive)
    change = ablation.differences[0].changes[0]
    strange = change.model_copy(update={"key": "<b>&\"'", "after": "<script>"})
    difference = ablation.differences[0].model_copy(update={"changes": [strange]})
    svg = picture(
        ablation.model_copy(
            update={
                "start": {**ablation.start, "name": "<i>"},
                "differences": [difference, *ablation.differences[1:]],
            }
        )
    )
    assert "<script" not in svg
    found = texts(svg)
    assert found.count("<b>&\"'") == 3
    assert "0.25 → <script>" in found
    assert found.count("FROM <i>") == 3


@pytest.mark.parametrize("size", [1e-5, 0.5, 0.0])
def test_picture_holds_small_and_large_effects(size):
    def value(_name: str, taken: frozenset[int], _seed: int) -> float:
        return 0.2 + size * (0 in taken)

    found = texts(picture(made_up(walk(FIRST, SECOND), value)))
    ticks = [x for x in found if re.fullmatch(r"-?[\d.]+%", x)]
    assert len(ticks) >= 6


def test_picture_of_nothing_yet_is_whole():
    way = walk(FIRST, SECOND)
    ablation = attribution.attribute(Inquiry(way, "pytorch", BOTH, (0,), {}), {})
    assert any("No run" in x for x in texts(picture(ablation)))
    assert "–" in shown(ablation)


def test_no_text_of_the_picture_leaves_it(tmp_path):
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: type 'apt-get update && apt-get install chromium'")
    api = pytest.importorskip("playwright.sync_api")
    way = walk(load("article-pytorch-notebook"), load("article-tensorflow-notebook"))

    def value(_name: str, taken: frozenset[int], seed: int) -> float:
        return 0.9 + 0.01 * len(taken) + 0.01 * ((seed * 7 + len(taken) * 5) % 3)

    page_file = tmp_path / "page.html"
    page_file.write_text(
        "<body style='margin:0'>" + picture(made_up(way, value, seeds=(0, 1)))
    )
    boxes = "[...document.querySelectorAll('text')].map(x => [x.textContent, "
    boxes += "x.getBBox().x, x.getBBox().y, x.getBBox().width, x.getBBox().height])"
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 720, "height": 800})
        page.goto(page_file.as_uri())
        found = page.evaluate(boxes)
        browser.close()
    assert len(found) > 60
    for text, x, _y, wide, _high in found:
        assert x >= 0, text
        assert x + wide <= 720, text
    for number, (text, x, y, wide, high) in enumerate(found):
        for other, x2, y2, wide2, high2 in found[number + 1 :]:
            apart = x + wide <= x2 or x2 + wide2 <= x
            # Lines of text may lie as close as their line height.
            apart = apart or y + high <= y2 + 2 or y2 + high2 <= y + 2
            assert apart, (text, other)


# Real runs


def write_recipe(path: Path, recipe: Recipe) -> Path:
    path.write_text(recipe.to_toml())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The recipes to walk between, and a place that hides TensorFlow."""
    folder = tmp_path_factory.mktemp("ablation")
    write_recipe(folder / "first.toml", FIRST)
    write_recipe(folder / "second.toml", SECOND)
    hide_module(folder / "hidden", "tensorflow")
    return folder


def words(folder: Path, data: Path, out: Path, *more: object) -> list[object]:
    ends = [folder / "first.toml", folder / "second.toml"]
    fixed = ["--epochs", 1, "--seeds", 1, "--no-proof", "--data", data, "--out", out]
    return ["ablate", *ends, *fixed, *more]


@pytest.fixture(scope="module")
def walked(folder, tiny) -> tuple[Path, Ablation]:
    """Two differences, one seed, PyTorch alone: four short runs."""
    out = folder / "walked"
    done = run_paripassu(*words(folder, tiny, out, "--json"), path=folder / "hidden")
    assert done.returncode == 0, done.stderr
    ablation = attribution.load(out)
    assert json.loads(done.stdout) == ablation.model_dump()
    assert "4/4 PyTorch seed 42" in done.stderr
    assert "TensorFlow is not installed" in " ".join(done.stderr.split())
    return out, ablation


def without_command(ablation: Ablation) -> Ablation:
    return ablation.model_copy(update={"command": ""})


@needs_pytorch
def test_every_stop_is_trained_once(walked):
    out, ablation = walked
    assert [x.name for x in ablation.differences] == [
        "dropout.dropout1",
        "optimizer.rho",
    ]
    assert [len(stop.runs) for stop in ablation.stops] == [1, 1, 1, 1]
    for stop in ablation.stops:
        run = record.load_record(out / "runs" / stop.runs[0].run)
        assert run.environment.threads == 1
        dropout, rho = run.recipe["dropout"]["dropout1"], run.recipe["optimizer"]["rho"]
        assert dropout == (0.1 if 0 in stop.taken else 0.25)
        assert rho == (0.95 if 1 in stop.taken else 0.9)
        assert run.result.test_accuracy == stop.runs[0].test_accuracy
        assert run.result.test_cross_entropy == stop.runs[0].test_cross_entropy > 0
    values = {stop.label: stop.runs[0].test_accuracy for stop in ablation.stops}
    total = ablation.total["test_accuracy"]
    assert total.mean == pytest.approx(values["TO"] - values["FROM"])
    assert (total.low, total.n) == (None, 1)
    one = ablation.effects[0]["test_accuracy"]
    assert one.forward.mean == pytest.approx(
        values["+ dropout.dropout1"] - values["FROM"]
    )
    assert one.back.mean == pytest.approx(values["TO"] - values["− dropout.dropout1"])
    assert ablation.gaps == []
    assert "TensorFlow is not installed" in ablation.notes[-1]
    ElementTree.fromstring((out / "waterfall.svg").read_text())


@needs_pytorch
def test_same_command_trains_nothing_anew(walked, folder, tiny):
    out, _ablation = walked
    before = (out / "ablation.json").read_bytes()
    times = [x.stat().st_mtime_ns for x in sorted((out / "runs").glob("*/*"))]
    again = run_paripassu(*words(folder, tiny, out, "--json"), path=folder / "hidden")
    assert again.returncode == 0, again.stderr
    assert "4 runs already finished" in again.stderr
    assert (out / "ablation.json").read_bytes() == before
    assert [x.stat().st_mtime_ns for x in sorted((out / "runs").glob("*/*"))] == times


@needs_pytorch
def test_run_is_known_by_its_record_alone(walked, folder, tiny):
    """Red before: nothing but `run.json` is committed of a record's runs."""
    out, ablation = walked
    copy = folder / "records"
    for path in (out / "runs").glob("*/run.json"):
        there = copy / "runs" / path.parent.name
        there.mkdir(parents=True)
        shutil.copy(path, there)
    done = run_paripassu(*words(folder, tiny, copy), path=folder / "hidden")
    assert done.returncode == 0, done.stderr
    assert without_command(attribution.load(copy)) == without_command(ablation)
    left = {x.name for x in (copy / "runs").glob("*/*")}
    assert left == {"run.json"}
    assert "total, TO − FROM" in done.stdout
    assert "picture: " in done.stdout


@needs_pytorch
def test_other_recipes_and_other_data_do_not_take_a_ablations_place(
    walked, folder, tiny, small
):
    out, _ablation = walked
    before = (out / "ablation.json").read_bytes()
    for more, data in (
        (["--set", "batch_size=7"], tiny),
        ([], small),
    ):
        refused = type_here(*words(folder, data, out, *more))
        assert refused.returncode == 2, refused.stderr
        assert "holds another ablation" in " ".join(refused.stderr.split())
    assert (out / "ablation.json").read_bytes() == before


@needs_pytorch
def test_damaged_record_is_told_before_anything_is_trained(walked, folder, tiny):
    _out, ablation = walked
    copy = folder / "damaged"
    name = ablation.stops[0].runs[0].run
    (copy / "runs" / name).mkdir(parents=True)
    (copy / "runs" / name / "run.json").write_text("{")
    refused = type_here(*words(folder, tiny, copy))
    assert refused.returncode == 2
    assert "that run is then repeated" in " ".join(refused.stderr.split())
    assert [x.name for x in (copy / "runs").iterdir()] == [name]


@pytest.mark.slow
@needs_pytorch
def test_failing_stop_is_told_and_the_others_go_on(walked, folder, tiny, tmp_path):
    earlier, ablation = walked
    diverging = SECOND.changed(
        name="diverging", optimizer={"kind": "adadelta", "learning_rate": 1e38}
    )
    out = tmp_path / "out"
    known = next(stop for stop in ablation.stops if stop.label == "FROM").runs[0].run
    shutil.copytree(earlier / "runs" / known, out / "runs" / known)
    typed = words(folder, tiny, out)
    typed[1] = write_recipe(tmp_path / "diverging.toml", diverging)
    typed[2] = folder / "first.toml"
    done = run_paripassu(*typed, path=folder / "hidden")
    assert done.returncode == 1, done.stderr
    found = attribution.load(out)
    finished = {stop.label: stop.runs[0] for stop in found.stops if stop.runs}
    assert list(finished) == ["TO", "− dropout.dropout1"]
    assert list(finished.values()) == [
        stop.runs[0] for stop in ablation.stops if 1 not in stop.taken
    ]
    assert len(found.failures) == 2
    assert all("diverged" in text for text in found.failures.values())
    assert "failed: PyTorch seed 42, FROM: " in done.stdout
    effect = found.effects[0]["test_accuracy"]
    assert effect.back is not None
    assert (effect.both, found.total["test_accuracy"]) == (None, None)
    ElementTree.fromstring((out / "waterfall.svg").read_text())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["article", "lenet5"], "two recipes of the same network"),
        (["article", "article"], "nothing to explain"),
        (["article", "nowhere"], "no recipe 'nowhere'"),
        (["--framework", "numpy"], "trains nothing"),
        (["--framework", "pytroch"], "Did you mean pytorch?"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--set", "optimizer.rho=2"], "optimizer.rho"),
        (["--set", "seed=2147483647", "--seeds", "2"], "seed"),
        (["--set", "validation_size=60000"], "validation_size"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
@needs_pytorch
def test_bad_input_is_told_before_anything_is_trained(more, said, tmp_path):
    done = type_here("ablate", *more, "--no-proof", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_chosen_framework_must_be_there(tmp_path):
    hidden = hide_module(tmp_path / "hidden", "tensorflow")
    done = run_paripassu(
        "ablate", "--framework", "tensorflow", cwd=tmp_path, path=hidden
    )
    assert done.returncode == 2
    assert "TensorFlow is not installed" in done.stderr


@needs_pytorch
def test_folder_has_one_owner(folder, tiny, tmp_path):
    with files.owned(files.make_folder(tmp_path / "out")):
        done = type_here(*words(folder, tiny, tmp_path / "out"))
    assert done.returncode == 2
    assert "in use by another process" in " ".join(done.stderr.split())
    assert not list((tmp_path / "out").glob("runs/*"))


@pytest.mark.slow
@needs_both
def test_with_both_frameworks_and_a_proof(folder, tiny, tmp_path):
    out = tmp_path / "out"
    typed = [x for x in words(folder, tiny, out) if x != "--no-proof"]
    typed += ["--set", "batch_size=16", "--framework", "tensorflow"]
    done = run_paripassu(*typed)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "proof on first: holds on" in said
    assert "proof on second: holds on" in said
    ablation = attribution.load(out)
    assert ablation.framework == "tensorflow"
    assert ablation.proofs == {"FROM": True, "TO": True}
    counts = [[run.framework for run in stop.runs] for stop in ablation.stops]
    assert counts == [[*BOTH], ["tensorflow"], [*BOTH], ["tensorflow"]]
    at_start = next(x for x in ablation.framework_effects if x.end == "FROM")
    assert ablation.gaps[0].rest["test_accuracy"].mean == pytest.approx(
        -at_start.figures["test_accuracy"].mean
    )
    # Another framework finds its end points trained already.
    typed[-1] = "pytorch"
    done = run_paripassu(*typed)
    assert done.returncode == 0, done.stderr
    assert "4 runs already finished" in done.stderr
    assert "proof on first: holds already" in done.stderr
    other = attribution.load(out)
    assert other.gaps[0].figures == ablation.gaps[0].figures


@pytest.mark.slow
@needs_pytorch
def test_interrupted_ablation_goes_on(walked, folder, tiny, tmp_path, monkeypatch):
    _out, ablation = walked
    monkeypatch.setenv("PYTHONPATH", str(folder / "hidden"))
    out = tmp_path / "out"
    typed = words(folder, tiny, out)

    def first_is_finished() -> bool:
        return any(
            '"status": "finished"' in x.read_text()
            for x in (out / "runs").glob("*/run.json")
        )

    with Running(*typed, log=tmp_path / "log") as running:
        running.wait_for(first_is_finished, "the first run")
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert "type the same command again" in " ".join(running.errors.split())
    assert attribution.load(out).stops  # what there was is told
    again = run_paripassu(*typed)
    assert again.returncode == 0, again.stderr
    assert re.search(r"[123] runs? already finished", again.stderr)
    assert attribution.load(out).stops == ablation.stops
