"""ResNet: blocks of two convolutions, each added to what it was given.

He and others, "Deep Residual Learning for Image Recognition", CVPR 2016, laid out as in
torchvision.

With stride 2 and an even size, Keras' "same" padding begins one pixel later than
`padding=1` or `padding=3`: it pads the end only, or more than the beginning. BatchNorm
adds 1e-5 in PyTorch and 1e-3 in Keras; PyTorch's momentum of 0.1 is Keras' 0.9, whose
default is 0.99. Its statistics are no parameters, and are forgotten. The second ReLU
comes after the sum, the stride in the first convolution, the shortcut has a norm, too.
"""

import keras
import torch
from keras import layers
from torch import nn

INPUT = "2,3,32,32"


class BasicBlock(nn.Module):
    """Two convolutions, added to x, or to x by a 1x1 convolution."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        """(N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A class for each image; three stages of two blocks."""

    def __init__(self, widths=(16, 24, 32), num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self.stage(widths[0], widths[0], 1)
        self.layer2 = self.stage(widths[0], widths[1], 2)
        self.layer3 = self.stage(widths[1], widths[2], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)

    @staticmethod
    def stage(inputs, outputs, stride):
        """Two blocks, the first of them with the stride."""
        return nn.Sequential(
            BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs)
        )

    def forward(self, x):
        """(N, 3, h, w) to (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def pytorch() -> nn.Module:
    """The model, with norms that matter."""
    torch.manual_seed(0)
    model = ResNet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def padded_conv(x, filters, size, strides, padding, name):
    """A convolution that keeps the size but for its stride, padded on each side."""
    if padding == "symmetric" and strides > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    padding = "same" if padding == "symmetric" else padding
    return layers.Conv2D(
        filters, size, strides=strides, padding=padding, use_bias=False, name=name
    )(x)


def basic_block(
    x,
    filters,
    strides,
    name,
    *,
    norm,
    padding,
    stride_at,
    order,
    residual,
    relu_before_sum,
    relu_after_sum,
    shortcut_norm,
    shortcut_relu,
):
    """Two convolutions, added to x, or to x by a 1x1 convolution."""
    first, second = (strides, 1) if stride_at == "conv1" else (1, strides)
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = padded_conv(
            x, filters, 1, strides, "valid", f"{name}_downsample_conv"
        )
        if shortcut_norm:
            shortcut = norm(f"{name}_downsample_bn")(shortcut)
        if shortcut_relu:
            shortcut = layers.ReLU(name=f"{name}_downsample_relu")(shortcut)
    y = padded_conv(x, filters, 3, first, padding, f"{name}_conv1")
    steps = [norm(f"{name}_bn1"), layers.ReLU(name=f"{name}_relu1")]
    for layer in steps if order == "norm-first" else reversed(steps):
        y = layer(y)
    y = padded_conv(y, filters, 3, second, padding, f"{name}_conv2")
    y = norm(f"{name}_bn2")(y)
    if relu_before_sum:
        y = layers.ReLU(name=f"{name}_relu2_before")(y)
    if residual:
        y = layers.Add(name=f"{name}_add")([y, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(y) if relu_after_sum else y


def keras_model(
    *,
    epsilon=1e-5,
    momentum=0.9,
    norms_trainable=True,
    stem_padding="symmetric",
    stem_pool_padding="symmetric",
    block_padding="symmetric",
    stride_at="conv1",
    order="norm-first",
    residual=True,
    relu_before_sum=False,
    relu_after_sum=True,
    shortcut_norm=True,
    shortcut_relu=False,
    head_pool="mean",
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""

    def norm(name):
        return layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, trainable=norms_trainable, name=name
        )

    settings = {
        "norm": norm,
        "padding": block_padding,
        "stride_at": stride_at,
        "order": order,
        "residual": residual,
        "relu_before_sum": relu_before_sum,
        "relu_after_sum": relu_after_sum,
        "shortcut_norm": shortcut_norm,
        "shortcut_relu": shortcut_relu,
    }
    inputs = keras.Input((32, 32, 3), name="images")
    x = padded_conv(inputs, 16, 7, 2, stem_padding, "conv1")
    x = layers.ReLU(name="relu")(norm("bn1")(x))
    if stem_pool_padding == "symmetric":  # zeros do, after a ReLU
        x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    padding = "same" if stem_pool_padding == "same" else "valid"
    x = layers.MaxPooling2D(3, strides=2, padding=padding, name="maxpool")(x)
    for stage, (filters, strides) in enumerate(((16, 1), (24, 2), (32, 2)), 1):
        x = basic_block(x, filters, strides, f"layer{stage}_0", **settings)
        x = basic_block(x, filters, 1, f"layer{stage}_1", **settings)
    if head_pool == "mean":
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
    else:
        x = layers.GlobalMaxPooling2D(name="maxpool_of_all")(x)
    return keras.Model(inputs, layers.Dense(10, name="fc")(x), name="resnet")


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_norm(layer, norm, *, affine, statistics):
    """Gamma and beta, and the two statistics."""
    if affine:
        layer.gamma.assign(to_numpy(norm.weight))
        layer.beta.assign(to_numpy(norm.bias))
    if "mean" in statistics:
        layer.moving_mean.assign(to_numpy(norm.running_mean))
    if "variance" in statistics:
        layer.moving_variance.assign(to_numpy(norm.running_var))


def keras_port(
    *,
    square_axes=(2, 3, 1, 0),
    affine=True,
    statistics=("mean", "variance"),
    block_sources=(0, 1),
    head_bias=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights: `layer1.0.bn1` goes to `layer1_0_bn1`."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    named = {layer.name: layer for layer in model.layers}

    def copy(name, module):
        if isinstance(module, nn.BatchNorm2d):
            copy_norm(named[name], module, affine=affine, statistics=statistics)
        else:
            square = module.in_channels == module.out_channels
            axes = square_axes if square else (2, 3, 1, 0)
            named[name].set_weights([to_numpy(module.weight).transpose(axes)])

    copy("conv1", source.conv1)
    copy("bn1", source.bn1)
    for stage in (1, 2, 3):
        for number in (0, 1):
            name = f"layer{stage}_{number}"
            # Only the first stage's blocks are of one shape.
            other = block_sources[number] if stage == 1 else number
            block = getattr(source, f"layer{stage}")[other]
            for key in ("conv1", "bn1", "conv2", "bn2"):
                copy(f"{name}_{key}", getattr(block, key))
            for key, module in zip(
                ("conv", "bn"), block.downsample or (), strict=False
            ):
                if f"{name}_downsample_{key}" in named:
                    copy(f"{name}_downsample_{key}", module)
    named["fc"].kernel.assign(to_numpy(source.fc.weight).T)
    if head_bias:
        named["fc"].bias.assign(to_numpy(source.fc.bias))
    return model


FAULTS = [
    {
        "name": "resnet-stem-padded-as-same",
        "cause": "padding",
        "places": ("conv1",),
        "mistakes": {"stem_padding": "same"},
    },
    {
        "name": "resnet-stem-not-padded",
        "cause": "padding",
        "places": ("conv1",),
        "mistakes": {"stem_padding": "valid"},
    },
    {
        "name": "resnet-stem-pool-padded-as-same",
        "cause": "pool-padding",
        "places": ("maxpool",),
        "mistakes": {"stem_pool_padding": "same"},
    },
    {
        "name": "resnet-stem-pool-not-padded",
        "cause": "pool-padding",
        "places": ("maxpool",),
        "mistakes": {"stem_pool_padding": "valid"},
    },
    {
        "name": "resnet-blocks-padded-as-same",
        "cause": "padding",
        "places": ("layer2.0.conv1",),
        "mistakes": {"block_padding": "same"},
    },
    {
        "name": "resnet-stride-in-second-convolution",
        "cause": "strides",
        "places": ("layer2.0.conv1",),
        "mistakes": {"stride_at": "conv2"},
    },
    {
        "name": "resnet-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("bn1",),
        "mistakes": {"epsilon": 1e-3},
    },
    {
        "name": "resnet-momentum-of-keras",  # seen in the statistics only
        "cause": "momentum",
        "places": ("bn1",),
        "mistakes": {"momentum": 0.99},
    },
    {
        "name": "resnet-momentum-of-pytorch",  # seen in the statistics only
        "cause": "momentum",
        "places": ("bn1",),
        "mistakes": {"momentum": 0.1},
    },
    {
        "name": "resnet-statistics-not-copied",
        "cause": "statistics-not-copied",
        "places": ("bn1",),
        "mistakes": {"statistics": ()},
    },
    {
        "name": "resnet-variances-not-copied",
        "cause": "statistics-not-copied",
        "places": ("bn1",),
        "mistakes": {"statistics": ("mean",)},
    },
    {
        "name": "resnet-gamma-and-beta-not-copied",
        "cause": "weights-not-copied",
        "places": ("bn1",),
        "mistakes": {"affine": False},
    },
    {
        "name": "resnet-norms-frozen",  # seen in training only: they do not follow
        "cause": "frozen",
        "places": ("bn1",),
        "mistakes": {"norms_trainable": False},
    },
    {
        "name": "resnet-relu-before-norm",
        "cause": "layer-order",
        "places": ("layer1.0.bn1", "layer1.0.relu"),
        "mistakes": {"order": "relu-first"},
    },
    {
        "name": "resnet-no-residual",
        "cause": "residual-missing",
        "places": ("add", "layer1.0"),
        "mistakes": {"residual": False},
    },
    {
        "name": "resnet-relu-before-sum",
        "cause": "activation-extra",
        "places": ("add", "layer1.0.bn2"),
        "mistakes": {"relu_before_sum": True},
    },
    {
        "name": "resnet-no-relu-after-sum",
        "cause": "activation-missing",
        "places": ("layer1.0.relu", "layer1.0", "add"),
        "mistakes": {"relu_after_sum": False},
    },
    {
        "name": "resnet-relu-in-shortcut",
        "cause": "activation-extra",
        "places": ("layer2.0.downsample.1", "layer2.0.downsample", "add"),
        "mistakes": {"shortcut_relu": True},
    },
    {
        "name": "resnet-shortcut-without-norm",
        "cause": "layer-missing",
        "places": ("layer2.0.downsample.1", "layer2.0.downsample"),
        "mistakes": {"shortcut_norm": False},
    },
    {
        "name": "resnet-square-kernels-in-and-out",
        "cause": "kernel-axes",
        "places": ("layer1.0.conv1",),
        "mistakes": {"square_axes": (2, 3, 0, 1)},
    },
    {
        "name": "resnet-first-blocks-exchanged",
        "cause": "weights-exchanged",
        "places": ("layer1.0.conv1",),
        "mistakes": {"block_sources": (1, 0)},
    },
    {
        "name": "resnet-head-maximum-for-mean",
        "cause": "pool-kind",
        "places": ("avgpool",),
        "mistakes": {"head_pool": "max"},
    },
    {
        "name": "resnet-head-bias-not-copied",
        "cause": "bias-not-copied",
        "places": ("fc",),
        "mistakes": {"head_bias": False},
    },
]
