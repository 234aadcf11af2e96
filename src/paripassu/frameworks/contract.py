"""What a framework's folder holds: `MODULES`, and a protocol for each.

NumPy arrays go in and come out; nothing is inherited. Weights have canonical
names and layouts, `conv1.kernel` and `(h, w, in, out)`: see `core.layout`.
`images` are float32 `(N, h, w, c)`, normalised; `threads` is how many the
framework may use; `device` is "auto", "cpu" or "gpu".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paripassu.core.datasets import ImageData, Split
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given, TwinStep


@dataclass(frozen=True)
class EpochReport:
    """What a trainer tells after an epoch (counted from 0)."""

    epoch: int
    seconds: float
    evaluation_seconds: float
    learning_rate: float
    training_loss: float
    training_accuracy: float
    monitor_loss: float
    monitor_accuracy: float


class Trainer(Protocol):
    """A lesson under a harness: one network, built for one recipe."""

    device: str  # "cpu" or the accelerator's own name
    versions: dict[str, str]
    settings: dict[str, str]

    def warm_up(self, training: Split) -> None:
        """Run a few steps, so that compilation is over, and undo them."""

    def train(
        self,
        training: Split,
        monitored: Split,
        *,
        first_epoch: int,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        """Train to the recipe's last epoch.

        `on_step` gets, now and then, the number of steps finished in the epoch,
        and the mean loss and accuracy so far; `on_epoch` comes when training
        and evaluation of the epoch are over and the state is ready to be saved.
        """

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean loss per image and accuracy 0..1, dropout off."""

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """`(N, h, w, c)` in, `(N, classes)` out, dropout off."""

    def weights(self) -> Arrays:
        """The weights, canonical names and layout."""

    def state(self) -> Arrays:
        """All that training goes on from: weights, optimizer, generators."""

    def load_state(self, state: Given) -> None:
        """Go back to a `state()`."""

    def peak_accelerator_bytes(self) -> int | None:
        """The most accelerator memory held at once, where there is one."""


Saw = Callable[[npt.NDArray[Any], npt.NDArray[Any]], None]


class Twin(Protocol):
    """A lesson taken step by step, under given weights, batches and masks.

    It computes in the recipe's precision. Arrays have canonical names and
    layouts, channels last. All that a twin goes on from is in `state()`: it
    draws nothing itself.

    A step is the trainer's own: it runs the lesson's loop, loss and update for
    one batch, so that whatever is added there (losses of layers, constraints,
    clipping, averages) is proven. The twin only reads it, and puts the masks
    in dropout's place.
    """

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        """Layer -> what leaves it, dropout off, and the images as `input`."""

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """`(N, h, w, c)` in, `(N, classes)` out, as the lesson does it."""

    def begin_epoch(self, epoch: int) -> None:
        """Take the learning rate of an epoch, counted from 0 upward."""

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        """The learning rate of every step of the recipe, `(epochs * length,)`.

        As the lesson's schedule gives it, without training; the twin stays as
        it is.
        """

    def step(self, step: TwinStep) -> Arrays:
        """Train one step: `activation.<layer>`, `loss`, `gradient.<weight>`."""

    def advance(self, step: TwinStep) -> float:
        """Train one step, quickly: its loss."""

    def watched(self, saw: Saw) -> Trainer:
        """The twin's trainer, which from now on tells `saw` what it is fed.

        That is every batch as it reaches network and loss in training: images
        `(N, h, w, c)` and labels `(N,)`, in any number type. Where a rate is 0,
        nothing is dropped.
        """

    def state(self) -> Arrays:
        """`weight.<weight>` and the optimizer's `slot.<weight>.<name>`."""

    def load_state(self, state: Given, *, epoch: int, step: int) -> None:
        """Go to the state before a step, counted from 0 over all epochs.

        The state may come from another framework, in another precision.
        """


class Notebook(Protocol):
    """A training as a tutorial of the framework writes it, to compare with."""

    def epoch(self) -> float:
        """Train once on all images: seconds."""

    def accuracy(self) -> float:
        """The share of right answers on the test images, 0..1, not timed."""


