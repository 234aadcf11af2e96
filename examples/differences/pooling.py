"""Pooling and resizing: where defaults differ."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import numpy as np
import torch.nn.functional as F
from keras import layers, ops
from shared import (
    IMAGE,
    Measured,
    argument,
    by_keras,
    by_torch,
    difference,
    draw,
    first,
    tensor,
)
from torch import nn

from paripassu.core.layer_spec import relative_error


@difference(
    "Pooling and resizing",
    "Average pool: does padding count?",
    "`nn.AvgPool2d(..., count_include_pad=False)`",
    "pool-padding",
)
def average_pool_padding() -> Measured:
    right = by_keras(layers.AveragePooling2D(3, 1, "same", dtype="float64"), IMAGE)
    made = [
        relative_error(
            by_torch(nn.AvgPool2d(3, 1, 1, count_include_pad=x), IMAGE), right
        )
        for x in (argument(nn.AvgPool2d, "count_include_pad"), False)
    ]
    return Measured(argument(nn.AvgPool2d, "count_include_pad"), False, *made)


@difference(
    "Pooling and resizing",
    "Max pool with stride 2, `padding='same'` of an even size: where it pads",
    "pad with `-inf` before, then `padding='valid'`",
    "pool-padding",
)
def max_pool_padding() -> Measured:
    x = draw(2, 8, 8, 4)
    left = by_torch(nn.MaxPool2d(3, 2, 1), x)
    same = by_keras(layers.MaxPooling2D(3, 2, "same", dtype="float64"), x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    valid = by_keras(layers.MaxPooling2D(3, 2, dtype="float64"), padded)
    made = relative_error(left, same), relative_error(left, valid)
    return Measured("1 on all sides", "0 before, 1 after", *made)


@difference(
    "Pooling and resizing",
    "A window that does not fit the end: cut off, or `ceil_mode`",
    "`padding='valid'` is PyTorch's default; Keras has no `ceil_mode`, pad the end",
    "pool-padding",
)
def pool_ceil() -> Measured:
    x = draw(2, 7, 7, 4)
    left = by_torch(nn.MaxPool2d(2, ceil_mode=True), x)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    valid = by_keras(layers.MaxPooling2D(2, dtype="float64"), padded)
    cut = by_keras(layers.MaxPooling2D(2, dtype="float64"), x)
    apart = 1.0 if cut.shape != left.shape else relative_error(left, cut)
    return Measured(
        f"ceil_mode={argument(nn.MaxPool2d, 'ceil_mode')}",
        "padding='valid'",
        apart,
        relative_error(left, valid),
    )


def resized(mode: str, keras_mode: str, **settings: Any) -> float:
    x = draw(2, 6, 6, 3).astype(np.float32)
    with torch.no_grad():
        left = F.interpolate(tensor(first(x)), size=(9, 9), mode=mode, **settings)
    right = ops.image.resize(ops.convert_to_tensor(x), (9, 9), keras_mode)
    return relative_error(np.moveaxis(left.numpy(), 1, -1), np.asarray(right))


@difference(
    "Pooling and resizing",
    "Bilinear resize with `align_corners=True`",
    "`align_corners=False` (the default of `F.interpolate`); Keras has no other",
    "upsample-mode",
    rest=1e-6,
)
def bilinear_corners() -> Measured:
    apart = resized("bilinear", "bilinear", align_corners=True)
    equal = resized("bilinear", "bilinear", align_corners=False)
    return Measured("align_corners=True", "half-pixel centres", apart, equal)


@difference(
    "Pooling and resizing",
    "Nearest resize: `nearest` rounds down, Keras takes the centre",
    "`mode='nearest-exact'`",
    "upsample-mode",
    rest=1e-6,
)
def nearest_resize() -> Measured:
    apart = resized("nearest", "nearest")
    equal = resized("nearest-exact", "nearest")
    return Measured("nearest", "nearest, of centres", apart, equal)


@difference(
    "Pooling and resizing",
    "Bicubic resize: the kernel's constant, -0.75 and -0.5",
    "no setting; resize on one side only",
    "upsample-mode",
    rest=1.0,
)
def bicubic_resize() -> Measured:
    apart = resized("bicubic", "bicubic", align_corners=False)
    return Measured("a = -0.75", "a = -0.5", apart, apart)
