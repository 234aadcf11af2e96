"""Two stacked LSTM layers read a sequence; their last state is classified.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997.

PyTorch has one module for both layers and two biases for each, which only ever work as
their sum; Keras has a layer for each and one bias. Both keep the gates in the order
i, f, g, o (Keras calls the third c); TensorFlow 1 and others do not, and scripts are
handed on with their orders. The recurrent kernel is square gate by gate, so nothing
stops who forgets to transpose it.
"""

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

INPUT = "2,12,24"


class SequenceClassifier(nn.Module):
    """A class for each sequence of (time, features)."""

    def __init__(self, features=24, hidden=24, num_classes=5):
        super().__init__()
        self.lstm = nn.LSTM(
            features, hidden, num_layers=2, batch_first=True, dropout=0.2
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x):
        """Classify by the hidden state of the upper layer after the last step."""
        _, (hidden, _) = self.lstm(x)
        return self.head(hidden[-1])


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = SequenceClassifier()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def keras_model(
    *,
    activation="tanh",
    recurrent_activation="sigmoid",
    use_bias=True,
    go_backwards=False,
    summary="last",
    head_activation=None,
) -> keras.Model:
    """The same in Keras, as the Functional API has it; layers name themselves."""
    cell = {
        "activation": activation,
        "recurrent_activation": recurrent_activation,
        "use_bias": use_bias,
    }
    inputs = keras.Input((12, 24))
    x = layers.LSTM(24, return_sequences=True, **cell)(inputs)
    x = layers.Dropout(0.2)(x)
    match summary:
        case "last":
            x = layers.LSTM(24, go_backwards=go_backwards, **cell)(x)
        case "first":
            x = layers.LSTM(24, return_sequences=True, **cell)(x)[:, 0]
        case "mean":
            x = layers.LSTM(24, return_sequences=True, **cell)(x)
            x = layers.GlobalAveragePooling1D()(x)
        case "memory":
            _, _, x = layers.LSTM(24, return_state=True, **cell)(x)
    outputs = layers.Dense(5, activation=head_activation)(x)
    return keras.Model(inputs, outputs)


def to_numpy(parameter):
    """A parameter of PyTorch as an array, so that sums of two are not rounded."""
    return parameter.detach().double().numpy()


def by_gate(parameter, order):
    """The rows of each gate, in an order such as "ifgo"."""
    return [np.split(to_numpy(parameter), 4)["ifgo".index(gate)] for gate in order]


def lstm_weights(lstm, layer, *, order="ifgo", biases="both", transpose=True):
    """Kernel, recurrent kernel and bias of one layer, as Keras has them."""
    kernel = by_gate(getattr(lstm, f"weight_ih_l{layer}"), order)
    recurrent = by_gate(getattr(lstm, f"weight_hh_l{layer}"), order)
    bias = np.concatenate(by_gate(getattr(lstm, f"bias_ih_l{layer}"), order))
    if biases == "both":
        second = by_gate(getattr(lstm, f"bias_hh_l{layer}"), order)
        bias = bias + np.concatenate(second)
    # PyTorch has the gates one below the other, Keras side by side.
    return [
        np.concatenate([x.T for x in kernel], axis=1),
        np.concatenate([x.T if transpose else x for x in recurrent], axis=1),
        bias,
    ]


def keras_port(
    *,
    order="ifgo",
    biases="both",
    transpose=True,
    sources=(0, 1),
    head=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    lstms = [layer for layer in model.layers if isinstance(layer, layers.LSTM)]
    for layer, number in zip(lstms, sources, strict=True):
        if number is None:
            continue
        weights = lstm_weights(
            source.lstm, number, order=order, biases=biases, transpose=transpose
        )
        if biases == "none":
            weights[2] = layer.get_weights()[2]
        layer.set_weights(weights[: len(layer.weights)])
    if head:
        weight, bias = to_numpy(source.head.weight), to_numpy(source.head.bias)
        model.layers[-1].set_weights([weight.T, bias])
    return model


FAULTS = [
    {
        "name": "lstm-gates-of-tensorflow-1",  # i, c, f, o
        "cause": "gate-order",
        "places": ("lstm",),
        "mistakes": {"order": "igfo"},
    },
    {
        "name": "lstm-gates-iofg",
        "cause": "gate-order",
        "places": ("lstm",),
        "mistakes": {"order": "iofg"},
    },
    {
        "name": "lstm-one-bias-of-two",
        "cause": "bias-not-copied",
        "places": ("lstm",),
        "mistakes": {"biases": "input"},
    },
    {
        "name": "lstm-no-bias-copied",
        "cause": "bias-not-copied",
        "places": ("lstm",),
        "mistakes": {"biases": "none"},
    },
    {
        "name": "lstm-without-bias",
        "cause": "bias-missing",
        "places": ("lstm",),
        "mistakes": {"use_bias": False},
    },
    {
        "name": "lstm-recurrent-not-transposed",
        "cause": "kernel-transposed",
        "places": ("lstm",),
        "mistakes": {"transpose": False},
    },
    {
        "name": "lstm-layers-exchanged",
        "cause": "weights-exchanged",
        "places": ("lstm",),
        "mistakes": {"sources": (1, 0)},
    },
    {
        "name": "lstm-lower-layer-copied-twice",
        "cause": "weights-exchanged",
        "places": ("lstm",),
        "mistakes": {"sources": (0, 0)},
    },
    {
        "name": "lstm-upper-layer-not-copied",
        "cause": "weights-not-copied",
        "places": ("lstm",),
        "mistakes": {"sources": (0, None)},
    },
    {
        "name": "lstm-head-not-copied",
        "cause": "weights-not-copied",
        "places": ("head",),
        "mistakes": {"head": False},
    },
    {
        "name": "lstm-hard-sigmoid",
        "cause": "recurrent-activation",
        "places": ("lstm",),
        "mistakes": {"recurrent_activation": "hard_sigmoid"},
    },
    {
        "name": "lstm-relu-for-tanh",
        "cause": "activation-kind",
        "places": ("lstm",),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "lstm-upper-layer-backwards",
        "cause": "direction",
        "places": ("lstm",),
        "mistakes": {"go_backwards": True},
    },
    {
        "name": "lstm-first-step",
        "cause": "last-step",
        "places": ("getitem", "lstm"),
        "mistakes": {"summary": "first"},
    },
    {
        "name": "lstm-mean-of-steps",
        "cause": "last-step",
        "places": ("getitem", "lstm"),
        "mistakes": {"summary": "mean"},
    },
    {
        "name": "lstm-memory-for-hidden",
        "cause": "state-kind",
        "places": ("getitem", "lstm"),
        "mistakes": {"summary": "memory"},
    },
    {
        "name": "lstm-softmax-in-head",
        "cause": "activation-extra",
        "places": ("head",),
        "mistakes": {"head_activation": "softmax"},
    },
]
