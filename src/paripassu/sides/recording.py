"""A recording: what a model computed, in a folder; docs/recording.md describes it.

`recording.json` says what there is, safetensors files hold the arrays. Nothing in either
is code, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors import safe_open

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array
from paripassu.core.version import __version__, from_repository
from paripassu.sides.contract import Arrays
from paripassu.sides.recording_place import SUFFIX, TEXT, Level

FORMAT: Literal["paripassu recording"] = "paripassu recording"
VERSION: Literal[1] = 1
PART_BYTES = 2**25  # of arrays that wait to be written
ADVICE = "Record it again: paripassu record MODEL --input SHAPE --out"

# What `decode` raises for what `encode` has not made.
UNDECODABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

PassName = Literal[
    "float32",
    "float64",
    "float32-training",
    "float64-training",
    "float32-no-dropout",
    "float64-no-dropout",
    "float64-other-weights",
    "float64-after-a-step",
]
# Of the model with other weights; see `port_check.behaviour`.
Variant = Literal["other-weights", "after-a-step"]


class Frozen(BaseModel):
    """A part of recording.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BlockRecord(Frozen):
    """A block of weights; the arrays are `weights/BLOCK/WEIGHT`.

    Attributes:
        name, layer, kind, trainable: as `contract.Block` has them.
        settings: see `encode`.
        weights: names.
    """

    name: str
    layer: str
    kind: str
    settings: dict[str, Any] = {}
    weights: tuple[str, ...]
    trainable: bool = True


class CallRecord(Frozen):
    """A call, as `contract.Call` has it.

    Attributes:
        settings: see `encode`.
        weights: under what names the layer has them.
        line: of the user's code that called it, `file.py:12`.
        inputs, outputs: names of arrays; none where the level leaves them out.
        shape: of its first output.
        control: what one ulp at the model's inputs does to its first input and output,
            relative; None: not measured, or not finite.
        own_control: the same where each layer with weights is given its own inputs
            moved by one ulp.
    """

    name: str
    title: str
    kind: str
    settings: dict[str, Any] = {}
    weights: tuple[str, ...] = ()
    sources: tuple[int, ...] = ()
    inside: tuple[str, ...] = ()
    line: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    shape: Annotated[tuple[NonNegativeInt, ...], Field(max_length=32)] | None = None
    control: tuple[float | None, float | None] | None = None
    own_control: tuple[float | None, float | None] | None = None


class PassRecord(Frozen):
    """One pass forward; the outputs are the arrays `PASS/outputs/NAME`.

    Attributes:
        outputs: their names, in order.
        calls: in order.
        control, own_control: whether there are `PASS/control/NAME` and
            `PASS/own-control/NAME`, the outputs after a move by one ulp.
    """

    outputs: tuple[str, ...]
    calls: tuple[CallRecord, ...] = ()
    control: bool = False
    own_control: bool = False


class DrawRecord(Frozen):
    """What the model drew, as `contract.Draw` has it."""

    place: str
    kind: str
    rate: float | None = None
    size: int
    after: str = ""
    line: str = ""
    shared: bool = True


class StepRecord(Frozen):
    """One pass forward and back in training mode.

    The arrays are `step/cotangents/OUTPUT`, `step/outputs/OUTPUT`,
    `step/control/OUTPUT`, `step/gradients/BLOCK/WEIGHT`, `step/input-gradients/INPUT`
    and `step/statistics/BLOCK/WEIGHT`.

    Attributes:
        dtype: in which the model computed.
        outputs: names.
        gradients: by block and weight, how far one ulp at the inputs moves it,
            relative; None: not finite.
        input_gradients: the same, of inputs by name.
        statistics: names of weights by block.
        rate: the learning rate of the step of SGD that leads to the pass
            "float64-after-a-step".
    """

    dtype: Literal["float32", "float64"] = "float64"
    outputs: tuple[str, ...]
    gradients: dict[str, dict[str, float | None]]
    input_gradients: dict[str, float | None] = {}
    statistics: dict[str, tuple[str, ...]] = {}
    rate: float = 0.0


