"""Recurrent layers of the reference: one direction, all steps or the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from paripassu.core.layer_spec import Array

Weights = Mapping[str, Array]
Settings = Mapping[str, Any]
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": expit,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
}


def _over(
    x: Array, settings: Settings, width: int, step: Callable[[Array, Any], Any]
) -> Array:
    """Run over the steps of (N, t, c); `step` makes the next state of an input."""
    times = range(x.shape[1])
    state: Any = (np.zeros((len(x), width)), np.zeros((len(x), width)))
    made = np.zeros((len(x), x.shape[1], width))
    for time in reversed(times) if settings.get("reverse") else times:
        state = step(x[:, time], state)
        made[:, time] = state[0]
    if settings.get("last"):
        return made[:, 0 if settings.get("reverse") else -1]
    return made[:, ::-1] if settings.get("flipped") else made


def lstm(x: Array, weights: Weights, settings: Settings) -> Array:
    """Hochreiter and Schmidhuber 1997 with a forget gate; gates i, f, g, o."""
    gate = FUNCTIONS[settings.get("recurrent_activation", "sigmoid")]
    function = FUNCTIONS[settings.get("activation", "tanh")]
    bias = weights.get("bias", 0.0)

    def step(value: Array, state: Any) -> Any:
        hidden, cell = state
        product = value @ weights["kernel"] + hidden @ weights["recurrent"] + bias
        i, f, g, o = np.split(product, 4, axis=-1)
        cell = gate(f) * cell + gate(i) * function(g)
        return gate(o) * function(cell), cell

    return _over(x, settings, len(weights["recurrent"]), step)


def gru(x: Array, weights: Weights, settings: Settings) -> Array:
    """Cho et al. 2014; gates r, z, n; `reset_after`: as in cuDNN."""
    gate = FUNCTIONS[settings.get("recurrent_activation", "sigmoid")]
    function = FUNCTIONS[settings.get("activation", "tanh")]
    width = len(weights["recurrent"])
    bias = weights.get("input_bias", 0.0)
    second = weights.get("recurrent_bias", np.zeros(3 * width))
    kernels = np.split(weights["recurrent"], 3, axis=-1)

    def step(value: Array, state: Any) -> Any:
        hidden = state[0]
        r, z, n = np.split(value @ weights["kernel"] + bias, 3, axis=-1)
        r_bias, z_bias, n_bias = np.split(second, 3)
        reset = gate(r + hidden @ kernels[0] + r_bias)
        update = gate(z + hidden @ kernels[1] + z_bias)
        if settings.get("reset_after", True):
            new = function(n + reset * (hidden @ kernels[2] + n_bias))
        else:
            new = function(n + (reset * hidden) @ kernels[2] + n_bias)
        hidden = update * hidden + (1 - update) * new
        return hidden, hidden

    return _over(x, settings, width, step)


def rnn(x: Array, weights: Weights, settings: Settings) -> Array:
    """Elman 1990."""
    function = FUNCTIONS[settings.get("activation", "tanh")]
    bias = weights.get("bias", 0.0)

    def step(value: Array, state: Any) -> Any:
        product = value @ weights["kernel"] + state[0] @ weights["recurrent"]
        hidden = function(product + bias)
        return hidden, hidden

    return _over(x, settings, len(weights["recurrent"]), step)


RECURRENT = {"lstm": lstm, "gru": gru, "rnn": rnn}
