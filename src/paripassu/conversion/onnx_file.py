"""ONNX files, written from the architecture: no framework has a part in it.

Images come in as float32 `(batch, c, h, w)`, normalised, the batch of any size; out
come `logits` or `probabilities`, `(batch, classes)`. Each weight is an initializer
under its canonical name, so that a file is read back as exactly what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.networks import Layer
from paripassu.core.recipe import Recipe

OPSET = 17  # of 2022: every current runtime reads it
IR_VERSION = 8  # that of its time
LAYOUTS = {"h w i o": "o i h w", "(h w c) o": "(c h w) o"}
CONSTANTS = (".pads", ".slope", ".amplitude")  # what is not learned

Arrays = dict[str, npt.NDArray[Any]]


def problem() -> str | None:
    """Why ONNX files can't be made or tried; None if they can."""
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if not find_spec(name)]
    if not missing:
        return None
    return f"ONNX needs {' and '.join(missing)}. Type: pip install {' '.join(missing)}"


def write(
    recipe: Recipe, weights: Mapping[str, Any], path: Path, notes: Mapping[str, str]
) -> None:
    """Write the recipe's network with its weights (canonical names and layout).

    Dropout, which only trains, is left out; the notes are kept as metadata.

    Raises:
        UserError: the recipe computes in float64, which ONNX runtimes do not.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if recipe.storage != "float32":
        raise UserError(
            f"recipe {recipe.name!r} has {recipe.storage}, and ONNX runtimes "
            "convolve in float32. Expected a model in float32; safetensors, pytorch "
            "and tensorflow keep float64."
        )
    sheet = recipe.architecture
    moved = layout.from_canonical(sheet, weights, LAYOUTS)
    arrays: Arrays = {}
    nodes = []
    here = "images"
    for layer in sheet.layers:
        if layer.kind == "dropout":
            continue
        steps, made = _nodes(layer, here, moved)
        arrays |= made
        nodes += [helper.make_node(*step, **options) for step, options in steps]
        here = nodes[-1].output[0]
    nodes[-1].output[0] = recipe.output
    h, w, c = sheet.input_shape
    ends = {"images": [c, h, w], recipe.output: [sheet.num_classes]}
    given, answer = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in ends.items()
    )
    initial = [
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in arrays.items()
    ]
    graph = helper.make_graph(nodes, sheet.name, [given], [answer], initial)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="paripassu",
    )
    helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


Step = tuple[tuple[str, list[str], list[str]], dict[str, Any]]


def _nodes(layer: Layer, x: str, weights: Arrays) -> tuple[list[Step], Arrays]:
    """The operators of a layer, each with its attributes, and what they need."""
    y = layer.name
    own = {w.name: weights[w.name].astype(np.float32) for w in layer.weights}
    names = [x, *own]
    match layer.kind:
        case "pad":
            return [(("Pad", [x, f"{y}.pads"], [y]), {})], {f"{y}.pads": _pads(layer)}
        case "conv":
            return [(("Conv", names, [y]), {})], own
        case "relu":
            return [(("Relu", [x], [y]), {})], {}
        case "tanh":
            scales = {
                f"{y}.{name}": np.asarray(layer.settings[name], np.float32)
                for name in ("slope", "amplitude")
            }
            return [
                (("Mul", [x, f"{y}.slope"], [f"{y}.in"]), {}),
                (("Tanh", [f"{y}.in"], [f"{y}.tanh"]), {}),
                (("Mul", [f"{y}.tanh", f"{y}.amplitude"], [y]), {}),
            ], scales
        case "max_pool":
            size = list(layer.settings["size"])
            options = {"kernel_shape": size, "strides": size}
            return [(("MaxPool", [x], [y]), options)], {}
        case "subsample":
            coefficient = own[f"{y}.coefficient"]
            channels = len(coefficient)
            size = list(layer.settings["size"])
            kernel = coefficient[:, None, None, None]
            own[f"{y}.coefficient"] = np.broadcast_to(kernel, (channels, 1, *size))
            return [(("Conv", names, [y]), {"group": channels, "strides": size})], own
        case "flatten":
            return [(("Flatten", [x], [y]), {"axis": 1})], {}
        case "dense":
            return [(("Gemm", names, [y]), {})], own
        case "softmax":
            return [(("Softmax", [x], [y]), {"axis": 1})], {}
        case _:
            raise ValueError(f"no operator for a layer of kind {layer.kind!r}")


def _pads(layer: Layer) -> npt.NDArray[np.int64]:
    """Before and after each axis, batch and channels first."""
    pairs = ((0, 0), (0, 0), *layer.settings["padding"])
    return np.array(pairs, np.int64).T.ravel()


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The weights in a file by name, and its metadata; nothing is run.

    Raises:
        UserError: the file is no ONNX model, or keeps its weights elsewhere.
    """
    if trouble := problem():
        raise UserError(f"{path}: {trouble}")
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load_model(str(path), load_external_data=False)
        initial = model.graph.initializer
        if any(x.data_location == onnx.TensorProto.EXTERNAL for x in initial):
            raise UserError(
                f"{path} keeps its weights in other files, which are not read."
            )
        learned = (x for x in initial if not x.name.endswith(CONSTANTS))
        arrays = {x.name: numpy_helper.to_array(x) for x in learned}
    except UserError:
        raise
    except Exception as error:  # such as KeyError for a type that it does not know
        raise UserError(f"{path} is not a whole ONNX file ({error}).") from None
    if not arrays:
        raise UserError(f"{path} is an ONNX file without weights, or no ONNX file.")
    return arrays, {x.key: x.value for x in model.metadata_props}


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    found = dict(arrays)
    for name, array in arrays.items():
        if name.endswith(".coefficient") and array.ndim == 4:
            if np.ptp(array, axis=(1, 2, 3)).any():
                raise UserError(f"{name}: expected four equal weights for a channel.")
            found[name] = array[:, 0, 0, 0]
    return layout.to_canonical(recipe.architecture, found, LAYOUTS)
