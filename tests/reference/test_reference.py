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

from paripassu.analysis.proof.parity import compare_traces
from paripassu.core import datasets, draws, networks
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.layout import relayout
from paripassu.core.recipe import (
    SGD,
    Adadelta,
    Adam,
    Decay,
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
    cross_entropy,
    cross_entropy_of_probabilities,
    softmax,
)
from paripassu.reference.optimizers import (
    FAMILIES,
    State,
    learning_rate,
    rule_of,
    step_once,
)

Floats = npt.NDArray[np.float64]

NETWORK = networks.ARTICLE
OTHERS = [name for name in ("pytorch", "tensorflow") if name in FRAMEWORKS]


def random(*shape: int, seed: int = 0) -> Floats:
    """Numbers between -1 and 1."""
    return 2 * draws.uniform(shape, seed, "test of the reference") - 1


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
            env=worker_environment(1),
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
    assert layers.BACKWARD.keys() == set(get_args(networks.Kind))
    assert layers.BACKWARD.keys() <= layers.FORWARD.keys()
    kinds = get_args(Recipe.model_fields["optimizer"].annotation)
    assert kinds == (Adadelta, SGD, Adam, RMSprop)
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


# Layers forward, by definition


def forward(kind: str, x: Floats, *weights: Floats, **settings: Any) -> Floats:
    return layers.FORWARD[kind](spec(kind, *weights, **settings), x)


def backward(
    kind: str, x: Floats, gradient: Floats, *weights: Floats, **settings: Any
) -> tuple[Floats, dict[str, Floats]]:
    layer = spec(kind, *weights, **settings)
    y = layers.FORWARD[kind](layer, x)
    return layers.BACKWARD[kind](layer, x, y, gradient)


def spec(kind: str, *weights: Floats, **settings: Any) -> LayerSpec:
    """A layer; its weights are named in the order of the table in `layer_spec`."""
    names = ("coefficient" if kind == "subsample" else "kernel", "bias")
    return LayerSpec(kind, settings, dict(zip(names, weights, strict=False)))


