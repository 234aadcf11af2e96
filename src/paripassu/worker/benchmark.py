"""The worker's side of a benchmark: one style, timed once, in a process of its own."""

from __future__ import annotations

import statistics

from paripassu.core import datasets, draws, machine
from paripassu.core.datasets import Split
from paripassu.core.experiment import read_data
from paripassu.core.networks import ARTICLE
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.contract import BenchmarkModule, Trainer
from paripassu.processes.child import Emit
from paripassu.processes.requests import BenchRequest, ReachRequest
from paripassu.worker.run import Reporter

PIECES = 8  # of the images: the lesson with and without the harness, in turns


def bench(request: BenchRequest, emit: Emit) -> None:
    """Time one style."""
    recipe, threads = request.recipe, request.threads
    framework = registry.find(request.framework)
    own = framework.benchmark
    load = machine.OtherLoad()
    more: dict[str, float] = {}
    if request.style == "ceiling":
        seconds = statistics.median(own.matrix_product(request.matrix, recipe, threads))
    elif request.style == "kernels":
        seconds = own.kernels(recipe, threads) * (request.images / recipe.batch_size)
    elif request.style == "notebook":
        # The data as they were read: a notebook prepares them itself, in its memory.
        raw = _raw(request).with_first(request.images)
        seconds = own.Notebook(raw, threads=threads, seed=recipe.seed).epoch()
    else:
        recipe = recipe.changed(epochs=1)
        _data, prepared = read_data(recipe, request.conditions.data)
        trainer = ready_trainer(framework, recipe, prepared.training, threads)
        more["first_step_seconds"] = machine.seconds_since_start()
        some = prepared.training[: request.images]
        seconds, more["harness_seconds"] = _in_turns(own, trainer, recipe, some, emit)
    emit(
        "benched",
        seconds=seconds,
        device=own.device(),
        peak_memory_bytes=machine.peak_memory_bytes(),
        other_load=load.look(),
        **more,
    )


def reach(request: ReachRequest, emit: Emit) -> None:
    """Train to an accuracy on the test images, and count the seconds of training."""
    recipe, threads = request.recipe, request.threads
    framework = registry.find(request.framework)
    own = framework.benchmark
    load = machine.OtherLoad()
    seconds: list[float] = []
    accuracies: list[float] = []

    def note(spent: float, accuracy: float) -> None:
        seconds.append(spent)
        accuracies.append(accuracy)
        emit("epoch", epoch=len(seconds), accuracy=accuracy)

    if request.style == "notebook":
        raw = _raw(request)
        notebook = own.Notebook(raw, threads=threads, seed=recipe.seed)
        for _ in range(request.epochs):
            note(notebook.epoch(), notebook.accuracy())
            if accuracies[-1] >= request.accuracy:
                break
    else:
        _data, prepared = read_data(recipe, request.conditions.data)
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


def _raw(request: BenchRequest | ReachRequest) -> datasets.ImageData:
    """The data for a notebook, whose network is the article's."""
    raw = datasets.load(request.conditions.data)
    raw.check_fits(ARTICLE)
    return raw


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
    own: BenchmarkModule, trainer: Trainer, recipe: Recipe, training: Split, emit: Emit
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


def recorded_epoch(trainer: Trainer, recipe: Recipe, some: Split, emit: Emit) -> float:
    """Seconds of an epoch as a recorded run counts them, with its progress told."""
    seconds: list[float] = []
    trainer.train(
        some,
        some[:1],
        first_epoch=0,
        on_step=Reporter(emit, recipe, len(some)).on_step,
        on_epoch=lambda report: seconds.append(report.seconds),
    )
    return seconds[0]
