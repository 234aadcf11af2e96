"""Opens any Keras optimizer: its rule, and the steps that it takes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array
from paripassu.reference.optimizers import OptimizerRule
from paripassu.sides import user_code
from paripassu.sides.contract import RULE_CHANGES
from paripassu.sides.tables import find_base, read_settings

EXAMPLE = "def make(): return keras.optimizers.Adam(1e-3)"
Schedule = keras.optimizers.schedules.LearningRateSchedule


def _maker(found: Any, source: str) -> Callable[[], Any]:
    """A function that makes a user's optimizer, which is not stepped yet.

    Raises:
        UserError: none can be made; from the function: it raises, or returns
            something else.
    """
    if isinstance(found, keras.optimizers.Optimizer):
        return lambda: _anew(found, source)
    if not callable(found):
        raise UserError(
            f"{source} is an object of type {type(found).__name__}. A "
            "keras.optimizers.Optimizer, a class of them or a function that "
            f"makes one is expected: {EXAMPLE}."
        )

    def make() -> Any:
        made = user_code.run(found, source)
        if not isinstance(made, keras.optimizers.Optimizer):
            raise UserError(
                f"{source} returns {type(made).__name__}. A "
                f"keras.optimizers.Optimizer is expected: {EXAMPLE}."
            )
        # A function may return the same one each time.
        return _anew(made, source) if made.built else made

    return make


def examine(
    found: Any,
    source: str,
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
    horizon: int = 0,
) -> tuple[OptimizerRule, list[dict[str, Array]]]:
    """See `paripassu.sides.contract.OptimizerModule`."""
    make = _maker(found, source)
    with _in_float64():
        rule = _describe(make(), max(horizon, len(gradients)))
        return rule, _follow(make(), parameters, gradients)


def _describe(made: Any, steps: int) -> OptimizerRule:
    """What an optimizer that is not stepped yet is made of."""
    name = _name(type(made))
    family, settings, forms = _rule(made)
    because = f"{name} is not known here" if family == "other" else ""
    for key in ("use_ema", "gradient_accumulation_steps"):
        if getattr(made, key, None):
            because = because or f"it has {key}"
    if getattr(made, "_exclude_from_weight_decay", None) or getattr(
        made, "_exclude_from_weight_decay_pattern", None
    ):
        because = because or "some of its variables are excluded from weight decay"
    settings["learning_rate"] = _rates(made, steps)
    family = "other" if because else family
    return OptimizerRule(family, settings, forms, name, because)


def _follow(
    optimizer: Any,
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
) -> list[dict[str, Array]]:
    """The parameters after each step."""
    what = f"{_name(type(optimizer))}.apply()"
    variables = [
        keras.Variable(np.array(x, np.float64), dtype="float64", name=name)
        for name, x in parameters.items()
    ]
    # Training multiplies the loss by it; the optimizer takes it back.
    factor = getattr(optimizer, "loss_scale_factor", None) or 1.0
    path = []
    for given in gradients:
        tensors = [
            tf.constant(np.array(given[name], np.float64) * factor)
            for name in parameters
        ]
        user_code.run(partial(optimizer.apply, tensors, variables), what)
        values = [np.array(x.value) for x in variables]
        path.append(dict(zip(parameters, values, strict=True)))
    return path


@contextlib.contextmanager
def _in_float64() -> Iterator[None]:
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def _anew(optimizer: Any, source: str) -> Any:
    """The same optimizer before its first step, made from its configuration.

    A learning rate, which Keras keeps in float32, becomes the shortest decimal
    number: 0.001, not 0.0010000000475.
    """
    try:
        with warnings.catch_warnings():  # of a lambda in what is not saved
            warnings.simplefilter("ignore")
            config = dict(optimizer.get_config())
        rate = config.get("learning_rate")
        if isinstance(rate, float) and rate == float(np.float32(rate)):
            config["learning_rate"] = float(str(np.float32(rate)))
        made = type(optimizer).from_config(config)
    except Exception as error:
        if not optimizer.built:
            return optimizer
        raise UserError(
            f"{source} has been used, and cannot be made anew from its "
            f"configuration ({type(error).__name__}: {error}). A function that "
            f"makes one is expected: {EXAMPLE}."
        ) from error
    for key in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(optimizer, key):
            setattr(made, key, getattr(optimizer, key))
    return made


def _name(cls: type) -> str:
    if cls.__module__.startswith("keras.src.optimizers"):
        return f"keras.optimizers.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


def _rates(optimizer: Any, steps: int) -> float | list[float]:
    """The rate of each step; one number where none changes it."""
    schedule = optimizer._learning_rate
    if isinstance(schedule, Schedule):
        rates = user_code.run(
            lambda: [float(schedule(tf.constant(t, tf.int64))) for t in range(steps)],
            type(schedule).__name__,
        )
    elif callable(schedule) and not isinstance(schedule, keras.Variable):
        rates = user_code.run(
            lambda: [float(schedule()) for _ in range(steps)],
            "the learning rate's function",
        )
    else:
        return float(keras.ops.convert_to_numpy(schedule))
    return rates if len(set(rates)) > 1 else rates[0]


CLIPS = {
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_global_norm",
    "clipvalue": "clip_value",
}
CONSTANTS = {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"}
METHODS = ("update_step", "apply", "apply_gradients")
ADAM_FORMS = {"epsilon_form": "hat", "amsgrad_form": "raw"}
known = keras.optimizers
# Of each class: the family, the attribute of each setting or its value, and forms.
OPTIMIZERS: dict[type, tuple[str, dict[str, Any], dict[str, str]]] = {
    known.SGD: (
        "sgd",
        {"momentum": "momentum", "nesterov": "nesterov", "dampening": 0.0},
        {"momentum_form": "rate_inside"},
    ),
    known.Adam: ("adam", {"amsgrad": "amsgrad"}, ADAM_FORMS),
    known.AdamW: ("adam", {"amsgrad": "amsgrad"}, ADAM_FORMS),
    known.Nadam: ("nadam", {"momentum_decay": 1.0}, {}),
    known.Adamax: ("adamax", {}, {"epsilon_form": "outside"}),
    known.RMSprop: (
        "rmsprop",
        {"rho": "rho", "momentum": "momentum", "centered": "centered"},
        {"momentum_form": "rate_inside", "epsilon_form": "inside"},
    ),
    known.Adagrad: (
        "adagrad",
        {"accumulator": "initial_accumulator_value", "learning_rate_decay": 0.0},
        {"epsilon_form": "inside"},
    ),
    known.Adadelta: ("adadelta", {"rho": "rho"}, {}),
}


def _rule(made: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The family, settings and forms of a class that is known."""
    found, changed = find_base(type(made), OPTIMIZERS, METHODS, RULE_CHANGES)
    changes = getattr(made, RULE_CHANGES, {})
    # Keras's own decay goes past the gradient; two of them have no rule.
    if found is None or changed or (made.weight_decay and "weight_decay" in changes):
        return "other", {}, {}
    family, keys, forms = found
    forms = {"decay_form": "decoupled", **forms}
    settings: dict[str, Any] = {
        "weight_decay": float(made.weight_decay or 0),
        "maximize": False,
    }
    clips = {name: key for key, name in CLIPS.items() if getattr(made, key, None)}
    if clips:
        forms["clip_form"] = "plain"
    names = {name: key for key, name in CONSTANTS.items() if hasattr(made, key)}
    settings |= read_settings(made, clips | names | keys)
    for key, value in changes.items():
        (forms if key.endswith("_form") else settings)[key] = value
    return family, settings, forms
