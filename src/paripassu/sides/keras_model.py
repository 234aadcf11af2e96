"""Opens any Keras model: its weights, calls and gradients as NumPy arrays."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.initializers.random_initializers import RandomInitializer

from paripassu.core.errors import UserError
from paripassu.core.files import replacing
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides import chance, keras_layers, keras_random, observing, user_code
from paripassu.sides.contract import (
    ANY,
    Arrays,
    Blind,
    Block,
    Call,
    Declared,
    Draw,
    Drawing,
    Step,
    Watcher,
)
from paripassu.sides.keras_random import replaced
from paripassu.sides.observing import LazyArrays, Observer

MADE_AT = "_paripassu_made_at"
WITH_ACTIVATION = ("dense", "conv", "conv_transpose", "other")


def _order_branches(model: Any) -> None:
    """Have a functional model call branches in the order of its layers.

    Keras calls those of one depth in an order that its search leaves, often reversed.
    """
    by_depth = getattr(model, "_nodes_by_depth", None)
    if not by_depth:
        return
    places = {id(x): n for n, x in enumerate(model.operations)}
    for nodes in by_depth.values():
        nodes.sort(
            key=lambda x: (
                places.get(id(x.operation), -1),
                x.operation._inbound_nodes.index(x),
            )
        )


class Probe:
    """See `paripassu.sides.contract.Probe`.

    Args:
        model: called once with its inputs before, so that it has its weights.
        build: makes it anew, in the float type that Keras is set to.
        inputs: to call with what was made anew from a configuration, which may have
            its weights only then.
    """

    side = "keras"

    def __init__(
        self,
        model: Any,
        build: Callable[[], Any] | None = None,
        inputs: Arrays | None = None,
    ):
        self.build, self.inputs = build, inputs
        self.seed = chance.SEED
        self.drawing: Drawing = "shared"
        self.draws: Sequence[Draw] = ()
        self.changed: dict[str, dict[str, Any]] = {}
        self._set(model)
        self.lines = {
            name: getattr(x, MADE_AT, "") for name, x in keras_layers.leaves(model)
        }

    def _set(self, model: Any) -> None:
        self.model = model
        for _, layer in keras_layers.containers(model):
            _order_branches(layer)
        self.titles: dict[int, str] = {}
        self.first = has_channels_first(model)
        self.leaves = {id(x): name for name, x in keras_layers.leaves(model)}
        self.containers = {id(x): name for name, x in keras_layers.containers(model)}
        named = [*keras_layers.containers(model), *keras_layers.leaves(model)]
        self.parts = observing.without_repeats(
            self._part(part)
            for name, layer in named
            for part in keras_layers.parts(name, layer)
        )

    def title(self, layer: Any) -> str:
        """A layer of the model as a reader would write it."""
        if id(layer) not in self.titles:
            self.titles[id(layer)] = _title(layer)
        return self.titles[id(layer)]

    def _part(self, part: Any) -> Any:
        """A part, its axis 1 called the last one where the model has channels there."""
        if self.first and keras_layers.normalises_first(part.kind, part.settings):
            return replace(part, settings={**part.settings, "axis": -1})
        return part

    @property
    def own_losses(self) -> Sequence[str]:
        held = [x for x in self.model.trainable_variables if x.regularizer is not None]
        found = [
            f"{type(x.regularizer).__name__} regularizer of {x.path}" for x in held
        ]
        more = len(self.model.losses) > len(held)
        return [*found, *(["add_loss"] if more else [])]

    def blocks(self) -> list[Block]:
        return observing.blocks_of(self.parts, self.model.trainable_variables)

    def write(self, name: str, weights: Arrays) -> None:
        self.parts[name].write(weights)

    def run(
        self,
        inputs: Arrays,
        watcher: Watcher,
        *,
        training: bool = False,
        sources: bool = False,
    ) -> Arrays:
        tensors = {name: self._tensor(x) for name, x in inputs.items()}
        known = list(tensors.values()) if sources else None
        watched = _Watched(self, watcher, known)
        with _kept(self.model), self._drawing(watched), watched:
            found = self._call(tensors, training)
        return {name: _array_of(x) for name, x in watched.named(found).items()}

    def step(
        self, inputs: Arrays, cotangents: Arrays, *, training: bool = True
    ) -> Step:
        tensors = {name: self._tensor(x) for name, x in inputs.items()}
        weights = self.model.trainable_variables
        values = [x.value for x in weights]
        floating = {n: x for n, x in tensors.items() if x.dtype.is_floating}
        with _kept(self.model), tf.GradientTape() as tape:
            tape.watch(list(floating.values()))
            watched = _Watched(self, Blind())
            with self._drawing(watched), watched:
                outputs = watched.named(self._call(tensors, training))
            products = [
                tf.reduce_sum(_real(outputs[name]) * self._tensor(x))
                for name, x in cotangents.items()
                if outputs[name].dtype.is_floating or outputs[name].dtype.is_complex
            ]
            if not cotangents:
                products = [
                    tf.cast(x, self.model.compute_dtype) for x in self.model.losses
                ]
            total = tf.add_n(products or [tf.zeros((), self.model.compute_dtype)])
            statistics = observing.statistics_of(self.parts)
        wanted = [*values, *floating.values()]
        found = tape.gradient(
            total, wanted, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        values.clear()
        wanted.clear()
        arrays = []
        while found:  # one by one: they are as large as the model
            arrays.append(_array_of(found.pop(0)))
        slopes = {
            id(x): slope
            for x, slope in zip(weights, arrays[: len(weights)], strict=True)
        }
        return Step(
            {name: _array_of(x) for name, x in outputs.items()},
            {name: part.read(slopes) for name, part in self.parts.items()},
            dict(zip(floating, arrays[len(weights) :], strict=True)),
            statistics,
        )

    def set_dtype(self, dtype: str) -> Callable[[], None]:
        before = self.model, self.leaves, self.containers, self.parts
        with _drawn_late() as late:
            made = _in_dtype(self.model, self.build, dtype)
            if not made.built or not made.weights:
                self._build_anew(made)
            late.draw(made.weights)
        weights = self.model.weights
        if [x.shape for x in made.weights] != [x.shape for x in weights]:
            raise UserError("the Keras model, made anew, has other weights.")
        for weight, other in zip(made.weights, weights, strict=True):
            weight.assign(other.numpy())  # one by one: all copied are another model
        found = {keras.backend.standardize_dtype(x.dtype) for x in made.weights}
        if any(x.startswith("float") and x != dtype for x in found):
            raise UserError(
                f"the Keras model, made anew in {dtype}, has weights in "
                f"{', '.join(sorted(found))}."
            )
        self._set_anew(made)
        for name, settings in self.changed.items():
            self._change(name, settings)

        def put_back() -> None:
            self.model, self.leaves, self.containers, self.parts = before

        return put_back

    def change_settings(
        self, name: str, settings: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        undo = self._change(name, settings)
        if undo is not None:
            before = self.changed
            self.changed = {**before, name: {**before.get(name, {}), **settings}}

        def put_back() -> None:
            assert undo is not None
            undo()
            self.changed = before

        return undo and put_back

    def _change(
        self, name: str, settings: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        layers = (layer for _, layer in keras_layers.leaves(self.model))
        layer = next((x for x in layers if self.leaves[id(x)] == name), None)
        undo = layer and observing.change_settings(
            layer, dict(settings), keras_layers.ATTRIBUTES
        )
        if undo:
            self._set_anew(self.model)
        return undo or None

    def _set_anew(self, made: Any) -> None:
        """Take a model made anew; Keras numbers on: dense_1 comes back as dense_3."""
        names, parts = list(self.leaves.values()), list(self.parts.values())
        outer = list(self.containers.values())
        self._set(made)
        self.leaves = dict(zip(self.leaves, names, strict=True))
        self.containers = dict(zip(self.containers, outer, strict=True))
        self.parts = {
            old.name: replace(new, name=old.name, layer=old.layer)
            for old, new in zip(parts, self.parts.values(), strict=True)
        }

    def _build_anew(self, made: Any) -> None:
        """Give weights to a model that was made from a configuration."""
        if shapes := [x.shape for x in getattr(self.model, "inputs", None) or ()]:
            made.build(shapes)
        elif self.inputs is not None:
            build(made, self.inputs)
        else:
            raise UserError("the Keras model, made anew, has no weights.")

    @contextlib.contextmanager
    def _drawing(self, watched: _Watched) -> Iterator[None]:
        """While the model computes; `draws` has what it drew, after it."""
        with keras_random.controlled(watched.draws):
            yield
        self.draws = tuple(watched.draws)

    def _tensor(self, array: Array) -> Any:
        tensor = tf.convert_to_tensor(observing.contiguous(array))
        if not tensor.dtype.is_floating:
            return tensor
        return tf.cast(tensor, self.model.compute_dtype)

    def _call(self, tensors: Mapping[str, Any], training: bool) -> Any:
        # A graph called without `training` is in evaluation mode, but for layers that
        # were told otherwise when it was made: `Dropout(0.5)(x, training=True)`.
        graph = isinstance(self.model, (keras.Sequential, keras.src.models.Functional))
        how = {} if graph and not training else {"training": training}
        return _call(self.model, tensors, **how)

    @property
    def float_type(self) -> str:
        """Of its weights or of what it computes, the least precise one."""
        names = {keras.backend.standardize_dtype(x.dtype) for x in self.model.weights}
        names |= {x.compute_dtype for x in self.model._flatten_layers()}
        for name in ("float16", "bfloat16", "float32", "float64"):
            if name in names:
                return name
        return str(self.model.compute_dtype)


@dataclass
class _Late:
    """Variables that wait for the numbers with which they begin."""

    waiting: list[tuple[Any, Any]] = field(default_factory=list)

    def draw(self, but: Iterable[Any]) -> None:
        """Draw them for all variables but those that get others anyway."""
        written = set(map(id, but))
        for variable, initializer in self.waiting:
            if id(variable) not in written:
                variable.assign(initializer(variable.shape, dtype=variable.dtype))


@contextlib.contextmanager
def _drawn_late() -> Iterator[_Late]:
    """While random weights are zeros at first: to draw a large model takes seconds."""
    late, original = _Late(), backend.Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        if not isinstance(initializer, RandomInitializer):
            original(variable, initializer)
            return
        late.waiting.append((variable, initializer))
        original(variable, keras.initializers.Zeros())

    with replaced(backend.Variable, "_initialize_with_initializer", initialize):
        yield late


def _in_dtype(model: Any, build: Callable[[], Any] | None, dtype: str) -> Any:
    """The model made anew in another float type."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        if build is not None:
            return build()
        if isinstance(model, keras.Sequential):
            return _sequential_in(model, dtype)
        if hasattr(model, "operations"):
            return keras.models.clone_model(
                model,
                keras.tree.map_structure(lambda x: _input_in(x, dtype), model.input),
                clone_function=lambda layer: type(layer).from_config(
                    _retyped(layer, dtype)
                ),
            )
        return type(model).from_config(_retyped(model, dtype))
    except Exception as error:
        raise UserError(
            f"the Keras model cannot be made anew in {dtype} "
            f"({type(error).__name__}: {error}). Give a function that builds it."
        ) from error
    finally:
        keras.config.set_floatx(before[1])
        keras.config.set_dtype_policy(before[0])


