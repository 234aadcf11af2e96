"""Runs the PyTorch lesson for a record: see `paripassu.frameworks.Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from paripassu.core import augmentation, draws
from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.contract import EpochReport
from paripassu.frameworks.pytorch import _eager, lesson, recipes
from paripassu.frameworks.pytorch.weights import from_common, to_common

REPORT_EVERY = 10  # steps: reading a loss makes an accelerator wait


class Trainer:
    """One network, its optimizer and its schedule."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        _eager.without_compiler()
        torch.set_num_threads(threads)
        # Reduced precision inside float32 would make the twins unequal.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(recipe.seed)
        self._recipe = recipe
        cuda = device != "cpu" and torch.cuda.is_available()
        self.place: dict[str, Any] = {
            "device": "cuda" if cuda else "cpu",
            "dtype": getattr(torch, recipe.storage),
        }
        if device == "gpu" and not cuda:
            raise UserError(
                "PyTorch finds no GPU. Type --device cpu, or install a build "
                "of PyTorch for your GPU."
            )
        self.network = recipes.make_network(recipe).to(
            memory_format=torch.channels_last, **self.place
        )
        if not cuda:
            recipes.drop_by_bytes(self.network)
        if recipe.precision == "bfloat16":
            recipes.compute_in_bfloat16(self.network, self.place["device"])
        self.loss = recipes.make_loss(recipe)
        self.network.load_state_dict(from_common(recipe, dict(weights)))
        self._loaded: list[tuple[Split, lesson.Digits]] = []
        self.device = torch.cuda.get_device_name() if cuda else "cpu"
        self.versions = {"torch": str(torch.__version__)}
        self.settings = {
            "memory format": "channels last",
            "TF32": "off",
            "mode": "eager",
            "dropout": "PyTorch's" if cuda else "by bytes",
            "oneDNN": str(torch.backends.mkldnn.is_available()),
        }

    # Made when first asked for: who only asks the network has no use for them.

    @cached_property
    def _steps(self) -> tuple[Any, Any]:
        optimizer = recipes.make_optimizer(self.network, self._recipe)
        return optimizer, recipes.make_schedule(optimizer, self._recipe)

    @cached_property
    def optimizer(self) -> Any:
        """What takes the steps."""
        return self._steps[0]

    @cached_property
    def schedule(self) -> Any:
        """What sets the optimizer's rate."""
        return self._steps[1]

    def warm_up(self, training: Split) -> None:
        before = self.state()
        rows = np.arange(min(self._recipe.batch_size, len(training)))
        for _ in self.steps(self.to_digits(training), [rows, rows, rows]):
            pass
        self.load_state(before)

    def fed(
        self, training: Split, rows: list[npt.NDArray[np.int64]], epoch: int
    ) -> tuple[Any, Iterable[Any]]:
        """What the loop is given: data, and what to ask them for in turn."""
        if self._recipe.augmentation.is_none:
            return self.to_digits(training), rows
        changed = augmentation.batches(self._recipe, training, rows, epoch)
        return _AsTheyAre(self.place), changed

    def steps(self, data: Any, batches: Iterable[Any]) -> Iterator[Any]:
        """Train on batches of the data: the lesson's loop."""
        found: Iterator[Any] = lesson.train_epoch(
            self.network, self.loss, self.optimizer, data, batches
        )
        return found

    def train(
        self,
        training: Split,
        monitored: Split,
        *,
        first_epoch: int,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        digits = self.to_digits(training)
        self.to_digits(monitored)
        for epoch in range(first_epoch, self._recipe.epochs):
            learning_rate = self.schedule.get_last_lr()[0]
            start = time.perf_counter()
            rows = draws.batches(self._recipe, len(digits), epoch)
            loss, accuracy = self._train_epoch(
                *self.fed(training, rows, epoch), rows, on_step
            )
            trained = time.perf_counter()
            monitor_loss, monitor_accuracy = self.evaluate(monitored)
            evaluated = time.perf_counter()
            recipes.end_epoch(self.schedule, self._recipe, monitor_accuracy)
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
        data: Any,
        batches: Iterable[Any],
        rows: list[npt.NDArray[np.int64]],
        on_step: Callable[[int, float, float], None],
    ) -> tuple[float, float]:
        total_loss: Any = 0.0
        total_correct: Any = 0
        seen = 0
        results = enumerate(self.steps(data, batches), start=1)
        for step, (loss, correct) in results:
            if self._recipe.decay.unit == "step":
                self.schedule.step()
            size = len(rows[step - 1])
            seen += size
            total_loss += loss * size
            total_correct += correct
            if step % REPORT_EVERY == 0:
                on_step(
                    step, float(total_loss) / seen, int(total_correct) / seen
                )
        return float(total_loss) / seen, int(total_correct) / seen

    def evaluate(self, split: Split) -> tuple[float, float]:
        digits = self.to_digits(split)
        with self.averaged():
            return lesson.evaluate(self.network, self.loss, digits)

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        self.network.eval()
        with self.averaged(), torch.inference_mode():
            tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
            tensor = tensor.to(**self.place)
            classes = self._recipe.architecture.num_classes
            # One array for all: small ones kept between large ones would leave
            # holes in memory that nothing fits into.
            found = torch.empty(len(tensor), classes, **self.place)
            for part, out in zip(
                tensor.split(100), found.split(100), strict=True
            ):
                out.copy_(self.network(part))
        outputs: npt.NDArray[Any] = found.numpy(force=True)
        if self._recipe.output == "logits":
            return outputs
        return np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny))

    def weights(self) -> Arrays:
        with self.averaged():
            return self.own_weights()

    def own_weights(self) -> Arrays:
        """The weights that steps are taken from, and not their running mean."""
        return to_common(self._recipe, self.network.state_dict())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running means in the weights' place, where there are some."""
        optimizer: Any = vars(self).get("optimizer")  # if somebody asked for it
        kept = {}
        parameters = self.network.parameters() if optimizer else ()
        for parameter in parameters:
            mean = optimizer.state.get(parameter, {}).get("average")
            if mean is not None:
                kept[parameter] = parameter.data
                parameter.data = mean
        try:
            yield
        finally:
            for parameter, weight in kept.items():
                parameter.data = weight

    def state(self) -> Arrays:
        own = self.own_weights()
        state = {f"weights.{name}": array for name, array in own.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            for key, value in values.items():
                state[f"optimizer.{index}.{key}"] = _copy(value)
        counted = self.schedule.last_epoch
        state["schedule.counted"] = np.array(counted, np.int64)
        state["schedule.rate"] = np.array(self.schedule.get_last_lr())
        if self._recipe.decay.shape == "plateau":
            waited = self.schedule.best, self.schedule.num_bad_epochs
            state["schedule.plateau"] = np.array(waited, np.float64)
        state["generator.cpu"] = _copy(torch.get_rng_state())
        if self.place["device"] == "cuda":
            state["generator.cuda"] = _copy(torch.cuda.get_rng_state())
        return state

    def load_state(self, state: Given) -> None:
        weights = from_common(self._recipe, under("weights.", state))
        self.network.load_state_dict(weights)
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in under("optimizer.", state).items():
            index, key = name.split(".")
            slots.setdefault(int(index), {})[key] = torch.from_numpy(
                array.copy()
            )
        rates = state["schedule.rate"].tolist()
        groups = self.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        counted = {
            "last_epoch": int(state["schedule.counted"]),
            "_last_lr": rates,
        }
        if self._recipe.decay.shape == "plateau":
            best, waited = state["schedule.plateau"].tolist()
            counted |= {"best": best, "num_bad_epochs": int(waited)}
        self.schedule.load_state_dict(self.schedule.state_dict() | counted)
        torch.set_rng_state(torch.from_numpy(state["generator.cpu"].copy()))
        if "generator.cuda" in state:
            generator = torch.from_numpy(state["generator.cuda"].copy())
            torch.cuda.set_rng_state(generator)

    def peak_accelerator_bytes(self) -> int | None:
        if self.place["device"] != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated())

    def to_digits(self, split: Split) -> lesson.Digits:
        """A split on the device, put there once."""
        for known, digits in self._loaded:
            if known is split:
                return digits
        digits = lesson.Digits(split, **self.place)
        self._loaded.append((split, digits))
        return digits


class _AsTheyAre:
    """For the lesson's loop: whole batches, as PyTorch takes them."""

    def __init__(self, place: dict[str, Any]) -> None:
        self._place = place

    def __getitem__(self, some: Split) -> Any:
        return lesson.Digits(some, **self._place)[:]


def _copy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.numpy(force=True).copy()
    return array


def under(prefix: str, state: Given) -> Arrays:
    """The entries of `state` whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in state.items()
        if name.startswith(prefix)
    }
