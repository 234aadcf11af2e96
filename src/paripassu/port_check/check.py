"""Do two models compute the same? The verbs of a check, and the map of weights."""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tomli_w
from numpy.typing import NDArray

from paripassu.core import files
from paripassu.core.errors import PariPassuError, UserError
from paripassu.port_check.acceptance import parse_acceptance
from paripassu.port_check.record import check_python, record_source
from paripassu.port_check.requests import CheckRequest, RecordRequest
from paripassu.port_check.results import NO_CAUSE, Checked, Fault, LayerCount, Pairing
from paripassu.port_check.targets import parse_pair
from paripassu.processes.launch import Event, work
from paripassu.sides.recording_place import is_recording

Copy = Literal["left-to-right", "right-to-left"]


class NotEquivalent(PariPassuError, AssertionError):
    """Two models are not equal; the message says where and why.

    Attributes:
        checked: everything that was found.
    """

    def __init__(self, checked: Checked):
        self.checked = checked
        super().__init__(explain(checked))


def check_sources(
    request: CheckRequest,
    *,
    command: str = "",
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
    on_layers: Callable[[Sequence[LayerCount]], None] = lambda _layers: None,
    left_python: Path | None = None,
    right_python: Path | None = None,
) -> Checked:
    """Check two models that are named by where they are, in a process of their own.

    Args:
        request: the models, their inputs, and what to do; `arguments.check_request`
            has let it pass.
        command: for the record.
        on_progress: called with what is being done and the share that is done.
        on_layers: called with the layers of both, before they are compared.
        left_python, right_python: the interpreter of a side, if it is not this one: the
            left model is recorded there or here, then the right one is examined.

    Raises:
        UserError: something that was given cannot be used; the message says what.
        WorkerError: the user's code crashed the process.
    """

    def on_event(event: Event) -> None:
        if event["event"] == "progress":
            on_progress(event["text"], event["done"])
        elif event["event"] == "layers":
            on_layers([LayerCount.model_validate(x) for x in event["layers"]])

    with contextlib.ExitStack() as stack:
        left = request.left
        if (left_python or right_python) and not is_recording(left):
            folder = stack.enter_context(files.scratch())
            request = _record_left(request, folder, left_python, on_progress)
        if right_python:
            check_python(right_python)
        answer = work(request, on_event, plain=True, python=right_python)
    result = Checked.model_validate(answer["result"])
    if request.left != left:
        named = result.left.model_copy(update={"source": left})
        result = result.model_copy(update={"left": named})
    return result.model_copy(update={"command": command})


def _record_left(
    request: CheckRequest,
    folder: Path,
    python: Path | None,
    on_progress: Callable[[str, float], None],
) -> CheckRequest:
    """Record the left model in a process of its own; the request to check that."""
    if request.copy_weights == "right-to-left":
        raise UserError(
            "with --left-python or --right-python the models are in two processes: "
            "weights can be copied left-to-right only. Exchange LEFT and RIGHT."
        )
    wish = RecordRequest(
        model=request.left,
        model_args=request.left_args,
        shapes=request.shapes,
        inputs=request.inputs,
        out=folder / "left.recording",
        gradients=request.gradients,
        usable_threads=request.usable_threads,
    )
    found = record_source(
        wish, lambda text, share: on_progress(f"left: {text}", share / 2), python=python
    )
    changed = {"left": str(found.path), "left_args": None, "shapes": (), "inputs": None}
    return request.model_copy(update=changed)


