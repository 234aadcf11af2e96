"""The notebooks of a class: what they say is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import needs_both, skip_without

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))


@pytest.mark.parametrize("name", ["loops", "seven"])
def test_the_notebooks_of_a_class_are_fresh_and_were_run(name):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupytext")
    import class_notebook

    kept = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    made = class_notebook.made(name)
    assert [(x.cell_type, x.source) for x in kept.cells] == [
        (x.cell_type, x.source) for x in made.cells
    ], f"Type: python tools/class_notebook.py {name}"
    nbformat.validate(kept)
    code = [x for x in kept.cells if x.cell_type == "code"]
    assert [x.execution_count for x in code[1:]] == list(range(1, len(code)))


def test_each_of_the_seven_differences_shows_its_effect():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "class" / "seven.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for name in ("shuffle", "loss", "initializer", "optimizer", "decay"):
        assert name in said.partition("begins with")[0]
    assert "again so: True" in said
    assert "again so: False" in said
    assert "the floor: 1.4612" in said
    assert re.search(r"20 +0\.0000 .* 1\.4612 [-+]0\.0000\n", said)
    assert "1.00 0.70 0.49" in said
    assert "dense2.bias    0.0786 in PyTorch's, 0.0000" in said


@needs_both
@skip_without("jax")
@pytest.mark.slow
def test_both_forms_give_the_same_losses_in_every_framework(tmp_path):
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "class"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    known = json.loads((ROOT / "results" / "class-loops.json").read_text())
    assert [(x["one"], x["other"]) for x in found["apart"]] == [
        (x["one"], x["other"]) for x in known["apart"]
    ]
    assert len(found["apart"]) == 5
    for row in found["apart"]:
        one, other = (x.partition(" ")[0] for x in (row["one"], row["other"]))
        assert row["first"] <= 1e-6, row
        # Frameworks part by rounding in float32, forms of one do not.
        assert row["largest"] <= (1e-5 if one == other else 0.1), row
