"""What listens to a model as it runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paripassu.core.layer_spec import Array
from paripassu.core.layout import hash_arrays
from paripassu.port_check.groups import Anchors
from paripassu.port_check.matching import INPUT
from paripassu.port_check.segments import Seen
from paripassu.sides.contract import Call


class Nothing:
    """Listens to nothing."""

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Nothing."""


class Prints:
    """The outputs of all calls, as a hash."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Take the hash of the outputs."""
        digest = bytes(hash_arrays(np.ascontiguousarray(x) for x in outputs)).hex()
        self.seen.append((call.title.partition("(")[0] + f" ({call.name})", digest))


class Listing:
    """In which order layers with weights are called, and how deep they lie."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.order: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        self.parents: dict[str, frozenset[str]] = {}
        self._depth: dict[int, int | None] = {-1: 0}
        self._names: dict[int, frozenset[str]] = {-1: frozenset((INPUT,))}

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Note the order."""
        del inputs
        self.calls.append(call)
        if call.weighted:
            self.order.setdefault(call.name, call.serial)
        found = [self._depth.get(x) for x in call.sources]
        known = [x for x in found if x is not None]
        depth = None
        if found and len(known) == len(found):
            depth = max(known) + int(call.weighted)
            if call.weighted:
                self.depths.setdefault(call.name, depth)
        self._depth[call.serial] = depth
        if depth is not None:
            known_names = [self._names.get(x, frozenset()) for x in call.sources]
            parents: frozenset[str] = frozenset().union(*known_names)
            if call.weighted:
                self.parents.setdefault(call.name, parents)
                parents = frozenset((call.name,))
            self._names[call.serial] = parents

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Nothing."""


class Everything:
    """Keeps the arrays of all calls, and lets another watcher replace them."""

    def __init__(self, inner: Anchors):
        self.inner = inner
        self.seen: list[Seen] = []
        self.inputs: dict[int, tuple[Array, ...]] = {}
        self.calls: list[Call] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the inputs as they came."""
        self.inputs[call.serial] = tuple(inputs)
        assert call.serial == len(self.seen)
        self.seen.append(Seen(call, tuple(inputs), ()))
        return self.inner.enter(call, inputs)

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the outputs; where they are replaced, those that the other model had."""
        given = self.inner.leave(call, outputs)
        self.seen[call.serial] = Seen(call, self.inputs[call.serial], tuple(outputs))
        return given
