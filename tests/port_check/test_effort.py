"""A check does nothing twice, and nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import paripassu
from paripassu.core.layer_spec import relative_error

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)


class Counted(nn.Module):
    """Counts how often it is called."""

    calls = 0

    def __init__(self, slope=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.slope = nn.Linear(8, 6), nn.Linear(6, 3), slope

    def forward(self, rows):
        Counted.calls += 1
        return self.two(torch.tanh(self.one(rows)) * self.slope)


def count(left, right):
    Counted.calls = 0
    return paripassu.check(left, right, ROWS), Counted.calls


def test_equal_models_run_as_often_as_there_are_questions():
    found, calls = count(Counted, Counted)
    assert found.equal
    assert not found.not_asked
    # Each: twice to find the layers and once to align them, four times for draws, six
    # further inputs, larger weights, two in training mode; in float32 and float64 as
    # they are and by layers, and the left one with its inputs moved.
    assert calls <= 40


def test_models_that_differ_are_run_layer_by_layer_in_float32_too():
    found, calls = count(Counted, lambda: Counted(1.001))
    assert not found.equal
    assert calls > 20


def test_what_is_put_back_is_what_was_there():
    """Larger weights are tried on the models that were given."""
    left, right = Counted(), Counted()
    before = {k: x.clone() for k, x in left.state_dict().items()}
    assert paripassu.check(left, right, ROWS, copy="left-to-right").equal
    for model in (left, right):
        for name, x in model.state_dict().items():
            assert torch.equal(x, before[name])


def test_gradients_that_cancel_are_told_by_their_share_of_the_largest():
    """A bias before a softmax of all has no gradient but rounding."""

    class Cancels(nn.Module):
        def __init__(self, fast):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.fast = nn.Linear(8, 6), nn.Linear(6, 3), fast

        def forward(self, rows):
            made = self.one(rows)
            scores = made.sum(1, keepdim=True) if self.fast else 0.0
            if not self.fast:
                for n in range(6):
                    scores = scores + made[:, n : n + 1]
            return self.two(torch.softmax(scores.expand(-1, 6) + made * 3, 1))

    found = paripassu.check(lambda: Cancels(True), lambda: Cancels(False), ROWS)
    check = next(x for x in found.checks if x.name.startswith("gradients"))
    assert check.state == "holds"
    assert "at most 0.0e+00" not in check.detail


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.inf], [1.5, np.inf], 0.5),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([0.0, 0.0], [0.0, 1e-300], np.inf),
        ([4.0, 0.0], [3.0, 0.0], 0.25),
        ([-1e308], [1e308], np.inf),
    ],
)
def test_errors_of_values_that_are_not_finite(left, right, expected):
    assert relative_error(np.array(left), np.array(right)) == expected


def test_a_check_of_models_imports_no_more_than_it_needs():
    code = (
        "import sys, paripassu.port_check.examiner\n"
        "print([x for x in sys.modules if x.startswith(('scipy', 'torch', 'keras'))"
        " or x == 'paripassu.port_check.optimizer'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