def check(
    left: Any,
    right: Any,
    inputs: Any = None,
    *,
    copy: Copy | None = None,
    block_map: Mapping[str, str | Sequence[str]] | None = None,
    gradients: bool = True,
    pairs: Sequence[str] | Mapping[str, str] = (),
    outputs: Sequence[str] | Mapping[str, str] = (),
    accept: Sequence[str] = (),
) -> Checked:
    """Check two models that are here, in this process.

    Args:
        left, right: a model of any framework with a side, of any mix; or a function
            of no argument that builds one, which lets Keras build it in float64. The
            left one, or both, may be the path of a recording of `record`, which has
            the inputs.
        inputs: the left model's: an array `(N, ...)`, several of them in a list or
            tuple, or in a dict by name; or texts such as "1,3,224,224" in their places
            to have them drawn. May be left out where the left model is Keras's and
            declares its shape.
        copy: "left-to-right" or "right-to-left": give one model the other's weights,
            and leave them there.
        block_map: pairs of blocks, left name to right name, that are not to be
            questioned; or a left name to a list of right ones that it fuses. Of an
            attention, `name/query` and so on are blocks, and of a fused layer
            `name[0:64]`, columns of its kernel.
        gradients: also compare training mode, gradients and BatchNorm's statistics.
        pairs: of inputs whose partner is in doubt: `["input_ids=token_ids"]`, or a
            dict of names, left to right.
        outputs: that are to be compared, where not all are: names, or pairs as above.
        accept: differences that are no faults, by cause and place: `["epsilon@norm*"]`;
            a cause alone is accepted at all places. The rest is judged without them,
            where they are a setting or weights.

    Returns:
        What was found; `.equal` is the verdict.

    Raises:
        UserError: a model or its inputs cannot be used.
    """
    from paripassu.port_check import prepare, session
    from paripassu.port_check.examine import Options

    begin = time.perf_counter()
    if copy not in (None, *get_args(Copy)):
        raise UserError(
            f"copy is {copy!r}, but one of {', '.join(get_args(Copy))} is expected."
        )
    given = take_inputs(inputs)
    found = (
        session.take(left, "left", copied=copy == "right-to-left"),
        session.take(right, "right", copied=copy == "left-to-right"),
    )
    names = (_joined(pairs), _joined(outputs))
    for text in names[0]:
        parse_pair(text, "pairs")
    accepted = [parse_acceptance(x) for x in _joined(accept)]
    options = Options(copy, block_map or {}, gradients, *names, accepted)
    with session.kept(*(x.model for x in found)):
        checked = session.examine(prepare.prepare(*found, given, options))
    return checked.model_copy(update={"seconds": time.perf_counter() - begin})


def take_inputs(inputs: Any) -> Any:
    """Inputs as a user of `check` gives them, as arrays by name, or to be drawn.

    Raises:
        UserError: they are neither numbers nor texts such as "1,3,224,224".
    """
    from paripassu.port_check import targets

    if inputs is None:
        return None
    named = {"input": inputs}
    if isinstance(inputs, Mapping):
        named = {str(name): x for name, x in inputs.items()}
    elif isinstance(inputs, list | tuple) and all(map(_is_whole_input, inputs)):
        named = {f"input{n or ''}": x for n, x in enumerate(inputs)}
    texts = [x for x in named.values() if isinstance(x, str)]
    if not texts:
        return {name: _as_array(name, x) for name, x in named.items()}
    if len(texts) < len(named):
        raise UserError(
            f"inputs has both arrays and texts ({texts[0]!r}): give all as arrays, or "
            "all as texts to be drawn."
        )
    if isinstance(inputs, Mapping):
        texts = [f"{name}={x}" for name, x in named.items()]
    return [targets.parse_input(x, n) for n, x in enumerate(texts)]


def _is_whole_input(value: Any) -> bool:
    """Whether it is an input by itself: a text or an array, no number or list."""
    return isinstance(value, str) or bool(getattr(value, "shape", ()))


def _as_array(name: str, value: Any) -> NDArray[Any]:
    """An input as an array of numbers."""
    try:
        array = np.asarray(value)
    except Exception as error:  # of whatever library it is
        raise UserError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "biufc":
        raise UserError(
            f"{name} is an array of {array.dtype}, but one of numbers is expected, a "
            'dict of them by name, or texts such as "1,3,224,224".'
        )
    return array


