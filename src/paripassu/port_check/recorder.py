"""Records a model: what it computes on some inputs, and what one ulp does to that."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, relative_error
from paripassu.core.layout import hash_arrays
from paripassu.core.version import __version__
from paripassu.port_check.align import data_inputs
from paripassu.port_check.behaviour import move, step_size, take_step
from paripassu.port_check.examined import ExaminedModel, ModelError, in_float64
from paripassu.port_check.probed import padding_ids, probings_of, table_rows
from paripassu.port_check.record import Recorded, describe_size
from paripassu.port_check.results import finite
from paripassu.port_check.rounding import RoundedCall, effect, find_rounded
from paripassu.port_check.runs import (
    Perturbed,
    Progress,
    perturb_one_ulp,
    perturbed_step,
)
from paripassu.port_check.tolerance import REMADE
from paripassu.sides import registry, user_code
from paripassu.sides.contract import Arrays, Blind, Call, Draw
from paripassu.sides.recording import (
    BlockRecord,
    CallRecord,
    Description,
    DrawRecord,
    FurtherRecord,
    PassName,
    PassRecord,
    RoundedRecord,
    StepRecord,
    encode,
    pass_name,
    writing,
)
from paripassu.sides.recording_place import Level

SEED = 7
DType = Literal["float32", "float64"]


@dataclass(frozen=True)
class Wish:
    """What a recording is to hold.

    Attributes:
        out: its folder.
        level: "full"; "boundaries", the arrays of layers with weights alone; or
            "outputs".
        gradients: also a step of training.
        arguments: that the model was made with, for the record.
        seed: of the inputs, where they were drawn.
    """

    out: Path
    level: Level = "full"
    gradients: bool = True
    arguments: str | None = None
    seed: int | None = None


class Recorder:
    """Records one model; `go` writes it."""

    def __init__(
        self,
        model: ExaminedModel,
        inputs: Arrays,
        wish: Wish,
        progress: Progress = lambda _text, _share: None,
    ):
        self.model, self.inputs, self.wish = model, inputs, wish
        self.progress = progress
        self.random = np.random.Generator(np.random.Philox(SEED))
        self.passes: dict[PassName, PassRecord] = {}
        self.rounded: Mapping[int, RoundedCall] = {}
        self.rounding, self.float32_gradients = 0.0, tuple[str, ...]()

    def go(self) -> Recorded:
        """All of it.

        Raises:
            UserError: the model is random in evaluation mode, or raised; or there is
                no room for the recording.
        """
        try:
            self.progress("finding the layers", 0.05)
            self.plan = plan = _Plan()
            self.model.run(self.inputs, plan, sources=True)
            self._check_room(plan)
            self._check_determinism()
            with writing(self.wish.out) as self.writer:
                description = self._record()
                self.writer.finish(description)
        except ModelError as failed:
            text = user_code.describe_error(failed.error, f"{failed.source}, computing")
            raise UserError(text) from failed
        size = sum(x.stat().st_size for x in self.wish.out.iterdir())
        notes = [f"no float64: {x}" for x in [description.no_float64] if x]
        if place := description.random_in_training:
            notes.append(f"no step of training: the model is random in it, at {place}")
        self.progress("done", 1.0)
        return Recorded(self.wish.out, size, len(plan.sources), tuple(notes))

    def _check_room(self, plan: _Plan) -> None:
        """Say how large it will be; refuse where that does not fit."""
        outputs = sum(x.nbytes for x in self.inputs.values())
        weights = sum(
            4 * int(np.prod(shape))
            for block in self.model.probe.blocks()
            for shape in block.shapes.values()
        )
        of_passes = {
            # float32 and, twice as large, float64; and of layers with weights once
            # more in training mode.
            "full": 3 * plan.bytes + 2 * plan.bytes_of_layers,
            "boundaries": 5 * plan.bytes_of_layers,
            "outputs": 0,
        }
        size = outputs + of_passes[self.wish.level]
        if self.wish.level != "outputs":
            size += 3 * weights if self.wish.gradients else weights
        self.progress(f"about {describe_size(size)} will be written", 0.1)
        parent = files.make_folder(self.wish.out.resolve().parent)
        free = shutil.disk_usage(parent).free
        if size > free:
            raise UserError(
                f"{self.wish.out} would have {describe_size(size)}, but "
                f"{describe_size(free)} are free there. Type --level boundaries or "
                "--level outputs, or choose another folder with --out."
            )

    def _check_determinism(self) -> None:
        model = self.model
        found = model.find_randomness(self.inputs, training=False)
        if found.unshared:
            raise UserError(
                f"the model, {model.source}, is random in evaluation mode: two runs "
                f"with the same input part at {found.unshared}. Give a model without "
                "it, or draw the numbers outside and give them as an input."
            )
        self.evaluation_draws = found.draws
        self.training_draws: Sequence[Draw] = ()
        self.random_at = None
        self.steps = self.wish.gradients and self.wish.level != "outputs"
        if self.steps:
            found = model.find_randomness(self.inputs, training=True)
            self.training_draws, self.random_at = found.draws, found.unshared

    def _record(self) -> Description:
        probe, writer = self.model.probe, self.writer
        writer.put_all("inputs", self.inputs)
        described = self._describe_blocks()
        self._record_pass("float32", 0.2)
        no_float64, step = self._set_float64(), None
        if not no_float64:
            self.inputs = in_float64(self.inputs)
            self._record_pass("float64", 0.4)
            if self.wish.level != "outputs":
                self._find_rounding()
        if self.steps and not self.random_at:
            dtype: DType = "float32" if no_float64 else "float64"
            with self.model.drawing("off" if self.training_draws else "shared"):
                step = self._record_step(dtype)
            self._record_pass(dtype, 0.7, training=True)
            if self.training_draws:
                with self.model.drawing("off"):
                    self._record_pass(dtype, 0.75, training=True, dropout=False)
        self._record_weights(described)
        if not no_float64 and self.wish.level != "outputs":
            step = self._record_variants(step)
        further = self._record_further() if self.wish.level != "outputs" else ()
        module = registry.find(probe.side).model_module()
        return Description(
            level=self.wish.level,
            source=self.model.source,
            arguments=self.wish.arguments,
            framework=probe.side,
            model=type(probe.model).__name__,
            channels_first=module.has_channels_first(probe.model),
            versions={
                "python": platform.python_version(),
                "paripassu": __version__,
                **self.model.versions,
            },
            seed=self.wish.seed,
            inputs=tuple(self.inputs),
            blocks=described,
            passes=self.passes,
            step=step,
            further=further,
            evaluation_draws=_draw_records(self.evaluation_draws),
            training_draws=_draw_records(self.training_draws),
            random_in_training=self.random_at,
            rounded=tuple(
                RoundedRecord(serial=serial, name=x.name, why=x.why, size=x.size)
                for serial, x in self.rounded.items()
            ),
            rounding=self.rounding,
            float32_gradients=self.float32_gradients,
            own_losses=tuple(self.model.probe.own_losses),
            no_float64=no_float64,
        )

    def _find_rounding(self) -> None:
        """Find what computes in float32 although the model is set to float64."""
        model, inputs = self.model, self.inputs
        found = find_rounded(model, inputs)
        self.rounded = found.calls
        self.float32_gradients = tuple(found.gradients)
        self.rounding = effect(model, inputs, found.outputs, found.calls, self.random)

    def _record_variants(self, step: StepRecord | None) -> StepRecord | None:
        """Record the outputs with other weights, and after a step of SGD."""
        self.progress("recording with other weights", 0.9)
        model = self.model

        def gradient(block: str, name: str) -> Array | None:
            known = step is not None and name in step.gradients.get(block, {})
            return self.writer.get(f"step/gradients/{block}/{name}") if known else None

        with self._weights_put_back():
            for block in model.probe.blocks():
                moved = {
                    name: move(block.name, name, x)
                    for name, x in block.spec.weights.items()
                }
                model.probe.write(block.name, moved)
            self._record_outputs("float64-other-weights")
        if step is None:
            return None
        with self._weights_put_back():
            blocks = model.probe.blocks()
            rate = step_size(blocks, gradient)
            take_step(model, blocks, gradient, rate)
            self._record_outputs("float64-after-a-step")
        return step.model_copy(update={"rate": rate})

    def _record_further(self) -> tuple[FurtherRecord, ...]:
        """Record the outputs for further inputs: padding, masks, large values."""
        made: list[FurtherRecord] = []
        writer, given = self.writer, self.inputs
        blocks = self.model.probe.blocks()
        paddings = padding_ids(blocks)
        for probing in probings_of(given, [table_rows(blocks)], paddings):
            self.progress(f"recording {probing.name}", 0.95)
            self.inputs = probing.inputs
            try:
                outputs = self.model.run(self.inputs)
                moved = self.model.run(self.perturbed(), Perturbed(self.perturb))
            except ModelError:
                continue  # it takes no such inputs
            finally:
                self.inputs = given
            prefix = f"further/{len(made)}"
            writer.put_all(f"{prefix}/inputs", probing.inputs)
            writer.put_all(f"{prefix}/outputs", outputs)
            writer.put_all(f"{prefix}/control", moved)
            if probing.kept is not None:
                writer.put(f"{prefix}/kept", probing.kept)
            made.append(
                FurtherRecord(
                    name=probing.name,
                    why=probing.why,
                    padded=probing.padded,
                    extreme=probing.extreme,
                    kept=probing.kept is not None,
                    outputs=tuple(outputs),
                )
            )
        return tuple(made)

    @contextmanager
    def _weights_put_back(self) -> Iterator[None]:
        """Give the model the weights that were recorded, afterwards."""
        try:
            yield
        finally:
            for block in self.model.probe.blocks():
                for name in block.shapes:
                    array = self.writer.get(f"weights/{block.name}/{name}")
                    own = {name: in_float64({name: array})[name]}
                    self.model.probe.write(block.name, own)

    def _record_outputs(self, name: PassName) -> None:
        outputs = self.model.run(self.inputs)
        moved = self.model.run(self.perturbed(), Perturbed(self.perturb))
        self.writer.put_all(f"{name}/outputs", outputs)
        self.writer.put_all(f"{name}/control", moved)
        self.passes[name] = PassRecord(outputs=tuple(outputs), control=True)

    def _describe_blocks(self) -> tuple[BlockRecord, ...]:
        """What blocks of weights there are; none where outputs are all."""
        if self.wish.level == "outputs":
            return ()
        return tuple(
            BlockRecord(
                name=block.name,
                layer=block.layer,
                kind=block.kind,
                settings=self.encode_settings(block.spec.settings),
                weights=tuple(block.spec.weights),
                trainable=block.trainable,
            )
            for block in self.model.probe.blocks()
        )

    def _record_weights(self, described: Sequence[BlockRecord]) -> None:
        """Write the weights, in float64 where float32 does not hold them."""
        blocks = {x.name: x for x in self.model.probe.blocks()}
        for block in described:
            for name, array in blocks[block.name].spec.weights.items():
                self.writer.put(f"weights/{block.name}/{name}", _shortened(array))

    def _set_float64(self) -> str:
        """Let the model compute in float64; why it cannot, or nothing."""
        before = self.model.run(self.inputs)
        try:
            self.model.probe.set_dtype("float64")
        except UserError as error:
            return str(error)
        after = self.model.run(in_float64(self.inputs))
        if any(relative_error(before[x], after[x]) > REMADE for x in before):
            self.steps = False  # another model is there now
            return (
                "made anew from its configuration, it computes something else. Give a "
                "function that builds it."
            )
        return ""

    def _record_pass(
        self,
        dtype: str,
        share: float,
        *,
        training: bool = False,
        dropout: bool = True,
    ) -> None:
        name = pass_name(dtype, training=training, dropout=dropout)
        mode = ", training mode" if training else ""
        mode += "" if dropout else ", dropout off"
        self.progress(f"recording in {dtype}{mode}", share)
        level: Level = "boundaries" if training else self.wish.level
        watcher = _Keeper(self, name, level)
        outputs = self.model.run(self.inputs, watcher, training=training)
        self.writer.put_all(f"{name}/outputs", outputs)
        calls = watcher.calls
        for own in (False, True):
            if own and self.wish.level == "outputs":
                break
            self.progress(
                f"recording in {dtype}{mode}: the one-ulp control", share + 0.1
            )
            control = _Control(self, calls, own=own)
            shifted = Perturbed(self.perturb, control)
            moved = self.model.run(self.perturbed(), shifted, training=training)
            kind = "own-control" if own else "control"
            self.writer.put_all(f"{name}/{kind}", moved)
            field_name = kind.replace("-", "_")
            calls = [
                x.model_copy(update={field_name: control.errors.get(n)})
                for n, x in enumerate(calls)
            ]
        self.passes[name] = PassRecord(
            outputs=tuple(outputs),
            calls=tuple(calls) if self.wish.level != "outputs" else (),
            control=True,
            own_control=self.wish.level != "outputs",
        )

    def _record_step(self, dtype: DType) -> StepRecord:
        self.progress("recording gradients", 0.7)
        writer, model = self.writer, self.model
        outputs = model.run(self.inputs)
        cotangents = {
            name: self.random.standard_normal(x.shape) for name, x in outputs.items()
        }
        writer.put_all("step/cotangents", cotangents)
        step = model.step(self.inputs, cotangents)
        writer.put_all("step/outputs", step.outputs)
        for block, arrays in step.gradients.items():
            writer.put_all(f"step/gradients/{block}", arrays)
        writer.put_all("step/input-gradients", step.input_gradients)
        for block, arrays in step.statistics.items():
            writer.put_all(f"step/statistics/{block}", arrays)
        made = StepRecord(
            dtype=dtype,
            outputs=tuple(step.outputs),
            gradients={},
            statistics={k: tuple(x) for k, x in step.statistics.items()},
        )
        del step
        control = perturbed_step(model, self.inputs, cotangents, self.perturb)
        writer.put_all("step/control", control.outputs)
        moved = {
            block: {
                name: finite(
                    relative_error(writer.get(f"step/gradients/{block}/{name}"), x)
                )
                for name, x in arrays.items()
            }
            for block, arrays in control.gradients.items()
        }
        inputs = {
            name: finite(
                relative_error(writer.get(f"step/input-gradients/{name}"), array)
            )
            for name, array in control.input_gradients.items()
        }
        return made.model_copy(update={"gradients": moved, "input_gradients": inputs})

    def perturb(self, array: Array) -> Array:
        """Each value moved by one unit in the last place."""
        return perturb_one_ulp(array, self.random)

    def perturbed(self) -> Arrays:
        """The inputs moved by one unit in the last place."""
        return {name: self.perturb(x) for name, x in self.inputs.items()}

    def encode_settings(self, settings: Mapping[str, object]) -> dict[str, object]:
        """A layer's settings as JSON, arrays in files of the recording."""

        def keep(array: Array) -> str:
            return self.writer.keep(f"settings/{len(self.writer.known)}", array)

        return {k: encode(x, keep) for k, x in settings.items()}


