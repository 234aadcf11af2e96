"""Opens both models and finds their inputs and outputs, before they are compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.examine import Examination, Options
from paripassu.port_check.examined import (
    ExaminedModel,
    ModelError,
    as_float32_holds,
)
from paripassu.port_check.input_pairs import (
    Layout,
    arrangements,
    describe_pairs,
    describe_takes,
    fill_in,
    name_inputs,
    pair_inputs,
)
from paripassu.port_check.makers import Makers
from paripassu.port_check.output_pairs import Paired, describe_partners, find_outputs
from paripassu.port_check.outputs import OutputsExamination
from paripassu.port_check.recordings import RecordingsExamination
from paripassu.port_check.results import Partner
from paripassu.port_check.runs import Progress
from paripassu.sides import registry, user_code
from paripassu.sides.contract import Arrays, Block, Declared, ModelModule, Probe
from paripassu.sides.recorded import RecordedProbe
from paripassu.sides.recording import Recording

AnyExamination = Examination | OutputsExamination | RecordingsExamination
Inputs = list[targets.Wanted] | Arrays | None


def prepare(
    left: targets.Target,
    right: targets.Target,
    inputs: Inputs,
    options: Options | None = None,
    progress: Progress = lambda _text, _share: None,
) -> AnyExamination:
    """Open both models, find the right one's inputs, and which outputs are the same.

    Raises:
        UserError: a model is of no framework that we know, inputs or outputs do not
            fit, or a model raised.
    """
    options = options or Options()
    if isinstance(right.model, Recording):
        if isinstance(left.model, Recording):
            return _prepare_recordings(left, right, inputs, options, progress)
        raise UserError(
            f"{right.source} is a recording, which can be the left model only. "
            f"Type: paripassu check {right.source} {left.source}"
        )
    with users_crash_told():
        if isinstance(left.model, Recording):
            one, given, notes = _open_recording(left, inputs, options)
        else:
            one, given, notes = open_with_inputs(left, "left", inputs)
        return _pair(one, given, right, options, progress, notes)


def _prepare_recordings(
    left: targets.Target,
    right: targets.Target,
    inputs: Inputs,
    options: Options,
    progress: Progress,
) -> RecordingsExamination:
    """The same where both are recordings."""
    _refuse_accepting(options)
    if inputs is not None or options.copy or options.block_map:
        raise UserError(
            f"{left.source} and {right.source} are recordings: they hold their inputs, "
            "take no weights, and are compared by name."
        )
    first, second = (
        ExaminedModel(
            which, RecordedProbe(x.model), x.source, x.model.description.versions
        )
        for which, x in (("left", left), ("right", right))
    )
    return RecordingsExamination(first, second, progress)


def _refuse_accepting(options: Options) -> None:
    """Where models' layers are not compared, nothing says what else may differ."""
    if options.accept:
        raise UserError(
            "differences are accepted where layers are compared, but the recording "
            "that is given is compared by its arrays alone. Check the models."
        )


def _pair(
    left: ExaminedModel,
    given: Arrays,
    target: targets.Target,
    options: Options,
    progress: Progress,
    notes: list[str],
) -> Examination | OutputsExamination:
    side = _side_of(target, "right")
    module = _module_of(side, "right")
    first = module.has_channels_first(target.model)
    same = left.probe.side == side.name
    layout = Layout(
        _has_channels_first(left, default=first if same else None),
        first,
        same_side=same,
    )
    makers = Makers()
    made = left.run(given, makers if layout.move else None, sources=bool(layout.move))
    takes = module.declared_inputs(target.model)
    pairs = pair_inputs(given, takes, options.pairs, layout.move)
    likely = arrangements(given, pairs, takes, layout)
    more, filled = fill_in(likely[0], takes, "right")
    likely = [x | more for x in likely]
    probe, half = _open_any(target, module, likely)
    right = ExaminedModel("right", probe, target.source, side.versions)
    fitting, others = _runs_with(right, likely)
    moved = {
        given[x.left].ndim
        for x in pairs
        if x.left and x.right and fitting[0][x.right] is not given[x.left]
    }
    plan = find_outputs(
        made,
        others,
        options.outputs,
        move=layout.move,
        spatial=makers.spatial(made, moved) if layout.move else frozenset(),
        same_side=same,
    )
    notes = [
        *notes,
        *describe_pairs(pairs, takes),
        *filled,
        *half,
        *describe_partners(plan),
    ]
    by_default = (Partner(left=None, right=x, why="by default") for x in more)
    empty = [name for name, _ in plan.pairs if not made[name].size]
    gaps = [f"output {name}, which holds no value" for name in empty]
    paired = Paired((*pairs, *by_default), plan, tuple(notes), tuple(gaps))
    inputs = given, fitting[0]
    if left.recorded and not left.recorded.found.blocks:
        _refuse_accepting(options)
        return OutputsExamination(left, right, inputs, progress, paired)
    return Examination(
        left,
        right,
        inputs,
        options,
        progress,
        paired=paired,
        alternatives=fitting[1:],
    )


def _has_channels_first(model: ExaminedModel, *, default: bool | None) -> bool:
    """Whether a model has channels first; of a recording, as it says."""
    if model.recorded and model.recorded.found.channels_first is not None:
        return model.recorded.found.channels_first
    if model.recorded is None:
        module = registry.find(model.probe.side).model_module()
        return module.has_channels_first(model.probe.model)
    usual = model.probe.side in registry.CHANNELS_FIRST
    return usual if default is None else default


