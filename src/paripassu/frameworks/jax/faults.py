"""Seeded faults in JAX's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from paripassu.frameworks.jax import lesson, recipes
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


NATIVE: dict[str, Callable[[Twin], None]] = {
    "dropout-in-evaluation": _override("dropout1", _dropout_in_evaluation),
    "dropout-unscaled": _override("dropout1", _dropout_unscaled),
    "flatten-order": _override("flatten", _flatten_order),
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
