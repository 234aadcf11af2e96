"""What a probe tells of a model: blocks of weights, and calls as it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from paripassu.core.layer_spec import Array, LayerSpec

if TYPE_CHECKING:
    from paripassu.reference.optimizers import OptimizerRule

Arrays = dict[str, Array]
# An attribute of a user's optimizer: a dict of the settings and forms, by the names of
# `reference.optimizers`, in which its rule differs from that of the class that it is made of.
RULE_CHANGES = "rule_changes"


class Live(Mapping[str, Array]):
    """Weights that are read when they are asked for: a model is not held twice.

    Args:
        shapes: of each weight, with canonical axes.
        read: gives one by its name.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Array]
    ):
        self.shapes, self.read = dict(shapes), read

    def __getitem__(self, name: str) -> Array:
        if name not in self.shapes:
            raise KeyError(name)
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True)
class Block:
    """Weights that belong together: a layer's, or one direction's of an LSTM.

    Attributes:
        name: `layer1.0.bn2`, and for a part of a layer `rnn/1/reverse`.
        layer: the layer that it is, or that it is a part of.
        spec: kind, settings and weights, as `core.layer_spec` has them.
        trainable: whether training changes any weight of it.
    """

    name: str
    layer: str
    spec: LayerSpec
    trainable: bool = True

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.spec.kind

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight."""
        weights = self.spec.weights
        if isinstance(weights, Live):
            return weights.shapes
        return {name: x.shape for name, x in weights.items()}


@dataclass(frozen=True)
class Call:
    """A layer or a function at work.

    Attributes:
        name: of the layer, or of the function.
        title: what a reader would write: `MaxPool2d(kernel_size=2)`.
        spec: its kind and settings; weights are in the blocks.
        weighted: whether it has weights of its own.
        serial: the how manieth call of the run it is.
        sources: the serials of the calls that made its inputs; -1 for the model's.
            Only known where the run asked for it.
        inside: the layers in which it is called that are looked into, by name, the
            outermost first.
        constants: what it is given beside, made by no call: buffers, weights, tables.
            Only known where the run asked for sources.
        line: of the user's code where it is called, or made: `net.py:42`, or "".
    """

    name: str
    title: str
    spec: LayerSpec
    weighted: bool
    serial: int
    sources: tuple[int, ...] = ()
    inside: tuple[str, ...] = ()
    constants: tuple[Array, ...] = ()
    line: str = ""

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.spec.kind

    @property
    def of_function(self) -> bool:
        """Whether it is a function's, which has no name of its own."""
        return ":" not in self.name and self.name == self.title.partition("(")[0]


class Watcher(Protocol):
    """Sees every call of a run; arrays have channels last where the kind has them.

    They are made when they are asked for: `tuple(inputs)` keeps them as they are now.
    """

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Before it computes; what is returned takes the inputs' place."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """After it computed; what is returned takes the outputs' place."""


# What a model is given when it draws: the numbers that every model gets; the same, but
# dropout and noise leave values as they are; or what it draws by itself.
Drawing = Literal["shared", "off", "own"]


@dataclass(frozen=True)
class Draw:
    """Random numbers that a run drew; see `sides.chance` for what they were.

    Attributes:
        place: the layer or function that drew them, or "after" the last one.
        kind: "dropout", "uniform", "normal", "bernoulli", "integers" or "order"; of
            what is not shared, the operation's name.
        rate: of a dropout, or of a mask drawn with one probability of nought.
        size: how many numbers; fewer than a tensor has where whole channels are dropped.
        after: the last layer with weights that was called, or "".
        line: of the model's own code, `net.py:42`, or "".
        shared: whether every model gets the same ones; else they come of the seed.
    """

    place: str
    kind: str
    rate: float | None
    size: int
    after: str
    line: str
    shared: bool = True


@dataclass(frozen=True)
class Step:
    """What one pass forward and back in training mode leaves.

    Attributes:
        own_loss: the sum of the model's own losses, where it is they whose gradients
            these are.
    """

    outputs: Arrays
    gradients: Mapping[str, Arrays]  # of blocks
    input_gradients: Arrays
    statistics: Mapping[str, Arrays]  # mean and variance after it, of blocks
    own_loss: float = 0.0


class Blind:
    """A watcher that sees nothing."""

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Nothing."""


