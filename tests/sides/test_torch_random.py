"""PyTorch's draws are replaced without its compiler."""

from __future__ import annotations

import subprocess
import sys

from helpers import skip_without

CODE = """
import sys, numpy as np, torch
from paripassu.sides import torch_module
from paripassu.sides.contract import Blind
model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
probe = torch_module.open_model(model)
probe.run({"input": np.ones((2, 3), np.float32)}, Blind(), training=True)
assert probe.draws, "the dropout was not seen"
print("torch._dynamo" in sys.modules)
"""


@skip_without("pytorch")
def test_the_compiler_is_not_imported():
    """It takes seconds, half of a small check."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
