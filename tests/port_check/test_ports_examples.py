"""The ports in `examples/ports`: right ones are right, and every fault does something.

Every 13th fault is tried; with `EACH=1`, all.

What a fault does is measured against the right port, both in Keras: in evaluation, in
training, in gradients, or in what BatchNorm keeps of a batch. In float64, so that what
is measured is no rounding. Both frameworks are in a process of their own, this file's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TESTS, environment, needs_both

from paripassu.core.layer_spec import relative_error
from paripassu.port_check import targets
from paripassu.port_check.input_pairs import ways

PORTS = sorted((Path(__file__).parents[2] / "examples" / "ports").glob("*.py"))
CAUSES = """
    epsilon momentum padding strides dilation kernel-transposed kernel-axes
    kernel-flipped flatten-order bias-missing bias-not-copied bias-summed
    weights-not-copied statistics-not-copied weights-exchanged activation-missing
    activation-extra activation-kind negative-slope alpha gelu-form pool-kind
    pool-padding concat-order axis layer-order layer-missing residual-missing
    upsample-mode crop input-scale gate-order recurrent-activation reset-after direction
    last-step state-kind attention-scale attention-heads mask frozen stop-gradient
    embedding-scale index-offset position
"""
CHANGED = 1e-6
MOVING = ("moving_mean", "moving_variance")  # of BatchNorm
Measures = dict[str, Any]


def load(path: Path) -> Any:
    """A port's file, by itself: its folder is not on the path of imports."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def norms(arrays: list[Any]) -> np.ndarray:
    """Each array's norm, sorted: in whatever order a model has its layers."""
    return np.sort([np.linalg.norm(np.ravel(x)) for x in arrays])


def measure(model: Any, inputs: list[Any]) -> Measures:
    """Outputs, and what a step of training does, with dropout off."""
    import tensorflow as tf

    for layer in model._flatten_layers():
        if type(layer).__name__.endswith("Dropout"):
            layer.rate = 0.0
    given = [tf.constant(x) for x in inputs]
    floats = [x for x in given if x.dtype.is_floating]
    given = given[0] if len(given) == 1 else given
    evaluation = np.asarray(model(given, training=False))
    with tf.GradientTape() as tape:
        tape.watch(floats)
        outputs = model(given, training=True)
        weights = np.random.default_rng(1).normal(size=outputs.shape)
        loss = tf.reduce_sum(outputs * weights.astype(outputs.dtype.as_numpy_dtype))
    trained = [x.value for x in model.trainable_variables]
    gradients = [
        np.zeros(1) if x is None else np.asarray(tf.convert_to_tensor(x))
        for x in tape.gradient(loss, floats + trained)
    ]
    kept = [x for x in model.non_trainable_variables if x.path.split("/")[-1] in MOVING]
    return {
        "evaluation": evaluation,
        "training": np.asarray(outputs),
        "gradients": norms(gradients),
        "statistics": norms([np.asarray(x) for x in kept]),
    }


def change(one: Measures, other: Measures) -> dict[str, float]:
    """How much each of the measures differs; infinite where shapes do."""
    return {key: relative_error(array, other[key]) for key, array in one.items()}


def examine(path: Path) -> dict[str, Any]:
    """What is found of a file."""
    import keras
    import torch

    module = load(path)
    wanted = [targets.parse_input(module.INPUT, 0)]
    drawn = targets.make_inputs(wanted, [])
    found: dict[str, Any] = {"right": {}, "faults": {}}
    for dtype in ("float32", "float64"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        source = module.pytorch().to(getattr(torch, dtype)).eval()
        cast = {
            name: x.astype(dtype) if x.dtype == np.float32 else x
            for name, x in drawn.items()
        }
        with torch.no_grad():
            expected = source(*map(torch.from_numpy, cast.values())).numpy()
        if expected.ndim == 4:
            expected = np.moveaxis(expected, 1, -1)
        inputs = [next(ways(x, None, (1, -1))) for x in cast.values()]
        right = measure(module.keras_port(), inputs)
        found["right"][dtype] = relative_error(expected, right["evaluation"])
    found["again"] = change(right, measure(module.keras_port(), inputs))
    names = {x for x, _ in source.named_modules()}
    names |= {x for x, _ in source.named_parameters()}
    found["names"] = sorted(names)
    for fault in module.FAULTS[:: int(os.environ.get("EACH", "13"))]:
        port = module.keras_port(**fault["mistakes"])
        found["faults"][fault["name"]] = change(right, measure(port, inputs))
    found["all"] = [
        {x: fault[x] for x in ("name", "cause", "places")} for fault in module.FAULTS
    ]
    return found


@needs_both
@pytest.mark.slow
def test_right_ports_are_right_and_every_fault_changes_something(subtests):
    result = subprocess.run(
        [sys.executable, __file__],
        env={**environment(TESTS), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    measured = json.loads(result.stdout.splitlines()[-1])
    assert set(measured) == {path.stem for path in PORTS}
    for name, found in measured.items():
        with subtests.test(name):
            check(found)


def check(found: dict[str, Any]) -> None:
    assert found["right"]["float32"] < 1e-5
    assert found["right"]["float64"] < 1e-6  # a few of TensorFlow's round to float32
    assert max(found["again"].values()) < 1e-12  # what is measured is no chance

    faults = found["faults"]
    count = len(found["all"])
    assert len({x["name"] for x in found["all"]}) == count >= 6
    assert {x["cause"] for x in found["all"]} <= set(CAUSES.split())
    without = [x for x, y in faults.items() if max(y.values()) <= CHANGED]
    assert not without, "these faults change nothing"
    for fault in found["all"]:
        assert 1 <= len(fault["places"]) <= 3, fault["name"]
        dotted = {x for x in fault["places"] if "." in x}
        assert dotted <= set(found["names"]), fault["name"]


def test_every_port_says_its_input():
    """Without the frameworks: each file is there with what its reader looks for."""
    assert len(PORTS) >= 6
    for path in PORTS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""'), path.name
        for line in ("\nINPUT = ", "\ndef pytorch()", "\ndef keras_port(", "\nFAULTS"):
            assert line in text, path.name


if __name__ == "__main__":
    print(json.dumps({path.stem: examine(path) for path in PORTS}))
