"""Runs the JAX lesson for a record: see `paripassu.frameworks.Trainer`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from paripassu.core import augmentation, draws
from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.contract import EpochReport
from paripassu.frameworks.jax import lesson, recipes
from paripassu.frameworks.jax.weights import KEPT, from_common, to_common

REPORT_EVERY = 10  # steps: reading a loss makes Python wait for the device
Data = tuple[Any, Any, Any]  # pixels, levels and labels
AT_ONCE = 100  # images that are asked for their logits


class Trainer:
    """One network, its optimizer and its schedule."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        configure(threads, device)
        recipes.set_precision(recipe)
        self._recipe = recipe
        self.network = recipes.make_network(recipe)
        self.device = device_name()
        changed = {}
        if self.device == "cpu":
            changed = recipes.compute_on_cpu(self.network, recipe)
        if recipe.precision == "bfloat16":
            recipes.compute_in_bfloat16(self.network)
        nnx.update(self.network, from_common(recipe, weights))
        self.loss = recipes.make_loss(recipe)
        self.schedule = recipes.make_schedule(recipe)
        self._loaded: list[tuple[Split, Data]] = []
        self.versions = {x: version(x) for x in ("jax", "flax", "optax")}
        self.settings = {
            "memory format": "channels last",
            "TF32": "off",
            "mode": "jit, XLA",
            "dropout": "Flax's",
            "convolution": "XLA's",
            "pooling": "XLA's",
            **changed,
            "XLA": os.environ.get("XLA_FLAGS", "default flags"),
        }

    @cached_property
    def optimizer(self) -> Any:
        """What takes the steps; made when first asked for."""
        optimizer = recipes.make_optimizer(self.network, self._recipe)
        if self._recipe.decay.unit == "epoch":
            recipes.set_rate(optimizer, self.schedule(0))
        return optimizer

    def warm_up(self, training: Split) -> None:
        before = self.state()
        data = self.to_arrays(training)
        sizes = {len(x) for x in draws.batches(self._recipe, len(training), 0)}
        rows = [np.arange(size) for size in sorted(sizes) for _ in range(2)]
        batches = [(data, own) for own in rows]
        self._train_epoch(batches, len(rows), lambda *_: None)
        self.evaluate(training[:AT_ONCE])
        self._loaded.pop()
        self.load_state(before)

    def train(
        self,
        training: Split,
        monitored: Split,
        *,
        first_epoch: int,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        self.to_arrays(monitored)
        for epoch in range(first_epoch, self._recipe.epochs):
            if self._recipe.decay.unit == "epoch":
                recipes.set_rate(self.optimizer, self.schedule(epoch))
                learning_rate = float(recipes.rate_of(self.optimizer)[...])
            else:
                learning_rate = float(self.schedule(self.optimizer.step[...]))
            start = time.perf_counter()
            rows = draws.batches(self._recipe, len(training), epoch)
            batches = self.fed(training, rows, epoch)
            loss, accuracy = self._train_epoch(batches, len(rows), on_step)
            trained = time.perf_counter()
            monitor_loss, monitor_accuracy = self.evaluate(monitored)
            evaluated = time.perf_counter()
            recipes.end_epoch(self.schedule, monitor_accuracy)
            on_epoch(
                EpochReport(
                    epoch=epoch,
                    seconds=trained - start,
                    evaluation_seconds=evaluated - trained,
                    learning_rate=learning_rate,
                    training_loss=loss,
                    training_accuracy=accuracy,
                    monitor_loss=monitor_loss,
                    monitor_accuracy=monitor_accuracy,
                )
            )

    def _train_epoch(
        self,
        batches: Iterable[tuple[Data, Any]],
        steps: int,
        on_step: Callable[[int, float, float], None],
    ) -> tuple[float, float]:
        total_loss, total_correct, seen = 0.0, 0, 0
        unread: list[tuple[int, Any]] = []
        self.network.train()
        for step, (data, rows) in enumerate(batches, start=1):
            x, y = lesson.take(data, rows)
            found = lesson.train_step(
                self.network, self.loss, self.optimizer, x, y
            )
            unread.append((len(y), found))
            if step % REPORT_EVERY == 0 or step == steps:
                for size, (loss, correct) in unread:
                    seen += size
                    total_loss += float(loss) * size
                    total_correct += int(correct)
                unread = []
                on_step(step, total_loss / seen, total_correct / seen)
        return total_loss / seen, total_correct / seen

    def fed(
        self, training: Split, rows: list[npt.NDArray[np.int64]], epoch: int
    ) -> Iterator[tuple[Data, Any]]:
        """Of each batch, the data and the rows that `lesson.take` is given."""
        if self._recipe.augmentation.is_none:
            data = self.to_arrays(training)
            yield from ((data, own) for own in rows)
            return
        kind = self._recipe.storage
        for some in augmentation.batches(self._recipe, training, rows, epoch):
            yield lesson.to_arrays(some, kind), slice(None)

    def evaluate(self, split: Split) -> tuple[float, float]:
        data = self.to_arrays(split)
        with self.averaged():
            return lesson.evaluate(self.network, self.loss, data)

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        self.network.eval()
        parts = np.split(images, range(AT_ONCE, len(images), AT_ONCE))
        with self.averaged():
            outputs = np.concatenate([self._outputs(part) for part in parts])
        if self._recipe.output == "logits":
            return outputs
        return np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny))

    def _outputs(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """What leaves the network.

        Every new number of images is compiled anew: few are filled up to the
        next power of two.
        """
        count = len(images)
        size = min(AT_ONCE, 1 << (count - 1).bit_length()) if count else 1
        filled = np.zeros((size, *images.shape[1:]), self._recipe.storage)
        filled[:count] = images
        found = np.asarray(_answer(self.network, jnp.asarray(filled)))
        return found[:count].astype(self._recipe.storage)

    def weights(self) -> Arrays:
        with self.averaged():
            return self.own_weights()

    def own_weights(self) -> Arrays:
        """The weights that steps are taken from, and not their running mean."""
        return to_common(self._recipe, nnx.state(self.network, KEPT))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running means in the weights' place, where there are some."""
        means: dict[str, Any] = {}
        optimizer = vars(self).get("optimizer")  # not if nobody asked for it
        if self._recipe.average_decay and optimizer and optimizer.step[...]:
            for place, variable in variables_of(optimizer).items():
                _, own, name = place.rpartition(".average.")
                if own:
                    means[name] = variable
        weights = variables_of(self.network) if means else {}
        kept = {name: weights[name][...] for name in means}
        for name, mean in means.items():
            weights[name][...] = mean[...]
        try:
            yield
        finally:
            for name, weight in kept.items():
                weights[name][...] = weight

    def state(self) -> Arrays:
        own = self.own_weights()
        state = {f"weights.{name}": array for name, array in own.items()}
        for name, variable in variables_of(self.optimizer).items():
            state[f"optimizer.{name}"] = np.array(variable[...])
        for name, stream in self._generators().items():
            key = np.asarray(jax.random.key_data(stream.key[...]))
            counted = np.asarray(stream.count[...])
            state[f"generator.{name}"] = np.append(key, counted)
        if isinstance(self.schedule, recipes.Plateau):
            for name, value in self.schedule.state._asdict().items():
                state[f"schedule.{name}"] = np.array(value)
        return state

    def load_state(self, state: Given) -> None:
        weights = from_common(self._recipe, under("weights.", state))
        nnx.update(self.network, weights)
        kept = under("optimizer.", state)
        for name, variable in variables_of(self.optimizer).items():
            variable[...] = jnp.asarray(kept[name])
        for name, stream in self._generators().items():
            *key, counted = state[f"generator.{name}"]
            data = jnp.asarray(key, jnp.uint32)
            stream.key[...] = jax.random.wrap_key_data(data)
            stream.count[...] = jnp.asarray(counted, jnp.uint32)
        if isinstance(self.schedule, recipes.Plateau):
            seen = under("schedule.", state)
            values = {name: jnp.asarray(x) for name, x in seen.items()}
            self.schedule.state = self.schedule.state._replace(**values)

    def _generators(self) -> dict[str, Any]:
        """Of each dropout layer, the stream that its keys come from."""
        layers = vars(self.network).items()
        return {n: x.rngs for n, x in layers if isinstance(x, nnx.Dropout)}

    def peak_accelerator_bytes(self) -> int | None:
        if self.device == "cpu":
            return None
        return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])

    def to_arrays(self, split: Split) -> Data:
        """A split as the lesson takes it, made once."""
        for known, data in self._loaded:
            if known is split:
                return data
        data = lesson.to_arrays(split, self._recipe.storage)
        self._loaded.append((split, data))
        return data


@nnx.jit  # type: ignore[untyped-decorator]
def _answer(network: Any, images: Any) -> Any:
    return network(images)


def configure(threads: int, device: str) -> None:
    """Set what JAX allows to be set only before its first operation.

    Raises:
        UserError: a GPU is asked for, and there is none.
    """
    # XLA has no setting of its own for a CPU's threads; this one it reads.
    os.environ["NPROC"] = str(threads)
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if device == "gpu" and device_name() == "cpu":
        raise UserError(
            "JAX finds no GPU. Type --device cpu, or install a build of JAX "
            "for your GPU."
        )


def device_name() -> str:
    """What this process computes on: "cpu", or the name of a GPU."""
    device = jax.devices()[0]
    return "cpu" if device.platform == "cpu" else str(device.device_kind)


def variables_of(optimizer: Any) -> dict[str, Any]:
    """The variables of an optimizer by their place in it."""
    found = nnx.to_flat_state(nnx.state(optimizer))
    return {".".join(map(str, path)): variable for path, variable in found}


def under(prefix: str, state: Given) -> Arrays:
    """The entries of `state` whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in state.items()
        if name.startswith(prefix)
    }