class _Plan(Blind):
    """How much there is to record, and what feeds which call.

    Attributes:
        bytes: of the arrays of all calls, equal ones once.
        bytes_of_layers: of layers with weights.
        sources: of each call, with its name.
    """

    def __init__(self) -> None:
        self.bytes = self.bytes_of_layers = 0
        self.sources: list[tuple[str, tuple[int, ...]]] = []
        self._seen: set[bytes] = set()

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Note it."""
        self.sources.append((call.name, call.sources))
        self._count(call, inputs)

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Note it."""
        self._count(call, outputs)

    def _count(self, call: Call, arrays: Sequence[Array]) -> None:
        for array in arrays:
            digest = bytes(hash_arrays([np.ascontiguousarray(array)]))
            if digest not in self._seen:
                self._seen.add(digest)
                self.bytes += array.nbytes
                self.bytes_of_layers += array.nbytes * call.weighted


def _shortened(weight: Array) -> Array:
    """A weight in float32, if that holds it; it is a sum of two where not."""
    if weight.dtype != np.float64:
        return weight
    single = weight.astype(np.float32)
    return single if np.array_equal(single.astype(np.float64), weight) else weight


@dataclass
class _Keeper:
    """Writes the calls of a run."""

    recorder: Recorder
    pass_name: str
    level: Level
    calls: list[CallRecord] = field(default_factory=list)

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Write the inputs."""
        planned = self.recorder.plan.sources
        known = call.serial < len(planned) and planned[call.serial][0] == call.name
        self.calls.append(
            CallRecord(
                name=call.name,
                title=call.title,
                kind=call.kind,
                settings=self.recorder.encode_settings(call.spec.settings),
                weights=tuple(call.spec.weights),
                sources=planned[call.serial][1] if known else (),
                inside=call.inside,
                line=call.line,
                inputs=self._keep(call, "in", inputs),
            )
        )

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Write the outputs."""
        self.calls[call.serial] = self.calls[call.serial].model_copy(
            update={
                # Once more: a dropout at work knows its rate by now.
                "settings": self.recorder.encode_settings(call.spec.settings),
                "outputs": self._keep(call, "out", outputs),
                "shape": outputs[0].shape if outputs else None,
            }
        )

    def _keep(self, call: Call, end: str, arrays: Sequence[Array]) -> tuple[str, ...]:
        if self.level == "outputs" or (self.level != "full" and not call.weighted):
            return ()
        prefix = f"{self.pass_name}/calls/{call.serial}/{end}"
        keep = self.recorder.writer.keep
        return tuple(keep(f"{prefix}/{n}", x) for n, x in enumerate(arrays))


