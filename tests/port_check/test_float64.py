"""What only some kernels, or only some inputs, do in float64."""

from __future__ import annotations

import pytest

import paripassu

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = "2,6"


class ExactSoftplus(nn.Module):
    """Without the threshold, above which PyTorch's own gives its input."""

    def forward(self, x):
        return torch.logaddexp(x, torch.zeros_like(x))


class NoFloat64(nn.Module):
    """As a framework that lacks a kernel."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise NotImplementedError("no kernel for double")
        return 2 * x


class Unfinished(torch.autograd.Function):
    """A function whose gradient nobody has written."""

    @staticmethod
    def forward(_context, x):
        return 2 * x


class NoGradient(nn.Module):
    """A layer of it."""

    def forward(self, x):
        return Unfinished.apply(x)


def net(layer):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 3))


def test_what_approximates_at_large_inputs_only_is_no_fault():
    found = paripassu.check(net(nn.Softplus()), net(ExactSoftplus()), SHAPE)
    assert found.equal, paripassu.explain(found)


def test_a_threshold_that_is_far_too_low_is_a_fault():
    found = paripassu.check(net(nn.Softplus(threshold=5)), net(ExactSoftplus()), SHAPE)
    assert found.verdict == "differs"


def test_a_model_that_fails_in_float64_is_judged_in_float32():
    found = paripassu.check(net(NoFloat64()), net(NoFloat64()), SHAPE)
    assert found.equal
    (note,) = (x for x in found.notes if "no float64" in x)
    assert "it raised NotImplementedError: no kernel for double" in note


def test_a_model_without_a_gradient_is_undecided():
    found = paripassu.check(net(NoGradient()), net(NoGradient()), SHAPE)
    assert found.verdict == "undecided"
    assert "the left model raised" in found.not_compared[0]
