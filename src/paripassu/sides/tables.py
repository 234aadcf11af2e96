"""How a side's tables are read: by the classes that a user's class is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from paripassu.core.layer_spec import LayerSpec
from paripassu.sides.observing import Move, Part, Settings

T = TypeVar("T")
Weights = Mapping[str, tuple[str, Move]]  # the attribute, and how its axes move


def no_settings(_source: Any) -> Settings:
    """For a kind that has none."""
    return {}


class Row(NamedTuple):
    """What a layer or a function is.

    Attributes:
        kind: as in `core.layer_spec`.
        settings: of a layer, or of what a function is called with; or, where the kind
            does not fit, the whole spec.
        weights: of a layer; a function of name, layer and spec where they are more
            than one block, or lie elsewhere.
    """

    kind: str
    settings: Callable[[Any], Settings | LayerSpec] = no_settings
    weights: Weights | Callable[[str, Any, LayerSpec], Iterator[Part]] = {}  # noqa: RUF012

    def describe(self, source: Any) -> LayerSpec:
        """The spec of a layer, or of a call of a function; without weights."""
        settings = self.settings(source)
        if isinstance(settings, LayerSpec):
            return settings
        return LayerSpec(self.kind, settings)


OTHER = Row("other")


def find_layer(cls: type, table: Mapping[type, Row], method: str, kept: str) -> Row:
    """The row of a class of layers, or `OTHER`.

    A user's class may compute anything by a method of its own, but where a weight's
    axes and the channels lie remains as in its base.

    Args:
        cls: a user's class, or a framework's.
        table: by class.
        method: what computes.
        kept: kinds without weights that remain.
    """
    row, overridden = find_base(cls, table, (method,))
    if row is None or (overridden and not row.weights and row.kind not in kept.split()):
        return OTHER
    return row


def find_base(
    cls: type, table: Mapping[type, T], methods: Sequence[str], told_by: str = ""
) -> tuple[T | None, bool]:
    """The entry of the nearest base that a table has.

    Args:
        cls: a user's class, or a framework's.
        table: by class.
        methods: what computes.
        told_by: an attribute by which a class says what it computes else.

    Returns:
        The entry or None; and whether a class below it has any of `methods` of its
        own, so that it may compute something else.
    """
    below: list[tuple[str, Any]] = []
    for base in cls.__mro__:
        if base in table:
            # PyTorch wraps `step` anew in a class that only inherits it.
            return table[base], any(
                inspect.unwrap(method)
                is not inspect.unwrap(getattr(base, name, object))
                for name, method in below
            )
        if told_by not in vars(base):
            below += [(x, vars(base)[x]) for x in methods if x in vars(base)]
    return None, False


def read_settings(
    source: Mapping[str, Any] | Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Values by the names of `reference.optimizers`: truths stay, the rest are floats.

    Args:
        source: what has them, by key or as attributes.
        settings: the key of each; what is no text is the value itself.
    """

    def read(key: Any) -> bool | float:
        if isinstance(key, str):
            key = source[key] if isinstance(source, Mapping) else getattr(source, key)
        return key if isinstance(key, bool) else float(key)

    return {name: read(key) for name, key in settings.items()}


def named_alike(names: str) -> dict[str, Row]:
    """A row for each of these names, whose kind is the name."""
    return {name: Row(name) for name in names.split()}


def scale_by(operation: str, first: Any, second: Any) -> Settings | LayerSpec:
    """What an operation on two operands is: a scale, where one of them is a number."""
    numbers = [isinstance(x, (int, float)) for x in (first, second)]
    if not any(numbers):
        return {}
    x = float(first if numbers[0] else second)
    found = {
        ("add", True): (1.0, x),
        ("add", False): (1.0, x),
        ("subtract", True): (-1.0, x),
        ("subtract", False): (1.0, -x),
        ("multiply", True): (x, 0.0),
        ("multiply", False): (x, 0.0),
        ("divide", False): (1 / (x or float("nan")), 0.0),
    }.get((operation, numbers[0]))
    if found is None:
        return {}
    return LayerSpec("scale", dict(zip(("factor", "offset"), found, strict=True)))
