"""A GRU labels every step of a sequence; its input is added to what it puts out.

Cho and others, "Learning Phrase Representations using RNN Encoder-Decoder for
Statistical Machine Translation", EMNLP 2014.

PyTorch has the gates in the order r, z, n, Keras in the order z, r, h. The paper
multiplies by the reset gate before the recurrent kernel, PyTorch after it, and Keras
after it unless `reset_after=False`. So the two biases are not one: who adds them up, as
is right for an LSTM, takes that of the third gate out of the reset gate's reach.
"""

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn

INPUT = "2,12,16"


class Tagger(nn.Module):
    """A label for each step of (time, features)."""

    def __init__(self, features=16, hidden=24, num_labels=7):
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_labels)

    def forward(self, x):
        """Label by the features of each step and what the GRU makes of them."""
        x = torch.relu(self.project(x))
        steps, _ = self.gru(x)
        return self.head(x + steps)


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = Tagger()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


@keras.saving.register_keras_serializable(package="gru")
class KerasTagger(keras.Model):
    """The same in Keras, as a model of one's own."""

    def __init__(
        self,
        hidden=24,
        num_labels=7,
        *,
        project_activation="relu",
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        reset_after=True,
        go_backwards=False,
        residual=True,
        detached=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "hidden": hidden,
            "num_labels": num_labels,
            "project_activation": project_activation,
            "residual": residual,
            "detached": detached,
        }
        self.recurrent = {
            "activation": activation,
            "recurrent_activation": recurrent_activation,
            "use_bias": use_bias,
            "reset_after": reset_after,
            "go_backwards": go_backwards,
        }
        self.project = layers.Dense(hidden, activation=project_activation)
        self.gru = layers.GRU(hidden, return_sequences=True, **self.recurrent)
        self.head = layers.Dense(num_labels)

    def call(self, x):
        """Label by the features of each step and what the GRU makes of them."""
        x = self.project(x)
        detached = self.settings["detached"]
        steps = self.gru(ops.stop_gradient(x) if detached else x)
        return self.head(x + steps if self.settings["residual"] else steps)

    def get_config(self):
        """What it was made with."""
        return {**super().get_config(), **self.settings, **self.recurrent}


def keras_model(**settings) -> keras.Model:
    """The Keras model, built; `KerasTagger` has the settings."""
    model = KerasTagger(**settings)
    model(keras.Input((12, 16)))  # which makes its weights
    return model


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def by_gate(parameter, order):
    """The rows of each gate, in an order such as "zrn"."""
    return [np.split(to_numpy(parameter), 3)["rzn".index(gate)] for gate in order]


def gru_weights(gru, *, order="zrn", transpose_kernel=True, transpose_recurrent=True):
    """Kernel, recurrent kernel and the two biases, one below the other."""
    kernel = by_gate(gru.weight_ih_l0, order)
    recurrent = by_gate(gru.weight_hh_l0, order)
    input_bias = np.concatenate(by_gate(gru.bias_ih_l0, order))
    recurrent_bias = np.concatenate(by_gate(gru.bias_hh_l0, order))
    return [
        np.concatenate([x.T if transpose_kernel else x for x in kernel], axis=1),
        np.concatenate([x.T if transpose_recurrent else x for x in recurrent], axis=1),
        np.stack([input_bias, recurrent_bias]),
    ]


def keras_port(
    *,
    order="zrn",
    transpose_kernel=True,
    transpose_recurrent=True,
    biases="two",
    gru=True,
    head_bias=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    model.project.set_weights(
        [to_numpy(source.project.weight).T, to_numpy(source.project.bias)]
    )
    kernel, recurrent, bias = gru_weights(
        source.gru,
        order=order,
        transpose_kernel=transpose_kernel,
        transpose_recurrent=transpose_recurrent,
    )
    match biases:
        case "exchanged":
            bias = bias[::-1]
        case "input":
            bias = np.stack([bias[0], np.zeros_like(bias[1])])
        case "summed":
            bias = np.stack([bias.sum(axis=0), np.zeros_like(bias[1])])
        case "none":
            bias = np.zeros_like(bias)
    if not model.gru.reset_after:
        bias = bias.sum(axis=0)  # it has one
    if gru:
        weights = [kernel, recurrent, bias]
        model.gru.set_weights(weights[: len(model.gru.weights)])
    model.head.kernel.assign(to_numpy(source.head.weight).T)
    if head_bias:
        model.head.bias.assign(to_numpy(source.head.bias))
    return model


FAULTS = [
    {
        "name": "gru-gates-as-in-pytorch",
        "cause": "gate-order",
        "places": ("gru",),
        "mistakes": {"order": "rzn"},
    },
    {
        "name": "gru-gates-znr",
        "cause": "gate-order",
        "places": ("gru",),
        "mistakes": {"order": "znr"},
    },
    {
        "name": "gru-reset-before",
        "cause": "reset-after",
        "places": ("gru",),
        "mistakes": {"reset_after": False},
    },
    {
        "name": "gru-biases-exchanged",
        "cause": "weights-exchanged",
        "places": ("gru",),
        "mistakes": {"biases": "exchanged"},
    },
    {
        "name": "gru-biases-summed",
        "cause": "bias-summed",
        "places": ("gru",),
        "mistakes": {"biases": "summed"},
    },
    {
        "name": "gru-input-bias-only",
        "cause": "bias-not-copied",
        "places": ("gru",),
        "mistakes": {"biases": "input"},
    },
    {
        "name": "gru-no-bias-copied",
        "cause": "bias-not-copied",
        "places": ("gru",),
        "mistakes": {"biases": "none"},
    },
    {
        "name": "gru-without-bias",
        "cause": "bias-missing",
        "places": ("gru",),
        "mistakes": {"use_bias": False},
    },
    {
        "name": "gru-recurrent-not-transposed",
        "cause": "kernel-transposed",
        "places": ("gru",),
        "mistakes": {"transpose_recurrent": False},
    },
    {
        "name": "gru-kernel-not-transposed",
        "cause": "kernel-transposed",
        "places": ("gru",),
        "mistakes": {"transpose_kernel": False},
    },
    {
        "name": "gru-not-copied",
        "cause": "weights-not-copied",
        "places": ("gru",),
        "mistakes": {"gru": False},
    },
    {
        "name": "gru-hard-sigmoid",
        "cause": "recurrent-activation",
        "places": ("gru",),
        "mistakes": {"recurrent_activation": "hard_sigmoid"},
    },
    {
        "name": "gru-relu-for-tanh",
        "cause": "activation-kind",
        "places": ("gru",),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "gru-backwards",
        "cause": "direction",
        "places": ("gru",),
        "mistakes": {"go_backwards": True},
    },
    {
        "name": "gru-no-relu-before",
        "cause": "activation-missing",
        "places": ("relu", "project"),
        "mistakes": {"project_activation": None},
    },
    {
        "name": "gru-no-residual",
        "cause": "residual-missing",
        "places": ("add", "gru"),
        "mistakes": {"residual": False},
    },
    {
        "name": "gru-input-detached",  # seen in gradients only
        "cause": "stop-gradient",
        "places": ("gru", "relu", "project"),
        "mistakes": {"detached": True},
    },
    {
        "name": "gru-head-bias-not-copied",
        "cause": "bias-not-copied",
        "places": ("head",),
        "mistakes": {"head_bias": False},
    },
]
