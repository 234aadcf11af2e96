"""What Keras models draw, replaced by what every model draws: see `chance`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from paripassu.sides import chance
from paripassu.sides.chance import NORMAL, UNIFORM, Draws

# What TensorFlow draws by, and Keras through it, by where it is.
DROPOUTS: dict[Any, str] = {
    tf.nn: "dropout",
    tf.nn.experimental: "stateless_dropout general_dropout",
}
UNIFORMS: dict[Any, str] = {
    tf.random: "uniform stateless_uniform",
    tf.random.Generator: "uniform",
}
NORMALS: dict[Any, str] = {
    tf.random: ("normal truncated_normal stateless_normal stateless_truncated_normal"),
    tf.random.Generator: "normal truncated_normal",
}
# Seeded only: what one draws is of no use to another framework.
OTHERS: dict[Any, str] = {
    tf.random: (
        "shuffle categorical gamma poisson stateless_categorical stateless_binomial "
        "stateless_gamma stateless_poisson stateless_shuffle "
        "stateless_parameterized_truncated_normal"
    ),
}


@contextlib.contextmanager
def controlled(draws: Draws) -> Iterator[None]:
    """Give a run the draws of `chance`; generators stay as they are found."""
    makers = (
        (DROPOUTS, _dropout),
        (UNIFORMS, _uniform),
        (NORMALS, _normal),
        (OTHERS, _other),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(chance.seeded(draws.seed))
        stack.enter_context(_tensorflow_seeded(draws.seed))
        stack.enter_context(_eager())
        for table, make in () if draws.drawing == "own" else makers:
            for owner, names in table.items():
                for name in names.split():
                    if (original := getattr(owner, name, None)) is not None:
                        fresh = functools.wraps(original)(make(original, draws))
                        stack.enter_context(replaced(owner, name, fresh))
        yield


def _dropout(original: Any, draws: Draws) -> Callable[..., Any]:
    """All is kept, and divided by 1 - rate."""

    def dropout(*args: Any, **kwargs: Any) -> Any:
        given = _by_name(original, args, kwargs)
        x, rate = tf.convert_to_tensor(given["x"]), float(given["rate"])
        if rate == 0:
            return x
        shape = x.shape if given["noise_shape"] is None else given["noise_shape"]
        sizes = zip(np.asarray(shape), x.shape, strict=True)
        size = int(np.prod([own if n is None else n for n, own in sizes]))
        draws.note("dropout", size, rate=chance.tidy(rate))
        return x if draws.off else x * _number(1 / (1 - rate), x.dtype)

    return dropout


def _uniform(original: Any, draws: Draws) -> Callable[..., Any]:
    def uniform(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        given = _by_name(original, args, kwargs)
        low, high = given.get("minval"), given.get("maxval")
        low = 0 if low is None else low
        size = int(np.prod(made.shape))
        if made.dtype.is_integer:
            if high is None:
                draws.note("integers", size, shared=False)
                return made
            draws.note("integers", size)
            value = int(low) + int((int(high) - int(low)) * UNIFORM)
            return tf.fill(tf.shape(made), tf.cast(value, made.dtype))
        # Keras's AlphaDropout drops what is drawn below its rate.
        drops = draws.dropping
        draws.note(
            "dropout" if drops else "uniform", size, rate=draws.rate if drops else None
        )
        high = 1 if high is None else high
        share = 1 - 2.0**-20 if drops else UNIFORM
        low, high = _number(low, made.dtype), _number(high, made.dtype)
        return tf.zeros_like(made) + low + (high - low) * _number(share, made.dtype)

    return uniform


def _normal(original: Any, draws: Draws) -> Callable[..., Any]:
    def normal(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        given = _by_name(original, args, kwargs)
        draws.note("normal", int(np.prod(made.shape)))
        mean = _number(given.get("mean", 0.0), made.dtype)
        deviation = _number(given.get("stddev", 1.0), made.dtype)
        value = 0.0 if draws.off else NORMAL
        return tf.zeros_like(made) + mean + deviation * _number(value, made.dtype)

    return normal


def _other(original: Any, draws: Draws) -> Callable[..., Any]:
    name = original.__name__

    def other(*args: Any, **kwargs: Any) -> Any:
        # A seed of the model's own is moved on, so that another one shows.
        if kwargs.get("seed") is not None and name.startswith("stateless"):
            kwargs["seed"] = tf.convert_to_tensor(kwargs["seed"]) + draws.seed
        made = original(*args, **kwargs)
        draws.note(name, int(np.prod(made.shape)), shared=False)
        return made

    return other


def _number(value: Any, dtype: Any) -> Any:
    """A number in a type; `tf.cast` would round one of Python's to float32 first."""
    if isinstance(value, (int, float)):
        return tf.constant(value, dtype)
    return tf.cast(value, dtype)


def _by_name(original: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(original).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


@contextlib.contextmanager
def _tensorflow_seeded(seed: int) -> Iterator[None]:
    """TensorFlow's generator with a seed; what it was before after it."""
    eager = context.context()
    before = eager._seed, getattr(eager, "_rng", None)
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        eager._seed, eager._rng = before


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """What a model has put in a `tf.function` is called, not traced with our draws."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a while."""
    own = name in vars(owner)
    before = getattr(owner, name)
    if own:
        before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own or not isinstance(owner, type):
            setattr(owner, name, before)
        else:
            delattr(owner, name)
