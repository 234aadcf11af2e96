"""PyTorch's dropout by bytes: chances, scale, gradient, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import environment, skip_without

DRAWN = """
import json
import torch
from torch import nn
from paripassu.frameworks.pytorch import book

rates = [0.25, 0.5, 1 / 256, 255 / 256, 0.1, 0.0, 1.0]
network = nn.Sequential(*(nn.Dropout(rate) for rate in rates))
book.drop_by_bytes(network)
torch.manual_seed(1)
found = {"ours": [r for r, x in zip(rates, network) if "forward" in vars(x)]}

layer = network[0]
x = torch.full((250, 64, 8, 8), 3.0).to(memory_format=torch.channels_last)
x.requires_grad_()
y = layer(x)
y.backward(torch.full_like(y, 5.0))
found["values"] = sorted(set(y.flatten().tolist()))
found["gradients"] = sorted(set(x.grad.flatten().tolist()))
found["same"] = torch.equal(y == 0, x.grad == 0)
found["layout"] = y.is_contiguous(memory_format=torch.channels_last)
found["shares"] = {
    rate: (layer(torch.ones(8000, 80)).view(-1, 8) == 0).double().mean(0).tolist()
    for rate, layer in zip(rates[:4], network)
}
zero = (layer(torch.ones(640_000)) == 0).double() - 0.25
found["neighbours"] = [
    float((zero[:-lag] * zero[lag:]).mean() / zero.var()) for lag in range(1, 17)
]
torch.manual_seed(7)
first = layer(torch.ones(1001))
torch.manual_seed(7)
again, next_one = layer(torch.ones(1001)), layer(torch.ones(1001))
found["seeded"] = torch.equal(first, again) and not torch.equal(first, next_one)
found["dtypes"] = [str(layer(torch.ones(9, dtype=getattr(torch, x))).dtype)
                   for x in ("float64", "bfloat16")]
network.eval()
found["evaluating"] = torch.equal(network[:5](x), x)
found["files"] = repr(layer)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def drawn():
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRAWN],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@skip_without("pytorch")
def test_only_rates_that_a_byte_can_have(drawn):
    assert drawn["ours"] == [0.25, 0.5, 1 / 256, 255 / 256]
    assert drawn["files"] == "Dropout(p=0.25, inplace=False)"


@skip_without("pytorch")
def test_each_place_in_a_word_has_the_chance(drawn):
    """Red: a 63-bit draw, whose last byte is never above 127."""
    for rate, shares in drawn["shares"].items():
        chance = float(rate)
        error = np.sqrt(chance * (1 - chance) / 80_000)
        assert np.abs(np.array(shares) - chance).max() < 5 * error, rate


@skip_without("pytorch")
def test_numbers_are_dropped_independently(drawn):
    assert np.abs(drawn["neighbours"]).max() < 5 / np.sqrt(640_000)


@skip_without("pytorch")
def test_what_is_kept_is_scaled_and_has_the_gradient(drawn):
    assert drawn["values"] == [0, 4]
    assert drawn["gradients"] == pytest.approx([0, 20 / 3])
    assert drawn["same"]
    assert drawn["layout"]


@skip_without("pytorch")
def test_seed_number_type_and_evaluation_are_as_in_pytorch(drawn):
    assert drawn["seeded"]
    assert drawn["dtypes"] == ["torch.float64", "torch.bfloat16"]
    assert drawn["evaluating"]
