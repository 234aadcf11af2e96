"""Convolutions, pools, padding and resizing: what moves a window over space.

Arrays are float64 with channels last: `(N, *space, c)`, of one, two or three axes of
space. A missing setting is neutral: stride 1, no padding, no dilation, one group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, UnknownLayerError, same_padding

Pairs = tuple[tuple[int, int], ...]
Index = tuple[slice, ...]
Gradients = tuple[Array, dict[str, Array]]

MODES = {
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


class Windows:
    """Where the windows of a layer lie on its padded input.

    Attributes:
        size: of a window, along each axis of space.
        counts: how many there are along each axis.
        padding: what the layer is set to pad, before and after each axis.
        ends: the same, and what a pool's windows reach over the end with `ceil`.
    """

    def __init__(
        self, layer: LayerSpec, size: Sequence[int], space: Sequence[int], stride: Any
    ) -> None:
        settings, self.size = layer.settings, tuple(size)
        self.strides = _axes(settings.get("strides") or stride, len(size))
        self.dilation = _axes(settings.get("dilation", 1), len(size))
        windows = list(zip(size, self.strides, self.dilation, strict=True))
        self.padding = _explicit(settings.get("padding"), space, windows)
        counts, ends = [], []
        for n, (k, s, d), (before, after) in zip(
            space, windows, self.padding, strict=True
        ):
            reach = (k - 1) * d + 1
            count = (n + before + after - reach) // s + 1
            if settings.get("ceil"):
                count = -(-(n + before + after - reach) // s) + 1
                if (count - 1) * s >= n + before:  # a window must begin inside
                    count -= 1
            counts.append(count)
            ends.append((before, max((count - 1) * s + reach - n - before, after)))
        self.counts, self.ends = tuple(counts), tuple(ends)

    def taps(self) -> Iterator[tuple[tuple[int, ...], Index]]:
        """Each place in a window, and the values of a padded input that lie there."""
        for place in product(*map(range, self.size)):
            yield place, _tap(place, self.counts, self.strides, self.dilation)

    def view(self, padded: Array) -> Array:
        """All windows, `(N, *counts, *size, c)`, without a copy."""
        rank = len(self.size)
        reach = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]
        axes = tuple(range(1, rank + 1))
        seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
        steps = tuple(slice(None, None, s) for s in self.strides)
        inside = tuple(slice(None, None, d) for d in self.dilation)
        return np.moveaxis(
            seen[(slice(None), *steps, slice(None), *inside)], rank + 1, -1
        )

    def cropped(self, padded: Array) -> Array:
        """What of a padded array is not padding."""
        ends = zip(self.ends, padded.shape[1:-1], strict=True)
        return padded[:, *(slice(before, n - after) for (before, after), n in ends)]


def _tap(
    place: Sequence[int],
    counts: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Index:
    axes = zip(place, counts, strides, dilation, strict=True)
    return (
        slice(None),
        *(slice(k * d, k * d + (n - 1) * s + 1, s) for k, n, s, d in axes),
    )


def _axes(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _explicit(
    padding: Any, space: Sequence[int], windows: Sequence[tuple[int, int, int]]
) -> Pairs:
    """Padding as pairs; `windows` has (size, stride, dilation) of each axis."""
    if padding is None:
        return ((0, 0),) * len(space)
    if padding == "same":
        return tuple(
            same_padding(n, *window) for n, window in zip(space, windows, strict=True)
        )
    return tuple((int(before), int(after)) for before, after in padding)


def _padded(x: Array, pairs: Pairs, mode: str = "zeros", value: float = 0.0) -> Array:
    whole = ((0, 0), *pairs, (0, 0))
    if not any(map(any, pairs)):
        return x
    if mode in ("zeros", "constant"):
        return np.pad(x, whole, constant_values=value)
    if mode not in MODES:
        raise UnknownLayerError(f"padding_mode {mode}")
    padded: Array = np.pad(x, whole, mode=MODES[mode])  # type: ignore[call-overload]
    return padded


def _biased(x: Array, layer: LayerSpec) -> Array:
    return x + layer.weights["bias"] if "bias" in layer.weights else x


def _groups(layer: LayerSpec, inner: int, outer: int) -> list[tuple[slice, slice]]:
    """Input and output channels of each group; `inner` and `outer` of one."""
    return [
        (slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer))
        for g in range(layer.settings.get("groups") or 1)
    ]


def _shares(layer: LayerSpec) -> list[tuple[slice, slice]]:
    *_, inner, outer = layer.weights["kernel"].shape
    return _groups(layer, inner, outer // (layer.settings.get("groups") or 1))


def conv(layer: LayerSpec, x: Array) -> Array:
    """Each output pixel is a weighted sum of the window of x under it.

    y[n, p, q, o] = bias[o]
                  + sum over a, b, i of x[n, p+a, q+b, i] * kernel[a, b, i, o]

    and the same of one or three axes; with strides, dilation, padding and groups.
    """
    kernel = layer.weights["kernel"]
    windows = Windows(layer, kernel.shape[:-2], x.shape[1:-1], 1)
    seen = windows.view(
        _padded(x, windows.ends, layer.settings.get("padding_mode", "zeros"))
    )
    made = []
    for given, to in _shares(layer):
        # "im2col": what is under each output pixel is laid out as one row of a
        # matrix. Then a single product with the kernel, one column for each output
        # channel, does all the sums at the speed of BLAS. The windows are a view that
        # copies nothing; their rows are a copy, as many times as large as x as a
        # window has places.
        columns = kernel[..., to].reshape(-1, to.stop - to.start)
        made.append(seen[..., given].reshape(-1, len(columns)) @ columns)
    whole = made[0] if len(made) == 1 else np.concatenate(made, axis=-1)
    return _biased(whole.reshape(len(x), *windows.counts, -1), layer)


def conv_backward(layer: LayerSpec, x: Array, _y: Array, gradient: Array) -> Gradients:
    """Send the gradient back to x, the kernel and the bias.

    dL/dkernel[a, b, i, o] = sum over n, p, q of
                             x[n, p+a, q+b, i] * gradient[n, p, q, o]
    dL/dbias[o]            = sum over n, p, q of gradient[n, p, q, o]
    dL/dx[n, p+a, q+b, i] += sum over o of
                             gradient[n, p, q, o] * kernel[a, b, i, o]
    """
    kernel = layer.weights["kernel"]
    windows = Windows(layer, kernel.shape[:-2], x.shape[1:-1], 1)
    if layer.settings.get("padding_mode", "zeros") != "zeros":
        raise UnknownLayerError("the gradient of a padding that is not zeros")
    padded = _padded(x, windows.ends)
    to_x, to_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for given, to in _shares(layer):
        rows = gradient[..., to].reshape(-1, to.stop - to.start)
        patches = windows.view(padded)[..., given].reshape(len(rows), -1)
        to_kernel[..., to] = (patches.T @ rows).reshape(*kernel.shape[:-1], -1)
        for place, tap in windows.taps():
            # Windows overlap: a pixel adds up what each of them sends it.
            sent = rows @ kernel[place][:, to].T
            to_x[(*tap, given)] += sent.reshape(*gradient.shape[:-1], -1)
    found = {"kernel": to_kernel}
    if "bias" in layer.weights:
        found["bias"] = gradient.reshape(-1, gradient.shape[-1]).sum(axis=0)
    return windows.cropped(to_x), found


def conv_transpose(layer: LayerSpec, x: Array) -> Array:
    """Each input value adds its multiple of the kernel to the output."""
    kernel, settings = layer.weights["kernel"], layer.settings
    *size, inner, outer = kernel.shape
    strides = _axes(settings.get("strides", 1), len(size))
    dilation = _axes(settings.get("dilation", 1), len(size))
    groups = settings.get("groups") or 1
    space = x.shape[1:-1]
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(space, strides, size, dilation, strict=True)
    ]
    made = np.zeros((len(x), *full, outer * groups))
    for place in np.ndindex(*size):
        tap = _tap(place, space, strides, dilation)
        for given, to in _groups(layer, inner // groups, outer):
            made[(*tap, to)] += x[..., given] @ kernel[place][given]
    cuts = tuple(settings.get("crop") or ((0, 0),) * len(size))
    more = tuple((max(-before, 0), max(-after, 0)) for before, after in cuts)
    less = tuple((max(before, 0), max(after, 0)) for before, after in cuts)
    return _biased(_cropped(_padded(made, more), less), layer)


def _cropped(x: Array, cuts: Pairs) -> Array:
    ends = zip(cuts, x.shape[1:-1], strict=True)
    return x[:, *(slice(before, n - after) for (before, after), n in ends)]


def _pool_windows(layer: LayerSpec, x: Array) -> Windows:
    size = tuple(layer.settings["size"])
    return Windows(layer, size, x.shape[1:-1], size)


def _pooled(windows: Windows, x: Array, gather: np.ufunc, empty: float) -> Array:
    """What `gather` makes of each window's values, axis by axis, without padding.

    A window may be far larger than x; what of it lies outside costs nothing.
    """
    for axis, (count, k, s, d, (before, _)) in enumerate(
        zip(
            windows.counts,
            windows.size,
            windows.strides,
            windows.dilation,
            windows.ends,
            strict=True,
        ),
        start=1,
    ):
        n = x.shape[axis]
        made = np.full((*x.shape[:axis], count, *x.shape[axis + 1 :]), empty)
        for place in range(k):
            begin = place * d - before  # of the first window's value
            first = max(-(begin // s), 0)  # the first window that has one
            last = min((n - 1 - begin) // s, count - 1)
            if first > last:
                continue
            around = (slice(None),) * axis
            to = made[(*around, slice(first, last + 1))]
            given = slice(begin + first * s, begin + last * s + 1, s)
            gather(to, x[(*around, given)], out=to)
        x = made
    return x


def max_pool(layer: LayerSpec, x: Array) -> Array:
    """The largest of each window; rows and columns that fill none are left out."""
    return _pooled(_pool_windows(layer, x), x, np.maximum, -np.inf)


def max_pool_backward(
    layer: LayerSpec, x: Array, y: Array, gradient: Array
) -> Gradients:
    """Send the gradient to the pixel that was chosen; the others get 0.

    Of equal maxima that is the first in the order of reading, rows, then columns: so do
    PyTorch and TensorFlow on a CPU.
    """
    windows = _pool_windows(layer, x)
    padded = _padded(x, windows.ends, value=-np.inf)
    to_x, free = np.zeros_like(padded), np.ones(y.shape, np.bool_)
    for _, tap in windows.taps():
        chosen = (padded[tap] == y) & free
        to_x[tap] += gradient * chosen
        free &= ~chosen
    return windows.cropped(to_x), {}


def average_pool(layer: LayerSpec, x: Array) -> Array:
    """The mean of each window, of what is there or, with count_padding, of all."""
    windows = _pool_windows(layer, x)
    return _pooled(windows, x, np.add, 0.0) / _counted(layer, windows, x)


def _counted(layer: LayerSpec, windows: Windows, x: Array) -> Array:
    """How many values count in each window, `(h, w, 1)` of the output."""
    found = np.ones((1,) * (x.ndim - 1))
    counts = zip(windows.counts, windows.size, windows.strides, strict=True)
    for axis, ((count, k, s), n) in enumerate(
        zip(counts, x.shape[1:-1], strict=True), start=1
    ):
        before, after = windows.padding[axis - 1]
        begin = np.arange(count) * s - before
        least, most = 0, n
        if layer.settings.get("count_padding", True):
            least, most = -before, n + after
        own = np.minimum(begin + k, most) - np.maximum(begin, least)
        found = found * own.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return np.asarray(found)


def average_pool_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """Every value of a window that counts gets an equal share of its gradient."""
    windows = _pool_windows(layer, x)
    share = gradient / _counted(layer, windows, x)
    to_x = np.zeros_like(_padded(x, windows.ends))
    for _, tap in windows.taps():
        to_x[tap] += share
    return windows.cropped(to_x), {}


def subsample(layer: LayerSpec, x: Array) -> Array:
    """The sum of each window, times a number and plus a number of the channel's own.

    y[n, p, q, c] = bias[c] + coefficient[c]
                  * sum over a, b in {0, 1} of x[n, 2p+a, 2q+b, c]

    Source: LeCun et al. 1998, section II.B, layers S2 and S4.
    """
    sums = _pooled(_pool_windows(layer, x), x, np.add, 0.0)
    return np.asarray(sums * layer.weights["coefficient"] + layer.weights["bias"])


def subsample_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """Send the gradient to every pixel of a window, and to the two numbers.

    dL/dx[n, 2p+a, 2q+b, c] = gradient[n, p, q, c] * coefficient[c]
    dL/dcoefficient[c]      = sum over n, p, q of gradient * the window's sum
    dL/dbias[c]             = sum over n, p, q of gradient
    """
    windows = _pool_windows(layer, x)
    to_x, sent = np.zeros_like(x), gradient * layer.weights["coefficient"]
    for _, tap in windows.taps():
        to_x[tap] += sent
    axes = tuple(range(x.ndim - 1))
    return to_x, {
        "coefficient": (gradient * _pooled(windows, x, np.add, 0.0)).sum(axis=axes),
        "bias": gradient.sum(axis=axes),
    }


def global_pool(layer: LayerSpec, x: Array) -> Array:
    """The mean or the maximum over all of space."""
    function = np.max if layer.kind == "global_max_pool" else np.mean
    axes = tuple(range(1, x.ndim - 1))
    return np.asarray(function(x, axes, keepdims=bool(layer.settings.get("keepdims"))))


def global_average_pool_backward(
    _layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """Every pixel gets an equal share."""
    count = math.prod(x.shape[1:-1])
    return np.broadcast_to(_spread(x, gradient) / count, x.shape).copy(), {}


def global_max_pool_backward(
    _layer: LayerSpec, x: Array, y: Array, gradient: Array
) -> Gradients:
    """The largest pixel gets it; of equal ones, each an equal share.

    So the gradients of `amax` in PyTorch, `reduce_max` in TensorFlow and `max` in JAX.
    """
    largest = x == _spread(x, y)
    axes = tuple(range(1, x.ndim - 1))
    share = _spread(x, gradient) / largest.sum(axes, keepdims=True)
    return largest * share, {}


def _spread(x: Array, pooled: Array) -> Array:
    """What a global pool gave, with axes of one pixel."""
    return pooled.reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1])


def pad(layer: LayerSpec, x: Array) -> Array:
    """A frame around each image, of zeros or in another mode."""
    settings = layer.settings
    mode = settings.get("padding_mode", "zeros")
    return _padded(x, tuple(settings["padding"]), mode, settings.get("value", 0.0))


def pad_backward(layer: LayerSpec, _x: Array, _y: Array, gradient: Array) -> Gradients:
    """dL/dx is the gradient without the frame: no pixel of x moved that."""
    if layer.settings.get("padding_mode", "zeros") not in ("zeros", "constant"):
        raise UnknownLayerError("the gradient of a padding that is not constant")
    return _cropped(gradient, tuple(layer.settings["padding"])), {}


def crop(layer: LayerSpec, x: Array) -> Array:
    """What is left inside a frame."""
    return _cropped(x, tuple(layer.settings["crop"]))


def upsample(layer: LayerSpec, x: Array) -> Array:
    """Each axis of space resized by its factor."""
    for axis, factor in enumerate(layer.settings["factor"], start=1):
        x = _resized(layer, x, axis, float(factor))
    return x


def _resized(layer: LayerSpec, x: Array, axis: int, factor: float) -> Array:
    n, mode = x.shape[axis], layer.settings["mode"]
    size = int(n * factor)
    places = np.arange(size)
    if mode == "nearest":
        nearest = np.minimum((places / factor).astype(int), n - 1)
        return np.asarray(np.take(x, nearest, axis))
    if mode != "bilinear":
        raise UnknownLayerError(f"mode {mode}")
    if layer.settings.get("align_corners"):
        at = places * (n - 1) / max(size - 1, 1)
    else:
        at = np.clip((places + 0.5) / factor - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    high = np.minimum(low + 1, n - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    part = (at - low).reshape(shape)
    return np.asarray(
        np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    )