class RoundedRecord(Frozen):
    """A call that rounds to float32 while the model computes in float64.

    Attributes:
        serial: which call it is.
        name: of the layer or function.
        why: what was seen.
        size: the relative error that it makes.
    """

    serial: int
    name: str
    why: str
    size: float


class FurtherRecord(Frozen):
    """Further inputs, and what the model gave for them in evaluation mode.

    The arrays are `further/N/inputs/NAME`, `further/N/outputs/NAME`,
    `further/N/control/NAME` and perhaps `further/N/kept`, N counted from 0.

    Attributes:
        name, why, padded, extreme: as `port_check.probing.Probing` has them.
        kept: whether it is said which steps are no padding.
        outputs: names.
    """

    name: str
    why: str
    padded: bool = False
    extreme: bool = False
    kept: bool = False
    outputs: tuple[str, ...]


class Description(Frozen):
    """The whole of recording.json.

    Attributes:
        parts: the safetensors files.
        source: where the model came from, as it was typed.
        arguments: that it was made with, JSON.
        framework: the name of a side, or anything else.
        model: the name of its class.
        channels_first: whether its images have their channels at axis 1, if known.
        versions: of Python, Pari passu and what the framework imports.
        seed: of drawn inputs and cotangents (NumPy's Philox); None: given ones.
        inputs: names, in order; the arrays are `inputs/NAME`.
        blocks: of weights, in order.
        passes: by name: in evaluation mode "float32" and "float64"; in training mode
            "float64-training" and, where it drops, "float64-no-dropout"; and
            "float64-other-weights" and "float64-after-a-step".
        step: a step of training.
        evaluation_draws, training_draws: what is random in it, but draws the same in
            every model.
        further: further inputs, in the last float type that the passes are in.
        random_in_training: the first call that is random in training mode all the same.
        rounded: calls that round to float32 in the pass in float64.
        rounding: what they do to the outputs, relative.
        float32_gradients: those whose gradient alone does, in words.
        own_losses: losses that the model adds by itself, in words; not in the step.
        no_float64: why there is no pass in float64.
    """

    format: Literal["paripassu recording"] = FORMAT
    version: Literal[1] = VERSION
    level: Level = "outputs"
    parts: tuple[str, ...] = ("arrays.safetensors",)
    source: str = ""
    arguments: str | None = None
    framework: str = ""
    model: str = ""
    channels_first: bool | None = None
    versions: dict[str, str] = {}
    seed: int | None = None
    inputs: tuple[str, ...]
    blocks: tuple[BlockRecord, ...] = ()
    passes: dict[PassName, PassRecord] = Field(min_length=1)
    step: StepRecord | None = None
    further: tuple[FurtherRecord, ...] = ()
    evaluation_draws: tuple[DrawRecord, ...] = ()
    training_draws: tuple[DrawRecord, ...] = ()
    random_in_training: str | None = None
    rounded: tuple[RoundedRecord, ...] = ()
    rounding: float = 0.0
    float32_gradients: tuple[str, ...] = ()
    own_losses: tuple[str, ...] = ()
    no_float64: str = ""


def pass_name(dtype: str, *, training: bool, dropout: bool = True) -> PassName:
    """What a pass is called in a recording; `dropout`: of training mode."""
    more = ("-training" if dropout else "-no-dropout") if training else ""
    name: PassName = f"{dtype}{more}"  # type: ignore[assignment]
    return name


