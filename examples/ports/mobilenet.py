"""MobileNetV2: a 1x1 convolution widens, a depthwise one looks around, one narrows.

Sandler and others, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018;
the last block dilates as in Chen and others, "Rethinking Atrous Convolution for
Semantic Image Segmentation", 2017.

With stride 2 and an even size, Keras' "same" padding adds a row below and a column to
the right only, and PyTorch's `padding=1` one on each side: the shapes agree, the pixels
do not. BatchNorm adds 1e-5 in PyTorch and 1e-3 in Keras, and a momentum of 0.1 there is
one of 0.9 here, not the 0.99 that Keras begins with. A depthwise kernel is
(channels, 1, h, w) there and (h, w, channels, 1) here. ReLU6 shows only where something
exceeds 6, and the narrow end of a block has no activation.
"""

import keras
import torch
from keras import layers
from torch import nn

INPUT = "2,3,32,32"

# expansion, channels, stride, dilation
BLOCKS = [(1, 16, 1, 1), (4, 24, 2, 1), (4, 24, 1, 1), (4, 32, 2, 1), (4, 32, 1, 2)]


class ConvNormActivation(nn.Sequential):
    """A convolution that keeps the size but for its stride, BatchNorm, ReLU6."""

    def __init__(self, inputs, outputs, size=3, *, stride=1, dilation=1, groups=1):
        padding = (size - 1) // 2 * dilation
        super().__init__(
            nn.Conv2d(
                inputs, outputs, size, stride, padding, dilation, groups, bias=False
            ),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Widen, look around, narrow; added to x where the shapes are the same."""

    def __init__(self, inputs, outputs, *, expansion, stride, dilation):
        super().__init__()
        hidden = expansion * inputs
        self.use_residual = stride == 1 and inputs == outputs
        steps = [ConvNormActivation(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *steps,
            ConvNormActivation(
                hidden, hidden, stride=stride, dilation=dilation, groups=hidden
            ),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        """(N, c, h, w) to the same, or to fewer pixels."""
        return x + self.conv(x) if self.use_residual else self.conv(x)


class MobileNet(nn.Module):
    """A class for each image."""

    def __init__(self, num_classes=10):
        super().__init__()
        features, channels = [ConvNormActivation(3, 16, stride=2)], 16
        for expansion, outputs, stride, dilation in BLOCKS:
            features.append(
                InvertedResidual(
                    channels,
                    outputs,
                    expansion=expansion,
                    stride=stride,
                    dilation=dilation,
                )
            )
            channels = outputs
        features.append(ConvNormActivation(channels, 64, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, x):
        """(N, 3, h, w) to (N, classes)."""
        return self.classifier(self.features(x).mean((2, 3)))


def pytorch() -> nn.Module:
    """The model, with norms that matter and some activations above 6."""
    torch.manual_seed(0)
    model = MobileNet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=2.0, std=0.3)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 2.0, 6.0)
    nn.init.normal_(model.classifier.bias, std=0.3)
    return model


def keras_model(
    *,
    stem_padding="symmetric",
    depthwise_padding="symmetric",
    epsilon=1e-5,
    momentum=0.9,
    activation="relu6",
    bottleneck_activation=None,
    stride_at="depthwise",
    dilation=True,
    residual=True,
    include_preprocessing=False,
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers unnamed."""

    def norm(x, function):
        x = layers.BatchNormalization(momentum=momentum, epsilon=epsilon)(x)
        return x if function is None else layers.Activation(function)(x)

    def pad(x, stride, padding):
        if stride == 1 or padding == "same":
            return x, "same"
        return layers.ZeroPadding2D(1)(x), "valid"

    def pointwise(x, channels, function, strides=1):
        x = layers.Conv2D(channels, 1, strides=strides, use_bias=False)(x)
        return norm(x, function)

    def depthwise(x, strides, rate):
        x, padding = pad(x, strides, depthwise_padding)
        x = layers.DepthwiseConv2D(
            3, strides=strides, padding=padding, dilation_rate=rate, use_bias=False
        )(x)
        return norm(x, activation)

    inputs = keras.Input((32, 32, 3))
    x = inputs
    if include_preprocessing:  # as keras.applications has it
        x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x, padding = pad(x, 2, stem_padding)
    x = layers.Conv2D(16, 3, strides=2, padding=padding, use_bias=False)(x)
    x = norm(x, activation)
    for expansion, channels, stride, rate in BLOCKS:
        early = stride if stride_at == "expand" else 1
        y = x
        if expansion != 1:
            y = pointwise(y, expansion * x.shape[-1], activation, early)
        y = depthwise(y, stride // early, rate if dilation else 1)
        y = pointwise(y, channels, bottleneck_activation)
        if residual and stride == 1 and x.shape[-1] == channels:
            y = layers.Add()([x, y])
        x = y
    x = pointwise(x, 64, activation)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_conv(layer, conv, *, stem_axes, transpose_square):
    """(out, in, h, w) to (h, w, in, out)."""
    kernel = to_numpy(conv.weight)
    axes = stem_axes if conv.in_channels == 3 else (2, 3, 1, 0)
    if conv.in_channels == conv.out_channels and not transpose_square:
        axes = (2, 3, 0, 1)
    layer.set_weights([kernel.transpose(axes)])


def copy_depthwise(layer, conv, *, axes, flip, reshape):
    """(channels, 1, h, w) to (h, w, channels, 1)."""
    kernel = to_numpy(conv.weight)
    kernel = kernel.reshape(layer.kernel.shape) if reshape else kernel.transpose(axes)
    layer.set_weights([kernel[::-1, ::-1] if flip else kernel])


def copy_norm(layer, norm, *, statistics, exchange):
    """Gamma, beta and the two statistics."""
    factor, shift = to_numpy(norm.weight), to_numpy(norm.bias)
    layer.gamma.assign(shift if exchange else factor)
    layer.beta.assign(factor if exchange else shift)
    if statistics:
        layer.moving_mean.assign(to_numpy(norm.running_mean))
        layer.moving_variance.assign(to_numpy(norm.running_var))


def of_type(model, kind):
    """The modules of a type, in their order."""
    return [module for module in model.modules() if isinstance(module, kind)]


def keras_port(
    *,
    stem_axes=(2, 3, 1, 0),
    transpose_square=True,
    depthwise_axes=(2, 3, 0, 1),
    depthwise_flipped=False,
    depthwise_reshaped=False,
    statistics=True,
    gamma_and_beta_exchanged=False,
    norms_exchanged=False,
    head_bias=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights: both have their layers in one order."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    norms = of_type(source, nn.BatchNorm2d)
    if norms_exchanged:  # the first two of features.2, of one shape
        norms[3], norms[4] = norms[4], norms[3]
    convs, norms = iter(of_type(source, nn.Conv2d)), iter(norms)
    for layer in model.layers:
        match layer:
            case layers.DepthwiseConv2D():
                copy_depthwise(
                    layer,
                    next(convs),
                    axes=depthwise_axes,
                    flip=depthwise_flipped,
                    reshape=depthwise_reshaped,
                )
            case layers.Conv2D():
                copy_conv(
                    layer,
                    next(convs),
                    stem_axes=stem_axes,
                    transpose_square=transpose_square,
                )
            case layers.BatchNormalization():
                copy_norm(
                    layer,
                    next(norms),
                    statistics=statistics,
                    exchange=gamma_and_beta_exchanged,
                )
            case layers.Dense():
                layer.kernel.assign(to_numpy(source.classifier.weight).T)
                if head_bias:
                    layer.bias.assign(to_numpy(source.classifier.bias))
    return model


FAULTS = [
    {
        "name": "mobilenet-stem-padded-as-same",
        "cause": "padding",
        "places": ("features.0.0",),
        "mistakes": {"stem_padding": "same"},
    },
    {
        "name": "mobilenet-depthwise-padded-as-same",
        "cause": "padding",
        "places": ("features.2.conv.1.0",),
        "mistakes": {"depthwise_padding": "same"},
    },
    {
        "name": "mobilenet-stride-at-expansion",
        "cause": "strides",
        "places": ("features.2.conv.0.0", "features.2.conv.1.0"),
        "mistakes": {"stride_at": "expand"},
    },
    {
        "name": "mobilenet-no-dilation",
        "cause": "dilation",
        "places": ("features.5.conv.1.0",),
        "mistakes": {"dilation": False},
    },
    {
        "name": "mobilenet-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("features.0.1",),
        "mistakes": {"epsilon": 1e-3},
    },
    {
        "name": "mobilenet-momentum-of-keras",  # seen in the statistics only
        "cause": "momentum",
        "places": ("features.0.1",),
        "mistakes": {"momentum": 0.99},
    },
    {
        "name": "mobilenet-momentum-of-pytorch",  # seen in the statistics only
        "cause": "momentum",
        "places": ("features.0.1",),
        "mistakes": {"momentum": 0.1},
    },
    {
        "name": "mobilenet-statistics-not-copied",
        "cause": "statistics-not-copied",
        "places": ("features.0.1",),
        "mistakes": {"statistics": False},
    },
    {
        "name": "mobilenet-gamma-and-beta-exchanged",
        "cause": "weights-exchanged",
        "places": ("features.0.1",),
        "mistakes": {"gamma_and_beta_exchanged": True},
    },
    {
        "name": "mobilenet-norms-exchanged",
        "cause": "weights-exchanged",
        "places": ("features.2.conv.0.1", "features.2.conv.1.1"),
        "mistakes": {"norms_exchanged": True},
    },
    {
        "name": "mobilenet-depthwise-height-and-width",
        "cause": "kernel-axes",
        "places": ("features.1.conv.0.0",),
        "mistakes": {"depthwise_axes": (3, 2, 0, 1)},
    },
    {
        "name": "mobilenet-stem-height-and-width",
        "cause": "kernel-axes",
        "places": ("features.0.0",),
        "mistakes": {"stem_axes": (3, 2, 1, 0)},
    },
    {
        "name": "mobilenet-depthwise-reshaped",  # to the right shape, not transposed
        "cause": "kernel-axes",
        "places": ("features.1.conv.0.0",),
        "mistakes": {"depthwise_reshaped": True},
    },
    {
        "name": "mobilenet-depthwise-flipped",
        "cause": "kernel-flipped",
        "places": ("features.1.conv.0.0",),
        "mistakes": {"depthwise_flipped": True},
    },
    {
        "name": "mobilenet-square-kernel-not-transposed",  # it is 16 by 16
        "cause": "kernel-axes",
        "places": ("features.1.conv.1",),
        "mistakes": {"transpose_square": False},
    },
    {
        "name": "mobilenet-relu-for-relu6",
        "cause": "activation-kind",
        "places": ("features.0.2",),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "mobilenet-no-relu6",
        "cause": "activation-missing",
        "places": ("features.0.2", "features.0.1"),
        "mistakes": {"activation": None},
    },
    {
        "name": "mobilenet-relu6-after-bottleneck",
        "cause": "activation-extra",
        "places": ("features.1.conv.2", "features.1.conv", "features.1"),
        "mistakes": {"bottleneck_activation": "relu6"},
    },
    {
        "name": "mobilenet-no-residual",
        "cause": "residual-missing",
        "places": ("add", "features.3"),
        "mistakes": {"residual": False},
    },
    {
        "name": "mobilenet-head-bias-not-copied",
        "cause": "bias-not-copied",
        "places": ("classifier",),
        "mistakes": {"head_bias": False},
    },
    {
        "name": "mobilenet-preprocessing-included",
        "cause": "input-scale",
        "places": ("features.0.0", "features.0"),
        "mistakes": {"include_preprocessing": True},
    },
]
