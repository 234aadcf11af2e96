"""The spelling of PyTorch's layers in Keras and JAX: each row computes what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import needs_both, skip_without

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "results" / "layers.json").read_text())["layers"]
# Of the table of PyTorch's layers, what no row spells, and why.
WITHOUT = {
    "NonDynamicallyQuantizableLinear": "a part of an attention",
    "LSTMCell": "one step of its layer",
    "GRUCell": "one step of its layer",
    "RNNCell": "one step of its layer",
    "_CircularPadNd": "Keras has none",
    "_ReplicationPadNd": "Keras has none",
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "layers"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@skip_without("pytorch")
def test_every_layer_that_check_knows_is_spelled():
    from torch import nn

    from paripassu.sides.torch_layers import LAYERS

    spelled = [getattr(nn, re.match(r"nn\.(\w+)", x["pytorch"])[1]) for x in ROWS]
    missing = {
        known.__name__
        for known in LAYERS
        if not any(issubclass(x, known) for x in spelled)
    }
    assert missing == set(WITHOUT)


@needs_both
@skip_without("jax")
@pytest.mark.slow
def test_all_rows_compute_the_same_and_need_their_settings(tmp_path, subtests):
    out = tmp_path / "found.json"
    result = run("--out", out)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    found = {x["pytorch"]: x for x in json.loads(out.read_text())["layers"]}
    assert list(found) == [x["pytorch"] for x in ROWS]
    for row in ROWS:
        with subtests.test(row["pytorch"]):
            made = found[row["pytorch"]]
            given = {k: v for k, v in row.items() if k not in ("apart", "without")}
            assert given.items() <= made.items()
            for side, settings in row["without"].items():
                assert made["apart"][side] <= row.get("rest", 1e-12)
                assert made["without"][side].keys() == settings.keys()
                for setting, apart in made["without"][side].items():
                    known = settings[setting]  # None: another shape
                    assert apart == (known and pytest.approx(known, rel=0.06))


NORM = """
[[layer]]
topic = "Normalisation"
pytorch = "nn.LayerNorm(4)"
input = [3, 6, 4]
channels = "last"
keras = "layers.LayerNormalization(%s)"
keras_weights = 'layer.set_weights([w["weight"], w["bias"]])'
"""


@needs_both
@skip_without("jax")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("", r"nn.LayerNorm\(4\): keras is .* apart"),
        ("epsilon=1e-5, axis=-1", "keras is equal without axis=-1"),
    ],
)
def test_a_row_that_is_wrong_is_refused(settings, told, tmp_path):
    rows = tmp_path / "rows.toml"
    rows.write_text(NORM % settings)
    result = run("--rows", rows, "--out", tmp_path / "out.json")
    assert result.returncode == 1
    assert re.search(told, result.stderr)
    assert not (tmp_path / "out.json").exists()
