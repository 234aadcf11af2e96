"""Where a model computes in float32 although it was set to float64, and what it does.

Only such a place, named and measured, excuses a difference larger than float64's
rounding. There are three kinds: an array of float32 or less between the calls (a cast
in the user's code, such as RMSNorm's in most language models); a constant whose values
are all float32's (a table of sines made in float32); a function of the framework that
gives another value than the reference (TensorFlow's GELU has constants of float32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.seen import Seen
from paripassu.port_check.segments import identified
from paripassu.port_check.tolerance import EPS32, EPS64, FLOOR, ROUNDED
from paripassu.reference import layers
from paripassu.sides import registry
from paripassu.sides.contract import Arrays, Call

HALF_ULP = EPS32 / 2
MOST = 1e-5  # that rounding may do to the outputs
# Kinds that have no weights and that the reference computes from one input.
COMPUTED = frozenset(
    (
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu"),
        *("sigmoid", "hard_sigmoid", "hard_swish", "tanh", "softplus", "softmax"),
        *("log_softmax", "mish", "upsample", "average_pool", "global_average_pool"),
        "scale",
    )
)
LARGEST = 2**21  # values of an array that the reference is asked about
SAMPLE = 2**17  # values of an array of which a function is guessed
CHUNK = 2**20  # values of a weight that are looked at together
SAMPLED = 64  # values of a constant that are looked for among the weights


@dataclass(frozen=True)
class RoundedCall:
    """A call that rounds to float32.

    Attributes:
        which: "left" or "right".
        name: of the layer or function.
        why: what was seen.
        size: the relative error that it makes.
    """

    which: str
    name: str
    why: str
    size: float

    def __str__(self) -> str:
        return f"{self.name} ({self.which}): {self.why}"


class _Finder:
    """A watcher that gathers the calls of one run that round to float32."""

    def __init__(self, model: ExaminedModel, known: Sequence[LayerSpec]):
        self.which, self.known = model.which, known
        self.asked: dict[tuple[int, float], bool] = {}
        self.scales, self.kinds = registry.float32_kinds(model.probe.side)
        self.found: dict[int, RoundedCall] = {}
        self.gradients: list[str] = []
        self._inputs: Sequence[Array] = ()

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Look at what goes in."""
        self._inputs = inputs = tuple(inputs)
        if call.kind in self.kinds:
            self.gradients.append(
                f"{call.name} ({self.which}): its gradient's constant"
            )
        scale = call.spec.settings.get("scale", 1.0)
        if call.kind in self.scales and float(np.float32(scale)) != scale:
            self._note(call, "its scale is a constant of float32", HALF_ULP)
            return
        if any(_is_lower(x) for x in inputs):
            self._note(call, "computes in float32", HALF_ULP)
            return
        for constant in call.constants:
            if _is_rounded(constant) and not self._is_known(constant):
                self._note(call, "has a constant of float32", HALF_ULP)
                return

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Look at what comes out."""
        if not outputs or _is_exact(outputs[0]):
            self.found.pop(call.serial, None)
            return
        if call.serial in self.found:
            return
        if _is_lower(outputs[0]):
            self._note(call, "computes in float32", HALF_ULP)
            return
        spec, inputs, made = call.spec, self._inputs, outputs[0]
        if spec.kind == "other" and len(inputs) == 1:
            inputs, made = [_rows(inputs[0])], _rows(made)
            spec = identified(Seen(call, tuple(inputs), (made,)))
        if spec.kind in COMPUTED and not call.weighted:
            size = _distance_from_reference(spec, inputs, made)
            if FLOOR * EPS64 < size <= ROUNDED:
                text = f"{size:.1e} from the float64 reference"
                self._note(call, text, max(size, HALF_ULP))

    def _is_known(self, constant: Array) -> bool:
        """Whether it is made of weights or inputs: some of them, or repeated."""
        key = constant.size, float(np.sum(constant))
        if key not in self.asked:
            step = max(1, constant.size // SAMPLED)
            values = np.unique(constant.ravel()[::step])
            found = np.zeros(len(values), bool)
            for spec in self.known:
                for array in spec.weights.values():
                    found |= _contained(values, array)
                    if found.all():
                        break
            self.asked[key] = bool(found.all())
        return self.asked[key]

    def _note(self, call: Call, why: str, size: float) -> None:
        self.found[call.serial] = RoundedCall(self.which, call.name, why, size)


def _contained(values: Array, array: Array) -> Array:
    """Which of some sorted values an array has; `np.isin` sorts the array, copied."""
    found = np.zeros(len(values), bool)
    flat = array.reshape(-1)
    for begin in range(0, flat.size, CHUNK):
        chunk = flat[begin : begin + CHUNK]
        at = np.searchsorted(values, chunk) % len(values)
        found[at[values[at] == chunk]] = True
    return found


def _rows(array: Array) -> Array:
    """Some rows of a large array: enough to tell what a function computes."""
    if array.size <= SAMPLE or array.ndim < 2:
        return array
    rows = array.reshape(-1, array.shape[-1])
    return rows[:: -(-array.size // SAMPLE)]


def _is_lower(array: Array) -> bool:
    return array.dtype.kind == "f" and array.dtype.itemsize < 8


def _is_exact(array: Array) -> bool:
    """Whether all values are whole numbers, or infinite: positions, masks, counts."""
    if array.dtype.kind != "f":
        return True
    finite = array[np.isfinite(array)]
    return bool(np.all(finite == np.rint(finite)))


def _is_rounded(array: Array) -> bool:
    """Whether all values are float32's, and some need its last digits."""
    if array.dtype != np.float64 or not array.size:
        return False
    with np.errstate(over="ignore"):  # what masks add
        single = array.astype(np.float32)
    if not np.array_equal(single, array, equal_nan=True):
        return False
    last = np.ascontiguousarray(single).view(np.uint32) & np.uint32(0xFFF)
    return bool(last.any())


