"""The short proof: it holds, and each fault fails it at the quantity it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    BOTH,
    MODULES,
    Arrays,
    Child,
    break_module,
    needs_both,
    start_weights,
)

from paripassu.analysis.parity import compare_traces
from paripassu.analysis.schema import Proof
from paripassu.core import datasets, draws, networks
from paripassu.core.recipe import Recipe
from paripassu.train import Conditions
from paripassu.verify import STEPS, short_proof

RECIPE = Recipe(
    name="verify",
    batch_size=8,
    precision="float64",
    initializer={"kernel": "glorot_uniform", "bias": "fan_in_uniform"},
)


def prove(tiny: Path, names: tuple[str, ...] = BOTH) -> Proof:
    recipe = RECIPE.changed(precision="float32")  # the proof itself takes float64
    return short_proof(names, recipe, conditions=Conditions(data=tiny, threads=1))


def failing(proof: Proof) -> list[str]:
    return [row.quantity for row in proof.rows if not row.holds]


@needs_both
def test_the_proof_holds_for_every_quantity(tiny):
    proof = prove(tiny)
    assert proof.holds
    assert proof.precision == "float64"
    assert proof.message is None
    network = networks.ARTICLE
    assert {row.quantity for row in proof.rows} == {
        "logits",
        "loss",
        *(f"activation {layer.name}" for layer in network.layers),
        *(f"gradient {weight.name}" for weight in network.weights),
        *(f"weight {weight.name}" for weight in network.weights),
    }
    for row in proof.rows:
        assert (row.left, row.right) == BOTH
        assert 0 <= row.difference <= row.bound <= 1e-10
    # Two libraries round differently: all zeros would be one thing compared to itself.
    assert any(row.difference > 0 for row in proof.rows)


@needs_both
def test_a_fault_in_a_framework_fails_the_proof(tiny, tmp_path, monkeypatch):
    """End to end: in the last step one gradient is off by a hundred-millionth."""
    (tmp_path / "sitecustomize.py").write_text(
        "from paripassu.frameworks import Framework\n"
        "trace = Framework.trace\n"
        "def faulty(self, recipe, **options):\n"
        "    arrays = trace(self, recipe, **options)\n"
        "    if self.name == 'tensorflow':\n"
        f"        arrays['{STEPS - 1}.gradient.conv2.kernel'] *= 1 + 1e-8\n"
        "    return arrays\n"
        "Framework.trace = faulty\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    proof = prove(tiny)
    assert not proof.holds
    assert failing(proof) == ["gradient conv2.kernel"]


@pytest.mark.parametrize("broken", BOTH)
@needs_both
def test_a_framework_that_crashes_fails_the_proof(tiny, tmp_path, monkeypatch, broken):
    folder = break_module(tmp_path, MODULES[broken])
    monkeypatch.setenv("PYTHONPATH", str(folder))
    names = (broken, *(name for name in BOTH if name != broken))
    proof = prove(tiny, names)
    assert not proof.holds
    assert proof.rows == []
    assert proof.message
    assert f"the {broken} process ended with code 1" in proof.message
    assert proof.message.endswith("ImportError: broken on purpose")


# Faults in one of the two traces


@pytest.fixture(scope="module")
def step(mnist) -> dict:
    prepared = datasets.prepare(mnist, mean=0.1307, std=0.3081)
    rows = draws.batches(RECIPE, 100, 0)[0]
    return {
        "images": prepared.training.images[rows],
        "labels": prepared.training.labels[rows],
        "masks": draws.dropout_masks(networks.ARTICLE, RECIPE, len(rows), 0, 0),
    }


@pytest.fixture(scope="module")
def right(child_of: Callable[[str], Child], step: dict) -> Arrays:
    return child_of("pytorch").trace(RECIPE, [step])


def other_optimizer(**constants):
    def fault(recipe, step, weights):
        optimizer = {**recipe.optimizer.model_dump(), **constants}
        return recipe.changed(optimizer=optimizer), step, weights

    return fault


def other_weights(name, change):
    def fault(recipe, step, weights):
        array = np.ascontiguousarray(change(weights[name]))
        return recipe, step, {**weights, name: array}

    return fault


def shifted_labels(recipe, step, weights):
    return recipe, {**step, "labels": np.roll(step["labels"], 1)}, weights


def other_mask(recipe, step, weights):
    masks = {**step["masks"], "dropout2": ~step["masks"]["dropout2"]}
    return recipe, {**step, "masks": masks}, weights


def other_rate(recipe, step, weights):
    dropout = {**recipe.dropout, "dropout1": 0.25 + 1e-9}
    return recipe.changed(dropout=dropout), step, weights


def other_images(recipe, step, weights):
    return recipe, {**step, "images": step["images"] + np.float32(1e-6)}, weights


def less_precision(recipe, step, weights):
    return recipe.changed(precision="float32"), step, weights


def for_pytorch(kernel):
    """Rows in the order (c h w): what a plain transpose at the flatten makes."""
    return kernel.reshape(12, 12, 64, 128).transpose(2, 0, 1, 3).reshape(9216, 128)


# Fault, the first quantities that it must be found in, and quantities that must hold.
FAULTS = {
    "epsilon of Keras": (
        other_optimizer(epsilon=1e-7),
        {"weight"},
        {"logits", "loss", "activation", "gradient"},
    ),
    "rho of Keras": (
        other_optimizer(rho=0.95),
        {"weight"},
        {"logits", "loss", "activation", "gradient"},
    ),
    "rate": (
        other_optimizer(learning_rate=1 + 1e-6),
        {"weight"},
        {"logits", "loss", "activation", "gradient"},
    ),
    "labels": (shifted_labels, {"loss", "gradient"}, {"logits", "activation"}),
    "mask": (
        other_mask,
        {"activation dropout2", "activation dense2", "loss"},
        {"logits", "activation relu3", "activation dropout1"},
    ),
    "dropout rate": (
        other_rate,
        {"activation dropout1", "activation flatten", "loss"},
        {"logits", "activation relu2"},
    ),
    "height and width exchanged": (
        other_weights("conv1.kernel", lambda w: w.transpose(1, 0, 2, 3)),
        {"logits", "activation conv1"},
        set(),
    ),
    "flatten transposed": (
        other_weights("dense1.kernel", for_pytorch),
        {"logits", "activation dense1"},
        {"activation flatten"},
    ),
    "a bias a little off": (
        other_weights("dense2.bias", lambda b: b + 1e-9),
        {"logits", "activation dense2", "weight dense2.bias"},
        {"activation dropout2", "weight dense1.kernel"},
    ),
    "images a little off": (other_images, {"logits", "activation conv1"}, set()),
    "float32": (
        less_precision,
        {"logits", "loss", "activation conv1", "gradient", "weight conv1.kernel"},
        set(),
    ),
}


def faults() -> list:
    return [pytest.param(*fault, id=name) for name, fault in FAULTS.items()]


def whole(words: set[str], quantities: set[str]) -> set[str]:
    """The quantities that `words` mean: one, or all of a kind."""
    return {q for q in quantities if q in words or q.split()[0] in words}


@needs_both
def test_two_traces_of_the_same_agree(child_of, step, right):
    other = child_of("tensorflow").trace(RECIPE, [step])
    assert all(row.holds for row in compare_traces(*BOTH, right, other))


@needs_both
@pytest.mark.parametrize(("fault", "found_in", "untouched"), faults())
def test_a_fault_is_found_where_it_is(
    child_of, step, right, fault, found_in, untouched
):
    recipe, other_step, weights = fault(RECIPE, step, start_weights(RECIPE))
    other = child_of("tensorflow").trace(recipe, [other_step], weights)
    rows = compare_traces(*BOTH, right, other)
    bad = {row.quantity for row in rows if not row.holds}
    every = {row.quantity for row in rows}
    for word in found_in:
        assert whole({word}, bad), f"{word} was not found among {sorted(bad)}"
    assert not whole(untouched, every) & bad
