"""How a side's tables are read: by the classes that a user's class is made of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


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
