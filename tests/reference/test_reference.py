"""The reference against definitions, finite differences and the frameworks' twins.

Run as a script, `test_reference.py FRAMEWORK FILE`, it traces all cases in that one
framework: PyTorch and TensorFlow may not share a process.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from helpers import TESTS, environment, random, slope

from paripassu.analysis.proof.parity import compare_traces
from paripassu.core import architecture, datasets, draws, networks
from paripassu.core.assembly import assemble
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.layer_tables import read_layers
from paripassu.core.layout import relayout
from paripassu.core.recipe import (
    SGD,
    Adadelta,
    Adam,
    Nadam,
    Recipe,
    RMSprop,
    load,
    validate,
)
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks.registry import FRAMEWORKS, REFERENCE
from paripassu.processes.launch import worker_environment
from paripassu.reference import layers, twin
from paripassu.reference.losses import (
    LOSSES,
    softmax,
)
from paripassu.reference.optimizers import (
    FAMILIES,
)

Floats = npt.NDArray[np.float64]

NETWORK = networks.ARTICLE
OTHERS = [name for name in ("pytorch", "tensorflow") if name in FRAMEWORKS]


# Cases: what every framework is asked

SMALL_RATES = {"dropout1": 0.1, "dropout2": 0.4}  # no power of two in 1 - rate
RECIPES = {
    "article": Recipe(precision="float64", batch_size=16),
    "sgd": validate(
        {
            "precision": "float64",
            "batch_size": 7,
            "seed": 7,
            "dropout": SMALL_RATES,
            "initializer": {"kernel": "he_uniform", "bias": "fan_in_uniform"},
            "optimizer": {"kind": "sgd", "learning_rate": 0.1},
        }
    ),
    "step decay": validate(
        {
            "precision": "float64",
            "batch_size": 2,
            "optimizer": {"kind": "sgd", "learning_rate": 0.1},
            "decay": {"factor": 0.7, "interval": 1.0, "unit": "step"},
        }
    ),
    **{
        name: load(name, ["precision=float64", "batch_size=3"])
        for name in ("lenet5", "keras-example")
    },
    **{
        f"article-{name}-notebook": load(
            f"article-{name}-notebook", ["precision=float64", "batch_size=3"]
        )
        for name in ("pytorch", "tensorflow")
    },
    # A chain that PyTorch writes as `Sequential`, with a softmax put at its end.
    "lenet5, probabilities": load(
        "lenet5", ["precision=float64", "batch_size=3", "output=probabilities"]
    ),
}
STEPS = {case: 3 if case in ("article", "sgd", "step decay") else 1 for case in RECIPES}
STEPS["lenet5"] = 2
SMALL = ["keras-example", "lenet5, probabilities"]  # with a softmax, one of each loss


@cache
def training_images() -> datasets.Split:
    return datasets.prepare(datasets.load(), mean=0.1307, std=0.3081).training


def given(case: str, count: int | None = None) -> dict[str, Any]:
    """Weights, and steps with real digits, the recipe's own batches and masks."""
    recipe, data = RECIPES[case], training_images()
    network = recipe.architecture
    order = draws.batches(recipe, len(data.labels), 0)[: count or STEPS[case]]
    steps = [
        TwinStep(
            images=data.images[rows],
            labels=data.labels[rows],
            masks=draws.dropout_masks(network, recipe, len(rows), 0, number),
        )
        for number, rows in enumerate(order)
    ]
    weights = draws.initial_weights(network, recipe)
    return {"weights": weights, "steps": steps, "threads": 1, "device": "cpu"}


@cache
def reference(case: str) -> Arrays:
    return REFERENCE.trace(RECIPES[case], **given(case))


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Arrays]:
    """A function of framework and case; each framework runs once, in its process."""

    @cache
    def run(name: str) -> Arrays:
        if problem := FRAMEWORKS[name].problem:
            pytest.skip(problem)
        out = tmp_path_factory.mktemp("reference") / f"{name}.npz"
        done = subprocess.run(
            [sys.executable, __file__, name, str(out)],
            capture_output=True,
            text=True,
            check=False,
            env=worker_environment(1)
            | {"PYTHONPATH": environment(TESTS)["PYTHONPATH"]},
        )
        assert done.returncode == 0, done.stderr[-4000:]
        with np.load(out) as file:
            arrays = dict(file)
        out.unlink()  # 240 MB, and pytest keeps the folders of three sessions
        return arrays

    def read(name: str, case: str) -> Arrays:
        if name == "numpy":
            return reference(case)
        start = f"{case}/"
        return {
            key.removeprefix(start): array
            for key, array in run(name).items()
            if key.startswith(start)
        }

    return read


