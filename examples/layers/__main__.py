"""A PyTorch layer's spelling in Keras and in Flax NNX, each row executed.

Every row of `layers.toml` is run in float64: the layer of PyTorch with random weights,
those of Keras and Flax with the same, and their outputs compared. Then each setting is
left out, to see by how much results part without it; one that is not needed is an
error. `python examples/layers` writes `results/layers.json`, from which
`docs/layers.md` is made.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx
from keras import layers, ops
from torch import nn

from paripassu.core import files
from paripassu.core.layer_spec import relative_error
from paripassu.sides import keras_layers, torch_layers

jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
HERE = Path(__file__).parent
OUT = HERE.parents[1] / "results" / "layers.json"
ROUNDING = 1e-12
MODULES = {
    "jax": jax,
    "jnp": jnp,
    "keras": keras,
    "layers": layers,
    "nn": nn,
    "nnx": nnx,
    "np": np,
    "ops": ops,
}
Array = np.ndarray
Row = dict[str, Any]


class WrongRowError(Exception):
    """A row that does not compute what it says, or says more than it needs to."""


def main() -> None:
    """Execute all rows and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rows", type=Path, default=HERE / "layers.toml")
    given = parser.parse_args()
    rows: list[Row] = []
    wrong = []
    for row in tomllib.loads(given.rows.read_text())["layer"]:
        try:
            rows.append(executed(row))
        except WrongRowError as error:
            wrong.append(f"{row['pytorch']}: {error}")
            continue
        print(f"{row['pytorch']:60}", rows[-1]["apart"], flush=True)
    if wrong:
        sys.exit("\n".join(wrong))
    names = ("torch", "keras", "tensorflow-cpu", "jax", "flax")
    record = {
        "command": "python examples/layers",
        "versions": {name: version(name) for name in names},
        "sides": {"pytorch": "PyTorch", "keras": "Keras", "jax": "JAX"},
        "layers": rows,
    }
    files.write_text(given.out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def executed(row: Row) -> Row:
    """The row with what was measured.

    Returns:
        It, with `apart`: of each framework, how far its output is from PyTorch's over
        the largest value; and `without`: of each framework and setting, the same
        without the setting, None for another shape.

    Raises:
        WrongRowError: outputs differ, or a setting changes nothing.
    """
    random = np.random.Generator(np.random.Philox(0))
    x = 3 * random.standard_normal(row["input"])
    if high := row.get("high"):
        x = random.integers(0, high, row["input"])
    torch.manual_seed(0)
    layer = eval(row["pytorch"], dict(MODULES)).double().eval()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                drawn = random.standard_normal(tuple(tensor.shape))
                kept = np.abs(drawn) + 0.5 if name == "running_var" else drawn
                tensor.copy_(torch.from_numpy(np.asarray(kept)))
    weights = {key: value.numpy().copy() for key, value in layer.state_dict().items()}
    kinds = [
        torch_layers.describe(layer).kind,
        keras_layers.describe(eval(row["keras"].strip(), dict(MODULES))).kind,
    ]
    if kinds[1] not in (kinds[0], "other"):  # other: of several layers
        raise WrongRowError(f"'check' takes the two for {' and '.join(kinds)}")
    wanted = [*by_torch(row, layer, x)]
    apart, without = {}, {}
    for side in ("keras", "jax"):
        if side not in row:
            continue
        rest = row.get("rest", ROUNDING)
        apart[side] = compare(wanted, [*by_other(row, side, row[side], weights, x)])
        if not apart[side] <= rest:
            raise WrongRowError(f"{side} is {apart[side]:.1e} apart")
        without[side] = needed(row, side, weights, x, wanted)
    rounded = {side: float(f"{value:.0e}") for side, value in apart.items()}
    return row | {"apart": rounded, "without": without}


def by_torch(row: Row, layer: nn.Module, x: Array) -> Iterator[Array]:
    """What PyTorch's layer gives, channels last; and what a training step leaves."""
    first = row.get("channels") != "last"
    given = np.moveaxis(x, -1, 1) if first and x.ndim > 2 else x
    names = {"layer": layer, "x": torch.from_numpy(np.ascontiguousarray(given))}
    with torch.no_grad():
        made = eval(row.get("pytorch_call", "layer(x)"), MODULES | names).numpy()
        yield np.moveaxis(made, 1, -1) if first and made.ndim > 2 else made
        if "after" in row:
            layer.train()(names["x"])
            yield eval(row["after"][0], names).numpy()


def by_other(
    row: Row, side: str, text: str, weights: dict[str, Array], x: Array
) -> Iterator[Array]:
    """The same of Keras's or Flax's layer, made by `text`, with PyTorch's weights."""
    names = MODULES | {"w": weights, "rngs": nnx.Rngs(0)}
    layer = eval(text.strip() if side == "keras" else in_float64(text), names)
    names |= {"layer": layer, "x": ops.convert_to_tensor(x)}
    if side == "jax":
        names["x"] = jnp.asarray(x)
        if isinstance(layer, nnx.Module):
            layer.eval()
    call = row.get(f"{side}_call", "layer(x)")
    eval(call, names)  # makes Keras's weights
    exec(row.get(f"{side}_weights", ""), names)
    yield np.asarray(eval(call, names))
    if "after" in row:
        if side == "keras":
            layer(names["x"], training=True)
        else:
            layer.train()
            layer(names["x"])
        yield np.asarray(eval(row["after"][1 if side == "keras" else 2], names))


def in_float64(text: str) -> str:
    """Flax's layers, which hold float32 unless they are told."""
    tree = ast.parse(text.strip(), mode="eval")
    for call in [x for x in ast.walk(tree) if isinstance(x, ast.Call)]:
        made = eval(ast.unparse(call.func), dict(MODULES)) if _named(call) else None
        if not inspect.isclass(made):
            continue
        known = inspect.signature(made.__init__).parameters
        for name in (
            "param_dtype",
            "dtype",
        ):  # of what is computed: None is the input's
            if name in known and known[name].default is not None:
                value = ast.parse("jnp.float64", mode="eval").body
                call.keywords.append(ast.keyword(name, value))
    return ast.unparse(tree)


def _named(call: ast.Call) -> bool:
    """Whether what is called is something of a module, such as `nnx.Conv`."""
    func = call.func
    return isinstance(func, ast.Attribute) and (
        isinstance(func.value, ast.Name) and func.value.id in MODULES
    )


def compare(left: list[Array], right: list[Array]) -> float:
    """The largest difference over the largest value; infinite for other shapes."""
    return max(relative_error(x, y) for x, y in zip(left, right, strict=True))


def needed(
    row: Row, side: str, weights: dict[str, Array], x: Array, wanted: list[Array]
) -> dict[str, float | None]:
    """Of each setting, how far results are apart without it.

    Settings without which the layer cannot be made, or does not take the weights, are
    left out: nobody gets them wrong in silence.
    """
    text = row[side].strip()
    found: dict[str, float | None] = {}
    count = sum(isinstance(x, ast.keyword) for x in ast.walk(ast.parse(text)))
    for number in range(count):
        tree = ast.parse(text, mode="eval")
        setting = [x for x in ast.walk(tree) if isinstance(x, ast.keyword)][number]
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and setting in call.keywords:
                call.keywords.remove(setting)
        if setting.arg == "rngs":
            continue
        try:
            made = [*by_other(row, side, ast.unparse(tree), weights, x)]
        except Exception:  # whatever the frameworks raise
            continue
        apart = compare(wanted, made)
        if apart <= row.get("rest", ROUNDING):
            raise WrongRowError(f"{side} is equal without {ast.unparse(setting)}")
        known = None if apart == float("inf") else float(f"{apart:.1e}")
        found[ast.get_source_segment(text, setting) or ""] = known
    return found


if __name__ == "__main__":
    main()