@pytest.mark.parametrize(
    ("image", "kernel"),
    [((4, 5, 2), (3, 3, 2, 3)), ((3, 3, 1), (3, 3, 1, 2)), ((5, 4, 3), (2, 1, 3, 1))],
)
def test_convolution_against_loops(image, kernel):
    x, k = random(2, *image), random(*kernel, seed=1)
    bias = random(kernel[-1], seed=2)
    y = forward("conv", x, k, bias)
    h, w, inputs, outputs = kernel
    expected = np.zeros((2, image[0] - h + 1, image[1] - w + 1, outputs))
    for n, p, q, o in np.ndindex(expected.shape):
        total = bias[o]
        for a, b, i in np.ndindex(h, w, inputs):
            total += x[n, p + a, q + b, i] * k[a, b, i, o]
        expected[n, p, q, o] = total
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() < 1e-14  # at most 27 products below 1


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (4, 7), (2, 3)])
def test_max_pool_against_loops(size):
    x = random(2, *size, 3)
    y = forward("max_pool", x, size=(2, 2))
    expected = np.zeros((2, size[0] // 2, size[1] // 2, 3))
    for n, p, q, c in np.ndindex(expected.shape):
        expected[n, p, q, c] = max(
            x[n, 2 * p, 2 * q, c],
            x[n, 2 * p, 2 * q + 1, c],
            x[n, 2 * p + 1, 2 * q, c],
            x[n, 2 * p + 1, 2 * q + 1, c],
        )
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    ("window", "first"),
    [
        ([[1, 1], [1, 1]], (0, 0)),
        ([[0, 1], [1, 1]], (0, 1)),
        ([[0, 0], [1, 1]], (1, 0)),
        ([[-2, -1], [-3, -1]], (0, 1)),
        ([[0, 0], [0, 1]], (1, 1)),
    ],
)
def test_max_pool_gives_the_gradient_to_the_first_of_equal_maxima(window, first):
    x = np.tile(np.array(window, float), (2, 1))[None, :, :, None]  # two windows
    gradient = np.array([3.0, 5.0]).reshape(1, 2, 1, 1)
    to_x, to_weights = backward("max_pool", x, gradient, size=(2, 2))
    expected = np.zeros((4, 2))
    expected[first] = 3.0
    expected[first[0] + 2, first[1]] = 5.0
    assert np.array_equal(to_x[0, :, :, 0], expected)
    assert to_weights == {}


def test_max_pool_gives_no_gradient_to_the_odd_row_and_column():
    x, gradient = random(1, 5, 3, 2), np.ones((1, 2, 1, 2))
    to_x, _ = backward("max_pool", x, gradient, size=(2, 2))
    assert to_x.shape == (1, 5, 3, 2)
    assert to_x.sum() == 4
    assert not to_x[:, 4].any()
    assert not to_x[:, :, 2].any()


def test_relu_and_its_slope_at_zero():
    x = np.array([-2.0, 0.0, 3.0])
    assert forward("relu", x).tolist() == [0, 0, 3]
    assert backward("relu", x, np.array([5.0, 5, 5]))[0].tolist() == [0, 0, 5]


def test_dropout_enlarges_what_it_keeps_forward_and_backward():
    x, mask = np.array([1.0, 2, 3, 4]), np.array([True, False, True, True])
    assert forward("dropout", x, mask=mask, rate=0.75).tolist() == [4, 0, 12, 16]
    to_x, _ = backward("dropout", x, x, mask=mask, rate=0.75)
    assert to_x.tolist() == [4, 0, 12, 16]
    assert np.array_equal(forward("dropout", x), x)  # off


def test_dropout_keeps_the_mean():
    x = np.ones(200_000)
    mask = draws.keep_mask(x.shape, 0.25, 0, "mean")
    y = forward("dropout", x, mask=mask, rate=0.25)
    assert abs(y.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / x.size)  # 5 deviations


def test_flatten_runs_through_height_width_channels():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    y = forward("flatten", x)
    assert y[0, (1 * 3 + 2) * 4 + 3] == x[0, 1, 2, 3]
    assert np.array_equal(backward("flatten", x, y)[0], x)


def test_dense_by_hand():
    kernel = np.array([[1.0, 2], [3, 4], [5, 6]])
    y = forward("dense", np.array([[1.0, 0, -1]]), kernel, np.array([10.0, 20]))
    assert y.tolist() == [[6, 16]]


def test_padding_by_hand():
    x = np.array([[1.0, 2, 3], [4, 5, 6]]).reshape(1, 2, 3, 1)
    y = forward("pad", x, padding=((1, 1), (1, 1)))
    assert y[0, :, :, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0],
        [0, 4, 5, 6, 0],
        [0, 0, 0, 0, 0],
    ]
    gradient = np.arange(20.0).reshape(1, 4, 5, 1)
    to_x, to_weights = backward("pad", x, gradient, padding=((1, 1), (1, 1)))
    assert to_x[0, :, :, 0].tolist() == [[6, 7, 8], [11, 12, 13]]
    assert to_weights == {}
    wide = forward("pad", random(2, 5, 4, 3), padding=((2, 2), (2, 1)))
    assert wide.shape == (2, 9, 7, 3)


SQUASHING = dict(networks.LENET5.layers_of("tanh")[0].settings)