def trace_all(name: str, out: str) -> None:
    arrays = {
        f"{case}/{key}": array
        for case, recipe in RECIPES.items()
        for key, array in FRAMEWORKS[name].trace(recipe, **given(case)).items()
    }
    np.savez(out, **arrays)  # type: ignore[arg-type]


# The frameworks against the reference


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name in OTHERS for case in RECIPES],
)
def test_twins_agree_with_the_reference(traces, name, case):
    network = RECIPES[case].architecture
    rows = compare_traces(
        "numpy", name, reference(case), traces(name, case), network=network
    )
    layer_count, weight_count = len(network.layers), len(network.weights)
    assert len(rows) == 1 + STEPS[case] * (1 + layer_count + 2 * weight_count)
    for row in rows:
        print(f"{name}, {case}: {row.quantity} {row.difference:.1e}")
    assert not [row for row in rows if not row.holds]


# Red: each fault, put into the reference, must show, and where it is


def turned_flatten(_layer: LayerSpec, x: Floats) -> Floats:
    return relayout(x, "n h w c -> n (c h w)")


def turned_flatten_backward(
    _layer: LayerSpec, x: Floats, _y: Floats, gradient: Floats
) -> Any:
    _, h, w, c = x.shape
    return relayout(gradient, "n (c h w) -> n h w c", h=h, w=w, c=c), {}


def plain_dropout(layer: LayerSpec, x: Floats) -> Floats:
    return x * layer.settings.get("mask", True)


def misplaced_pool_backward(
    _layer: LayerSpec, x: Floats, y: Floats, gradient: Floats
) -> Any:
    """To the last of the window's pixels, whichever was chosen."""
    to_x = np.zeros_like(x)
    to_x[:, 1 : 2 * y.shape[1] : 2, 1 : 2 * y.shape[2] : 2] = gradient
    return to_x, {}


def plain_tanh(_layer: LayerSpec, x: Floats) -> Floats:
    return np.tanh(x)


def mean_of_subsample(layer: LayerSpec, x: Floats) -> Floats:
    bias = layer.weights["bias"]
    return (FORWARD["subsample"](layer, x) - bias) / 4 + bias


def spread_subsample_backward(
    layer: LayerSpec, x: Floats, y: Floats, gradient: Floats
) -> Any:
    to_x, to_weights = BACKWARD["subsample"](layer, x, y, gradient)
    return to_x / 4, to_weights


def edge_padding(layer: LayerSpec, x: Floats) -> Floats:
    return FORWARD["pad"](changed(layer, padding_mode="replicate"), x)


def softmax_of_the_batch(layer: LayerSpec, x: Floats) -> Floats:
    return FORWARD["softmax"](changed(layer, axis=0), x)


def softmax_backward_alone(
    _layer: LayerSpec, _x: Floats, y: Floats, gradient: Floats
) -> Any:
    return y * gradient, {}


def changed(layer: LayerSpec, **settings: Any) -> LayerSpec:
    return LayerSpec(layer.kind, {**layer.settings, **settings}, layer.weights)


