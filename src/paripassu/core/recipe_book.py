"""The recipe book: the recipes that come with the package, listed and shown."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from paripassu.core.recipe import Recipe, built_in, load

WIDTH = 88  # of the comments


@dataclass(frozen=True)
class Entry:
    """What the list says of one recipe."""

    name: str
    network: str
    optimizer: str
    epochs: int
    parameters: int  # how many numbers are learned
    published_accuracy: float | None  # fraction 0..1, as its source states it
    description: str

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self)


def entries() -> list[Entry]:
    """Every built-in recipe, by name."""
    return [_entry(name, load(name)) for name in built_in()]


def _entry(name: str, recipe: Recipe) -> Entry:
    return Entry(
        name=name,
        network=recipe.network,
        optimizer=recipe.optimizer.kind,
        epochs=recipe.epochs,
        parameters=recipe.architecture.parameter_count,
        published_accuracy=recipe.published_accuracy,
        description=recipe.description,
    )


def show(recipe: Recipe) -> str:
    """The whole recipe as TOML, with where it comes from as comments on top.

    Returns:
        What `core.recipe.parse` reads back to an equal recipe.
    """
    parts = [
        f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
        f"Source: {recipe.source or 'not stated.'}",
        f"Published test accuracy: {published(recipe)}.",
        recipe.published_note,
    ]
    comments = "\n#\n".join(comment(part) for part in parts if part)
    return f"{comments}\n\n{recipe.to_toml()}"


def published(recipe: Recipe) -> str:
    """The published test accuracy in per cent, or "none"."""
    accuracy = recipe.published_accuracy
    return "none" if accuracy is None else f"{accuracy:.2%}"


def comment(text: str) -> str:
    """Lines of a comment in TOML or Python, without control characters."""
    clean = "".join(x if x.isprintable() else " " for x in text)
    lines = textwrap.wrap(
        clean, WIDTH - 2, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(f"# {line}" for line in lines) or "#"
