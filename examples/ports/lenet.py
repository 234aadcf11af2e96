"""LeNet-5 with tanh and average pools; the model normalises its images itself.

LeCun and others, "Gradient-Based Learning Applied to Document Recognition", Proceedings
of the IEEE 86(11), 1998.

Keras' `Rescaling` adds its offset after the factor: `offset=-mean` is not what the
`(x - mean) / std` of PyTorch does. Ports of LeNet take ReLU and max pools out of habit.
The first dense layer's rows come in another order, and a softmax that was meant over
classes may go over the batch. `Rescaling` rounds its numbers to float32, whatever the
model is in, which keeps a half exactly.
"""

import keras
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

INPUT = "4,1,28,28"
MEAN, STD = 0.5, 0.5


class LeNet(nn.Module):
    """The logarithm of each class' probability, for each image of a digit."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):
        """(N, 1, 28, 28) to (N, classes)."""
        x = (x - MEAN) / STD
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = torch.tanh(self.fc1(x))
        x = torch.tanh(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=1)


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = LeNet()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


@keras.saving.register_keras_serializable(package="lenet")
class KerasLeNet(keras.Model):
    """The same in Keras, as a subclassed model."""

    def __init__(
        self,
        *,
        activation="tanh",
        pool="average",
        pool_first=False,
        conv_bias=True,
        conv_strides=1,
        factor=1 / STD,
        offset=-MEAN / STD,
        output="log_softmax",
        output_axis=-1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        kinds = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}
        self.normalize = layers.Rescaling(factor, offset)
        self.conv1 = layers.Conv2D(6, 5, padding="same", use_bias=conv_bias)
        self.conv2 = layers.Conv2D(16, 5, use_bias=conv_bias, strides=conv_strides)
        self.pool1, self.pool2 = kinds[pool](2), kinds[pool](2)
        if conv_strides == 2:  # the convolution has done the second pool's work
            self.pool2 = kinds[pool](2, strides=1, padding="same")
        self.flatten = layers.Flatten()
        self.fc1 = layers.Dense(120)
        self.fc2 = layers.Dense(84)
        self.fc3 = layers.Dense(10)
        self.activation = keras.activations.get(activation)
        self.pool_first = pool_first
        self.output_kind = output
        self.output_axis = output_axis

    def pooled(self, pool, x):
        """Activation and pool, in their order."""
        if self.pool_first:
            return self.activation(pool(x))
        return pool(self.activation(x))

    def call(self, x):
        """(N, 28, 28, 1) to (N, classes)."""
        x = self.normalize(x)
        x = self.pooled(self.pool1, self.conv1(x))
        x = self.pooled(self.pool2, self.conv2(x))
        x = self.flatten(x)
        x = self.activation(self.fc1(x))
        x = self.activation(self.fc2(x))
        function = {"log_softmax": ops.log_softmax, "softmax": ops.softmax}
        return function[self.output_kind](self.fc3(x), axis=self.output_axis)


def keras_model(**settings) -> keras.Model:
    """The subclassed model, built."""
    model = KerasLeNet(**settings)
    model(keras.Input((28, 28, 1)))
    return model


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def keras_port(
    *,
    conv1_axes=(2, 3, 1, 0),
    conv2_axes=(2, 3, 1, 0),
    conv_biases=True,
    reorder_rows=True,
    fc2_copied=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    for name, axes in (("conv1", conv1_axes), ("conv2", conv2_axes)):
        layer, conv = getattr(model, name), getattr(source, name)
        layer.kernel.assign(to_numpy(conv.weight).transpose(axes))
        if layer.use_bias and conv_biases:
            layer.bias.assign(to_numpy(conv.bias))
    for name in ("fc1", "fc2", "fc3") if fc2_copied else ("fc1", "fc3"):
        layer, linear = getattr(model, name), getattr(source, name)
        kernel = to_numpy(linear.weight).T
        if name == "fc1" and reorder_rows:  # (c, h, w) to (h, w, c)
            kernel = kernel.reshape(16, 5, 5, -1).transpose(1, 2, 0, 3)
            kernel = kernel.reshape(400, -1)
        layer.set_weights([kernel, to_numpy(linear.bias)])
    return model


FAULTS = [
    {
        "name": "lenet-offset-before-factor",
        "cause": "input-scale",
        "places": ("sub", "div", "conv1"),
        "mistakes": {"offset": -MEAN},
    },
    {
        "name": "lenet-not-normalised",
        "cause": "input-scale",
        "places": ("sub", "div", "conv1"),
        "mistakes": {"factor": 1.0, "offset": 0.0},
    },
    {
        "name": "lenet-scaled-by-255",
        "cause": "input-scale",
        "places": ("sub", "div", "conv1"),
        "mistakes": {"factor": 1 / 255, "offset": 0.0},
    },
    {
        "name": "lenet-first-height-and-width",
        "cause": "kernel-axes",
        "places": ("conv1",),
        "mistakes": {"conv1_axes": (3, 2, 1, 0)},
    },
    {
        "name": "lenet-second-height-and-width",
        "cause": "kernel-axes",
        "places": ("conv2",),
        "mistakes": {"conv2_axes": (3, 2, 1, 0)},
    },
    {
        "name": "lenet-convolution-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("conv1",),
        "mistakes": {"conv_biases": False},
    },
    {
        "name": "lenet-convolutions-without-bias",
        "cause": "bias-missing",
        "places": ("conv1",),
        "mistakes": {"conv_bias": False},
    },
    {
        "name": "lenet-stride-for-pool",
        "cause": "strides",
        "places": ("conv2",),
        "mistakes": {"conv_strides": 2},
    },
    {
        "name": "lenet-relu-for-tanh",
        "cause": "activation-kind",
        "places": ("tanh", "conv1"),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "lenet-sigmoid-for-tanh",
        "cause": "activation-kind",
        "places": ("tanh", "conv1"),
        "mistakes": {"activation": "sigmoid"},
    },
    {
        "name": "lenet-max-pool",
        "cause": "pool-kind",
        "places": ("avg_pool2d",),
        "mistakes": {"pool": "max"},
    },
    {
        "name": "lenet-pool-before-tanh",
        "cause": "layer-order",
        "places": ("tanh", "avg_pool2d"),
        "mistakes": {"pool_first": True},
    },
    {
        "name": "lenet-flattened-rows-not-reordered",
        "cause": "flatten-order",
        "places": ("fc1", "flatten"),
        "mistakes": {"reorder_rows": False},
    },
    {
        "name": "lenet-second-dense-not-copied",
        "cause": "weights-not-copied",
        "places": ("fc2",),
        "mistakes": {"fc2_copied": False},
    },
    {
        "name": "lenet-softmax-over-batch",
        "cause": "axis",
        "places": ("log_softmax",),
        "mistakes": {"output_axis": 0},
    },
    {
        "name": "lenet-softmax-for-log-softmax",
        "cause": "activation-kind",
        "places": ("log_softmax",),
        "mistakes": {"output": "softmax"},
    },
]
