"""A model that is examined, and what is asked of the examination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paripassu.core.errors import PariPassuError, UserError
from paripassu.port_check.watchers import Prints
from paripassu.sides.contract import Arrays, Probe, Step


@dataclass
class Side:
    """A model, as it is examined."""

    which: str
    probe: Probe
    source: str
    versions: Mapping[str, str] = field(default_factory=dict)

    def run(self, inputs: Arrays, watcher: Any, **how: bool) -> Arrays:
        """See `core.ports.Probe.run`; what the model raises is `ModelError`."""
        with self._theirs():
            return self.probe.run(inputs, watcher, **how)

    def step(self, inputs: Arrays, cotangents: Arrays) -> Step:
        """See `core.ports.Probe.step`; what the model raises is `ModelError`."""
        with self._theirs():
            return self.probe.step(inputs, cotangents)

    @contextmanager
    def _theirs(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise ModelError(self.which, self.source, error) from error

    def random_at(self, inputs: Arrays, *, training: bool) -> str | None:
        """The first call that gives something else in a second run, or None."""
        prints = [Prints(), Prints()]
        for watcher in prints:
            self.run(inputs, watcher, training=training)
        for one, two in zip(prints[0].seen, prints[1].seen, strict=False):
            if one != two:
                return one[0]
        return None


@dataclass
class Wishes:
    """What a check is to do beside comparing.

    Attributes:
        copy: "left-to-right" or "right-to-left", or None.
        given: pairs of blocks that are not to be questioned.
        gradients: also compare training mode and gradients.
    """

    copy: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    gradients: bool = True


class ModelError(PariPassuError):
    """A user's model raised."""

    def __init__(self, which: str, source: str, error: Exception):
        super().__init__(f"the {which} model, {source}, raised {type(error).__name__}")
        self.which, self.source, self.error = which, source, error


def doubled(arrays: Arrays) -> Arrays:
    """Floats in float64."""
    return {
        name: x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x
        for name, x in arrays.items()
    }