def _joined(names: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """`left=right` for each of a dict's names; a text alone is one."""
    if isinstance(names, str):
        return (names,)
    if isinstance(names, Mapping):
        return tuple(f"{left}={right}" for left, right in names.items())
    return tuple(names)


def assert_equivalent(
    left: Any,
    right: Any,
    inputs: Any = None,
    *,
    copy: Copy | None = None,
    block_map: Mapping[str, str | Sequence[str]] | None = None,
    gradients: bool = True,
    pairs: Sequence[str] | Mapping[str, str] = (),
    outputs: Sequence[str] | Mapping[str, str] = (),
    accept: Sequence[str] = (),
) -> None:
    """Raise if two models do not compute the same; for tests.

    Args:
        left, right, inputs, copy: as of `check`.
        block_map, gradients, pairs, outputs, accept: as of `check`.

    Raises:
        NotEquivalent: an AssertionError that says where they part, and why.
        UserError: a model or its inputs cannot be used.
    """
    found = check(
        left,
        right,
        inputs,
        copy=copy,
        block_map=block_map,
        gradients=gradients,
        pairs=pairs,
        outputs=outputs,
        accept=accept,
    )
    if not found.equal:
        raise NotEquivalent(found)


def explain(checked: Checked) -> str:
    """Say why two models are not equal, or not decided, in a few lines."""
    lines = [
        f"{checked.headline} ({checked.left.source} and {checked.right.source}):",
        *(f"  {x.name}: {x.detail}" for x in checked.checks if x.state == "fails"),
        *(f"  at {describe_fault(x)}" for x in checked.faults),
        *(f"  accepted: {describe_fault(x.fault)}" for x in checked.accepted),
        *([f"  {checked.unused_told}"] if checked.unused else []),
        *(f"  not compared: {x}" for x in checked.not_compared),
    ]
    return "\n".join(lines)


def describe_fault(fault: Fault) -> str:
    """A fault in a line: both names, the size, the cause."""
    size = "" if fault.size is None else f", {fault.size:.1e} apart"
    cause = fault.cause
    why = NO_CAUSE if cause is None else f"{cause.key}: {cause.sentence}"
    return f"{' / '.join(fault.at)} ({fault.phase}{size}): {why}"


def read_map(path: Path) -> dict[str, str | list[str]]:
    """Pairs of blocks from a TOML file.

    Returns:
        Left names to right names, or to a list of right names that the left block
        holds side by side. A name may be that of a piece: see `pieces`.

    Raises:
        UserError: it is not one; with an example.
    """
    example = (
        'For example:\n\n[blocks]\n"layer1.0.conv1" = "conv2d_3"\n'
        '"attn.qkv" = ["mha/query", "mha/key", "mha/value"]'
    )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the map {path} cannot be read: {error}. {example}") from error
    except RecursionError:
        deep = "arrays or tables lie too deep within each other"
        raise UserError(f"the map {path} cannot be read: {deep}. {example}") from None
    blocks = content.get("blocks")
    if not isinstance(blocks, dict) or not all(map(_is_name, blocks.values())):
        raise UserError(f"the map {path} has no table of names, [blocks]. {example}")
    return dict(blocks)


def _is_name(value: Any) -> bool:
    """Whether it is a name, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(x, str) for x in values)


def write_map(path: Path, checked: Checked) -> None:
    """Write the pairs that were found, to be edited and given back with --map."""
    whole = [x for x in checked.pairs if x.left and x.right and _is_comparable(x)]
    pairs = {x.left: x.right for x in whole}
    doubts = [f"# {x.left}: {x.doubt}\n" for x in checked.pairs if x.left and x.doubt]
    alone = [f"# only left: {x.left}\n" for x in checked.pairs if x.right is None]
    alone += [f"# only right: {x.right}\n" for x in checked.pairs if x.left is None]
    head = f"# {checked.left.source} = {checked.right.source}\n"
    files.write_text(
        path, head + "".join(doubts + alone) + "\n" + tomli_w.dumps({"blocks": pairs})
    )


def _is_comparable(pairing: Pairing) -> bool:
    """Whether a weight of the one can be one of the other's."""
    return any(x.state in ("equal", "differs") for x in pairing.weights)
