"""What a run records of its answers: cross-entropy, whatever the recipe's loss was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers import BOTH, OTHER, cross_entropy_by_hand, needs_both

from paripassu.core import files, record
from paripassu.core.recipe import load
from paripassu.processes.conditions import Conditions
from paripassu.training.evaluate import evaluate
from paripassu.training.train import train

# Whole runs of the recipe book

SETTINGS = {
    "lenet5": ["epochs=2"],
    "keras-example": ["epochs=2", "batch_size=16", "validation_size=20"],
    "article-pytorch-notebook": ["epochs=1", "batch_size=16"],
    "article-tensorflow-notebook": ["epochs=1", "batch_size=16"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "framework"), list(zip(SETTINGS, BOTH * 2, strict=True))
)
@needs_both
def test_a_run_of_the_recipe_book(name, framework, tiny: Path, tmp_path: Path):
    """Its losses, and the same from its own file and in the other framework."""
    recipe, out = load(name, SETTINGS[name]), tmp_path / "run"
    conditions = Conditions(data=tiny)
    found = train(framework, recipe, out=out, conditions=conditions)
    assert found.status == "finished"
    assert found.monitor == ("validation" if recipe.validation_size else "test")
    assert found.recipe == recipe.model_dump()
    result = found.result
    assert result
    answers, _metadata = files.read_tensors(out / record.PREDICTIONS_FILE)
    rows, labels = answers["logits"].astype(float).tolist(), answers["labels"].tolist()
    single = cross_entropy_by_hand(rows, labels)
    assert result.test_cross_entropy == pytest.approx(single, rel=1e-10)
    if name == "article-pytorch-notebook":  # its loss takes these for logits
        probabilities = [[math.exp(x) for x in row] for row in rows]
        twice = cross_entropy_by_hand(probabilities, labels)
        assert result.test_loss == pytest.approx(twice, rel=1e-5)
        assert result.test_loss != pytest.approx(single, rel=1e-3)
    else:
        assert result.test_loss == pytest.approx(single, rel=1e-5)
    for reader in (framework, OTHER[framework]):
        again = evaluate(out, conditions=conditions, framework=reader)
        assert again["test_loss"] == pytest.approx(result.test_loss, rel=1e-5)
        assert again["test_accuracy"] == pytest.approx(result.test_accuracy, abs=1e-6)
    weights, _metadata = files.read_tensors(out / record.WEIGHTS_FILE)
    assert weights.keys() == {x.name for x in recipe.architecture.weights}
    # The record is read back as it was, and one of before this field too.
    assert record.load_record(out) == found
    path = out / record.RUN_FILE
    table = json.loads(path.read_text())
    del table["result"]["test_cross_entropy"]
    path.write_text(json.dumps(table))
    older = record.load_record(out).result
    assert older
    assert older.test_cross_entropy is None
    assert older.test_loss == result.test_loss