def test_tanh_is_the_papers_squashing_function():
    """LeCun et al. 1998, appendix A: f(1) = 1, f(-1) = -1, and at most 1.7159."""
    x = np.array([-1e3, -1.0, 0.0, 1.0, 1e3])
    y = forward("tanh", x, **SQUASHING)
    assert y == pytest.approx([-1.7159, -1, 0, 1, 1.7159], abs=1e-4)
    # tanh z = (exp(2 z) - 1) / (exp(2 z) + 1) at z = 2/3.
    e = math.exp(4 / 3)
    assert y[3] == pytest.approx(1.7159 * (e - 1) / (e + 1), rel=1e-15)
    slope, to_weights = backward("tanh", x, np.ones(5), **SQUASHING)
    assert slope[2] == pytest.approx(1.7159 * 2 / 3, rel=1e-15)
    assert slope[[0, 4]].tolist() == [0, 0]
    assert to_weights == {}
    # "The absolute value of the second derivative of f is a maximum at +1 and -1."
    points = np.linspace(0, 3, 601)
    slopes_there, _ = backward("tanh", points, np.ones(601), **SQUASHING)
    bends = np.abs(np.diff(slopes_there))
    assert points[bends.argmax()] == pytest.approx(1, abs=0.02)


def test_subsample_against_loops():
    x, coefficient, bias = random(2, 4, 6, 3), random(3, seed=1), random(3, seed=2)
    y = forward("subsample", x, coefficient, bias, size=(2, 2))
    expected = np.zeros((2, 2, 3, 3))
    for n, p, q, c in np.ndindex(expected.shape):
        total = sum(x[n, 2 * p + a, 2 * q + b, c] for a in (0, 1) for b in (0, 1))
        expected[n, p, q, c] = bias[c] + coefficient[c] * total
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() < 1e-15


def test_softmax_in_closed_form():
    y = forward("softmax", np.array([[math.log(1), math.log(2), math.log(5)]]))
    assert y[0] == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-15)
    x = 3 * random(4, 5)
    expected = np.zeros((4, 5))
    for n in range(4):
        whole = sum(math.exp(x[n, j]) for j in range(5))
        for k in range(5):
            expected[n, k] = math.exp(x[n, k]) / whole
    assert np.abs(softmax(x) - expected).max() < 1e-15
    # A constant for each image changes nothing, and nothing overflows.
    moved = softmax(x + 1000 * random(4, 1, seed=1))
    assert np.abs(moved - expected).max() < 1e-12
    huge = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))
    assert huge.tolist() == [[1, 0], [0.5, 0.5]]


def test_softmax_gives_no_gradient_to_a_constant_of_all_classes():
    to_x, _ = backward("softmax", random(3, 4), np.ones((3, 4)))
    assert np.abs(to_x).max() < 1e-15  # the probabilities always add up to 1
    to_x, _ = backward("softmax", random(3, 4), random(3, 4, seed=1))
    assert np.abs(to_x.sum(axis=1)).max() < 1e-15
    assert np.abs(to_x).max() > 0.01


def test_a_table_leaves_connections_out_forward_and_backward():
    """A convolution of 1x1: each output sees the inputs that the table names."""
    table = ((0,), (1, 2), (0, 1, 2))
    layer = networks._conv("conv1", 3, 1, table)((), (2, 3, 3))
    network = networks.Network("tabled", (2, 3, 3), 3, (layer,))
    kernel, bias = random(1, 1, 3, 3), random(3, seed=1)
    weights, x = {"conv1.kernel": kernel, "conv1.bias": bias}, random(2, 2, 3, 3)
    calls = twin.forward(network, Recipe(), weights, x, None)
    for output, seen in enumerate(table):
        expected = bias[output] + sum(x[..., i] * kernel[0, 0, i, output] for i in seen)
        assert np.abs(calls[0].y[..., output] - expected).max() < 1e-15
    gradient = random(2, 2, 3, 3, seed=2)
    found = twin.backward(calls, gradient)["conv1.kernel"]
    for i, output in np.ndindex(3, 3):
        expected = (
            (x[..., i] * gradient[..., output]).sum() if i in table[output] else 0
        )
        assert found[0, 0, i, output] == pytest.approx(expected, abs=1e-14)


