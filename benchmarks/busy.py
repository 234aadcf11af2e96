"""Times an epoch alone and beside two busy loops, by how threads wait for each other.

    python benchmarks/busy.py --framework pytorch --rounds 1 --json results/busy.json

Recipe `fast`, float32, a thread for each core. A process of its own trains one epoch
with nothing beside it and one beside two loops that do nothing but run; so quiet and
busy are measured in turns, and settings too, each second round in the opposite order.
Rounds are added to those that the file holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paripassu.core import datasets, machine
from paripassu.core.files import write_json
from paripassu.core.recipe import load
from paripassu.frameworks import registry
from paripassu.processes.launch import worker_environment
from paripassu.worker.benchmark import ready_trainer, recorded_epoch

LOOPS = 2
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SETTINGS = {
    "library's own": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def child(framework: str, threads: int) -> None:
    """Train an epoch, wait to be told that the loops run, and train another."""
    recipe = load("fast", ["epochs=1", "precision=float32"])
    prepared = datasets.prepare(
        datasets.load(), mean=recipe.normalization.mean, std=recipe.normalization.std
    )
    trainer = ready_trainer(
        registry.find(framework), recipe, prepared.training, threads
    )
    found: dict[str, float] = {}
    for name in ("quiet", "busy"):
        look = machine.OtherLoad()
        found[name] = recorded_epoch(
            trainer, recipe, prepared.training, lambda *_, **__: None
        )
        found[f"{name}_other_load"] = look.look()
        print(json.dumps(found), flush=True)
        sys.stdin.readline()


@contextlib.contextmanager
def busy_loops() -> Iterator[None]:
    """Two processes that keep a core each."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(LOOPS)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(framework: str, setting: str, threads: int) -> dict[str, Any]:
    """Seconds of both epochs, and what others used of the machine meanwhile."""
    environment = worker_environment(threads)
    for name in WAITING:
        environment.pop(name, None)
    process = subprocess.Popen(
        [
            *(sys.executable, __file__, "--child", "--framework", framework),
            *("--threads", str(threads)),
        ],
        env=environment | SETTINGS[setting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    if line:
        with busy_loops():
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
    process.stdin.close()
    if not line or process.wait():
        said = process.stderr.read()[-2000:]
        raise SystemExit(f"{framework}, {setting}:\n{said}")
    found: dict[str, Any] = json.loads(line)
    return found


def judge(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of each framework under each setting, and their ratios."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(x["framework"] for x in rounds):
        turns = [x["turns"] for x in rounds if x["framework"] == name]
        for setting in SETTINGS:
            each = [x[setting] for x in turns if setting in x]
            if not each:
                continue
            quiet, busy = (
                statistics.median(x[key] for x in each) for key in ("quiet", "busy")
            )
            found[f"{name}: {setting}"] = {
                "n": len(each),
                "quiet_seconds": quiet,
                "busy_seconds": busy,
                "busy_range": [f([x["busy"] for x in each]) for f in (min, max)],
                "ratio": busy / quiet,
            }
    return found


def main() -> int:
    """Measure, print and add to the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--framework", required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--json", type=Path, help="the record, which grows")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.framework, given.threads)
        return 0
    record: dict[str, Any] = {"rounds": []}
    if given.json and given.json.exists():
        record = json.loads(given.json.read_text())
    for _ in range(given.rounds):
        before = sum(x["framework"] == given.framework for x in record["rounds"])
        turns = {}
        for setting in given.settings[:: -1 if before % 2 else 1]:
            turns[setting] = measure(given.framework, setting, given.threads)
            times = [f"{turns[setting][x]:6.1f} s {x}" for x in ("quiet", "busy")]
            print(f"{given.framework:12}{setting:26}{'  '.join(times)}", flush=True)
        record["rounds"].append(
            {
                "framework": given.framework,
                "version": registry.find(given.framework).version,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": f"python benchmarks/busy.py {shlex.join(sys.argv[1:])}",
                "threads": given.threads,
                "turns": turns,
            }
        )
        record |= {
            "kind": f"an epoch of fast, alone and beside {LOOPS} busy loops",
            "processor": machine.processor(),
            "cores": machine.usable_cores(),
            "platform": machine.system(),
            "results": judge(record["rounds"]),
        }
        if given.json:
            write_json(given.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
