"""Seeded faults: each must turn the proof red, at its rung and its place.

A fault is put into one framework while the others stay as they are. Some change
what the framework is given, and are written here; the others change what it
computes, and are written in its own words, in `frameworks/<name>/faults.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paripassu.core import draws
from paripassu.core.architecture import IMAGES, Layer, Network
from paripassu.core.errors import UserError
from paripassu.core.recipe import SGD, Initializer, Recipe
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks import registry
from paripassu.frameworks.contract import Twin

Batches = list[Any]


def _same(value: Any) -> Any:
    return value


def _same_weights(weights: Arrays, _recipe: Recipe) -> Arrays:
    return weights


def _always(_recipe: Recipe) -> bool:
    return True


_OF_LAYERS = {"evaluation", "activation", "gradient"}  # quantities with a place


@dataclass(frozen=True)
class Fault:
    """One mistake that people make, and where the proof must find it.

    `quantity` is what the first divergence must name: a quantity, or its first
    word where the fault has no one place. `with_biases` is what it must name,
    on rung 1, where biases do not begin at zero. With `of`, the fault is in the
    first layer of which that is true, and must name it, and `part` of it. One
    that is not `own` is written for the named networks alone.
    """

    name: str
    summary: str
    rung: int
    quantity: str
    of: Callable[[Layer, Network], bool] | None = None
    part: str = ""
    own: bool = True
    step: Callable[[TwinStep], TwinStep] = _same
    recipe: Callable[[Recipe], Recipe] = _same
    weights: Callable[[Arrays, Recipe], Arrays] = _same_weights
    batches: Callable[[Batches], Batches] = _same
    data: Callable[[Recipe], Recipe] = _same  # of what the images are drawn by
    only_if: Callable[[Recipe], bool] = _always
    with_biases: str = ""

    @property
    def native(self) -> bool:
        """Whether a framework computes it: nothing that it is given changes."""
        given = (self.step, self.recipe, self.weights, self.batches, self.data)
        kept = (_same, _same, _same_weights, _same, _same)
        return self.rung > 0 and given == kept

    def expected(self, recipe: Recipe) -> tuple[int, str]:
        """The rung and the quantity at which it must be found."""
        if self.with_biases and recipe.initializer.bias != "zeros":
            return 1, self.with_biases
        return self.rung, self._place(recipe)

    def _place(self, recipe: Recipe) -> str:
        if self.of is None:
            return self.quantity
        layer = self.layer(recipe)
        return f"{self.quantity} {layer.name if layer else ''}{self.part}"

    def layer(self, recipe: Recipe) -> Layer | None:
        """The layer that it is in, if the recipe has such a one."""
        of, network = self.of, recipe.architecture
        found = (x for x in network.layers if of and of(x, network))
        return next(found, None)

    def applies_to(self, recipe: Recipe) -> bool:
        """Whether it changes anything: not every optimizer has a `rho`."""
        if self.of is not None and self.layer(recipe) is None:
            return False
        if not self.own and recipe.layers is not None:
            return False
        kind, _, place = self._place(recipe).partition(" ")
        layers = {layer.name for layer in recipe.architecture.layers}
        if kind in _OF_LAYERS and place.partition(".")[0] not in layers:
            return False
        changed = self.recipe is _same or self.recipe(recipe) != recipe
        return changed and self.only_if(recipe)

    def put_into(self, framework: str, twin: Twin) -> None:
        """Do the part that a framework does in its own words."""
        if self.native:
            known = registry.find(framework).faults.NATIVE
            if self.name not in known:
                raise UserError(
                    f"{framework} does not know the fault {self.name!r}, but "
                    f"{', '.join(known)}."
                )
            known[self.name](twin)


HEALTHY = Fault("healthy", "nothing is wrong", 0, "")


def _optimizer(**constants: float) -> Callable[[Recipe], Recipe]:
    def change(recipe: Recipe) -> Recipe:
        known = {
            key: value
            for key, value in constants.items()
            if key in type(recipe.optimizer).model_fields
        }
        return recipe.changed(
            optimizer={**recipe.optimizer.model_dump(), **known}
        )

    return change


def _own_initializer(_weights: Arrays, recipe: Recipe) -> Arrays:
    other = recipe.changed(initializer=_PYTORCH_INITIALIZER.model_dump())
    return draws.initial_weights(recipe.architecture, other)


_PYTORCH_INITIALIZER = Initializer(
    kernel="fan_in_uniform", bias="fan_in_uniform"
)


def _unshuffled(batches: Batches) -> Batches:
    rows = np.sort(np.concatenate(batches))
    ends = np.cumsum([len(batch) for batch in batches])[:-1]
    return np.split(rows, ends)


def _without_short_batch(batches: Batches) -> Batches:
    return [x for x in batches if len(x) == len(batches[0])]


def _shifted_labels(step: TwinStep) -> TwinStep:
    return replace(step, labels=np.roll(step.labels, 1))


def _normalised_twice(step: TwinStep) -> TwinStep:
    images = (step.images - np.float32(0.1307)) / np.float32(0.3081)
    return replace(step, images=images)


def _transposed_images(step: TwinStep) -> TwinStep:
    images = np.ascontiguousarray(step.images.transpose(0, 2, 1, 3))
    return replace(step, images=images)


def _is_square(recipe: Recipe) -> bool:
    """Whether a network takes its images turned as well."""
    h, w, _ = recipe.architecture.input_shape
    return h == w


def _inverted_masks(step: TwinStep) -> TwinStep:
    return replace(step, masks={k: ~v for k, v in step.masks.items()})


def _flattens_maps(layer: Layer, _network: Network) -> bool:
    """Whether the order of a flatten matters: not for maps of one pixel."""
    return layer.kind == "flatten" and layer.flattened[:2] != (1, 1)


def _of(kind: str) -> Callable[[Layer, Network], bool]:
    return lambda layer, _network: layer.kind == kind


# What gives no negative numbers, for sure.
_POSITIVE = {"relu", "sigmoid", "softplus"}
# What gives none where none comes in.
_CARRIES = {
    *("max_pool", "average_pool", "dropout", "flatten", "concatenate", "add"),
    *("global_average_pool", "global_max_pool", "pad"),
}


def _adds_signed(layer: Layer, network: Network) -> bool:
    """Whether a ReLU before an addition would change something."""
    if layer.kind != "add":
        return False
    sources = [x for x in layer.inputs if x != IMAGES]
    kinds = {network.layer(x).kind for x in sources}
    return bool(kinds - _POSITIVE - _CARRIES)


def _pads_unevenly(layer: Layer, _network: Network) -> bool:
    """Whether there are more zeros below or right than above or left."""
    pads = layer.settings.get("padding", ())
    known = layer.kind == "max_pool" or (
        layer.kind == "conv" and layer.settings.get("groups", 1) == 1
    )
    return known and any(before != after for before, after in pads)


def _pads_its_mean(layer: Layer, _network: Network) -> bool:
    return layer.kind == "average_pool" and "padding" in layer.settings


def _has_groups(layer: Layer, _network: Network) -> bool:
    return layer.kind == "conv" and layer.settings.get("groups", 1) > 1


def _has_state(recipe: Recipe) -> bool:
    chosen = recipe.optimizer
    return not isinstance(chosen, SGD) or chosen.momentum > 0


def _in_a_line(recipe: Recipe) -> Recipe:
    known = recipe.decay.model_dump(include={"interval", "warm_up", "unit"})
    return recipe.changed(decay={"shape": "linear", **known})


def _without_nesterov(recipe: Recipe) -> Recipe:
    known = {"learning_rate", "beta1", "beta2", "epsilon"}
    constants = recipe.optimizer.model_dump(include=known)
    return recipe.changed(optimizer={"kind": "adam", **constants})


def _one_more_epoch(recipe: Recipe) -> Recipe:
    if recipe.decay.shape != "plateau":
        return recipe
    decay = recipe.decay.model_dump()
    return recipe.changed(decay={**decay, "patience": decay["patience"] + 1})


def _decay_per_step(recipe: Recipe) -> Recipe:
    if recipe.decay.shape == "plateau":  # it has no steps
        return recipe
    unit = "epoch" if recipe.decay.unit == "step" else "step"
    return recipe.changed(decay={**recipe.decay.model_dump(), "unit": unit})


def _other_dropout(recipe: Recipe) -> Recipe:
    rates = {name: 0.5 - rate / 2 for name, rate in recipe.dropout.items()}
    return recipe.changed(dropout=rates)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "own-initializer",
            "initial weights are PyTorch's default, fan-in uniform",
            0,
            "draws weight",
            only_if=lambda x: x.initializer != _PYTORCH_INITIALIZER,
            weights=_own_initializer,
        ),
        Fault(
            "no-shuffling",
            "images keep the order of the file in every epoch",
            0,
            "draws order",
            batches=_unshuffled,
            only_if=lambda recipe: recipe.shuffle,
        ),
        Fault(
            "short-batch-dropped",
            "the last, short batch of an epoch is left out",
            0,
            "draws order",
            batches=_without_short_batch,
        ),
        Fault(
            "masks-inverted",
            "dropout masks mark what to drop, not what to keep",
            0,
            "draws masks",
            step=_inverted_masks,
            only_if=lambda recipe: bool(recipe.dropout),
        ),
        Fault(
            "labels-shifted",
            "each image has the label of the previous one",
            0,
            "draws labels",
            step=_shifted_labels,
        ),
        Fault(
            "normalised-twice",
            "inputs are normalised twice",
            0,
            "draws images",
            step=_normalised_twice,
        ),
        Fault(
            "images-transposed",
            "height and width of the images are swapped",
            0,
            "draws images",
            step=_transposed_images,
            only_if=_is_square,
        ),
        Fault(
            "not-augmented",
            "the images are not augmented",
            0,
            "draws images",
            data=lambda recipe: recipe.changed(augmentation={}),
            only_if=lambda recipe: not recipe.augmentation.is_none,
        ),
        Fault(
            "dropout-in-evaluation",
            "dropout stays on when the network is evaluated",
            1,
            "evaluation dropout1",
        ),
        Fault(
            "dropout-unscaled",
            "dropout does not scale what it keeps by 1 / (1 - rate)",
            1,
            "activation dropout1",
        ),
        Fault(
            "dropout-rate",
            "dropout uses another rate",
            1,
            "activation dropout1",
            recipe=_other_dropout,
        ),
        Fault(
            "flatten-order",
            "images are flattened channels first, or last, unlike the kernel",
            1,
            "evaluation",
            of=_flattens_maps,
        ),
        Fault(
            "batch-norm-epsilon",
            "batch norm has another epsilon",
            1,
            "evaluation",
            of=_of("batch_norm"),
        ),
        Fault(
            "batch-norm-in-evaluation",
            "batch norm uses the statistics of the batch in evaluation",
            1,
            "evaluation",
            of=_of("batch_norm"),
        ),
        Fault(
            "batch-norm-momentum",
            "another share of the running statistics stays",
            3,
            "weight",
            of=_of("batch_norm"),
            part=".mean",
        ),
        Fault(
            "batch-norm-variance",
            "the running variance is the unbiased one, with n - 1",
            3,
            "weight",
            of=_of("batch_norm"),
            part=".variance",
        ),
        Fault(
            "layer-norm-epsilon",
            "layer norm has another epsilon",
            1,
            "evaluation",
            of=_of("layer_norm"),
        ),
        Fault(
            "group-norm-epsilon",
            "group norm has another epsilon",
            1,
            "evaluation",
            of=_of("group_norm"),
        ),
        Fault(
            "padding-before",
            "padding 'same' puts the odd zero before the image, not after it",
            1,
            "evaluation",
            of=_pads_unevenly,
        ),
        Fault(
            "padding-counts",
            "what lies outside the image counts in the mean of a window",
            1,
            "evaluation",
            of=_pads_its_mean,
        ),
        Fault(
            "leaky-slope",
            "a leaky ReLU has another slope",
            1,
            "evaluation",
            of=_of("leaky_relu"),
        ),
        Fault(
            "elu-alpha",
            "an ELU tends to another number",
            1,
            "evaluation",
            of=_of("elu"),
        ),
        Fault(
            "gelu-form",
            "GELU is computed in the other form, by a tanh or exactly",
            1,
            "evaluation",
            of=_of("gelu"),
        ),
        Fault(
            "groups",
            "groups of a convolution see each other's channels",
            1,
            "evaluation",
            of=_has_groups,
        ),
        Fault(
            "relu-before-addition",
            "what is added goes through a ReLU first",
            1,
            "evaluation",
            of=_adds_signed,
        ),
        Fault(
            "addition-left-out",
            "the last of what is added is left out",
            1,
            "evaluation",
            of=_of("add"),
        ),
        Fault(
            "concatenation-order",
            "channels are joined in another order",
            1,
            "evaluation",
            of=_of("concatenate"),
        ),
        Fault(
            "padding",
            "a convolution pads its input and cuts its output to the same size",
            1,
            "evaluation conv2",
            own=False,
        ),
        Fault(
            "kernel-transposed",
            "height and width of a convolution kernel are swapped",
            1,
            "evaluation conv2",
            own=False,
        ),
        Fault(
            "kernel-flipped",
            "a convolution flips its kernel, as in mathematics",
            1,
            "evaluation conv1",
            own=False,
        ),
        Fault(
            "average-pool",
            "pooling takes the mean, not the maximum",
            1,
            "evaluation pool",
            own=False,
        ),
        Fault(
            "leaky-relu",
            "a ReLU leaks: negative values are scaled by 0.01",
            1,
            "evaluation relu1",
        ),
        Fault(
            "missing-relu",
            "a dense layer lacks its activation",
            1,
            "evaluation relu3",
            own=False,
        ),
        Fault(
            "plain-tanh",
            "a tanh is not scaled as LeNet-5's is",
            1,
            "evaluation tanh1",
            own=False,
        ),
        Fault(
            "subsample-mean",
            "subsampling takes the mean of four pixels, not their sum",
            1,
            "evaluation subsample1",
            own=False,
        ),
        Fault(
            "border",
            "a border is padded with the nearest pixels, not with zeros",
            1,
            "evaluation pad",
            own=False,
        ),
        Fault(
            "softmax-axis",
            "the softmax runs over the images of a batch, not over the classes",
            1,
            "evaluation softmax",
        ),
        Fault(
            "reduced-precision",
            "one layer computes with fewer digits than the others",
            1,
            "evaluation conv2",
            own=False,
        ),
        Fault(
            "softmax-twice",
            "the loss gets probabilities instead of logits",
            2,
            "loss",
            only_if=lambda recipe: recipe.output == "logits",
        ),
        Fault(
            "softmax-once",
            "the loss lacks the softmax that the recipe applies a second time",
            2,
            "loss",
            only_if=lambda recipe: (
                recipe.output == "probabilities"
                and recipe.loss == "cross_entropy_on_logits"
            ),
        ),
        Fault(
            "labels-unsmoothed",
            "the loss takes the labels as they are, not smoothed",
            2,
            "loss",
            recipe=lambda recipe: recipe.changed(label_smoothing=0.0),
        ),
        Fault(
            "summed-loss",
            "the loss is the sum over the batch, not its mean",
            2,
            "loss",
        ),
        Fault(
            "swapped-bias",
            "a layer adds its biases to the wrong channels",
            2,
            "gradient conv2.bias",
            own=False,
            with_biases="evaluation conv2",
        ),
        Fault(
            "table-ignored",
            "a convolution learns connections that its table excludes",
            2,
            "gradient conv2.kernel",
            own=False,
            only_if=lambda recipe: any(
                weight.name == "conv2.kernel" and weight.table
                for weight in recipe.architecture.weights
            ),
        ),
        Fault(
            "frozen-kernel",
            "no gradient reaches the kernel of a layer",
            2,
            "gradient conv1.kernel",
            own=False,
        ),
        Fault(
            "epsilon",
            "epsilon is 1e-7, Keras's default, instead of the recipe's",
            3,
            "",  # Adadelta's slots depend on it, Adam's do not
            recipe=_optimizer(epsilon=1e-7),
        ),
        Fault(
            "rho",
            "rho is 0.95, Keras's default, instead of the recipe's",
            3,
            "slot",
            recipe=_optimizer(rho=0.95),
        ),
        Fault(
            "learning-rate",
            "the learning rate is 0.001, Keras's default, not the recipe's",
            3,
            "weight",
            recipe=_optimizer(learning_rate=0.001),
        ),
        Fault(
            "weight-decay",
            "the optimizer applies a weight decay that the recipe lacks",
            3,
            "",
        ),
        Fault(
            "gradients-unclipped",
            "the norm of the gradients is not bound; it shows where it is more",
            3,
            "",
            recipe=lambda recipe: recipe.changed(clip_global_norm=0.0),
        ),
        Fault(
            "nesterov-missing",
            "the optimizer is Adam, without Nesterov's momentum",
            3,
            "",
            recipe=_without_nesterov,
            only_if=lambda recipe: recipe.optimizer.kind == "nadam",
        ),
        Fault(
            "average-forgets",
            "the running mean of the weights keeps half of what it should",
            5,
            "slot",
            recipe=lambda recipe: recipe.changed(
                average_decay=recipe.average_decay / 2
            ),
        ),
        Fault(
            "schedule-in-a-line",
            "the learning rate falls in a line, not by a cosine",
            4,
            "rate",
            recipe=_in_a_line,
            only_if=lambda recipe: recipe.decay.shape == "cosine",
        ),
        Fault(
            "decay-per-step",
            "the learning rate decays per batch instead of per epoch",
            4,
            "rate",
            recipe=_decay_per_step,
            only_if=lambda recipe: not recipe.decay.keeps,
        ),
        Fault(
            "plateau-waits-longer",
            "the rate falls an epoch later: patience as PyTorch counts it",
            4,
            "rate",
            recipe=_one_more_epoch,
        ),
        Fault(
            "gradients-accumulate",
            "gradients are not cleared between steps",
            5,
            "",
        ),
        Fault(
            "optimizer-reset",
            "the optimizer forgets its state after every step",
            5,
            "slot",
            only_if=_has_state,
        ),
    )
}


def faulty_layer(name: str, recipe: Recipe) -> Layer:
    """The layer that a fault is in.

    Raises:
        UserError: the recipe has none of the kind.
    """
    layer = find_fault(name).layer(recipe)
    if layer is None:
        raise UserError(
            f"recipe {recipe.name!r} has no layer for the fault {name!r}."
        )
    return layer


def instead(name: str, make: Callable[[Layer], Any]) -> Callable[[Any], None]:
    """A fault that computes something else in place of its layer.

    Args:
        name: of the fault.
        make: from the layer to what the twin has as an override.
    """

    def put(twin: Any) -> None:
        layer = faulty_layer(name, twin.recipe)
        twin.overrides[layer.name] = make(layer)

    return put


def find_fault(name: str) -> Fault:
    """The fault of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in FAULTS:
        raise UserError(f"no fault {name!r}; known: {', '.join(FAULTS)}.")
    return FAULTS[name]
