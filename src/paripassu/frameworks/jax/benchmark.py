"""What `paripassu bench` times in JAX."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from paripassu.core import datasets, draws
from paripassu.core.architecture import IMAGES
from paripassu.core.recipe import Recipe
from paripassu.frameworks.jax import lesson, recipes
from paripassu.frameworks.jax.trainer import Trainer, configure, device_name

WARM_UP = 1.0  # seconds of products before those that count
PRODUCTS = 20
TURNS = 40  # of each layer's kernels; the first half is not counted


def device() -> str:
    """What this process computes on: "cpu", or the name of a GPU."""
    return device_name()


def matrix_product(size: int, recipe: Recipe, threads: int) -> list[float]:
    """Seconds of each of twenty products of two square matrices, warmed up."""
    configure(threads, "auto")
    recipes.set_precision(recipe)
    left, right = (
        jax.random.uniform(jax.random.key(x), (size, size)).astype(
            recipe.precision
        )
        for x in range(2)
    )
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()
    end = time.perf_counter() + WARM_UP
    seconds: list[float] = []
    while time.perf_counter() < end or len(seconds) < PRODUCTS:
        start = time.perf_counter()
        multiply(left, right).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return seconds[-PRODUCTS:]


def kernels(recipe: Recipe, threads: int) -> float:
    """Seconds of a step's convolutions and matrix products, and nothing else.

    Each layer with weights runs alone, forward and backward as in training, on
    what a batch of random images gives it; the sum of their medians.
    """
    configure(threads, "auto")
    recipes.set_precision(recipe)
    network = recipes.make_network(recipe)
    if device_name() == "cpu":
        recipes.compute_on_cpu(network, recipe)
    if recipe.precision == "bfloat16":
        recipes.compute_in_bfloat16(network)
    network.eval()
    shape = recipe.batch_size, *recipe.architecture.input_shape
    x = jax.random.uniform(jax.random.key(0), shape)
    x = x.astype(recipe.storage)
    total = 0.0
    given = {IMAGES: x}
    for layer in recipe.architecture.layers:
        own = getattr(network, layer.name)
        inputs = [given[source] for source in layer.inputs]
        if layer.weights and not layer.kind.endswith("_norm"):
            total += _layer_seconds(own, inputs[0], is_first=total == 0.0)
        given[layer.name] = own(*inputs)
    return total


def _layer_seconds(layer: Any, x: Any, *, is_first: bool) -> float:
    graph, weights = nnx.split(layer)
    slope = jnp.ones_like(layer(x))

    @jax.jit  # type: ignore[untyped-decorator]
    def gradients(weights: Any, x: Any) -> Any:
        def forward(weights: Any, x: Any) -> Any:
            return nnx.merge(graph, weights)(x)

        y, back = jax.vjp(forward, weights, x)
        to_weights, to_x = back(slope)
        # No gradient goes to the images. What is not returned is not computed.
        return (y, to_weights) if is_first else (y, to_weights, to_x)

    seconds: list[float] = []
    for _ in range(TURNS):
        start = time.perf_counter()
        jax.block_until_ready(gradients(weights, x))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[TURNS // 2 :])


def lesson_epoch(
    trainer: Trainer, recipe: Recipe, training: datasets.Split
) -> float:
    """Seconds of one epoch of the lesson's loop, with nothing around it."""
    order = trainer.fed(training, draws.batches(recipe, len(training), 0), 0)
    trainer.network.train()
    start = time.perf_counter()
    for data, rows in order:
        x, y = lesson.take(data, rows)
        last = lesson.train_step(
            trainer.network, trainer.loss, trainer.optimizer, x, y
        )
    jax.block_until_ready(last)
    return time.perf_counter() - start


class Notebook:
    """The article's training in the style of Flax's MNIST tutorial.

    Written by us: normalised images in NumPy, batches taken from them, a
    compiled step, the article's network with its softmax, its optimizer and
    its schedule. Shuffled.
    """

    def __init__(
        self, raw: datasets.ImageData, *, threads: int, seed: int
    ) -> None:
        configure(threads, "auto")
        prepared = datasets.prepare(raw, mean=0.1307, std=0.3081)
        self._training = _arrays(prepared.training)
        self._test = _arrays(prepared.test)
        self._network = _Network(nnx.Rngs(seed))
        length = -(-len(self._training[0]) // 64)
        schedule = optax.exponential_decay(1.0, length, 0.7, staircase=True)
        adadelta = optax.adadelta(schedule)
        self._optimizer = nnx.Optimizer(self._network, adadelta, wrt=nnx.Param)
        self._random = np.random.default_rng(seed)
        self._network.train()
        for size in (64, len(self._training[0]) % 64):  # is compiled, not timed
            if size:
                _compiled(self._network, self._optimizer, size)

    def epoch(self) -> float:
        """Train once on all images: seconds."""
        images, labels = self._training
        self._network.train()
        start = time.perf_counter()
        order = self._random.permutation(len(images))
        for first in range(0, len(images), 64):
            rows = order[first : first + 64]
            loss = _step(
                self._network, self._optimizer, images[rows], labels[rows]
            )
        loss.block_until_ready()
        return time.perf_counter() - start

    def accuracy(self) -> float:
        """The share of right answers on the test images, not timed."""
        images, labels = self._test
        self._network.eval()
        right = 0
        for first in range(0, len(images), 1000):
            some = slice(first, first + 1000)
            answers = np.asarray(_answers(self._network, images[some]))
            right += int((answers == labels[some]).sum())
        return right / len(images)


def _arrays(split: datasets.Split) -> tuple[Any, Any]:
    return split.images, split.labels.astype(np.int32)


class _Network(nnx.Module):  # type: ignore[misc]
    """The network as the article's notebooks have it, softmax included."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", rngs=rngs)
        self.dropout1 = nnx.Dropout(0.25, rngs=rngs)
        self.linear1 = nnx.Linear(9216, 128, rngs=rngs)
        self.dropout2 = nnx.Dropout(0.5, rngs=rngs)
        self.linear2 = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """`(N, 28, 28, 1)` in, probabilities `(N, 10)` out."""
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = self.dropout1(x).reshape(len(x), -1)
        x = self.dropout2(nnx.relu(self.linear1(x)))
        return nnx.softmax(self.linear2(x))


@nnx.jit  # type: ignore[untyped-decorator]
def _step(network: Any, optimizer: Any, images: Any, labels: Any) -> Any:
    def loss_of(network: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(
            network(images), labels
        )
        return losses.mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


@nnx.jit  # type: ignore[untyped-decorator]
def _answers(network: Any, images: Any) -> Any:
    return network(images).argmax(1)


def _compiled(network: Any, optimizer: Any, size: int) -> None:
    """Have a step compiled for a number of images, and leave no trace of it."""
    images = np.zeros((size, 28, 28, 1), np.float32)
    labels = np.zeros(size, np.int32)
    undo: list[Callable[[], None]] = []
    for module in (network, optimizer):
        before = jax.tree.map(jnp.copy, nnx.state(module))
        undo.append(lambda m=module, b=before: nnx.update(m, b))  # type: ignore[misc]
    _step(network, optimizer, images, labels)
    for put_back in undo:
        put_back()
