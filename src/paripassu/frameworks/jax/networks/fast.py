"""The network of "train_mnist_fast" in Flax."""

from typing import Any

from flax import nnx

from paripassu.frameworks.jax.lesson import flatten, max_pool


class Network(nnx.Module):  # type: ignore[misc]
    """215,194 parameters, no dropout; each ReLU after its pool."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 24, (5, 5), padding="VALID", rngs=rngs)
        self.pool1 = max_pool
        self.relu1 = nnx.relu
        self.conv2 = nnx.Conv(24, 32, (3, 3), padding="VALID", rngs=rngs)
        self.pool2 = max_pool
        self.relu2 = nnx.relu
        self.flatten = flatten
        self.dense1 = nnx.Linear(5 * 5 * 32, 256, rngs=rngs)
        self.relu3 = nnx.relu
        self.dense2 = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:  # (N, 28, 28, 1)
        """From images to logits."""
        x = self.relu1(self.pool1(self.conv1(x)))  # (N, 12, 12, 24)
        x = self.relu2(self.pool2(self.conv2(x)))  # (N, 5, 5, 32)
        x = self.relu3(self.dense1(self.flatten(x)))  # (N, 256)
        return self.dense2(x)  # (N, 10)
