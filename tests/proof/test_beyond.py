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
from short_proof import STAGES

from paripassu.frameworks import registry

TOOL = Path(__file__).parents[2] / "tools" / "mutate.py"
# The stage of the short proof that finds it, the rung, the module, its text, another.
Change = tuple[str, int, str, str, str]
STEP = "        optimizer.step()\n"
PYTORCH: dict[str, Change] = {
    "relu-6": ("starts", 1, "lesson", "nn.ReLU()\n        self.conv2",
               "nn.ReLU6()\n        self.conv2"),
    "clipping": ("starts", 2, "lesson", STEP, "        nn.utils.clip_grad_norm_("
                 "network.parameters(), 100.0)\n" + STEP),
    "constraint": ("starts", 3, "lesson", STEP, STEP + "        [p.data.clamp_(-3, 3) "
                   "for p in network.parameters()]\n"),
    "other-bytes": ("rehearsal", 0, "lesson",
                    "self.levels[self.pixels[rows] + self.tables]",
                    "self.levels.half().to(self.levels)"
                    "[self.pixels[rows] + self.tables]"),
    "after-the-epoch": ("rehearsal", 5, "trainer",
                        "        return float(total_loss) / seen",
                        "        with torch.no_grad():\n            "
                        "self.network.conv1.bias.mul_(1 + 1e-6)\n"
                        "        return float(total_loss) / seen"),
}  # fmt: skip
OPTIMIZER = "rho, epsilon)\n\n\ndef make_schedule"
TENSORFLOW: dict[str, Change] = {
    "regularizer": ("first", 2, "lesson", 'Dense(128, name="dense1")',
                    'Dense(128, kernel_regularizer="l2", name="dense1")'),
    "relu-6": ("starts", 1, "lesson", 'ReLU(name="relu3")', 'ReLU(6, name="relu3")'),
    "constraint": ("starts", 3, "lesson", 'Dense(128, name="dense1")', "Dense(128, "
                   'kernel_constraint=keras.constraints.MaxNorm(9), name="dense1")'),
    "clipping": ("starts", 3, "lesson", OPTIMIZER,
                 OPTIMIZER.replace(")", ", global_clipnorm=100.0)", 1)),
    "averaged": ("rehearsal", 5, "lesson", OPTIMIZER,
                 OPTIMIZER.replace(")", ", use_ema=True)", 1)),
    "other-bytes": ("rehearsal", 0, "lesson", "(to_arrays(split[rows])",
                    "((lambda x, y: (x.astype('float16').astype(x.dtype), y))"
                    "(*to_arrays(split[rows]))"),
    "weighted": ("rehearsal", 5, "lesson", "        verbose=0,\n    )\n\n\ndef eval",
                 "        class_weight={n: 1 + n / 1e5 for n in range(10)},\n"
                 "        verbose=0,\n    )\n\n\ndef eval"),
}  # fmt: skip
UPDATE = "    optimizer.update(network, gradients)\n"
JAX: dict[str, Change] = {
    "relu-6": ("starts", 1, "lesson", "self.relu3 = nnx.relu\n",
               "self.relu3 = nnx.relu6\n"),
    "clipping": ("starts", 2, "lesson", UPDATE, "    gradients, _ = optax."
                 "clip_by_global_norm(100.0).update(gradients, None)\n" + UPDATE),
    "constraint": ("starts", 3, "lesson", UPDATE, UPDATE + "    nnx.update(network, "
                   "jax.tree.map(lambda w: w.clip(-3, 3), "
                   "nnx.state(network, nnx.Param)))\n"),
    "other-bytes": ("rehearsal", 0, "lesson", "return levels.ravel()[",
                    "return levels.ravel().astype('float16').astype(levels.dtype)["),
}  # fmt: skip
CHANGES = {"pytorch": PYTORCH, "tensorflow": TENSORFLOW, "jax": JAX}


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_what_the_first_steps_never_show_is_found(framework, tmp_path):
    changes = CHANGES[framework].values()
    asked = [({}, sorted({x[0] for x in changes}, key=list(STAGES).index))]
    for stage, _rung, module, old, new in changes:
        text = registry.find(framework).text(f"{module}.py")
        assert text
        assert text.count(old) == 1, old
        asked.append(({module: text.replace(old, new)}, [stage]))
    lines = [
        json.dumps({"sources": x, "recipes": [["article", {}]], "stages": stages})
        for x, stages in asked
    ]
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
    expected = [None, *(f"rung {x[1]}" for x in changes)]
    assert [x and x.partition(",")[0] for x in found] == expected, (
        found,
        done.stderr[-2000:],
    )
