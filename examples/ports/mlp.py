"""A multilayer perceptron with ELU, for small images.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors",
Nature 323, 1986; with ELU, Clevert and others, ICLR 2016.

`nn.Flatten` puts a channel's pixels next to each other, Keras' `Flatten` a pixel's
channels: the first kernel's rows have to be reordered, and a plain transpose fits as
well. PyTorch's kernels are (out, in), and where a layer is square, forgetting to
transpose raises no error. An alpha of one's own is lost with `activation="elu"`.
"""

import keras
import torch
from keras import layers
from torch import nn

INPUT = "4,3,8,8"


class MLP(nn.Module):
    """A class for each image, by three hidden layers of one width."""

    def __init__(self, image=(3, 8, 8), width=48, alpha=0.5, num_classes=10):
        super().__init__()
        channels, height, rows = image
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * rows, width),
            nn.ELU(alpha),
            nn.Linear(width, width),
            nn.ELU(alpha),
            nn.Dropout(0.2),
            nn.Linear(width, width),
            nn.ELU(alpha),
            nn.Linear(width, num_classes),
        )

    def forward(self, x):
        """(N, c, h, w) to (N, classes)."""
        return self.layers(x)


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = MLP()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


ACTIVATIONS = {
    "elu": layers.ELU,
    "relu": layers.ReLU,
    "selu": lambda: layers.Activation("selu"),
}


def keras_model(
    *,
    activation="elu",
    alpha=0.5,
    use_bias=True,
    last_activation=True,
    head_activation=None,
    first_trainable=True,
) -> keras.Model:
    """The same in Keras, as a Sequential; layers name themselves."""

    def made():
        return layers.ELU(alpha) if activation == "elu" else ACTIVATIONS[activation]()

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten()])
    model.add(layers.Dense(48, use_bias=use_bias, trainable=first_trainable))
    model.add(made())
    model.add(layers.Dense(48, use_bias=use_bias))
    model.add(made())
    model.add(layers.Dropout(0.2))
    model.add(layers.Dense(48, use_bias=use_bias))
    if last_activation:
        model.add(made())
    model.add(layers.Dense(10, activation=head_activation))
    return model


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def keras_port(
    *,
    reorder_rows=True,
    transpose=True,
    reshape_head=False,
    hidden_sources=(3, 6),
    biases=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    first, *hidden, head = (x for x in model.layers if isinstance(x, layers.Dense))

    linear = source.layers[1]
    kernel = to_numpy(linear.weight).T
    if reorder_rows:  # (c, h, w) to (h, w, c)
        kernel = kernel.reshape(3, 8, 8, -1).transpose(1, 2, 0, 3).reshape(192, -1)
    first.kernel.assign(kernel)
    pairs = [(first, linear)]

    for layer, number in zip(hidden, hidden_sources, strict=True):
        linear = source.layers[number]
        kernel = to_numpy(linear.weight)
        layer.kernel.assign(kernel.T if transpose else kernel)
        pairs.append((layer, linear))

    linear = source.layers[8]
    kernel = to_numpy(linear.weight)
    head.kernel.assign(kernel.reshape(48, 10) if reshape_head else kernel.T)
    pairs.append((head, linear))

    for layer, linear in pairs:
        if layer.use_bias and biases:
            layer.bias.assign(to_numpy(linear.bias))
    return model


FAULTS = [
    {
        "name": "mlp-flattened-rows-not-reordered",
        "cause": "flatten-order",
        "places": ("layers.1", "layers.0"),
        "mistakes": {"reorder_rows": False},
    },
    {
        "name": "mlp-square-kernels-not-transposed",
        "cause": "kernel-transposed",
        "places": ("layers.3",),
        "mistakes": {"transpose": False},
    },
    {
        "name": "mlp-head-reshaped",  # to the right shape, and not transposed
        "cause": "kernel-transposed",
        "places": ("layers.8",),
        "mistakes": {"reshape_head": True},
    },
    {
        "name": "mlp-hidden-exchanged",
        "cause": "weights-exchanged",
        "places": ("layers.3",),
        "mistakes": {"hidden_sources": (6, 3)},
    },
    {
        "name": "mlp-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("layers.1",),
        "mistakes": {"biases": False},
    },
    {
        "name": "mlp-hidden-without-bias",
        "cause": "bias-missing",
        "places": ("layers.1",),
        "mistakes": {"use_bias": False},
    },
    {
        "name": "mlp-alpha-of-keras",
        "cause": "alpha",
        "places": ("layers.2", "layers.1"),
        "mistakes": {"alpha": 1.0},
    },
    {
        "name": "mlp-relu-for-elu",
        "cause": "activation-kind",
        "places": ("layers.2", "layers.1"),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "mlp-selu-for-elu",
        "cause": "activation-kind",
        "places": ("layers.2", "layers.1"),
        "mistakes": {"activation": "selu"},
    },
    {
        "name": "mlp-no-last-elu",
        "cause": "activation-missing",
        "places": ("layers.7", "layers.6"),
        "mistakes": {"last_activation": False},
    },
    {
        "name": "mlp-softmax-in-head",
        "cause": "activation-extra",
        "places": ("layers.8",),
        "mistakes": {"head_activation": "softmax"},
    },
    {
        "name": "mlp-first-layer-frozen",  # seen in gradients only
        "cause": "frozen",
        "places": ("layers.1",),
        "mistakes": {"first_trainable": False},
    },
]
