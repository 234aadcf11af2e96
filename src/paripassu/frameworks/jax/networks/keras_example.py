"""Keras's "Simple MNIST convnet" in Flax."""

from typing import Any

from flax import nnx

from paripassu.frameworks.jax.lesson import flatten, max_pool


class Network(nnx.Module):  # type: ignore[misc]
    """34,826 parameters; ReLU after the pools, the same on fewer numbers."""

    def __init__(self, dropout1: float = 0.5, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", rngs=rngs)
        self.pool1 = max_pool
        self.relu1 = nnx.relu
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", rngs=rngs)
        self.pool2 = max_pool
        self.relu2 = nnx.relu
        self.flatten = flatten
        self.dropout1 = nnx.Dropout(dropout1, rngs=rngs)
        self.dense1 = nnx.Linear(5 * 5 * 64, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:  # (N, 28, 28, 1)
        """From images to logits."""
        x = self.relu1(self.pool1(self.conv1(x)))  # (N, 13, 13, 32)
        x = self.relu2(self.pool2(self.conv2(x)))  # (N, 5, 5, 64)
        x = self.dropout1(self.flatten(x))  # (N, 1600)
        return self.dense1(x)  # (N, 10)
