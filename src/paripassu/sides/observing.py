"""What both sides share: weights where they lie, and calls told to a watcher."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

import numpy as np

from paripassu.core.errors import PariPassuError, UserError
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides import user_code
from paripassu.sides.contract import ANY, Arrays, Block, Call, Declared, Live, Watcher

Settings = dict[str, Any]
Path = tuple[str | int, ...]  # where a value lies in a nest: names and numbers
NEST_DEPTH = 8


@dataclass(frozen=True)
class Move:
    """How a weight's axes move to the canonical ones and back."""

    there: Callable[[Array], Array] = np.asarray
    back: Callable[[Array], Array] = np.asarray


SAME = Move()


@dataclass(frozen=True)
class Slot:
    """A weight in a framework's tensor or variable, or in some rows of it."""

    holder: Any
    move: Move = SAME
    rows: tuple[int, int] | None = None

    def cut(self, whole: Any) -> Any:
        """Its rows of what holds it, or all."""
        return whole if self.rows is None else whole[slice(*self.rows)]


@dataclass(frozen=True)
class Part:
    """A block of weights in a layer; see `paripassu.sides.contract.Block`.

    A side says how an array is got from what holds it, and how one is written there.
    """

    name: str
    layer: str
    kind: str
    settings: Settings = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    second_bias: Any = None  # added to "bias"

    def to_array(self, holder: Any) -> Array:
        """What it holds."""
        raise NotImplementedError

    def assign(self, slot: Slot, array: Array) -> None:
        """Write an array, with the framework's axes."""
        raise NotImplementedError

    @property
    def holders(self) -> list[Any]:
        """All that hold its weights."""
        more = [] if self.second_bias is None else [self.second_bias]
        return [slot.holder for slot in self.slots.values()] + more

    def read(self, slopes: Mapping[int, Array] | None = None) -> Arrays:
        """Weights with canonical axes; with `slopes`, gradients by holders' ids."""
        found = {}
        for name, slot in self.slots.items():
            if slopes is None:
                array = self.to_array(slot.holder)
            elif id(slot.holder) in slopes:
                array = slopes[id(slot.holder)]
            else:
                continue
            array = slot.move.there(slot.cut(array))
            if name == "bias" and self.second_bias is not None and slopes is None:
                array = array + self.to_array(self.second_bias)
            found[name] = array
        return found

    def spec(self) -> LayerSpec:
        """Kind, settings and weights, which are read when they are asked for."""
        shapes = {}
        for name, slot in self.slots.items():
            zeros = np.broadcast_to(np.float32(0), tuple(slot.holder.shape))
            shapes[name] = slot.move.there(slot.cut(zeros)).shape
        return LayerSpec(self.kind, self.settings, Live(shapes, self._read_one))

    def _read_one(self, name: str) -> Array:
        return replace(self, slots={name: self.slots[name]}).read()[name]

    def write(self, weights: Mapping[str, Array]) -> None:
        """Copy canonical weights in."""
        for name, array in weights.items():
            slot = self.slots[name]
            self.assign(slot, np.ascontiguousarray(slot.move.back(array)))
            if name == "bias" and self.second_bias is not None:
                zeros = np.zeros_like(self.to_array(self.second_bias))
                self.assign(Slot(self.second_bias), zeros)


# Of settings that are an attribute: its name, and the value of it that is meant.
Attributes = Mapping[str, tuple[str, Callable[[Any], Any]]]


P = TypeVar("P", bound=Part)


def parameters(
    part: type[P],
    layer: str,
    arrays: Iterable[tuple[str, Any]],
    but: Iterable[Part] = (),
) -> Iterator[P]:
    """A block for each array that a layer has by itself.

    Args:
        part: a side's own blocks.
        layer: its name.
        arrays: by the names of the blocks, what holds them.
        but: blocks that hold some of them already.
    """
    known = {id(x) for block in but for x in block.holders}
    for name, holder in arrays:
        if id(holder) not in known:
            yield part(name, layer, "parameter", {}, {"value": Slot(holder)})


def change_settings(
    layer: Any, settings: Settings, attributes: Attributes
) -> Callable[[], None] | None:
    """Give a layer other settings; see `paripassu.sides.contract.Probe.change_settings`."""
    fresh = {}
    for name, value in settings.items():
        attribute, meant = attributes.get(name, ("", float))
        if not hasattr(layer, attribute):
            return None
        fresh[attribute] = meant(value)
    before = {name: getattr(layer, name) for name in fresh}

    def put_back() -> None:
        for name, value in before.items():
            setattr(layer, name, value)

    for name, value in fresh.items():
        setattr(layer, name, value)
    return put_back


