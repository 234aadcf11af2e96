"""Opens any optax optimizer: its rule, and the steps that it takes.

An optax optimizer is two functions, so what it is made of is read from their closures:
which of optax's transformations are chained, in which order, with which constants. What
is not known there is followed all the same. A rule that is read wrongly does not take
the optimizer's steps, and is not believed then.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array
from paripassu.reference.optimizers import OptimizerRule
from paripassu.sides import user_code
from paripassu.sides.contract import RULE_CHANGES

EXAMPLE = "def make(): return optax.adam(1e-3)"
Constants = Mapping[str, Any]


def examine(
    found: Any,
    source: str,
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
    horizon: int = 0,
) -> tuple[OptimizerRule, list[dict[str, Array]]]:
    """See `paripassu.sides.contract.OptimizerModule`."""
    with _in_float64():
        made = _made(found, source)
        rule = _describe(made, max(horizon, len(gradients)))
        return rule, _follow(made, parameters, gradients)


@contextlib.contextmanager
def _in_float64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _made(found: Any, source: str) -> Any:
    """A user's optimizer, which keeps nothing itself: its state is with its user.

    Raises:
        UserError: none can be made.
    """
    if isinstance(found, optax.GradientTransformation):
        return found
    if not callable(found):
        raise UserError(
            f"{source} is an object of type {type(found).__name__}. An "
            "optax.GradientTransformation or a function of nothing that makes one is "
            f"expected: {EXAMPLE}."
        )
    made = user_code.run(found, source)
    if not isinstance(made, optax.GradientTransformation):
        raise UserError(
            f"{source} returns {type(made).__name__}. An "
            f"optax.GradientTransformation is expected: {EXAMPLE}."
        )
    return made


def _follow(
    made: Any,
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
) -> list[dict[str, Array]]:
    """The parameters after each step."""
    weights = {name: jnp.asarray(x, jnp.float64) for name, x in parameters.items()}
    state = user_code.run(lambda: made.init(weights), "its init")
    path = []
    for given in gradients:
        slopes = {name: jnp.asarray(given[name], jnp.float64) for name in parameters}
        step = functools.partial(made.update, slopes, state, weights)
        moves, state = user_code.run(step, "its update")
        weights = optax.apply_updates(weights, moves)
        path.append({name: np.array(x, np.float64) for name, x in weights.items()})
    return path


@dataclass
class _Read:
    """What the links of a chain that were read so far do together.

    Attributes:
        family: of the link that makes the step; "" before it.
        scales: what the step is multiplied by, numbers and functions of a count.
        because: why it is not known.
    """

    family: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    forms: dict[str, str] = field(default_factory=dict)
    scales: list[Any] = field(default_factory=list)
    because: str = ""

    @property
    def begun(self) -> bool:
        """Whether a link before has done anything but clip and decay."""
        return bool(self.family or self.scales or "momentum" in self.settings)


def _describe(made: Any, steps: int) -> OptimizerRule:
    """What an optimizer is made of; its schedules are read for some steps."""
    links = list(_links(made.init, made.update))
    read = _Read()
    for name, constants in links:
        if take := _told if TOLD in constants else LINKS.get(name):
            take(read, constants)
        else:
            read.because = read.because or f"optax.{name} is not known here"
    rates = [-_rate(read.scales, step) for step in range(steps)]
    constant = all(x == rates[0] for x in rates)
    if "after_rate" in read.settings:  # w + s * w, where s is no part of the rate
        share = read.settings.pop("after_rate")
        if not constant or not rates[0]:
            read.because = "weights decay behind a rate that changes"
        read.settings["weight_decay"] = -share / (rates[0] or 1.0)
    if sum(rates) < 0:
        read.settings["maximize"] = True
        rates = [-x for x in rates]
        if read.settings.get("weight_decay"):
            read.because = "it goes up the slope, and lets weights decay"
    read.settings["learning_rate"] = rates[0] if constant else rates
    read.settings = {"weight_decay": 0.0, "maximize": False} | read.settings
    name = _name(read, [name for name, _ in links])
    family = "other" if read.because else read.family or "sgd"
    if family == "sgd":
        read.settings.setdefault("momentum", 0.0)
    return OptimizerRule(family, read.settings, read.forms, name, read.because)


def _links(init: Any, update: Any) -> Iterator[tuple[str, Constants]]:
    """The transformations in a chain, with the constants in their closures."""
    inner, outer = _closure(update), _closure(init)
    module, _, name = f"{update.__module__}.{update.__qualname__}".partition(".")
    name = name.partition(".<locals>")[0].rpartition(".")[2]
    if told := getattr(update, RULE_CHANGES, None):
        yield name, {TOLD: told}
    elif module != "optax":
        yield f"{module}.{name}", {}
    elif name == "chain":
        for pair in zip(outer["init_fns"], inner["update_fns"], strict=True):
            yield from _links(*pair)
    elif name == "named_chain":
        for _, link in inner["transforms"]:
            yield from _links(link.init, link.update)
    elif name == "with_extra_args_support":
        yield from _links(inner["tx"].init, inner["tx"].update)
    elif name == "inject_hyperparams":
        schedules = {
            key: getattr(x, "schedule_fn", x) for key, x in inner["sched_hps"].items()
        }
        numbers = {key: float(x) for key, x in outer["numeric_hps"].items()}
        link = inner["inner_factory"](**inner["other_hps"], **numbers, **schedules)
        yield from _links(link.init, link.update)
    elif name != "identity":
        yield name, {**outer, **inner}


def _closure(function: Any) -> dict[str, Any]:
    """What a function has from around it, by name."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    return {
        name: cell.cell_contents
        for name, cell in zip(code.co_freevars if code else (), cells, strict=False)
    }