class Probe(Protocol):
    """Opens any model of a framework: blocks, calls, gradients, as NumPy arrays.

    Attributes:
        side: its name in `registry.SIDES`.
        model: the user's.
        seed: of what is drawn and cannot be shared.
        drawing: see `Drawing`.
        draws: what the last run or step drew, in order.
    """

    side: str
    model: Any
    seed: int
    drawing: Drawing
    draws: Sequence[Draw]

    @property
    def own_losses(self) -> Sequence[str]:
        """What training adds to any loss, in words: regularizers, `add_loss`."""

    @property
    def float_type(self) -> str:
        """In which it computes: "float32", "bfloat16", ..."""

    def blocks(self) -> list[Block]:
        """All weights, in the order in which the model lists its layers."""

    def write(self, name: str, weights: Arrays) -> None:
        """Give a block other weights, canonical; keys that it lacks are an error."""

    def run(
        self,
        inputs: Arrays,
        watcher: Watcher,
        *,
        training: bool = False,
        sources: bool = False,
    ) -> Arrays:
        """One pass forward as the model is, its state unchanged after it.

        What is random draws the numbers of `sides.chance`: the same in every model.
        """

    def step(
        self, inputs: Arrays, cotangents: Arrays, *, training: bool = True
    ) -> Step:
        """Forward and back: gradients of the sum of outputs times `cotangents`.

        Without any, those of the losses that the model has of its own.
        """

    def change_settings(
        self, name: str, settings: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        """Give a layer other settings, which stay in another float type.

        Args:
            name: of the layer.
            settings: by the names of `core.layer_spec`.

        Returns:
            What puts them back; None: they are no attributes of it.
        """

    def set_dtype(self, dtype: str) -> Callable[[], None]:
        """Make the model compute in "float32" or "float64"; its weights stay.

        Returns:
            What puts back the model as it was.

        Raises:
            UserError: the model cannot be made anew in that type.
        """


ANY = "**"  # among declared inputs: a model takes others by name as well


@dataclass(frozen=True)
class Declared:
    """An input that a model takes.

    Attributes:
        shape: as the model declares it; an axis of any length is None. None: it
            declares none, as an argument of a function does.
        integer: whether it takes whole numbers; None: unknown.
        required: whether it can't be left out.
        placed: whether it has a position among the others, not only a name.
    """

    shape: tuple[int | None, ...] | None = None
    integer: bool | None = None
    required: bool = True
    placed: bool = True


class ModelModule(Protocol):
    """The module of a side that opens models."""

    def check_usable(self) -> None:
        """Whether models can be opened in this process.

        Raises:
            UserError: they can't; what to type.
        """

    def lines_noted(self) -> AbstractContextManager[None]:
        """Note at which lines layers are made, for calls that no user's code does."""

    def is_built(self, model: Any) -> bool:
        """Whether a model has its weights already."""

    def build(self, model: Any, inputs: Arrays) -> None:
        """Call a model that is not built once, so that it makes its weights."""

    def declared_inputs(self, model: Any) -> dict[str, Declared]:
        """The inputs that a model takes, by name and in order; none: unknown.

        One of them may be `ANY`.
        """

    def has_channels_first(self, model: Any) -> bool:
        """Whether its layers take images with channels at axis 1."""

    def open_model(
        self,
        model: Any,
        make: Callable[[], Any] | None = None,
        inputs: Arrays | None = None,
        /,
    ) -> Probe:
        """Open a model that is built.

        Args:
            model: a user's.
            make: makes it anew, if it is known how.
            inputs: to build with what `make` gives.
        """

    def own_copy(self, model: Any) -> Any:
        """A model of the same weights, which a check may change.

        Raises:
            UserError: it can't be copied.
        """

    def float_type_kept(self, model: Any) -> AbstractContextManager[None]:
        """Leave a model in the float type in which it came."""

    def save(self, model: Any, path: Path) -> None:
        """Write a model in a format that the suffix says, whole or not at all."""


class OptimizerModule(Protocol):
    """The module of a side that opens optimizers."""

    def examine(
        self,
        found: Any,
        source: str,
        parameters: Mapping[str, Array],
        gradients: Sequence[Mapping[str, Array]],
        horizon: int = 0,
    ) -> tuple[OptimizerRule, list[dict[str, Array]]]:
        """The rule of a user's optimizer, and its path through the gradients.

        Args:
            found: what makes it.
            source: how the user named it.
            parameters: by name.
            gradients: of each step, by name.
            horizon: for how many steps the schedule is read, if more than followed.

        Returns:
            The rule, and the parameters after each step, in float64.

        Raises:
            UserError: it makes no optimizer, or raises.
        """
