"""The generated parts of docs/recipes.md: fields, recipes, and what was measured."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import tomli_w
from marks import filled
from pydantic.fields import FieldInfo

from paripassu.analysis.comparison import COMPARISON_FILE, load
from paripassu.analysis.schema import Comparison, Estimate, FrameworkSummary
from paripassu.analysis.text import counted, display_name, points
from paripassu.analysis.warnings import BUSY_WARNING
from paripassu.core.layer_tables import KINDS, LayerTable, expected
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import NOT_DECISIVE, Part, Recipe, built_in, validate
from paripassu.core.recipe import load as load_recipe
from paripassu.core.recipe_book import WIDTH, published

FEW_SEEDS = 3  # fewer are said
METHODS = {"student t": "Student t", "wilson": "Wilson", "bca bootstrap": "BCa"}
MNIST = (60_000, 10_000)  # training and test images
TYPES = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def page(path: Path, results: Path) -> str:
    """docs/recipes.md with everything between its markers written anew."""
    text = path.read_text(encoding="utf-8")
    recipes = [load_recipe(name) for name in built_in()]
    for name, block in {
        "fields": "\n\n".join([not_decisive(), *tables(Recipe), networks()]),
        "recipes": "\n\n".join(described(recipe) for recipe in recipes),
        "measured": reproduction(recipes, results, path.parent),
    }.items():
        text = filled(text, name, block)
    return text


# Fields, from the pydantic model


def tables(model: type[Part]) -> list[str]:
    """A table of fields for the model and for each table in it, with its heading."""
    blocks = [field_table("The recipe", model)]
    for key, field in model.model_fields.items():
        parts = list(parts_of(field.annotation))
        if key == "layers":  # they have a page of their own
            continue
        for part in parts:
            kind = part.model_fields.get("kind")
            title = f"Table `{key}`"
            if len(parts) > 1 and kind:
                title += f", kind `{get_args(kind.annotation)[0]}`"
            blocks.append(field_table(title, part))
    return blocks


def field_table(title: str, part: type[Part]) -> str:
    """Heading, the class's own words, and a row for each field.

    Raises:
        ValueError: a field has no description.
    """
    rows = []
    for key, field in part.model_fields.items():
        if not field.description:
            raise ValueError(
                f"field {key!r} of {part.__name__} has no description: give it one, "
                "Field(..., description=...), in core/recipe.py"
            )
        rows.append(
            (f"`{key}`", type_of(field), default_of(field), text(field.description))
        )
    words = text(inspect.getdoc(part) or "")
    head = ("field", "type", "default", "meaning")
    return "\n\n".join([f"### {title}", words, markdown_table(head, rows)])


def parts_of(annotation: Any) -> Iterator[type[Part]]:
    """The tables that a value may be."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for inner in get_args(annotation):
        yield from parts_of(inner)


def type_of(field: FieldInfo) -> str:
    """A field's type in words, with its bounds or choices."""
    parts = list(parts_of(field.annotation))
    if any(issubclass(x, LayerTable) for x in parts):
        return "tables, `[[layers]]`"
    if len(parts) > 1:
        kinds = [get_args(x.model_fields["kind"].annotation)[0] for x in parts]
        return f"table; its `kind`: {choices(kinds)}"
    if parts:
        return "table"
    return in_words(field.annotation, field.metadata)


