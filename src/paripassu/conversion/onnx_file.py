"""ONNX files, written from the architecture: no framework has a part in it.

Images come in as float32 `(batch, c, h, w)`, normalised, the batch of any size; out
come `logits` or `probabilities`, `(batch, classes)`. Each weight is an initializer
under its canonical name, so that a file is read back as exactly what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import layout
from paripassu.core.architecture import IMAGES, Layer
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe

OPSET = 17  # of 2022: every current runtime reads it
IR_VERSION = 8  # that of its time
LAYOUTS = {"h w i o": "o i h w", "(h w c) o": "(c h w) o", "(h w c)": "(c h w)"}
CONSTANTS = (".pads", ".slope", ".amplitude")  # what is not learned
CONSTANT = ".const."  # in the names of others

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
    names = {IMAGES: "images"}  # of what leaves each layer
    for layer in sheet.layers:
        given = [names[source] for source in layer.inputs]
        names[layer.name] = given[0] if layer.kind == "dropout" else layer.name
        if layer.kind == "dropout":
            continue
        shape = sheet.shape_of(layer.inputs[0])
        if layer.kind in OPERATORS:
            steps, made = OPERATORS[layer.kind](layer, given, shape, moved)
        else:
            steps, made = _nodes(layer, given[0], moved)
        arrays |= made
        nodes += [helper.make_node(*step, **options) for step, options in steps]
    last = names[sheet.layers[-1].name]
    if nodes and nodes[-1].output[0] == last == sheet.layers[-1].name:
        nodes[-1].output[0] = recipe.output
    else:  # it ends in dropout
        nodes.append(helper.make_node("Identity", [last], [recipe.output]))
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
            return [(("Conv", names, [y]), _windows(layer))], own
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
            return [(("MaxPool", [x], [y]), _windows(layer))], {}
        case "average_pool":
            return [(("AveragePool", [x], [y]), _windows(layer))], {}
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


def _windows(layer: Layer) -> dict[str, Any]:
    """The attributes of a convolution or a pool."""
    settings = layer.settings
    found: dict[str, Any] = {}
    if "size" in settings:
        found["kernel_shape"] = list(settings["size"])
        found["strides"] = list(settings.get("strides", settings["size"]))
    elif "strides" in settings:
        found["strides"] = list(settings["strides"])
    if "dilation" in settings:
        found["dilations"] = list(settings["dilation"])
    if "groups" in settings:
        found["group"] = settings["groups"]
    if "padding" in settings:
        found["pads"] = np.array(settings["padding"]).T.ravel().tolist()
    return found


Made = tuple[list[Step], Arrays]


def _plain(operator: str, **renamed: str) -> Callable[..., Made]:
    """One operator, with settings of the layer as attributes of other names."""

    def made(layer: Layer, given: list[str], *_: Any) -> Made:
        options = {own: layer.settings[key] for key, own in renamed.items()}
        return [((operator, given, [layer.name]), options)], {}

    return made


def _silu(layer: Layer, given: list[str], *_: Any) -> Made:
    y = layer.name
    return [
        (("Sigmoid", given, [f"{y}.share"]), {}),
        (("Mul", [*given, f"{y}.share"], [y]), {}),
    ], {}


def _gelu(layer: Layer, given: list[str], *_: Any) -> Made:
    """x (1 + f(u)) / 2: f is erf of u = x / sqrt(2), or a tanh of its approximation."""
    y, (x,) = layer.name, given
    numbers = {"half": 0.5, "one": 1.0, "root": 0.5**0.5}
    steps: list[Step] = []
    if layer.settings["approximate"]:
        numbers |= {"root": (2 / np.pi) ** 0.5, "cubic": 0.044715}
        steps = [
            (("Mul", [x, x], [f"{y}.square"]), {}),
            (("Mul", [f"{y}.square", x], [f"{y}.cube"]), {}),
            (("Mul", [f"{y}.cube", f"{y}.const.cubic"], [f"{y}.more"]), {}),
            (("Add", [x, f"{y}.more"], [f"{y}.sum"]), {}),
        ]
    inner = f"{y}.sum" if steps else x
    function = "Tanh" if steps else "Erf"
    steps += [
        (("Mul", [inner, f"{y}.const.root"], [f"{y}.in"]), {}),
        ((function, [f"{y}.in"], [f"{y}.out"]), {}),
        (("Add", [f"{y}.out", f"{y}.const.one"], [f"{y}.twice"]), {}),
        (("Mul", [f"{y}.twice", f"{y}.const.half"], [f"{y}.share"]), {}),
        (("Mul", [x, f"{y}.share"], [y]), {}),
    ]
    constants = {
        f"{y}.const.{name}": np.asarray(x, np.float32) for name, x in numbers.items()
    }
    return steps, constants


def _global_pool(operator: str) -> Callable[..., Made]:
    def made(layer: Layer, given: list[str], *_: Any) -> Made:
        y = layer.name
        return [
            ((operator, given, [f"{y}.image"]), {}),
            (("Flatten", [f"{y}.image"], [y]), {"axis": 1}),
        ], {}

    return made


def _own(layer: Layer, weights: Arrays) -> Arrays:
    return {w.name: weights[w.name].astype(np.float32) for w in layer.weights}


def _batch_norm(
    layer: Layer, given: list[str], _shape: tuple[int, ...], weights: Arrays
) -> Made:
    own = _own(layer, weights)
    options = {"epsilon": layer.settings["epsilon"]}
    return [(("BatchNormalization", [*given, *own], [layer.name]), options)], own


def _layer_norm(
    layer: Layer, given: list[str], shape: tuple[int, ...], weights: Arrays
) -> Made:
    """Over the channels, which are the last axis while it computes."""
    own, y = _own(layer, weights), layer.name
    options = {"axis": -1, "epsilon": layer.settings["epsilon"]}
    if len(shape) == 1:
        return [(("LayerNormalization", [*given, *own], [y]), options)], own
    return [
        (("Transpose", given, [f"{y}.in"]), {"perm": [0, 2, 3, 1]}),
        (("LayerNormalization", [f"{y}.in", *own], [f"{y}.out"]), options),
        (("Transpose", [f"{y}.out"], [y]), {"perm": [0, 3, 1, 2]}),
    ], own


def _group_norm(
    layer: Layer, given: list[str], shape: tuple[int, ...], weights: Arrays
) -> Made:
    """Each group as an image's channel, which instance norm has an operator for."""
    own, y = _own(layer, weights), layer.name
    groups, channels = layer.settings["groups"], shape[-1]
    gamma, beta = own
    axes = (channels, *(1,) * (len(shape) - 1))
    own = {name: array.reshape(axes) for name, array in own.items()}
    space = shape[:-1]
    constants = {
        f"{y}.const.groups": np.array([0, groups, -1], np.int64),
        f"{y}.const.image": np.array([0, channels, *space], np.int64),
        f"{y}.const.ones": np.ones(groups, np.float32),
        f"{y}.const.zeros": np.zeros(groups, np.float32),
    }
    groups_in, image, ones, zeros = constants
    options = {"epsilon": layer.settings["epsilon"]}
    return [
        (("Reshape", [*given, groups_in], [f"{y}.groups"]), {}),
        (
            ("InstanceNormalization", [f"{y}.groups", ones, zeros], [f"{y}.normal"]),
            options,
        ),
        (("Reshape", [f"{y}.normal", image], [f"{y}.image"]), {}),
        (("Mul", [f"{y}.image", gamma], [f"{y}.scaled"]), {}),
        (("Add", [f"{y}.scaled", beta], [y]), {}),
    ], {**own, **constants}


OPERATORS: dict[str, Callable[..., Made]] = {
    "leaky_relu": _plain("LeakyRelu", slope="alpha"),
    "elu": _plain("Elu", alpha="alpha"),
    "sigmoid": _plain("Sigmoid"),
    "softplus": _plain("Softplus"),
    "silu": _silu,
    "gelu": _gelu,
    "add": _plain("Sum"),
    "concatenate": lambda layer, given, *_: (
        [(("Concat", given, [layer.name]), {"axis": 1})],
        {},
    ),
    "global_average_pool": _global_pool("GlobalAveragePool"),
    "global_max_pool": _global_pool("GlobalMaxPool"),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


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
        learned = (
            x
            for x in initial
            if not x.name.endswith(CONSTANTS) and CONSTANT not in x.name
        )
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
    for layer in recipe.architecture.layers_of("group_norm"):
        for weight in layer.weights:
            if weight.name in found:
                found[weight.name] = found[weight.name].reshape(-1)
    return layout.to_canonical(recipe.architecture, found, LAYOUTS)
