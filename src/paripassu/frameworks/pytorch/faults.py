"""Seeded faults in PyTorch's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paripassu.core.architecture import Layer
from paripassu.frameworks.faults import faulty_layer, instead
from paripassu.frameworks.pytorch import lesson, recipes
from paripassu.frameworks.pytorch.twin import Twin


def _dropout_in_evaluation(twin: Twin) -> None:
    given = twin.overrides["dropout1"]

    def dropout(module: nn.Module, x: Tensor) -> Tensor:
        if module.training:
            return given(module, x)
        return F.dropout(x, twin.rates["dropout1"], training=True)

    twin.overrides["dropout1"] = dropout


def _dropout_unscaled(twin: Twin) -> None:
    given = twin.overrides["dropout1"]

    def dropout(module: nn.Module, x: Tensor) -> Tensor:
        scale = 1 - twin.rates["dropout1"] if module.training else 1
        return given(module, x) * scale

    twin.overrides["dropout1"] = dropout


def _kernel(conv: Any) -> Any:
    """What the layer convolves with: some have a table of connections."""
    return conv.weight * getattr(conv, "table", 1)


def _padding(conv: Any, x: Tensor) -> Tensor:
    size = conv.kernel_size[0] // 2
    padded = F.conv2d(F.pad(x, (size,) * 4), _kernel(conv), conv.bias)
    return padded[..., : -2 * size, : -2 * size]


def _kernel_transposed(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, _kernel(conv).transpose(2, 3), conv.bias)


def _kernel_flipped(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, _kernel(conv).flip(2, 3), conv.bias)


def _swapped_bias(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, _kernel(conv), conv.bias.flip(0))


def _frozen_kernel(conv: Any, x: Tensor) -> Tensor:
    frozen = conv.weight.detach() + 0 * conv.weight
    return F.conv2d(x, frozen, conv.bias)


def _table_ignored(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias)


def _subsample_mean(layer: Any, x: Tensor) -> Tensor:
    given = layer.forward(x)
    bias = layer.bias[:, None, None]
    return (given - bias) / 4 + bias


def _reduced_precision(conv: Any, x: Tensor) -> Tensor:
    less = torch.float32 if x.dtype == torch.float64 else torch.bfloat16
    weight, bias = _kernel(conv).to(less), conv.bias.to(less)
    return F.conv2d(x.to(less), weight, bias).to(x.dtype)


def _override(
    layer: str, function: Callable[[Any, Tensor], Tensor]
) -> Callable[[Twin], None]:
    def put(twin: Twin) -> None:
        twin.overrides[layer] = function

    return put


def _softmax_twice(twin: Twin) -> None:
    twin.loss = lambda logits, labels: lesson.cross_entropy(
        logits.softmax(1), labels
    )


def _softmax_once(twin: Twin) -> None:
    twin.loss = recipes.cross_entropy_on_probabilities


def _summed_loss(twin: Twin) -> None:
    right = twin.loss
    twin.loss = lambda output, labels: right(output, labels) * len(labels)


def _weight_decay(twin: Twin) -> None:
    for group in twin.trainer.optimizer.param_groups:
        group["weight_decay"] = 1e-4


def _gradients_accumulate(twin: Twin) -> None:
    optimizer: Any = twin.trainer.optimizer
    optimizer.zero_grad = lambda *_, **__: None


def _optimizer_reset(twin: Twin) -> None:
    optimizer = twin.trainer.optimizer
    optimizer.register_step_pre_hook(lambda *_: optimizer.state.clear())


def _in(
    fault: str, change: Callable[[Any, Layer], None]
) -> Callable[[Twin], None]:
    """A fault that changes the module of its layer."""

    def put(twin: Twin) -> None:
        layer = faulty_layer(fault, twin.recipe)
        change(twin.network.get_submodule(layer.name), layer)

    return put


def _instead(
    fault: str, function: Callable[..., Tensor]
) -> Callable[[Twin], None]:
    """A fault that computes the same other thing in place of any layer."""
    return instead(fault, lambda _layer: function)


def _other_epsilon(module: Any, layer: Layer) -> None:
    module.eps = 1e-3 if layer.settings["epsilon"] != 1e-3 else 1e-5


def _other_momentum(module: Any, layer: Layer) -> None:
    module.momentum = 0.01 if layer.settings["momentum"] != 0.99 else 0.1


def _unbiased(module: Any, _layer: Layer) -> None:
    image = isinstance(module, nn.BatchNorm2d)
    module.__class__ = nn.BatchNorm2d if image else nn.BatchNorm1d


def _batch_statistics(module: Any, x: Tensor) -> Tensor:
    scales = module.weight, module.bias
    return F.batch_norm(x, None, None, *scales, training=True, eps=module.eps)


def _padded_before(module: Any, _layer: Layer) -> None:
    left, right, top, bottom = module.border
    module.border = (right, left, bottom, top)


def _padding_counts(module: Any, x: Tensor) -> Tensor:
    if not hasattr(module, "border"):
        return F.avg_pool2d(
            x, module.kernel_size, module.stride, module.padding
        )
    padded = F.pad(x, module.border)
    return F.avg_pool2d(padded, module.kernel_size, module.stride)


def _other_slope(module: Any, layer: Layer) -> None:
    module.negative_slope = 0.3 if layer.settings["slope"] != 0.3 else 0.01


def _other_alpha(module: Any, layer: Layer) -> None:
    module.alpha = layer.settings["alpha"] / 2


def _other_gelu(module: Any, layer: Layer) -> None:
    module.approximate = "none" if layer.settings["approximate"] else "tanh"


def _rectified_first(_module: Any, x: Tensor, *others: Tensor) -> Tensor:
    return x.relu() + sum(other.relu() for other in others)


def _without_last(_module: Any, x: Tensor, *others: Tensor) -> Tensor:
    return x + sum(others[:-1]) + 0 * others[-1]  # gradients stay


NATIVE: dict[str, Callable[[Twin], None]] = {
    "dropout-in-evaluation": _dropout_in_evaluation,
    "dropout-unscaled": _dropout_unscaled,
    "flatten-order": _instead(
        "flatten-order", lambda _, x: x.permute(0, 2, 3, 1).flatten(1)
    ),
    "batch-norm-epsilon": _in("batch-norm-epsilon", _other_epsilon),
    "batch-norm-in-evaluation": _instead(
        "batch-norm-in-evaluation", _batch_statistics
    ),
    "batch-norm-momentum": _in("batch-norm-momentum", _other_momentum),
    "batch-norm-variance": _in("batch-norm-variance", _unbiased),
    "layer-norm-epsilon": _in("layer-norm-epsilon", _other_epsilon),
    "group-norm-epsilon": _in("group-norm-epsilon", _other_epsilon),
    "padding-before": _in("padding-before", _padded_before),
    "padding-counts": _instead("padding-counts", _padding_counts),
    "leaky-slope": _in("leaky-slope", _other_slope),
    "elu-alpha": _in("elu-alpha", _other_alpha),
    "gelu-form": _in("gelu-form", _other_gelu),
    "groups": _instead("groups", lambda conv, x: conv.forward(x.flip(1))),
    "relu-before-addition": _instead("relu-before-addition", _rectified_first),
    "addition-left-out": _instead("addition-left-out", _without_last),
    "concatenation-order": _instead(
        "concatenation-order", lambda _, *x: torch.cat(x[::-1], 1)
    ),
    "padding": _override("conv2", _padding),
    "kernel-transposed": _override("conv2", _kernel_transposed),
    "kernel-flipped": _override("conv1", _kernel_flipped),
    "average-pool": _override("pool", lambda _, x: F.avg_pool2d(x, 2)),
    "leaky-relu": _override("relu1", lambda _, x: F.leaky_relu(x, 0.01)),
    "missing-relu": _override("relu3", lambda _, x: x),
    "plain-tanh": _override("tanh1", lambda _, x: x.tanh()),
    "subsample-mean": _override("subsample1", _subsample_mean),
    "border": _override("pad", lambda _, x: F.pad(x, (2,) * 4, "replicate")),
    "softmax-axis": _override("softmax", lambda _, x: x.softmax(0)),
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
