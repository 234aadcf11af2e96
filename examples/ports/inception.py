"""Inception: convolutions of several sizes and a pool side by side, concatenated.

Szegedy and others, "Going Deeper with Convolutions", CVPR 2015, with the BatchNorm of
"Rethinking the Inception Architecture for Computer Vision", CVPR 2016.

PyTorch's average pool divides by the whole window at the edge too, zeros counted,
unless told `count_include_pad=False`; Keras' "same" never counts them. A max pool with
`padding=1` and stride 2 begins one pixel earlier than "same" does on an even size. It
pads with what is below everything, and ZeroPadding2D with zeros, which do as well after
a ReLU only. The branches' channels must lie in one order, and where two branches have
layers of one shape, weights in each other's place raise no error. A leaky ReLU's slope
is 0.01 in PyTorch and 0.3 in Keras unless told; TensorFlow rounds it to float32, so it
is one eighth here.
"""

import keras
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

INPUT = "2,3,32,32"


class ConvNorm(nn.Module):
    """A convolution that keeps the size, BatchNorm, ReLU."""

    def __init__(self, inputs, outputs, size):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class Inception(nn.Module):
    """Four branches: 1x1, 3x3, two 3x3 for a 5x5, and the mean of 3x3 pixels."""

    def __init__(self, inputs, *, single, reduced, outputs, pooled, count_padding):
        super().__init__()
        self.count_padding = count_padding
        self.single = ConvNorm(inputs, single, 1)
        self.middle_reduce = ConvNorm(inputs, reduced, 1)
        self.middle = ConvNorm(reduced, outputs, 3)
        self.large_reduce = ConvNorm(inputs, reduced, 1)
        self.large = ConvNorm(reduced, outputs, 3)
        self.large_again = ConvNorm(outputs, outputs, 3)
        self.pool = ConvNorm(inputs, pooled, 1)

    def forward(self, x):
        """(N, inputs, h, w) to the channels of all branches."""
        single = self.single(x)
        middle = self.middle(self.middle_reduce(x))
        large = self.large_again(self.large(self.large_reduce(x)))
        mean = F.avg_pool2d(
            x, 3, stride=1, padding=1, count_include_pad=self.count_padding
        )
        return torch.cat([single, middle, large, self.pool(mean)], dim=1)


