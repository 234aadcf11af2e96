"""What a layer of any network is, in words that no framework owns.

The networks of recipes are made of such layers, and a user's model is described by them;
`paripassu.reference.layers` computes what one says.
Arrays have channels last: images `(N, h, w, c)`, sequences `(N, t, c)`, volumes
`(N, d, h, w, c)`. Weights have the axes below. i and o are input and output channels.

| kind | weights | settings |
|---|---|---|
| dense | kernel (i, o), bias (o) | |
| conv | kernel (*size, i / groups, o), bias (o) | strides, dilation: one number an axis; padding; groups; padding_mode "zeros", "reflect", "replicate" or "circular" |
| conv_transpose | kernel (*size, i, o / groups): y[s p + k] += x[p] kernel[k]; bias (o) | strides, dilation, groups; crop: a pair (before, after) for each axis, cut from the full output of (n - 1) s + (k - 1) dilation + 1 values; a negative one adds zeros, before the bias |
| batch_norm | gamma, beta, mean, variance (c) | epsilon; momentum: the share of the old statistics that stays; axis: -1, or another |
| layer_norm | gamma, beta (the normalised axes) | epsilon; axes: how many, counted from the last |
| rms_norm | gamma | epsilon; axes |
| group_norm | gamma, beta (c) | epsilon, groups |
| embedding | table (n, c) | |
| lstm | kernel (i, 4h), recurrent (h, 4h): gates i, f, g, o; bias (4h), or input_bias and recurrent_bias | reverse; activation, recurrent_activation |
| gru | kernel (i, 3h), recurrent (h, 3h): gates r, z, n; input_bias, recurrent_bias (3h) | reverse; reset_after; activation, recurrent_activation |
| rnn | kernel (i, h), recurrent (h, h), bias or two | reverse; activation |
| attention | query, key, value (i, heads * d), output (heads * d, o), and of each name_bias | heads; scale: what scores are multiplied by; causal |
| prelu | slope | |
| parameter | value | a weight of the model's own, in no layer |
| max_pool, average_pool | | size, strides; padding; count_padding (average) |
| global_average_pool, global_max_pool | | keepdims |
| upsample | | factor: one number an axis; mode "nearest" or "bilinear"; align_corners |
| pad | | padding, an explicit one; padding_mode; value |
| subsample | coefficient, bias (c) | size: of windows that are summed, multiplied and moved |
| crop | | crop: a pair (before, after) for each axis |
| relu, relu6, leaky_relu, elu, selu, celu, gelu, silu, sigmoid, hard_sigmoid, hard_swish, tanh, softplus, softmax, log_softmax, mish, identity | | slope (leaky_relu), alpha (elu, celu), approximate (gelu), axis (softmax); amplitude and slope (tanh) |
| add, multiply, subtract, concatenate | | axis (concatenate) |
| flatten, reshape, permute, dropout, cast, mean, sum, matmul, scale | | axis (mean, sum); factor, offset (scale); mask, rate (dropout that is on) |
| other | whatever it has, under its own names | whatever is known |

A padding is "same" (as TensorFlow pads: what is missing is put before and after, and
the odd one after), or a pair (before, after) for each axis of space. Where a pool has
`ceil`, windows may begin inside and end outside. An `lstm`, `gru` or `rnn` has one
output for each step, in the order of the input's steps, unless `last` is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.errors import PariPassuError

Array = npt.NDArray[Any]


class UnknownLayerError(PariPassuError, LookupError):
    """A kind or a setting that the reference does not compute."""


@dataclass(frozen=True)
class LayerSpec:
    """A layer: its kind, settings and weights, as the table above has them."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)

    def changed(
        self,
        *,
        kind: str | None = None,
        weights: Mapping[str, Array] | None = None,
        **settings: Any,
    ) -> LayerSpec:
        """The same layer of another kind, or with some other weights or settings."""
        return LayerSpec(
            kind or self.kind,
            {**self.settings, **settings},
            {**self.weights, **(weights or {})},
        )


def same_padding(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    """How TensorFlow's "same" pads one axis: (before, after).

    The output has `ceil(size / stride)` values; the odd one of the zeros comes after
    (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
    """
    reach = (window - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


PART = 2**20  # values
NUMBERS = frozenset("biufcV")  # kinds of dtypes; V: bfloat16 and its like


def relative_error(left: Array, right: Array) -> float:
    """The largest difference of two arrays, over the largest value of the left one.

    Elementwise: no mean hides a permutation. NaN at different places, shapes that
    differ, and texts that differ are infinitely far apart.
    """
    if left.shape != right.shape:
        return float("inf")
    if not {left.dtype.kind, right.dtype.kind} <= NUMBERS:
        return 0.0 if np.array_equal(left, right) else float("inf")
    complex_ = "c" in (left.dtype.kind, right.dtype.kind)
    wide = np.complex128 if complex_ else np.float64
    scale = apart = 0.0
    left, right = np.atleast_1d(left), np.atleast_1d(right)
    rows = max(1, PART * max(len(left), 1) // max(left.size, 1))
    for begin in range(0, len(left), rows):  # a part at a time: arrays may be large
        one = left[begin : begin + rows].astype(wide, copy=False)
        two = right[begin : begin + rows].astype(wide, copy=False)
        difference = _largest_difference(one, two)
        if not np.isfinite(difference):  # some value is not, or they are huge
            finite = np.isfinite(one)
            if not np.array_equal(finite, np.isfinite(two)):
                return float("inf")
            if not np.array_equal(one[~finite], two[~finite], equal_nan=True):
                return float("inf")
            one, two = one[finite], two[finite]
            difference = _largest_difference(one, two)
        scale = max(scale, float(np.abs(one).max(initial=0)))
        apart = max(apart, difference)
    return apart / scale if scale else (0.0 if apart == 0 else float("inf"))


def _largest_difference(left: Array, right: Array) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.abs(left - right).max(initial=0))