def _distance_from_reference(
    spec: LayerSpec, inputs: Sequence[Array], made: Array
) -> float:
    """How far a call is from the reference with its settings; infinite: not known."""
    if not inputs or inputs[0].dtype != np.float64 or made.size > LARGEST:
        return np.inf
    try:
        return relative_error(layers.apply(spec, inputs[:1]), made)
    except Exception:  # a setting or a shape that the reference does not have
        return np.inf


@dataclass(frozen=True)
class Rounded:
    """Where a model that is set to float64 rounds to float32.

    Attributes:
        calls: that do, by their serials.
        gradients: calls whose gradient alone does, in words.
        outputs: of the model.
    """

    calls: Mapping[int, RoundedCall]
    gradients: Sequence[str]
    outputs: Arrays


def find_rounded(model: ExaminedModel, inputs: Arrays) -> Rounded:
    """Run a model that is set to float64, and see what rounds to float32.

    Args:
        model: its weights were float32 and are no constants.
        inputs: of it, which may be float32's values.
    """
    if model.recorded:
        found = model.recorded.found
        calls = {
            x.serial: RoundedCall(model.which, x.name, x.why, x.size)
            for x in found.rounded
        }
        gradients = [
            x.replace("(model)", f"({model.which})") for x in found.float32_gradients
        ]
        return Rounded(calls, gradients, model.run(inputs))
    weights = [x.spec for x in model.probe.blocks()]
    finder = _Finder(model, [LayerSpec("inputs", {}, inputs), *weights])
    outputs = model.run(inputs, finder, sources=True)
    return Rounded(finder.found, finder.gradients, outputs)


class _Shaken:
    """A watcher that moves what rounded calls give, by as much as they round.

    Args:
        calls: by their serials.
        signs: that values are moved by; of one sign, all values move alike.
        random: draws them.
    """

    def __init__(
        self,
        calls: Mapping[int, RoundedCall],
        signs: Sequence[int],
        random: np.random.Generator,
    ):
        self.calls, self.signs, self.random = calls, signs, random

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Move each value up or down."""
        rounded = self.calls.get(call.serial)
        if rounded is None or outputs[0].dtype.kind != "f":
            return None
        size = rounded.size
        if _is_lower(outputs[0]):
            size *= 2  # half a unit may round back to what was there
        signs = size * self.random.choice(self.signs, outputs[0].shape)
        with np.errstate(over="ignore"):
            moved: Array = outputs[0] * (1 + signs)
        moved = np.where(np.isfinite(moved), moved, outputs[0])
        return [moved.astype(outputs[0].dtype)]


def effect(
    model: ExaminedModel,
    inputs: Arrays,
    outputs: Arrays,
    calls: Mapping[int, RoundedCall],
    random: np.random.Generator,
    *,
    enough: float = np.inf,
) -> float:
    """What the rounding of these calls does to a model's outputs, relative.

    Each value by itself, and all alike: as a constant that is rounded moves them.

    Args:
        model: set to float64.
        inputs, outputs: of it.
        calls: that round.
        random: draws which value is moved up or down.
        enough: it is not asked whether it is more than that.
    """
    if not calls:
        return 0.0
    found = 0.0
    for signs in ((-1, 1), (1,)):
        shaken = model.run(inputs, _Shaken(calls, signs, random))
        found = max(found, *(relative_error(x, shaken[k]) for k, x in outputs.items()))
        if found >= enough:
            break
    return min(found, MOST)  # more is no rounding any more, and excuses nothing
