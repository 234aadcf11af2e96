"""The recipe: one complete description of an experiment, frozen and validated.

Anything that decides the result is in it; anything that does not (threads, device,
folders) is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import Field, ValidationError, model_validator

from paripassu.core.assembly import assemble
from paripassu.core.errors import UserError, did_you_mean
from paripassu.core.files import check_regular
from paripassu.core.layer_tables import AnyLayer, Whole, plain, read_layers
from paripassu.core.networks import NETWORKS, OWN, Network
from paripassu.core.part import Part

__all__ = ["Part", "Recipe", "built_in", "load", "parse", "validate"]

NOT_DECISIVE = {
    "name",
    "description",
    "source",
    "published_accuracy",
    "published_note",
}
# Fields that came later: where they say what was so before, the hash is what it was.
UNHASHED = {
    "output": "logits",
    "input_shape": None,
    "layers": None,
    "label_smoothing": 0.0,
    "clip_global_norm": 0.0,
    "average_decay": 0.0,
}
UNHASHED_DECAY = {
    "shape": "exponential",
    "warm_up": 0.0,
    "start": 0.04,
    "final": 0.0,
    "patience": 3,
}
UNHASHED_OPTIMIZER = {"epsilon_root": 0.0}


class Adadelta(Part):
    """Adadelta (Zeiler 2012) with a learning rate, as PyTorch and Keras have it."""

    kind: Literal["adadelta"] = Field(description="Adadelta, Zeiler 2012")
    learning_rate: float = Field(1.0, gt=0, description="factor of every update")
    rho: float = Field(0.9, ge=0, lt=1, description="decay of the running means")
    epsilon: float = Field(1e-6, gt=0, description="added under both square roots")


WeightDecay = Annotated[
    float, Field(ge=0, description="share of the weight, per unit of rate")
]
WeightDecayForm = Annotated[
    Literal["l2", "decoupled"],
    Field(description="in the gradient (l2), or past the optimizer (decoupled, AdamW)"),
]


class SGD(Part):
    """Stochastic gradient descent, with or without momentum and weight decay.

    Forms of momentum m, of velocity v, gradient g, weight w and rate r:
    "rate_outside", PyTorch's, is v = m v + g, w = w - r v; "rate_inside", Keras's, is
    v = m v - r g, w = w + v. They part when the rate changes.

    Forms of weight decay d, before that: "l2" is g = g + d w, "decoupled" is
    w = w - r d w. They part when there is momentum.
    """

    kind: Literal["sgd"] = Field(description="stochastic gradient descent")
    learning_rate: float = Field(0.01, gt=0, description="factor of the gradient")
    momentum: float = Field(0.0, ge=0, lt=1, description="decay of the velocity")
    momentum_form: Literal["rate_outside", "rate_inside"] = Field(
        "rate_outside",
        description="whether the rate multiplies the velocity (PyTorch) or what is "
        "added to it (Keras)",
    )
    weight_decay: WeightDecay = 0.0
    weight_decay_form: WeightDecayForm = "l2"


class Adam(Part):
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019).

    Forms of epsilon e: "outside", PyTorch's, divides by sqrt(mean square, corrected)
    + e; "hat", Keras's, by sqrt(mean square) + e, and corrects the quotient. In the
    first, optax adds a second one under the root. Forms of weight decay are those of
    `SGD`.
    """

    kind: Literal["adam"] = Field(description="Adam, Kingma and Ba 2015; AdamW")
    learning_rate: float = Field(0.001, gt=0, description="factor of every update")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean square")
    epsilon: float = Field(1e-8, gt=0, description="added to the square root")
    epsilon_form: Literal["outside", "hat"] = Field(
        "outside",
        description="added after the correction of the mean square (outside, "
        "PyTorch) or before it (hat, Keras)",
    )
    epsilon_root: float = Field(
        0.0, ge=0, description="added under the root (optax's eps_root); with outside"
    )
    weight_decay: WeightDecay = 0.0
    weight_decay_form: WeightDecayForm = "l2"

    @model_validator(mode="after")
    def _epsilon_root(self) -> Adam:
        if self.epsilon_root and self.epsilon_form == "hat":
            raise ValueError(
                "optimizer.epsilon_root is added to the corrected mean square. "
                "Expected epsilon_form = 'outside' with it, or epsilon_root = 0.0"
            )
        return self