def _input_in(tensor: Any, dtype: str) -> Any:
    """An input like another one: Keras' own clone keeps its float type."""
    floats = keras.backend.is_float_dtype(tensor.dtype)
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=dtype if floats else tensor.dtype,
        name=tensor.name,
    )


def _sequential_in(model: Any, dtype: str) -> Any:
    """A `Sequential` made anew."""
    inputs = [_input_in(x, dtype) for x in getattr(model, "inputs", None) or ()]
    layers = [type(x).from_config(_retyped(x, dtype)) for x in model.layers]
    return keras.Sequential([*inputs, *layers], name=model.name)


def _retyped(layer: Any, dtype: str) -> dict[str, Any]:
    """A layer's configuration, in it and in what it holds another float type."""

    def retyped(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: dtype if key == "dtype" else retyped(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [retyped(item) for item in value]
        return value

    config = dict(retyped(layer.get_config()))
    if isinstance(layer, keras.layers.Layer):
        config["dtype"] = dtype
    return config


NUMPY_FLOATS = (tf.float16, tf.float32, tf.float64)
NUMBERED = re.compile(r"(keras_tensor|input_layer|input)(_?\d+)?")

ACTIVATIONS = (
    "relu relu6 leaky_relu elu selu celu gelu silu sigmoid hard_sigmoid hard_silu tanh "
    "softplus softmax log_softmax mish"
)
# Those that are watched, by where they are.
FUNCTIONS: dict[Any, str] = {
    keras.ops: (
        f"{ACTIVATIONS} max_pool average_pool add subtract multiply true_divide divide "
        "concatenate stack reshape squeeze expand_dims transpose swapaxes moveaxis "
        "mean sum max pad matmul einsum dot_product_attention take split flip "
        "stop_gradient normalize"
    ),
    keras.activations: ACTIVATIONS,
    tf: (
        "concat reshape transpose reduce_mean reduce_sum pad matmul einsum stop_gradient "
        "sigmoid tanh"
    ),
    tf.math: "sigmoid tanh softplus",
    tf.nn: (
        "relu relu6 leaky_relu elu selu gelu silu sigmoid tanh softplus softmax "
        "log_softmax max_pool2d avg_pool2d"
    ),
    tf.Tensor: (
        "__add__ __radd__ __mul__ __rmul__ __sub__ __rsub__ __truediv__ __getitem__"
    ),
}
PLAIN = {
    "concat": "concatenate",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "radd": "add",
    "mul": "multiply",
    "rmul": "multiply",
    "sub": "subtract",
    "truediv": "true_divide",
}


def check_usable() -> None:
    """Say how to start Keras with another backend, where it is another."""
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"Keras computes with {backend} here, but TensorFlow is expected. "
            "Type: KERAS_BACKEND=tensorflow paripassu check ..."
        )


@contextlib.contextmanager
def lines_noted() -> Iterator[None]:
    """Note where layers and operations are made: Keras itself calls those of a graph."""
    original = keras.Operation.__init__

    def made(operation: Any, *args: Any, **kwargs: Any) -> None:
        # Past Keras, which tracks what it is given.
        object.__setattr__(operation, MADE_AT, user_code.calling_line())
        original(operation, *args, **kwargs)

    with replaced(keras.Operation, "__init__", made):
        yield


def is_built(model: Any) -> bool:
    """Whether it has been called, or knows its inputs' shapes."""
    return bool(model.built)


def build(model: Any, inputs: Arrays) -> None:
    """Call a model once, so that it makes its weights."""
    if model.built and model.weights:
        return
    _call(model, {name: tf.convert_to_tensor(x) for name, x in inputs.items()})


def declared_inputs(model: Any) -> dict[str, Declared]:
    """The inputs of a functional model, or the arguments of a subclass's `call`.

    A model that was called with a dict takes what was in it.
    """
    if inputs := getattr(model, "inputs", None):
        named = not isinstance(getattr(model, "_inputs_struct", None), dict)
        return {
            name: Declared(
                tuple(x.shape),
                any(y in str(x.dtype) for y in ("int", "bool")),
                required=not getattr(x, "optional", False),
                placed=named,
            )
            for name, x in zip(_input_names(model), inputs, strict=True)
        }
    for shapes in (getattr(model, "_build_shapes_dict", None) or {}).values():
        if isinstance(shapes, dict):
            return {name: Declared(placed=False) for name in shapes}
    return observing.declared_arguments(_arguments(model))


def has_channels_first(model: Any) -> bool:
    """Whether a layer was told so."""
    return any(
        getattr(x, "data_format", "") == "channels_first"
        for x in model._flatten_layers()
    )


def _arguments(model: Any) -> list[inspect.Parameter]:
    """Of `call`."""
    found = inspect.signature(model.call).parameters.values()
    return [x for x in found if x.name != "training"]


def _input_names(model: Any) -> list[str]:
    """Names of a functional model's inputs, in the order in which they are declared.

    A key of a dict is the name; "input", "input1", ... stand for what Keras numbers
    itself: the model that is made anew has other numbers.
    """
    leaves = observing.nest_leaves(
        getattr(model, "_inputs_struct", model.inputs), keras.utils.is_keras_tensor
    )
    keys = {id(x): path for path, x in leaves}
    names = []
    for number, x in enumerate(model.inputs):
        path = [y for y in keys.get(id(x), ()) if isinstance(y, str)]
        own = "" if NUMBERED.fullmatch(x.name) else x.name
        names.append(".".join(path) or own or f"input{number or ''}")
    return names


def _call(model: Any, tensors: Mapping[str, Any], **how: Any) -> Any:
    """Call a model in the form in which it takes its inputs."""
    with _computing_on_cpu(model):
        return _call_in_form(model, tensors, **how)


def _call_in_form(model: Any, tensors: Mapping[str, Any], **how: Any) -> Any:
    values = list(tensors.values())
    if inputs := getattr(model, "inputs", None):
        names = _input_names(model)
        given = (
            tensors
            if set(tensors) <= set(names)
            else dict(zip(names, values, strict=False))
        )
        struct = getattr(model, "_inputs_struct", None)
        struct = inputs[0] if struct is None else struct
        flat = [given.get(name) for name in names]
        return model(keras.tree.pack_sequence_as(struct, flat), **how)
    takes = declared_inputs(model)
    if takes.keys() - {ANY} and not any(x.placed for x in takes.values()):
        return model(dict(tensors), **how)
    if set(tensors) <= {x.name for x in _arguments(model)} and len(values) > 1:
        return model(**tensors, **how)
    if len(values) == 1:
        return model(values[0], **how)
    needed = [x for x in takes.values() if x.required]
    if len(needed) > 1:
        return model(*values, **how)
    return model(dict(tensors) if _wants_dict(model, tensors) else values, **how)


def _wants_dict(model: Any, names: Iterable[str]) -> bool:
    """Whether `call` has several inputs in a dict, and not in a list: by its source.

    Not by trying: Keras keeps the form of the first call, even of one that failed.
    """
    given = next(x.name for x in _arguments(model))
    try:
        source = inspect.getsource(type(model).call)
    except (OSError, TypeError):
        source = ""
    if re.search(rf"\b{given}\s*(\[\s*[\"']|\.(get|items|keys|values|pop)\b)", source):
        return True
    listed = rf"\b{given}\s*\[\s*-?\d|,[^=\n]*=\s*{given}\s*(?:[;#]|$)|\*{given}\b|\bin {given}\b"
    if re.search(listed, source, re.MULTILINE):
        return False
    return any(not NUMBERED.fullmatch(name) for name in names)


CHANNELED = "conv conv_transpose depthwise_conv separable_conv max_pool average_pool"


@contextlib.contextmanager
def _computing_on_cpu(model: Any) -> Iterator[None]:
    """Let a CPU compute what TensorFlow has not there, or compiles for every call anew.

    Convolutions with channels first get channels last, and give channels first; groups
    are computed one by one, since there is no gradient of a grouped convolution. Pools
    of three axes in float64 are computed over the last two, then over the first.
    """
    with contextlib.ExitStack() as stack:
        if not tf.config.list_physical_devices("GPU"):
            grouped = _in_groups(backend.nn.conv)
            stack.enter_context(replaced(backend.nn, "conv", grouped))
            for name in ("max_pool", "avg_pool"):
                pool = _by_pools_in_2d(getattr(tf.nn, name))
                stack.enter_context(replaced(tf.nn, name, pool))
            for name in CHANNELED.split() if has_channels_first(model) else ():
                given = _with_channels_last(getattr(backend.nn, name))
                stack.enter_context(replaced(backend.nn, name, given))
        yield


def _in_groups(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def computed(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        inputs, kernel = map(tf.convert_to_tensor, (given["inputs"], given["kernel"]))
        groups = inputs.shape[-1] // kernel.shape[-2]
        order = backend.standardize_data_format(given["data_format"])
        if groups == 1 or order == "channels_first":
            return original(*args, **kwargs)
        rank = len(kernel.shape) - 2
        for name in ("strides", "dilation_rate"):
            value = given[name]
            given[name] = (value,) * rank if isinstance(value, int) else tuple(value)
        if kernel.shape[-2] == 1 and rank < 3 and len(set(given["strides"])) == 1:
            shape = [*kernel.shape[:-2], groups, kernel.shape[-1] // groups]
            given.update(inputs=inputs, kernel=tf.reshape(kernel, shape))
            return backend.nn.depthwise_conv(**given)
        made = []
        for x, y in zip(
            tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True
        ):
            given.update(inputs=x, kernel=y)
            made.append(original(*bound.args, **bound.kwargs))
        return tf.concat(made, -1)

    return computed


def _of_space(sizes: Any) -> tuple[int, ...]:
    """Sizes of three axes of space, given as one number, one of each, or of all axes."""
    if isinstance(sizes, int) or len(sizes) == 1:
        return (*np.ravel(sizes).tolist(),) * 3
    return tuple(sizes[1:4] if len(sizes) == 5 else sizes)


def _by_pools_in_2d(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def computed(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        inputs, padding = tf.convert_to_tensor(given["input"]), given["padding"]
        first = (given.get("data_format") or "").startswith("NC")
        if len(inputs.shape) != 5 or inputs.dtype != tf.float64 or first:
            return original(*args, **kwargs)
        size, strides = (_of_space(given[x]) for x in ("ksize", "strides"))
        n, depth, *plane = tf.unstack(tf.shape(inputs))
        flat = tf.reshape(inputs, [n * depth, *plane])
        flat = original(flat, size[1:], strides[1:], padding)
        _, height, width, channels = tf.unstack(tf.shape(flat))
        rows = tf.reshape(flat, [n, depth, height * width, channels])
        rows = original(rows, (size[0], 1), (strides[0], 1), padding)
        return tf.reshape(rows, [n, -1, height, width, channels])

    return computed


def _with_channels_last(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def computed(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        if bound.arguments.get("data_format") != "channels_first":
            return original(*args, **kwargs)
        bound.arguments["data_format"] = "channels_last"
        tensor = bound.arguments["inputs"]
        axes = list(range(len(tensor.shape)))
        there, back = [0, *axes[2:], 1], [0, axes[-1], *axes[1:-1]]
        bound.arguments["inputs"] = backend.numpy.transpose(tensor, there)
        made = original(*bound.args, **bound.kwargs)
        return backend.numpy.transpose(made, back)

    return computed


def open_model(
    model: Any,
    make: Callable[[], Any] | None = None,
    inputs: Arrays | None = None,
) -> Probe:
    """Open a built model; `make` gives it in another float type."""
    if make is None:
        return Probe(model, None, inputs)

    def rebuild() -> Any:
        made = make()
        if inputs is not None:
            build(made, inputs)
        return made

    return Probe(model, rebuild)


def own_copy(model: Any) -> Any:
    """The model itself: Keras makes another one for another float type."""
    return model


def float_type_kept(_model: Any) -> contextlib.AbstractContextManager[None]:
    """Nothing: Keras makes another model for another float type."""
    return contextlib.nullcontext()


def save(model: Any, path: Path) -> None:
    """Write a model (.keras) or its weights (.weights.h5), whole or not at all."""
    with replacing(path) as temporary:
        if path.name.endswith(".weights.h5"):
            model.save_weights(temporary)
        else:
            model.save(temporary)


class _Watched(Observer):
    """Tells a watcher of each layer's call, and of functions called between layers."""

    title = "Keras"

    def __init__(self, probe: Probe, watcher: Watcher, inputs: list[Any] | None = None):
        super().__init__(watcher, inputs)
        self.probe = probe
        self.draws = chance.Draws(self, probe.seed, probe.drawing)
        self.undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            original = keras.layers.Layer.__call__
            of_operation = keras.Operation.__call__
            watched = self

            def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
                return watched.layer(layer, original, args, kwargs)

            def call_operation(operation: Any, *args: Any, **kwargs: Any) -> Any:
                if isinstance(operation, keras.layers.Layer):
                    return of_operation(operation, *args, **kwargs)
                return watched.operation(operation, of_operation, args, kwargs)

            stack.enter_context(replaced(keras.layers.Layer, "__call__", call_layer))
            stack.enter_context(replaced(keras.Operation, "__call__", call_operation))
            for place, names in FUNCTIONS.items():
                for name in names.split():
                    if (given := getattr(place, name, None)) is not None:
                        wrapped = self._wrapped(name, given)
                        stack.enter_context(replaced(place, name, wrapped))
            self.undo = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo.close()

    def is_tensor(self, value: Any) -> bool:
        """Of numbers."""
        return isinstance(value, tf.Tensor) and value.dtype != tf.string

    def to_last(self, tensor: Any, spec: LayerSpec, layer: Any) -> Array:
        """An array with channels last, where a layer was told that they are first."""
        array = _array_of(tensor)
        if self._has_first(spec, layer, array.ndim):
            return np.ascontiguousarray(np.moveaxis(array, 1, -1))
        return array

    def _has_first(self, spec: LayerSpec, layer: Any, dimensions: int) -> bool:
        if spec.settings.get("_first") and dimensions >= 3:
            return True
        return keras_layers.channels_first(layer, dimensions)

    def from_last(self, array: Array, spec: LayerSpec, layer: Any, like: Any) -> Any:
        """The other way round, with the mask of the tensor that was there."""
        if self._has_first(spec, layer, array.ndim):
            array = np.moveaxis(array, -1, 1)
        fresh = tf.convert_to_tensor(observing.contiguous(array))
        fresh = tf.cast(fresh, like.dtype)
        if (mask := getattr(like, "_keras_mask", None)) is not None:
            fresh._keras_mask = mask
        return fresh

    def around(
        self,
        call: Call,
        layer: Any,
        compute: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Tell of a call, and compute it without what is called in it."""
        given = self.enter(call, layer, (args, kwargs))
        args, kwargs = (args, kwargs) if given is None else given
        self.depth += 1
        try:
            result = compute(*args, **kwargs)
        finally:
            self.depth -= 1
        return result

    def layer(self, layer: Any, original: Any, args: Any, kwargs: Any) -> Any:
        """A layer is called."""
        if self.depth or id(layer) not in self.probe.leaves:
            name = self.probe.containers.get(id(layer))
            if name is None or self.depth:
                return original(layer, *args, **kwargs)
            self.inside.append(name)
            try:
                return original(layer, *args, **kwargs)
            finally:
                self.inside.pop()
        args = tuple(map(_value_of, args))
        kwargs = {key: _value_of(x) for key, x in kwargs.items()}
        spec = keras_layers.describe(layer)
        first = self.probe.first
        if first and keras_layers.normalises_first(spec.kind, spec.settings):
            spec.settings.update(axis=-1, _first=True)
        if spec.kind == "attention":
            spec.settings["causal"] = bool(kwargs.get("use_causal_mask"))
        self.draws.rate = getattr(layer, "rate", None)
        name = self.probe.leaves[id(layer)]
        line = self.probe.lines.get(name, "")
        title = self.probe.title(layer)
        call = self.begin(name, title, spec, (args, kwargs), line)
        compute = functools.partial(original, layer)
        inner_layer = layer.layer if keras_layers.is_normed(layer) else layer
        function = getattr(inner_layer, "activation", None)
        fused = spec.kind in WITH_ACTIVATION and spec.weights and callable(function)
        if not fused or keras_layers.activation(function).kind == "identity":
            return self.leave(
                call, layer, self.around(call, layer, compute, args, kwargs)
            )
        inner: list[Call] = []

        def activate(tensor: Any) -> Any:
            tensor = self.leave(call, layer, tensor)
            told = keras_layers.activation(function)
            label = f"{name}:{told.settings.get('function', told.kind)}"
            inner.append(self.begin(label, label, told, tensor, line))
            self.watcher.enter(inner[0], LazyArrays([tensor], _array_of))
            return function(tensor)  # type: ignore[misc]

        with replaced(inner_layer, "activation", activate):
            result = self.around(call, layer, compute, args, kwargs)
        return self.leave(inner[0], layer, result)

    def operation(self, operation: Any, original: Any, args: Any, kwargs: Any) -> Any:
        """A function in a model's graph is called."""
        if self.depth or not self.tensors((args, kwargs)):
            return original(operation, *args, **kwargs)
        given = {**vars(operation), **_operands(args)}
        name = keras_layers.snake_case(type(operation).__name__)
        spec = keras_layers.function(name, given)
        line = getattr(operation, MADE_AT, "")
        call = self.begin(operation.name, name, spec, (args, kwargs), line)
        compute = functools.partial(original, operation)
        result = self.around(call, operation, compute, args, kwargs)
        return self.leave(call, operation, result)

    def _wrapped(self, name: str, original: Any) -> Any:
        plain = PLAIN.get(name.strip("_"), name.strip("_"))

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.depth or not self.tensors((args, kwargs)):
                return original(*args, **kwargs)
            args = tuple(map(_value_of, args))
            try:
                bound = inspect.signature(original).bind(*args, **kwargs)
                bound.apply_defaults()
                given = {k: x for k, x in bound.arguments.items() if x is not None}
            except (TypeError, ValueError):
                given = kwargs
            spec = keras_layers.function(plain, given | _operands(args))
            call = self.begin(plain, plain, spec, (args, kwargs))
            result = self.around(call, None, original, args, kwargs)
            return self.leave(call, None, result)

        return wrapped


def _array_of(value: Any) -> Array:
    """A tensor's values; what NumPy has no type for, in float32."""
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype.is_floating and tensor.dtype not in NUMPY_FLOATS:
        tensor = tf.cast(tensor, tf.float32)
    return np.asarray(tensor)


def _value_of(given: Any) -> Any:
    """What a variable holds, where one is given to a layer: positions of a table."""
    return tf.convert_to_tensor(given) if isinstance(given, keras.Variable) else given


def _real(tensor: Any) -> Any:
    """The same of a complex tensor: the sum of its real and its imaginary part."""
    if not tensor.dtype.is_complex:
        return tensor
    return tf.math.real(tensor) + tf.math.imag(tensor)


def _operands(args: Any) -> dict[str, Any]:
    return dict(zip(("x1", "x2"), args, strict=False))


def _title(layer: Any) -> str:
    """A layer as a reader would write it, with what is not obvious."""
    kind = type(layer).__name__
    try:
        config = layer.get_config()
    except Exception:
        return kind
    names = (
        *(
            "units",
            "filters",
            "kernel_size",
            "strides",
            "padding",
            "dilation_rate",
        ),
        *("pool_size", "epsilon", "momentum", "axis", "activation", "use_bias"),
        *("rate", "negative_slope", "interpolation", "reset_after", "return_sequences"),
    )
    shown = [
        f"{name}={config[name]!r}"
        for name in names
        if name in config and not isinstance(config[name], dict)
    ]
    return f"{kind}({', '.join(shown)})"


@contextlib.contextmanager
def _kept(model: Any) -> Iterator[None]:
    """Put running statistics, seeds and normed kernels back to what they were."""
    normed = [x.kernel for x in model._flatten_layers() if keras_layers.is_normed(x)]
    changing = [*model.non_trainable_variables, *normed]
    before = [(x, np.asarray(x).copy()) for x in changing]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