def test_nothing_hides_a_nan():
    x = random(1, 4, 4, 1)
    x[0, 1, 1, 0] = np.nan
    mask, zeros = np.zeros(x.shape, np.bool_), np.zeros(1)
    for layer in (
        spec("pad", padding=((2, 2), (2, 2))),
        spec("tanh"),
        spec("subsample", zeros, zeros, size=(2, 2)),
        spec("softmax"),
        spec("relu"),
        spec("max_pool", size=(2, 2)),
        spec("dropout", mask=mask, rate=0.5),
        spec("conv", np.zeros((3, 3, 1, 1)), zeros),
    ):
        assert np.isnan(layers.FORWARD[layer.kind](layer, x)).any(), layer.kind
    for loss in LOSSES.values():
        assert np.isnan(loss(np.array([[np.nan, np.nan]]), np.array([1]))[0])
    assert np.isnan(cross_entropy(np.array([[np.nan, 0.0]]), np.array([1]))[0])


# Backward, by finite differences


def slope(function: Callable[[], float], array: Floats, index: Any, h: float) -> float:
    """The central difference of `function` as `array[index]` moves by h."""
    kept = array[index]
    array[index] = kept + h
    above = function()
    array[index] = kept - h
    below = function()
    array[index] = kept
    return (above - below) / (2 * h)


def slopes(function: Callable[[], float], array: Floats, h: float = 1e-4) -> Floats:
    numbers = [slope(function, array, index, h) for index in np.ndindex(array.shape)]
    return np.array(numbers).reshape(array.shape)


