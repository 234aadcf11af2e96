"""Two bidirectional LSTM layers; the last state of either direction is classified.

Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", IEEE Transactions on
Signal Processing 45(11), 1997; with LSTM, Graves and Schmidhuber, IJCNN 2005.

The backward direction has its last state at the first step. A bare Keras layer with
`go_backwards=True` puts its steps out in the order in which it read them, last step
first; `Bidirectional` turns them round again. Both frameworks have the forward half
first, and both halves have equal shapes: exchanged weights raise no error.
"""

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn

INPUT = "2,12,16"


class BidirectionalClassifier(nn.Module):
    """A class for each sequence of (time, features)."""

    def __init__(self, features=16, hidden=16, num_classes=5):
        super().__init__()
        self.lstm = nn.LSTM(
            features, hidden, num_layers=2, batch_first=True, bidirectional=True
        )
        self.norm = nn.LayerNorm(2 * hidden)
        self.head = nn.Linear(2 * hidden, num_classes)

    def forward(self, x):
        """Classify by the last states of the upper layer, forward and backward."""
        _, (hidden, _) = self.lstm(x)
        return self.head(self.norm(torch.cat((hidden[-2], hidden[-1]), dim=1)))


def pytorch() -> nn.Module:
    """The model, with biases and a norm that matter."""
    torch.manual_seed(0)
    model = BidirectionalClassifier()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(model.norm.weight, mean=1.0, std=0.2)
    return model


def keras_model(
    *,
    recurrent_activation="sigmoid",
    epsilon=1e-5,
    lower="wrapped",
    go_backwards=True,
    backward_end="last",
    states=("forward", "backward"),
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""

    def lstm(**settings):
        return layers.LSTM(16, recurrent_activation=recurrent_activation, **settings)

    inputs = keras.Input((12, 16), name="features")
    steps = lstm(return_sequences=True)
    if lower == "wrapped":
        x = layers.Bidirectional(steps, name="lower")(inputs)
    else:
        x, y = layers.Bidirectional(steps, merge_mode=None, name="lower")(inputs)
        halves = [x, ops.flip(y, axis=1)] if lower == "flipped" else [y, x]
        x = layers.Concatenate()(halves)

    # Only the last states are wanted: without the wrapper this is plainer.
    found = {"forward": lstm(name="upper_forward")(x)}
    if backward_end == "last":
        backward = lstm(go_backwards=go_backwards, name="upper_backward")
        found["backward"] = backward(x)
    else:
        backward = lstm(go_backwards=True, return_sequences=True, name="upper_backward")
        found["backward"] = ops.flip(backward(x), axis=1)[:, -1]
    x = layers.Concatenate(name="states")([found[state] for state in states])
    x = layers.LayerNormalization(epsilon=epsilon, name="norm")(x)
    outputs = layers.Dense(5, name="head")(x)
    return keras.Model(inputs, outputs, name="bidirectional_classifier")


def to_numpy(parameter):
    """A parameter of PyTorch as an array, so that sums of two are not rounded."""
    return parameter.detach().double().numpy()


def copy_lstm(layer, lstm, suffix, *, biases="both", transpose=True):
    """Copy one direction of one layer, such as "_l1_reverse"; gates agree."""
    kernel = to_numpy(getattr(lstm, f"weight_ih{suffix}"))
    recurrent = to_numpy(getattr(lstm, f"weight_hh{suffix}"))
    bias = to_numpy(getattr(lstm, f"bias_ih{suffix}"))
    if biases == "both":
        bias = bias + to_numpy(getattr(lstm, f"bias_hh{suffix}"))
    if biases == "none":
        bias = layer.get_weights()[2]
    if transpose:
        recurrent = recurrent.T
    else:
        recurrent = np.concatenate(np.split(recurrent, 4), axis=1)
    layer.set_weights([kernel.T, recurrent, bias])


def keras_port(
    *,
    sources=("", "_reverse"),
    biases="both",
    transpose=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    named = {layer.name: layer for layer in model.layers}
    pairs = [
        (named["lower"].forward_layer, named["lower"].backward_layer),
        (named["upper_forward"], named.get("upper_backward")),
    ]
    for number, pair in enumerate(pairs):
        for layer, direction in zip(pair, sources, strict=True):
            if layer is not None and direction is not None:
                suffix = f"_l{number}{direction}"
                copy_lstm(
                    layer, source.lstm, suffix, biases=biases, transpose=transpose
                )
    named["norm"].set_weights(
        [to_numpy(source.norm.weight), to_numpy(source.norm.bias)]
    )
    named["head"].set_weights(
        [to_numpy(source.head.weight).T, to_numpy(source.head.bias)]
    )
    return model


FAULTS = [
    {
        "name": "bilstm-directions-exchanged",
        "cause": "weights-exchanged",
        "places": ("lstm",),
        "mistakes": {"sources": ("_reverse", "")},
    },
    {
        "name": "bilstm-forward-copied-twice",
        "cause": "weights-exchanged",
        "places": ("lstm",),
        "mistakes": {"sources": ("", "")},
    },
    {
        "name": "bilstm-backward-not-copied",
        "cause": "weights-not-copied",
        "places": ("lstm",),
        "mistakes": {"sources": ("", None)},
    },
    {
        "name": "bilstm-one-bias-of-two",
        "cause": "bias-not-copied",
        "places": ("lstm",),
        "mistakes": {"biases": "input"},
    },
    {
        "name": "bilstm-no-bias-copied",
        "cause": "bias-not-copied",
        "places": ("lstm",),
        "mistakes": {"biases": "none"},
    },
    {
        "name": "bilstm-recurrent-not-transposed",
        "cause": "kernel-transposed",
        "places": ("lstm",),
        "mistakes": {"transpose": False},
    },
    {
        "name": "bilstm-backward-first-in-lower",
        "cause": "concat-order",
        "places": ("lstm",),
        "mistakes": {"lower": "backward-first"},
    },
    {
        "name": "bilstm-backward-first-in-states",
        "cause": "concat-order",
        "places": ("cat", "lstm"),
        "mistakes": {"states": ("backward", "forward")},
    },
    {
        "name": "bilstm-steps-flipped-again",
        "cause": "direction",
        "places": ("lstm",),
        "mistakes": {"lower": "flipped"},
    },
    {
        "name": "bilstm-backward-reads-forwards",
        "cause": "direction",
        "places": ("lstm",),
        "mistakes": {"go_backwards": False},
    },
    {
        "name": "bilstm-backward-at-last-step",
        "cause": "last-step",
        "places": ("getitem", "cat", "lstm"),
        "mistakes": {"backward_end": "first"},
    },
    {
        "name": "bilstm-forward-state-twice",
        "cause": "direction",
        "places": ("getitem", "cat", "lstm"),
        "mistakes": {"states": ("forward", "forward")},
    },
    {
        "name": "bilstm-hard-sigmoid",
        "cause": "recurrent-activation",
        "places": ("lstm",),
        "mistakes": {"recurrent_activation": "hard_sigmoid"},
    },
    {
        "name": "bilstm-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("norm",),
        "mistakes": {"epsilon": 1e-3},
    },
]
