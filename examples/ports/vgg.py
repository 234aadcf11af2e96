"""VGG as a detector's trunk: its third pool rounds up, its last convolution dilates.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015; the pool and the dilation are those of Liu and others, "SSD:
Single Shot MultiBox Detector", ECCV 2016.

`ceil_mode=True` is what Keras' "same" does where a size is odd, and its default,
"valid", drops the last row and column. A kernel of as many channels in as out can be
copied with both exchanged. Keras' `Normalization` takes a variance where torchvision
writes a deviation. A trunk that was frozen for transfer stays so, and only training
shows it.
"""

import keras
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

INPUT = "2,3,36,36"
# Nearly those of ImageNet, but numbers that float32 has: PyTorch's buffers round.
MEAN, STD = (0.484375, 0.453125, 0.40625), (0.234375, 0.21875, 0.2265625)
# Channels of convolutions; "M" halves the size, "C" rounds half of it up.
BLOCKS = [16, 16, "M", 32, 32, "M", 48, 48, 48, "C"]


class VGG(nn.Module):
    """A class for each image."""

    def __init__(self, num_classes=10):
        super().__init__()
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        steps, channels = [], 3
        for outputs in BLOCKS:
            if isinstance(outputs, str):
                steps.append(nn.MaxPool2d(2, ceil_mode=outputs == "C"))
            else:
                steps.append(nn.Conv2d(channels, outputs, 3, padding=1))
                steps.append(nn.ReLU(inplace=True))
                channels = outputs
        steps.append(nn.Conv2d(channels, 64, 3, padding=2, dilation=2))
        steps.append(nn.ReLU(inplace=True))
        self.features = nn.Sequential(*steps)
        self.classifier = nn.Sequential(
            nn.Linear(64, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(64, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(64, num_classes),
        )

    def forward(self, x):
        """(N, 3, h, w) to (N, classes)."""
        x = self.features((x - self.mean) / self.std)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.classifier(torch.flatten(x, 1))


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = VGG()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    return model


def keras_model(
    *,
    normalize=True,
    variance=tuple(value**2 for value in STD),
    first_padding="same",
    last_padding="same",
    activation="relu",
    first_activation="relu",
    pool="max",
    ceil_padding="same",
    third_convs=3,
    dilation=2,
    trunk_trainable=True,
    trunk_constant=False,
    head_pool="mean",
    head_activation=None,
) -> keras.Model:
    """The same in Keras, as the Functional API has it; layers name themselves."""
    kinds = {"max": layers.MaxPooling2D, "mean": layers.AveragePooling2D}
    settings = {"activation": activation, "trainable": trunk_trainable}

    def block(x, filters, convs, padding="valid"):
        for _ in range(convs):
            x = layers.Conv2D(filters, 3, padding="same", **settings)(x)
        return kinds[pool](2, padding=padding)(x)

    inputs = keras.Input((36, 36, 3))
    x = inputs
    if normalize:
        x = layers.Normalization(mean=MEAN, variance=variance)(x)
    first = settings | {"activation": first_activation and activation}
    x = layers.Conv2D(16, 3, padding=first_padding, **first)(x)
    x = block(x, 16, 1)
    x = block(x, 32, 2)
    x = block(x, 48, third_convs, ceil_padding)
    x = layers.Conv2D(64, 3, padding=last_padding, dilation_rate=dilation, **settings)(
        x
    )
    if trunk_constant:
        x = ops.stop_gradient(x)
    if head_pool == "mean":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.GlobalMaxPooling2D()(x)
    for _ in range(2):
        x = layers.Dense(64, activation=activation)(x)
        x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(10, activation=head_activation)(x)
    return keras.Model(inputs, outputs)


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def keras_port(
    *,
    square_axes=(2, 3, 1, 0),
    transpose_square=True,
    biases=True,
    conv_sources=(0, 2, 5, 7, 10, 12, 14, 17),
    linear_sources=(0, 3, 6),
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    convs = [x for x in model.layers if isinstance(x, layers.Conv2D)]
    denses = [x for x in model.layers if isinstance(x, layers.Dense)]
    for layer, number in zip(convs, conv_sources, strict=True):
        conv = source.features[number]
        square = conv.in_channels == conv.out_channels
        axes = square_axes if square else (2, 3, 1, 0)
        layer.kernel.assign(to_numpy(conv.weight).transpose(axes))
        if biases:
            layer.bias.assign(to_numpy(conv.bias))
    for layer, number in zip(denses, linear_sources, strict=True):
        linear = source.classifier[number]
        kernel = to_numpy(linear.weight)
        square = linear.in_features == linear.out_features
        layer.kernel.assign(kernel if square and not transpose_square else kernel.T)
        layer.bias.assign(to_numpy(linear.bias))
    return model


FAULTS = [
    {
        "name": "vgg-deviation-for-variance",
        "cause": "input-scale",
        "places": ("div", "sub", "features.0"),
        "mistakes": {"variance": STD},
    },
    {
        "name": "vgg-not-normalised",
        "cause": "input-scale",
        "places": ("sub", "div", "features.0"),
        "mistakes": {"normalize": False},
    },
    {
        "name": "vgg-first-not-padded",
        "cause": "padding",
        "places": ("features.0",),
        "mistakes": {"first_padding": "valid"},
    },
    {
        "name": "vgg-last-not-padded",
        "cause": "padding",
        "places": ("features.17",),
        "mistakes": {"last_padding": "valid"},
    },
    {
        "name": "vgg-no-dilation",
        "cause": "dilation",
        "places": ("features.17",),
        "mistakes": {"dilation": 1},
    },
    {
        "name": "vgg-third-pool-rounds-down",
        "cause": "pool-padding",
        "places": ("features.16",),
        "mistakes": {"ceil_padding": "valid"},
    },
    {
        "name": "vgg-mean-for-maximum",
        "cause": "pool-kind",
        "places": ("features.4",),
        "mistakes": {"pool": "mean"},
    },
    {
        "name": "vgg-head-maximum-for-mean",
        "cause": "pool-kind",
        "places": ("adaptive_avg_pool2d",),
        "mistakes": {"head_pool": "max"},
    },
    {
        "name": "vgg-square-kernels-in-and-out",
        "cause": "kernel-axes",
        "places": ("features.2",),
        "mistakes": {"square_axes": (2, 3, 0, 1)},
    },
    {
        "name": "vgg-square-kernels-height-and-width",
        "cause": "kernel-axes",
        "places": ("features.2",),
        "mistakes": {"square_axes": (3, 2, 1, 0)},
    },
    {
        "name": "vgg-square-dense-not-transposed",
        "cause": "kernel-transposed",
        "places": ("classifier.0",),
        "mistakes": {"transpose_square": False},
    },
    {
        "name": "vgg-third-block-exchanged",
        "cause": "weights-exchanged",
        "places": ("features.12",),
        "mistakes": {"conv_sources": (0, 2, 5, 7, 10, 14, 12, 17)},
    },
    {
        "name": "vgg-classifier-copied-twice",
        "cause": "weights-exchanged",
        "places": ("classifier.3",),
        "mistakes": {"linear_sources": (0, 0, 6)},
    },
    {
        "name": "vgg-convolution-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("features.0",),
        "mistakes": {"biases": False},
    },
    {
        "name": "vgg-two-convolutions-for-three",
        "cause": "layer-missing",
        "places": ("features.14",),
        "mistakes": {"third_convs": 2, "conv_sources": (0, 2, 5, 7, 10, 12, 17)},
    },
    {
        "name": "vgg-no-first-relu",
        "cause": "activation-missing",
        "places": ("features.1", "features.0"),
        "mistakes": {"first_activation": None},
    },
    {
        "name": "vgg-gelu-for-relu",
        "cause": "activation-kind",
        "places": ("features.1", "features.0"),
        "mistakes": {"activation": "gelu"},
    },
    {
        "name": "vgg-relu-in-head",
        "cause": "activation-extra",
        "places": ("classifier.6",),
        "mistakes": {"head_activation": "relu"},
    },
    {
        "name": "vgg-trunk-frozen",  # seen in gradients only
        "cause": "frozen",
        "places": ("features.0",),
        "mistakes": {"trunk_trainable": False},
    },
    {
        "name": "vgg-trunk-constant",  # seen in gradients only
        "cause": "stop-gradient",
        "places": ("features.18", "features.17", "features.0"),
        "mistakes": {"trunk_constant": True},
    },
]