FORWARD, BACKWARD = dict(layers.FORWARD), dict(layers.BACKWARD)
# Fault: the case, the kind of layer, its wrong functions (None: the right one), what
# must show it, what not.
FAULTS: dict[str, tuple[str, Any, tuple[Any, Any], list[str], list[str]]] = {
    "flatten order": (
        "article",
        "flatten",
        (turned_flatten, turned_flatten_backward),
        ["logits", "activation flatten", "activation dense1"],
        ["activation conv2", "activation dropout1"],
    ),
    "dropout without 1 / (1 - p)": (
        "article",
        "dropout",
        (plain_dropout, None),
        ["activation dropout1", "activation dropout2", "loss"],
        ["logits", "activation relu2"],
    ),
    "pooling gradient misplaced": (
        "article",
        "max_pool",
        (None, misplaced_pool_backward),
        ["gradient conv2.kernel", "gradient conv1.kernel", "weight conv2.kernel"],
        ["logits", "loss", "activation dense2", "gradient dense1.kernel"],
    ),
    "tanh not scaled": (
        "lenet5",
        "tanh",
        (plain_tanh, None),
        ["logits", "activation tanh1", "activation conv2"],
        ["activation conv1"],
    ),
    "subsampling takes the mean": (
        "lenet5",
        "subsample",
        (mean_of_subsample, None),
        ["logits", "activation subsample1"],
        ["activation tanh1"],
    ),
    "subsampling gradient shared out": (
        "lenet5",
        "subsample",
        (None, spread_subsample_backward),
        ["gradient conv2.kernel", "gradient subsample1.bias", "weight conv1.kernel"],
        ["logits", "loss", "gradient subsample2.coefficient", "gradient conv3.kernel"],
    ),
    "padding repeats the edge": (
        "lenet5",
        "pad",
        (edge_padding, None),
        ["activation pad", "activation conv1"],
        [],
    ),
    "softmax over the batch": (
        "keras-example",
        "softmax",
        (softmax_of_the_batch, None),
        ["logits", "activation softmax", "loss"],
        ["activation dense1"],
    ),
    "softmax gradient of each class alone": (
        "keras-example",
        "softmax",
        (None, softmax_backward_alone),
        ["gradient dense1.kernel", "gradient conv1.bias", "weight dense1.kernel"],
        ["logits", "activation softmax", "loss"],
    ),
}


def holds_first(ours: Arrays, theirs: Arrays) -> dict[str, bool]:
    """Which quantities hold at the first step, before an error can spread."""
    first = {
        key: theirs[key] for key in theirs if key == "logits" or key.startswith("0.")
    }
    return {row.quantity: row.holds for row in compare_traces("a", "b", ours, first)}


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_layer_turns_red_where_it_is(monkeypatch, traces, name, fault):
    case, kind, functions, red, green = FAULTS[fault]
    theirs = traces(name, case)
    for table, function in zip(
        (layers.FORWARD, layers.BACKWARD), functions, strict=True
    ):
        if function:
            monkeypatch.setitem(table, kind, function)
    found = holds_first(REFERENCE.trace(RECIPES[case], **given(case, 1)), theirs)
    assert {quantity: found[quantity] for quantity in red + green} == {
        **dict.fromkeys(red, False),
        **dict.fromkeys(green, True),
    }


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
def test_a_table_that_is_ignored_turns_its_gradient_red(monkeypatch, traces, name):
    """Forward it does not show: what is not connected begins at zero."""
    theirs = traces(name, "lenet5")
    monkeypatch.setattr(twin, "_connected", lambda _weight, array: array)
    found = holds_first(
        REFERENCE.trace(RECIPES["lenet5"], **given("lenet5", 1)), theirs
    )
    red = {quantity for quantity, holds in found.items() if not holds}
    assert red == {"gradient conv2.kernel", "weight conv2.kernel"}


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
@pytest.mark.parametrize("case", SMALL)
def test_the_other_loss_turns_the_loss_and_what_follows_red(traces, name, case):
    theirs, recipe = traces(name, case), RECIPES[case]
    (other,) = set(LOSSES) - {recipe.loss}
    wrong = REFERENCE.trace(recipe.changed(loss=other), **given(case, 1))
    red = {
        quantity for quantity, holds in holds_first(wrong, theirs).items() if not holds
    }
    names = [weight.name for weight in recipe.architecture.weights]
    gradients = {f"gradient {name}" for name in names}
    assert {"loss", *gradients} <= red
    assert red <= {"loss", *gradients, *(f"weight {name}" for name in names)}


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
def test_epsilon_of_keras_turns_only_the_weights_red(traces, name):
    theirs = traces(name, "article")
    keras_default = {"kind": "adadelta", "epsilon": 1e-7}
    recipe = RECIPES["article"].changed(optimizer=keras_default)
    found = holds_first(REFERENCE.trace(recipe, **given("article", 1)), theirs)
    red = {quantity for quantity, holds in found.items() if not holds}
    assert red == {f"weight {weight.name}" for weight in NETWORK.weights}


# Trace


