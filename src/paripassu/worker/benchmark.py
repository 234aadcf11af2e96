"""The worker's side of a benchmark: one style, timed once, in a process of its own."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from paripassu.core import datasets, draws, machine
from paripassu.core.datasets import Split
from paripassu.core.experiment import read_data
from paripassu.core.recipe import Recipe, validate
from paripassu.frameworks import registry
from paripassu.frameworks.contract import EpochReport, Trainer
from paripassu.worker.run import Emit, Reporter

PIECES = 8  # of the images: the lesson with and without the harness, in turns


def bench(request: dict[str, Any], emit: Emit) -> None:
    """Time one style.

    Args:
        request: `framework`; `style`, one of `paripassu.analysis.benchmark.STYLES`;
            `recipe`; `data`; `images`, how many of the training set; `matrix`, rows and
            columns of the product that is the ceiling; `threads`.
        emit: gets `benched`: seconds for all images (of the ceiling: for one product),
            the most memory in bytes, the share of the machine that others used; for
            the lesson `harness_seconds` too, and from the start of the process to the
            first step.
    """
    recipe = validate(request["recipe"])
    framework = registry.find(request["framework"])
    own = framework.module("benchmark")
    threads = int(request["threads"])
    load = machine.OtherLoad()
    more: dict[str, float] = {}
    if request["style"] == "ceiling":
        seconds = statistics.median(
            own.matrix_product(int(request["matrix"]), recipe, threads)
        )
    elif request["style"] == "kernels":
        steps = int(request["images"]) / recipe.batch_size
        seconds = own.kernels(recipe, threads) * steps
    elif request["style"] == "notebook":
        raw = _raw(request).with_first(int(request["images"]))
        notebook = own.Notebook(raw, threads=threads, seed=recipe.seed)
        seconds = notebook.epoch()
    else:
        recipe = recipe.changed(epochs=1)
        _data, prepared = read_data(recipe, request["data"])
        trainer = ready_trainer(framework, recipe, prepared.training, threads)
        more["first_step_seconds"] = machine.seconds_since_start()
        some = prepared.training[: int(request["images"])]
        seconds, harness = _in_turns(own, trainer, recipe, some, emit)
        more["harness_seconds"] = harness
    emit(
        "benched",
        seconds=seconds,
        device=own.device(),
        peak_memory_bytes=machine.peak_memory_bytes(),
        other_load=load.look(),
        **more,
    )


def reach(request: dict[str, Any], emit: Emit) -> None:
    """Train to an accuracy on the test images, and count the seconds of training.

    Args:
        request: `framework`; `style`, "recipe", which is trained to its end, or
            "notebook", which stops after the epoch that has reached it; `recipe`;
            `data`; `accuracy`; `epochs`, the most of the notebook's; `threads`.
        emit: gets `reached`: seconds, the accuracy after each epoch, the share of the
            machine that others used; and `epoch` after each.
    """
    recipe = validate(request["recipe"])
    framework = registry.find(request["framework"])
    own = framework.module("benchmark")
    threads = int(request["threads"])
    load = machine.OtherLoad()
    seconds: list[float] = []
    accuracies: list[float] = []

    def note(spent: float, accuracy: float) -> None:
        seconds.append(spent)
        accuracies.append(accuracy)
        emit("epoch", epoch=len(seconds), accuracy=accuracy)

    if request["style"] == "notebook":
        notebook = own.Notebook(_raw(request), threads=threads, seed=recipe.seed)
        for _ in range(int(request["epochs"])):
            note(notebook.epoch(), notebook.accuracy())
            if accuracies[-1] >= float(request["accuracy"]):
                break
    else:
        _data, prepared = read_data(recipe, request["data"])
        trainer = ready_trainer(framework, recipe, prepared.training, threads)
        trainer.train(
            prepared.training,
            prepared.test,
            first_epoch=0,
            on_step=Reporter(emit, recipe, len(prepared.training.labels)).on_step,
            on_epoch=lambda report: note(report.seconds, report.monitor_accuracy),
        )
    emit(
        "reached",
        seconds=sum(seconds),
        device=own.device(),
        accuracies=accuracies,
        other_load=load.look(),
    )


def ready_trainer(
    framework: registry.Framework, recipe: Recipe, training: Split, threads: int
) -> Trainer:
    """A trainer that has made and undone its first steps."""
    trainer = framework.make_trainer(
        recipe,
        weights=draws.initial_weights(recipe.architecture, recipe),
        threads=threads,
        device="auto",
    )
    trainer.warm_up(training)
    return trainer


def _in_turns(
    own: Any, trainer: Trainer, recipe: Recipe, training: Split, emit: Emit
) -> tuple[float, float]:
    """Seconds of the lesson alone, and of the same in a recorded run.

    Piece by piece, and each goes first in turn: so a difference of a hundredth can be
    told from what the machine does beside.
    """
    bare = harness = 0.0
    batch = recipe.batch_size
    steps = -(-len(training) // batch)
    for piece in range(PIECES):
        first, end = (steps * i // PIECES * batch for i in (piece, piece + 1))
        some = training[first:end]
        if not len(some):
            continue
        for turn in range(2):
            if (piece + turn) % 2:
                harness += recorded_epoch(trainer, recipe, some, emit)
            else:
                bare += own.lesson_epoch(trainer, recipe, some)
    return bare, harness


def _raw(request: dict[str, Any]) -> datasets.ImageData:
    """The data as they were read: a notebook prepares them itself, in its memory."""
    return datasets.load(Path(request["data"]) if request["data"] else None)


def recorded_epoch(trainer: Trainer, recipe: Recipe, some: Split, emit: Emit) -> float:
    """Seconds of an epoch as a recorded run counts them, with its progress told."""
    seconds: list[float] = []

    def on_epoch(report: EpochReport) -> None:
        seconds.append(report.seconds)

    trainer.train(
        some,
        some[:1],
        first_epoch=0,
        on_step=Reporter(emit, recipe, len(some)).on_step,
        on_epoch=on_epoch,
    )
    return seconds[0]
