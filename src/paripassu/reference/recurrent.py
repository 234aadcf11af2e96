"""Recurrent layers of the reference: one direction, all steps or the last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.reference.activations import ACTIVATIONS


def _function(layer: LayerSpec, name: str, otherwise: str) -> Callable[[Array], Array]:
    kind = layer.settings.get(name, otherwise)
    return partial(ACTIVATIONS[kind], LayerSpec(kind))


def _over(layer: LayerSpec, x: Array, step: Callable[[Array, Any], Any]) -> Array:
    """Run over the steps of (N, t, c); `step` makes the next state of an input."""
    settings, width = layer.settings, len(layer.weights["recurrent"])
    times = range(x.shape[1])
    state: Any = (np.zeros((len(x), width)), np.zeros((len(x), width)))
    made = np.zeros((len(x), x.shape[1], width))
    for time in reversed(times) if settings.get("reverse") else times:
        state = step(x[:, time], state)
        made[:, time] = state[0]
    if settings.get("last"):
        return made[:, 0 if settings.get("reverse") else -1]
    return made[:, ::-1] if settings.get("flipped") else made


def lstm(layer: LayerSpec, x: Array) -> Array:
    """Hochreiter and Schmidhuber 1997 with a forget gate; gates i, f, g, o."""
    weights = layer.weights
    gate = _function(layer, "recurrent_activation", "sigmoid")
    function = _function(layer, "activation", "tanh")
    bias = weights.get("bias", 0.0)

    def step(value: Array, state: Any) -> Any:
        hidden, cell = state
        product = value @ weights["kernel"] + hidden @ weights["recurrent"] + bias
        i, f, g, o = np.split(product, 4, axis=-1)
        cell = gate(f) * cell + gate(i) * function(g)
        return gate(o) * function(cell), cell

    return _over(layer, x, step)


def gru(layer: LayerSpec, x: Array) -> Array:
    """Cho et al. 2014; gates r, z, n; `reset_after`: as in cuDNN."""
    weights = layer.weights
    gate = _function(layer, "recurrent_activation", "sigmoid")
    function = _function(layer, "activation", "tanh")
    bias = weights.get("input_bias", 0.0)
    second = weights.get("recurrent_bias", np.zeros(3 * len(weights["recurrent"])))
    kernels = np.split(weights["recurrent"], 3, axis=-1)

    def step(value: Array, state: Any) -> Any:
        hidden = state[0]
        r, z, n = np.split(value @ weights["kernel"] + bias, 3, axis=-1)
        r_bias, z_bias, n_bias = np.split(second, 3)
        reset = gate(r + hidden @ kernels[0] + r_bias)
        update = gate(z + hidden @ kernels[1] + z_bias)
        if layer.settings.get("reset_after", True):
            new = function(n + reset * (hidden @ kernels[2] + n_bias))
        else:
            new = function(n + (reset * hidden) @ kernels[2] + n_bias)
        hidden = update * hidden + (1 - update) * new
        return hidden, hidden

    return _over(layer, x, step)


def rnn(layer: LayerSpec, x: Array) -> Array:
    """Elman 1990."""
    weights = layer.weights
    function = _function(layer, "activation", "tanh")
    bias = weights.get("bias", 0.0)

    def step(value: Array, state: Any) -> Any:
        product = value @ weights["kernel"] + state[0] @ weights["recurrent"]
        hidden = function(product + bias)
        return hidden, hidden

    return _over(layer, x, step)


RECURRENT: dict[str, Callable[[LayerSpec, Array], Array]] = {
    "lstm": lstm,
    "gru": gru,
    "rnn": rnn,
}
