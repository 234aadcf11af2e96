"""Activations: where defaults differ."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
import torch.nn.functional as F
from keras import layers, ops
from shared import Measured, argument, by_keras, by_torch, difference, draw, tensor
from torch import nn

from paripassu.core.layer_spec import relative_error


def activated(left: Callable[..., Any], right: Callable[..., Any]) -> float:
    x = 3 * draw(4, 50)
    return relative_error(by_torch(left, x), by_keras(right, x))


@difference(
    "Activations",
    "GELU by `keras.ops.gelu`: the approximation by tanh",
    "`keras.ops.gelu(x, approximate=False)`, which `keras.activations.gelu` is; its "
    "constants are of float32",
    "gelu-form",
    rest=1e-6,
)
def gelu_form() -> Measured:
    defaults = argument(F.gelu, "approximate") if _has(F.gelu) else "none"
    return Measured(
        f"approximate={defaults!r}",
        f"approximate={argument(ops.gelu, 'approximate')}",
        activated(F.gelu, ops.gelu),
        activated(F.gelu, lambda x: ops.gelu(x, approximate=False)),
    )


def _has(function: Callable[..., Any]) -> bool:
    try:
        return "approximate" in inspect.signature(function).parameters
    except ValueError:
        return False


@difference(
    "Activations",
    "LeakyReLU: the slope",
    "`LeakyReLU(negative_slope=0.01)`",
    "negative-slope",
    rest=1e-8,  # the slope has passed through float32
)
def leaky_relu_slope() -> Measured:
    one = argument(nn.LeakyReLU, "negative_slope")
    two = layers.LeakyReLU().negative_slope
    return Measured(
        one,
        two,
        activated(nn.LeakyReLU(), layers.LeakyReLU(dtype="float64")),
        activated(nn.LeakyReLU(), layers.LeakyReLU(one, dtype="float64")),
    )


@difference(
    "Activations",
    "`leaky_relu` as a function: another slope than Keras's layer",
    "`keras.activations.leaky_relu(x, negative_slope=0.01)`",
    "negative-slope",
    rest=1e-8,  # the slope has passed through float32
)
def leaky_relu_function() -> Measured:
    one = argument(nn.LeakyReLU, "negative_slope")
    function = keras.activations.leaky_relu
    return Measured(
        one,
        argument(function, "negative_slope"),
        activated(F.leaky_relu, function),
        activated(F.leaky_relu, lambda x: function(x, negative_slope=one)),
    )


@difference(
    "Activations",
    "PReLU: the slope that it begins with",
    "`PReLU(alpha_initializer=keras.initializers.Constant(0.25))`",
    "negative-slope",
)
def prelu_start() -> Measured:
    made = []
    for value in (None, 0.25):
        start = "zeros" if value is None else keras.initializers.Constant(value)
        layer = layers.PReLU(alpha_initializer=start, dtype="float64")
        made.append(activated(nn.PReLU(), layer))
    return Measured(argument(nn.PReLU, "init"), 0.0, *made)


@difference(
    "Activations",
    "Softmax without an axis: PyTorch guesses (and warns), Keras takes the last",
    "name the axis on both sides",
    "axis",
)
def softmax_axis() -> Measured:
    x = draw(3, 4, 5)
    right = by_keras(layers.Softmax(dtype="float64"), x)
    guessed = torch.softmax(tensor(x), 0).numpy()  # what F.softmax does with 3 axes
    named = torch.softmax(tensor(x), -1).numpy()
    return Measured(
        "None: axis 0 or 1",
        layers.Softmax().axis,
        relative_error(guessed, right),
        relative_error(named, right),
    )
