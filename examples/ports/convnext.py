"""ConvNeXt: depthwise 7x7 convolutions, LayerNorm over channels, a factor for each.

Liu and others, "A ConvNet for the 2020s", CVPR 2022.

The paper's norms add 1e-6, Keras' 1e-3 unless told. LayerNorm has the mean of each
pixel's channels; `GroupNormalization(groups=1)`, often taken for it, has weights of the
same shapes and the mean of the image. The factors begin at 1e-6: a block whose factors
were not copied does almost nothing, and training hides it. Stem and downsampling drop
what does not fill a window, and Keras' "same" padding keeps it: sizes differ where 4
does not divide the image, as here, and the mean over the image forgives that too.
"""

import keras
import torch
from keras import layers
from torch import nn
from torch.nn import functional as F

INPUT = "2,3,34,30"


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, c, h, w)."""

    def forward(self, x):
        """Norm with channels last, for a moment."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Each channel's surroundings, then all channels of each pixel; added to x."""

    def __init__(self, channels, layer_scale=1e-6):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(self, x):
        """(N, c, h, w) to the same."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.reduce(self.activation(self.expand(self.norm(y))))
        y = (self.gamma * y).permute(0, 3, 1, 2)
        return x + y


class ConvNeXt(nn.Module):
    """A class for each image; two stages of two blocks."""

    def __init__(self, widths=(24, 48), num_classes=10):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 4, stride=4), LayerNorm2d(widths[0], eps=1e-6)
        )
        self.stage1 = nn.Sequential(Block(widths[0]), Block(widths[0]))
        self.downsample = nn.Sequential(
            LayerNorm2d(widths[0], eps=1e-6), nn.Conv2d(*widths, 2, stride=2)
        )
        self.stage2 = nn.Sequential(Block(widths[1]), Block(widths[1]))
        self.norm = nn.LayerNorm(widths[1], eps=1e-6)
        self.head = nn.Linear(widths[1], num_classes)

    def forward(self, x):
        """(N, 3, h, w) to (N, classes)."""
        x = self.stage1(self.stem(x))
        x = self.stage2(self.downsample(x))
        return self.head(self.norm(x.mean((-2, -1))))


def pytorch() -> nn.Module:
    """The model, with biases, norms and factors that matter."""
    torch.manual_seed(0)
    model = ConvNeXt()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
        elif parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model


@keras.saving.register_keras_serializable(package="convnext")
class LayerScale(layers.Layer):
    """A factor for each channel, learned."""

    def __init__(self, initial=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        """Make the factors."""
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial),
            name="gamma",
        )

    def call(self, x):
        """Multiply."""
        return x * self.gamma

    def get_config(self):
        """What it was made with."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="convnext")
def gelu_tanh(x):
    """GELU by its formula with tanh."""
    return keras.activations.gelu(x, approximate=True)


def norm_layer(kind, epsilon, name):
    """A norm over channels, or what is taken for it."""
    if kind == "group":
        return layers.GroupNormalization(groups=1, epsilon=epsilon, name=name)
    return layers.LayerNormalization(epsilon=epsilon, name=name)


def convnext_block(
    x, name, *, norm, epsilon, activation, layer_scale, scale_trainable, residual
):
    """Each channel's surroundings, then all channels of each pixel; added to x."""
    channels = x.shape[-1]
    scale = LayerScale(trainable=scale_trainable, name=f"{name}_scale")
    y = layers.DepthwiseConv2D(7, padding="same", name=f"{name}_depthwise")(x)
    y = norm_layer(norm, epsilon, f"{name}_norm")(y)
    y = layers.Dense(4 * channels, name=f"{name}_expand")(y)
    if activation is not None:
        y = layers.Activation(activation, name=f"{name}_activation")(y)
    y = layers.Dense(channels, name=f"{name}_reduce")(y)
    if layer_scale == "branch":
        y = scale(y)
    if residual:
        y = layers.Add(name=f"{name}_add")([x, y])
    return scale(y) if layer_scale == "sum" else y