def without_repeats(parts: Iterable[Part]) -> dict[str, Part]:
    """Parts by name, without those whose weights have come before."""
    found, seen = {}, set[int]()
    for part in parts:
        ids = set(map(id, part.holders))
        if not ids <= seen:
            seen |= ids
            found[part.name] = part
    return found


def blocks_of(parts: Mapping[str, Part], trainable: Iterable[Any]) -> list[Block]:
    """Blocks as the contract has them; `trainable` hold what training changes."""
    trained = set(map(id, trainable))
    return [
        Block(name, x.layer, x.spec(), any(id(y) in trained for y in x.holders))
        for name, x in parts.items()
    ]


def statistics_of(parts: Mapping[str, Part]) -> dict[str, Arrays]:
    """The running statistics of every BatchNorm, copied."""
    return {
        name: {k: x.copy() for k, x in part.read().items() if k in ("mean", "variance")}
        for name, part in parts.items()
        if part.kind == "batch_norm"
    }


def _arrays(value: Any) -> list[Array]:
    """All NumPy arrays in nested tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [x for item in value for x in _arrays(item)]
    return []


class WatchError(PariPassuError):
    """Watching a model failed: an error of this package, not of the user's code."""


@contextlib.contextmanager
def our_errors() -> Iterator[None]:
    """Tell an error of this package from one of the model that is watched."""
    try:
        yield
    except PariPassuError:
        raise
    except Exception as error:
        raise WatchError(f"{type(error).__name__}: {error}") from error


class LazyArrays(Sequence[Array]):
    """Arrays of tensors, each made when it is first asked for.

    A model may change its tensors later: a watcher asks while it is told of the call.
    """

    def __init__(self, tensors: Sequence[Any], to_array: Callable[[Any], Array]):
        self._tensors, self._to_array = tensors, to_array
        self._made: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._tensors)

    @overload
    def __getitem__(self, at: int) -> Array: ...
    @overload
    def __getitem__(self, at: slice) -> list[Array]: ...
    def __getitem__(self, at: int | slice) -> Array | list[Array]:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        if number not in self._made:
            self._made[number] = self._to_array(self._tensors[number])
        return self._made[number]


