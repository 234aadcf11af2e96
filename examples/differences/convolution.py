"""Convolution and dense layers: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import keras
import numpy as np
from keras import layers
from shared import IMAGE, Measured, by_keras, by_torch, difference, draw, first
from torch import nn

from paripassu.core.layer_spec import relative_error


@difference(
    "Convolution",
    "Kernel layout: (out, in, h, w) and (h, w, in, out)",
    "`weight.permute(2, 3, 1, 0)`",
    "kernel-axes",
)
def convolution_kernel() -> Measured:
    left = nn.Conv2d(4, 4, 4).double()
    weight = left.weight.detach().numpy()
    made = []
    for order in ((0, 1, 2, 3), (2, 3, 1, 0)):
        right = layers.Conv2D(4, 4, dtype="float64")
        right.build((None, 9, 8, 4))
        right.set_weights([weight.transpose(order), left.bias.detach().numpy()])
        made.append(relative_error(by_torch(left, IMAGE), by_keras(right, IMAGE)))
    shapes = tuple(left.weight.shape), tuple(right.kernel.shape)
    assert shapes == ((4, 4, 4, 4), (4, 4, 4, 4))  # no shape tells of a mistake
    return Measured("(out, in, h, w)", "(h, w, in, out)", *made)


@difference(
    "Convolution",
    "Depthwise kernel: (in · m, 1, h, w) and (h, w, in, m)",
    "`weight.reshape(in, m, h, w).permute(2, 3, 0, 1)`",
    "kernel-axes",
)
def depthwise_kernel() -> Measured:
    left = nn.Conv2d(4, 8, 3, groups=4).double()
    weight = left.weight.detach().numpy()
    made = []
    for kernel in (
        weight.reshape(3, 3, 4, 2),
        weight.reshape(4, 2, 3, 3).transpose(2, 3, 0, 1),
    ):
        right = layers.DepthwiseConv2D(3, depth_multiplier=2, dtype="float64")
        right.build((None, 9, 8, 4))
        right.set_weights([kernel, left.bias.detach().numpy()])
        made.append(relative_error(by_torch(left, IMAGE), by_keras(right, IMAGE)))
    return Measured("(in · m, 1, h, w)", "(h, w, in, m)", *made)


@difference(
    "Convolution",
    "`padding='same'` with a stride: Keras pads the end more than the beginning",
    "`ZeroPadding2D` with PyTorch's padding, then `padding='valid'`",
    "padding",
)
def same_padding_with_stride() -> Measured:
    x = draw(2, 8, 8, 4)
    left = nn.Conv2d(4, 3, 3, stride=2, padding=1).double()
    weight = left.weight.detach().numpy().transpose(2, 3, 1, 0)
    made = []
    for padding in ("same", "valid"):
        right = layers.Conv2D(3, 3, strides=2, padding=padding, dtype="float64")
        right.build((None, 8, 8, 4))
        right.set_weights([weight, left.bias.detach().numpy()])
        given = x if padding == "same" else np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        made.append(relative_error(by_torch(left, x), by_keras(right, given)))
    return Measured("padding=1 on all sides", "0 before, 1 after", *made)


@difference(
    "Convolution",
    "Transposed convolution with stride 2: which side of the full output is cropped",
    "`padding='valid'`, then `Cropping2D(((1, 0), (1, 0)))` for PyTorch's "
    "`padding=1, output_padding=1`",
    "crop",
)
def transposed_convolution_crop() -> Measured:
    left = nn.ConvTranspose2d(4, 3, 3, 2, padding=1, output_padding=1).double()
    weight = left.weight.detach().numpy().transpose(2, 3, 1, 0)
    made = []
    for padding in ("same", "valid"):
        right = layers.Conv2DTranspose(3, 3, 2, padding=padding, dtype="float64")
        right.build((None, 9, 8, 4))
        right.set_weights([weight, left.bias.detach().numpy()])
        got = by_keras(right, IMAGE)
        got = got if padding == "same" else got[:, 1:, 1:]
        made.append(relative_error(by_torch(left, IMAGE), got))
    return Measured("1 before, 0 after", "padding='same': 0 before, 1 after", *made)


@difference(
    "Convolution",
    "Dense kernel: (out, in) and (in, out)",
    "`weight.T`",
    "kernel-transposed",
)
def dense_kernel() -> Measured:
    x = draw(5, 4)
    left = nn.Linear(4, 4).double()
    weight, bias = left.weight.detach().numpy(), left.bias.detach().numpy()
    made = []
    for kernel in (weight, weight.T):
        right = layers.Dense(4, dtype="float64")
        right.build((None, 4))
        right.set_weights([kernel, bias])
        made.append(relative_error(by_torch(left, x), by_keras(right, x)))
    return Measured("(out, in)", "(in, out)", *made)


@difference(
    "Convolution",
    "Flatten: channels first, and channels last",
    "reorder the rows of the next kernel: "
    "`kernel.reshape(c, h, w, out).permute(1, 2, 0, 3)`",
    "flatten-order",
)
def flatten_order() -> Measured:
    left = first(IMAGE).reshape(2, -1)
    right = by_keras(layers.Flatten(dtype="float64"), IMAGE)
    turned = np.moveaxis(left.reshape(2, 4, 9, 8), 1, -1).reshape(2, -1)
    return Measured(
        "c, h, w", "h, w, c", relative_error(left, right), relative_error(turned, right)
    )


@difference(
    "Convolution",
    "Axes: (N, C, H, W) and (N, H, W, C)",
    "`np.moveaxis(x, 1, -1)`, or `data_format='channels_first'` where it runs",
    "axis",
)
def channels() -> Measured:
    x = draw(2, 4, 4, 4)
    left = by_torch(nn.Softmax(1), x)
    wrong = by_keras(layers.Softmax(1, dtype="float64"), x)
    right = by_keras(layers.Softmax(-1, dtype="float64"), x)
    formats = "channels first", keras.config.image_data_format().replace("_", " ")
    return Measured(*formats, relative_error(left, wrong), relative_error(left, right))