def _draw_records(draws: Sequence[Draw]) -> tuple[DrawRecord, ...]:
    return tuple(DrawRecord(**asdict(x)) for x in draws)


@dataclass
class _Control:
    """Measures how far calls move from those that were recorded.

    Attributes:
        own: give each layer with weights its recorded arrays, moved by one ulp.
        errors: of the first input and output of each call.
    """

    recorder: Recorder
    calls: Sequence[CallRecord]
    own: bool
    errors: dict[int, tuple[float | None, float | None]] = field(default_factory=dict)

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Compare, and perhaps replace."""
        error, given = self._compare(call, "inputs", data_inputs(call, inputs))
        self.errors[call.serial] = error, None
        return given

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Compare, and perhaps replace."""
        error, given = self._compare(call, "outputs", outputs[:1])
        self.errors[call.serial] = self.errors[call.serial][0], error
        return given

    def _compare(
        self, call: Call, end: str, arrays: Sequence[Array]
    ) -> tuple[float | None, Sequence[Array] | None]:
        if call.serial >= len(self.calls):
            return None, None
        kept = [
            self.recorder.writer.get(x)
            for x in getattr(self.calls[call.serial], end)[: len(arrays)]
        ]
        if not kept:
            return None, None
        worst = max(relative_error(x, y) for x, y in zip(kept, arrays, strict=True))
        replaces = self.own and call.weighted
        return finite(worst), [*map(self.recorder.perturb, kept)] if replaces else None
