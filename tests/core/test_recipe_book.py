"""The recipe book: what the command prints, and the page of recipes and records."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import type_here
from hypothesis import given, settings
from hypothesis import strategies as st
from make_records import make_comparison, make_environment, make_proof
from pydantic import Field

from paripassu.analysis import comparison as judge
from paripassu.analysis.schema import Comparison
from paripassu.core.layer_tables import KINDS
from paripassu.core.recipe import Part, Recipe, built_in, load, parse, validate
from paripassu.core.recipe_book import show

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"

# As the sources state them; LeNet-5's with a dense output in place of fixed centres.
PARAMETERS = {
    "article": 1_199_882,
    "keras-example": 34_826,
    "lenet5": 60_000 + 84 * 10 + 10,
    "fast": 215_194,
    "amy-jang": 484_714,
    "ghouzam": 887_530,
}
# A figure that is nobody's.
PUBLISHED = load("keras-example").changed(published_accuracy=0.9905)


@pytest.fixture
def recipe_docs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("recipe_docs")


# The command


def name_of(recipe: Recipe) -> str:
    """Its network's, or its own where that is a network of its own."""
    return recipe.name if recipe.layers else recipe.network


def test_list_has_every_recipe():
    result = type_here("recipes")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + 2 * len(built_in())
    assert [line.split()[0] for line in lines[1::2]] == built_in()
    for name, description in zip(built_in(), lines[2::2], strict=True):
        recipe = load(name)
        assert description.strip() == recipe.description
        cells = lines[1 + 2 * built_in().index(name)].split()
        accuracy = recipe.published_accuracy
        assert cells[1:5] == [
            recipe.network,
            recipe.optimizer.kind,
            str(recipe.epochs),
            f"{PARAMETERS[name_of(recipe)]:,}",
        ]
        assert cells[5] == ("–" if accuracy is None else f"{100 * accuracy:.2f}%")


def test_list_as_json():
    found = json.loads(type_here("recipes", "--json").stdout)
    assert [entry["name"] for entry in found] == built_in()
    for entry in found:
        recipe = load(entry["name"])
        assert entry["parameters"] == PARAMETERS[name_of(recipe)]
        assert entry["published_accuracy"] == recipe.published_accuracy
        assert entry["description"] == recipe.description


@pytest.mark.parametrize("name", built_in())
def test_what_show_prints_is_the_recipe(tmp_path, name):
    printed = type_here("recipes", "show", name).stdout
    path = tmp_path / "my.toml"
    path.write_text(printed)
    assert load(str(path)) == load(name)
    comments = " ".join(x[2:] for x in printed.splitlines() if x.startswith("#"))
    assert " ".join(load(name).source.split()) in comments
    assert type_here("recipes", "show", path).stdout == printed


@pytest.mark.parametrize("words", ["show lenet5 --json", "--json show lenet5"])
def test_show_as_json(words):
    printed = type_here("recipes", *words.split()).stdout
    assert validate(json.loads(printed)) == load("lenet5")


def test_an_unknown_recipe_is_refused_with_the_list():
    result = type_here("recipes", "show", "lenet-5")
    assert (result.returncode, result.stdout) == (2, "")
    assert all(name in result.stderr for name in built_in())


any_text = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=200)
@given(
    words=st.lists(any_text, min_size=3, max_size=3),
    accuracy=st.none() | st.floats(0, 1),
)
def test_whatever_a_recipe_says_show_is_read_back(words, accuracy):
    description, source, note = words
    recipe = load("keras-example").changed(
        description=description,
        source=source,
        published_note=note,
        published_accuracy=accuracy,
    )
    assert parse(show(recipe)) == recipe


# The page: fields


def test_every_field_is_on_the_page():
    pages = {
        x: (ROOT / "docs" / f"{x}.md").read_text() for x in ("recipes", "networks")
    }
    schema = Recipe.model_json_schema()
    kinds = {x.__name__ for x in KINDS.values()}
    for name, table in {"": schema, **schema["$defs"]}.items():
        page = pages["networks" if name in kinds else "recipes"]
        for key, field in table["properties"].items():
            if name in kinds and key == "kind":
                assert f"| **`{field['const']}`** |" in page
                continue
            rows = [x for x in page.splitlines() if x.startswith(f"| `{key}` |")]
            assert any(field["description"] in row for row in rows), key
            choices = field.get("enum", [])
            quote = "'{}'" if name in kinds else "`{}`"
            found = [all(quote.format(x) in row for x in choices) for row in rows]
            assert any(found), key
            if "default" in field and isinstance(field["default"], int | float | str):
                value = json.dumps(field["default"])
                assert any(f"| `{value}` |" in row for row in rows), key


