"""Functions of one array, forward; and backward those that recipes train.

All take the layer and its input, float64, and return an array of the same shape. A
missing setting is neutral.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.reference.losses import log_softmax, softmax

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # arXiv:1706.02515


def _elu(x: Array, alpha: float, beta: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / beta))


def _celu(layer: LayerSpec, x: Array) -> Array:
    alpha = layer.settings.get("alpha", 1.0)
    return _elu(x, alpha, alpha)


def _gelu(layer: LayerSpec, x: Array) -> Array:
    if layer.settings.get("approximate"):
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    from scipy.special import erf  # late: not every command computes layers

    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


def expit(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    from scipy import special

    return np.asarray(special.expit(x))


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def tanh(layer: LayerSpec, x: Array) -> Array:
    """y = amplitude * tanh(slope * x); both are 1 where they are not set."""
    amplitude, slope = _scales(layer)
    return np.asarray(amplitude * np.tanh(slope * x))


def tanh_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> tuple[Array, dict[str, Array]]:
    """dL/dx = gradient * amplitude * slope * (1 - tanh(slope * x)**2)."""
    amplitude, slope = _scales(layer)
    return gradient * amplitude * slope * (1 - np.tanh(slope * x) ** 2), {}


def _scales(layer: LayerSpec) -> tuple[float, float]:
    return layer.settings.get("amplitude", 1.0), layer.settings.get("slope", 1.0)


def relu_backward(
    _layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> tuple[Array, dict[str, Array]]:
    """dL/dx = gradient where x > 0, else 0.

    At x = 0, where there is no slope, it is 0: so PyTorch and TensorFlow.
    """
    return gradient * (x > 0), {}


Backward = tuple[Array, dict[str, Array]]


def leaky_relu_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Backward:
    """dL/dx = gradient where x > 0, else slope times it; so at x = 0."""
    return gradient * np.where(x > 0, 1.0, layer.settings["slope"]), {}


def elu_backward(layer: LayerSpec, x: Array, _y: Array, gradient: Array) -> Backward:
    """dL/dx = gradient where x > 0, else gradient * alpha * exp(x)."""
    below = layer.settings.get("alpha", 1.0) * np.exp(np.minimum(x, 0))
    return gradient * np.where(x > 0, 1.0, below), {}


def gelu_backward(layer: LayerSpec, x: Array, _y: Array, gradient: Array) -> Backward:
    """dL/dx = gradient * (P + x p), with the normal distribution P and its density p.

    By a tanh, P is (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x**3).
    """
    if layer.settings.get("approximate"):
        inner = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        rise = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2) * (1 - inner**2)
        return gradient * (0.5 * (1 + inner) + 0.5 * x * rise), {}
    from scipy.special import erf

    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return gradient * (0.5 * (1 + erf(x / np.sqrt(2))) + x * density), {}


def silu_backward(_layer: LayerSpec, x: Array, _y: Array, gradient: Array) -> Backward:
    """dL/dx = gradient * (s + x s (1 - s)), with s = sigmoid(x)."""
    share = expit(x)
    return gradient * (share + x * share * expit(-x)), {}


def sigmoid_backward(
    _layer: LayerSpec, x: Array, y: Array, gradient: Array
) -> Backward:
    """dL/dx = gradient * y * (1 - y), and 1 - y = sigmoid(-x)."""
    return gradient * y * expit(-x), {}


def softplus_backward(
    _layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Backward:
    """dL/dx = gradient * sigmoid(x)."""
    return gradient * expit(x), {}


def softmax_backward(
    layer: LayerSpec, _x: Array, y: Array, gradient: Array
) -> tuple[Array, dict[str, Array]]:
    """dL/dx[k] = y[k] * (gradient[k] - sum over j of gradient[j] * y[j]).

    Every x moves every y: dy[j]/dx[k] = y[j] * ((1 if j == k else 0) - y[k]).
    """
    axis = layer.settings.get("axis", -1)
    return y * (gradient - (gradient * y).sum(axis=axis, keepdims=True)), {}


ACTIVATIONS: dict[str, Callable[[LayerSpec, Array], Array]] = {
    "identity": lambda _, x: x,
    "relu": lambda _, x: np.maximum(x, 0),
    "relu6": lambda _, x: np.clip(x, 0, 6),
    "leaky_relu": lambda layer, x: np.where(x > 0, x, layer.settings["slope"] * x),
    "prelu": lambda layer, x: np.where(x > 0, x, layer.weights["slope"] * x),
    "elu": lambda layer, x: _elu(x, layer.settings.get("alpha", 1.0)),
    "celu": _celu,
    "selu": lambda _, x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "gelu": _gelu,
    "silu": lambda _, x: x * expit(x),
    "sigmoid": lambda _, x: expit(x),
    "hard_sigmoid": lambda _, x: _hard_sigmoid(x),
    "hard_swish": lambda _, x: x * _hard_sigmoid(x),
    "tanh": tanh,
    "softplus": lambda _, x: np.logaddexp(x, 0),
    "mish": lambda _, x: x * np.tanh(np.logaddexp(x, 0)),
    "softmax": lambda layer, x: softmax(x, layer.settings.get("axis", -1)),
    "log_softmax": lambda layer, x: log_softmax(x, layer.settings.get("axis", -1)),
}
