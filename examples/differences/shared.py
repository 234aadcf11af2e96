"""What the examples have in common: the table that they are in, and how they run."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import numpy as np
from keras import ops
from torch import nn


@dataclass(frozen=True)
class Measured:
    """One difference as it is here.

    Attributes:
        pytorch, keras: the defaults, read from the frameworks.
        default: how far results are apart with them, over the largest value.
        equal: the same with the settings that `write` names.
    """

    pytorch: Any
    keras: Any
    default: float
    equal: float


@dataclass(frozen=True)
class Difference:
    """What a difference is called, how to make it zero, and the function that shows it.

    Attributes:
        key: the function's name.
        topic: under which it is listed.
        title: what differs.
        write: what makes them equal.
        cause: the key under which `paripassu check` names it, if it does.
        rest: of what is left when no setting makes them equal, the largest allowed.
    """

    key: str
    topic: str
    title: str
    write: str
    cause: str | None
    rest: float
    show: Callable[[], Measured]


KNOWN: list[Difference] = []
ROUNDING = 1e-12


def difference(
    topic: str,
    title: str,
    write: str,
    cause: str | None = None,
    rest: float = ROUNDING,
) -> Callable[[Callable[[], Measured]], Callable[[], Measured]]:
    """Take a function into the table."""

    def take(show: Callable[[], Measured]) -> Callable[[], Measured]:
        key = show.__name__.replace("_", "-")
        KNOWN.append(Difference(key, topic, title, write, cause, rest, show))
        return show

    return take


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal values, the same each time."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def tensor(array: np.ndarray) -> torch.Tensor:
    """For PyTorch."""
    return torch.from_numpy(np.ascontiguousarray(array))


def first(array: np.ndarray) -> np.ndarray:
    """(N, ..., C) as (N, C, ...)."""
    return np.moveaxis(array, -1, 1)


def by_torch(module: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """What a module gives, channels last again where it has images."""
    if isinstance(module, nn.Module):
        module = module.double().eval()
    with torch.no_grad():
        if x.ndim < 4:
            return module(tensor(x)).numpy()
        return np.moveaxis(module(tensor(first(x))).numpy(), 1, -1)


def by_keras(layer: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """What a layer of float64 gives."""
    return np.asarray(layer(ops.convert_to_tensor(x)))


def argument(function: Callable[..., Any], name: str) -> Any:
    """A default, from the signature."""
    return inspect.signature(function).parameters[name].default


IMAGE = draw(2, 9, 8, 4)


def spread(array: Any) -> float:
    """The standard deviation."""
    return float(np.std(np.asarray(array)))
