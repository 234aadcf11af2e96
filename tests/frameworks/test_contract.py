"""Every installed framework under every verb of the contract.

Each framework works in one process of its own (`framework_child.py`), and what comes
out of it is held against NumPy in float64, or against itself, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    BOTH,
    FIRST_FAST,
    MODULES,
    OTHER,
    Arrays,
    Child,
    all_kept,
    needs_both,
    same_bits,
    skip_without,
    start_weights,
)

from paripassu.core import datasets, draws, files, networks
from paripassu.core.recipe import Recipe, load

NO_DROPOUT = {"dropout1": 0.0, "dropout2": 0.0}
SGD = {"kind": "sgd", "learning_rate": 0.1}
COUNT = 72  # four whole batches of 16 and a short one
Images = tuple[np.ndarray, np.ndarray]


def recipe(**changes) -> Recipe:
    return Recipe(**{"name": "contract", "epochs": 1, "batch_size": 16, **changes})


@pytest.fixture(scope="module")
def prepared(mnist) -> datasets.Prepared:
    return datasets.prepare(mnist, mean=0.1307, std=0.3081)


@pytest.fixture(scope="module")
def training(prepared) -> Images:
    return prepared.training.images[:COUNT], prepared.training.labels[:COUNT]


@pytest.fixture(scope="module")
def test(prepared) -> Images:
    return prepared.test.images[:1100], prepared.test.labels[:1100]


@pytest.fixture(scope="module", params=FIRST_FAST)
def child(request, child_of: Callable[[str], Child]) -> Child:
    return child_of(request.param)


@pytest.fixture(scope="module")
def trained(child: Child, training: Images) -> tuple[Arrays, Arrays]:
    """State and weights after one epoch."""
    child.make(recipe())
    child.train(training, training)
    return child.state(), child.weights()


def mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy by log-sum-exp in float64, mean over images."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, in float64."""
    logits = logits.astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def close(left: Arrays, right: Arrays, size: float) -> bool:
    """Whether all arrays agree, relative to the largest number of each."""
    return left.keys() == right.keys() and all(
        left[name].shape == right[name].shape
        and np.abs(left[name] - right[name]).max() <= size * np.abs(right[name]).max()
        for name in right
    )


# The process


def test_one_framework_a_process(child):
    child.make(recipe())
    loaded = set(child.ask("modules")[0]["modules"])
    assert MODULES[child.framework] in loaded
    # Red without `needless`: TensorFlow imports JAX where it is installed.
    assert not loaded & {MODULES[name] for name in MODULES if name != child.framework}


def test_says_where_and_with_what_it_computes(child):
    said = child.make(recipe())
    assert said["device"] == "cpu"
    assert said["peak"] is None
    assert MODULES[child.framework] in said["versions"]
    assert said["settings"]["TF32"] == "off"