@pytest.mark.parametrize("case", ["article", "lenet5", "keras-example"])
def test_trace_keeps_the_contract(case):
    arrays, batch = reference(case), RECIPES[case].batch_size
    network = RECIPES[case].architecture
    shapes: dict[str, tuple[int, ...]] = {"logits": (batch, network.num_classes)}
    for step in range(STEPS[case]):
        shapes[f"{step}.loss"] = ()
        for layer in network.layers:
            shapes[f"{step}.activation.{layer.name}"] = (batch, *layer.output_shape)
        for weight in network.weights:
            shapes[f"{step}.gradient.{weight.name}"] = weight.shape
            shapes[f"{step}.weight.{weight.name}"] = weight.shape
    assert {name: array.shape for name, array in arrays.items()} == shapes
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float64)}


def test_trace_is_float64_whatever_the_recipe_and_leaves_its_input_alone():
    before, recipe = given("sgd"), RECIPES["sgd"].changed(precision="float32")
    after = given("sgd")
    arrays = REFERENCE.trace(recipe, **{**after, "threads": 3, "device": "gpu"})
    for name, array in reference("sgd").items():
        assert np.array_equal(arrays[name], array), name
    for name, array in before["weights"].items():
        assert np.array_equal(after["weights"][name], array), name


@pytest.mark.parametrize("case", SMALL)
def test_logits_of_a_softmax_are_logarithms_of_its_probabilities(case):
    probabilities = np.exp(reference(case)["logits"])
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-14
    # Without a softmax at its end, the same network gives these as its softmax.
    plain = RECIPES[case].changed(output="logits", loss="cross_entropy_on_logits")
    logits = REFERENCE.trace(plain, **given(case, 1))["logits"]
    assert np.abs(softmax(logits) - probabilities).max() < 1e-14
    assert np.abs(logits - np.log(probabilities)).max() > 1e-3  # they are no logits


def test_a_probability_of_zero_has_a_finite_logarithm():
    recipe = RECIPES["lenet5, probabilities"]
    options = given("lenet5, probabilities", 1)
    options["weights"] = {n: np.zeros_like(x) for n, x in options["weights"].items()}
    options["weights"]["dense2.bias"] = np.array([0.0] + [-1e4] * 9)
    logits = REFERENCE.trace(recipe, **options)["logits"]
    assert logits[:, 0].tolist() == [0.0] * 3
    # The smallest normal float64, 2**-1022.
    np.testing.assert_allclose(logits[:, 1:], -1022 * math.log(2), rtol=1e-15)


def test_weights_of_another_network_are_refused():
    options = given("article", 1)
    del options["weights"]["conv2.bias"]
    with pytest.raises(UserError, match=r"lack conv2\.bias"):
        REFERENCE.trace(RECIPES["article"], **options)


def test_every_kind_that_a_recipe_may_name_is_known():
    backward = layers.BACKWARD.keys() | layers.JOINS_BACKWARD.keys()
    assert backward == set(get_args(architecture.Kind))
    assert backward <= layers.FORWARD.keys()
    kinds = get_args(Recipe.model_fields["optimizer"].annotation)
    assert kinds == (Adadelta, SGD, Adam, RMSprop, Nadam)
    assert set(FAMILIES) >= {
        get_args(kind.model_fields["kind"].annotation)[0] for kind in kinds
    }
    assert set(LOSSES) == set(get_args(Recipe.model_fields["loss"].annotation))