def encode(value: Any, keep: Callable[[Array], str]) -> Any:
    """A setting as JSON: tuples as {"tuple": [...]}, arrays as {"array": NAME}.

    Args:
        value: of `LayerSpec.settings`.
        keep: takes an array and gives its name in the recording.
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return {"array": keep(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return {"tuple": [encode(x, keep) for x in value]}
    if isinstance(value, list):
        return [encode(x, keep) for x in value]
    if isinstance(value, Mapping):
        return {"dict": {str(k): encode(x, keep) for k, x in value.items()}}
    return {"text": str(value)}


def decode(value: Any, read: Callable[[str], Array]) -> Any:
    """What `encode` was given; `read` gives an array by its name."""
    if isinstance(value, list):
        return [decode(x, read) for x in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tuple":
        return tuple(decode(x, read) for x in inner)
    if kind == "dict":
        return {k: decode(x, read) for k, x in inner.items()}
    if kind == "array":
        return read(inner)
    return float(inner) if kind == "float" else inner


class Recording:
    """A recording that is read: its description, and arrays as they are asked for.

    Args:
        path: the folder.

    Raises:
        UserError: it is none, of a newer version, or not whole.
    """

    def __init__(self, path: Path):
        self.path = path
        self.description = _describe(path)
        self.index: dict[str, Path] = {}
        for part in self.description.parts:
            if Path(part).name != part:
                raise UserError(f"{path / TEXT}: a part {part!r} lies elsewhere.")
            if not part.isprintable():  # as a name with a zero, which no system opens
                raise UserError(f"{path / TEXT}: {part!r} cannot be a file's name.")
            with self._open(path / part) as file:
                self.index |= dict.fromkeys(file.keys(), path / part)
        if missing := [x for x in array_names(self.description) if x not in self.index]:
            raise UserError(
                f"{path} is not whole: {TEXT} speaks of the array {missing[0]!r}, which "
                f"no file of it holds ({', '.join(self.description.parts)}). "
                f"{ADVICE} {path}"
            )
        self._check_settings()

    def _check_settings(self) -> None:
        """Find settings that `decode` cannot read now, not in the middle of a check."""
        found = self.description
        calls = (call for one in found.passes.values() for call in one.calls)
        owners: list[BlockRecord | CallRecord] = [*found.blocks, *calls]
        for owner in owners:
            try:
                for value in owner.settings.values():
                    decode(value, self._known)
            except UNDECODABLE as error:
                raise UserError(
                    f"{self.path / TEXT}: the settings of {owner.name} are not as "
                    f"docs/recording.md describes them ({error!r})."
                ) from None

    def _known(self, name: str) -> Array:
        """An empty array in place of one that is there; `KeyError` if it is not."""
        if name not in self.index:
            raise KeyError(name)
        return np.empty(0)

    @contextlib.contextmanager
    def _open(self, part: Path) -> Iterator[Any]:
        files.check_regular(part)
        try:
            with safe_open(part, framework="numpy") as file:
                yield file
        except FileNotFoundError:
            raise UserError(
                f"{self.path} is not whole: {part.name} is missing. {ADVICE} "
                f"{self.path}"
            ) from None
        except files.UNREADABLE as error:
            raise UserError(
                f"{part} is not a whole safetensors file ({error}). {ADVICE} "
                f"{self.path}"
            ) from error

    def read(self, name: str) -> Array:
        """One array."""
        with self._open(self.index[name]) as file:
            array: Array = file.get_tensor(name)
            return array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one array."""
        with self._open(self.index[name]) as file:
            return tuple(file.get_slice(name).get_shape())

    def read_all(self, prefix: str, names: Iterable[str]) -> Arrays:
        """Arrays by name, which lie under `prefix`."""
        return {name: self.read(f"{prefix}/{name}") for name in names}

    @property
    def inputs(self) -> Arrays:
        """The inputs, as they were given to the model in float32."""
        return self.read_all("inputs", self.description.inputs)


def array_names(found: Description) -> Iterator[str]:
    """The names of all arrays that a description speaks of, but for settings."""
    yield from (f"inputs/{x}" for x in found.inputs)
    for block in found.blocks:
        yield from (f"weights/{block.name}/{x}" for x in block.weights)
    for name, one in found.passes.items():
        kinds = {"outputs": True, "control": one.control}
        for kind, there in {**kinds, "own-control": one.own_control}.items():
            yield from (f"{name}/{kind}/{x}" for x in one.outputs if there)
        for call in one.calls:
            yield from (*call.inputs, *call.outputs)
    for number, more in enumerate(found.further):
        prefix = f"further/{number}"
        yield from (f"{prefix}/inputs/{x}" for x in found.inputs)
        for kind in ("outputs", "control"):
            yield from (f"{prefix}/{kind}/{x}" for x in more.outputs)
        yield from [f"{prefix}/kept"] * more.kept
    if step := found.step:
        for kind in ("cotangents", "outputs", "control"):
            yield from (f"step/{kind}/{x}" for x in step.outputs)
        for kind, names in (
            ("gradients", step.gradients),
            ("statistics", step.statistics),
        ):
            for block_name, weights in names.items():
                yield from (f"step/{kind}/{block_name}/{x}" for x in weights)
        yield from (f"step/input-gradients/{x}" for x in step.input_gradients)


