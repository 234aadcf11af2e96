"""Reads `STUDY.toml`, and makes a plan of it."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paripassu.analysis.study.results import Plan, Variant
from paripassu.core.errors import UserError
from paripassu.core.files import check_regular
from paripassu.core.recipe import Recipe, built_in, load
from paripassu.frameworks import registry

MOST_RUNS = 100_000
EVERY_RECIPE = "built-in"

Seeds = (
    Annotated[int, Field(ge=1, le=10_000)]
    | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
)


class StudyFile(BaseModel):
    """What a study's file may hold.

    Attributes:
        name: of the study, letters, digits, ".", "_" and "-"; without it, the file's.
        description: what it is for.
        recipes: names of built-in recipes, or paths beside the file; "built-in" stands
            for all that come with the package.
        frameworks: their names; without them, those that commands take by default.
        seeds: how many runs of each, from each recipe's seed on; or which.
        set: settings of all recipes, as after `--set`.
        grid: values to try, by the key of a setting; every combination is run.
        timed: whether times matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""  # part of a folder's
    description: str = ""
    recipes: Annotated[list[str], Field(min_length=1)]
    frameworks: Annotated[list[str], Field(min_length=1)] | None = None
    seeds: Seeds = 3
    set: list[str] = Field(default_factory=list)
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    timed: bool = False


def read(path: str | Path, *, epochs: int | None = None, command: str = "") -> Plan:
    """The plan in a file.

    Args:
        path: a TOML file.
        epochs: in place of those of all recipes.
        command: what was typed.

    Raises:
        UserError: it is no study, or a recipe of it cannot be had so.
    """
    path = Path(path)
    found = _parsed(path)
    names = [
        name
        for given in found.recipes
        for name in (built_in() if given == EVERY_RECIPE else [given])
    ]
    grid = [[_setting(key, x) for x in values] for key, values in found.grid.items()]
    variants = []
    for name in dict.fromkeys(names):
        beside = path.resolve().parent / name
        place = name if name in built_in() or not beside.exists() else beside
        for settings in itertools.product(*grid):
            recipe = load(place, [*found.set, *settings], epochs=epochs)
            variants.append(Variant(recipe, settings, _seeds(recipe, found.seeds)))
    for what in ([x.title for x in variants], [_runs(x) for x in variants]):
        if double := _double(what):
            alike = zip(variants, what, strict=True)
            one, other, *_ = (x.title for x, y in alike if y == double)
            raise UserError(
                f"{path}: {one} and {other} are the same runs, or called the same. "
                "Leave one out, or give it a name of its own."
            )
    if found.frameworks is None:
        frameworks = [x.name for x in registry.asked_by_default()]
    else:
        frameworks = [registry.find(x).name for x in found.frameworks]
    able, absent = _able(variants, list(dict.fromkeys(frameworks)))
    plan = Plan(
        name=found.name or path.stem,
        description=found.description,
        variants=tuple(variants),
        frameworks=able,
        absent=absent,
        timed=found.timed,
        command=command,
    )
    if not plan.keys:
        raise UserError(f"{path}: there is nothing to run. {' '.join(absent)}")
    if len(plan.keys) > MOST_RUNS:
        raise UserError(
            f"{path}: {len(plan.keys):,} runs are more than {MOST_RUNS:,}. Give fewer "
            "seeds, or fewer values in [grid]."
        )
    return plan


def _parsed(path: Path) -> StudyFile:
    try:
        check_regular(path)
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return StudyFile.model_validate(table)
    except FileNotFoundError:
        raise UserError(
            f"no study {path}: expected the path of a TOML file, such as "
            "studies/book.toml of the repository."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][:2]))
        known = ", ".join(StudyFile.model_fields)
        raise UserError(
            f"{path}: {where}: {first['msg']}. A study has {known}."
        ) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deep.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not TOML: {error}.") from None


def _setting(key: str, value: Any) -> str:
    """A setting as it is typed after `--set`."""
    try:
        return f"{key}={_inline(value)}"
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"[grid] {key}: {value!r} is no value: {error}.") from None


def _inline(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, dict):
        pairs = (
            f"{tomli_w.dumps({k: 0})[:-5]} = {_inline(v)}" for k, v in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _seeds(recipe: Recipe, seeds: int | list[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        return tuple(range(recipe.seed, recipe.seed + seeds))
    return tuple(dict.fromkeys(seeds))


def _runs(variant: Variant) -> str:
    """What decides the results, but for the seed."""
    return variant.recipe.changed(seed=0).hash()


def _double(texts: Sequence[str]) -> str | None:
    return next((text for text, count in Counter(texts).items() if count > 1), None)


def _able(
    variants: Sequence[Variant], frameworks: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Of each variant, the frameworks that train it; and what is absent, and why."""
    able, absent = [], []
    for variant in variants:
        own = []
        for name in frameworks:
            try:
                registry.find(name).check(variant.recipe)
                own.append(name)
            except UserError as error:
                absent.append(f"Not run: {error}")
        able.append(tuple(own))
    return tuple(able), tuple(dict.fromkeys(absent))
