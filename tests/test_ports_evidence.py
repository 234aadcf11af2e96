"""How many ports that are right pass, and how many faults are caught and named.

Every file in `examples/ports` has a right port and faulty ones, with the places and the
causes that a reader would accept. Every third fault is tried; with `EACH=1`, all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PORTS = sorted((Path(__file__).parents[1] / "examples" / "ports").glob("*.py"))
JUDGE = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import torch
from paripassu.port import session, targets
from paripassu.port.sides import Wishes

module = targets._module(sys.argv[1], "left")
for fault in [None, *module.FAULTS[:: int(sys.argv[2])]]:
    mistakes = fault["mistakes"] if fault else {}
    def build():
        return module.keras_port(**mistakes)
    inputs = [targets.parse_input(module.INPUT, 0)]
    left = targets.Target("left", module.pytorch(), module.pytorch)
    right = targets.Target("right", build(), build)
    silent = lambda *_: None
    found = session.prepare(left, right, inputs, Wishes(), silent).go()
    first = found.faults[0] if found.faults else None
    names = []
    for side in (first.left, first.right) if first else ():
        for name in side.split(", "):
            names += [name, *name.split(":"), name.removeprefix("after ")]
    print("@@" + json.dumps({
        "name": fault["name"] if fault else None,
        "equal": found.equal,
        "place": bool(fault and set(names) & set(fault["places"])),
        "cause": bool(fault and first and first.cause
                      and first.cause.key == fault["cause"]),
        "got": [first.left, first.right, first.cause.key if first.cause else None]
               if first else None,
    }))
"""


def verdicts(path):
    result = subprocess.run(
        [sys.executable, "-c", JUDGE, str(path), os.environ.get("EACH", "3")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(x[2:]) for x in result.stdout.splitlines() if x[:2] == "@@"]


@pytest.mark.slow
@pytest.mark.parametrize("path", PORTS, ids=lambda x: x.stem)
def test_the_right_port_passes_and_faults_are_caught_and_named(path):
    right, *faults = verdicts(path)
    assert right["equal"]
    assert len(faults) >= 3
    assert not [x["name"] for x in faults if x["equal"]]
    misplaced = [x for x in faults if not x["place"]]
    assert len(misplaced) <= max(1, 0.05 * len(faults)), misplaced
    unnamed = [x for x in faults if not x["cause"]]
    assert len(unnamed) <= max(3, 0.15 * len(faults)), unnamed