def in_words(annotation: Any, constraints: Sequence[Any] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [x for y in inner[1:] for x in getattr(y, "metadata", [y])]
        return in_words(inner[0], [*constraints, *more])
    if origin in {Union, types.UnionType}:
        known = [in_words(x, constraints) for x in inner if x is not types.NoneType]
        return ", or ".join(known)
    if origin is Literal:
        return choices(inner)
    if origin is list:
        return f"list of {in_words(inner[0])}"
    if origin is tuple:
        members = {in_words(x) for x in inner}
        return f"list of {len(inner)}: {', '.join(members)}"
    if origin is dict:
        return f"table; each value: {in_words(inner[1], constraints)}"
    if annotation not in TYPES:
        raise ValueError(f"no words for the type {annotation!r}")
    bounds = [bound_of(constraint) for constraint in constraints]
    return ", ".join([TYPES[annotation], *filter(None, [" and ".join(bounds)])])


def choices(values: Sequence[str]) -> str:
    *before, last = [f"`{value}`" for value in values]
    return f"{', '.join(before)} or {last}" if before else last


def bound_of(constraint: Any) -> str:
    for name, sign in {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}.items():
        if hasattr(constraint, name):
            return f"{sign} {getattr(constraint, name):,}"
    if hasattr(constraint, "max_length"):
        return f"at most {constraint.max_length} characters"
    if hasattr(constraint, "pattern"):
        return f"like `{constraint.pattern}`"
    raise ValueError(f"no words for the constraint {constraint!r}")


def default_of(field: FieldInfo) -> str:
    """The default as TOML writes it."""
    if field.is_required():
        return "none: it must be given"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "left out"
    if isinstance(value, Part):
        kind = getattr(value, "kind", None)
        return f"kind `{kind}`" if kind else "that of its fields"
    if isinstance(value, dict):
        inside = ", ".join(f"{name} = {toml(x)}" for name, x in value.items())
        return f"`{{ {inside} }}`" if inside else "`{}`"
    return f"`{toml(value)}`"


def toml(value: Any) -> str:
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def networks() -> str:
    """The networks that `network` may name, with the dropout layers of each."""
    rows = []
    for network in NETWORKS.values():
        rates = [f"`{layer.name}`" for layer in network.layers_of("dropout")]
        rows.append(
            (
                f"`{network.name}`",
                " ".join(layer.name for layer in network.layers),
                f"{network.parameter_count:,}",
                ", ".join(rates) or "none: `[dropout]` stays empty",
            )
        )
    head = ("network", "layers", "parameters", "dropout layers")
    table = markdown_table(head, rows)
    own = "Or one of the recipe's own: [networks.md](networks.md)."
    return f"### Networks\n\n{table}\n\n{own}"


def not_decisive() -> str:
    names = [f"`{x}`" for x in Recipe.model_fields if x in NOT_DECISIVE]
    return textwrap.fill(
        f"{', '.join(names[:-1])} and {names[-1]} are for people. All other fields "
        "decide the result: the hash that names a run is made of them.",
        WIDTH,
    )


# Built-in recipes


def layer_kinds() -> str:
    """Every kind of layer with its settings; those of all kinds once."""
    common = set(LayerTable.model_fields)
    rows = []
    for kind, table in KINDS.items():
        words = text(inspect.getdoc(table) or "").partition("\n\n")[0]
        rows.append((f"**`{kind}`**", "", "", words))
        settings = [
            (key, x)
            for key, x in table.model_fields.items()
            if key not in common and key != "kind"
        ]
        for key, x in settings:
            about = text(x.description or "")
            rows.append((f"`{key}`", layer_type(table, key), default_of(x), about))
        if kind == "dropout":
            about = "share 0..1 that is dropped; else it stands in `[dropout]`"
            rows.append(("`rate`", "number, ≥ 0 and < 1", "left out", about))
    head = ("kind, setting", "type", "default", "meaning")
    every = [
        (f"`{key}`", layer_type(LayerTable, key), "left out", text(x.description or ""))
        for key, x in LayerTable.model_fields.items()
    ]
    return "\n\n".join(
        [
            "Every layer may say:",
            markdown_table(("setting", *head[1:]), every),
            "And by its kind:",
            markdown_table(head, rows),
        ]
    )


def layer_type(table: type[LayerTable], key: str) -> str:
    """What a setting may be, as an error says it."""
    return expected(table, key)


def networks_page(path: Path, example: Path) -> str:
    """docs/networks.md with everything between its markers written anew."""
    page = filled(path.read_text(encoding="utf-8"), "kinds", layer_kinds())
    recipe = example.read_text(encoding="utf-8").strip()
    return filled(page, "example", f"```toml\n{recipe}\n```")


def described(recipe: Recipe) -> str:
    """Where a built-in recipe comes from, and what of it is as published.

    Raises:
        ValueError: it has no source, or a published figure without a note.
    """
    needed = ["source"]
    if recipe.published_accuracy is not None:
        needed.append("published_note")
    missing = [x for x in needed if not getattr(recipe, x)]
    if missing:
        raise ValueError(
            f"recipe {recipe.name!r} has no {' and no '.join(missing)}: write it in "
            f"src/paripassu/core/recipes/{recipe.name}.toml"
        )
    facts = (
        f"network `{recipe.network}`, {recipe.architecture.parameter_count:,} "
        f"parameters; {recipe.optimizer.kind}, {counted(recipe.epochs, 'epoch')}, "
        f"batches of {recipe.batch_size}"
    )
    points = [
        f"Recipe: {facts}.",
        f"Source: {text(recipe.source)}",
        f"Published test accuracy: {published(recipe)}.",
        text(recipe.published_note),
    ]
    bullets = "\n".join(f"- {point}" for point in points if point)
    return f"### `{recipe.name}`\n\n{text(recipe.description)}\n\n{bullets}"


# What was measured


class Record(NamedTuple):
    """A comparison of a built-in recipe, and where it is."""

    recipe: Recipe
    folder: Path
    found: Comparison

    @property
    def busy(self) -> bool:
        """Whether its times are not to be quoted."""
        return any(x.startswith(BUSY_WARNING) for x in self.found.warnings)

    @property
    def departures(self) -> list[str]:
        """What it has otherwise than the built-in recipe of today, on all of MNIST."""
        made = validate(self.found.recipe, f"{self.folder}: its recipe")
        one, other = (dict(leaves(x.model_dump())) for x in (made, self.recipe))
        found = [
            f"`{key} = {one.get(key)}` in place of `{other.get(key)}`"
            for key in {**other, **one}
            if key not in NOT_DECISIVE | {"seed"} and one.get(key) != other.get(key)
        ]
        data = self.found.dataset
        if data and (data.train_size + data.validation_size, data.test_size) != MNIST:
            found.append("other images than all of MNIST")
        return found


def leaves(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def reproduction(recipes: Sequence[Recipe], results: Path, docs: Path) -> str:
    """The table of what was measured beside what was published, and its evidence."""
    rows: list[Sequence[str]] = []
    notes = []
    few = False
    for recipe in recipes:
        record = record_of(recipe, results)
        if record is None:
            rows.append((f"`{recipe.name}`", "", published(recipe), "not yet measured"))
            continue
        for name, summary in record.found.frameworks.items():
            rows.append(measured(record, name, summary))
            few = few or 0 < len(summary.runs) < FEW_SEEDS
        notes.append(evidence(record, docs))
    head = (
        "recipe",
        "framework",
        "published",
        "test accuracy, mean (95% interval)",
        "seeds",
        "epochs",
        "less the published, points",
        "an epoch",
    )
    width = len(head)
    table = markdown_table(head, [(*row, *[""] * (width - len(row))) for row in rows])
    blocks = [table]
    if few:
        blocks.append(
            f"Fewer than {FEW_SEEDS} seeds say little of other seeds: such rows stand "
            "until there are more."
        )
    return "\n\n".join([*blocks, "\n".join(notes)]).strip()


def record_of(recipe: Recipe, results: Path) -> Record | None:
    """The comparison of a recipe in `results`, if there is one."""
    folders = [results / "recipes" / recipe.name]
    if recipe.name == "article":
        folders.append(results / "article")
    for folder in folders:
        if (folder / COMPARISON_FILE).exists():
            return Record(recipe, folder, load(folder))
    return None


def measured(record: Record, name: str, summary: FrameworkSummary) -> tuple[str, ...]:
    recipe, accuracy = record.recipe, summary.test_accuracy
    row = (f"`{recipe.name}`", display_name(name), published(recipe))
    if accuracy is None:
        return (*row, f"no finished run: {summary.status}")
    count = len(summary.runs)
    epochs = record.found.recipe["epochs"]
    difference = "–"
    if recipe.published_accuracy is not None and not record.departures:
        difference = points(accuracy.mean - recipe.published_accuracy)
    seconds = "–"
    if summary.epoch_seconds and not record.busy:
        seconds = f"{summary.epoch_seconds.median:.1f} s"
    return (
        *row,
        with_interval(accuracy),
        f"{count}, fewer than {FEW_SEEDS}" if count < FEW_SEEDS else str(count),
        str(epochs) if epochs == recipe.epochs else f"{epochs} of {recipe.epochs}",
        difference,
        seconds,
    )


def with_interval(estimate: Estimate) -> str:
    mean = f"{estimate.mean:.2%}"
    if estimate.low is None or estimate.high is None:
        return mean
    low, high = (f"{100 * x:.2f}" for x in (estimate.low, estimate.high))
    return f"{mean} ({low} to {high}, {METHODS.get(estimate.method, estimate.method)})"


def evidence(record: Record, docs: Path) -> str:
    """Hardware, versions and command of a record, and what limits it."""
    found = record.found
    path = (record.folder / COMPARISON_FILE).relative_to(docs.parent)
    facts = [f"- `{record.recipe.name}`: [{path.parent}](../{path})"]
    if found.environment:
        machine = found.environment
        facts.append(
            f"{text(machine.processor)}, {counted(machine.cores, 'usable core')}, "
            f"{counted(machine.threads, 'thread')}, device {text(machine.device)}, "
            f"{text(machine.platform)}, Python {machine.python}"
        )
    facts.append(
        ", ".join(
            f"{display_name(name)} {summary.version}"
            for name, summary in found.frameworks.items()
            if summary.version
        )
    )
    if found.dataset:
        data = found.dataset
        apart = data.validation_size
        facts.append(
            f"{data.train_size:,} training images"
            + (f" and {apart:,} to validate" if apart else "")
            + f", {data.test_size:,} test images"
        )
    if found.proof:
        holds = found.proof.holds
        facts.append(f"its proof {'holds' if holds else '**does not hold**'}")
    facts.append(f"seeds {', '.join(map(str, found.seeds))}; `{found.command}`")
    lines = ["; ".join(filter(None, facts)) + "."]
    if record.departures:
        lines.append(
            f"Not the recipe as it is: {', '.join(record.departures)}. So no "
            "difference to a published figure is taken."
        )
    if record.busy:
        lines.append("Other programs used the machine: the record's times mean little.")
    lines += [
        f"Warning: {text(x)}" for x in found.warnings if not x.startswith(BUSY_WARNING)
    ]
    return "\n  ".join(lines)


# Markdown


def text(plain: str) -> str:
    """Plain text, so that Markdown shows it as it is."""
    return plain.replace("*", "\\*").replace("<", "&lt;")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