def spaced(*shape: int) -> Floats:
    """Numbers in random order, 0.02 from each other and 0.01 from zero or more.

    So a step of 1e-4 changes neither the sign of one nor the largest of some.
    """
    count = math.prod(shape)
    levels = 0.02 * (np.arange(count) - count // 2) + 0.01
    return levels[draws.permutation(count, 0, "apart")].reshape(shape)


MASK = draws.keep_mask((3, 4), 0.4, 0, "differences")
# The kind, arrays that are moved (x and weights), and settings.
DIFFERENTIATED: dict[str, tuple[str, list[Floats], dict[str, Any]]] = {
    "conv": (
        "conv",
        [random(2, 5, 6, 2), random(3, 3, 2, 4, seed=1), random(4, seed=2)],
        {},
    ),
    "conv, oblong kernel": (
        "conv",
        [random(2, 4, 5, 3), random(1, 2, 3, 2, seed=1), random(2, seed=2)],
        {},
    ),
    "conv, all settings": (
        "conv",
        [random(2, 6, 5, 4), random(3, 2, 2, 6, seed=1)],
        {"strides": (2, 1), "dilation": (1, 2), "groups": 2, "padding": "same"},
    ),
    "dense": ("dense", [random(3, 5), random(5, 4, seed=1), random(4, seed=2)], {}),
    "dense of steps": ("dense", [random(2, 3, 5), random(5, 4, seed=1)], {}),
    "relu": ("relu", [spaced(2, 3, 3, 2)], {}),
    "max_pool": ("max_pool", [spaced(2, 4, 6, 3)], {"size": (2, 2)}),
    "max_pool, odd": ("max_pool", [spaced(2, 5, 3, 2)], {"size": (2, 2)}),
    "max_pool, overlapping": (
        "max_pool",
        [spaced(2, 5, 6, 2)],
        {"size": (3, 2), "strides": (2, 1), "padding": ((1, 1), (0, 0))},
    ),
    "dropout": ("dropout", [random(3, 4)], {"mask": MASK, "rate": 0.4}),
    "flatten": ("flatten", [random(2, 3, 2, 4)], {}),
    "pad": ("pad", [random(2, 3, 2, 4)], {"padding": ((2, 2), (1, 0))}),
    "tanh": ("tanh", [2 * random(2, 3, 2, 2)], SQUASHING),
    "subsample": (
        "subsample",
        [random(2, 4, 6, 3), random(3, seed=1), random(3, seed=2)],
        {"size": (2, 2)},
    ),
    "softmax": ("softmax", [3 * random(4, 5)], {}),
    "softmax, another axis": ("softmax", [3 * random(4, 5)], {"axis": 0}),
}
CURVED = ("tanh", "softmax")


@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_backward_of_every_layer_against_differences(case):
    kind, (x, *weights), settings = DIFFERENTIATED[case]
    layer = spec(kind, *weights, **settings)
    y = layers.FORWARD[kind](layer, x)
    gradient = random(*y.shape, seed=3)
    to_x, to_weights = layers.BACKWARD[kind](layer, x, y, gradient)

    def total() -> float:
        return float((layers.FORWARD[kind](layer, x) * gradient).sum())

    # The total is linear in each entry, so the difference has no error but rounding: a
    # total below 100, in float64, over 2e-4: about 1e-10. Where it is curved, also
    # h**2 / 6 times a third derivative of at most 2.
    h = 1e-5 if kind in CURVED else 1e-4
    assert to_weights.keys() == layer.weights.keys()
    for array, found in (
        (x, to_x),
        *((layer.weights[n], to_weights[n]) for n in to_weights),
    ):
        assert found.shape == array.shape
        assert np.abs(slopes(total, array, h) - found).max() < 1e-9


def test_every_kind_of_layer_is_differentiated():
    assert {kind for kind, *_ in DIFFERENTIATED.values()} == set(layers.BACKWARD)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_loss_against_differences(name):
    loss, labels = LOSSES[name], np.array([0, 4, 2, 2])
    given_to_it = 3 * random(4, 5)
    if name == "cross_entropy_on_probabilities":
        given_to_it = 0.6 + 0.5 * random(4, 5)  # 0.1 to 1.1; none need add up to 1
    _, gradient = loss(given_to_it, labels)
    found = slopes(lambda: float(loss(given_to_it, labels)[0]), given_to_it, 1e-5)
    # h**2 / 6 times a third derivative, below 0.1 of logits and below 2 / 0.2**3 / 4
    # of probabilities, and eps / h: below 1e-9.
    assert np.abs(found - gradient).max() < 2e-9


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


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_every_new_kind_in_a_chain_against_differences(loss):
    """Every entry, those that the table leaves out too: their slope is zero."""
    chain = networks._chain(
        "tabled",
        (6, 8, 1),
        networks._pad("pad", 1),  # (8, 10, 1)
        networks._conv("conv1", 3, 3),  # (6, 8, 3)
        networks._tanh("tanh1"),
        networks._subsample("subsample1"),  # (3, 4, 3)
        networks._tanh("tanh2"),
        networks._conv("conv2", 4, 2, ((0,), (1, 2), (0, 2), (0, 1, 2))),
        networks._flatten("flatten"),  # (24,)
        networks._dense("dense1", 5),
    )
    recipe = Recipe().changed(
        output="probabilities",
        loss=loss,
        initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"},
    )
    check_network(chain.with_softmax(), recipe, entries=1000)


def test_a_new_network_needs_no_new_code():
    new = networks._chain(
        "new",
        (11, 9, 2),
        networks._conv("conv1", 3, 2),  # (10, 8, 3)
        networks._max_pool("pool1", 2),  # (5, 4, 3)
        networks._elementwise("relu1", "relu"),
        networks._elementwise("dropout1", "dropout"),
        networks._conv("conv2", 4, 2),  # (4, 3, 4)
        networks._max_pool("pool2", 2),  # (2, 1, 4)
        networks._flatten("flatten"),
        networks._dense("dense1", 6),
        networks._elementwise("relu2", "relu"),
        networks._dense("dense2", 5),
    )
    recipe = Recipe().changed(
        initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"}
    )
    check_network(new, recipe, entries=1000)


def test_a_layer_that_is_not_as_in_the_architecture_is_refused():
    pool = networks.Layer("pool", "max_pool", (2, 2, 1), settings={"size": (2, 2)})
    wide = networks.Network("wide", (8, 8, 1), 4, (pool,))
    with pytest.raises(ValueError, match=r"pool: \(2, 2, 1\) is expected"):
        twin.forward(wide, Recipe(), {}, random(1, 8, 8), None)


# Loss, in closed form


def test_uniform_logits_cost_log_10():
    for level in (0.0, -7.5, 1000.0):
        loss, gradient = cross_entropy(np.full((4, 10), level), np.array([0, 3, 9, 9]))
        assert loss.shape == ()
        assert float(loss) == pytest.approx(math.log(10), rel=1e-15)
        expected = (0.1 - np.eye(10)[[0, 3, 9, 9]]) / 4
        assert np.abs(gradient - expected).max() < 1e-16


def test_loss_of_two_classes_in_closed_form():
    loss, gradient = cross_entropy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    right, wrong = math.log1p(math.exp(-1)), 3 + math.log1p(math.exp(-3))
    assert float(loss) == pytest.approx((right + wrong) / 2, rel=1e-15)
    p = 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-3))  # of class 1
    expected = np.array([[-p[0], p[0]], [-p[1], p[1]]]) / 2
    assert np.abs(gradient - expected).max() < 1e-16


