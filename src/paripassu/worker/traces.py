"""The worker's side of a proof: what one framework computes, as named arrays.

The names are those of `paripassu.analysis.proof.parity`. A seeded fault, if one is
asked for, is put into this framework alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import datasets, draws, files
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.layout import hash_arrays
from paripassu.core.recipe import Recipe
from paripassu.core.steps import STARTS, Arrays, TwinStep
from paripassu.frameworks import registry
from paripassu.frameworks.contract import Twin
from paripassu.frameworks.faults import HEALTHY, Fault, find_fault
from paripassu.processes.child import Emit
from paripassu.processes.requests import ProveRequest
from paripassu.worker import starts
from paripassu.worker.rehearsal import rehearse
from paripassu.worker.trajectory import perturbed, shared_step, weights_in

DRAWN = 3  # steps whose masks, images and labels are hashed


def prove(request: ProveRequest, emit: Emit) -> None:
    """Write the traces of one framework, file by file."""
    _data, prepared = read_data(request.recipe, request.conditions.data)
    tracer = Tracer(request, prepared.training, emit)
    for name in request.faults or (None,):
        fault = find_fault(name) if name else HEALTHY
        mark = f"-{name}" if name else ""
        for precision, arrays in tracer.trace(fault):
            file = f"{request.framework}{mark}-{precision}.safetensors"
            path = request.folder / file
            files.write_tensors(path, arrays)
            emit("traced", file=str(path), precision=precision, fault=name)


class Tracer:
    """One framework, asked again and again on the same data."""

    def __init__(
        self, request: ProveRequest, training: datasets.Split, emit: Emit
    ) -> None:
        self._request = request
        self._framework = registry.find(request.framework)
        self._recipe = request.recipe
        self._training = training
        self._emit = emit
        self._length = steps_per_epoch(request.recipe, len(training.labels))

    def trace(self, fault: Fault) -> Iterable[tuple[str, Arrays]]:
        """What was asked for, kind by kind."""
        request = self._request
        if request.control:
            yield "control", self.control()
            return
        if not request.only_single:
            yield "float64", self.exact(fault)
        if request.single:
            yield "float32", self.single()
        if request.curves:
            controls = request.recipe.architecture.controls
            perturbations = {"losses": None, **{name: name for name in controls}}
            yield (
                "curves",
                {name: self.losses(x) for name, x in perturbations.items()},
            )

    def exact(self, fault: Fault) -> Arrays:
        """Draws, one batch forward, the first steps array by array, all losses."""
        request, steps = self._request, self._request.steps
        recipe = fault.recipe(self._recipe)
        given = fault.weights(self._initial(recipe), recipe)
        twin = self._twin(recipe, given)
        fault.put_into(self._framework.name, twin)
        order = self._order(fault, recipe, steps)
        first = self._step(fault, order, 0)
        found: Arrays = {
            **self._draws(fault, recipe, twin, order),
            "given.labels": first.labels,
            "logits": twin.logits(first.images),
            "rate": twin.learning_rates(self._length),
        }
        found |= {f"evaluation.{n}": x for n, x in twin.evaluate(first.images).items()}
        losses: list[float] = []
        for number in self._steps(twin, steps, "float64"):
            step = self._step(fault, order, number)
            if number < request.traced:
                arrays = twin.step(step)
                losses.append(float(arrays["loss"]))
                arrays = {**arrays, **twin.state()}
                found |= {
                    f"{number}.{name}": array
                    for name, array in arrays.items()
                    if number == 0 or not name.startswith("activation.")
                }
            else:
                losses.append(twin.advance(step))
        found |= _ending(twin, losses)
        if request.starts:
            if self._framework is registry.REFERENCE:
                self._write_starts(given, twin.state())
            found |= self._from_starts(twin)
        if request.rehearsal:
            found |= rehearse(self._framework, recipe, self._training, self._options())
        return found

    def _from_starts(self, twin: Twin) -> Arrays:
        """An evaluation and a step from each of the reference's starts."""
        found: Arrays = {}
        for name, start in starts.read(self._starts).items():
            if name not in STARTS:
                continue
            epoch = start.number // self._length
            twin.load_state(start.state, epoch=epoch, step=start.number)
            evaluated = twin.evaluate(start.step.images)
            arrays = {
                "logits": twin.logits(start.step.images),
                **{f"evaluation.{n}": x for n, x in evaluated.items()},
                **twin.step(start.step),
                **twin.state(),
            }
            found |= {f"{name}.{n}": array for n, array in arrays.items()}
        return found

    def single(self) -> Arrays:
        """One float32 step from states of the reference's, rounded to float32."""
        recipe = self._recipe.changed(precision="float32")
        found: Arrays = {}
        known = starts.read(self._starts)
        order = self._order(HEALTHY, recipe, known["moved"].number + 1)
        twin = self._twin(recipe, self._initial(recipe))
        for name, prefix in (("initial", "0"), ("moved", "moved")):
            number = known[name].number
            state = {n: x.astype(np.float32) for n, x in known[name].state.items()}
            twin.load_state(state, epoch=number // self._length, step=number)
            arrays = twin.step(self._step(HEALTHY, order, number))
            arrays |= twin.state()
            found |= {f"{prefix}.{n}": array for n, array in arrays.items()}
        return found

    def losses(self, weights: str | None) -> npt.NDArray[np.float64]:
        """The losses of a float32 training, with one array of weights perturbed."""
        recipe = self._recipe.changed(precision="float32")
        given = self._initial(recipe)
        if weights:
            given = perturbed(given, weights, recipe)
        twin = self._twin(recipe, given)
        return np.array(self._advance(twin, recipe, self._request.curves, "float32"))

    def control(self) -> Arrays:
        """Losses and final weights of the trajectory, one kernel moved by an ulp."""
        recipe = self._recipe
        moved = recipe.architecture.controls[0]
        given = perturbed(self._initial(recipe), moved, recipe)
        twin = self._twin(recipe, given)
        losses = self._advance(twin, recipe, self._request.steps, "control")
        return _ending(twin, losses)

    def _advance(
        self, twin: Twin, recipe: Recipe, steps: int, precision: str
    ) -> list[float]:
        """The losses of `steps` steps."""
        order = self._order(HEALTHY, recipe, steps)
        return [
            twin.advance(self._step(HEALTHY, order, number))
            for number in self._steps(twin, steps, precision)
        ]

    def _steps(self, twin: Twin, steps: int, precision: str) -> Iterable[int]:
        """Numbers of steps; begins their epochs, and tells when each is done."""
        for number in range(steps):
            twin.begin_epoch(number // self._length)
            yield number
            self._emit("step", done=number + 1, steps=steps, precision=precision)

    def _twin(self, recipe: Recipe, weights: Arrays) -> Twin:
        return self._framework.make_twin(recipe, weights=weights, **self._options())

    def _options(self) -> dict[str, Any]:
        conditions = self._request.conditions
        return {"threads": conditions.threads, "device": conditions.device}

    def _initial(self, recipe: Recipe) -> Arrays:
        return draws.initial_weights(recipe.architecture, recipe)

    def _order(
        self, fault: Fault, recipe: Recipe, steps: int
    ) -> list[list[npt.NDArray[np.int64]]]:
        """The batches of as many epochs as `steps` reach into."""
        count = len(self._training.labels)
        return [
            fault.batches(draws.batches(recipe, count, epoch))
            for epoch in range(-(-steps // self._length))
        ]

    def _step(self, fault: Fault, order: list[list[Any]], number: int) -> TwinStep:
        epoch, step = divmod(number, self._length)
        rows = order[epoch][step % len(order[epoch])]
        drawn_by = fault.data(self._recipe)
        healthy = shared_step(drawn_by, self._training, rows, epoch, step)
        return fault.step(healthy)

    def _draws(
        self, fault: Fault, recipe: Recipe, twin: Twin, order: list[list[Any]]
    ) -> Arrays:
        """Hashes of what the framework was given, weights as it holds them."""
        weights = {
            name: np.asarray(array, np.float64)
            for name, array in sorted(weights_in(twin.state()).items())
        }
        count = len(self._training.labels)
        epochs = (
            fault.batches(draws.batches(recipe, count, epoch))
            for epoch in range(recipe.epochs)
        )
        drawn = min(DRAWN, sum(map(len, order)))
        steps = [self._step(fault, order, number) for number in range(drawn)]
        return {
            **{f"draws.{n}": hash_arrays([x]) for n, x in weights.items()},
            "draws.order": hash_arrays(rows for epoch in epochs for rows in epoch),
            "draws.masks": hash_arrays(
                mask for step in steps for _, mask in sorted(step.masks.items())
            ),
            "draws.images": hash_arrays(step.images for step in steps),
            "draws.labels": hash_arrays(step.labels for step in steps),
        }

    @property
    def _starts(self) -> Path:
        return self._request.folder / "starts.safetensors"

    def _write_starts(self, initial: Arrays, state: Arrays) -> None:
        """The states from which all frameworks take a step."""
        steps = self._request.steps
        order = self._order(HEALTHY, self._recipe, steps + 1)
        first, next_one = (
            starts.first_images(self._step(HEALTHY, order, number))
            for number in (0, steps)
        )
        begin = {f"weight.{name}": array for name, array in initial.items()}
        found = {
            "initial": starts.Start(begin, 0, first),
            "moved": starts.Start(state, steps, next_one),
            "amplified": starts.amplified(self._recipe, initial, first),
        }
        starts.write(self._starts, found)


def _ending(twin: Twin, losses: list[float]) -> Arrays:
    """What is kept of a whole trajectory."""
    return {
        "losses": np.array(losses),
        **{f"final.{n}": x for n, x in weights_in(twin.state()).items()},
    }
