"""Numbers: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
import numpy as np
from keras import ops
from shared import Measured, difference, draw, tensor
from torch import nn

from paripassu.core.layer_spec import relative_error


@difference(
    "Numbers",
    "Standard deviation and variance: n - 1 in PyTorch, n in Keras",
    "`torch.std(x, correction=0)`",
)
def deviation() -> Measured:
    x = draw(20)
    right = np.asarray(ops.std(x))
    made = [tensor(x).std(correction=n).numpy() for n in (1, 0)]
    return Measured("n - 1", "n", *(relative_error(right, y) for y in made))


@difference(
    "Numbers",
    "Gradients clipped by norm: of all together, or of each weight",
    "`global_clipnorm`; PyTorch adds 1e-6 to the norm",
    rest=1e-5,
)
def clipping() -> Measured:
    gradients = [3 * draw(4, 4, seed=5), 0.5 * draw(4, seed=6)]
    weights = [
        nn.Parameter(torch.zeros(x.shape, dtype=torch.float64)) for x in gradients
    ]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = tensor(gradient.copy())
    nn.utils.clip_grad_norm_(weights, 1.0)
    left = np.concatenate([x.grad.numpy().ravel() for x in weights])
    found = []
    for settings in ({"clipnorm": 1.0}, {"global_clipnorm": 1.0}):
        optimizer = keras.optimizers.SGD(1.0, **settings)
        clipped = optimizer._clip_gradients(
            [ops.convert_to_tensor(x) for x in gradients]
        )
        right = np.concatenate([np.asarray(x).ravel() for x in clipped])
        found.append(relative_error(left, right))
    return Measured("all together", "clipnorm: each", *found)
