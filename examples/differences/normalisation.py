"""Normalisation: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import numpy as np
from keras import layers, ops
from shared import (
    IMAGE,
    Measured,
    argument,
    by_keras,
    by_torch,
    difference,
    first,
    tensor,
)
from torch import nn

from paripassu.core.layer_spec import relative_error


def normalised(epsilons: tuple[float, float], kind: str) -> float:
    x = 0.01 * IMAGE  # where epsilon matters
    if kind == "batch":
        left = nn.BatchNorm2d(4, eps=epsilons[0])
        right = layers.BatchNormalization(epsilon=epsilons[1], dtype="float64")
        right.build(x.shape)
        right.moving_variance.assign(np.full(4, 1e-4))
        left = left.double()
        left.running_var.fill_(1e-4)
        return relative_error(by_torch(left, x), by_keras(right, x))
    if kind == "layer":
        module = nn.LayerNorm(4, eps=epsilons[0]).double()
        with torch.no_grad():
            made = module(tensor(x)).numpy()
        layer = layers.LayerNormalization(epsilon=epsilons[1], dtype="float64")
        return relative_error(made, by_keras(layer, x))
    left = nn.GroupNorm(2, 4, eps=epsilons[0])
    layer = layers.GroupNormalization(2, epsilon=epsilons[1], dtype="float64")
    return relative_error(by_torch(left, x), by_keras(layer, x))


@difference(
    "Normalisation",
    "BatchNorm: epsilon",
    "`BatchNormalization(epsilon=1e-5)`",
    "epsilon",
)
def batch_norm_epsilon() -> Measured:
    one, two = argument(nn.BatchNorm2d, "eps"), layers.BatchNormalization().epsilon
    apart = normalised((one, two), "batch")
    return Measured(one, two, apart, normalised((one, one), "batch"))


def statistics(momentum: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Running means after a batch, and by how much variances are apart in ratio."""
    left = nn.BatchNorm2d(4).double().train()
    left(tensor(first(IMAGE)))
    right = layers.BatchNormalization(momentum=momentum, dtype="float64")
    right(ops.convert_to_tensor(IMAGE), training=True)
    mine = left.running_var.numpy() - 0.9
    theirs = np.asarray(right.moving_variance) - momentum
    return left.running_mean.numpy(), np.asarray(right.moving_mean), mine / theirs


@difference(
    "Normalisation",
    "BatchNorm: momentum, and what it is the share of (PyTorch: of the new value; "
    "Keras: of the old one)",
    "`momentum = 1 - PyTorch's`: `BatchNormalization(momentum=0.9)`",
    "momentum",
)
def batch_norm_momentum() -> Measured:
    one = argument(nn.BatchNorm2d, "momentum")
    two = layers.BatchNormalization().momentum
    apart = relative_error(*statistics(two)[:2])
    return Measured(one, two, apart, relative_error(*statistics(1 - one)[:2]))


@difference(
    "Normalisation",
    "BatchNorm: running variance, unbiased in PyTorch, biased in Keras",
    "no setting; multiply Keras's share of a batch by n / (n - 1), n = N · H · W",
)
def batch_norm_running_variance() -> Measured:
    count = IMAGE.size // IMAGE.shape[-1]
    ratio = statistics(0.9)[2]
    return Measured(
        "n - 1",
        "n",
        float(np.abs(ratio - 1).max()),
        relative_error(np.full(4, count / (count - 1)), ratio),
    )


@difference(
    "Normalisation",
    "LayerNorm: epsilon",
    "`LayerNormalization(epsilon=1e-5)`",
    "epsilon",
)
def layer_norm_epsilon() -> Measured:
    one, two = argument(nn.LayerNorm, "eps"), layers.LayerNormalization().epsilon
    apart = normalised((one, two), "layer")
    return Measured(one, two, apart, normalised((one, one), "layer"))


@difference(
    "Normalisation",
    "GroupNorm: epsilon",
    "`GroupNormalization(epsilon=1e-5)`",
    "epsilon",
)
def group_norm_epsilon() -> Measured:
    one, two = argument(nn.GroupNorm, "eps"), layers.GroupNormalization(2).epsilon
    apart = normalised((one, two), "group")
    return Measured(one, two, apart, normalised((one, one), "group"))


@difference(
    "Normalisation",
    "RMSNorm: epsilon; None is the float type's own eps",
    "the same `eps` and `epsilon` on both sides",
    "epsilon",
)
def rms_norm_epsilon() -> Measured:
    x = 0.001 * IMAGE
    made = []
    for epsilon in (argument(nn.RMSNorm, "eps"), 1e-6):
        module = nn.RMSNorm(4, eps=epsilon).double()
        layer = layers.RMSNormalization(dtype="float64")
        with torch.no_grad():
            made.append(relative_error(module(tensor(x)).numpy(), by_keras(layer, x)))
    return Measured(
        argument(nn.RMSNorm, "eps"), layers.RMSNormalization().epsilon, *made
    )
