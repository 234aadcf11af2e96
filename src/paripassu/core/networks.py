"""The networks that recipes may name: tables of layers, as a recipe's own are."""

from __future__ import annotations

from typing import Any

from paripassu.core.architecture import Layer, Network, Shape, Table, Weight
from paripassu.core.assembly import assemble
from paripassu.core.layer_tables import read_layers

__all__ = [
    "ARTICLE",
    "FAST",
    "LENET5",
    "LENET5_TABLE",
    "NETWORKS",
    "OWN",
    "Layer",
    "Network",
    "Shape",
    "Table",
    "Weight",
]
OWN = "layers"  # what `network` of a recipe says that has a network of its own


def _network(name: str, *layers: dict[str, Any] | str) -> Network:
    """Of images (28, 28, 1); a layer without settings is its kind, or "name: kind"."""
    given = [_named(x) if isinstance(x, str) else x for x in layers]
    # Their rates of dropout are the recipes'.
    return assemble(name, (28, 28, 1), read_layers(given, None)[0])


def _named(text: str) -> dict[str, Any]:
    name, _, kind = text.rpartition(": ")
    return {"kind": kind, **({"name": name} if name else {})}


def _conv(channels: int, kernel: int, **more: Any) -> dict[str, Any]:
    return {"kind": "conv", "channels": channels, "kernel": kernel, **more}


def _dense(units: int) -> dict[str, Any]:
    return {"kind": "dense", "units": units}


# "TensorFlow vs PyTorch by example". ReLU stands after the pool: the same function
# and the same gradients as before it (both are monotone), on a quarter of the numbers.
ARTICLE = _network(
    "article",
    _conv(32, 3),
    "relu",
    _conv(64, 3),
    "pool: max_pool",
    "relu",
    "dropout",
    "flatten: flatten",
    _dense(128),
    "relu",
    "dropout",
    _dense(10),
)

# Keras's "Simple MNIST convnet". ReLU after the pools, as above.
KERAS_EXAMPLE = _network(
    "keras-example",
    _conv(32, 3),
    "pool1: max_pool",
    "relu",
    _conv(64, 3),
    "pool2: max_pool",
    "relu",
    "flatten: flatten",
    "dropout",
    _dense(10),
)

# LeCun et al. 1998, table I: which maps of S2 each map of C3 sees.
LENET5_TABLE: Table = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)),
    *((0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# The squashing function of LeCun et al. 1998, appendix A. It is chosen there so that
# f(1) = 1 and f(-1) = -1, with the largest second derivative in these points.
_TANH = {"kind": "tanh", "amplitude": 1.7159, "slope": 2 / 3}

# LeNet-5, LeCun et al. 1998, section II.B: C1, S2, C3, S4, C5, F6 and the output. Each
# is followed by the paper's squashing function, 1.7159 tanh(2/3 x). The output is a
# dense layer where the paper has radial basis functions with fixed centres.
LENET5 = _network(
    "lenet5",
    {"kind": "pad", "name": "pad", "size": 2},
    _conv(6, 5),
    _TANH,
    "subsample",
    _TANH,
    _conv(16, 5, connections=LENET5_TABLE),
    _TANH,
    "subsample",
    _TANH,
    _conv(120, 5),
    _TANH,
    "flatten: flatten",
    _dense(84),
    _TANH,
    _dense(10),
)

# "train_mnist_fast" of T. Oksanen (github.com/tuomaso/train_mnist_fast).
FAST = _network(
    "fast",
    _conv(24, 5),
    "pool1: max_pool",
    "relu",
    _conv(32, 3),
    "pool2: max_pool",
    "relu",
    "flatten: flatten",
    _dense(256),
    "relu",
    _dense(10),
)

NETWORKS = {x.name: x for x in (ARTICLE, KERAS_EXAMPLE, LENET5, FAST)}
