"""The one table of sides: what can be said of each without importing its framework.

A side opens a user's models and optimizers of one framework, for `paripassu check`.
Its modules are those of `contract.ModelModule` and `contract.OptimizerModule`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paripassu.core.errors import UserError
from paripassu.core.version import from_repository

if TYPE_CHECKING:
    from paripassu.sides.contract import ModelModule, OptimizerModule


@dataclass(frozen=True)
class Side:
    """A framework whose models and optimizers can be opened.

    Attributes:
        name: what records hold.
        title: the name as its makers write it.
        import_roots: what it needs, the first of which its users import; also
            whose versions count.
        extra: the extra of `paripassu` that installs them.
        optimizers: the module that opens optimizers.
        optimizer_roots: beginnings of the modules that hold optimizers.
        optimizer_type: what a user's optimizer is, for messages.
        bound: whether an optimizer is made for given parameters, so that a function
            that makes one has to take them.
        models: the module that opens models; "" where optimizers alone are opened.
        suffixes: of the files that it can write.
        model_classes: classes of the framework that a model has among its bases.
        model_type: what a user's model is, for messages.
        channels_first: whether its layers have channels at axis 1, unless they are
            told otherwise.
        given_names: what it calls tensors that nobody has named.
        float32_scales: kinds of layers whose setting `scale` is rounded to float32 even
            in float64; measured by a test.
        float32_gradients: kinds of layers whose gradient has a constant of float32 even
            in float64; measured by a test.
    """

    name: str
    title: str
    import_roots: tuple[str, ...]
    extra: str
    optimizers: str
    optimizer_roots: tuple[str, ...]
    optimizer_type: str
    bound: bool
    models: str = ""
    suffixes: tuple[str, ...] = ()
    model_classes: tuple[str, ...] = ()
    model_type: str = ""
    channels_first: bool = False
    given_names: tuple[str, ...] = ()
    float32_scales: tuple[str, ...] = ()
    float32_gradients: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what is imported for it."""
        return {x: importlib.import_module(x).__version__ for x in self.import_roots}

    def model_module(self) -> ModelModule:
        """Import what opens its models.

        Raises:
            UserError: something that it needs is not installed.
        """
        for root in self.import_roots:
            if importlib.util.find_spec(root) is None:
                raise UserError(
                    f"checking a model of {self.title} needs {root}, which is not "
                    f"installed. Type: pip install '{from_repository(self.extra)}'"
                )
        module: ModelModule = importlib.import_module(self.models)
        return module

    def optimizer_module(self) -> OptimizerModule:
        """Import what opens its optimizers."""
        module: OptimizerModule = importlib.import_module(self.optimizers)
        return module

    def is_model_class(self, cls: type) -> bool:
        """Whether a class is one of the framework's own classes of models."""
        root = cls.__module__.partition(".")[0]
        return cls.__name__ in self.model_classes and root == self.import_roots[0]

    def has_optimizer(self, value: Any) -> bool:
        """Whether a value is an optimizer of it, or a class or function of its own."""
        if inspect.isfunction(value):
            return str(value.__module__).startswith(self.optimizer_roots)
        cls = value if isinstance(value, type) else type(value)
        return any(x.__module__.startswith(self.optimizer_roots) for x in cls.__mro__)


SIDES = (
    Side(
        name="pytorch",
        title="PyTorch",
        import_roots=("torch",),
        extra="pytorch",
        models="paripassu.sides.torch_module",
        optimizers="paripassu.sides.torch_optimizer",
        suffixes=(".safetensors", ".pt", ".pth"),
        model_classes=("Module",),
        model_type="torch.nn.Module",
        optimizer_roots=("torch.optim",),
        optimizer_type="torch.optim.Optimizer",
        bound=True,
        channels_first=True,
        float32_gradients=("hard_sigmoid",),
    ),
    Side(
        name="keras",
        title="Keras",
        import_roots=("keras", "tensorflow"),
        extra="tensorflow",
        models="paripassu.sides.keras_model",
        optimizers="paripassu.sides.keras_optimizer",
        suffixes=(".keras", ".weights.h5"),
        model_classes=("Layer", "Model"),
        model_type="keras.Model",
        optimizer_roots=("keras.src.optimizers", "keras.optimizers"),
        optimizer_type="keras.optimizers.Optimizer",
        bound=False,
        given_names=("keras_tensor", "input_layer", "dense", "activation"),
        float32_scales=("attention",),
    ),
    Side(
        name="optax",
        title="optax",
        import_roots=("optax", "jax"),
        extra="jax",
        optimizers="paripassu.sides.optax_optimizer",
        optimizer_roots=("optax",),
        optimizer_type="optax.GradientTransformation",
        bound=False,
    ),
)
CHANNELS_FIRST = frozenset(x.name for x in SIDES if x.channels_first)
MODEL_TYPES = ", a ".join(x.model_type for x in SIDES if x.models)  # for messages


def side_of_model(value: Any) -> Side | None:
    """The side whose model it is, or whose class of models; None: nobody's.

    The nearest base decides: with PyTorch as its backend, a Keras model is a PyTorch
    module too.
    """
    cls = value if isinstance(value, type) else type(value)
    nearest = (x for base in cls.__mro__ for x in SIDES if x.is_model_class(base))
    return next(nearest, None)


def is_model(value: Any) -> bool:
    """Whether a value is a model, and not a class of models."""
    return not isinstance(value, type) and side_of_model(value) is not None


def side_of_optimizer(found: Any) -> Side | None:
    """The side whose optimizer it is, or which a function makes; None: nobody's.

    A function that has to be given something makes one that is bound to its
    parameters; another is called, since what it makes says whose it is.
    """
    told = found.func if isinstance(found, functools.partial) else found
    for side in SIDES:
        if side.has_optimizer(told):
            return side
    if isinstance(told, type):
        return None
    if not callable(found):
        return None
    try:
        wanted = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    bound = any(
        x.default is x.empty and x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD)
        for x in wanted
    )
    able = [x for x in SIDES if x.bound == bound]
    if len(able) > 1:
        try:
            made = found()
        except (Exception, SystemExit):  # its side tells it
            return able[0]
        return next((x for x in able if x.has_optimizer(made)), able[0])
    return able[0]


@contextlib.contextmanager
def lines_noted() -> Iterator[None]:
    """Note at which lines layers are made, in the frameworks that are imported."""
    with contextlib.ExitStack() as stack:
        for side in SIDES:
            if side.models and all(x in sys.modules for x in side.import_roots):
                stack.enter_context(side.model_module().lines_noted())
        yield


def float32_kinds(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds whose scale, and whose gradient, a side of that name rounds."""
    found = ((x.float32_scales, x.float32_gradients) for x in SIDES if x.name == name)
    return next(found, ((), ()))


def find(name: str) -> Side:
    """The side of that name."""
    return next(x for x in SIDES if x.name == name)