# Weights and state


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_initial_weights_come_out_as_they_went_in(child, precision):
    given = recipe(initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"})
    weights = start_weights(given)
    child.make(given.changed(precision=precision), weights)
    came = child.weights()
    expected = {name: array.astype(precision) for name, array in weights.items()}
    assert same_bits(came, expected)
    # The check sees one last bit, and an exchange of two axes of equal size.
    for spoil in (np.nextafter(came["conv1.kernel"], 1), came["conv1.kernel"].T):
        shape = came["conv1.kernel"].shape
        spoilt = {**came, "conv1.kernel": spoil.reshape(shape)}
        assert not same_bits(spoilt, expected)


def test_goes_on_from_a_state_bit_for_bit(child, training, trained, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    files.write_tensors(file, trained[0])
    state, _metadata = files.read_tensors(file)
    assert same_bits(state, trained[0])
    more = recipe(epochs=3)
    child.make(more)
    reports, _ = child.train(training, training)
    straight = child.state()

    child.make(more, start_weights(more.changed(seed=7)))
    child.train(training, training, first_epoch=2)  # moves generators and slots
    child.load_state(state)
    assert same_bits(child.state(), state)
    later, _ = child.train(training, training, first_epoch=1)
    assert same_bits(child.state(), straight)
    timeless = ("epoch", "learning_rate", "training_loss", "monitor_accuracy")
    for before, after in zip(reports[1:], later, strict=True):
        assert [before[key] for key in timeless] == [after[key] for key in timeless]


@pytest.mark.parametrize("forgotten", ["generator", "slots"])
def test_a_state_with_a_part_forgotten_ends_elsewhere(
    child, training, trained, forgotten
):
    """Red: without dropout's generator, or Adadelta's means, the bits differ."""
    state, _weights = trained
    more = recipe(epochs=2)
    child.make(more)
    fresh = child.state()
    words = {"generator": ("generator", "seed"), "slots": ("avg", "delta", "optim")}
    replaced = [
        name
        for name, array in state.items()
        if any(word in name for word in words[forgotten])
        and not name.startswith("weights.")
        and array.size > 1
    ]
    assert replaced
    child.load_state(state)
    child.train(training, training, first_epoch=1)
    right = child.weights()

    child.make(more)
    spoilt = dict(state)
    for name in replaced:
        spoilt[name] = fresh[name] if name in fresh else np.zeros_like(state[name])
    child.load_state(spoilt)
    child.train(training, training, first_epoch=1)
    assert not same_bits(child.weights(), right)


def test_warm_up_changes_nothing(child, training, trained):
    _state, weights = trained
    child.make(recipe())
    before = child.state()
    child.warm_up(training)
    after = child.state()
    assert same_bits({name: after[name] for name in before}, before)
    child.train(training, training)
    assert same_bits(child.weights(), weights)


# Evaluation


def test_loss_and_accuracy_are_those_of_the_logits(child, test, trained):
    _state, weights = trained
    child.make(recipe(), weights)
    images, labels = test  # 1,100: more than are evaluated at once
    logits = child.logits(images)
    assert logits.shape == (len(labels), 10)
    loss, accuracy = child.evaluate(test)
    assert loss == pytest.approx(mean_loss(logits, labels), rel=1e-5)
    correct = int((logits.argmax(axis=1) == labels).sum())
    assert round(accuracy * len(labels)) == correct
    assert accuracy == pytest.approx(correct / len(labels), abs=1e-6)
    assert 0.2 < accuracy < 0.999  # neither chance nor all: the check says something

    # Red: a mean of the means of unequal batches, and the labels of the next image.
    halves = [slice(0, 1000), slice(1000, None)]
    uneven = np.mean([mean_loss(logits[part], labels[part]) for part in halves])
    assert loss != pytest.approx(uneven, rel=1e-5)
    assert loss != pytest.approx(mean_loss(logits, np.roll(labels, 1)), rel=1e-5)


def test_dropout_is_off_in_evaluation_and_on_in_training(child, training, test):
    some = test[0][:50], test[1][:50]
    child.make(recipe())
    first, second = child.logits(some[0]), child.logits(some[0])
    assert same_bits({"logits": first}, {"logits": second})
    assert child.evaluate(some) == child.evaluate(some)
    # A rate too small to change a weight: what differs is only what dropout drops.
    still = {"kind": "sgd", "learning_rate": 1e-30}
    losses = {}
    for name, rates in [
        ("on", {"dropout1": 0.25, "dropout2": 0.5}),
        ("off", NO_DROPOUT),
    ]:
        child.make(recipe(optimizer=still, dropout=rates, epochs=2))
        reports, _ = child.train(training, training)
        losses[name] = [report["training_loss"] for report in reports]
        evaluated = child.evaluate(training)[0]
    assert losses["off"] == pytest.approx([evaluated] * 2, rel=1e-5)
    assert losses["on"][0] != pytest.approx(losses["on"][1], rel=1e-3)


def test_a_dropout_layer_has_its_own_rate(child, training):
    """Rates of almost 1 silence a layer: the loss is that of the biases behind it."""
    still = {"kind": "sgd", "learning_rate": 1e-30}
    nearly_all = 1 - 1e-7
    biases = Recipe(initializer={"kernel": "he_uniform", "bias": "fan_in_uniform"})
    weights = start_weights(biases)
    hidden = np.maximum(weights["dense1.bias"], 0)
    behind = {
        "dropout1": hidden @ weights["dense2.kernel"] + weights["dense2.bias"],
        "dropout2": weights["dense2.bias"],
    }
    for layer, logits in behind.items():
        rates = {**NO_DROPOUT, layer: nearly_all}
        child.make(recipe(optimizer=still, dropout=rates), weights)
        (report,), _ = child.train(training, training)
        expected = mean_loss(np.tile(logits, (COUNT, 1)), training[1])
        assert report["training_loss"] == pytest.approx(expected, rel=1e-5)


# Files


def test_saves_and_loads_in_its_own_format(child, test, trained, tmp_path):
    _state, weights = trained
    images, labels = test[0][:50], test[1][:50]
    file = tmp_path / child.make(recipe(), weights)["model_file"]
    expected = child.logits(images)
    child.save(file)
    child.make(recipe(seed=7))
    assert not np.allclose(child.logits(images), expected)
    child.load(file)
    assert same_bits({"logits": child.logits(images)}, {"logits": expected})
    assert same_bits(child.weights(), weights)
    loss, _accuracy = child.evaluate((images, labels))
    assert loss == pytest.approx(mean_loss(expected, labels), rel=1e-5)


@pytest.mark.slow
@needs_both
def test_weights_of_one_framework_give_the_same_answers_in_the_other(
    child_of, training, test
):
    images = test[0][:200]
    for framework in BOTH:
        maker, reader = child_of(framework), child_of(OTHER[framework])
        maker.make(recipe())
        maker.train(training, training)
        weights, expected = maker.weights(), maker.logits(images)
        reader.make(recipe(seed=7), weights)
        came = reader.logits(images)
        assert np.abs(came - expected).max() <= 1e-5 * np.abs(expected).max()
        assert (came.argmax(axis=1) == expected.argmax(axis=1)).all()

        # Red: a plain transpose at the flatten, (h w c) taken for (c h w).
        kernel = weights["dense1.kernel"].reshape(64, 12, 12, 128)
        wrong = kernel.transpose(1, 2, 0, 3).reshape(9216, 128)
        reader.make(recipe(), {**weights, "dense1.kernel": wrong})
        assert np.abs(reader.logits(images) - expected).max() > 0.1


# Training


def test_the_rate_falls_by_the_factor_after_every_epoch(child, training):
    few = training[0][:16], training[1][:16]
    child.make(recipe(epochs=4))
    child.warm_up(few)
    reports, _ = child.train(few, few)
    assert [report["epoch"] for report in reports] == [0, 1, 2, 3]
    rates = [report["learning_rate"] for report in reports]
    assert rates == pytest.approx([0.7**epoch for epoch in range(4)], rel=2e-7)


def test_the_rate_falls_by_steps_where_the_recipe_says_so(child, training):
    decay = {"factor": 0.7, "interval": 60000.0, "unit": "step"}
    child.make(recipe(epochs=3, decay=decay))
    child.warm_up(training)
    reports, _ = child.train(training, training)
    rates = [report["learning_rate"] for report in reports]
    assert rates == pytest.approx(
        [0.7 ** (steps / 60000) for steps in (0, 5, 10)], rel=2e-7
    )
    # Red: one step more or less is seen.
    for other in (4, 6):
        assert rates[1] != pytest.approx(0.7 ** (other / 60000), rel=2e-7)


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_the_rate_rises_and_falls_in_one_cycle(child, training, unit):
    """Five steps an epoch; the rate that each of three epochs begins with."""
    length = 5 if unit == "step" else 1
    decay = {"shape": "linear", "unit": unit, "interval": 3.0 * length}
    first = 1 / length  # of a rise over the first epoch
    for warm_up, expected in ((0.0, [1, 2 / 3, 1 / 3]), (1.0, [first, 1, 1 / 2])):
        given = recipe(epochs=3, decay={**decay, "warm_up": warm_up * length})
        child.make(given)
        child.warm_up(training)
        before = child.state()
        reports, _ = child.train(training, training)
        rates = [report["learning_rate"] for report in reports]
        assert rates == pytest.approx(expected, rel=2e-7)
    # A checkpoint leads on to the same end.
    after = child.weights()
    child.make(given)
    child.load_state(before)
    child.train(training, training)
    assert same_bits(child.weights(), after)


def test_the_order_is_the_recipes(child, training):
    """In order is in order, and shuffled is the order that `draws` gives."""
    images, labels = training
    child.make(recipe(shuffle=False))
    child.train(training, training)
    in_order = child.weights()
    child.make(recipe())
    child.train(training, training)
    shuffled = child.weights()
    assert not same_bits(shuffled, in_order)

    order = draws.permutation(COUNT, recipe().seed, "order", 0)
    child.make(recipe(shuffle=False))
    child.train((images[order], labels[order]), training)
    assert same_bits(child.weights(), shuffled)


def test_trains_on_the_short_last_batch_too(child, training):
    images, labels = training
    ends = {}
    for count in (64, 65, COUNT):
        child.make(recipe(shuffle=False))
        child.train((images[:count], labels[:count]), training)
        ends[count] = child.weights()
    assert not any(same_bits(ends[a], ends[b]) for a, b in pairwise(ends))


def test_reports_means_over_images(child, training, test):
    """With weights that stay, the epoch's means are those of an evaluation."""
    some = test[0][:50], test[1][:50]
    still = {"kind": "sgd", "learning_rate": 1e-30}
    given = recipe(optimizer=still, dropout=NO_DROPOUT, batch_size=5)
    child.make(given)
    (report,), steps = child.train(training, some)
    loss, accuracy = child.evaluate(training)
    assert report["training_loss"] == pytest.approx(loss, rel=1e-5)
    assert report["training_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert (report["monitor_loss"], report["monitor_accuracy"]) == pytest.approx(
        child.evaluate(some), rel=1e-6
    )
    assert report["seconds"] > 0
    assert report["evaluation_seconds"] > 0

    numbers = [step for step, _loss, _accuracy in steps]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] >= 10
    assert numbers[-1] <= math.ceil(COUNT / 5) == 15
    # The means so far, of the first ten batches.
    rows = np.concatenate(draws.batches(given, COUNT, 0)[:10])
    expected = child.evaluate((training[0][rows], training[1][rows]))
    (at_ten,) = [values[1:] for values in steps if values[0] == 10]
    assert at_ten == pytest.approx(list(expected), rel=1e-5)


# Twins


def steps_of(given: Recipe, split: Images, epoch: int = 0, kept: bool = False):
    """An epoch as the twins are given it; `kept`: nothing is dropped."""
    network = given.architecture
    images, labels = split
    return [
        {
            "images": images[rows],
            "labels": labels[rows],
            "masks": all_kept(given, len(rows))
            if kept
            else draws.dropout_masks(network, given, len(rows), epoch, step),
        }
        for step, rows in enumerate(draws.batches(given, len(labels), epoch))
    ]


@pytest.fixture(scope="module")
def few(training) -> Images:
    return training[0][:20], training[1][:20]


def exact(**changes) -> Recipe:
    biases = {"kernel": "glorot_uniform", "bias": "fan_in_uniform"}
    values = {"precision": "float64", "batch_size": 8, "initializer": biases}
    return recipe(**{**values, **changes})


@pytest.fixture(scope="module")
def trace(child: Child, few: Images) -> Arrays:
    """Three steps of the twin, 8 + 8 + 4 images, dropout on."""
    return child.trace(exact(), steps_of(exact(), few))


def weights_of(trace: Arrays, step: int) -> Arrays:
    prefix = f"{step}.weight."
    return {
        name.removeprefix(prefix): array
        for name, array in trace.items()
        if name.startswith(prefix)
    }


def test_a_trace_holds_everything_promised(trace, few):
    network = networks.ARTICLE
    names = {"logits"}
    for step, size in enumerate((8, 8, 4)):
        names |= {f"{step}.loss"}
        for layer in network.layers:
            name = f"{step}.activation.{layer.name}"
            names.add(name)
            assert trace[name].shape == (size, *layer.output_shape)
        for weight in network.weights:
            for kind in ("gradient", "weight"):
                names.add(f"{step}.{kind}.{weight.name}")
                assert trace[f"{step}.{kind}.{weight.name}"].shape == weight.shape
        rows = draws.batches(exact(), 20, 0)[step]
        logits = trace[f"{step}.activation.dense2"]
        expected = mean_loss(logits, few[1][rows])
        assert trace[f"{step}.loss"] == pytest.approx(expected, rel=1e-13)
    assert trace.keys() == names
    assert {array.dtype for array in trace.values()} == {np.dtype(np.float64)}


def test_masks_are_honoured(child, trace, few):
    network, given = networks.ARTICLE, exact()
    sources = {"dropout1": "relu2", "dropout2": "relu3"}
    for step, rows in enumerate(draws.batches(given, 20, 0)):
        masks = draws.dropout_masks(network, given, len(rows), 0, step)
        for name, source in sources.items():
            before = trace[f"{step}.activation.{source}"]
            after = trace[f"{step}.activation.{name}"]
            expected = before * masks[name] / (1 - given.dropout[name])
            np.testing.assert_allclose(after, expected, rtol=1e-15, atol=0)
            assert (before[~masks[name]] > 0).any()  # something was dropped
    # All dropped: nothing passes, and no gradient comes back.
    first = steps_of(given, few)[0]
    masks = {**first["masks"], "dropout1": np.zeros_like(first["masks"]["dropout1"])}
    silent = child.trace(given, [{**first, "masks": masks}])
    assert not silent["0.activation.dropout1"].any()
    assert silent["0.activation.relu2"].any()
    assert not silent["0.gradient.conv1.kernel"].any()
    assert silent["0.gradient.dense1.bias"].any()


def test_gradients_are_those_of_finite_differences(child, few):
    """Central differences of the twin's own loss, dropout on."""
    given, nudge = exact(), 1e-6
    step = steps_of(given, few)[:1]
    start = start_weights(given)
    found = child.trace(given, step, start)

    def loss(name: str, place: int, change: float) -> float:
        moved = start[name].copy()
        moved.flat[place] += change
        answer = child.trace(given, step, {**start, name: moved})
        return float(answer["0.loss"].item())

    for name in ("conv1.kernel", "conv2.bias", "dense1.kernel", "dense2.kernel"):
        gradient = found[f"0.gradient.{name}"]
        place = int(np.abs(gradient).argmax())
        slope = (loss(name, place, nudge) - loss(name, place, -nudge)) / (2 * nudge)
        assert gradient.flat[place] == pytest.approx(slope, rel=1e-6)


def adadelta(
    start: Arrays, gradients: list[Arrays], *, rate: float, rho: float, epsilon: float
) -> list[Arrays]:
    """Zeiler 2012, algorithm 1, with a learning rate: the weights after each step."""
    squares = {name: np.zeros_like(array) for name, array in start.items()}
    changes = {name: np.zeros_like(array) for name, array in start.items()}
    weights, history = start, []
    for gradient in gradients:
        after = {}
        for name, g in gradient.items():
            squares[name] = rho * squares[name] + (1 - rho) * g**2
            size = np.sqrt(changes[name] + epsilon) / np.sqrt(squares[name] + epsilon)
            changes[name] = rho * changes[name] + (1 - rho) * (size * g) ** 2
            after[name] = weights[name] - rate * size * g
        weights = after
        history.append(weights)
    return history


def test_adadelta_is_zeilers(trace):
    start = start_weights(exact())
    gradients = [
        {name: trace[f"{step}.gradient.{name}"] for name in start} for step in range(3)
    ]

    def holds(**constants: float) -> bool:
        ends = adadelta(start, gradients, **constants)
        return all(
            close(weights_of(trace, step), end, 1e-13) for step, end in enumerate(ends)
        )

    assert holds(rate=1.0, rho=0.9, epsilon=1e-6)
    assert not holds(rate=1.0, rho=0.95, epsilon=1e-6)  # Keras' default
    assert not holds(rate=1.0, rho=0.9, epsilon=1e-7)  # Keras' default
    assert not holds(rate=1.0 - 1e-9, rho=0.9, epsilon=1e-6)


def test_sgd_is_weights_minus_rate_times_gradient(child, few):
    given = exact(optimizer=SGD, batch_size=20, dropout=NO_DROPOUT)
    start = start_weights(given)
    found = child.trace(given, steps_of(given, few, kept=True))

    def after(rate: float) -> Arrays:
        return {
            name: start[name] - rate * found[f"0.gradient.{name}"] for name in start
        }

    assert close(weights_of(found, 0), after(0.1), 1e-12)
    assert not close(weights_of(found, 0), after(0.1000001), 1e-12)
    # And so steps the lesson's own loop.
    child.make(given)
    child.train(few, few)
    assert close(child.weights(), after(0.1), 1e-12)


def test_the_code_proven_is_the_code_trained(child, few):
    """The lesson's own loop ends where the twin's steps end, over two epochs."""
    # A constant rate: the steps of a trace all belong to one epoch.
    given = exact(dropout=NO_DROPOUT, epochs=2, decay={"factor": 1.0})
    steps = [
        step for epoch in range(2) for step in steps_of(given, few, epoch, kept=True)
    ]
    assert len(steps) == 6
    found = child.trace(given, steps)
    proven = weights_of(found, 5)
    child.make(given)
    child.warm_up(few)
    child.train(few, few)
    assert close(child.weights(), proven, 1e-12)

    # Red: a step left out, two steps exchanged, dropout on.
    assert not close(weights_of(found, 4), proven, 1e-12)
    exchanged = [steps[1], steps[0], *steps[2:]]
    assert not close(weights_of(child.trace(given, exchanged), 5), proven, 1e-12)
    child.make(given.changed(dropout={**NO_DROPOUT, "dropout2": 0.5}))
    child.train(few, few)
    assert not close(child.weights(), proven, 1e-12)


# The recipe book: other networks, a softmax at the end, other losses

BOOK = [
    "lenet5",
    "keras-example",
    "article-pytorch-notebook",
    pytest.param("article-tensorflow-notebook", marks=pytest.mark.slow),
]


def of_book(name: str, **changes) -> Recipe:
    return load(name).changed(**{"epochs": 2, "batch_size": 16, **changes})


def own_loss(given: Recipe, logits: np.ndarray, labels: np.ndarray) -> float:
    """What the recipe's loss is of a trainer's logits."""
    if (given.output, given.loss) == ("probabilities", "cross_entropy_on_logits"):
        logits = np.exp(logits.astype(np.float64))  # taken for logits once more
    return mean_loss(logits, labels)


@pytest.mark.parametrize("name", BOOK)
def test_a_recipe_of_the_book_trains_is_saved_and_loaded(
    child, training, test, tmp_path, name
):
    given, (images, labels) = of_book(name), (test[0][:50], test[1][:50])
    file = tmp_path / child.make(given)["model_file"]
    start, before = child.weights(), child.evaluate(training)[0]
    reports, _steps = child.train(training, training)
    assert len(reports) == 2
    assert child.evaluate(training)[0] < before
    ended, logits = child.weights(), child.logits(images)
    assert ended.keys() == {weight.name for weight in given.architecture.weights}
    assert not any(np.array_equal(ended[name], start[name]) for name in ended)
    for weight in given.architecture.weights:
        if weight.table:  # what it leaves out stays zero
            assert not ended[weight.name][:, :, ~weight.connected].any()
    loss, accuracy = child.evaluate((images, labels))
    assert loss == pytest.approx(own_loss(given, logits, labels), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean(), abs=1e-6)

    child.save(file)
    child.make(given.changed(seed=7))
    assert not np.allclose(child.logits(images), logits)
    child.load(file)
    assert same_bits({"logits": child.logits(images)}, {"logits": logits})
    assert same_bits(child.weights(), ended)
    assert child.evaluate((images, labels)) == (loss, accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOOK[:3])
def test_a_recipe_of_the_book_goes_on_bit_for_bit(child, training, name):
    given = of_book(name)
    child.make(given)
    child.train(training, training)
    straight = child.state()
    child.make(given.changed(epochs=1))
    child.train(training, training)
    state = child.state()
    assert not same_bits(state, straight)
    child.make(given, start_weights(given.changed(seed=7)))
    child.load_state(state)
    child.train(training, training, first_epoch=1)
    assert same_bits(child.state(), straight)


@pytest.mark.parametrize("name", ["keras-example", "lenet5"])
def test_logits_of_a_softmax_are_logarithms_of_its_probabilities(child, test, name):
    images = test[0][:50]
    ends = of_book(name, output="probabilities")
    child.make(ends)
    probabilities = np.exp(child.logits(images))
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-5
    plain = ends.changed(output="logits", loss="cross_entropy_on_logits")
    child.make(plain)
    logits = child.logits(images)
    assert np.abs(probabilities - softmax(logits)).max() < 1e-6
    # Red: the logits themselves are no such logarithms, and a second softmax is seen.
    assert np.abs(np.exp(logits).sum(axis=1) - 1).max() > 0.01
    assert np.abs(softmax(probabilities) - softmax(logits)).max() > 1e-3


def test_logits_of_a_softmax_are_of_what_leaves_the_network(child, few):
    """Without dropout, a training step's probabilities are those of an evaluation."""
    given = of_book("lenet5", output="probabilities", precision="float64")
    found = child.trace(given, steps_of(given, few)[:1])
    np.testing.assert_allclose(
        np.exp(found["logits"]), found["0.activation.softmax"], rtol=1e-13
    )


@pytest.mark.parametrize("name", ["pytorch", "tensorflow"])
def test_losses_of_the_notebooks_in_closed_form(child, few, name):
    """A softmax in the network, and PyTorch's notebook has another in the loss."""
    given = of_book(
        f"article-{name}-notebook",
        precision="float64",
        epochs=1,
        batch_size=20,
        dropout=NO_DROPOUT,
        optimizer=SGD,
        decay={"factor": 1.0},
    )
    steps = steps_of(given, few, kept=True)
    assert len(steps) == 1
    labels, found = steps[0]["labels"], child.trace(given, steps)
    logits, hidden = found["0.activation.dense2"], found["0.activation.dropout2"]
    p, right = softmax(logits), np.eye(10)[labels]
    np.testing.assert_allclose(found["0.activation.softmax"], p, rtol=1e-13)
    to_p = (softmax(p) - right) / len(labels)
    once = mean_loss(logits, labels), (p - right) / len(labels)
    twice = mean_loss(p, labels), p * (to_p - (to_p * p).sum(axis=1, keepdims=True))
    loss, gradient = twice if name == "pytorch" else once
    other = once if name == "pytorch" else twice

    def holds(loss: float, gradient: np.ndarray) -> bool:
        return found["0.loss"] == pytest.approx(loss, rel=1e-13) and close(
            {x: found[f"0.gradient.dense2.{x}"] for x in ("kernel", "bias")},
            {"kernel": hidden.T @ gradient, "bias": gradient.sum(axis=0)},
            1e-12,
        )

    assert holds(loss, gradient)
    assert not holds(*other)
    # And so the lesson's own loop, which compiles network and loss together.
    child.make(given)
    assert child.evaluate(few)[0] == pytest.approx(loss, rel=1e-6)
    (report,), _steps = child.train(few, few)
    assert report["training_loss"] == pytest.approx(loss, rel=1e-6)
    start, bias = start_weights(given)["dense2.bias"], child.weights()["dense2.bias"]
    moved = start - bias
    np.testing.assert_allclose(moved, 0.1 * gradient.sum(axis=0), rtol=1e-9)
    assert not np.allclose(moved, 0.1 * other[1].sum(axis=0), rtol=1e-3)


UNDONE = """
import warnings
import keras
import numpy as np
from paripassu.frameworks.tensorflow.recipes import SoftmaxTwice

network = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
logits, labels = np.array([[2.0, 0.0]], "float32"), np.array([0])
for name, kind in (
    ("keras", keras.losses.SparseCategoricalCrossentropy),
    ("ours", SoftmaxTwice),
):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        loss = float(kind(from_logits=True)(labels, network(logits)))
    texts = [str(x.message) for x in said if x.category is UserWarning]
    answer[name] = {"loss": loss, "said": texts}
"""


@pytest.mark.slow
@skip_without("tensorflow")
def test_keras_does_not_undo_the_second_softmax(child_of):
    found, _ = child_of("tensorflow").ask("run", code=UNDONE)
    p = 1 / (1 + math.exp(-2))
    twice = math.log1p(math.exp(1 - 2 * p))
    assert found["ours"]["loss"] == pytest.approx(twice, rel=1e-6)
    assert found["ours"]["said"] == []
    # Red: Keras's own loss does, and says so.
    once = math.log1p(math.exp(-2))
    assert found["keras"]["loss"] == pytest.approx(once, rel=1e-6)
    assert len(found["keras"]["said"]) == 1
    assert "from_logits=True" in found["keras"]["said"][0]


def test_a_warning_of_a_framework_is_an_error_here(child):
    with pytest.raises(AssertionError, match="UserWarning: on purpose"):
        child.ask("warn", text="on purpose")


def test_a_fault_in_a_verb_is_told_with_its_trace(child):
    """Red: a failing child does not pass for an answer."""
    with pytest.raises(AssertionError, match=r"Traceback[^$]*nowhere"):
        child.load(Path("/nowhere/model.keras"))


# bfloat16


def low_bits(array: np.ndarray) -> np.ndarray:
    """The 16 bits of a float32 that a bfloat16 does not have."""
    return array.view(np.uint32) & 0xFFFF


def test_bfloat16_is_for_computing_and_not_for_keeping(child, training):
    exact = recipe(seed=3)
    weights = start_weights(exact)
    child.make(exact, weights)
    right = child.logits(training[0])
    child.make(exact.changed(precision="bfloat16"), weights)
    came = child.logits(training[0])
    assert came.dtype == np.float32
    # The last layer gives bfloat16; in float32 hardly any logit has such bits.
    assert not low_bits(came).any()
    assert low_bits(right).any()
    # Eight bits of each number, and sums of many: a hundredth of the largest.
    error = np.abs(came - right).max() / np.abs(right).max()
    assert 1e-4 < error < 2e-2
    loss, _accuracy = child.evaluate(tuple(x[:100] for x in training))
    assert np.float32(loss) == loss  # of a single batch, in float32
    child.train(training, training)
    kept = child.weights()
    assert all(array.dtype == np.float32 for array in kept.values())
    assert low_bits(kept["conv2.kernel"]).any()
    child.make(exact)  # and what comes next is exact again
    assert low_bits(child.logits(training[0])).any()


@pytest.mark.slow
@needs_both
def test_in_bfloat16_the_frameworks_round_alike(child_of, training):
    # Where a processor has no bfloat16 of its own, frameworks round at other places:
    # what the number type costs one of them is the measure, not a fixed bound.
    exact, *answers = (
        logits_of(child_of(framework), precision, training[0])
        for framework, precision in (
            (BOTH[0], "float32"),
            *((framework, "bfloat16") for framework in BOTH),
        )
    )
    left, right = answers
    cost = np.abs(left - exact).max()
    assert 2**-10 * np.abs(exact).max() < cost < 2**-4 * np.abs(exact).max()
    assert np.abs(left - right).max() <= 2 * cost


def logits_of(maker: Child, precision: str, images: Any) -> Any:
    given = recipe(precision=precision)
    maker.make(given, start_weights(given))
    return maker.logits(images)
