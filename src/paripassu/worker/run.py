"""One training run in its folder: begun, gone on with, or found finished."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from paripassu.core import datasets, draws, files, layout, machine, record, steps
from paripassu.core.errors import UserError
from paripassu.core.experiment import identify, read_data
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.contract import EpochReport, Trainer
from paripassu.processes.child import Emit
from paripassu.processes.requests import TrainRequest
from paripassu.reference.losses import cross_entropy

REPORT_SECONDS = 0.2  # between two events of progress
INFERENCE_REPEATS = 50
INFERENCE_BATCH = 64


class Reporter:
    """Tells the progress within an epoch, a few times in a second.

    Attributes:
        epoch: the one that is being trained, counted from 1.
    """

    def __init__(self, emit: Emit, recipe: Recipe, count: int, epoch: int = 1) -> None:
        """Tell by `emit` of epochs of `count` images."""
        self.epoch = epoch
        self._emit = emit
        self._steps = -(-count // recipe.batch_size)
        self._last = 0.0

    def on_step(self, step: int, loss: float, accuracy: float) -> None:
        """For `Trainer.train`."""
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            self._emit(
                "step",
                epoch=self.epoch,
                step=step,
                steps=self._steps,
                loss=loss,
                accuracy=accuracy,
            )


def train(request: TrainRequest, emit: Emit) -> None:
    """Do whatever of a run is not yet done."""
    folder = request.folder
    kept = files.is_read_only(folder) and record.is_finished(folder)
    with contextlib.nullcontext() if kept else files.working_in(folder):
        Run(request, emit).go()


class Run:
    """A training in its folder, which is owned."""

    def __init__(self, request: TrainRequest, emit: Emit) -> None:
        self._emit = emit
        self._folder = request.folder
        self._conditions = request.conditions
        self._framework = registry.find(request.framework)
        self._recipe = request.recipe
        self._seconds: dict[str, float] = {}

    def go(self) -> None:
        """Do whatever is not yet done."""
        load_average = machine.load_average()
        self._load = machine.OtherLoad()
        data, prepared = self._timed(
            "data", lambda: read_data(self._recipe, self._conditions.data)
        )
        dataset = datasets.describe(data, prepared)
        if self._conditions.source:
            update = {"source": self._conditions.source}
            dataset = dataset.model_copy(update=update)
        identity = identify(self._recipe, dataset)
        earlier, state = read_checkpoint(self._folder)
        if earlier:
            check_same_run(
                self._folder, earlier, self._framework.name, self._recipe, identity
            )
            if earlier.status == "finished":
                self._remove_checkpoint()
                self._emit("reused")
                return
        trainer = self._make_trainer()
        first_epoch = len(earlier.epochs) if earlier else 0
        self._timed("warm_up", lambda: trainer.warm_up(prepared.training))
        if state:
            trainer.load_state(state)
        session = record.Session(
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            first_epoch=first_epoch + 1,
            seconds=self._seconds,
            load_average=load_average,
            node=self._conditions.node,
        )
        environment = self._environment(trainer)
        if earlier:
            check_same_machine(self._folder, earlier.environment, environment)
        current = record.RunRecord(
            status="running",
            framework=self._framework.name,
            recipe=self._recipe.model_dump(),
            recipe_hash=identity,
            dataset=dataset,
            environment=environment,
            command=self._conditions.command,
            monitor="validation" if self._recipe.validation_size else "test",
            sessions=[*(earlier.sessions if earlier else []), session],
            epochs=list(earlier.epochs) if earlier else [],
        )
        if not earlier:
            files.write_text(self._folder / "recipe.toml", self._recipe.to_toml())
            record.save_record(self._folder, current)
        if first_epoch < self._recipe.epochs:
            current = self._train(trainer, prepared, current)
        self._finish(trainer, prepared, current)

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        self._emit("phase", name=name.replace("_", " "))
        start = time.perf_counter()
        result = work()
        self._seconds[name] = time.perf_counter() - start
        return result

    def _make_trainer(self) -> Trainer:
        self._emit("phase", name="start up")
        # Python's own start and the imports of the framework, not the data.
        before = machine.seconds_since_start() - sum(self._seconds.values())
        start = time.perf_counter()
        self._framework.module("trainer")
        self._seconds["start_up"] = before + time.perf_counter() - start
        network = self._recipe.architecture
        trainer: Trainer = self._timed(
            "build",
            lambda: self._framework.make_trainer(
                self._recipe,
                weights=draws.initial_weights(network, self._recipe),
                threads=self._conditions.threads,
                device=self._conditions.device,
            ),
        )
        return trainer

    def _environment(self, trainer: Trainer) -> record.Environment:
        return record.Environment(
            python=sys.version.split()[0],
            platform=machine.system(),
            processor=machine.processor(),
            cores=machine.usable_cores(),
            memory_bytes=machine.memory_bytes(),
            threads=self._conditions.threads,
            device=trainer.device,
            versions={
                **trainer.versions,
                "numpy": version("numpy"),
                "paripassu": version("paripassu"),
            },
            settings={
                **trainer.settings,
                "allocator": os.environ.get("GLIBC_TUNABLES", "default"),
                "OpenMP waits": machine.waiting_of_threads(),
            },
        )

    def _train(
        self,
        trainer: Trainer,
        prepared: datasets.Prepared,
        current: record.RunRecord,
    ) -> record.RunRecord:
        epochs = list(current.epochs)
        count = len(prepared.training.labels)
        reporter = Reporter(self._emit, self._recipe, count, len(epochs) + 1)
        load = self._load

        def on_epoch(report: EpochReport) -> None:
            nonlocal current
            _finite(report.training_loss, report.epoch)
            _finite(report.monitor_loss, report.epoch)
            told = asdict(report) | {"epoch": report.epoch + 1}
            session = len(current.sessions) - 1
            epochs.append(record.Epoch(**told, session=session, other_load=load.look()))
            current = current.model_copy(update={"epochs": list(epochs)})
            save_checkpoint(self._folder, trainer.state(), current)
            record.save_record(self._folder, current)
            self._emit("epoch", **epochs[-1].model_dump(), monitor=current.monitor)
            reporter.epoch += 1
            load.look()

        self._emit(
            "training",
            first_epoch=len(epochs) + 1,
            epochs=self._recipe.epochs,
            threads=self._conditions.threads,
            other_load=load.look(),
        )
        monitored = (
            prepared.validation if self._recipe.validation_size else prepared.test
        )
        trainer.train(
            prepared.training,
            monitored,
            first_epoch=len(epochs),
            on_step=reporter.on_step,
            on_epoch=on_epoch,
        )
        return current

    def _finish(
        self,
        trainer: Trainer,
        prepared: datasets.Prepared,
        current: record.RunRecord,
    ) -> None:
        """Take the final figures and write the files that others read."""
        test = prepared.test
        loss, accuracy = self._timed("test", lambda: trainer.evaluate(test))
        last = self._recipe.epochs - 1
        _finite(loss, last)
        weights = trainer.weights()
        for array in weights.values():
            _finite(float(array.sum(dtype=np.float64)), last)
        logits = trainer.logits(test.images)
        correct = int((logits.argmax(1) == test.labels).sum())
        if abs(correct / len(test.labels) - accuracy) > 0.5 / len(test.labels):
            raise RuntimeError(
                f"{self._framework.title} reports accuracy {accuracy}, but {correct} "
                f"of its {len(test.labels)} predictions are right"
            )
        inference = self._timed(
            "inference",
            lambda: _time_inference(trainer, test[:INFERENCE_BATCH].images),
        )
        start = time.perf_counter()
        network = self._recipe.architecture
        layout.check_weights(network, weights)
        path = self._folder / record.WEIGHTS_FILE
        metadata = {"network": network.name, "recipe": self._recipe.to_toml()}
        files.write_tensors(path, weights, metadata)
        model = f"model{self._framework.suffixes[0]}"
        notes = metadata | {
            "framework": self._framework.name,
            "mean": str(prepared.mean),
            "std": str(prepared.std),
        }
        with files.replacing(self._folder / model) as temporary:
            self._framework.files.write(self._recipe, weights, temporary, notes)
        files.write_tensors(
            self._folder / record.PREDICTIONS_FILE,
            {
                "logits": logits.astype(np.float32),
                "labels": test.labels.astype(np.min_scalar_type(network.num_classes)),
            },
        )
        self._seconds["saving"] = time.perf_counter() - start
        session = current.sessions[-1].model_copy(update={"seconds": self._seconds})
        current = current.model_copy(
            update={
                "status": "finished",
                "sessions": [*current.sessions[:-1], session],
                "result": record.Result(
                    test_loss=loss,
                    test_accuracy=correct / len(test.labels),
                    test_correct=correct,
                    test_count=len(test.labels),
                    test_cross_entropy=float(cross_entropy(logits, test.labels)[0]),
                ),
                "inference": inference,
                "peak_memory_bytes": machine.peak_memory_bytes(),
                "peak_accelerator_bytes": trainer.peak_accelerator_bytes(),
                "weights_sha256": layout.hash_weights(weights),
                "files": {
                    "weights": record.WEIGHTS_FILE,
                    "model": model,
                    "predictions": record.PREDICTIONS_FILE,
                },
            }
        )
        record.save_record(self._folder, current)
        self._remove_checkpoint()
        self._emit("finished", accuracy=correct / len(test.labels), loss=loss)

    def _remove_checkpoint(self) -> None:
        path = self._folder / record.CHECKPOINT_FILE
        if path.exists() and not files.is_read_only(self._folder):
            path.unlink()


def _time_inference(trainer: Trainer, images: Any) -> record.Inference:
    def median(size: int) -> float:
        some = np.ascontiguousarray(images[:size])
        times = []
        for _ in range(INFERENCE_REPEATS + 5):
            start = time.perf_counter()
            trainer.logits(some)
            times.append(time.perf_counter() - start)
        return statistics.median(times[5:])

    return record.Inference(
        single_seconds=median(1),
        batch_seconds=median(INFERENCE_BATCH),
        batch_size=INFERENCE_BATCH,
        repeats=INFERENCE_REPEATS,
    )


def _finite(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"after epoch {epoch + 1} there is {loss}: the training has diverged. "
            "A smaller rate may help: --set optimizer.learning_rate=0.1."
        )


def save_checkpoint(
    folder: Path, state: steps.Arrays, current: record.RunRecord
) -> None:
    """Write state and record in one file, so that they always belong together."""
    metadata = {"record": current.model_dump_json()}
    files.write_tensors(folder / record.CHECKPOINT_FILE, state, metadata)


def read_checkpoint(
    folder: Path,
) -> tuple[record.RunRecord | None, steps.Arrays | None]:
    """The record and the state that a run goes on from; None where there is none.

    A finished run has no state. A run that has begun but not finished an epoch starts
    over, which gives the same numbers.
    """
    path = folder / record.CHECKPOINT_FILE
    earlier = None
    if (folder / record.RUN_FILE).exists():
        earlier = record.load_record(folder)
        if earlier.status == "finished":
            return earlier, None
    if not path.exists():
        return earlier and earlier.model_copy(update={"epochs": []}), None
    try:
        state, metadata = files.read_tensors(path)
    except UserError as error:
        raise UserError(f"{error} Delete it: the run then starts over.") from None
    if "record" not in metadata:
        raise UserError(
            f"{path} is not a checkpoint of this program: choose another --out."
        )
    return record.parse_record(metadata["record"], path), state


def check_same_run(
    folder: Path,
    earlier: record.RunRecord,
    framework: str,
    recipe: Recipe,
    identity: str,
) -> None:
    """Refuse to go on with another experiment's run."""
    if earlier.framework == framework and earlier.recipe_hash == identity:
        return
    new = recipe.model_dump()
    differing = [
        f"{key} is {earlier.recipe.get(key)!r} there and {value!r} now"
        for key, value in new.items()
        if earlier.recipe.get(key) != value
    ]
    if earlier.framework != framework:
        differing = [f"framework is {earlier.framework!r} there and {framework!r} now"]
    raise UserError(
        f"{folder} holds another run: {'; '.join(differing) or 'the data differ'}. "
        "Choose another folder with --out, or delete that one."
    )


def check_same_machine(
    folder: Path, earlier: record.Environment, now: record.Environment
) -> None:
    """Refuse to go on where the numbers would no longer be those of one run."""
    for what, was, is_now in [
        ("threads", earlier.threads, now.threads),
        ("device", earlier.device, now.device),
        ("versions", earlier.versions, now.versions),
    ]:
        if was != is_now:
            raise UserError(
                f"the run in {folder} was started with {what} {was}, and now there are "
                f"{is_now}: the result would mix both. Restore what it was started "
                "with, or start again with another --out."
            )
