"""Networks of several seeds together, and the spread between seeds, in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from make_records import make_comparison

from paripassu.analysis import comparison as compared
from paripassu.analysis.ensembles import ensemble_accuracy, seed_spread
from paripassu.analysis.reading import Run
from paripassu.analysis.text import together


def run(probabilities, labels):
    """A run with these answers."""
    shares, known = np.array(probabilities, float), np.array(labels)
    nothing = SimpleNamespace()
    answers = shares.argmax(1)
    return Run("x", nothing, nothing, known, answers, answers == known, shares)


def test_the_sure_one_wins_in_the_mean():
    labels = [0, 1]
    sure, unsure = run([[0.9, 0.1], [0.4, 0.6]], labels), run([[0.4, 0.6]] * 2, labels)
    found = ensemble_accuracy([sure, unsure, unsure])
    assert (found.mean, found.n, found.method) == (1.0, 3, "wilson")
    weaker = run([[0.6, 0.4], [0.4, 0.6]], labels)
    assert ensemble_accuracy([weaker, unsure, unsure]).mean == 0.5
    assert ensemble_accuracy([sure]) is None


def test_independent_errors_are_as_far_apart_as_expected():
    """Drawn with known chances: measured and expected are the true deviation."""
    draw = np.random.default_rng(0)
    chances, labels = draw.random(4000) ** 4, np.zeros(4000, int)
    runs = [
        run(np.stack([wrong < 1, wrong], axis=1), labels)
        for wrong in (draw.random((400, 4000)) < chances).astype(int)
    ]
    found = seed_spread(runs)
    true = np.sqrt((chances * (1 - chances)).sum()) / 4000
    assert found.expected == pytest.approx(true, rel=0.01)
    assert found.measured == pytest.approx(true, rel=0.1)
    assert seed_spread(runs[:1]) is None


def test_seeds_that_fail_together_part_by_more_than_expected():
    labels = np.zeros(100, int)
    good, bad = (np.tile([share, 1 - share], (100, 1)) for share in (0.9, 0.1))
    found = seed_spread([run(x, labels) for x in (good, good, bad, bad)])
    assert found.measured == pytest.approx(np.std([1, 1, 0, 0], ddof=1))
    assert found.measured > 5 * found.expected


def test_a_comparison_says_it_of_each_framework_and_of_all(tmp_path):
    frameworks, seeds = ("pytorch", "tensorflow"), (42, 43, 44)
    found = compared.summarise(make_comparison(tmp_path / "x", frameworks, seeds))
    assert {x.ensemble_accuracy.n for x in found.frameworks.values()} == {3}
    assert found.ensemble_accuracy.n == 6
    torch, keras, all_of_them = together(found)
    assert torch.startswith("PyTorch: 3 networks that answer together ")
    assert keras.startswith("TensorFlow: 3 networks")
    assert all_of_them.startswith("All 6 networks together: ")
    single = compared.summarise(make_comparison(tmp_path / "y", frameworks[:1]))
    assert together(single) == []
    assert single.ensemble_accuracy is None


def test_two_frameworks_with_a_seed_each_are_told_together(tmp_path):
    found = compared.summarise(make_comparison(tmp_path))
    assert [x[:24] for x in together(found)] == ["All 2 networks together:"]
    other = found.model_copy(update={"ensemble_accuracy": None})
    assert together(other) == []