def test_huge_logits_do_not_overflow():
    logits = np.array([[1000.0, 0.0, -1000.0]] * 3)
    losses = [float(cross_entropy(logits[:1], np.array([k]))[0]) for k in range(3)]
    assert losses == [0, 1000, 2000]
    loss, gradient = cross_entropy(logits, np.array([0, 1, 2]))
    assert float(loss) == 1000
    assert (gradient * 3).tolist() == [[0, 0, 0], [1, -1, 0], [1, 0, -1]]


def test_uniform_probabilities_cost_log_10():
    labels = np.array([0, 3, 9, 9])
    loss, gradient = cross_entropy_of_probabilities(np.full((4, 10), 0.1), labels)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(math.log(10), rel=1e-15)
    assert np.array_equal(gradient, -10 * np.eye(10)[labels] / 4)


def test_loss_of_probabilities_in_closed_form():
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.0, 0.0, 1.0]])
    loss, gradient = cross_entropy_of_probabilities(p, np.array([1, 0, 2]))
    assert float(loss) == pytest.approx((2 + 3 + 0) * math.log(2) / 3, rel=1e-15)
    expected = np.array([[0, -4, 0], [-8, 0, 0], [0, 0, -1]]) / 3
    assert np.abs(gradient - expected).max() < 1e-15


def test_both_losses_are_one_through_the_softmax():
    logits, labels = 5 * random(6, 10), np.arange(6)
    y = softmax(logits)
    loss, gradient = cross_entropy_of_probabilities(y, labels)
    to_logits, _ = backward("softmax", logits, gradient)
    expected, expected_gradient = cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-14)
    assert np.abs(to_logits - expected_gradient).max() < 1e-15
    # Red: with the softmax applied twice they are not.
    twice, _ = cross_entropy(y, labels)
    assert abs(float(twice) - float(expected)) > 0.1


def test_a_second_softmax_keeps_the_loss_up():
    """Of probabilities that could not be better, 1 and nine times 0, and of worse."""
    best, worst = np.eye(10)[:1], np.eye(10)[1:2]
    floor = math.log(math.e + 9) - 1
    assert floor == pytest.approx(1.4612, abs=1e-4)
    labels = np.array([0])
    assert float(cross_entropy(best, labels)[0]) == pytest.approx(floor, rel=1e-15)
    assert float(cross_entropy(worst, labels)[0]) == pytest.approx(1 + floor, rel=1e-15)


# Optimizers and schedule, by hand