def keras_model(
    *,
    stem_padding="valid",
    downsample_padding="valid",
    norm="layer",
    epsilon=1e-6,
    activation="gelu",
    layer_scale="branch",
    scale_trainable=True,
    residual=True,
    include_preprocessing=False,
    stem_norm=True,
    head="norm-of-mean",
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""
    settings = {
        "norm": norm,
        "epsilon": epsilon,
        "activation": activation,
        "layer_scale": layer_scale,
        "scale_trainable": scale_trainable,
        "residual": residual,
    }
    inputs = keras.Input((34, 30, 3), name="images")
    x = inputs
    if include_preprocessing:  # as keras.applications has it
        x = layers.Normalization(
            mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506]
        )(x)
    x = layers.Conv2D(24, 4, strides=4, padding=stem_padding, name="stem_conv")(x)
    if stem_norm:
        x = norm_layer(norm, epsilon, "stem_norm")(x)
    x = convnext_block(x, "stage1_block0", **settings)
    x = convnext_block(x, "stage1_block1", **settings)
    x = norm_layer(norm, epsilon, "downsample_norm")(x)
    x = layers.Conv2D(
        48, 2, strides=2, padding=downsample_padding, name="downsample_conv"
    )(x)
    x = convnext_block(x, "stage2_block0", **settings)
    x = convnext_block(x, "stage2_block1", **settings)
    steps = [
        layers.GlobalAveragePooling2D(name="mean"),
        layers.LayerNormalization(epsilon=epsilon, name="norm"),
    ]
    for layer in steps if head == "norm-of-mean" else reversed(steps):
        x = layer(x)
    outputs = layers.Dense(10, name="head")(x)
    return keras.Model(inputs, outputs, name="convnext")


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_conv(layer, conv, *, axes=(2, 3, 1, 0), flip=False):
    """(out, in, h, w) to (h, w, in, out); a depthwise one is (h, w, out, 1)."""
    kernel = to_numpy(conv.weight).transpose(axes)
    layer.set_weights([kernel[::-1, ::-1] if flip else kernel, to_numpy(conv.bias)])


def copy_linear(layer, linear, *, bias=True, reshape=False):
    """(out, in) to (in, out)."""
    weight = to_numpy(linear.weight)
    layer.kernel.assign(weight.reshape(layer.kernel.shape) if reshape else weight.T)
    if bias:
        layer.bias.assign(to_numpy(linear.bias))


def copy_norm(layer, norm):
    """Gamma and beta."""
    layer.set_weights([to_numpy(norm.weight), to_numpy(norm.bias)])


