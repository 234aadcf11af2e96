"""Runs the TensorFlow lesson for a record: `paripassu.frameworks.Trainer`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from paripassu.core.augmentation import InOrder
from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.contract import EpochReport
from paripassu.frameworks.tensorflow import lesson, optimizers, recipes
from paripassu.frameworks.tensorflow.weights import from_common, to_common


class Trainer:
    """One network, compiled."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        _configure(threads, device)
        keras.utils.set_random_seed(recipe.seed)
        recipes.set_precision(recipe)
        self._recipe = recipe
        self.network = recipes.make_network(recipe)
        gpus = tf.config.get_visible_devices("GPU")
        if not gpus:
            recipes.drop_by_bytes(self.network)
        self.loss = recipes.make_loss(recipe)
        from_common(recipe, self.network, dict(weights))
        optimizer = recipes.make_optimizer(recipe)
        lesson.compile_network(self.network, optimizer, self.loss)
        self.network.optimizer.build(self.network.trainable_variables)
        self._schedule = recipes.make_schedule(recipe)
        self.device = device_name()
        self.versions = {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
        self.settings = {
            "memory format": "channels last",
            "TF32": "off",
            "mode": "graph, XLA" if self.network.jit_compile else "graph",
            "dropout": "Keras's" if gpus else "by bytes",
            "oneDNN": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        }

    def warm_up(self, training: Split) -> None:
        before = self.state()
        few = training[: self._recipe.batch_size]
        lesson.train(
            self.network,
            self._recipe.changed(epochs=2),
            few,
            lesson.to_arrays(few),
            recipes.make_schedule(self._recipe),
        )
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
        lesson.train(
            self.network,
            self._recipe,
            self.fed(training, first_epoch),
            lesson.to_arrays(monitored),
            [
                *self._schedule,
                optimizers.EvaluateAverage(),
                _Reporter(on_step, on_epoch),
            ],
            first_epoch,
        )

    def fed(self, training: Split, first_epoch: int = 0) -> Any:
        """What `fit` takes its batches from."""
        if self._recipe.augmentation.is_none:
            return training
        return InOrder(self._recipe, training, first_epoch)

    def evaluate(self, split: Split) -> tuple[float, float]:
        arrays = lesson.to_arrays(split)
        with optimizers.averaged(self.network):
            loss, accuracy = lesson.evaluate(self.network, *arrays)
        return float(loss), round(float(accuracy), 6)  # a float32 fraction

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        arrays = images.astype(keras.config.floatx(), copy=False)
        starts = range(0, len(arrays), 100)
        predict = self.network.predict_on_batch
        with optimizers.averaged(self.network):
            outputs = np.concatenate(
                [predict(arrays[i : i + 100]) for i in starts]
            )
        outputs = outputs.astype(keras.config.floatx(), copy=False)
        if self._recipe.output == "logits":
            return outputs
        return np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny))

    def weights(self) -> Arrays:
        with optimizers.averaged(self.network):
            return self.own_weights()

    def own_weights(self) -> Arrays:
        """The weights that steps are taken from, and not their running mean."""
        return to_common(self._recipe, self.network)

    def _variables(self) -> dict[str, Any]:
        """Weights, dropout generators and optimizer slots, by place and name.

        Paths would not do: they count how many models a process has made.
        """
        slots = enumerate(self.network.optimizer.variables)
        return {
            f"network.{i}.{x.name}": x
            for i, x in enumerate(self.network.variables)
        } | {f"optimizer.{i}": x for i, x in slots}

    def _callbacks(self) -> dict[str, recipes.Plateau]:
        """Those that keep what they have seen, by place."""
        return {
            f"schedule.{i}": x
            for i, x in enumerate(self._schedule)
            if isinstance(x, recipes.Plateau)
        }

    def state(self) -> Arrays:
        return {
            name: keras.ops.convert_to_numpy(variable).copy()
            for name, variable in self._variables().items()
        } | {name: x.seen for name, x in self._callbacks().items()}

    def load_state(self, state: Given) -> None:
        for name, variable in self._variables().items():
            variable.assign(state[name])
        for name, callback in self._callbacks().items():
            callback.seen = state[name]

    def peak_accelerator_bytes(self) -> int | None:
        if self.device == "cpu":
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def device_name() -> str:
    """What this process computes on: "cpu", or the name of a GPU."""
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "cpu"
    details = tf.config.experimental.get_device_details(gpus[0])
    return str(details.get("device_name", "GPU"))


def set_threads(threads: int) -> None:
    """Set how many threads TensorFlow may use, before its first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _configure(threads: int, device: str) -> None:
    """Set what TensorFlow allows to be set only before its first operation."""
    set_threads(threads)
    # Reduced precision inside float32 would make the twins unequal.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise UserError(
            "TensorFlow finds no GPU. Type --device cpu, or install a build of "
            "TensorFlow for your GPU."
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Times training and validation apart, and passes on what `fit` logs."""

    def __init__(
        self,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        super().__init__()
        self._on_step = on_step
        self._on_epoch = on_epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        rate = self.model.optimizer.learning_rate
        self._learning_rate = float(keras.ops.convert_to_numpy(rate))
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        # Keras counts the last steps in a row as if they were as many.
        step = min(batch + 1, self.params["steps"])
        self._on_step(step, float(logs["loss"]), float(logs["accuracy"]))
        # Not when validation begins: before that Keras makes its data ready.
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        evaluated = time.perf_counter()
        self._on_epoch(
            EpochReport(
                epoch=epoch,
                seconds=self._trained - self._start,
                evaluation_seconds=evaluated - self._trained,
                learning_rate=self._learning_rate,
                training_loss=float(logs["loss"]),
                training_accuracy=round(float(logs["accuracy"]), 6),
                monitor_loss=float(logs["val_loss"]),
                monitor_accuracy=round(float(logs["val_accuracy"]), 6),
            )
        )
