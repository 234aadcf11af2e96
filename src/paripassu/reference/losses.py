"""What training makes small, and its gradient, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def cross_entropy(logits: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Softmax cross-entropy: how surprising the right classes are, on average.

    With softmax p[n, k] = exp(logits[n, k]) / sum over j of exp(logits[n, j]):

    loss                = mean over n of -log(p[n, labels[n]])
    dloss/dlogits[n, k] = (p[n, k] - (1 if k == labels[n] else 0)) / N

    A softmax is the same when a constant is taken from all logits of an image.
    The largest is taken, so no exponential exceeds 1 and none can overflow.

    Args:
        logits: `(N, classes)`, float64.
        labels: `(N,)`, int64, 0 to classes - 1.

    Returns:
        The loss, shape `()`, in nats, and its gradient, `(N, classes)`.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)  # (N, 1), from 1 to classes
    right = np.arange(len(labels)), labels  # an index: image, its class
    loss = (np.log(sums[:, 0]) - shifted[right]).mean()
    gradient = exponentials / sums
    gradient[right] -= 1
    return np.asarray(loss), gradient / len(labels)


def of_probabilities(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Cross-entropy of what a softmax has already made probabilities.

    loss                       = mean over n of -log(p[n, labels[n]])
    dloss/dprobabilities[n, k] = -1 / (N p[n, k]) if k == labels[n] else 0

    Through the softmax this is the same as `cross_entropy` of the logits,
    until a probability is too small to be written.

    Args:
        probabilities: `(N, classes)`, float64, above 0.
        labels: `(N,)`, int64, 0 to classes - 1.

    Returns:
        The loss, shape `()`, in nats, and its gradient, `(N, classes)`.
    """
    right = np.arange(len(labels)), labels
    gradient = np.zeros_like(probabilities)
    gradient[right] = -1 / probabilities[right] / len(labels)
    return np.asarray(-np.log(probabilities[right]).mean()), gradient


LOSSES: dict[str, Callable[[Floats, Labels], tuple[Floats, Floats]]] = {
    "cross_entropy_on_logits": cross_entropy,
    "cross_entropy_on_probabilities": of_probabilities,
}