def keras_port(
    *,
    block_sources=(0, 1),
    depthwise_axes=(2, 3, 0, 1),
    depthwise_flipped=False,
    stem_axes=(2, 3, 1, 0),
    reshape=False,
    linear_biases=True,
    factors=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    copy_conv(model.get_layer("stem_conv"), source.stem[0], axes=stem_axes)
    if settings.get("stem_norm", True):
        copy_norm(model.get_layer("stem_norm"), source.stem[1])
    for stage in ("stage1", "stage2"):
        for number, other in enumerate(block_sources):
            block, name = getattr(source, stage)[other], f"{stage}_block{number}"
            copy_conv(
                model.get_layer(f"{name}_depthwise"),
                block.depthwise,
                axes=depthwise_axes,
                flip=depthwise_flipped,
            )
            copy_norm(model.get_layer(f"{name}_norm"), block.norm)
            for key in ("expand", "reduce"):
                copy_linear(
                    model.get_layer(f"{name}_{key}"),
                    getattr(block, key),
                    bias=linear_biases,
                    reshape=reshape,
                )
            if factors and settings.get("layer_scale", "branch") is not None:
                model.get_layer(f"{name}_scale").gamma.assign(to_numpy(block.gamma))
    copy_norm(model.get_layer("downsample_norm"), source.downsample[0])
    copy_conv(model.get_layer("downsample_conv"), source.downsample[1])
    copy_norm(model.get_layer("norm"), source.norm)
    copy_linear(model.get_layer("head"), source.head)
    return model


FAULTS = [
    {
        "name": "convnext-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("stem.1", "layer_norm"),
        "mistakes": {"epsilon": 1e-3},
    },
    {
        "name": "convnext-epsilon-of-pytorch",
        "cause": "epsilon",
        "places": ("stem.1", "layer_norm"),
        "mistakes": {"epsilon": 1e-5},
    },
    {
        "name": "convnext-norm-over-image",
        "cause": "axis",
        "places": ("stem.1", "layer_norm"),
        "mistakes": {"norm": "group"},
    },
    {
        "name": "convnext-no-stem-norm",
        "cause": "layer-missing",
        "places": ("stem.1", "layer_norm"),
        "mistakes": {"stem_norm": False},
    },
    {
        "name": "convnext-stem-padded",
        "cause": "padding",
        "places": ("stem.0",),
        "mistakes": {"stem_padding": "same"},
    },
    {
        "name": "convnext-downsample-padded",
        "cause": "padding",
        "places": ("downsample.1",),
        "mistakes": {"downsample_padding": "same"},
    },
    {
        "name": "convnext-stem-height-and-width",
        "cause": "kernel-axes",
        "places": ("stem.0",),
        "mistakes": {"stem_axes": (3, 2, 1, 0)},
    },
    {
        "name": "convnext-depthwise-height-and-width",
        "cause": "kernel-axes",
        "places": ("stage1.0.depthwise",),
        "mistakes": {"depthwise_axes": (3, 2, 0, 1)},
    },
    {
        "name": "convnext-depthwise-flipped",
        "cause": "kernel-flipped",
        "places": ("stage1.0.depthwise",),
        "mistakes": {"depthwise_flipped": True},
    },
    {
        "name": "convnext-linear-reshaped",  # to the right shape, and not transposed
        "cause": "kernel-transposed",
        "places": ("stage1.0.expand",),
        "mistakes": {"reshape": True},
    },
    {
        "name": "convnext-linear-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("stage1.0.expand",),
        "mistakes": {"linear_biases": False},
    },
    {
        "name": "convnext-gelu-tanh",
        "cause": "gelu-form",
        "places": ("stage1.0.activation",),
        "mistakes": {"activation": gelu_tanh},
    },
    {
        "name": "convnext-no-gelu",
        "cause": "activation-missing",
        "places": ("stage1.0.activation", "stage1.0.expand"),
        "mistakes": {"activation": None},
    },
    {
        "name": "convnext-no-layer-scale",
        "cause": "layer-missing",
        "places": ("mul", "stage1.0.gamma", "stage1.0"),
        "mistakes": {"layer_scale": None},
    },
    {
        "name": "convnext-layer-scale-after-sum",
        "cause": "layer-order",
        "places": ("mul", "add", "stage1.0"),
        "mistakes": {"layer_scale": "sum"},
    },
    {
        "name": "convnext-layer-scale-not-copied",
        "cause": "weights-not-copied",
        "places": ("stage1.0.gamma", "mul", "stage1.0"),
        "mistakes": {"factors": False},
    },
    {
        "name": "convnext-layer-scale-frozen",  # seen in gradients only
        "cause": "frozen",
        "places": ("stage1.0.gamma", "stage1.0"),
        "mistakes": {"scale_trainable": False},
    },
    {
        "name": "convnext-no-residual",
        "cause": "residual-missing",
        "places": ("add", "stage1.0"),
        "mistakes": {"residual": False},
    },
    {
        "name": "convnext-blocks-exchanged",
        "cause": "weights-exchanged",
        "places": ("stage1.0.depthwise", "stage1.0"),
        "mistakes": {"block_sources": (1, 0)},
    },
    {
        "name": "convnext-norm-before-mean",
        "cause": "layer-order",
        "places": ("mean", "norm"),
        "mistakes": {"head": "mean-of-norm"},
    },
    {
        "name": "convnext-preprocessing-included",
        "cause": "input-scale",
        "places": ("stem.0", "stem"),
        "mistakes": {"include_preprocessing": True},
    },
]