def _open_recording(
    target: targets.Target, inputs: Inputs, options: Options
) -> tuple[ExaminedModel, Arrays, list[str]]:
    """A recording as the left model, with the inputs that it holds."""
    found = target.model.description
    if inputs is not None:
        raise UserError(
            f"{target.source} holds its inputs ({', '.join(found.inputs)}): give none."
        )
    if options.copy == "right-to-left":
        raise UserError(f"{target.source} is a recording and takes no weights.")
    probe = RecordedProbe(target.model)
    model = ExaminedModel("left", probe, target.source, found.versions)
    return model, target.model.inputs, []


def open_with_inputs(
    target: targets.Target, which: str, inputs: Inputs
) -> tuple[ExaminedModel, Arrays, list[str]]:
    """A model, its inputs by its own names, and what has to be said of them.

    Raises:
        UserError: it is of no framework that we know, or inputs do not fit.
    """
    side = _side_of(target, which)
    module = _module_of(side, which)
    takes = module.declared_inputs(target.model)
    if inputs is None:
        inputs = _declared(takes)
    if isinstance(inputs, list):
        inputs = targets.make_inputs(inputs, _blocks(target, module, inputs))
    inputs = as_float32_holds({name: np.asarray(x) for name, x in inputs.items()})
    given, notes = name_inputs(inputs, takes, which)
    probe, half = _open(target, module, which, given)
    model = ExaminedModel(which, probe, target.source, side.versions)
    return model, given, notes + half


@contextlib.contextmanager
def users_crash_told() -> Iterator[None]:
    """Tell a crash of the user's model as the user's."""
    try:
        yield
    except ModelError as failed:
        what = title_of(failed.which, failed.source)
        hint = ""
        if "embedding" in str(failed.error).lower() or "indices" in str(failed.error):
            hint = "\n\nWhole numbers as input are written --input 2,16:int:1000."
        raise UserError(user_code.describe_error(failed.error, what) + hint) from failed


def title_of(which: str, source: str) -> str:
    """A model for messages: `left model net.py:build`."""
    own = source.removeprefix(which).strip()
    return f"{which} model {own}".strip()


def _runs_with(
    model: ExaminedModel, likely: Sequence[Arrays]
) -> tuple[list[Arrays], Arrays]:
    """The arrangements with which a model runs, and what it gives with the first.

    Raises:
        ModelError: it runs with none; what it raised with the likeliest.
    """
    fitting, failed = [], None
    outputs: Arrays = {}
    for inputs in likely:
        try:
            made = model.run(inputs)
        except (ModelError, UserError) as error:
            failed = failed or error
            continue
        outputs = outputs or made
        fitting.append(inputs)
    if not fitting:
        assert failed is not None
        raise failed
    return fitting, outputs


def _side_of(target: targets.Target, which: str) -> registry.Side:
    side = registry.side_of_model(target.model)
    if side is None:
        raise UserError(
            f"{which}: {target.source} gives an object of type "
            f"{type(target.model).__name__}. A {registry.MODEL_TYPES} is expected."
        )
    return side


def _module_of(side: registry.Side, which: str) -> ModelModule:
    try:
        module = side.model_module()
        module.check_usable()
    except UserError as error:
        raise UserError(f"{which}: {error}") from error
    return module


def _blocks(
    target: targets.Target, module: ModelModule, wanted: list[targets.Wanted]
) -> list[Block]:
    """The model's weights, for the sizes of its tables."""
    if module.is_built(target.model):
        return module.open_model(target.model).blocks()
    if needs := [x.name for x in wanted if x.dtype == "int" and x.below is None]:
        raise UserError(
            f"--input {needs[0]}: say below the upper bound of its integers, as in "
            "2,16:int:1000."
        )
    return []


def _open_any(
    target: targets.Target, module: ModelModule, likely: Sequence[Arrays]
) -> tuple[Probe, list[str]]:
    """Open the right model, built with the first arrangement that it can take."""
    failed = None
    for number, inputs in enumerate(likely):
        fresh = target
        if number and target.build is not None:
            # A build that failed may have left weights.
            fresh = targets.Target(target.source, target.build(), target.build)
        try:
            return _open(fresh, module, "right", inputs)
        except UserError as error:
            failed = failed or error
            if target.build is None:
                break
    assert failed is not None
    raise failed


def _open(
    target: targets.Target, module: ModelModule, which: str, inputs: Arrays
) -> tuple[Probe, list[str]]:
    """Open a model, in float32 if it came in less; what has to be said of that."""
    name, make = title_of(which, target.source), target.build
    shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
    if not module.is_built(target.model):
        user_code.run(
            lambda: module.build(target.model, inputs), f"{name}, called with {shapes},"
        )
    if make is None:
        probe = module.open_model(target.model, None, inputs)
    else:
        probe = module.open_model(
            target.model,
            lambda: targets.build_noted(make, f"{name}, building it,"),
            inputs,
        )
    if (dtype := probe.float_type) in ("float32", "float64"):
        return probe, []
    probe.set_dtype("float32")
    return probe, [
        f"the {which} model came in {dtype}: it is compared in float32 and float64, "
        f"not in {dtype}"
    ]


def _declared(inputs: Mapping[str, Declared]) -> list[targets.Wanted]:
    """Inputs from what a model declares, with two examples."""
    shapes = {name: x.shape for name, x in inputs.items() if x.required}
    if not shapes or any(x is None or None in x[1:] for x in shapes.values()):
        told = f" It takes {describe_takes(inputs)}." if inputs else ""
        raise UserError(
            "--input is missing: the shape of the left model's input, as in "
            f"--input 1,3,224,224.{told}"
        )
    return [
        targets.Wanted(
            name,
            (2, *(int(x) for x in (shape or ())[1:] if x is not None)),
            "int" if inputs[name].integer else "float",
            None,
        )
        for name, shape in shapes.items()
    ]
