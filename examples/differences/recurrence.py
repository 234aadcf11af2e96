"""Recurrent layers: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import numpy as np
from keras import layers
from shared import Measured, argument, by_keras, difference, draw, tensor
from torch import nn

from paripassu.core.layer_spec import relative_error


def recurrent(kind: str, *, gates: bool = True, biases: bool = True) -> float:
    """A layer of each with PyTorch's weights; gates reordered and biases treated."""
    x = draw(3, 6, 4)
    left = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](4, 5, batch_first=True).double()
    own = [getattr(left, f"{name}_l0").detach().numpy() for name in WEIGHTS]
    if kind == "gru" and gates:
        own = [np.concatenate([np.split(w, 3)[n] for n in (1, 0, 2)]) for w in own]
    kernel, recurrent_kernel, first_bias, second_bias = own
    right = {"lstm": layers.LSTM, "gru": layers.GRU}[kind](
        5, return_sequences=True, dtype="float64"
    )
    right.build((None, 6, 4))
    if kind == "lstm":
        bias = first_bias + second_bias if biases else first_bias
    else:
        bias = np.stack([first_bias, second_bias])
    right.set_weights([kernel.T, recurrent_kernel.T, bias])
    with torch.no_grad():
        return relative_error(left(tensor(x))[0].numpy(), by_keras(right, x))


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@difference(
    "Recurrent layers",
    "LSTM: two biases in PyTorch, one in Keras",
    "`bias_ih + bias_hh`",
    "bias-not-copied",
)
def lstm_biases() -> Measured:
    return Measured(2, 1, recurrent("lstm", biases=False), recurrent("lstm"))


@difference(
    "Recurrent layers",
    "GRU: the order of the gates",
    "swap the first two thirds of each weight",
    "gate-order",
)
def gru_gates() -> Measured:
    return Measured(
        "reset, update, new",
        "update, reset, new",
        recurrent("gru", gates=False),
        recurrent("gru"),
    )


@difference(
    "Recurrent layers",
    "GRU: the reset gate before or after the product",
    "`GRU(reset_after=True)`, Keras's default, is PyTorch's form",
    "reset-after",
)
def gru_reset() -> Measured:
    x = draw(3, 6, 4)
    one = layers.GRU(5, dtype="float64", reset_after=True)
    two = layers.GRU(5, dtype="float64", reset_after=False)
    one.build((None, 6, 4))
    two.build((None, 6, 4))
    kernel, own, bias = one.get_weights()
    two.set_weights([kernel, own, bias[0] + bias[1]])
    apart = relative_error(by_keras(one, x), by_keras(two, x))
    return Measured("after", "reset_after=False: before", apart, recurrent("gru"))


@difference(
    "Recurrent layers",
    "LSTM: the bias of the forget gate at the start",
    "`LSTM(unit_forget_bias=False)`, and initialisers as in PyTorch",
    rest=1.0,
)
def lstm_forget_bias() -> Measured:
    layer = layers.LSTM(5, dtype="float64")
    layer.build((None, 6, 4))
    kept = np.asarray(layer.get_weights()[2])[5:10]
    plain = layers.LSTM(5, unit_forget_bias=False, dtype="float64")
    plain.build((None, 6, 4))
    zeros = np.asarray(plain.get_weights()[2])[5:10]
    return Measured(
        "uniform, ±1/√hidden", f"{kept.mean():g}", float(kept.max()), float(zeros.max())
    )


@difference(
    "Recurrent layers",
    "Axes of sequences: (t, N, c) and (N, t, c)",
    "`batch_first=True`",
    "axis",
)
def sequences_first() -> Measured:
    x = draw(6, 6, 4)
    left = nn.RNN(4, 5).double()
    same = nn.RNN(4, 5, batch_first=True).double()
    same.load_state_dict(left.state_dict())
    right = layers.SimpleRNN(5, return_sequences=True, dtype="float64")
    right.build((None, 6, 4))
    own = [getattr(left, f"{name}_l0").detach().numpy() for name in WEIGHTS]
    right.set_weights([own[0].T, own[1].T, own[2] + own[3]])
    with torch.no_grad():
        made = [
            relative_error(module(tensor(x))[0].numpy(), by_keras(right, x))
            for module in (left, same)
        ]
    default = argument(nn.RNNBase, "batch_first")
    return Measured(f"batch_first={default}", "batch first", *made)


@difference(
    "Recurrent layers",
    "What is returned: all steps and the state, or the last step",
    "`return_sequences=True`, or the last step of PyTorch's output",
    "last-step",
)
def returned_steps() -> Measured:
    x = draw(3, 6, 4)
    left = nn.RNN(4, 5, batch_first=True).double()
    right = layers.SimpleRNN(5, dtype="float64")
    right.build((None, 6, 4))
    own = [getattr(left, f"{name}_l0").detach().numpy() for name in WEIGHTS]
    right.set_weights([own[0].T, own[1].T, own[2] + own[3]])
    with torch.no_grad():
        steps = left(tensor(x))[0].numpy()
    got = by_keras(right, x)
    made = relative_error(steps[:, 0], got), relative_error(steps[:, -1], got)
    return Measured("all steps, state", "last step", *made)
