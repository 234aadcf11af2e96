"""Models of public libraries, after their weights have been copied."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import paripassu

FAMILIES = Path(__file__).parents[2] / "benchmarks" / "families"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries'
@pytest.mark.parametrize("name", ["bloom", "gemma", "opt", "roberta"])
def test_what_remains_of_a_text_model(name, monkeypatch):
    """Fused heads, rounded gradients, positions from a mask, a table too much."""
    for library in ("torch", "transformers", "keras_hub"):
        pytest.importorskip(library)
    monkeypatch.syspath_prepend(FAMILIES)
    every = importlib.import_module("text").FAMILIES
    (family,) = (x for x in every if x["name"] == name)
    models = family["left"], family["right"]
    found = paripassu.check(*models, family["inputs"], copy="left-to-right")
    left_over = sorted({x.key for x in found.causes})
    assert (found.verdict if found.equal else left_over) == family["truth"]