def test_types_bounds_and_defaults(recipe_docs):
    fields = Recipe.model_fields
    words = {key: recipe_docs.type_of(field) for key, field in fields.items()}
    assert words["batch_size"] == "whole number, ≥ 1 and ≤ 1,000,000"
    assert words["shuffle"] == "true or false"
    assert words["precision"] == "`float32`, `float64` or `bfloat16`"
    assert words["dropout"] == "table; each value: number, ≥ 0 and < 1"
    mean = fields["normalization"].annotation.model_fields["mean"]
    share = "number, ≥ 0 and ≤ 1"
    assert recipe_docs.type_of(mean) == f"{share}, or list of {share}, or `computed`"
    assert recipe_docs.default_of(fields["published_accuracy"]) == "left out"
    assert recipe_docs.default_of(fields["optimizer"]) == "kind `adadelta`"


class Bare(Part):
    """A table with a field that nobody has described."""

    told: int = Field(1, description="described")
    untold: int = 1


class Around(Part):
    """A table with such a table in it."""

    inner: Bare = Field(Bare(), description="described")


@pytest.mark.parametrize("model", [Bare, Around])
def test_a_field_without_a_description_fails(recipe_docs, model):
    with pytest.raises(ValueError, match=r"'untold' of Bare has no description"):
        recipe_docs.tables(model)


def test_the_generator_fails_on_a_field_without_a_description():
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); sys.argv[1:] = ['--check']\n"
        "from paripassu.core.recipe import Decay\n"
        "Decay.model_fields['unit'].description = None\n"
        "import generate_docs; sys.exit(generate_docs.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "field 'unit' of Decay has no description" in result.stderr


def test_a_type_without_words_fails(recipe_docs):
    with pytest.raises(ValueError, match="no words for the type"):
        recipe_docs.in_words(bytes)
    with pytest.raises(ValueError, match="no words for the constraint"):
        recipe_docs.in_words(int, [object()])


# The page: recipes


@pytest.mark.parametrize("name", built_in())
def test_every_recipe_says_where_it_comes_from(recipe_docs, name):
    recipe = load(name)
    words = recipe_docs.described(recipe)
    assert recipe_docs.text(recipe.source) in words
    assert recipe_docs.text(recipe.published_note) in words


def test_a_recipe_without_a_source_fails(recipe_docs):
    recipe = PUBLISHED.changed(source="", published_note="")
    with pytest.raises(ValueError, match="no source and no published_note"):
        recipe_docs.described(recipe)


# The page: what was measured


def spread(median: float) -> dict[str, Any]:
    return {"median": median, "low": median, "high": median, "n": 1}


def summary(seeds: list[int], mean: float, seconds: float) -> dict[str, Any]:
    not_measured = (
        *("test_loss", "evaluation_seconds", "start_up_seconds", "data_seconds"),
        *("build_seconds", "warm_up_seconds", "peak_memory_bytes"),
        *("peak_accelerator_bytes", "inference"),
    )
    accuracy = {"mean": mean, "low": mean - 0.001, "high": mean + 0.001}
    return {
        **dict.fromkeys(not_measured),
        "status": "ok",
        "message": None,
        "runs": [f"runs/x-seed{seed}" for seed in seeds],
        "seeds": seeds,
        "version": "1.2.3",
        "test_accuracy": {**accuracy, "n": len(seeds), "method": "student t"},
        "epoch_seconds": spread(seconds),
    }


def made_up(folder: Path, seeds: list[int], **more: Any) -> Path:
    """A comparison.json by hand, of PUBLISHED."""
    content = {
        "created": "2026-11-20T10:00:00+00:00",
        "command": "paripassu compare --recipe keras-example --out somewhere",
        "recipe": PUBLISHED.model_dump(),
        "dataset": None,
        "environment": make_environment("pytorch").model_dump(),
        "seeds": seeds,
        "order": [],
        "frameworks": {
            "pytorch": summary(seeds, 0.9917, 12.3),
            "tensorflow": summary(seeds, 0.9901, 45.6),
        },
        "pairs": [],
        "proof": None,
        "warnings": [],
    }
    folder.mkdir(parents=True)
    judge.save(folder, Comparison.model_validate({**content, **more}))
    return folder


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results" / "recipes" / PUBLISHED.name


@pytest.fixture
def measured(recipe_docs, tmp_path):
    """The table and its evidence, of PUBLISHED and of a recipe without a record."""
    return lambda: recipe_docs.reproduction(
        [PUBLISHED, load("lenet5")], tmp_path / "results", tmp_path / "docs"
    )