class Observer:
    """Tells a watcher of each call; a side says what a tensor is.

    Args:
        watcher: what is told.
        inputs: of the model, where the sources of calls are wanted.
    """

    title = ""

    def __init__(self, watcher: Watcher, inputs: Sequence[Any] | None = None):
        self.watcher = watcher
        self.serial, self.depth = 0, 0
        self.latest: Call | None = None  # at work while depth is not 0
        self.latest_weighted = ""
        self.origins = None if inputs is None else {id(x): -1 for x in inputs}
        self.varying = {-1}  # serials of calls that hang on the model's inputs
        self.alive: list[Any] = [inputs]  # an id is one tensor's as long as it lives
        self.inside: list[str] = []

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor of the framework."""
        raise NotImplementedError

    def to_last(self, tensor: Any, spec: LayerSpec, layer: Any) -> Array:
        """An array with channels last, where the call has them elsewhere."""
        raise NotImplementedError

    def from_last(self, array: Array, spec: LayerSpec, layer: Any, like: Any) -> Any:
        """The other way round, as a tensor like another."""
        raise NotImplementedError

    def tensors(self, value: Any) -> list[Any]:
        """All tensors in nested tuples, lists and dicts, in order."""
        if self.is_tensor(value):
            return [value]
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, (tuple, list)):
            return [x for item in value for x in self.tensors(item)]
        return []

    def replaced(self, value: Any, fresh: Mapping[int, Any]) -> Any:
        """The same nest with other tensors, by the ids of those that were there."""
        if self.is_tensor(value):
            return fresh.get(id(value), value)
        if isinstance(value, dict):
            made = {key: self.replaced(item, fresh) for key, item in value.items()}
            if all(made[key] is item for key, item in value.items()):
                return value
            nest = copy.copy(value)  # of its own class, which may have attributes
            nest.update(made)
            return nest
        if isinstance(value, (tuple, list)):
            items = [self.replaced(item, fresh) for item in value]
            if all(x is y for x, y in zip(items, value, strict=True)):
                return value
            return (
                type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
            )
        return value

    def named(self, result: Any) -> dict[str, Any]:
        """A model's outputs by name: its own, or "output", "output1", ...

        Names of a nest are joined: `past_key_values.0.1`.

        Raises:
            UserError: there is none.
        """
        found = list(nest_leaves(result, self.is_tensor))
        if not found:
            raise UserError(
                f"the {self.title} model returned {type(result).__name__}, which holds "
                "no tensor. A tensor, or a tuple, list or dict of tensors is expected."
            )
        if all(isinstance(x, int) for path, _ in found for x in path):
            return {f"output{n or ''}": x for n, (_, x) in enumerate(found)}
        named: dict[str, Any] = {}
        for path, tensor in found:
            first = f"output{path[0] or ''}" if isinstance(path[0], int) else path[0]
            name = ".".join(map(str, (first, *path[1:])))
            while name in named:
                name += "'"
            named[name] = tensor
        return named

    def begin(
        self, name: str, title: str, spec: LayerSpec, given: Any, line: str = ""
    ) -> Call:
        """Number a call; `line`: where what is called was made."""
        sources: tuple[int, ...] = ()
        constants: list[Array] = []
        if self.origins is not None:
            tensors = self.tensors(given)
            known = (self.origins.get(id(x)) for x in tensors)
            sources = tuple(dict.fromkeys(x for x in known if x is not None))
            if self.varying & {*sources}:
                self.varying.add(self.serial)
            made = LayerSpec("constant")
            constants = [
                self.to_last(x, made, None)
                for x in tensors
                if id(x) not in self.origins
            ]
            constants += _arrays(given)
        call = Call(
            name,
            title,
            spec,
            weighted=bool(spec.weights),
            serial=self.serial,
            sources=sources,
            inside=tuple(self.inside),
            constants=tuple(constants),
            line=user_code.calling_line() or line,
        )
        self.serial += 1
        self.latest = call
        if call.weighted:
            self.latest_weighted = call.name
        return call

    def pass_on(self, given: Any, result: Any) -> Any:
        """Let what a cast or a copy gives come from where its first input does."""
        if self.origins is not None and (made := self.tensors(result)):
            source = self.origins.get(id(self.tensors(given)[0]))
            if source in self.varying:
                self.alive.append(result)
                for tensor in made:
                    self.origins.setdefault(id(tensor), source)
        return result

    @our_errors()
    def enter(self, call: Call, layer: Any, given: Any) -> Any:
        """Tell of a call before it computes; what it is to be given, or None."""
        spec = call.spec
        tensors = self.tensors(given)
        if spec.kind == "attention":
            tensors = self.attention_inputs(tensors)
        told = LazyArrays(tensors, lambda x: self.to_last(x, spec, layer))
        arrays = self.watcher.enter(call, told)
        if arrays is None:
            return None
        pairs = zip(tensors, arrays, strict=False)
        fresh = {id(x): self.from_last(y, spec, layer, x) for x, y in pairs}
        return self.replaced(given, fresh)

    def attention_inputs(self, tensors: list[Any]) -> list[Any]:
        """An attention's inputs as query, value and key."""
        return tensors

    @our_errors()
    def leave(self, call: Call, layer: Any, result: Any) -> Any:
        """Tell of a call after it computed; what it is to have given."""
        spec = call.spec
        for tensor in self.tensors(result)[:1]:
            told = LazyArrays([tensor], lambda x: self.to_last(x, spec, layer))
            arrays = self.watcher.leave(call, told)
            if arrays is not None:
                fresh = self.from_last(arrays[0], spec, layer, tensor)
                result = self.replaced(result, {id(tensor): fresh})
        if self.origins is not None:
            self.alive.append(result)
            for tensor in self.tensors(result):
                self.origins[id(tensor)] = call.serial
        return result


def declared_arguments(found: Iterable[inspect.Parameter]) -> dict[str, Declared]:
    """Inputs of a model that has them as arguments; none where it takes any."""
    named: dict[str, Declared] = {}
    for x in found:
        if x.kind is x.VAR_KEYWORD and named:
            named[ANY] = Declared(required=False, placed=False)
        elif x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL):
            placed = x.kind is not x.KEYWORD_ONLY
            named[x.name] = Declared(required=x.default is x.empty, placed=placed)
    return named


def nest_leaves(
    value: Any, is_leaf: Callable[[Any], bool], path: Path = ()
) -> Iterator[tuple[Path, Any]]:
    """What a nest holds, in order, and where: whatever it is made of.

    Mappings, tuples, lists, named tuples, dataclasses, and other objects that keep
    what they hold in attributes, such as a cache of keys and values.
    """
    if is_leaf(value):
        yield path, value
        return
    if value is None or isinstance(value, str | bytes | type) or len(path) > NEST_DEPTH:
        return
    items: Iterable[tuple[str | int, Any]]
    if isinstance(value, Mapping):
        items = ((str(key), x) for key, x in value.items())
    elif hasattr(value, "_fields"):
        items = ((name, getattr(value, name)) for name in value._fields)
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    elif hasattr(value, "__dict__") and not callable(value):
        items = ((k, x) for k, x in vars(value).items() if not k.startswith("_"))
    else:
        return
    for part, item in items:
        yield from nest_leaves(item, is_leaf, (*path, part))


def contiguous(array: Array) -> Array:
    """The same array in C order; a scalar stays one."""
    return np.asarray(array, order="C")
