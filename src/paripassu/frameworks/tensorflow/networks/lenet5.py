"""LeNet-5 in Keras, after LeCun et al. 1998, section II.B."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from paripassu.core.errors import UserError
from paripassu.core.networks import LENET5_TABLE


@keras.saving.register_keras_serializable("paripassu")
class ScaledTanh(layers.Layer):  # type: ignore[misc]
    """The paper's squashing function."""

    def call(self, x: Any) -> Any:
        """1.7159 tanh(2/3 x)."""
        return 1.7159 * ops.tanh(2 / 3 * x)


@keras.saving.register_keras_serializable("paripassu")
class Subsample(layers.Layer):  # type: ignore[misc]
    """Sums of 2x2 pixels, times a learned number and plus a learned number."""

    def build(self, input_shape: Sequence[int]) -> None:
        """Make the two numbers of each channel."""
        shape = (input_shape[-1],)
        self.coefficient = self.add_weight(shape, "ones", name="coefficient")
        self.bias = self.add_weight(shape, "zeros", name="bias")

    def call(self, x: Any) -> Any:  # (N, h, w, c)
        """Half the height and width."""
        return 4 * ops.average_pool(x, 2) * self.coefficient + self.bias


@keras.saving.register_keras_serializable("paripassu")
class TableConv2D(layers.Conv2D):  # type: ignore[misc]
    """A convolution in which each filter sees only some input channels."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        table: Sequence[Sequence[int]],
        **options: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **options)
        self.table = [list(channels) for channels in table]

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution, with zeros where nothing is connected."""
        connected = np.zeros((inputs.shape[-1], self.filters))
        for output, channels in enumerate(self.table):
            connected[channels, output] = 1
        return super().convolution_op(
            inputs, kernel * ops.cast(connected, kernel.dtype)
        )

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        return {**super().get_config(), "table": self.table}


def make_network() -> keras.Sequential:
    """60,000 parameters up to `tanh6`, and 850 of the output layer."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.ZeroPadding2D(2, name="pad"),  # (N, 32, 32, 1)
            layers.Conv2D(6, 5, name="conv1"),  # C1 (N, 28, 28, 6)
            ScaledTanh(name="tanh1"),
            Subsample(name="subsample1"),  # S2 (N, 14, 14, 6)
            ScaledTanh(name="tanh2"),
            TableConv2D(
                16, 5, LENET5_TABLE, name="conv2"
            ),  # C3 (N, 10, 10, 16)
            ScaledTanh(name="tanh3"),
            Subsample(name="subsample2"),  # S4 (N, 5, 5, 16)
            ScaledTanh(name="tanh4"),
            layers.Conv2D(120, 5, name="conv3"),  # C5 (N, 1, 1, 120)
            ScaledTanh(name="tanh5"),
            layers.Flatten(name="flatten"),
            layers.Dense(84, name="dense1"),  # F6
            ScaledTanh(name="tanh6"),
            layers.Dense(10, name="dense2"),  # logits
        ]
    )


def make_plain_network() -> keras.Sequential:
    """The same function of Keras's own layers alone, for files that travel.

    A scaled tanh is three layers, a subsampling a depthwise convolution, and
    the table is zeros in the kernel.
    """
    found = [keras.Input((28, 28, 1))]
    for layer in make_network().layers:
        if isinstance(layer, ScaledTanh):
            found += [
                layers.Rescaling(2 / 3, name=f"{layer.name}_in"),
                layers.Activation("tanh", name=layer.name),
                layers.Rescaling(1.7159, name=f"{layer.name}_out"),
            ]
        elif isinstance(layer, Subsample):
            found.append(layers.DepthwiseConv2D(2, strides=2, name=layer.name))
        elif isinstance(layer, TableConv2D):
            found.append(layers.Conv2D(layer.filters, 5, name=layer.name))
        else:
            found.append(layer)
    return keras.Sequential(found)


def to_plain(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of the network for `make_plain_network`."""
    return {
        name.replace("coefficient", "kernel"): (
            np.broadcast_to(array[:, None], (2, 2, *array.shape, 1))
            if name.endswith("coefficient")
            else array
        )
        for name, array in weights.items()
    }


def from_plain(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of `make_plain_network` for the network.

    Raises:
        UserError: a subsampling has other than four equal weights.
    """
    found = {}
    for name, array in weights.items():
        if not re.fullmatch(r"subsample\d\.kernel", name):
            found[name] = array
            continue
        plain = array.ndim > 1  # older runs kept the layer as it trains
        if plain and (
            array.shape[:2] != (2, 2) or np.ptp(array, axis=(0, 1)).any()
        ):
            raise UserError(
                f"{name}: expected four equal weights for each channel, as a "
                "subsampling layer has them."
            )
        coefficient = name.replace("kernel", "coefficient")
        found[coefficient] = array[0, 0, :, 0] if plain else array
    return found
