"""Folds: blocks of one model that are a single one of the other model.

A convolution and the BatchNorm after it are a convolution with a bias, in evaluation
mode: `conv & norm`. What one model multiplies by, adds, or does to its input may lie in
the other one's weights: `query * 0.5`, `dense * gamma`, `norm + 1`, `position +
types[0]`, `conv(x * 0.0039 - 1)`. A fold is read, written and given gradients like a
block. Written, it leaves what it is folded of as it is, and changes the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides.contract import Arrays, Block, Live

Form = Literal["norm", "scale", "add", "input"]
FOLDED = ("conv", "conv_transpose", "dense")  # with the BatchNorm after it
BEFORE = (
    "batch_norm",
    "layer_norm",
    "group_norm",
    "rms_norm",
)  # a layer that they feed
MAIN = ("kernel", "table", "value", "gamma")  # weights that a form changes
Numbers = float | tuple[float, ...]
ONE, ZERO = np.ones(()), np.zeros(())
Affine = tuple[Array, Array]  # what is multiplied by, and what is added then


@dataclass(frozen=True)
class Fold:
    """A block with what it is folded with.

    Attributes:
        name: as a map has it.
        base: the block whose kernel, table or value it is.
        form: "norm": BatchNorm after it; "scale": a product after it; "add": a sum
            after it; "input": a product and a sum before it.
        other: the block that is folded in, or "".
        row: which row of it, where it is a table.
        scale, shift: numbers, where no block is folded in.
    """

    name: str
    base: str
    form: Form
    other: str = ""
    row: int = 0
    scale: Numbers = 1.0
    shift: Numbers = 0.0

    def of(self, blocks: Mapping[str, Block]) -> Block:
        """The fold, as a block."""
        base = blocks[self.base]
        shapes = dict(base.shapes)
        if self._makes_bias(blocks):
            shapes["bias"] = shapes["kernel"][-1:]

        def read(name: str) -> Array:
            made = self._folded(name, base.spec.weights, self._affine(blocks))
            return made if made is not None else base.spec.weights[name]

        settings = {**base.spec.settings, "_fold": self}
        if self.form == "norm":
            settings["_layers"] = (blocks[self.other].layer,)
        elif base.kind in (*FOLDED, "embedding"):
            end = "_in" if self.form == "input" else "_out"
            settings[end] = self._affine(blocks)
        if self.form == "norm":
            settings["_mistakes"] = lambda name: self._mistakes(name, blocks)
        spec = LayerSpec(base.kind, settings, Live(shapes, read))
        return Block(self.name, base.layer, spec, base.trainable)

    def put(self, blocks: Mapping[str, Block], arrays: Arrays) -> dict[str, Arrays]:
        """What its blocks get, so that it has these values, as far as they can."""
        base, other = blocks[self.base], blocks.get(self.other)
        scale, shift = self._affine(blocks)
        found: dict[str, Arrays] = {self.base: {}}
        if other is not None and not scale.all():
            # A channel that is multiplied by zero holds nothing: it is by one, then.
            found[self.other] = self._without_zeros(other, scale == 0)
            scale = np.where(scale == 0, 1.0, scale)
        own = found[self.base]
        for name, array in arrays.items():
            if name != "bias" and name in base.shapes:
                values = self._unfolded(name, array, scale, shift)
                own[name] = np.asarray(values, array.dtype)
        if "bias" not in arrays:
            return found
        bias = arrays["bias"]
        if self.form == "norm" and other is not None:
            before = base.spec.weights.get("bias", ZERO)
            mean = other.spec.weights["mean"]
            after = found.setdefault(self.other, {})
            if "beta" in other.shapes:
                after["beta"] = bias - (before - mean) * scale
            elif "bias" in base.shapes:
                own["bias"] = bias / scale + mean
            else:
                after["mean"] = before - bias / scale
        elif "bias" in base.shapes:
            if self.form == "input":
                kernel = own.get("kernel", base.spec.weights["kernel"])
                own["bias"] = bias - _summed(kernel, shift)
            else:
                own["bias"] = bias / scale
        return found

    def _without_zeros(self, other: Block, zero: Array) -> Arrays:
        """What is multiplied by, so that it is one where it is zero."""
        one = ONE
        name = next(iter(other.shapes))
        if self.form == "norm":
            epsilon = other.spec.settings["epsilon"]
            name, one = "gamma", np.sqrt(other.spec.weights["variance"] + epsilon)
        fresh = np.array(other.spec.weights[name])
        np.copyto(fresh, one, where=zero.reshape(fresh.shape))
        return {name: fresh}

    def take(
        self, blocks: Mapping[str, Block], gradients: Mapping[str, Arrays]
    ) -> Arrays:
        """Its own gradients, of those of its blocks; those that these tell."""
        scale, shift = self._affine(blocks)
        own = dict(gradients.get(self.base, {}))
        if self.form == "add" or not scale.all():
            return own if self.form == "add" else {}
        found: Arrays = {}
        bias = own.pop("bias", None)
        for name, array in own.items():
            if self.form != "input":
                found[name] = array / scale
            elif bias is not None:
                rows = np.broadcast_to(shift, array.shape[-2:-1])
                found[name] = (array - np.multiply.outer(rows, bias)) / _as_rows(scale)
            elif not shift.any():
                found[name] = array / _as_rows(scale)
        after = gradients.get(self.other, {})
        if self.form == "norm" and "beta" in after:
            found["bias"] = after["beta"]
        elif bias is not None:
            found["bias"] = bias if self.form == "input" else bias / scale
        return found

    def _makes_bias(self, blocks: Mapping[str, Block]) -> bool:
        if self.form == "input" and "bias" not in blocks[self.base].shapes:
            return bool(np.any(self._affine(blocks)[1]))
        return self.form == "norm"

    def _affine(self, blocks: Mapping[str, Block]) -> Affine:
        """What is multiplied by and added, now."""
        other = blocks.get(self.other)
        if other is None:
            return np.asarray(self.scale, float), np.asarray(self.shift, float)
        weights = other.spec.weights
        if other.kind == "batch_norm":
            return _of_norm(other, weights)
        if self.form == "input":
            gamma = np.asarray(weights.get("gamma", 1.0), float)
            return gamma, np.asarray(weights.get("beta", 0.0), float)
        values = np.asarray(weights[next(iter(other.shapes))], float)
        if self.form == "scale":
            return values.ravel(), np.zeros(())
        return np.ones(()), values.reshape(-1, values.shape[-1])[self.row]

    def _folded(
        self, name: str, weights: Mapping[str, Array], affine: Affine
    ) -> Array | None:
        scale, shift = affine
        if name == "bias":
            own = weights.get("bias", np.zeros(()))
            if self.form == "input":
                made = own + _summed(weights["kernel"], shift)
            else:
                made = own * scale + (shift if self.form == "norm" else 0.0)
        elif name not in MAIN:
            return None
        elif self.form == "input":
            made = weights[name] * _as_rows(scale)
        else:
            made = weights[name] * scale
            if self.form == "add":
                made = made + shift
        like = next(iter(weights.values()))
        return np.asarray(made, like.dtype)

    def _unfolded(self, name: str, array: Array, scale: Array, shift: Array) -> Array:
        if name not in MAIN:
            return array
        if self.form == "input":
            return np.asarray(array / _as_rows(scale))
        return np.asarray((array - shift if self.form == "add" else array) / scale)

    def _mistakes(
        self, name: str, blocks: Mapping[str, Block]
    ) -> Iterator[tuple[str, str, Array]]:
        """A norm that is folded wrongly: a key, what was done, and the weight so."""
        other, base = blocks[self.other], blocks[self.base].spec.weights
        weights, epsilon = other.spec.weights, float(other.spec.settings["epsilon"])
        gamma, beta = (weights.get(x, y) for x, y in (("gamma", 1.0), ("beta", 0.0)))
        mean, variance = weights["mean"], weights["variance"]
        root = np.sqrt(variance + epsilon)
        tried: list[tuple[str, Array, Array]] = [
            (
                f"without {other.name}'s epsilon, {epsilon:g}",
                gamma / variance**0.5,
                mean,
            ),
            *(
                (f"with an epsilon of {x:g}, not {epsilon:g}", gamma / r, mean)
                for x in (1e-3, 1e-5, 1e-6, 1e-8)
                if not np.isclose(x, epsilon)
                for r in [np.sqrt(variance + x)]
            ),
            (f"without the weight of {other.name}", 1 / root, mean),
            (f"with the variance of {other.name}, not its root", gamma / root**2, mean),
            (f"without the mean of {other.name}", gamma / root, 0 * mean),
            (f"as if {other.name} had not been there", 1 + 0 * root, mean),
        ]
        for text, scale, centre in tried:
            affine = scale, np.asarray(beta - centre * scale)
            made = self._folded(name, base, affine)
            if made is not None:
                yield "folded-wrongly", f"it is folded {text}", made
        if name == "bias":
            own, scale = base.get("bias", 0.0), gamma / root
            made = own - mean * scale + 0 * root
            yield "folded-wrongly", f"it is folded without {other.name}'s bias", made
            if "bias" in base:
                text = f"it is folded without the bias of {self.base}"
                yield "folded-wrongly", text, beta - mean * scale
                made = beta + own - mean * scale
                text = f"the bias of {self.base} is not scaled"
                yield "folded-wrongly", text, made


def fold_norm(base: Block, norm: Block) -> Fold:
    """A layer and the BatchNorm after it."""
    return Fold(f"{base.name} & {norm.name}", base.name, "norm", norm.name)


def fits_before(norm: Block, base: Block) -> bool:
    """Whether a norm has a number for each input channel of the layer after it."""
    sizes = {x for name, x in norm.shapes.items() if name in ("gamma", "beta", "mean")}
    return (
        norm.kind in BEFORE
        and base.kind in ("conv", "dense")
        and base.spec.settings.get("groups", 1) == 1
        and sizes == {base.shapes["kernel"][-2:-1]}
    )


def fold_norm_before(norm: Block, base: Block) -> Fold:
    """What a norm multiplies by and adds, and the layer after it."""
    return Fold(f"{norm.name} & {base.name}", base.name, "input", norm.name)


def _of_norm(norm: Block, weights: Mapping[str, Array]) -> Affine:
    """What BatchNorm multiplies by and adds in evaluation mode."""
    variance = np.asarray(weights["variance"], float)
    scale = weights.get("gamma", 1.0) / np.sqrt(
        variance + norm.spec.settings["epsilon"]
    )
    return scale, weights.get("beta", 0.0) - weights["mean"] * scale


def _as_rows(scale: Array) -> Array:
    """A number for each input channel, beside a kernel."""
    return scale[:, None] if scale.ndim else scale


def _summed(kernel: Array, shift: Array) -> Array:
    """What a number added to each input channel adds to the outputs."""
    flat = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
    return np.asarray(np.broadcast_to(shift, flat.shape[:1]) @ flat)


NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
NUMBERS = rf"{NUMBER}|\[{NUMBER}(?:, *{NUMBER})*\]"


def fold_named(name: str, has: Callable[[str], Block | None]) -> Fold | None:
    """The fold that a map names; None: it is no fold's name.

    Args:
        name: such as "conv & norm", "q * 0.5", "table + types[0]" or "conv(x * 2 + 1)".
        has: gives a block by its name.

    Raises:
        UserError: it is a fold's, but its blocks are not there.
    """

    def block(of: str) -> Block:
        if (found := has(of)) is None:
            raise UserError(f"the map names {name!r}, but there is no {of!r}.")
        return found

    if found := re.fullmatch(
        rf"(.+)\(x(?: \* ({NUMBERS}))?(?: \+ ({NUMBERS}))?\)", name
    ):
        scale, shift = _numbers(found[2] or "1"), _numbers(found[3] or "0")
        return Fold(name, block(found[1]).name, "input", scale=scale, shift=shift)
    found = re.fullmatch(r"(.+) ([&*+]) (.+)", name)
    if found is None:
        return None
    base, sign, other = block(found[1]), found[2], found[3]
    if sign == "&":
        norm = block(other)
        if fits_before(base, norm):
            return fold_norm_before(base, norm)
        if norm.kind != "batch_norm" or base.kind not in FOLDED:
            raise UserError(
                f"the map names {name!r}, but only a convolution or a dense layer and "
                "the BatchNorm after it can be folded so."
            )
        return Fold(name, base.name, "norm", norm.name)
    form: Form = "scale" if sign == "*" else "add"
    if re.fullmatch(NUMBERS, other):
        numbers = _numbers(other)
        if form == "scale":
            return Fold(name, base.name, form, scale=numbers)
        return Fold(name, base.name, form, shift=numbers)
    row = re.fullmatch(r"(.+)\[(\d+)\]", other)
    if row and has(other) is None:
        return Fold(name, base.name, form, block(row[1]).name, int(row[2]))
    return Fold(name, base.name, form, block(other).name)


def _numbers(text: str) -> Numbers:
    found = tuple(float(x) for x in re.findall(NUMBER, text))
    return found if text.startswith("[") else found[0]
