"""Studies: what a file says, how long it takes, and what the runs say together."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers import skip_without, type_here
from hypothesis import given
from hypothesis import strategies as st
from make_records import make_run

from paripassu.analysis.report import study_page
from paripassu.analysis.study.forecast import forecast, operations, took
from paripassu.analysis.study.results import Key, Plan, Study, judge
from paripassu.core import record
from paripassu.core.errors import UserError
from paripassu.core.recipe import built_in, load
from paripassu.studies import plan_file
from paripassu.terminal.study import study_table

ROOT = Path(__file__).parents[2]
ONE = 'recipes = ["fast"]\nframeworks = ["pytorch", "tensorflow"]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, **more: Any) -> Plan:
    return plan_file.read(written(folder, text), **more)


@pytest.fixture(autouse=True)
def all_installed(monkeypatch):
    """What a plan says does not depend on what is installed here."""
    from paripassu.frameworks.registry import Framework

    monkeypatch.setattr(Framework, "problem", None)


# What a file says


def test_a_grid_is_every_combination_and_seeds_are_the_recipe_s(tmp_path):
    text = ONE + (
        'seeds = 2\nset = ["epochs=3"]\n[grid]\n'
        'batch_size = [50, 100]\n"optimizer.learning_rate" = [0.004, 0.008]\n'
    )
    plan = read(tmp_path, text)
    rates = [
        (x.recipe.batch_size, x.recipe.optimizer.learning_rate) for x in plan.variants
    ]
    assert rates == [(50, 0.004), (50, 0.008), (100, 0.004), (100, 0.008)]
    assert {x.recipe.epochs for x in plan.variants} == {3}
    assert (
        plan.variants[0].title == "fast, batch_size=50, optimizer.learning_rate=0.004"
    )
    assert {x.seeds for x in plan.variants} == {(42, 43)}
    assert len(plan.keys) == len(set(plan.keys)) == 4 * 2 * 2
    assert {seed for _, _, seed in plan.keys[:8]} == {42}  # pairs end early
    assert plan.name == "study"


def test_epochs_that_are_typed_hold_for_all(tmp_path):
    plan = read(tmp_path, ONE + 'set = ["epochs=3"]', epochs=1)
    assert {x.recipe.epochs for x in plan.variants} == {1}


def test_recipes_beside_the_file_and_all_built_in(tmp_path):
    (tmp_path / "mine.toml").write_text(
        load("fast", ["name=mine", "batch_size=50"]).to_toml()
    )
    plan = read(tmp_path, 'recipes = ["mine.toml", "built-in"]\nseeds = [7, 9]')
    assert [x.recipe.name for x in plan.variants] == ["mine", *built_in()]
    assert {x.seeds for x in plan.variants} == {(7, 9)}


@given(
    value=st.recursive(
        st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
        max_leaves=5,
    )
)
def test_a_value_of_the_grid_is_what_is_typed_after_set(value):
    text = plan_file._setting("key", value)
    assert tomllib.loads(text) == {"key": value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "recipes: Field required. A study has name, description, recipes"),
        ("recipes = []", "recipes: List should have at least 1 item"),
        ('recipes = ["fast"', "is not TOML"),
        ("recipes = 1", "recipes: Input should be a valid list"),
        (ONE + "colour = 1", "colour: Extra inputs are not permitted"),
        (ONE + 'name = "../x"', "name: String should match"),
        (ONE + "seeds = 0", "seeds"),
        (ONE + "seeds = []", "seeds"),
        (ONE + "seeds = 10000\n[grid]\nepochs = [1,2,3,4,5,6]", "more than 100,000"),
        ('recipes = ["fats"]', "Did you mean fast"),
        ('recipes = ["fast"]\nframeworks = ["torhc"]', "Did you mean torch"),
        ('recipes = ["fast"]\nframeworks = ["numpy"]', "there is nothing to run"),
        (ONE + "[grid]\nbatch_size = []", "grid.batch_size"),
        (ONE + "[grid]\nbatch_size = [0]", "batch_size"),
        (ONE + '[grid]\n"optimizer.rho" = [0.9]', "rho"),
        (ONE + "[grid]\nbatch_size = [50, 50]", "are the same runs"),
        (ONE + "name = " + "[" * 5000, "is nested too deep"),
    ],
)  # fmt: skip
def test_what_is_no_study_is_told(text, said, tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


def test_a_study_that_is_not_there_is_told(tmp_path):
    done = type_here("study", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "no study" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_recipe_book_is_a_study():
    plan = plan_file.read(ROOT / "studies" / "book.toml")
    assert [x.recipe.name for x in plan.variants] == built_in()
    assert all(plan.frameworks)


# How long it takes


def records(
    plan: Plan, out: Path, count: int, seconds: float = 10.0
) -> dict[Key, record.RunRecord]:
    return {
        key: make_run(
            out / str(number),
            key[1],
            key[2],
            seconds=seconds * (1 + key[0]),
            epochs=1,
        )
        for number, key in enumerate(plan.keys[:count])
    }


def test_finished_runs_say_how_long_the_others_take(tmp_path):
    plan = read(tmp_path, ONE + "seeds = 3\n[grid]\nbatch_size = [50, 100]")
    known = records(plan, tmp_path, 2)  # seed 42 of the first variant, both frameworks
    found = forecast(plan, known, 60000, 1)
    assert len(found.seconds) == len(plan.keys) - 2
    assert found.known == len(found.seconds)
    for (number, name, _), seconds in found.seconds.items():
        if number == 0:
            assert seconds == took(known[0, name, 42])
        else:  # as many operations: about as long
            assert seconds == pytest.approx(took(known[0, name, 42]), rel=0.6)
    guess = forecast(plan, {}, 60000, 2)
    assert guess.known == 0
    more = forecast(plan, {}, 120000, 2)
    assert more.total > guess.total
    assert operations(plan.variants[0].recipe, 60000) > 0


def test_so_many_at_once_take_so_much_less(tmp_path):
    plan = read(tmp_path, ONE + "seeds = 4")
    found = forecast(plan, {}, 60000, 1)
    assert found.lasts(1) == pytest.approx(found.total)
    assert found.lasts(2) == pytest.approx(found.total / 2)
    assert found.lasts(100) == pytest.approx(max(found.seconds.values()))
    assert forecast(plan, records(plan, tmp_path, 8), 60000, 1).lasts(2) == 0


# What the runs say


def test_cells_and_verdicts_are_of_the_finished_runs(tmp_path):
    plan = read(
        tmp_path, ONE + "seeds = 6\ntimed = true\n[grid]\nbatch_size = [50, 100]"
    )
    nothing = judge(plan, {}, data={})
    assert (nothing.done, nothing.planned) == (0, 24)
    assert all(x.accuracy is None for x in nothing.cells)
    assert {x.verdict for x in nothing.matches} == {"undecided"}
    known = records(plan, tmp_path, 24)
    found = judge(plan, known, data={"a": "b"}, failures={"run": "it diverged"})
    assert Study.model_validate_json(found.model_dump_json()) == found
    cell = found.cells[0]
    assert (cell.recipe, cell.settings, cell.framework) == (
        "fast",
        ["batch_size=50"],
        "pytorch",
    )
    shares = [known[0, "pytorch", seed].result.test_accuracy for seed in cell.seeds]
    assert cell.accuracy
    assert cell.accuracy.mean == pytest.approx(sum(shares) / 6)
    assert cell.published_accuracy == load("fast").published_accuracy
    assert cell.epoch_seconds
    assert [x.left for x in found.matches] == ["pytorch", "pytorch"]
    difference = found.matches[0].difference
    assert difference
    assert difference.n == 6
    for drawn in (nothing, found):
        ElementTree.fromstring(study_page.picture(drawn))
        page = study_page.page(drawn)
        assert "<h2>Accuracy</h2>" in page
        assert study_table(drawn)
    assert "it diverged" in study_page.page(found)
    assert f"{100 * cell.accuracy.mean:.2f}%" in study_page.page(found)


def test_times_are_of_one_kind_of_machine_and_accuracy_is_of_all(tmp_path):
    plan = read(tmp_path, ONE + "seeds = 3\ntimed = true")
    known = records(plan, tmp_path, 6)
    alone = judge(plan, known, data={})
    odd = known[0, "pytorch", 42]
    other = odd.environment.model_copy(update={"processor": "AMD"})
    slow = [x.model_copy(update={"seconds": 1e6}) for x in odd.epochs]
    update = {"environment": other, "epochs": slow}
    mixed = judge(
        plan, {**known, (0, "pytorch", 42): odd.model_copy(update=update)}, data={}
    )
    assert mixed.cells[0].accuracy == alone.cells[0].accuracy
    assert mixed.cells[0].epoch_seconds
    assert mixed.cells[0].epoch_seconds.n == 2
    assert mixed.cells[0].epoch_seconds.high < 1e6
    assert "1 of 6 runs were made on others" in mixed.notes[0]


def test_text_from_outside_is_no_markup(tmp_path):
    text = ONE + 'description = "<script>alert(1)</script>"'
    found = judge(read(tmp_path, text), {}, data={})
    page = study_page.page(found)
    assert "<script>" not in page
    ElementTree.fromstring(study_page.picture(found))


# The command


def test_a_dry_run_shows_the_plan_and_runs_nothing(tmp_path, tiny):
    path = written(tmp_path, ONE + "seeds = 2")
    out = tmp_path / "out"
    words = ["study", path, "--dry-run", "--data", tiny, "--out", out]
    done = type_here(*words)
    assert done.returncode == 0, done.stderr
    assert "study: 4 runs, 0 finished. The rest will take about" in done.stdout
    assert "guessed from the number of operations" in done.stdout
    told = json.loads(type_here(*words, "--json").stdout)
    assert (told["runs"], told["finished"], len(told["left"])) == (4, 0, 4)
    assert not out.exists()


@skip_without("pytorch")
def test_a_study_is_run_reported_and_not_run_again(tmp_path, tiny):
    path = written(
        tmp_path,
        'recipes = ["keras-example"]\nframeworks = ["pytorch"]\nseeds = 1\n'
        'set = ["validation_size=0", "epochs=1"]\n[grid]\nbatch_size = [32, 64]\n',
    )
    out = tmp_path / "out"
    words = ["study", path, "--data", tiny, "--out", out]
    done = type_here(*words)
    assert done.returncode == 0, done.stderr
    assert "keras-example, batch_size=32" in done.stdout
    assert "2 runs" in done.stdout
    told = json.loads((out / "study.json").read_text())
    assert [x["accuracy"]["n"] for x in told["cells"]] == [1, 1]
    assert (out / "report.html").exists()
    ElementTree.parse(out / "study.svg")
    again = type_here(*words, "--json")
    assert "2 runs already finished, reused" in again.stderr
    assert json.loads(again.stdout)["cells"] == told["cells"]