class MakeTrainer(Protocol):
    """Builds the network of a recipe from given weights."""

    def __call__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> Trainer:
        """A trainer that has seen no image."""


class MakeTwin(Protocol):
    """Builds the network of a recipe from given weights, step by step."""

    def __call__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> Twin:
        """A twin before the first step."""


class MakeNotebook(Protocol):
    """Builds the network of a tutorial."""

    def __call__(self, raw: ImageData, *, threads: int, seed: int) -> Notebook:
        """A notebook that has trained on nothing."""


class TrainerModule(Protocol):
    """`trainer.py`."""

    Trainer: MakeTrainer


class TwinModule(Protocol):
    """`twin.py`."""

    Twin: MakeTwin


class FilesModule(Protocol):
    """`files.py`: the framework's own files, which open without our code."""

    def write(
        self,
        recipe: Recipe,
        weights: Given,
        path: Path,
        notes: Mapping[str, str],
    ) -> None:
        """Write a network for use, with notes that `read` gives back."""

    def read(self, path: Path) -> tuple[Arrays, dict[str, str]]:
        """The arrays as the file has them, and the notes, or none.

        Nothing in the file is executed. Raises `UserError` for a damaged one.
        """

    def to_canonical(self, recipe: Recipe, arrays: Given) -> Arrays:
        """What `read` has read, as the recipe's weights; else `UserError`."""


class FaultsModule(Protocol):
    """`faults.py`: the seeded faults of `frameworks.faults` that are native."""

    NATIVE: Mapping[str, Callable[[Twin], None]]


class BenchmarkModule(Protocol):
    """`benchmark.py`: the same work in other styles, timed."""

    Notebook: MakeNotebook

    def device(self) -> str:
        """Where it computes: "cpu" or the accelerator's own name."""

    def matrix_product(
        self, size: int, recipe: Recipe, threads: int
    ) -> list[float]:
        """Seconds of some products of square matrices: the ceiling."""

    def kernels(self, recipe: Recipe, threads: int) -> float:
        """Seconds of the layers' own kernels in one step, nothing between."""

    def lesson_epoch(
        self, trainer: Trainer, recipe: Recipe, training: Split
    ) -> float:
        """Seconds of one epoch of the lesson's loop, with nothing around it."""


class ScriptModule(Protocol):
    """`script.py`: it needs nothing of the framework, which may be missing."""

    def code(self, recipe: Recipe) -> str:
        """The recipe as a script of the framework's own, without ours.

        It reads `--data`, an `.npz` as Keras keeps MNIST, prints the loss of
        each epoch and the test accuracy, and saves the network to `--out`.
        Raises `UserError` for what it cannot say; it leaves nothing out.
        """


@dataclass(frozen=True)
class Module:
    """A module of a framework's folder.

    Attributes:
        about: what it is for.
        offers: what the other rooms use of it; None: nothing by name.
        required: of every framework that trains.
    """

    about: str
    offers: type | None = None
    required: bool = True


MODULES = {
    "lesson": Module("the lesson, a script of cells with headings, to be read"),
    "trainer": Module("the lesson under a harness", TrainerModule),
    "twin": Module("the lesson step by step, for proofs", TwinModule),
    "files": Module("its own files", FilesModule),
    "trial": Module(
        "a script: MODEL RECIPE IMAGES.npy OUT.npy, as a user would"
    ),
    "networks": Module("a module for each network, `-` written `_`"),
    "faults": Module("seeded faults in its own words", FaultsModule),
    "benchmark": Module("the same work in other styles", BenchmarkModule),
    "script": Module("a recipe without us", ScriptModule, required=False),
    "layers": Module("any network of a recipe's [[layers]]", required=False),
    "recipes": Module("what a recipe may ask for", required=False),
    "weights": Module("canonical weights, to and from its own", required=False),
    "optimizers": Module("forms of optimizers it has not", required=False),
}