class InceptionNet(nn.Module):
    """A class for each image; two inceptions, each of half the pixels before it."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.mixed1 = Inception(
            24, single=16, reduced=12, outputs=16, pooled=16, count_padding=True
        )
        self.mixed2 = Inception(
            64, single=32, reduced=16, outputs=24, pooled=16, count_padding=False
        )
        self.head = nn.Linear(96, num_classes)

    def forward(self, x):
        """(N, 3, h, w) to (N, classes)."""
        x = F.leaky_relu(self.stem(x), 0.125)
        x = self.mixed1(F.max_pool2d(x, 3, stride=2, padding=1))
        x = self.mixed2(F.max_pool2d(x, 3, stride=2, padding=1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def pytorch() -> nn.Module:
    """The model, with biases and norms that matter."""
    torch.manual_seed(0)
    model = InceptionNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.normal_(model.stem.bias, mean=-1.0, std=0.5)
    nn.init.normal_(model.head.bias, std=0.3)
    return model


@keras.saving.register_keras_serializable(package="inception")
class PadLowest(layers.Layer):
    """One pixel on each side, below everything that a max pool may see."""

    def call(self, x):
        """(N, h, w, c) to (N, h + 2, w + 2, c)."""
        margins = ((0, 0), (1, 1), (1, 1), (0, 0))
        return ops.pad(x, margins, constant_values=float("-inf"))


BRANCHES = ("single", "middle", "large", "pool")


def half(x, padding, kind, name):
    """A pool of 3x3 pixels, stride 2, padded with "lowest", "zeros" or as "same"."""
    if padding == "lowest":
        x = PadLowest(name=f"{name}_pad")(x)
    elif padding == "zeros":
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    pool = {"max": layers.MaxPooling2D, "mean": layers.AveragePooling2D}[kind]
    padding = "same" if padding == "same" else "valid"
    return pool(3, strides=2, padding=padding, name=f"{name}_pool")(x)


def conv_norm(x, filters, size, name, *, epsilon, momentum, activation, activate_first):
    """A convolution that keeps the size, BatchNorm, ReLU."""
    x = layers.Conv2D(
        filters, size, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    steps = [
        layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, name=f"{name}_norm"
        )
    ]
    if activation is not None:
        steps.append(layers.Activation(activation, name=f"{name}_activation"))
    for layer in reversed(steps) if activate_first else steps:
        x = layer(x)
    return x


def pooled(x, padding, kind, name):
    """The mean of 3x3 pixels, or their maximum."""
    if kind == "max":
        return layers.MaxPooling2D(3, strides=1, padding="same", name=name)(x)
    if padding == "counted":
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    padding = "valid" if padding == "counted" else "same"
    return layers.AveragePooling2D(3, strides=1, padding=padding, name=name)(x)


def keras_model(
    *,
    stem_bias=True,
    stem_activation="leaky",
    stem_pool="max",
    stem_pool_padding="lowest",
    pool_padding="zeros",
    branch_pool="mean",
    mean_padding=("counted", "not counted"),
    order=BRANCHES,
    activation="relu",
    pool_activation="relu",
    activate_first=False,
    large_again=True,
    epsilon=1e-3,
    momentum=0.9,
    head_pool="mean",
    include_rescaling=False,
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""
    settings = {
        "epsilon": epsilon,
        "momentum": momentum,
        "activation": activation,
        "activate_first": activate_first,
    }

    def mixed(x, name, padding, *, single, reduced, outputs, pool):
        large = conv_norm(x, reduced, 1, f"{name}_large_reduce", **settings)
        large = conv_norm(large, outputs, 3, f"{name}_large", **settings)
        if large_again:
            large = conv_norm(large, outputs, 3, f"{name}_large_again", **settings)
        middle = conv_norm(x, reduced, 1, f"{name}_middle_reduce", **settings)
        mean = pooled(x, padding, branch_pool, f"{name}_mean")
        branches = {
            "single": conv_norm(x, single, 1, f"{name}_single", **settings),
            "middle": conv_norm(middle, outputs, 3, f"{name}_middle", **settings),
            "large": large,
            "pool": conv_norm(
                mean,
                pool,
                1,
                f"{name}_pool",
                **settings | {"activation": pool_activation and activation},
            ),
        }
        return layers.Concatenate(name=name)([branches[key] for key in order])

    inputs = keras.Input((32, 32, 3), name="images")
    x = inputs
    if include_rescaling:
        x = layers.Rescaling(1 / 255, name="rescaling")(x)
    x = layers.Conv2D(24, 3, padding="same", use_bias=stem_bias, name="stem")(x)
    match stem_activation:
        case "leaky":
            x = layers.LeakyReLU(negative_slope=0.125, name="stem_activation")(x)
        case "leaky-of-keras":
            x = layers.LeakyReLU(name="stem_activation")(x)
        case "relu":
            x = layers.ReLU(name="stem_activation")(x)
    x = half(x, stem_pool_padding, stem_pool, "stem")
    x = mixed(x, "mixed1", mean_padding[0], single=16, reduced=12, outputs=16, pool=16)
    x = half(x, pool_padding, "max", "mixed1")
    x = mixed(x, "mixed2", mean_padding[1], single=32, reduced=16, outputs=24, pool=16)
    if head_pool == "mean":
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    else:
        x = layers.GlobalMaxPooling2D(name="maximum")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="inception")


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_norm(layer, norm, *, statistics):
    """Gamma, beta and the two statistics."""
    layer.gamma.assign(to_numpy(norm.weight))
    layer.beta.assign(to_numpy(norm.bias))
    if statistics:
        layer.moving_mean.assign(to_numpy(norm.running_mean))
        layer.moving_variance.assign(to_numpy(norm.running_var))


def keras_port(
    *,
    axes=(2, 3, 1, 0),
    square_axes=(2, 3, 1, 0),
    stem_bias_copied=True,
    statistics=True,
    other_name=None,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights.

    `other_name` says from which layer one takes its weights that has another name.
    """
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    stem = model.get_layer("stem")
    stem.kernel.assign(to_numpy(source.stem.weight).transpose(2, 3, 1, 0))
    if stem.use_bias and stem_bias_copied:
        stem.bias.assign(to_numpy(source.stem.bias))
    for name in ("mixed1", "mixed2"):
        mixed = getattr(source, name)
        for key, _ in mixed.named_children():
            if key == "large_again" and not settings.get("large_again", True):
                continue
            part = getattr(mixed, (other_name or {}).get(key, key))
            square = part.conv.in_channels == part.conv.out_channels
            kernel = to_numpy(part.conv.weight)
            model.get_layer(f"{name}_{key}_conv").set_weights(
                [kernel.transpose(square_axes if square else axes)]
            )
            copy_norm(
                model.get_layer(f"{name}_{key}_norm"), part.norm, statistics=statistics
            )
    head = model.get_layer("head")
    head.set_weights([to_numpy(source.head.weight).T, to_numpy(source.head.bias)])
    return model


