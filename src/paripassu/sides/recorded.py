"""Replays a recording in place of the model that was recorded."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides.contract import (
    Arrays,
    Blind,
    Block,
    Call,
    Draw,
    Drawing,
    Live,
    Step,
    Watcher,
)
from paripassu.sides.recording import (
    CallRecord,
    PassName,
    PassRecord,
    Recording,
    StepRecord,
    Variant,
    decode,
    pass_name,
)

# A weight in place of another, by the names of its block and its own.
Change = Callable[[str, str, Array], Array]


class RecordedProbe:
    """See `paripassu.sides.contract.Probe`; knows the passes that were recorded, only.

    What a check does to a left model beside running it, a recording has measured:
    `control`, `step_control`, `randomness`, `cotangents`.
    """

    def __init__(self, recording: Recording):
        self.model = recording
        self.found = recording.description
        self.side = self.found.framework
        self.dtype = "float32" if "float32" in self.found.passes else "float64"
        self.seed = 0
        self.drawing: Drawing = "shared"
        self.draws: Sequence[Draw] = ()
        self.variant: Variant | None = None
        self.change: Change | None = None
        self.asked: int | None = None  # which of the further inputs

    @property
    def own_losses(self) -> Sequence[str]:
        return self.found.own_losses

    @property
    def float_type(self) -> str:
        return self.dtype

    def blocks(self) -> list[Block]:
        made = []
        for block in self.found.blocks:
            prefix, settings = f"weights/{block.name}", self._settings(block.settings)
            weights = Live(
                {x: self.model.shape(f"{prefix}/{x}") for x in block.weights},
                functools.partial(self._read_weight, block.name, self.change),
            )
            spec = LayerSpec(block.kind, settings, weights)
            made.append(Block(block.name, block.layer, spec, block.trainable))
        return made

    def write(self, name: str, weights: Arrays) -> NoReturn:
        del name, weights
        raise UserError(
            f"{self.model.path} is a recording and takes no weights. "
            "Copy from it: --copy left-to-right"
        )

    def change_settings(self, name: str, settings: Mapping[str, Any]) -> None:
        """A recording has the settings that it has."""

    def run(
        self,
        inputs: Arrays,
        watcher: Watcher,
        *,
        training: bool = False,
        sources: bool = False,
    ) -> Arrays:
        del sources  # always there
        name = self._pass_name(training=training)
        one = self._pass(name)
        if self.asked is not None:
            return self._further("outputs")
        self._check_inputs(inputs)
        if self.variant and type(watcher) is not Blind:
            self._cannot("calls of the model with other weights")
        self.draws, _ = self.randomness(training=training)
        if type(watcher) is not Blind:
            for serial, call in enumerate(one.calls):
                told = self._call(call, serial)
                given = watcher.enter(told, [self.model.read(x) for x in call.inputs])
                if given is not None:
                    self._cannot("a layer given other inputs")
                outputs = self._outputs(call)
                if outputs and watcher.leave(told, outputs) is not None:
                    self._cannot("a layer given other outputs")
        return self.model.read_all(f"{name}/outputs", one.outputs)

    def step(
        self, inputs: Arrays, cotangents: Arrays, *, training: bool = True
    ) -> Step:
        if not training:
            self._cannot("gradients in evaluation mode")
        step = self._step()
        self._check_inputs(inputs)
        self.draws, _ = self.randomness(training=True)
        for name, array in self.cotangents().items():
            if not np.array_equal(array, cotangents[name]):
                self._cannot("gradients of other cotangents")
        return Step(
            self.model.read_all("step/outputs", step.outputs),
            _Nested(self.model, "step/gradients", step.gradients),
            self.model.read_all("step/input-gradients", step.input_gradients),
            _Nested(self.model, "step/statistics", step.statistics),
        )

    def set_dtype(self, dtype: str) -> Callable[[], None]:
        if dtype not in self.found.passes:
            why = self.found.no_float64 or f"it holds {', '.join(self.found.passes)}"
            raise UserError(f"the recording holds no pass in {dtype}: {why}.")
        before, self.dtype = self.dtype, dtype
        return lambda: setattr(self, "dtype", before)

    def control(self, watcher: Watcher, *, own: bool, training: bool) -> Arrays:
        """What one ulp does: the outputs after it.

        Args:
            watcher: is told of each call with weights; in place of its inputs and its
                outputs comes one number, how far they moved, relative.
            own: where each layer was given its own inputs moved, not the model alone.
            training: the mode.
        """
        name = self._pass_name(training=training)
        one = self._pass(name)
        if self.asked is not None:
            return self._further("control")
        for serial, call in enumerate(one.calls):
            moved = call.own_control if own else call.control
            if moved is not None and call.weights:
                told = self._call(call, serial)
                begin, end = (np.array(np.inf if x is None else x) for x in moved)
                watcher.enter(told, [begin])
                watcher.leave(told, [end])
        if not (one.own_control if own else one.control):
            self._cannot("a one-ulp control")
        kind = "own-control" if own else "control"
        return self.model.read_all(f"{name}/{kind}", one.outputs)

    @contextlib.contextmanager
    def changed(self, variant: Variant, change: Change | None) -> Iterator[None]:
        """While it answers for the model with other weights, in evaluation mode.

        Args:
            variant: how they were changed when it was recorded.
            change: gives one of them, by block, name and the weight as it was.
        """
        self.variant, self.change = variant, change
        try:
            yield
        finally:
            self.variant = self.change = None

    @contextlib.contextmanager
    def given(self, number: int) -> Iterator[None]:
        """While it answers, by outputs alone, for one of the further inputs."""
        self.asked = number
        try:
            yield
        finally:
            self.asked = None

    def has_further(self) -> bool:
        """Whether it can, in the float type that it is set to."""
        last = "float64" if "float64" in self.found.passes else "float32"
        return bool(self.found.further) and self.dtype == last

    def _further(self, kind: str) -> Arrays:
        names = self.found.further[self.asked or 0].outputs
        return self.model.read_all(f"further/{self.asked}/{kind}", names)

    def has(self, variant: Variant) -> bool:
        """Whether it can answer for the model with other weights."""
        return f"{self.dtype}-{variant}" in self.found.passes

    @property
    def rate(self) -> float:
        """The learning rate of the step after which it was recorded."""
        return self._step().rate

    def has_step(self) -> bool:
        """Whether a step of training was recorded in the type that it is set to."""
        return self.found.step is not None and self.found.step.dtype == self.dtype

    def cotangents(self) -> Arrays:
        """What the outputs were multiplied with in the step."""
        return self.model.read_all("step/cotangents", self._step().outputs)

    def inputs_moved(self) -> dict[str, float]:
        """How far one ulp moved the gradient of each input."""
        moved = self._step().input_gradients
        return {k: np.inf if x is None else x for k, x in moved.items()}

    def step_control(self) -> tuple[Arrays, dict[tuple[str, str], float]]:
        """The step's outputs one ulp away, and how far each gradient moved."""
        step = self._step()
        moved = {
            (block, name): np.inf if error is None else error
            for block, errors in step.gradients.items()
            for name, error in errors.items()
        }
        return self.model.read_all("step/control", step.outputs), moved

    def randomness(self, *, training: bool) -> tuple[tuple[Draw, ...], str | None]:
        """What it drew, and the first call that was random all the same."""
        found = self.found
        drawn = found.training_draws if training else found.evaluation_draws
        draws = tuple(Draw(**x.model_dump()) for x in drawn)
        return draws, found.random_in_training if training else None

    def _pass_name(self, *, training: bool) -> PassName:
        if self.variant and not training:
            name: PassName = f"{self.dtype}-{self.variant}"  # type: ignore[assignment]
            return name
        off = training and self.drawing == "off" and bool(self.found.training_draws)
        return pass_name(self.dtype, training=training, dropout=not off)

    def _pass(self, name: PassName) -> PassRecord:
        if name not in self.found.passes:
            self._cannot(f"a pass in {name.replace('-', ', in ')}")
        return self.found.passes[name]

    def _step(self) -> StepRecord:
        if self.found.step is None:
            self._cannot("a step of training")
        return self.found.step

    def _check_inputs(self, inputs: Arrays) -> None:
        for name, array in self.model.inputs.items():
            same = name in inputs and inputs[name].shape == array.shape
            if not same or not np.array_equal(array, inputs[name], equal_nan=True):
                self._cannot(f"a pass with another {name}")

    def _cannot(self, what: str) -> NoReturn:
        raise UserError(
            f"the recording {self.model.path} does not hold {what}: it cannot be "
            "computed without the model."
        )

    def _read_weight(self, block: str, change: Change | None, name: str) -> Array:
        array = self._typed(self.model.read(f"weights/{block}/{name}"))
        return change(block, name, array) if change else array

    def _typed(self, array: Array) -> Array:
        floating = np.issubdtype(array.dtype, np.floating)
        return array.astype(self.dtype, copy=False) if floating else array

    def _settings(self, settings: Mapping[str, object]) -> dict[str, object]:
        return {k: decode(x, self.model.read) for k, x in settings.items()}

    def _call(self, call: CallRecord, serial: int) -> Call:
        names = {x: np.empty(0) for x in call.weights}
        spec = LayerSpec(call.kind, self._settings(call.settings), names)
        weighted = bool(call.weights)
        where = call.sources, call.inside, (), call.line
        return Call(call.name, call.title, spec, weighted, serial, *where)

    def _outputs(self, call: CallRecord) -> Sequence[Array]:
        if not call.outputs and call.shape is not None:
            # Its shape is known, its values are not: NaN, which is equal to nothing.
            return [np.broadcast_to(np.float32(np.nan), call.shape)]
        return [self.model.read(x) for x in call.outputs]


class _Nested(Mapping[str, Arrays]):
    """Arrays by block and name, read a block at a time."""

    def __init__(
        self,
        recording: Recording,
        prefix: str,
        names: Mapping[str, Mapping[str, object] | Sequence[str]],
    ):
        self.recording, self.prefix, self.names = recording, prefix, names

    def __getitem__(self, block: str) -> Arrays:
        prefix = f"{self.prefix}/{block}"
        return self.recording.read_all(prefix, self.names[block])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
