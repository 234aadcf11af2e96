"""The table of speed-ups: its ratios, and that each change can be made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import EACH, environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "speedups.py"
sys.path.insert(0, str(SCRIPT.parent))

import speedups  # noqa: E402


def seen(seconds: float) -> dict[str, float]:
    return {"step_seconds": seconds, "warm_up_seconds": 1.0, "other_load": 0.01}


def test_ratios_are_taken_within_a_round():
    rounds = [
        {"pytorch: as it is": seen(0.02), "pytorch: slower": seen(0.03)},
        {"pytorch: as it is": seen(0.04), "pytorch: slower": seen(0.04)},
        {"pytorch: as it is": seen(0.01), "pytorch: slower": seen(0.02)},
    ]
    found = speedups.judge(rounds, 640, "float32")
    slower = found["ratios"]["pytorch: slower"]
    assert (slower["low"], slower["median"], slower["high"]) == (1.0, 1.5, 2.0)
    assert slower["step_seconds"] == 0.03
    assert found["ratios"]["pytorch: as it is"]["median"] == 1.0
    assert found["busiest"] == 0.01


def test_an_unknown_variant_is_refused():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--variants", "magic"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such variants: magic" in done.stderr


CHANGED = {
    "pytorch": ["own dropout", "relu before pool", "image by image", "relu in place"],
    "tensorflow": [
        "own dropout",
        "own optimizer",
        "step by step",
        "relu before pool",
        "no prefetch",
        "eager",
        "one thread between",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", [x for x in EACH if x.values[0] in CHANGED])
def test_a_changed_training_runs(framework):
    for variant in CHANGED[framework]:
        assert variant in speedups.VARIANTS[framework]
        done = subprocess.run(
            [
                *(sys.executable, SCRIPT, "--child", framework, variant),
                *("--images", "128", "--precision", "float32"),
            ],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["step_seconds"] > 0