FAULTS = [
    {
        "name": "inception-mean-without-padding",  # padding=1 taken for "same"
        "cause": "pool-padding",
        "places": ("avg_pool2d", "mixed1_mean"),
        "mistakes": {"mean_padding": ("not counted", "not counted")},
    },
    {
        "name": "inception-mean-with-padding",  # count_include_pad=False overlooked
        "cause": "pool-padding",
        "places": ("avg_pool2d", "mixed2_mean"),
        "mistakes": {"mean_padding": ("counted", "counted")},
    },
    {
        "name": "inception-branch-maximum-for-mean",
        "cause": "pool-kind",
        "places": ("avg_pool2d", "mixed1_mean"),
        "mistakes": {"branch_pool": "max"},
    },
    {
        "name": "inception-stem-mean-for-maximum",
        "cause": "pool-kind",
        "places": ("max_pool2d", "stem_pool"),
        "mistakes": {"stem_pool": "mean", "stem_pool_padding": "zeros"},
    },
    {
        "name": "inception-stem-pool-padded-as-same",
        "cause": "pool-padding",
        "places": ("max_pool2d", "stem_pool"),
        "mistakes": {"stem_pool_padding": "same"},
    },
    {
        "name": "inception-stem-pool-padded-with-zeros",
        "cause": "pool-padding",
        "places": ("max_pool2d", "stem_pool"),
        "mistakes": {"stem_pool_padding": "zeros"},
    },
    {
        "name": "inception-second-pool-padded-as-same",
        "cause": "pool-padding",
        "places": ("max_pool2d", "mixed1_pool"),
        "mistakes": {"pool_padding": "same"},
    },
    {
        "name": "inception-head-maximum-for-mean",
        "cause": "pool-kind",
        "places": ("adaptive_avg_pool2d", "maximum"),
        "mistakes": {"head_pool": "max"},
    },
    {
        "name": "inception-concatenated-pool-first",
        "cause": "concat-order",
        "places": ("cat", "mixed1"),
        "mistakes": {"order": ("pool", "single", "middle", "large")},
    },
    {
        "name": "inception-concatenated-large-before-middle",
        "cause": "concat-order",
        "places": ("cat", "mixed1"),
        "mistakes": {"order": ("single", "large", "middle", "pool")},
    },
    {
        "name": "inception-middle-and-large-exchanged",
        "cause": "weights-exchanged",
        "places": ("mixed1.middle.conv", "mixed1.large.conv"),
        "mistakes": {"other_name": {"middle": "large", "large": "middle"}},
    },
    {
        "name": "inception-reductions-exchanged",
        "cause": "weights-exchanged",
        "places": ("mixed1.middle_reduce.conv", "mixed1.large_reduce.conv"),
        "mistakes": {
            "other_name": {
                "middle_reduce": "large_reduce",
                "large_reduce": "middle_reduce",
            }
        },
    },
    {
        "name": "inception-square-kernel-in-and-out",
        "cause": "kernel-axes",
        "places": ("mixed1.large_again.conv",),
        "mistakes": {"square_axes": (2, 3, 0, 1)},
    },
    {
        "name": "inception-height-and-width",
        "cause": "kernel-axes",
        "places": ("mixed1.middle.conv", "mixed1.large.conv"),
        "mistakes": {"axes": (3, 2, 1, 0)},
    },
    {
        "name": "inception-no-relu-after-pool-branch",
        "cause": "activation-missing",
        "places": ("relu", "mixed1.pool", "mixed1.pool.norm"),
        "mistakes": {"pool_activation": None},
    },
    {
        "name": "inception-no-relu",
        "cause": "activation-missing",
        "places": ("relu", "mixed1.single", "mixed1.single.norm"),
        "mistakes": {"activation": None},
    },
    {
        "name": "inception-leaky-slope-of-keras",
        "cause": "negative-slope",
        "places": ("leaky_relu", "stem_activation"),
        "mistakes": {"stem_activation": "leaky-of-keras"},
    },
    {
        "name": "inception-relu-for-leaky",
        "cause": "activation-kind",
        "places": ("leaky_relu", "stem_activation"),
        "mistakes": {"stem_activation": "relu"},
    },
    {
        "name": "inception-relu-before-norm",
        "cause": "layer-order",
        "places": ("mixed1.single.norm", "relu", "mixed1.single"),
        "mistakes": {"activate_first": True},
    },
    {
        "name": "inception-one-convolution-for-two",
        "cause": "layer-missing",
        "places": ("mixed1.large_again", "mixed1.large_again.conv", "cat"),
        "mistakes": {"large_again": False},
    },
    {
        "name": "inception-epsilon-of-pytorch",
        "cause": "epsilon",
        "places": ("mixed1.single.norm",),
        "mistakes": {"epsilon": 1e-5},
    },
    {
        "name": "inception-momentum-of-keras",  # seen in the statistics only
        "cause": "momentum",
        "places": ("mixed1.single.norm",),
        "mistakes": {"momentum": 0.99},
    },
    {
        "name": "inception-statistics-not-copied",
        "cause": "statistics-not-copied",
        "places": ("mixed1.single.norm",),
        "mistakes": {"statistics": False},
    },
    {
        "name": "inception-stem-without-bias",
        "cause": "bias-missing",
        "places": ("stem",),
        "mistakes": {"stem_bias": False},
    },
    {
        "name": "inception-stem-bias-not-copied",
        "cause": "bias-not-copied",
        "places": ("stem",),
        "mistakes": {"stem_bias_copied": False},
    },
    {
        "name": "inception-rescaling-included",
        "cause": "input-scale",
        "places": ("stem",),
        "mistakes": {"include_rescaling": True},
    },
]
