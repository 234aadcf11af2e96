"""State dicts as people have them: wrapped, and in checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from paripassu.core.errors import UserError

torch = pytest.importorskip("torch")
nn = torch.nn


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def wrapped(prefix):
    return {prefix + name: x for name, x in network().state_dict().items()}


def read(tmp_path, content):
    from paripassu.frameworks.pytorch import files

    torch.save(content, tmp_path / "saved.pt")
    return files.read(tmp_path / "saved.pt")[0]


NAMES = ["0.kernel", "0.bias", "2.kernel", "2.bias"]


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_what_wraps_a_network_is_taken_off_its_names(tmp_path, prefix):
    content = wrapped(prefix)
    arrays = read(tmp_path, content)
    assert list(arrays) == NAMES
    assert np.array_equal(arrays["2.bias"], content[f"{prefix}2.bias"].numpy())


def test_a_prefix_of_some_names_is_theirs(tmp_path):
    content = network().state_dict() | {"module.0.weight": torch.ones(1)}
    assert "module.0.kernel" in read(tmp_path, content)


def test_the_one_state_dict_of_a_checkpoint_counts(tmp_path):
    net = nn.DataParallel(network())
    optimizer = torch.optim.Adam(net.parameters())
    content = {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": {},
        "class_weights": torch.ones(2),
    }
    assert list(read(tmp_path, content)) == NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": wrapped(""), "ema": wrapped("")}, "several of them, model, ema"),
        ({"epoch": 3}, "holds dict, and a state_dict was expected"),
        ([1, 2], "holds list, and"),
    ],
)
def test_what_is_no_state_dict_or_several_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)
