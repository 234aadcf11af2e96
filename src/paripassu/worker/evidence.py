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
from paripassu.core.recipe import Recipe, validate
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks import registry
from paripassu.frameworks.contract import Twin
from paripassu.frameworks.faults import HEALTHY, Fault, find_fault
from paripassu.processes.pool import CONTROLS
from paripassu.worker.run import Emit
from paripassu.worker.trajectory import nudged, shared_step

DRAWN = 3  # steps whose masks, images and labels are hashed


def prove(request: dict[str, Any], emit: Emit) -> None:
    """Write the evidence of one framework, file by file.

    Args:
        request: `recipe` in float64; `steps` of the trajectory, and `traced`, how many
            of them array by array; `faults`, a list of names, or empty; `folder`;
            `states`, the reference's file of states to begin float32 steps at, or None;
            `only_single`, to take nothing but those steps; `curves`, how many
            steps to train in float32 too, plainly and with one kernel nudged, or 0;
            `control`, to take nothing but the trajectory again, one kernel nudged.
        emit: gets `evidence` with a `file`, its `precision` and its `fault`.
    """
    recipe = validate(request["recipe"])
    _data, prepared = read_data(recipe, request["data"])
    folder = Path(request["folder"])
    witness = Witness(request, recipe, prepared.training, emit)
    for name in request["faults"] or [None]:
        fault = find_fault(name) if name else HEALTHY
        mark = f"-{name}" if name else ""
        for precision, arrays in witness.tell(fault, request, folder):
            path = folder / f"{witness.name}{mark}-{precision}.safetensors"
            files.write_tensors(path, arrays)
            emit("evidence", file=str(path), precision=precision, fault=name)


class Witness:
    """One framework, asked again and again on the same data."""

    def __init__(
        self,
        request: dict[str, Any],
        recipe: Recipe,
        training: datasets.Split,
        emit: Emit,
    ) -> None:
        self.name: str = request["framework"]
        self._framework = registry.find(self.name)
        self._recipe = recipe
        self._training = training
        self._emit = emit
        self._how = {"threads": int(request["threads"]), "device": request["device"]}
        self._length = steps_per_epoch(recipe, len(training.labels))

    def tell(
        self, fault: Fault, request: dict[str, Any], folder: Path
    ) -> Iterable[tuple[str, Arrays]]:
        """What was asked for, kind by kind."""
        if request["control"]:
            yield "control", self.control(request["steps"])
            return
        if not request["only_single"]:
            arrays = self.exact(fault, request["steps"], request["traced"], folder)
            yield "float64", arrays
        if request["states"]:
            yield "float32", self.single(Path(request["states"]))
        if request["curves"]:
            curves = {"losses": self.losses(request["curves"], None)}
            for nudge in CONTROLS:
                curves[nudge] = self.losses(request["curves"], nudge)
            yield "curves", curves

    def exact(self, fault: Fault, steps: int, traced: int, folder: Path) -> Arrays:
        """Draws, one batch forward, the first steps array by array, all losses."""
        recipe = fault.recipe(self._recipe)
        given = fault.weights(self._initial(recipe), recipe)
        twin = self._twin(recipe, given)
        fault.put_into(self.name, twin)
        order = self._order(fault, recipe, steps)
        first = self._step(fault, order, 0)
        found: Arrays = {
            **self._draws(fault, recipe, twin, order),
            "given.labels": first.labels,
            "logits": twin.logits(first.images),
            "rate": twin.learning_rates(self._length),
        }
        found |= {f"evaluation.{n}": x for n, x in twin.evaluate(first.images).items()}
        losses = []
        for number in range(steps):
            twin.begin_epoch(number // self._length)
            step = self._step(fault, order, number)
            if number < traced:
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
            self._emit("step", done=number + 1, steps=steps, precision="float64")
        state = twin.state()
        found["losses"] = np.array(losses)
        found |= {f"final.{n}": x for n, x in state.items() if n.startswith("weight.")}
        if self.name == registry.REFERENCE.name:
            self._write_states(folder, given, state, steps)
        return found

    def single(self, states: Path) -> Arrays:
        """One float32 step from each of the reference's states, rounded to float32."""
        arrays, metadata = files.read_tensors(states)
        recipe = self._recipe.changed(precision="float32")
        found: Arrays = {}
        order = self._order(HEALTHY, recipe, max(map(int, metadata)) + 1)
        twin = self._twin(recipe, self._initial(recipe))
        for text in metadata:
            number = int(text)
            state = {
                name.partition(".")[2]: array.astype(np.float32)
                for name, array in arrays.items()
                if name.partition(".")[0] == text
            }
            twin.load_state(state, epoch=number // self._length, step=number)
            found |= {
                f"{text}.{name}": array
                for name, array in {
                    **twin.step(self._step(HEALTHY, order, number)),
                    **twin.state(),
                }.items()
            }
        return found

    def losses(self, steps: int, nudge: str | None) -> npt.NDArray[np.float64]:
        """The losses of a float32 training, one array of weights perhaps nudged."""
        recipe = self._recipe.changed(precision="float32")
        given = self._initial(recipe)
        if nudge:
            given = nudged(given, nudge, recipe)
        twin = self._twin(recipe, given)
        order = self._order(HEALTHY, recipe, steps)
        found = []
        for number in range(steps):
            twin.begin_epoch(number // self._length)
            found.append(twin.advance(self._step(HEALTHY, order, number)))
            self._emit("step", done=number + 1, steps=steps, precision="float32")
        return np.array(found)

    def control(self, steps: int) -> Arrays:
        """Losses and final weights of the trajectory, one kernel moved by an ulp."""
        recipe = self._recipe
        twin = self._twin(recipe, nudged(self._initial(recipe), CONTROLS[0], recipe))
        order = self._order(HEALTHY, recipe, steps)
        losses = []
        for number in range(steps):
            twin.begin_epoch(number // self._length)
            losses.append(twin.advance(self._step(HEALTHY, order, number)))
            self._emit("step", done=number + 1, steps=steps, precision="control")
        state = twin.state()
        return {
            "losses": np.array(losses),
            **{f"final.{n}": x for n, x in state.items() if n.startswith("weight.")},
        }

    def _twin(self, recipe: Recipe, weights: Arrays) -> Twin:
        return self._framework.make_twin(recipe, weights=weights, **self._how)

    def _initial(self, recipe: Recipe) -> Arrays:
        return dict(draws.initial_weights(recipe.architecture, recipe))

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
        healthy = shared_step(self._recipe, self._training, rows, epoch, step)
        return fault.step(healthy)

    def _draws(
        self, fault: Fault, recipe: Recipe, twin: Twin, order: list[list[Any]]
    ) -> Arrays:
        """Hashes of what the framework was given, weights as it holds them."""
        weights = {
            name: np.asarray(array, np.float64)
            for name, array in sorted(twin.state().items())
            if name.startswith("weight.")
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

    def _write_states(
        self, folder: Path, initial: Arrays, state: Arrays, steps: int
    ) -> None:
        """The states from which all frameworks take a step in float32."""
        arrays = {f"0.weight.{name}": array for name, array in initial.items()}
        arrays |= {f"{steps}.{name}": array for name, array in state.items()}
        metadata = {"0": "initial", str(steps): "after the trajectory"}
        files.write_tensors(folder / "states.safetensors", arrays, metadata)
