"""Networks of a recipe's own layers in every framework: proven, found, kept, moved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import EACH, FIRST_FAST, type_here
from own_networks import ZOO

from paripassu.core import draws
from paripassu.core.layer_tables import RESERVED
from paripassu.core.recipe import Recipe, load, validate
from paripassu.frameworks.faults import FAULTS
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.processes.conditions import Conditions
from paripassu.proof.faults import check_faults
from paripassu.proof.verify import verify

TRAINING, TEST = 61, 40  # a short last batch of 5
OWN = {name for name, x in FAULTS.items() if x.of is not None}


def own(name: str, **more: Any) -> Recipe:
    """One of the zoo's, for data of some dozen images."""
    return validate(
        {
            **ZOO[name],
            "batch_size": 8,
            "epochs": 2,
            "normalization": {"mean": 0.5, "std": 0.25},
            "optimizer": {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9},
            "initializer": {"kernel": "he_uniform", "bias": "fan_in_uniform"},
            **more,
        }
    )


def images_of(recipe: Recipe, count: int) -> np.ndarray[Any, Any]:
    """Random blots: neighbours are alike, as in pictures."""
    shape = (count, *recipe.architecture.input_shape)
    noise = draws.uniform(shape, count, "pixels of a test")
    near = noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2) + np.roll(noise, 2, 1)
    return (near * 64).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blots")

    def data_of(name: str) -> Path:
        path = folder / f"{name}.npz"
        recipe = own(name)
        classes = recipe.architecture.num_classes
        if not path.exists():
            np.savez(
                path,
                x_train=images_of(recipe, TRAINING),
                y_train=np.arange(TRAINING) % classes,
                x_test=images_of(recipe, TEST),
                y_test=np.arange(TEST) % classes,
            )
        return path

    return data_of


# One fast test of what is central; the others take their time.
PROVEN = [
    pytest.param(*each.values, name, marks=[*each.marks, *more])
    for each in FIRST_FAST
    for name in ZOO
    for more in ([] if name == "residual" else [pytest.mark.slow],)
]


@pytest.mark.parametrize(("framework", "name"), PROVEN)
def test_a_network_of_layers_is_proven_equal(framework, name, data_of):
    """Every rung: layers, gradients, statistics, a rehearsal, a trajectory."""
    conditions = Conditions(data=data_of(name))
    proof = verify((framework,), own(name), conditions=conditions, steps=6)
    assert proof.holds, proof.divergence or proof.message
    compared = {row.quantity for row in proof.rows}
    network = own(name).architecture
    for layer in network.layers:
        assert f"evaluation {layer.name}" in compared
    for weight in network.weights:
        assert f"weight {weight.name}" in compared
        assert (f"gradient {weight.name}" in compared) == weight.learned


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_mistakes_in_layers_are_found_at_their_place(framework, data_of):
    # Of what compiles for seconds, those that only such layers have.
    faults = tuple(FAULTS if FRAMEWORKS[framework].by_default else OWN)
    tried, explained = set(), set()
    for name in ZOO:
        recipe = own(name)
        results = check_faults(
            (framework,),
            recipe,
            conditions=Conditions(data=data_of(name)),
            faults=faults,
        )
        for result in results:
            assert result.located, result
            tried.add(result.fault)
            if result.divergence and result.divergence.cause:
                explained.add(result.fault)
    assert tried >= OWN
    unexplained = OWN - explained
    assert unexplained <= {"groups", "elu-alpha"}, unexplained


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(
    framework, data_of, child_of
):
    """Running statistics are part of the state."""
    from paripassu.core import datasets

    recipe = own("residual")
    data = datasets.load(data_of("residual"))
    prepared = datasets.prepare(data, mean=0.5, std=0.25)
    images = prepared.training.images, prepared.training.labels
    child = child_of(framework)
    child.make(recipe)
    child.train(images, images)
    straight = child.state()
    child.make(recipe.changed(epochs=1))
    child.train(images, images)
    kept = child.state()
    child.make(recipe)
    child.load_state(kept)
    child.train(images, images, first_epoch=1)
    again = child.state()
    assert straight.keys() == again.keys()
    assert all(np.array_equal(x, again[name]) for name, x in straight.items())
    # Red: without the statistics it ends elsewhere.
    spoilt = {
        name: np.zeros_like(x) if name.endswith("mean") else x
        for name, x in kept.items()
    }
    child.make(recipe)
    child.load_state(spoilt)
    child.train(images, images, first_epoch=1)
    elsewhere = child.state()
    assert any(not np.array_equal(x, elsewhere[name]) for name, x in straight.items())


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
@pytest.mark.parametrize("name", ZOO)
def test_it_trains_and_goes_to_every_format_and_back(
    framework, name, data_of, tmp_path
):
    path, run = tmp_path / "own.toml", tmp_path / "run"
    path.write_text(own(name).to_toml())
    words = ("train", "-f", framework, "--recipe", path, "--data", data_of(name))
    done = type_here(*words, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    again = type_here("evaluate", run, "--data", data_of(name), "--json")
    assert again.returncode == 0, again.stderr
    first = json.loads((run / "run.json").read_text())
    if name == "residual":  # whose statistics have moved, and are used
        assert first["weights_sha256"]
    formats = {"safetensors": ".safetensors", "onnx": ".onnx"}
    formats |= {x: FRAMEWORKS[x].suffixes[0] for x in FRAMEWORKS}
    source = run
    for number, (target, suffix) in enumerate(formats.items()):
        out = tmp_path / f"{number}{suffix}"
        done = type_here("convert", source, "--to", target, "--out", out, "--json")
        assert done.returncode == 0, (target, done.stderr)
        found = json.loads(done.stdout)
        assert found["holds"]
        assert found["weights_sha256"] == first["weights_sha256"]
        source = out  # each is made of the one before


@pytest.mark.parametrize("framework", EACH)
def test_no_layer_may_have_a_name_that_a_module_has(framework):
    """Else it would hide what the framework's own classes need."""
    code = {
        "pytorch": "from torch import nn; found = dir(nn.Module())",
        "tensorflow": "found = []",  # Keras keeps layers in a list
        "jax": "from flax import nnx; found = dir(nnx.Module)",
    }[framework]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*found)"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {x for x in done.stdout.split() if x.islower() and x[0] != "_"}
    assert names <= RESERVED, sorted(names - RESERVED)


def test_data_of_another_shape_are_refused(data_of, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(own("residual").to_toml())
    data, out = data_of("branches"), tmp_path / "run"
    words = ("train", "-f", next(iter(FRAMEWORKS)), "--recipe", path, "--data", data)
    done = type_here(*words, "--out", out)
    assert done.returncode == 2
    for word in ("13", "11", "16"):
        assert word in done.stderr
    assert not (out / "run.json").exists()


def test_a_framework_without_such_networks_says_so(monkeypatch):
    from paripassu.core.errors import UserError

    name = next(iter(FRAMEWORKS))
    framework = FRAMEWORKS[name]
    framework.check(own("residual"))
    has = type(framework).has
    monkeypatch.setattr(
        type(framework), "has", lambda self, x: x != "layers" and has(self, x)
    )
    with pytest.raises(UserError, match="no network 'layers'"):
        framework.check(own("residual"))
    assert load("article")