def test_the_reference_imports_no_framework():
    code = (
        "import sys, paripassu.reference.twin;"
        "print({'torch', 'tensorflow', 'keras', 'jax'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def branches(calls: list[twin.Call]) -> list[Any]:
    """Which side of every ReLU and which pixel of every pool was taken."""
    relus = [call.x > 0 for call in calls if call.spec.kind == "relu"]
    pools = [
        layers.BACKWARD["max_pool"](call.spec, call.x, call.y, np.ones_like(call.y))[0]
        for call in calls
        if call.spec.kind == "max_pool"
    ]
    return relus + pools


def check_network(network: networks.Network, recipe: Recipe, entries: int) -> None:
    """Hold gradients of random entries of every weight against differences."""
    size, h = 2, 1e-5
    weights = draws.initial_weights(network, recipe)
    images = random(size, *network.input_shape, seed=4)
    labels = np.array([3, 1])
    masks = draws.dropout_masks(network, recipe, size, 0, 0)
    seen: list[list[Any]] = []

    def loss() -> float:
        calls = twin.forward(network, recipe, weights, images, masks)
        seen.append(branches(calls))
        return float(LOSSES[recipe.loss](calls[-1].y, labels)[0])

    calls = twin.forward(network, recipe, weights, images, masks)
    _, gradient = LOSSES[recipe.loss](calls[-1].y, labels)
    gradients = twin.backward(calls, gradient)
    assert gradients.keys() == weights.keys()
    for name, array in weights.items():
        checked, order = 0, draws.permutation(array.size, 1, name)
        for position in order[: 4 * entries]:
            index = np.unravel_index(position, array.shape)
            seen.clear()
            found = slope(loss, array, index, h)
            above, below = seen
            if not all(map(np.array_equal, above, below)):
                continue  # a kink lies between: there is no slope to compare with
            checked += 1
            # Rounding of the loss over 2h, some 1e-10, and h**2 of a third derivative.
            error = abs(found - gradients[name][index])
            assert error < 1e-8 * max(1, np.abs(gradients[name]).max()), (name, index)
            if checked == entries:
                break
        assert checked >= min(entries, array.size) // 2, f"{name}: too many kinks"


def test_gradients_of_the_article_network_against_differences():
    recipe = Recipe().changed(
        initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"}
    )
    check_network(NETWORK, recipe, entries=6)


@pytest.mark.parametrize("name", ["lenet5", "keras-example"])
def test_gradients_of_a_network_of_the_book_against_differences(name):
    """Biases begin elsewhere than at zero, and the loss is the recipe's own."""
    changes = {"initializer": {"kernel": "he_uniform", "bias": "fan_in_uniform"}}
    recipe = load(name).changed(**({} if name == "lenet5" else changes))
    check_network(recipe.architecture, recipe, entries=6)


def chain_of(shape: networks.Shape, *tables: dict[str, Any]) -> networks.Network:
    return assemble("chain", shape, read_layers(list(tables), None)[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_every_new_kind_in_a_chain_against_differences(loss):
    """Every entry, those that the table leaves out too: their slope is zero."""
    squashed = {"kind": "tanh", "amplitude": 1.7159, "slope": 2 / 3}
    table = ((0,), (1, 2), (0, 2), (0, 1, 2))
    chain = chain_of(
        (6, 8, 1),
        {"kind": "pad", "size": 1},  # (8, 10, 1)
        {"kind": "conv", "channels": 3, "kernel": 3},  # (6, 8, 3)
        squashed,
        {"kind": "subsample"},  # (3, 4, 3)
        squashed,
        {"kind": "conv", "channels": 4, "kernel": 2, "connections": table},
        {"kind": "flatten"},  # (24,)
        {"kind": "dense", "units": 5},
    )
    recipe = Recipe().changed(
        output="probabilities",
        loss=loss,
        initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"},
    )
    check_network(chain.with_softmax(), recipe, entries=1000)


def test_a_new_network_needs_no_new_code():
    new = chain_of(
        (11, 9, 2),
        {"kind": "conv", "channels": 3, "kernel": 2},  # (10, 8, 3)
        {"kind": "max_pool"},  # (5, 4, 3)
        {"kind": "relu"},
        {"kind": "dropout"},
        {"kind": "conv", "channels": 4, "kernel": 2},  # (4, 3, 4)
        {"kind": "max_pool"},  # (2, 1, 4)
        {"kind": "flatten"},
        {"kind": "dense", "units": 6},
        {"kind": "relu"},
        {"kind": "dense", "units": 5},
    )
    recipe = Recipe().changed(
        initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"}
    )
    check_network(new, recipe, entries=1000)


def test_a_layer_that_is_not_as_in_the_architecture_is_refused():
    pool = networks.Layer(
        *("pool", "max_pool", (2, 2, 1)),
        settings={"size": (2, 2)},
        inputs=(architecture.IMAGES,),
    )
    wide = networks.Network("wide", (8, 8, 1), 4, (pool,))
    with pytest.raises(ValueError, match=r"pool: \(2, 2, 1\) is expected"):
        twin.forward(wide, Recipe(), {}, random(1, 8, 8), None)


def test_trace_follows_a_decay_by_steps():
    arrays = reference("step decay")
    for step, rate in enumerate((0.1, 0.07, 0.049)):
        name = "dense2.bias"
        before = (
            given("step decay")["weights"][name]
            if step == 0
            else arrays[f"{step - 1}.weight.{name}"]
        )
        moved = before - arrays[f"{step}.weight.{name}"]
        expected = rate * arrays[f"{step}.gradient.{name}"]
        assert np.abs(moved - expected).max() < 1e-16


if __name__ == "__main__":
    trace_all(*sys.argv[1:])