def cells(page: str, name: str) -> list[list[str]]:
    rows = [x for x in page.splitlines() if x.startswith(f"| `{name}` |")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_table_has_the_records_figures(place, measured):
    made_up(place, [42, 43, 44])
    page = measured()
    assert cells(page, "keras-example") == [
        [
            "`keras-example`",
            "PyTorch",
            "99.05%",
            "99.17% (99.07 to 99.27, Student t)",
            "3",
            "15",
            "+0.12",
            "12.3 s",
        ],
        [
            "`keras-example`",
            "TensorFlow",
            "99.05%",
            "99.01% (98.91 to 99.11, Student t)",
            "3",
            "15",
            "−0.04",
            "45.6 s",
        ],
    ]
    assert "Intel Xeon Processor (AVX-512), 2 usable cores, 2 threads" in page
    assert "PyTorch 1.2.3, TensorFlow 1.2.3" in page
    assert "`paripassu compare --recipe keras-example --out somewhere`" in page
    assert "ewer than" not in page
    assert "Not the recipe as it is" not in page


def test_a_recipe_without_a_record_says_so(measured):
    page = measured()
    for name in ("keras-example", "lenet5"):
        (row,) = cells(page, name)
        assert row[3:] == ["not yet measured", "", "", "", ""]


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_are_said(place, measured, count):
    made_up(place, list(range(count)))
    page = measured()
    assert {row[4] for row in cells(page, "keras-example")} == {
        f"{count}, fewer than 3"
    }
    assert "Fewer than 3 seeds say little" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 2}, "`epochs = 2` in place of `15`"),
        (
            {"optimizer": {**PUBLISHED.optimizer.model_dump(), "beta1": 0.8}},
            "`optimizer.beta1 = 0.8` in place of `0.9`",
        ),
    ],
)
def test_another_recipe_is_not_held_against_the_published_figure(
    place, measured, change, said
):
    recipe = PUBLISHED.changed(**change)
    made_up(place, [1, 2, 3], recipe=recipe.model_dump())
    page = measured()
    rows = cells(page, "keras-example")
    assert {row[6] for row in rows} == {"–"}
    assert {row[5] for row in rows} == {"2 of 15" if "epochs" in change else "15"}
    assert f"Not the recipe as it is: {said}." in page


def test_another_seed_and_another_name_are_no_departure(place, measured):
    recipe = PUBLISHED.changed(seed=7, name="mine", description="", source="me")
    made_up(place, [7, 8, 9], recipe=recipe.model_dump())
    assert [row[6] for row in cells(measured(), "keras-example")] == ["+0.12", "−0.04"]


@pytest.mark.parametrize(("load_share", "shown"), [(0.02, True), (0.5, False)])
def test_times_of_a_busy_machine_are_left_out(recipe_docs, tmp_path, load_share, shown):
    """From the judge's own warning, on records of runs."""
    folder = tmp_path / "results" / "article"
    make_comparison(folder, other_load=load_share, proof=make_proof(holds=shown))
    found = judge.summarise(folder)
    judge.save(folder, found)
    page = recipe_docs.reproduction(
        [load("article")], tmp_path / "results", tmp_path / "docs"
    )
    seconds = [x.epoch_seconds.median for x in found.frameworks.values()]
    assert 40 < seconds[0] < 44
    times = [f"{x:.1f} s" for x in seconds] if shown else ["–", "–"]
    assert [row[7] for row in cells(page, "article")] == times
    assert ("times mean little" in page) is not shown
    assert ("its proof holds" in page) is shown
    assert ("**does not hold**" in page) is not shown
    assert "other images than all of MNIST" in page  # there are 500 to test on


def test_a_framework_without_a_run_says_so(recipe_docs, tmp_path):
    folder = tmp_path / "results" / "article"
    make_comparison(folder, unavailable={"tensorflow": "not installed"})
    judge.save(folder, judge.summarise(folder))
    page = recipe_docs.reproduction(
        [load("article")], tmp_path / "results", tmp_path / "docs"
    )
    assert cells(page, "article")[1][3] == "no finished run: missing"


def test_markers_are_needed(recipe_docs):
    page = "a\n<!-- one: x -->\nold\n<!-- end -->\nz\n"
    new = recipe_docs.filled(page, "one", "new")
    assert new == "a\n<!-- one: x -->\n\nnew\n\n<!-- end -->\nz\n"
    assert recipe_docs.filled(new, "one", "new") == new
    with pytest.raises(ValueError, match="<!-- two"):
        recipe_docs.filled(page, "two", "new")
