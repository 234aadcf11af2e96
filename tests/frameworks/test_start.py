"""What a process of ours does not import before its first step."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers import environment, skip_without

CODE = """
import json, sys
from paripassu.frameworks.pytorch import _eager
if {kept}:
    _eager.without_compiler()
import torch
x = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adadelta([x])
x.sum().backward()
optimizer.step()
optimizer.zero_grad()
found = {{"sympy": "sympy" in sys.modules, "x": x.tolist()}}
from torch._dynamo import config
import torch._dynamo.utils
found["real"] = hasattr(torch._dynamo, "optimize") and "sympy" in sys.modules
torch.optim.SGD([x], 0.1).step()
print(json.dumps(found))
"""


def found(kept: bool) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE.format(kept=kept)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@skip_without("pytorch")
def test_a_step_of_pytorch_imports_no_compiler_and_who_asks_for_it_gets_it():
    ours, plain = found(kept=True), found(kept=False)
    assert plain["sympy"]  # red: PyTorch's own way; else this file is not needed
    assert not ours["sympy"]
    assert ours["x"] == plain["x"]
    assert ours["real"]