def _rate(scales: Sequence[Any], step: int) -> float:
    """The product of all scales in a step counted from 0, as optax counts updates."""
    rate = 1.0
    for scale in scales:
        count = jnp.asarray(step, jnp.int32)
        rate *= float(
            user_code.run(functools.partial(scale, count), "its schedule")
            if callable(scale)
            else scale
        )
    return rate


def _name(read: _Read, links: Sequence[str]) -> str:
    """The function of optax that chains these, as a user writes it."""
    if read.because or any(x not in LINKS for x in links):
        return f"optax.chain({', '.join(links)})"
    if read.family == "adam" and read.settings.get("amsgrad"):
        return "optax.amsgrad"
    decoupled = read.forms.get("decay_form") == "decoupled"
    more = "w" if decoupled and read.family in ("adam", "adamax", "nadam") else ""
    return f"optax.{read.family or 'sgd'}{more}"


# What each link adds to what is read; a link at a place where no rule has it makes the
# whole unknown.


def _clip(read: _Read, key: str, value: Any) -> None:
    clipped = any(x.startswith("clip_") for x in read.settings)
    if read.begun or clipped or "weight_decay" in read.settings:
        read.because = "it clips elsewhere than before all else, or twice"
    read.settings[key] = float(value)
    read.forms["clip_form"] = "plain"


def _decay(read: _Read, constants: Constants) -> None:
    share = constants["weight_decay"]
    if callable(share):
        read.because = "its weight decay has a schedule"
    elif share and {"weight_decay", "after_rate"} & read.settings.keys():
        read.because = "weights decay twice"
    elif share and read.scales:
        read.settings["after_rate"] = float(share)
        read.forms["decay_form"] = "decoupled"
    elif share:
        read.settings["weight_decay"] = float(share)
        read.forms["decay_form"] = "decoupled" if read.begun else "l2"


def _trace(read: _Read, constants: Constants) -> None:
    decays = "weight_decay" in read.settings and read.forms["decay_form"] != "l2"
    rms = read.family == "rmsprop"
    repeated = read.settings.get("momentum") or "after_rate" in read.settings
    if (read.family and not rms) or decays or repeated:
        read.because = "it has a momentum at a place that is not known here"
    read.settings["momentum"] = float(constants["decay"])
    read.settings["nesterov"] = bool(constants["nesterov"])
    read.forms["momentum_form"] = "rate_inside" if read.scales else "rate_outside"