def descend(chosen: Any, start: float, rate: float) -> Callable[..., list[float]]:
    """A function from gradients to the weights after each of them."""

    def run(*gradients: float) -> list[float]:
        weights, found = {"w": np.array([start])}, []
        states: dict[str, State] = {"w": {}}
        for step, gradient in enumerate(gradients, 1):
            weights, states = step_once(
                rule_of(chosen),
                weights,
                {"w": np.array([gradient])},
                states,
                rate=rate,
                step=step,
            )
            found.append(float(weights["w"][0]))
        return found

    return run


def test_sgd_by_hand():
    run = descend(SGD(kind="sgd"), start=1.0, rate=0.25)
    assert run(0.5, -2.0, 0.0, 4.0) == [0.875, 1.375, 1.375, 0.375]


def test_adadelta_by_hand():
    # rho 3/4 and epsilon 3 keep the mean square of these gradients at 1, and
    # sqrt(1 + epsilon) at 2. Mean squares of updates, before each step:
    # 0; 3/4 * 0 + 1/4 * 3 = 0.75; 3/4 * 0.75 + 1/4 * 3.75/4 = 0.796875.
    chosen = Adadelta(kind="adadelta", rho=0.75, epsilon=3.0)
    run = descend(chosen, start=10.0, rate=0.5)
    first = 10 - 0.5 * math.sqrt(0 + 3) / 2 * 2
    second = first - 0.5 * math.sqrt(0.75 + 3) / 2 * 1
    third = second + 0.5 * math.sqrt(0.796875 + 3) / 2 * 1
    assert run(2.0, 1.0, -1.0) == pytest.approx([first, second, third], rel=1e-15)


def test_adadelta_of_the_article_by_hand():
    run = descend(Adadelta(kind="adadelta"), start=0.0, rate=1.0)
    first = 1e-3 / math.sqrt(0.1 + 1e-6)
    square_update = 0.1 * 1e-6 / (0.1 + 1e-6)
    second = (
        0.5 * math.sqrt(square_update + 1e-6) / math.sqrt(0.9 * 0.1 + 0.1 * 0.25 + 1e-6)
    )
    assert run(1.0, -0.5) == pytest.approx([-first, second - first], rel=1e-14)


def test_a_gradient_of_zero_moves_nothing():
    run = descend(Adadelta(kind="adadelta"), start=2.0, rate=1.0)
    assert run(0.0, 0.0) == [2.0, 2.0]


LINEAR = Decay(shape="linear", interval=14.0, warm_up=4.0, unit="step")


@pytest.mark.parametrize(
    ("decay", "epoch", "step", "expected"),
    [
        (Decay(), 0, 0, 0.5),
        (Decay(), 0, 937, 0.5),  # within the epoch nothing changes
        (Decay(), 1, 938, 0.5 * 0.7),
        (Decay(), 9, 9379, 0.5 * 0.7**9),
        (Decay(interval=2.0), 3, 2814, 0.5 * 0.7**1.5),
        (Decay(factor=0.5, interval=4.0, unit="step"), 1, 0, 0.5),
        (Decay(factor=0.5, interval=4.0, unit="step"), 0, 4, 0.25),
        (Decay(factor=0.5, interval=4.0, unit="step"), 0, 2, 0.5 * math.sqrt(0.5)),
        (Decay(factor=1.0), 7, 6566, 0.5),
        (LINEAR, 0, 0, 0.5 * 1 / 4),
        (LINEAR, 0, 3, 0.5),
        (LINEAR, 0, 4, 0.5),
        (LINEAR, 1, 9, 0.5 * 5 / 10),
        (LINEAR, 1, 13, 0.5 * 1 / 10),
        (LINEAR, 2, 20, 0.0),
        (Decay(shape="linear", interval=4.0), 1, 900, 0.5 * 3 / 4),
    ],
)
def test_learning_rate(decay, epoch, step, expected):
    optimizer = {"kind": "sgd", "learning_rate": 0.5}
    recipe = Recipe().changed(optimizer=optimizer, decay=decay.model_dump())
    found = learning_rate(recipe, epoch=epoch, step=step)
    assert found == pytest.approx(expected, rel=1e-15)


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
