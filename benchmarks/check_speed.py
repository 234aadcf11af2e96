"""How long `paripassu check` takes, and how much memory, on models of three sizes.

    python benchmarks/check_speed.py --rounds 5

A small pair takes turns with the bare imports of its frameworks. BERT-base and
ConvNeXt-Tiny are copied left to right and found equal. They need transformers and
keras-hub, which are not installed with paripassu:

    pip install --no-deps transformers==5.24.0 keras-hub==0.32.0

and what they miss. The record is `results/check-speed.json`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from paripassu.core import machine
from paripassu.core.files import write_json

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ROOT / "benchmarks" / "families" / "speed.py"
INPUTS = {
    "small": ["2,8"],
    "bert": [
        "input_ids=1,64:int:30522",
        "attention_mask=1,64:int:2",
        "token_type_ids=1,64:int:2",
    ],
    "convnext": ["1,3,224,224"],
}
LARGE = ("bert", "convnext")
PACKAGES = (
    *("torch", "keras", "tensorflow-cpu", "numpy"),
    *("transformers", "keras-hub"),
)


def imports() -> dict[str, Any]:
    """The bare imports of both frameworks, in a process of their own."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import torch, keras"], check=True, capture_output=True
    )
    return {"seconds": time.perf_counter() - begin}


def check(name: str) -> dict[str, Any]:
    """`paripassu check` of a pair, as it is typed.

    Raises:
        RuntimeError: the pair was not found equal.
    """
    given = [f"{PAIRS}:{name}_{side}" for side in ("left", "right")]
    for text in INPUTS[name]:
        given += ["--input", text]
    command = [*(sys.executable, "-m", "paripassu", "check"), *given]
    command += ["--copy", "left-to-right", "--json"]
    begin = time.perf_counter()
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if found.returncode:
        raise RuntimeError(f"{name}: {found.stdout[-2000:]}{found.stderr[-2000:]}")
    result = json.loads(found.stdout)
    return {
        "seconds": seconds,
        "peak_memory_mib": result["peak_memory_mib"],
        "parameters": result["left"]["parameters"],
        "not_asked": result["not_asked"],
    }


def main() -> int:
    """Take turns, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of the small pair")
    parser.add_argument("--large-rounds", type=int, default=1)
    path = ROOT / "results" / "check-speed.json"
    parser.add_argument("--out", type=Path, default=path)
    arguments = parser.parse_args()
    turns = ["imports", "small"]
    rounds: dict[str, list[dict[str, Any]]] = {x: [] for x in (*turns, *LARGE)}
    busy = []

    def take(name: str) -> None:
        busy.append(machine.load_average())
        found = imports() if name == "imports" else check(name)
        rounds[name].append(found)
        print(f"{name:10} {found['seconds']:7.1f} s", flush=True)

    for number in range(arguments.rounds):
        for name in turns if number % 2 == 0 else reversed(turns):
            take(name)
    for _ in range(arguments.large_rounds):
        for name in LARGE:
            take(name)
    write_json(
        arguments.out,
        {
            "kind": "speed of paripassu check",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python benchmarks/check_speed.py {shlex.join(sys.argv[1:])}",
            "processor": machine.processor(),
            "cores": machine.usable_cores(),
            "platform": machine.system(),
            "versions": {name: version(name) for name in PACKAGES},
            "load_before": max(busy),
            "median_seconds": {
                name: statistics.median(x["seconds"] for x in found)
                for name, found in rounds.items()
            },
            "ratio_to_imports": statistics.median(
                x["seconds"] / y["seconds"]
                for x, y in zip(rounds["small"], rounds["imports"], strict=True)
            ),
            "rounds": rounds,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