def _rule(
    family: str, names: Mapping[str, str], **forms: str
) -> Callable[[_Read, Constants], None]:
    """Of a link that makes the step: the constant of each setting, and forms."""

    def take(read: _Read, constants: Constants) -> None:
        if read.begun:
            read.because = f"{family} stands behind another rule or a factor"
        read.family = family
        for key, name in names.items():
            value = constants.get(name, 0.0)
            if callable(value):
                read.because = f"its {name} has a schedule"
            else:
                read.settings[key] = value if isinstance(value, bool) else float(value)
        read.forms |= forms

    return take


def _adam(read: _Read, constants: Constants) -> None:
    _rule("adam", ADAM, epsilon_form="outside")(read, constants)
    read.settings["amsgrad"] = False
    if constants["nesterov"]:
        read.family = "nadam"
        read.settings.pop("amsgrad")
        read.forms.pop("epsilon_form")
        # Its momentum is the same in each step: 0.96 to this power is 0.
        read.settings["momentum_decay"] = WITHOUT_WARM_UP
        if read.settings.pop("epsilon_root"):
            read.because = "it has Nesterov's momentum beside an eps_root"
    if constants["mu_dtype"] is not None:
        read.because = "its first moment has a number type of its own"


def _amsgrad(read: _Read, constants: Constants) -> None:
    _rule("adam", ADAM, epsilon_form="outside", amsgrad_form="corrected")(
        read, constants
    )
    read.settings["amsgrad"] = True
    if not (constants["bias_correction_mu"] and constants["bias_correction_nu"]):
        read.because = "its means are not corrected"
    if constants["mu_dtype"] is not None:
        read.because = "its first moment has a number type of its own"


def _rms(read: _Read, constants: Constants, centered: bool) -> None:
    form = "inside" if constants["eps_in_sqrt"] else "outside"
    _rule("rmsprop", {"rho": "decay", "epsilon": "eps"}, epsilon_form=form)(
        read, constants
    )
    read.settings |= {"momentum": 0.0, "centered": centered}
    if constants["bias_correction"]:
        read.because = "its mean square is corrected"
    if np.any(constants["initial_scale"]):
        read.because = "its mean square does not begin at 0"


def _told(read: _Read, constants: Constants) -> None:
    """A transformation that says its own rule, by the names of `OptimizerRule`."""
    told = constants[TOLD]
    if read.begun:
        read.because = "what says its own rule stands behind another"
    read.family = told["family"]
    for key, value in told.items():
        if key != "family":
            (read.forms if key.endswith("_form") else read.settings)[key] = value


TOLD = "told"
WITHOUT_WARM_UP = 1e9
ADAM = {"beta1": "b1", "beta2": "b2", "epsilon": "eps", "epsilon_root": "eps_root"}
LINKS: dict[str, Callable[[_Read, Constants], None]] = {
    "scale": lambda read, x: read.scales.append(x["step_size"]),
    "scale_by_schedule": lambda read, x: read.scales.append(x["step_size_fn"]),
    "clip": lambda read, x: _clip(read, "clip_value", x["max_delta"]),
    "clip_by_global_norm": lambda read, x: _clip(
        read, "clip_global_norm", x["max_norm"]
    ),
    "add_decayed_weights": _decay,
    "trace": _trace,
    "scale_by_adam": _adam,
    "scale_by_amsgrad": _amsgrad,
    "scale_by_adamax": _rule(
        "adamax",
        {"beta1": "b1", "beta2": "b2", "epsilon": "eps"},
        epsilon_form="maximum",
    ),
    "scale_by_rms": functools.partial(_rms, centered=False),
    "scale_by_stddev": functools.partial(_rms, centered=True),
    "scale_by_rss": _rule(
        "adagrad",
        {"accumulator": "initial_accumulator_value", "epsilon": "eps"},
        epsilon_form="inside",
    ),
    "scale_by_adadelta": _rule("adadelta", {"rho": "rho", "epsilon": "eps"}),
}
