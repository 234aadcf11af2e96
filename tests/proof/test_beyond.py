"""What trains is what is proven: changes that first steps never show turn it red.

Each is a line that an engineer might add to a lesson or a trainer. `tools/mutate.py`
makes hundreds more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import EACH, environment

from paripassu.frameworks import registry

TOOL = Path(__file__).parents[2] / "tools" / "mutate.py"
Change = tuple[str, str, str, str]  # what is found, the module, its text, another
STEP = "        optimizer.step()\n"
PYTORCH: dict[str, Change] = {
    "relu-6": ("rung 1", "lesson", "nn.ReLU()\n        self.conv2", "nn.ReLU6()\n"
               "        self.conv2"),
    "clipping": ("rung 2", "lesson", STEP, "        nn.utils.clip_grad_norm_("
                 "network.parameters(), 100.0)\n" + STEP),
    "constraint": ("rung 3", "lesson", STEP, STEP + "        [p.data.clamp_(-3, 3) "
                   "for p in network.parameters()]\n"),
    "other-bytes": ("rung 0", "lesson", "self.levels[self.pixels[rows].int()]",
                    "self.levels[self.pixels[rows].int()].half().to(self.levels)"),
    "after-the-epoch": ("rung 5", "trainer", "        return float(total_loss) / seen",
                        "        with torch.no_grad():\n            "
                        "self.network.conv1.bias.mul_(1 + 1e-6)\n"
                        "        return float(total_loss) / seen"),
}  # fmt: skip
TENSORFLOW: dict[str, Change] = {
    "relu-6": ("rung 1", "lesson", 'ReLU(name="relu3")', 'ReLU(6, name="relu3")'),
    "regularizer": ("rung 2", "lesson", 'Dense(128, name="dense1")',
                    'Dense(128, kernel_regularizer="l2", name="dense1")'),
    "constraint": ("rung 3", "lesson", 'Dense(128, name="dense1")', "Dense(128, "
                   'kernel_constraint=keras.constraints.MaxNorm(9), name="dense1")'),
    "clipping": ("rung 3", "lesson", "rho, epsilon)\n\n\ndef make_schedule",
                 "rho, epsilon, global_clipnorm=100.0)\n\n\ndef make_schedule"),
    "averaged": ("rung 5", "lesson", "rho, epsilon)\n\n\ndef make_schedule",
                 "rho, epsilon, use_ema=True)\n\n\ndef make_schedule"),
    "other-bytes": ("rung 0", "lesson", "(to_arrays(split[rows])",
                    "((lambda x, y: (x.astype('float16').astype(x.dtype), y))"
                    "(*to_arrays(split[rows]))"),
    "weighted": ("rung 5", "lesson", "        verbose=0,\n    )\n\n\ndef evaluate",
                 "        class_weight={n: 1 + n / 1e5 for n in range(10)},\n"
                 "        verbose=0,\n    )\n\n\ndef evaluate"),
}  # fmt: skip
CHANGES = {"pytorch": PYTORCH, "tensorflow": TENSORFLOW}


@pytest.mark.parametrize("framework", [x for x in EACH if x.values[0] in CHANGES])
def test_what_the_first_steps_never_show_is_found(framework, tmp_path):
    asked, expected = [{"sources": {}}], [None]
    for rung, module, old, new in CHANGES[framework].values():
        text = registry.find(framework).text(f"{module}.py")
        assert text
        assert text.count(old) == 1, old
        asked.append({"sources": {module: text.replace(old, new)}})
        expected.append(rung)
    lines = [json.dumps({**x, "recipes": [["article", {}]]}) for x in asked]
    done = subprocess.run(
        [
            *(sys.executable, str(TOOL), "--work", "--framework", framework),
            *("--folder", str(tmp_path)),
        ],
        input="\n".join(lines) + "\n",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(x)["red"] for x in done.stdout.splitlines()]
    assert [x and x.partition(",")[0] for x in found] == expected, (
        found,
        done.stderr[-2000:],
    )
