"""What a run records of its answers: cross-entropy, whatever the recipe's loss was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers import BOTH, OTHER, needs_both
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paripassu.core import files, record
from paripassu.core.recipe import load
from paripassu.processes.conditions import Conditions
from paripassu.training.evaluate import evaluate
from paripassu.training.train import train
from paripassu.worker.run import cross_entropy

Rows = list[list[float]]

numbers = st.floats(-500, 500)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits of some images, and a label for each."""
    size = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    logits = draw(arrays(np.float64, size, elements=numbers))
    labels = draw(arrays(np.int64, size[0], elements=st.integers(0, size[1] - 1)))
    return logits, labels


def by_hand(rows: Rows, labels: list[int]) -> float:
    """Mean of log(sum of exp(z[j] - z[right])), with exact sums."""
    terms = [
        math.log(math.fsum(math.exp(min(z - row[right], 700)) for z in row))
        for row, right in zip(rows, labels, strict=True)
    ]
    return math.fsum(terms) / len(terms)


def test_uniform_answers_cost_the_logarithm_of_their_number():
    for level in (0.0, -3.0, 1000.0):
        logits = np.full((4, 10), level)
        found = cross_entropy(logits, np.array([0, 3, 9, 9]))
        assert found == pytest.approx(math.log(10), rel=1e-15)
        assert isinstance(found, float)


def test_two_classes_in_closed_form():
    logits = np.array([[2.0, 1.0], [0.0, 3.0]], np.float32)
    right, wrong = math.log1p(math.exp(-1)), 3 + math.log1p(math.exp(-3))
    found = cross_entropy(logits, np.array([0, 0]))
    assert found == pytest.approx((right + wrong) / 2, rel=1e-15)
    # Red: the labels of the other class.
    assert cross_entropy(logits, np.array([1, 1])) != pytest.approx(found, rel=1e-3)


def test_logarithms_of_probabilities_cost_minus_themselves():
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    found = cross_entropy(np.log(p), np.array([1, 0]))
    assert found == pytest.approx((2 + 3) * math.log(2) / 2, rel=1e-14)


def test_answers_in_float32_are_computed_in_float64():
    """In float32 the sum of these would be rounded to 1, and the loss to 0."""
    logits = np.array([[0.0, -20.0]], np.float32)
    assert np.float32(1) + np.exp(np.float32(-20)) == 1
    expected = math.log1p(math.exp(-20))
    assert cross_entropy(logits, np.array([0])) == pytest.approx(expected, rel=1e-6)


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, 0.0, -1e4]], np.float32)
    found = [cross_entropy(logits, np.array([k])) for k in range(3)]
    assert found == [0, 1e4, 2e4]


@given(answers())
def test_any_answers_against_exact_sums(given_answers):
    logits, labels = given_answers
    found = cross_entropy(logits, labels)
    expected = by_hand(logits.tolist(), labels.tolist())
    if np.ptp(logits) < 700:  # beyond, the sum by hand is cut
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert found >= 0


@given(answers(), st.floats(-100, 100))
def test_a_constant_for_all_classes_changes_nothing(given_answers, constant):
    logits, labels = given_answers
    found = cross_entropy(logits + constant, labels)
    assert found == pytest.approx(cross_entropy(logits, labels), rel=1e-10, abs=1e-10)


def test_nan_is_not_hidden():
    assert math.isnan(cross_entropy(np.array([[0.0, np.nan]]), np.array([0])))


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
    single = by_hand(rows, labels)
    assert result.test_cross_entropy == pytest.approx(single, rel=1e-10)
    if name == "article-pytorch-notebook":  # its loss takes these for logits
        probabilities = [[math.exp(x) for x in row] for row in rows]
        twice = by_hand(probabilities, labels)
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
