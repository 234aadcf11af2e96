"""Initialisers: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
import numpy as np
from keras import layers
from shared import Measured, argument, difference, spread
from torch import nn


@difference(
    "Initialisers",
    "Dense and convolution kernels: Kaiming with a = √5 is ±1/√fan_in; Keras has "
    "Glorot's",
    "`kernel_initializer=keras.initializers.VarianceScaling(1/3, 'fan_in', 'uniform')`",
    rest=0.05,
)
def kernel_start() -> Measured:
    torch.manual_seed(0)
    left = spread(nn.Linear(400, 100).weight.detach())
    scaled = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=1)
    found = []
    for start in (argument(layers.Dense, "kernel_initializer"), scaled):
        keras.utils.set_random_seed(0)
        layer = layers.Dense(100, kernel_initializer=start)
        layer.build((None, 400))
        found.append(abs(spread(layer.kernel) - left) / left)
    default = argument(layers.Dense, "kernel_initializer")
    return Measured("uniform, ±1/√fan_in", default, *found)


@difference(
    "Initialisers",
    "Biases: ±1/√fan_in in PyTorch, zero in Keras",
    "`bias_initializer=keras.initializers.RandomUniform(-a, a)`, a = 1/√fan_in",
    rest=0.2,
)
def bias_start() -> Measured:
    torch.manual_seed(0)
    left = spread(nn.Linear(100, 2000).bias.detach())
    uniform = keras.initializers.RandomUniform(-0.1, 0.1, seed=1)
    found = []
    for start in (argument(layers.Dense, "bias_initializer"), uniform):
        layer = layers.Dense(2000, bias_initializer=start)
        layer.build((None, 100))
        found.append(abs(spread(layer.bias) - left) / left)
    default = argument(layers.Dense, "bias_initializer")
    return Measured("uniform, ±1/√fan_in", default, *found)


@difference(
    "Initialisers",
    "A normal initialiser: Keras's `HeNormal` and `GlorotNormal` are cut at two "
    "deviations",
    "`keras.initializers.VarianceScaling(2.0, 'fan_in', 'untruncated_normal')`",
    rest=1.0,
)
def normal_cut() -> Measured:
    torch.manual_seed(0)
    values = nn.init.kaiming_normal_(torch.empty(500, 200)).numpy()
    left = float(np.abs(values).max() / values.std())
    scaled = keras.initializers.VarianceScaling
    found = [
        np.asarray(x((200, 500)))
        for x in (
            keras.initializers.HeNormal(seed=1),
            scaled(2.0, "fan_in", "untruncated_normal", seed=1),
        )
    ]
    most = [float(np.abs(x).max() / x.std()) for x in found]
    return Measured(
        f"largest of {left:.1f} deviations",
        f"largest of {most[0]:.1f}",
        *(abs(x - left) / left for x in most),
    )
