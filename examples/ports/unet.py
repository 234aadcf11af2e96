"""U-Net: down to a quarter of the size and up again, each level joined to its own.

Ronneberger and others, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, with padded convolutions, BatchNorm, a dilated bottom, and
one step up by ConvTranspose2d, the other by interpolation.

`ConvTranspose2d(3, stride=2, padding=1, output_padding=1)` cuts the first row and
column off what a transposed convolution gives, Keras' "same" the last: the shapes
agree, the image is shifted by a pixel. Its kernel is (in, out, h, w) and Keras'
(h, w, out, in), flipped in neither. UpSampling2D repeats pixels unless told. Its
bilinear interpolation is PyTorch's with `align_corners=False`; TensorFlow computes it
in float32, whatever the model is in. The skip's channels come first here: where both
halves are of one width, the other order raises no error.
"""

import keras
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

INPUT = "2,3,32,32"


class DoubleConv(nn.Module):
    """Twice a convolution that keeps the size, BatchNorm and ReLU."""

    def __init__(self, inputs, outputs, *, dilation=1):
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """A class for each pixel."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.down1 = DoubleConv(3, 16)
        self.pool1 = nn.MaxPool2d(2)
        self.down2 = DoubleConv(16, 32)
        self.pool2 = nn.MaxPool2d(2)
        self.bottom = DoubleConv(32, 32, dilation=2)
        self.up2 = nn.ConvTranspose2d(32, 32, 3, stride=2, padding=1, output_padding=1)
        self.merge2 = DoubleConv(64, 32)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear")
        self.narrow1 = nn.Conv2d(32, 16, 1)
        self.merge1 = DoubleConv(32, 16)
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, x):
        """(N, 3, h, w) to (N, classes, h, w)."""
        skip1 = self.down1(x)
        skip2 = self.down2(self.pool1(skip1))
        x = self.up2(self.bottom(self.pool2(skip2)))
        x = self.merge2(torch.cat([skip2, x], dim=1))
        x = self.narrow1(self.up1(x))
        x = self.merge1(torch.cat([skip1, x], dim=1))
        return self.head(x)


def pytorch() -> nn.Module:
    """The model, with biases and norms that matter."""
    torch.manual_seed(0)
    model = UNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3)
    return model


@keras.saving.register_keras_serializable(package="unet")
class StopGradient(layers.Layer):
    """x, as a constant."""

    def call(self, x):
        """Stop."""
        return ops.stop_gradient(x)


@keras.saving.register_keras_serializable(package="unet")
class AlignedCorners(layers.Layer):
    """Twice the size, bilinear, the corner pixels in the corners."""

    def call(self, x):
        """Mix the rows, then the columns."""
        for axis in (1, 2):
            size = x.shape[axis]
            place = ops.arange(2 * size, dtype=x.dtype) * ((size - 1) / (2 * size - 1))
            pixels = ops.arange(size, dtype=x.dtype)
            mix = ops.relu(1 - ops.abs(place[:, None] - pixels[None, :]))
            x = ops.moveaxis(ops.tensordot(mix, x, axes=[[1], [axis]]), 0, axis)
        return x

    def compute_output_shape(self, input_shape):
        """Height and width are twice as large."""
        batch, height, width, channels = input_shape
        return batch, 2 * height, 2 * width, channels


def transposed(x, crop, *, use_bias):
    """Twice the size by a transposed convolution, cut to size in one of three ways."""
    padding = "same" if crop == "same" else "valid"
    x = layers.Conv2DTranspose(
        32, 3, strides=2, padding=padding, use_bias=use_bias, name="up2"
    )(x)
    match crop:
        case "first":
            x = layers.Cropping2D(((1, 0), (1, 0)), name="up2_crop")(x)
        case "last":
            x = layers.Cropping2D(((0, 1), (0, 1)), name="up2_crop")(x)
    return x


def keras_model(
    *,
    epsilon=1e-5,
    momentum=0.9,
    activation="relu",
    dilation=2,
    pool="max",
    crop="first",
    transpose_activation=None,
    transpose_bias=True,
    upsample="bilinear",
    narrow_activation=None,
    skip_first=(True, True),
    skip_detached=False,
    head_activation=None,
    include_rescaling=False,
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""

    def conv_norm(x, filters, name, number, rate=1):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            dilation_rate=rate,
            use_bias=False,
            name=f"{name}_conv{number}",
        )(x)
        x = layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, name=f"{name}_norm{number}"
        )(x)
        if activation is None:
            return x
        return layers.Activation(activation, name=f"{name}_activation{number}")(x)

    def double_conv(x, filters, name, rate=1):
        return conv_norm(conv_norm(x, filters, name, 1, rate), filters, name, 2)

    def half(x, name):
        if pool == "mean":
            return layers.AveragePooling2D(2, name=name)(x)
        return layers.MaxPooling2D(2, name=name)(x)

    def join(skip, x, name, first):
        if skip_detached:
            skip = StopGradient(name=f"{name}_constant")(skip)
        both = [skip, x] if first else [x, skip]
        return layers.Concatenate(name=f"{name}_join")(both)

    inputs = keras.Input((32, 32, 3), name="images")
    x = inputs
    if include_rescaling:
        x = layers.Rescaling(1 / 255, name="rescaling")(x)
    skip1 = double_conv(x, 16, "down1")
    skip2 = double_conv(half(skip1, "pool1"), 32, "down2")
    x = double_conv(half(skip2, "pool2"), 32, "bottom", dilation)
    x = transposed(x, crop, use_bias=transpose_bias)
    if transpose_activation is not None:
        x = layers.Activation(transpose_activation, name="up2_activation")(x)
    x = double_conv(join(skip2, x, "merge2", skip_first[1]), 32, "merge2")
    if upsample == "aligned":
        up = AlignedCorners(name="up1")
    else:
        up = layers.UpSampling2D(interpolation=upsample, name="up1")
    narrow = layers.Conv2D(16, 1, activation=narrow_activation, name="narrow1")
    x = double_conv(join(skip1, narrow(up(x)), "merge1", skip_first[0]), 16, "merge1")
    outputs = layers.Conv2D(4, 1, activation=head_activation, name="head")(x)
    return keras.Model(inputs, outputs, name="unet")


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_conv(layer, conv, *, axes, bias):
    """(out, in, h, w) to (h, w, in, out)."""
    layer.kernel.assign(to_numpy(conv.weight).transpose(axes))
    if layer.use_bias and bias:
        layer.bias.assign(to_numpy(conv.bias))


def copy_norm(layer, norm, *, statistics):
    """Gamma, beta and the two statistics."""
    layer.gamma.assign(to_numpy(norm.weight))
    layer.beta.assign(to_numpy(norm.bias))
    if statistics:
        layer.moving_mean.assign(to_numpy(norm.running_mean))
        layer.moving_variance.assign(to_numpy(norm.running_var))


def keras_port(
    *,
    transpose_axes=(2, 3, 1, 0),
    transpose_flipped=False,
    transpose_copied=True,
    square_axes=(2, 3, 1, 0),
    biases=True,
    statistics=True,
    level_exchanged=False,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    if level_exchanged:  # `bottom.conv2` and `down2.conv2` are of one shape
        source.bottom.conv2, source.down2.conv2 = (
            source.down2.conv2,
            source.bottom.conv2,
        )
    for name in ("down1", "down2", "bottom", "merge2", "merge1"):
        double = getattr(source, name)
        for number in (1, 2):
            copy_conv(
                model.get_layer(f"{name}_conv{number}"),
                getattr(double, f"conv{number}"),
                axes=square_axes if number == 2 else (2, 3, 1, 0),
                bias=True,
            )
            copy_norm(
                model.get_layer(f"{name}_norm{number}"),
                getattr(double, f"norm{number}"),
                statistics=statistics,
            )
    for name in ("narrow1", "head"):
        copy_conv(
            model.get_layer(name),
            getattr(source, name),
            axes=(2, 3, 1, 0),
            bias=biases,
        )
    if transpose_copied:
        kernel = to_numpy(source.up2.weight).transpose(transpose_axes)
        up2 = model.get_layer("up2")
        up2.kernel.assign(kernel[::-1, ::-1] if transpose_flipped else kernel)
        if up2.use_bias and biases:
            up2.bias.assign(to_numpy(source.up2.bias))
    return model


FAULTS = [
    {
        "name": "unet-transpose-as-same",
        "cause": "crop",
        "places": ("up2", "up2_crop"),
        "mistakes": {"crop": "same"},
    },
    {
        "name": "unet-transpose-last-cut-off",
        "cause": "crop",
        "places": ("up2", "up2_crop"),
        "mistakes": {"crop": "last"},
    },
    {
        "name": "unet-transpose-flipped",
        "cause": "kernel-flipped",
        "places": ("up2", "up2_crop"),
        "mistakes": {"transpose_flipped": True},
    },
    {
        "name": "unet-transpose-in-and-out",  # as a Conv2d's, and it fits
        "cause": "kernel-axes",
        "places": ("up2", "up2_crop"),
        "mistakes": {"transpose_axes": (2, 3, 0, 1)},
    },
    {
        "name": "unet-transpose-height-and-width",
        "cause": "kernel-axes",
        "places": ("up2", "up2_crop"),
        "mistakes": {"transpose_axes": (3, 2, 1, 0)},
    },
    {
        "name": "unet-transpose-not-copied",
        "cause": "weights-not-copied",
        "places": ("up2", "up2_crop"),
        "mistakes": {"transpose_copied": False},
    },
    {
        "name": "unet-transpose-without-bias",
        "cause": "bias-missing",
        "places": ("up2", "up2_crop"),
        "mistakes": {"transpose_bias": False},
    },
    {
        "name": "unet-relu-after-transpose",
        "cause": "activation-extra",
        "places": ("up2", "up2_crop", "up2_activation"),
        "mistakes": {"transpose_activation": "relu"},
    },
    {
        "name": "unet-nearest-for-bilinear",
        "cause": "upsample-mode",
        "places": ("up1", "interpolate"),
        "mistakes": {"upsample": "nearest"},
    },
    {
        "name": "unet-bicubic-for-bilinear",
        "cause": "upsample-mode",
        "places": ("up1", "interpolate"),
        "mistakes": {"upsample": "bicubic"},
    },
    {
        "name": "unet-corners-aligned",
        "cause": "upsample-mode",
        "places": ("up1", "interpolate"),
        "mistakes": {"upsample": "aligned"},
    },
    {
        "name": "unet-relu-after-narrowing",
        "cause": "activation-extra",
        "places": ("narrow1",),
        "mistakes": {"narrow_activation": "relu"},
    },
    {
        "name": "unet-outer-skip-last",
        "cause": "concat-order",
        "places": ("cat", "merge1_join"),
        "mistakes": {"skip_first": (False, True)},
    },
    {
        "name": "unet-skips-last",
        "cause": "concat-order",
        "places": ("cat", "merge2_join"),
        "mistakes": {"skip_first": (False, False)},
    },
    {
        "name": "unet-skips-detached",  # seen in gradients only
        "cause": "stop-gradient",
        "places": ("cat", "down1.norm2", "down2.norm2"),
        "mistakes": {"skip_detached": True},
    },
    {
        "name": "unet-no-dilation",
        "cause": "dilation",
        "places": ("bottom.conv1",),
        "mistakes": {"dilation": 1},
    },
    {
        "name": "unet-mean-for-maximum",
        "cause": "pool-kind",
        "places": ("pool1",),
        "mistakes": {"pool": "mean"},
    },
    {
        "name": "unet-square-kernels-in-and-out",
        "cause": "kernel-axes",
        "places": ("down1.conv2",),
        "mistakes": {"square_axes": (2, 3, 0, 1)},
    },
    {
        "name": "unet-levels-exchanged",
        "cause": "weights-exchanged",
        "places": ("down2.conv2", "bottom.conv2"),
        "mistakes": {"level_exchanged": True},
    },
    {
        "name": "unet-no-relu",
        "cause": "activation-missing",
        "places": ("relu", "down1", "down1.norm1"),
        "mistakes": {"activation": None},
    },
    {
        "name": "unet-elu-for-relu",
        "cause": "activation-kind",
        "places": ("relu", "down1", "down1.norm1"),
        "mistakes": {"activation": "elu"},
    },
    {
        "name": "unet-softmax-in-head",  # PyTorch's loss takes logits
        "cause": "activation-extra",
        "places": ("head",),
        "mistakes": {"head_activation": "softmax"},
    },
    {
        "name": "unet-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("down1.norm1",),
        "mistakes": {"epsilon": 1e-3},
    },
    {
        "name": "unet-momentum-of-keras",  # seen in the statistics only
        "cause": "momentum",
        "places": ("down1.norm1",),
        "mistakes": {"momentum": 0.99},
    },
    {
        "name": "unet-statistics-not-copied",
        "cause": "statistics-not-copied",
        "places": ("down1.norm1",),
        "mistakes": {"statistics": False},
    },
    {
        "name": "unet-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("up2", "up2_crop"),
        "mistakes": {"biases": False},
    },
    {
        "name": "unet-rescaling-included",
        "cause": "input-scale",
        "places": ("down1.conv1",),
        "mistakes": {"include_rescaling": True},
    },
]
