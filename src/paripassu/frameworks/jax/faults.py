"""Seeded faults in JAX's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from paripassu.core.architecture import Layer
from paripassu.frameworks.faults import faulty_layer, instead
from paripassu.frameworks.jax import layers, lesson, recipes
from paripassu.frameworks.jax.twin import Override, Twin, given_mask, slots_of


def _dropout_in_evaluation(layer: Any, x: Any, mask: Any) -> Any:
    if mask is None:
        mask = jax.random.bernoulli(jax.random.key(1), 1 - layer.rate, x.shape)
    return given_mask(layer, x, mask)


def _dropout_unscaled(_layer: Any, x: Any, mask: Any) -> Any:
    return x if mask is None else x * mask.astype(x.dtype)


def _kernel(conv: Any) -> Any:
    """What the layer convolves with: some have a table of connections."""
    kernel = conv.kernel[...]
    return kernel if conv.mask is None else kernel * conv.mask


def _convolved(x: Any, kernel: Any, padding: Any = "VALID") -> Any:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=axes
    )


def _padding(conv: Any, x: Any, _mask: Any) -> Any:
    size = conv.kernel_size[0] // 2
    padded = _convolved(x, _kernel(conv), ((size, size), (size, size)))
    return padded[:, : -2 * size, : -2 * size] + conv.bias[...]


def _kernel_transposed(conv: Any, x: Any, _mask: Any) -> Any:
    return _convolved(x, _kernel(conv).swapaxes(0, 1)) + conv.bias[...]


def _kernel_flipped(conv: Any, x: Any, _mask: Any) -> Any:
    return _convolved(x, jnp.flip(_kernel(conv), (0, 1))) + conv.bias[...]


def _swapped_bias(conv: Any, x: Any, _mask: Any) -> Any:
    return _convolved(x, _kernel(conv)) + jnp.flip(conv.bias[...])


def _frozen_kernel(conv: Any, x: Any, _mask: Any) -> Any:
    frozen = jax.lax.stop_gradient(conv.kernel[...])
    return _convolved(x, frozen) + conv.bias[...]


def _table_ignored(conv: Any, x: Any, _mask: Any) -> Any:
    return _convolved(x, conv.kernel[...]) + conv.bias[...]


def _subsample_mean(layer: Any, x: Any, _mask: Any) -> Any:
    bias = layer.bias[...]
    return (layer(x) - bias) / 4 + bias


def _border(_layer: Any, x: Any, _mask: Any) -> Any:
    return jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), "edge")


def _reduced_precision(conv: Any, x: Any, _mask: Any) -> Any:
    less = jnp.float32 if x.dtype == jnp.float64 else jnp.bfloat16
    y = _convolved(x.astype(less), _kernel(conv).astype(less))
    return y.astype(x.dtype) + conv.bias[...]


def _average_pool(_layer: Any, x: Any, _mask: Any) -> Any:
    return nnx.avg_pool(x, (2, 2), (2, 2))


def _flatten_order(_layer: Any, x: Any, _mask: Any) -> Any:
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def _override(layer: str, function: Override) -> Callable[[Twin], None]:
    def put(twin: Twin) -> None:
        twin.overrides[layer] = function

    return put


def _softmax_twice(twin: Twin) -> None:
    twin.loss = lambda logits, y: lesson.cross_entropy(nnx.softmax(logits), y)


def _softmax_once(twin: Twin) -> None:
    twin.loss = recipes.cross_entropy_on_probabilities


def _summed_loss(twin: Twin) -> None:
    right = twin.loss
    twin.loss = lambda output, y: right(output, y) * len(y)


def _weight_decay(twin: Twin) -> None:
    def decayed(network: Any, _optimizer: Any, gradients: Any) -> Any:
        weights = nnx.state(network, nnx.Param)
        return jax.tree.map(lambda g, w: g + 1e-4 * w, gradients, weights)

    twin.change = decayed


class _Sums(nnx.Variable):  # type: ignore[misc]
    """Gradients of the steps before."""


def _gradients_accumulate(twin: Twin) -> None:
    def accumulate(network: Any, _optimizer: Any, gradients: Any) -> Any:
        if hasattr(network, "sums"):
            gradients = jax.tree.map(
                jnp.add, network.sums.get_value(), gradients
            )
        network.sums = _Sums(gradients)
        return gradients

    twin.change = accumulate


def _optimizer_reset(twin: Twin) -> None:
    def forget(_network: Any, optimizer: Any, gradients: Any) -> Any:
        for slot in slots_of(optimizer, twin.recipe).values():
            slot[...] = jnp.zeros(slot.shape, slot.dtype)
        return gradients

    twin.change = forget


def _in(fault: str, **settings: Any) -> Callable[[Twin], None]:
    """A fault that gives a setting of its layer another number."""

    def put(twin: Twin) -> None:
        module = getattr(twin.network, faulty_layer(fault, twin.recipe).name)
        for name, (usual, other) in settings.items():
            same = getattr(module, name) == usual
            setattr(module, name, other if same else usual)

    return put


def _statistics(x: Any) -> tuple[Any, Any]:
    axes = tuple(range(x.ndim - 1))
    return x.mean(axes), x.var(axes)


def _batch_statistics(_layer: Layer) -> Override:
    def normalise(norm: Any, x: Any, _mask: Any) -> Any:
        if not norm.use_running_average:
            return norm(x)
        mean, variance = _statistics(x)
        scale = norm.scale[...] / jnp.sqrt(variance + norm.epsilon)
        return (x - mean) * scale + norm.bias[...]

    return normalise


def _unbiased(_layer: Layer) -> Override:
    def normalise(norm: Any, x: Any, _mask: Any) -> Any:
        y = norm(x)
        if not norm.use_running_average:
            _, variance = _statistics(jax.lax.stop_gradient(x))
            count = x.size // x.shape[-1]
            more = (1 - norm.momentum) * variance / (count - 1)
            norm.var[...] = norm.var[...] + more
        return y

    return normalise


def _padded_before(layer: Layer) -> Override:
    settings = layer.settings
    padding = tuple(pair[::-1] for pair in settings["padding"])

    def padded(made: Any, x: Any, _mask: Any) -> Any:
        if layer.kind == "max_pool":
            return layers.max_pool(x, **{**settings, "padding": padding})
        y = layers.convolve(
            x,
            made.kernel[...],
            made.strides,
            padding,
            rhs_dilation=made.kernel_dilation,
        )
        return y + made.bias[...] if made.use_bias else y

    return padded


def _padding_counts(layer: Layer) -> Override:
    settings = {**layer.settings, "count_padding": True}
    return lambda _, x, __: layers.average_pool(x, **settings)


def _other_slope(layer: Layer) -> Override:
    slope = 0.3 if layer.settings["slope"] != 0.3 else 0.01
    return lambda _, x, __: layers.leaky_relu(x, slope=slope)


def _other_alpha(layer: Layer) -> Override:
    alpha = layer.settings["alpha"] / 2
    return lambda _, x, __: nnx.elu(x, alpha)


def _other_gelu(layer: Layer) -> Override:
    other = not layer.settings["approximate"]
    return lambda _, x, __: nnx.gelu(x, approximate=other)


def _rectified_first(_layer: Layer) -> Override:
    return lambda _, x, __: sum(nnx.relu(each) for each in x)


def _without_last(_layer: Layer) -> Override:
    return lambda _, x, __: x[0] + sum(x[1:-1]) + 0 * x[-1]


NATIVE: dict[str, Callable[[Twin], None]] = {
    "dropout-in-evaluation": _override("dropout1", _dropout_in_evaluation),
    "dropout-unscaled": _override("dropout1", _dropout_unscaled),
    "flatten-order": instead("flatten-order", lambda _: _flatten_order),
    "batch-norm-epsilon": _in("batch-norm-epsilon", epsilon=(1e-3, 1e-5)),
    "batch-norm-in-evaluation": instead(
        "batch-norm-in-evaluation", _batch_statistics
    ),
    "batch-norm-momentum": _in("batch-norm-momentum", momentum=(0.99, 0.9)),
    "batch-norm-variance": instead("batch-norm-variance", _unbiased),
    "layer-norm-epsilon": _in("layer-norm-epsilon", epsilon=(1e-3, 1e-5)),
    "group-norm-epsilon": _in("group-norm-epsilon", epsilon=(1e-3, 1e-5)),
    "padding-before": instead("padding-before", _padded_before),
    "padding-counts": instead("padding-counts", _padding_counts),
    "leaky-slope": instead("leaky-slope", _other_slope),
    "elu-alpha": instead("elu-alpha", _other_alpha),
    "gelu-form": instead("gelu-form", _other_gelu),
    "groups": instead(
        "groups", lambda _: lambda conv, x, __: conv(jnp.flip(x, -1))
    ),
    "relu-before-addition": instead("relu-before-addition", _rectified_first),
    "addition-left-out": instead("addition-left-out", _without_last),
    "concatenation-order": instead(
        "concatenation-order",
        lambda _: lambda _, x, __: jnp.concatenate(x[::-1], -1),
    ),
    "padding": _override("conv2", _padding),
    "kernel-transposed": _override("conv2", _kernel_transposed),
    "kernel-flipped": _override("conv1", _kernel_flipped),
    "average-pool": _override("pool", _average_pool),
    "leaky-relu": _override("relu1", lambda _, x, __: nnx.leaky_relu(x, 0.01)),
    "missing-relu": _override("relu3", lambda _, x, __: x),
    "plain-tanh": _override("tanh1", lambda _, x, __: nnx.tanh(x)),
    "subsample-mean": _override("subsample1", _subsample_mean),
    "border": _override("pad", _border),
    "softmax-axis": _override(
        "softmax", lambda _, x, __: nnx.softmax(x, axis=0)
    ),
    "reduced-precision": _override("conv2", _reduced_precision),
    "softmax-twice": _softmax_twice,
    "softmax-once": _softmax_once,
    "summed-loss": _summed_loss,
    "swapped-bias": _override("conv2", _swapped_bias),
    "table-ignored": _override("conv2", _table_ignored),
    "frozen-kernel": _override("conv1", _frozen_kernel),
    "weight-decay": _weight_decay,
    "gradients-accumulate": _gradients_accumulate,
    "optimizer-reset": _optimizer_reset,
}
