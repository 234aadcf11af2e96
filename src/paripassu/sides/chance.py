"""What a model draws while it is examined: the same numbers in every framework.

A draw is as good as another, so one is taken that needs no order of axes: dropout keeps
everything, and divides by 1 - rate as ever; every uniform number is `UNIFORM`, every
normal one `NORMAL`. So two models in training mode compute the same exactly where they
drop at the same places at the same rates, whatever they call it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from paripassu.sides import user_code
from paripassu.sides.contract import Draw, Drawing
from paripassu.sides.observing import Observer

SEED = 20
# Of [0, 1): `u < keep`, `u > rate` and `floor(keep + u)` all keep at rates below
# a half. A multiple of 1/64 is the same number in bfloat16 and in float64.
UNIFORM = 33 / 64
NORMAL = 0.5  # standard deviations
# Kinds of calls, and names of functions, that drop for themselves.
DROPPING_KINDS = {"dropout", "attention", "lstm", "gru", "rnn"}
DROPPING_NAMES = (
    *("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d"),
    *("scaled_dot_product_attention", "multi_head_attention_forward"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
)


class Draws(list[Draw]):
    """Takes note of what a run draws.

    Args:
        observer: of the run.
        seed: of what cannot be shared.
        drawing: what the model is given.
    """

    def __init__(self, observer: Observer, seed: int, drawing: Drawing):
        super().__init__()
        self.observer, self.seed, self.drawing = observer, seed, drawing
        self.functions: list[str] = []  # that are at work, by name
        self.rate: float | None = None  # of the layer at work, if it says one

    @property
    def off(self) -> bool:
        """Whether dropout and noise leave values as they are."""
        return self.drawing == "off"

    @property
    def dropping(self) -> bool:
        """Whether a layer or a function whose work is to drop is drawing."""
        if any(x.endswith(DROPPING_NAMES) for x in self.functions):
            return True
        call = self.observer.latest
        inside = self.observer.depth > 0
        return call is not None and inside and call.kind in DROPPING_KINDS

    @contextlib.contextmanager
    def calling(self, name: str) -> Iterator[None]:
        """While a function of that name is at work."""
        self.functions.append(name)
        try:
            yield
        finally:
            self.functions.pop()

    def note(
        self,
        kind: str,
        size: int,
        *,
        rate: float | None = None,
        shared: bool = True,
    ) -> None:
        """Add a draw; a layer whose work it is gets it as a setting."""
        call = self.observer.latest
        inside = call is not None and self.observer.depth > 0
        if call is None:
            place = "the beginning"
        else:
            place = call.name if inside else f"after {call.name}"
        if inside and call is not None and call.kind == "dropout":
            call.spec.settings["rate" if rate else "noise"] = rate or kind
        after = self.observer.latest_weighted
        self.append(
            Draw(place, kind, rate, size, after, user_code.calling_line(), shared)
        )


def tidy(rate: float) -> float:
    """A rate as its author wrote it: 0.1 for 1 - 0.9."""
    return round(float(rate), 6)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's generators with a seed; what they were before after it."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