class RMSprop(Part):
    """RMSprop (Tieleman and Hinton 2012), neither centred nor with momentum.

    Forms of epsilon e: "outside", PyTorch's, divides by sqrt(mean square) + e;
    "inside", Keras's, by sqrt(mean square + e).
    """

    kind: Literal["rmsprop"] = Field(description="RMSprop, Tieleman and Hinton 2012")
    learning_rate: float = Field(0.001, gt=0, description="factor of every update")
    rho: float = Field(0.9, ge=0, lt=1, description="decay of the mean square")
    epsilon: float = Field(1e-7, gt=0, description="keeps the quotient finite")
    epsilon_form: Literal["outside", "inside"] = Field(
        "outside",
        description="added to the square root (outside, PyTorch) or under it "
        "(inside, Keras)",
    )


class Nadam(Part):
    """Adam with Nesterov's momentum (Dozat 2016).

    The momentum of step t is beta1 (1 - 0.96 ** (t momentum_decay) / 2): PyTorch's
    default of momentum_decay is 0.004, Keras has 1.
    """

    kind: Literal["nadam"] = Field(description="Nadam, Dozat 2016")
    learning_rate: float = Field(0.002, gt=0, description="factor of every update")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean square")
    epsilon: float = Field(1e-8, gt=0, description="added to the square root")
    momentum_decay: float = Field(
        0.004, gt=0, description="how soon the momentum is whole; 1.0 is Keras's"
    )


Optimizer = Adadelta | SGD | Adam | RMSprop | Nadam


class Decay(Part):
    """What multiplies the learning rate after t finished units.

    Exponential: factor ** (t / interval). The others have a fall that lasts from
    warm_up to interval, s being the share of it that is over, and end at interval:

    linear:    1 - s, and so at last 0
    cosine:    final + (1 - final) (1 + cos(pi s)) / 2
    one_cycle: the same

    A plateau is another matter: after patience epochs in a row whose accuracy on the
    validation images is not above the best so far, the rate is multiplied by factor,
    but never falls below the share final of itself, and waiting begins anew. That is
    Keras's `ReduceLROnPlateau` with min_delta = 0 on "val_accuracy"; PyTorch's counts
    one epoch less.

    Before the fall the rate rises for warm_up units: in linear and cosine as
    (t + 1) / warm_up, in one_cycle from start to 1 by half a cosine. Sources: cosine,
    Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts; one_cycle, Smith
    and Topin 2017 (arXiv:1708.07120) in the form of PyTorch's `OneCycleLR` with
    total_steps = interval + 1, pct_start = (warm_up + 1) / total_steps,
    div_factor = 1 / start and final_div_factor = start / final, but for the momentum,
    which stays as it is.
    """

    shape: Literal["exponential", "linear", "cosine", "one_cycle", "plateau"] = Field(
        "exponential", description="how the rate falls"
    )
    factor: float = Field(
        0.7,
        gt=0,
        le=1,
        description="of an exponential decay, where 1.0 keeps the rate; and of a "
        "plateau",
    )
    interval: float = Field(
        1.0, gt=0, description="units for one factor; of other shapes, until the end"
    )
    warm_up: float = Field(
        0.0, ge=0, description="units in which the rate first rises; not exponential"
    )
    start: float = Field(
        0.04, gt=0, le=1, description="share of the rate that one_cycle begins with"
    )
    final: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the rate that cosine, one_cycle and plateau end with",
    )
    patience: int = Field(
        3,
        ge=1,
        description="epochs in a row without a better accuracy on the validation "
        "images before the rate of a plateau falls",
    )
    unit: Literal["epoch", "step"] = Field("epoch", description="what is counted")

    @model_validator(mode="after")
    def _warm_up(self) -> Decay:
        if self.shape == "exponential" and self.warm_up:
            raise ValueError(
                "decay.warm_up belongs to a linear decay. Expected shape = 'linear', "
                "'cosine' or 'one_cycle' with it, or warm_up = 0.0"
            )
        if self.shape == "one_cycle" and not self.warm_up:
            raise ValueError(
                "decay.warm_up: expected more than 0 with shape = 'one_cycle', which "
                "rises first, got 0. Without a rise, say shape = 'cosine'"
            )
        if self.shape != "one_cycle" and self.start != 0.04:
            raise ValueError(
                "decay.start belongs to one cycle. Expected shape = 'one_cycle' with "
                "it, or start = 0.04"
            )
        if self.shape in ("exponential", "linear") and self.final:
            raise ValueError(
                "decay.final belongs to a cosine. Expected shape = 'cosine', "
                "'one_cycle' or 'plateau' with it, or final = 0.0"
            )
        if self.shape != "plateau" and self.patience != 3:
            raise ValueError(
                "decay.patience belongs to a plateau. Expected shape = 'plateau' with "
                "it, or patience = 3"
            )
        if self.shape == "plateau":
            self._check_plateau()
        elif self.shape != "exponential" and self.warm_up >= self.interval:
            raise ValueError(
                f"decay.warm_up: expected less than interval = {self.interval:g}, got "
                f"{self.warm_up:g}"
            )
        return self

    def _check_plateau(self) -> None:
        if self.unit == "step":
            raise ValueError(
                "decay.unit: a plateau is one of epochs, after which accuracies are "
                "measured. Expected unit = 'epoch', got 'step'"
            )
        if self.factor == 1:
            raise ValueError(
                "decay.factor: expected less than 1 with shape = 'plateau', got 1; "
                "without any decay, say shape = 'exponential'"
            )
        if self.warm_up or self.interval != 1:
            raise ValueError(
                "decay: a plateau has neither warm_up nor interval. Expected warm_up = "
                "0.0 and interval = 1.0 with shape = 'plateau', or another shape"
            )

    @property
    def keeps(self) -> bool:
        """Whether the rate stays as it is."""
        return self.shape == "exponential" and self.factor == 1


