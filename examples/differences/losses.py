"""Losses: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import keras
import numpy as np
import torch.nn.functional as F
from shared import Measured, argument, difference, draw, tensor

from paripassu.core.layer_spec import relative_error

LABELS = np.array([0, 2, 1, 2])
LOGITS = 3 * draw(4, 3, seed=3)


@difference(
    "Losses",
    "Cross-entropy: of logits, or of probabilities",
    "`SparseCategoricalCrossentropy(from_logits=True)`",
)
def cross_entropy_logits() -> Measured:
    left = F.cross_entropy(tensor(LOGITS), tensor(LABELS)).numpy()
    loss = keras.losses.SparseCategoricalCrossentropy
    right = [
        np.asarray(loss(from_logits=x, dtype="float64")(LABELS, LOGITS))
        for x in (argument(loss, "from_logits"), True)
    ]
    default = f"from_logits={argument(loss, 'from_logits')}"
    return Measured("logits", default, *(relative_error(left, x) for x in right))


@difference(
    "Losses",
    "Class weights: PyTorch divides by the sum of weights, Keras by the batch",
    "`F.cross_entropy(..., weight=w, reduction='sum') / N`",
)
def class_weights() -> Measured:
    weights = np.array([1.0, 2.0, 5.0])
    given = tensor(LOGITS), tensor(LABELS), tensor(weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    right = np.asarray(loss(LABELS, LOGITS, sample_weight=weights[LABELS]))
    mean = F.cross_entropy(*given).numpy()
    total = F.cross_entropy(*given, reduction="sum").numpy() / len(LABELS)
    made = relative_error(right, mean), relative_error(right, total)
    return Measured("sum of weights", "number of images", *made)


@difference(
    "Losses",
    "Kullback-Leibler divergence: `reduction='mean'` divides by all values",
    "`F.kl_div(..., reduction='batchmean')`",
)
def kl_divergence() -> Measured:
    one, two = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (LOGITS, -LOGITS))
    right = np.asarray(keras.losses.KLDivergence(dtype="float64")(one, two))
    found = [
        relative_error(
            right,
            F.kl_div(tensor(np.log(two)), tensor(one), reduction=x).numpy(),
        )
        for x in ("mean", "batchmean")
    ]
    return Measured("all values", "batch", *found)


@difference(
    "Losses",
    "Binary cross-entropy of probabilities of 0 and 1: where the logarithm is cut",
    "logits: `binary_cross_entropy_with_logits`, `from_logits=True`",
)
def binary_cross_entropy_cut() -> Measured:
    labels, sure = np.array([[1.0], [0.0]]), np.array([[0.0], [0.3]])
    loss = keras.losses.BinaryCrossentropy
    left = F.binary_cross_entropy(tensor(sure), tensor(labels)).numpy()
    right = np.asarray(loss(dtype="float64")(labels, sure))
    logits = np.array([[-40.0], [-0.8]])
    same = F.binary_cross_entropy_with_logits(tensor(logits), tensor(labels)).numpy()
    other = np.asarray(loss(from_logits=True, dtype="float64")(labels, logits))
    return Measured(
        "log at least -100",
        f"probability at least {keras.config.epsilon():g}",
        relative_error(left, right),
        relative_error(same, other),
    )