def _describe(path: Path) -> Description:
    if not path.exists():
        raise UserError(f"there is no recording {path}. {ADVICE} {path}")
    if not (path / TEXT).is_file():
        raise UserError(
            f"{path} is no recording: a folder with {TEXT} is expected. {ADVICE} {path}"
        )
    content = files.read_json(path / TEXT)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f'{path / TEXT} does not say "format": "{FORMAT}", so it is no recording. '
            "docs/recording.md describes one."
        )
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{path} is a recording of version {version}; this Pari passu, {__version__}, "
            f"reads up to {VERSION}. Type: pip install --upgrade '{from_repository()}'"
        )
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path / TEXT}: {place}: {first['msg']}. docs/recording.md describes it."
        ) from error


class Writer:
    """Writes a recording's arrays, a part at a time; equal arrays once.

    Args:
        folder: a new one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts: list[str] = []
        self.waiting: dict[str, Array] = {}
        self.bytes = 0
        self.index: dict[str, Path] = {}
        self.known: dict[bytes, str] = {}

    def put(self, name: str, array: Array) -> None:
        """Write an array under a name of its own."""
        if name in self.waiting or name in self.index:
            raise UserError(f"two arrays of the model would both be named {name!r}.")
        array = np.array(array, order="C")
        self.waiting[name] = array
        self.bytes += array.nbytes
        if self.bytes >= PART_BYTES:
            self.flush()

    def put_all(self, prefix: str, arrays: Mapping[str, Array]) -> tuple[str, ...]:
        """Write arrays under `prefix`; their names."""
        for name, array in arrays.items():
            self.put(f"{prefix}/{name}", array)
        return tuple(arrays)

    def keep(self, name: str, array: Array) -> str:
        """Write an array if none of the same bits is there; the name that it has."""
        array = np.asarray(array, order="C")
        digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
        found = self.known.setdefault(digest.digest(), name)
        if found == name:
            self.put(name, array)
        return found

    def get(self, name: str) -> Array:
        """An array that was written."""
        if name in self.waiting:
            return self.waiting[name]
        with safe_open(self.index[name], framework="numpy") as file:
            array: Array = file.get_tensor(name)
            return array

    def flush(self) -> None:
        """Write what waits."""
        if self.waiting:
            part = f"arrays-{len(self.parts) + 1:04}.safetensors"
            files.write_tensors(self.folder / part, self.waiting)
            self.parts.append(part)
            self.index |= dict.fromkeys(self.waiting, self.folder / part)
        self.waiting, self.bytes = {}, 0

    def finish(self, description: Description) -> None:
        """Write the rest, and what there is."""
        self.flush()
        made = description.model_copy(update={"parts": tuple(self.parts)})
        text = json.dumps(made.model_dump(mode="json"), allow_nan=False)
        files.write_text(self.folder / TEXT, text + "\n")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write a recording whole or not at all; `Writer.finish` makes it whole.

    What was there before is replaced if it was a recording, at the very end.

    Raises:
        UserError: something else is there, or the folder cannot be written to.
    """
    check_place(path)
    parent = files.make_folder(path.resolve().parent)
    prefix = f".{path.name}."
    with files.temporary_folder(parent, prefix) as folder:
        yield Writer(folder)
        with files.explained(path):
            folder.chmod(0o755)
            if not (folder / TEXT).exists():
                return
            if path.exists():
                old = folder.with_name(folder.name.replace(prefix, f"{prefix}old"))
                path.replace(old)
                folder.replace(path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                folder.replace(path)


def check_place(path: Path) -> None:
    """Refuse to replace anything but a recording.

    Raises:
        UserError: there is something else.
    """
    if path.exists() and not (path / TEXT).is_file():
        raise UserError(
            f"{path} is there already and is no recording. Choose another name with "
            f"--out, such as {path.with_suffix('')}-2{SUFFIX}."
        )
