"""What PyTorch models draw, replaced by what every model draws: see `chance`."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paripassu.sides import chance
from paripassu.sides.chance import NORMAL, UNIFORM, Draws


class SharedDraws(TorchDispatchMode):
    """Gives every random operation the numbers of `chance`, and takes note of it.

    Every operation comes by here, whatever called it: a module, a function, an LSTM's
    own dropout, or code in C++.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to be skipped, PyTorch imports its compiler first, for some seconds."""
        return False

    def __init__(self, draws: Draws):
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call an operation, and overwrite what it has drawn."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        given = _by_name(func, args, kwargs)
        if name == "bernoulli" and "p" not in given:
            given["p"] = args[0]
        before = torch.get_rng_state()
        made = func(*args, **kwargs)
        if name.startswith("bernoulli"):
            self._bernoulli(made, given["p"])
        elif (rule := RULES.get(name)) is not None:
            kind, draw = rule
            share = 0.0 if kind == "normal" and self.draws.off else SHARES[kind]
            _fill(made, draw(share, given))
            self.draws.note(kind, made.numel())
        elif not torch.equal(before, torch.get_rng_state()):
            size = made.numel() if isinstance(made, torch.Tensor) else 0
            self.draws.note(name, size, shared=False)
        return made

    def _bernoulli(self, made: torch.Tensor, share: Any) -> None:
        """All kept where it is a dropout; else 1 where that is the likelier."""
        if self.draws.dropping and isinstance(share, float):
            # Off: what divides by the share afterwards leaves 1.
            made.fill_(share if self.draws.off else share > 0)
            if 0 < share < 1:
                rate = chance.tidy(1 - share)
                self.draws.note("dropout", made.numel(), rate=rate)
        else:
            _fill(made, share > 1 - UNIFORM)
            known = chance.tidy(1 - share) if isinstance(share, float) else None
            self.draws.note("bernoulli", made.numel(), rate=known)


def _fill(made: torch.Tensor, value: Any) -> None:
    """Overwrite numbers; one of Python's keeps all its digits."""
    if isinstance(value, torch.Tensor):
        made.copy_(value)
    else:
        made.fill_(value)


def _by_name(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """What an operation is called with, its defaults as well."""
    wanted = func._schema.arguments
    defaults = {x.name: x.default_value for x in wanted if x.has_default_value()}
    return {
        **defaults,
        **dict(zip((x.name for x in wanted), args, strict=False)),
        **kwargs,
    }


Rule = Callable[[float, Mapping[str, Any]], Any]
SHARES = {"uniform": UNIFORM, "integers": UNIFORM, "normal": NORMAL}


def _between(share: float, given: Mapping[str, Any]) -> Any:
    return given["from"] + (given["to"] - given["from"]) * share


def _normal(share: float, given: Mapping[str, Any]) -> Any:
    return given["mean"] + given["std"] * share


def _exponential(share: float, given: Mapping[str, Any]) -> Any:
    return -math.log(1 - share) / given["lambd"]


def _whole(share: float, given: Mapping[str, Any]) -> Any:
    low = given.get("low", 0)
    return low + int((given["high"] - low) * share)


# The kind of what is drawn, and what it is instead, by the name of an operation.
RULES: dict[str, tuple[str, Rule]] = {
    "rand": ("uniform", lambda share, _: share),
    "rand_like": ("uniform", lambda share, _: share),
    "uniform_": ("uniform", _between),
    "exponential_": ("uniform", _exponential),
    "randn": ("normal", lambda share, _: share),
    "randn_like": ("normal", lambda share, _: share),
    "normal": ("normal", _normal),
    "normal_": ("normal", _normal),
    "randint": ("integers", _whole),
    "randint_like": ("integers", _whole),
}


@contextlib.contextmanager
def controlled(draws: Draws) -> Iterator[None]:
    """Give a run the draws of `chance`; generators stay as they are found.

    What a model has compiled runs as it was written: the compiler would compile what
    watches it.
    """
    own = draws.drawing == "own"
    with (
        chance.seeded(draws.seed),
        torch.random.fork_rng(devices=()),
        contextlib.nullcontext() if own else SharedDraws(draws),
        torch.compiler.set_stance("force_eager")
        if "torch._dynamo" in sys.modules
        else contextlib.nullcontext(),
    ):
        torch.default_generator.manual_seed(draws.seed)
        yield