class Initializer(Part):
    """How initial weights are drawn; see `core.draws.initial_weights`."""

    kernel: Literal[
        "glorot_uniform",
        "he_uniform",
        "fan_in_uniform",
        "lecun_1998_uniform",
        "zeros",
    ] = Field(
        "glorot_uniform",
        description="of all that is multiplied: uniform between plus and minus "
        "sqrt(6 / (fan_in + fan_out)) (glorot, Keras), sqrt(6 / fan_in) (he), "
        "sqrt(1 / fan_in) (fan_in, PyTorch) or 2.4 / fan_in (lecun_1998); or "
        "zeros",
    )
    bias: Literal["zeros", "fan_in_uniform", "lecun_1998_uniform"] = Field(
        "zeros", description="of all that is added, by the fan_in of its layer"
    )


Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class Normalization(Part):
    """Inputs are (pixel / 255 - mean) / std; "computed" takes the data's own.

    A list has a number for each channel.
    """

    mean: Mean | Annotated[list[Mean], Field(min_length=1)] | Literal["computed"] = (
        Field(
            0.1307,
            description="taken from pixels in 0..1; a list has one for each channel; "
            "computed: the data's own",
        )
    )
    std: (
        Deviation
        | Annotated[list[Deviation], Field(min_length=1)]
        | Literal["computed"]
    ) = Field(
        0.3081,
        description="divides what is left; a list has one for each channel; "
        "computed: the data's own",
    )


