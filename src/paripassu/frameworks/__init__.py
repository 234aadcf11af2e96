"""The contract with a framework, and which there are; imports none of them.

A framework is a folder here with three files: `lesson.py`, to be read;
`trainer.py`, which runs the lesson for a record; `twin.py`, which takes it step
by step for the proof. NumPy arrays go in and come out; nothing is inherited.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import Recipe

Arrays = dict[str, npt.NDArray[Any]]


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


@dataclass(frozen=True)
class TwinStep:
    """What a twin is given for one training step."""

    images: npt.NDArray[np.float32]  # (N, 28, 28), normalised
    labels: npt.NDArray[np.int64]  # (N,)
    masks: Mapping[str, npt.NDArray[np.bool_]]  # dropout layer -> what it keeps


class Trainer(Protocol):
    """A lesson under a harness: one network, built for one recipe.

    Made by `trainer.Trainer(recipe, weights=..., threads=..., device=...)`;
    `device` is "auto", "cpu" or "gpu".
    """

    MODEL_FILE: str  # the framework's own format

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
        """`(N, 28, 28)` in, `(N, classes)` out, dropout off."""

    def weights(self) -> Arrays:
        """The weights, canonical names and layout."""

    def state(self) -> Arrays:
        """All that training goes on from: weights, optimizer, generators."""

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go back to a `state()`."""

    def save(self, path: Path) -> None:
        """Write the framework's own format."""

    def load(self, path: Path) -> None:
        """Read the framework's own format back."""

    def peak_accelerator_bytes(self) -> int | None:
        """The most accelerator memory held at once, where there is one."""


class Twin(Protocol):
    """A lesson taken step by step, under given weights, batches and masks.

    Made by `twin.Twin(recipe, weights=..., threads=..., device=...)`, in the
    recipe's precision. Arrays have canonical names and layouts, channels last.
    All that a twin goes on from is in `state()`: it draws nothing itself.
    """

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        """Layer -> what leaves it, dropout off, and the images as `input`."""

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """`(N, 28, 28)` in, `(N, classes)` out, as the lesson does it."""

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

    def state(self) -> Arrays:
        """`weight.<weight>` and the optimizer's `slot.<weight>.<name>`."""

    def load_state(
        self,
        state: Mapping[str, npt.NDArray[Any]],
        *,
        epoch: int,
        step: int,
    ) -> None:
        """Go to the state before a step, counted from 0 over all epochs.

        The state may come from another framework, in another precision.
        """


@dataclass(frozen=True)
class Framework:
    """What can be said of a framework without importing it."""

    name: str  # the folder
    title: str
    module: str  # what is imported
    distributions: tuple[str, ...]  # whose version counts, whichever is there

    @property
    def folder(self) -> Path:
        """Where its three files are."""
        return Path(__file__).parent / self.name

    @property
    def version(self) -> str | None:
        """The installed version, None if there is none."""
        for distribution in self.distributions:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    @property
    def problem(self) -> str | None:
        """Why it can't be used, and what to type; None if it can."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return (
            f"{self.title} is not installed. "
            f"Type: pip install 'paripassu[{self.name}]'"
        )

    @property
    def networks(self) -> set[str]:
        """The networks that it has; the referee walks any."""
        if not (self.folder / "lesson.py").exists():
            return set(NETWORKS)
        files = (self.folder / "networks").glob("[a-z]*.py")
        return {"article", *(file.stem.replace("_", "-") for file in files)}

    def check(self, recipe: Recipe, *, trains: bool = True) -> None:
        """Check that it is there and can run a recipe, without importing it.

        Args:
            recipe: any.
            trains: whether a training is wanted; the referee only proves.

        Raises:
            UserError: it is not installed, does not have the recipe's network,
                or does not train.
        """
        if problem := self.problem:
            raise UserError(problem)
        if trains and not (self.folder / "trainer.py").exists():
            raise UserError(
                f"{self.title} is the referee of proofs and trains nothing. "
                f"Expected one of {', '.join(FRAMEWORKS)}."
            )
        if recipe.network not in self.networks:
            raise UserError(
                f"recipe {recipe.name!r} cannot run in {self.title}: it has no "
                f"network {recipe.network!r}, but "
                f"{', '.join(sorted(self.networks))}."
            )

    def load(self) -> None:
        """Import the framework; later calls find it imported."""
        importlib.import_module(f"{__name__}.{self.name}.trainer")

    def make_trainer(self, recipe: Recipe, **options: Any) -> Trainer:
        """Build the recipe's network: see `Trainer` for the options."""
        module = importlib.import_module(f"{__name__}.{self.name}.trainer")
        trainer: Trainer = module.Trainer(recipe, **options)
        return trainer

    def make_twin(self, recipe: Recipe, **options: Any) -> Twin:
        """Build the recipe's network step by step: see `Twin`."""
        module = importlib.import_module(f"{__name__}.{self.name}.twin")
        twin: Twin = module.Twin(recipe, **options)
        return twin

    def trace(
        self, recipe: Recipe, *, steps: Sequence[TwinStep], **options: Any
    ) -> Arrays:
        """What the twin computes in the first steps: named arrays.

        For step s, counted from 0: `s.activation.<layer>` as the layer leaves
        it, `s.loss`, `s.gradient.<weight>`, and `s.weight.<weight>` after the
        optimizer's step; and `logits` of the first images before all steps,
        dropout off. All steps belong to the first epoch.

        Args:
            recipe: its precision is the one to compute in.
            steps: images, labels and masks of each.
            options: `weights` to start from, canonical; `threads`; `device`.
        """
        twin = self.make_twin(recipe, **options)
        arrays: Arrays = {"logits": twin.logits(steps[0].images)}
        for number, step in enumerate(steps):
            found = twin.step(step)
            found |= {
                name: array
                for name, array in twin.state().items()
                if name.startswith("weight.")
            }
            arrays |= {f"{number}.{name}": x for name, x in found.items()}
        return arrays


REFEREE = Framework("numpy", "NumPy", "numpy", ("numpy",))
FRAMEWORKS = {
    framework.name: framework
    for framework in (
        Framework("pytorch", "PyTorch", "torch", ("torch",)),
        Framework(
            "tensorflow",
            "TensorFlow",
            "tensorflow",
            ("tensorflow", "tensorflow-cpu"),
        ),
    )
}


def find(name: str) -> Framework:
    """The framework of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name == REFEREE.name:
        return REFEREE
    if name not in FRAMEWORKS:
        raise UserError(
            f"no framework {name!r}; known: {', '.join(FRAMEWORKS)}."
        )
    return FRAMEWORKS[name]
