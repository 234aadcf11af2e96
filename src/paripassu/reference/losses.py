"""What training makes small, its gradient, and the softmax before it, by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.recipe import Recipe

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]


def _shifted(logits: npt.NDArray[Any], axis: int) -> tuple[Floats, Floats]:
    """Logits in float64, less the largest, and the sum of their exponentials.

    A softmax is the same when a constant is taken from all logits of an image. The
    largest is taken, so no exponential exceeds 1 and none can overflow.
    """
    exact = logits.astype(np.float64)
    shifted = exact - exact.max(axis=axis, keepdims=True)
    return shifted, np.exp(shifted).sum(axis=axis, keepdims=True)


def softmax(logits: npt.NDArray[Any], axis: int = -1) -> Floats:
    """Probabilities: p[k] = exp(logits[k]) / sum over j of exp(logits[j]).

    Args:
        logits: of any shape and float type, or logarithms of probabilities.
        axis: that of the classes.
    """
    shifted, sums = _shifted(logits, axis)
    return np.asarray(np.exp(shifted) / sums)


def log_softmax(logits: npt.NDArray[Any], axis: int = -1) -> Floats:
    """Logarithms of `softmax`, where a probability may be too small to be written."""
    shifted, sums = _shifted(logits, axis)
    return np.asarray(shifted - np.log(sums))


def cross_entropy(
    logits: npt.NDArray[Any], labels: Labels, smoothing: float = 0.0
) -> tuple[Floats, Floats]:
    """Softmax cross-entropy: how surprising the right classes are, on average.

    With p = softmax(logits), and without smoothing:

    loss                = mean over n of -log(p[n, labels[n]])
    dloss/dlogits[n, k] = (p[n, k] - (1 if k == labels[n] else 0)) / N

    With it, each label is a distribution, (1 - smoothing) of the right class and
    smoothing / classes of every class, the right one too; q for short:

    loss                = mean over n of -sum over k of q[n, k] log(p[n, k])
    dloss/dlogits[n, k] = (p[n, k] - q[n, k]) / N

    Source of the smoothing: Szegedy et al. 2016 (arXiv:1512.00567), section 7; so in
    PyTorch, Keras and optax.

    Args:
        logits: `(N, classes)`, or logarithms of probabilities.
        labels: `(N,)`, integers from 0 to classes - 1.
        smoothing: from 0 to below 1.

    Returns:
        The loss, shape `()`, in nats, and its gradient, `(N, classes)`; both float64.
    """
    right = np.arange(len(labels)), labels  # an index: image, its class
    gradient = softmax(logits)
    gradient[right] -= 1 - smoothing
    surprise = -log_softmax(logits)
    loss = surprise[right].mean()
    if smoothing:
        gradient -= smoothing / logits.shape[1]
        loss = (1 - smoothing) * loss + smoothing * surprise.mean()
    return np.asarray(loss), gradient / len(labels)


def cross_entropy_of_probabilities(
    probabilities: Floats, labels: Labels
) -> tuple[Floats, Floats]:
    """Cross-entropy of what a softmax has already made probabilities.

    loss                       = mean over n of -log(p[n, labels[n]])
    dloss/dprobabilities[n, k] = -1 / (N p[n, k]) if k == labels[n] else 0

    Through the softmax this is the same as `cross_entropy` of the logits, until a
    probability is too small to be written.

    Args:
        probabilities: `(N, classes)`, float64, above 0.
        labels: `(N,)`, integers from 0 to classes - 1.

    Returns:
        The loss, shape `()`, in nats, and its gradient, `(N, classes)`.
    """
    right = np.arange(len(labels)), labels
    gradient = np.zeros_like(probabilities)
    gradient[right] = -1 / probabilities[right] / len(labels)
    return np.asarray(-np.log(probabilities[right]).mean()), gradient


Loss = Callable[[Floats, Labels], tuple[Floats, Floats]]
LOSSES: dict[str, Loss] = {
    "cross_entropy_on_logits": cross_entropy,
    "cross_entropy_on_probabilities": cross_entropy_of_probabilities,
}


def loss_of(recipe: Recipe) -> Loss:
    """The loss of a recipe."""
    if recipe.label_smoothing:
        return partial(cross_entropy, smoothing=recipe.label_smoothing)
    return LOSSES[recipe.loss]