class Augmentation(Part):
    """How training images are changed in each step, at random; see its module.

    Every number is the most that is drawn, evenly and of either sign; 0 leaves it out.
    The same pixels reach every framework (`core.augmentation`).
    """

    shift: float = Field(0.0, ge=0, description="pixels, down and to the right")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees")
    scale: float = Field(
        0.0, ge=0, le=9, description="share larger; or smaller by the same factor"
    )
    keep_aspect: bool = Field(
        True, description="whether height and width are scaled alike"
    )
    shear: float = Field(0.0, ge=0, lt=90, description="degrees")
    elastic: float = Field(
        0.0,
        ge=0,
        description="pixels, the standard deviation of smooth displacements",
    )
    elastic_smoothness: float = Field(
        4.0,
        gt=0,
        le=32,
        description="pixels, the standard deviation of the Gaussian that smooths them",
    )
    cutout: int = Field(
        0, ge=0, description="pixels, the side of a square that is made black"
    )

    @property
    def moves(self) -> bool:
        """Whether any pixel comes from another place."""
        numbers = self.shift, self.rotation, self.scale, self.shear, self.elastic
        return any(numbers)

    @property
    def is_none(self) -> bool:
        """Whether images stay as they are."""
        return not (self.moves or self.cutout)


class Recipe(Part):
    """One experiment. Defaults are those of the built-in recipe `article`."""

    name: str = Field(
        "custom",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=60,
        description="small letters, digits and hyphens; a part of folders' names",
    )
    description: str = Field("", description="one line, for people")
    source: str = Field("", description="where the experiment comes from")
    published_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="test accuracy 0..1 that the source states; may be left out",
    )
    published_note: str = Field(
        "", description="what the source states, and where this recipe departs from it"
    )
    network: str = Field(
        "article",
        description="a network by its name: layers and shapes; of a recipe with "
        "[[layers]], 'layers', and it may be left out",
    )
    input_shape: Annotated[tuple[Whole, Whole, Whole], Field(strict=False)] | None = (
        Field(
            None,
            description="[height, width, channels] of the images, of a recipe with "
            "[[layers]]",
        )
    )
    layers: (
        Annotated[
            tuple[Annotated[AnyLayer, Field(discriminator="kind")], ...],
            Field(strict=False),
        ]
        | None
    ) = Field(
        None,
        description="a network of the recipe's own, [[layers]]: see docs/networks.md",
    )
    seed: int = Field(
        42, ge=0, lt=2**31, description="of initial weights, batches and dropout"
    )
    epochs: int = Field(
        10, ge=1, le=100_000, description="passes over the training images"
    )
    batch_size: int = Field(64, ge=1, le=1_000_000, description="images in a step")
    shuffle: bool = Field(True, description="a new order of images in every epoch")
    validation_size: int = Field(
        0,
        ge=0,
        description="training images set apart to choose by, the same for all seeds",
    )
    precision: Literal["float32", "float64", "bfloat16"] = Field(
        "float32",
        description="of weights and computing; with bfloat16, convolutions and dense "
        "layers compute in it, and weights, loss and optimizer stay in float32",
    )
    output: Literal["logits", "probabilities"] = Field(
        "logits", description="whether the network ends in a softmax"
    )
    loss: Literal["cross_entropy_on_logits", "cross_entropy_on_probabilities"] = Field(
        "cross_entropy_on_logits",
        description="whether the loss applies a softmax to what leaves the network; "
        "to probabilities that is a second one",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each label that is spread over all classes alike; of a "
        "loss on logits",
    )
    dropout: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {"dropout1": 0.25, "dropout2": 0.5},
        description="share 0..1 that each dropout layer drops, by its name",
    )
    normalization: Normalization = Field(
        Normalization(), description="of the input images"
    )
    augmentation: Augmentation = Field(
        Augmentation(), description="of training images, drawn anew in each step"
    )
    initializer: Initializer = Field(
        Initializer(), description="of the weights, drawn once for all frameworks"
    )
    optimizer: Annotated[Optimizer, Field(discriminator="kind")] = Field(
        Adadelta(kind="adadelta"), description="its kind, constants and forms"
    )
    clip_global_norm: float = Field(
        0.0,
        ge=0,
        description="the most that the norm of all gradients together may be: beyond "
        "it they are scaled down; 0.0: no bound",
    )
    average_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="what a running mean of the weights keeps of itself in a step; the "
        "mean is evaluated and saved (EMA); 0.0: no mean",
    )
    decay: Decay = Field(Decay(), description="of the learning rate")

    @model_validator(mode="before")
    @classmethod
    def _own_network(cls, given: Any) -> Any:
        """Give the layers their names, and their rates of dropout to `dropout`."""
        if not isinstance(given, Mapping) or given.get("layers") is None:
            return given
        if (network := given.get("network", OWN)) != OWN:
            raise ValueError(
                f"network: the recipe has [[layers]], a network of its own, and names "
                f"{network!r}. Leave one of them out"
            )
        if given.get("input_shape") is None:
            raise ValueError(
                "input_shape is missing: [height, width, channels] of the images, such "
                "as input_shape = [32, 32, 3]"
            )
        rates = given.get("dropout")
        if rates is not None and not isinstance(rates, Mapping):
            return given  # which is refused below
        layers, rates = read_layers(given["layers"], rates)
        return {**given, "network": OWN, "layers": layers, "dropout": rates}

    @model_validator(mode="after")
    def _network_and_its_dropout(self) -> Recipe:
        if self.network == OWN and not self.layers:
            raise ValueError(
                f"network: {OWN!r} is a network of the recipe's own: expected its "
                f"[[layers]]; or one of {', '.join(NETWORKS)}"
            )
        if self.network not in NETWORKS and self.network != OWN:
            raise ValueError(
                f"network: expected one of {', '.join(NETWORKS)}, got {self.network!r}"
            )
        network = self._layers_of_it
        if self.input_shape not in (None, network.input_shape):
            raise ValueError(
                f"input_shape: network {self.network!r} takes "
                f"{list(network.input_shape)}, got {list(self.input_shape or ())}. "
                "Leave it out, or give [[layers]]"
            )
        layers = sorted(x.name for x in network.layers_of("dropout"))
        if sorted(self.dropout) != layers:
            expected = f"a rate for each of {', '.join(layers)}" if layers else "none"
            raise ValueError(
                f"dropout: expected {expected} (the dropout layers of network "
                f"{self.network!r}), got {', '.join(sorted(self.dropout)) or 'none'}"
                f"; on the command line, {_dropout_setting(layers)}"
            )
        return self

    @model_validator(mode="after")
    def _output_and_loss(self) -> Recipe:
        if self.output == "logits" and self.loss == "cross_entropy_on_probabilities":
            raise ValueError(
                "output and loss contradict each other: the network gives logits, and "
                "the loss wants probabilities. Expected output = 'probabilities' with "
                "this loss, or loss = 'cross_entropy_on_logits'"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_and_loss(self) -> Recipe:
        if self.label_smoothing and self.loss == "cross_entropy_on_probabilities":
            raise ValueError(
                "label_smoothing belongs to a loss on logits. Expected loss = "
                "'cross_entropy_on_logits' with it, or label_smoothing = 0.0"
            )
        return self

    @model_validator(mode="after")
    def _plateau_and_validation(self) -> Recipe:
        if self.decay.shape == "plateau" and not self.validation_size:
            raise ValueError(
                "validation_size: a rate that follows accuracies must not follow those "
                "of the test images. Expected more than 0 with decay.shape = "
                "'plateau', such as validation_size = 6000, got 0"
            )
        return self

    @property
    def _layers_of_it(self) -> Network:
        """The network up to its logits."""
        if self.layers is None:
            return NETWORKS[self.network]
        return assemble(OWN, tuple(self.input_shape or ()), self.layers)

    @property
    def architecture(self) -> Network:
        """The network, with a softmax at its end where the recipe has one."""
        network = self._layers_of_it
        return network.with_softmax() if self.output == "probabilities" else network

    @property
    def storage(self) -> Literal["float32", "float64"]:
        """The number type of the weights."""
        return "float32" if self.precision == "bfloat16" else self.precision

    @property
    def for_use(self) -> Recipe:
        """The recipe by which a trained network answers: in the type of its weights."""
        return self.changed(precision=self.storage)

    def hash(self, *more: str) -> str:
        """SHA-256, 16 hex digits, of all that decides the result, and of `more`."""
        decisive = self.model_dump(exclude=NOT_DECISIVE)
        if self.layers is not None:
            decisive["layers"] = plain(self.layers)
        for table, earlier in (
            (decisive, UNHASHED),
            (decisive["decay"], UNHASHED_DECAY),
            (decisive["optimizer"], UNHASHED_OPTIMIZER),
        ):
            for key, value in earlier.items():
                if table.get(key) == value:
                    del table[key]
        if self.augmentation.is_none:
            del decisive["augmentation"]
        text = json.dumps([decisive, *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differing(self, earlier: Mapping[str, Any]) -> list[str]:
        """The keys that decide the result, but for the seed, and differ in a record.

        What an older record does not say yet is as it was then.
        """
        with contextlib.suppress(UserError):
            earlier = validate(earlier).model_dump(mode="json")
        return [
            key
            for key, value in self.model_dump(
                mode="json", exclude=NOT_DECISIVE | {"seed"}
            ).items()
            if earlier.get(key) != value
        ]

    def to_toml(self) -> str:
        """The whole recipe as TOML; `parse` reads it back to an equal recipe."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def changed(self, **values: Any) -> Recipe:
        """A new recipe with some top-level values replaced, validated again."""
        return validate({**self.model_dump(), **values})


def _dropout_setting(layers: list[str]) -> str:
    rates = ", ".join(f"{layer} = 0.5" for layer in layers)
    return f"--set 'dropout={{{rates}}}'"


def validate(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Make a recipe of plain values.

    Raises:
        UserError: names each bad key, what was expected and what came.
    """
    try:
        return Recipe.model_validate(dict(table))
    except ValidationError as error:
        lines = [_explain(problem, table) for problem in error.errors()]
        raise UserError(f"{where}: " + "\n".join(lines)) from None


def _explain(problem: Any, table: Mapping[str, Any]) -> str:
    """One pydantic problem as "key: expected ..., got ..."."""
    path = _real_path(problem["loc"], table)
    key = ".".join(path)
    came = f"got {_shown(problem['input'])} ({type(problem['input']).__name__})"
    message = problem["msg"].removeprefix("Input should be ")
    match problem["type"]:
        case "extra_forbidden":
            known = sorted(_known_keys(path[:-1], table))
            hint = did_you_mean(path[-1], known)
            return f"unknown key {key!r}.{hint} Known here: {', '.join(known)}."
        case "value_error":
            return f"{problem['ctx']['error']}."
        case "union_tag_invalid":
            return (
                f"{key}.kind: expected one of {problem['ctx']['expected_tags']}, "
                f"got {problem['ctx']['tag']!r}."
            )
        case "union_tag_not_found":
            return f"{key}.kind is missing: name the kind, for example 'adadelta'."
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{key}: expected a table, {came}."
        case "string_pattern_mismatch":
            return f"{key}: expected small letters, digits and hyphens, {came}."
        case _:
            return f"{key}: expected {message}, {came}."


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number too long to show"


def _real_path(loc: Sequence[Any], table: Mapping[str, Any]) -> list[str]:
    """Drop the parts of pydantic's path that are no keys: names of union members."""
    path: list[str] = []
    here: Any = table
    tagged = False
    for part in loc:
        if tagged:
            tagged = False  # the kind: it has chosen among tables
        elif isinstance(here, Mapping) and part in here:
            path.append(str(part))
            here = here[part]
            tagged = len(_parts_at(path, table)) > 1
    return path or [str(part) for part in loc[:1]]


def _known_keys(path: Sequence[str], table: Mapping[str, Any]) -> set[str]:
    """The keys of the table at `path`; among several, of the kind that it names."""
    return set(_chosen(_parts_at(path, table), path, table).model_fields)


def _parts_at(path: Sequence[str], table: Mapping[str, Any]) -> list[type[Part]]:
    """What the table at `path` may be; nothing if a value is there."""
    if not path:
        return [Recipe]
    *outer, key = path
    part = _chosen(_parts_at(outer, table), outer, table)
    field = part.model_fields.get(key)
    return _parts_of(field.annotation) if field else []


def _parts_of(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_of(inner)]


def _chosen(
    parts: Sequence[type[Part]], path: Sequence[str], table: Mapping[str, Any]
) -> type[Part]:
    here: Any = table
    for key in path:
        here = here[key]
    for part in parts:
        field = part.model_fields.get("kind")
        if field and here.get("kind") in get_args(field.annotation):
            return part
    return parts[0] if parts else Part


def parse(text: str, where: str = "recipe") -> Recipe:
    """Read a recipe from TOML text; keys that it leaves out have their defaults.

    Raises:
        UserError: not TOML, or not a recipe.
    """
    try:
        table = _read_toml(text)
    except ValueError as error:
        raise UserError(f"{where} is not TOML: {error}.") from None
    return validate(table, where)


def _read_toml(text: str) -> dict[str, Any]:
    """What `tomllib` reads; whatever it cannot read is a `ValueError`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def built_in() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = files("paripassu") / "core" / "recipes"
    return sorted(
        path.name.removesuffix(".toml")
        for path in folder.iterdir()
        if path.name.endswith(".toml")
    )


def load(
    name_or_path: str | Path,
    settings: Sequence[str] = (),
    *,
    epochs: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """Load a built-in recipe by its name, or a TOML file by its path, and change it.

    Args:
        name_or_path: `"article"` or `"my/recipe.toml"`.
        settings: `"optimizer.rho=0.95"`: values to replace, written as in TOML;
            quotes around words may be left out.
        epochs: in place of the recipe's.
        seed: in place of the recipe's.

    Raises:
        UserError: no such recipe, or a bad key or value.
    """
    if str(name_or_path) in built_in():
        built = files("paripassu") / "core" / "recipes" / f"{name_or_path}.toml"
        text = built.read_text(encoding="utf-8")
        where = f"recipe {name_or_path!r}"
    else:
        where = f"recipe file {name_or_path}"
        try:
            check_regular(Path(name_or_path))
            text = Path(name_or_path).read_text(encoding="utf-8")
        except FileNotFoundError:
            known = built_in()
            raise UserError(
                f"no recipe {name_or_path!r}: expected one of {', '.join(known)}, or "
                f"the path of a TOML file.{did_you_mean(str(name_or_path), known)}"
            ) from None
        except (OSError, ValueError) as error:  # no UTF-8, or no name of a file
            raise UserError(f"cannot read {where}: {error}.") from None
    recipe = parse(text, where)
    numbers = {"epochs": epochs, "seed": seed}
    settings = [
        *settings,
        *(f"{key}={x}" for key, x in numbers.items() if x is not None),
    ]
    if not settings:
        return recipe
    table = recipe.model_dump()
    for path, value in sorted(
        map(_setting, settings), key=lambda pair: pair[0][-1] != "kind"
    ):
        _put(table, path, value)
    return validate(table, "--set")


def _setting(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError(
            f"--set {text!r}: expected KEY=VALUE, for example --set optimizer.rho=0.95."
        )
    try:
        return path, _read_toml(f"value = {value}")["value"]
    except ValueError:
        return path, value.strip()  # a word without its quotes


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    here = table
    if path[0] == "layers" and len(path) > 1 and table.get("layers"):
        # A layer goes by its name.
        layers = list(table["layers"])
        names = [x["name"] for x in layers]
        if path[1] not in names:
            raise UserError(
                f"--set {'.'.join(path)}: no layer {path[1]!r}."
                f"{did_you_mean(path[1], names)} Known: {', '.join(names)}."
            )
        table["layers"] = layers
        if path[2:] == ["rate"] and path[1] in table["dropout"]:
            table["dropout"][path[1]] = value  # where rates are kept
            return
        here = {path[1]: layers[names.index(path[1])]}
        path = path[1:]
    for part in path[:-1]:
        if not isinstance(here.setdefault(part, {}), dict):
            raise UserError(f"--set {'.'.join(path)}: {part!r} is no table.")
        here = here[part]
    if path[-1] == "kind" and here.get("kind") != value:
        here.clear()  # another kind has other constants: start from its defaults
    here[path[-1]] = value
