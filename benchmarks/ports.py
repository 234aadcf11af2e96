"""How well `paripassu check` judges ports of which the faults are known.

    python benchmarks/ports.py

Every file of `examples/ports` has a port that is right and faulty ones, each with the
places and the cause that a reader would accept. All are checked; what was found of each
is written to `results/ports.json`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "ports"


def judged(path: Path, each: int = 1) -> list[dict[str, Any]]:
    """What is found of the right port of a file, and of every so many faulty one.

    A process of its own: a fault must not be seen by what another one left behind.
    """
    result = subprocess.run(
        [sys.executable, __file__, "--judge", str(path), "--each", str(each)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{path}: {result.stderr[-3000:]}")
    return [json.loads(x[2:]) for x in result.stdout.splitlines() if x[:2] == "@@"]


def judge(path: Path, each: int) -> None:
    """Check the ports of a file here, and print what was found."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import torch  # noqa: F401, before TensorFlow

    from paripassu.port_check import session, targets

    sys.path.insert(0, str(path.resolve().parent))
    module = importlib.import_module(path.stem)
    for fault in [None, *module.FAULTS[::each]]:
        mistakes = fault["mistakes"] if fault else {}

        def build(mistakes: Any = mistakes) -> Any:
            return module.keras_port(**mistakes)

        left = targets.Target("left", module.pytorch(), module.pytorch)
        right = targets.Target("right", build(), build)
        inputs = [targets.parse_input(module.INPUT, 0)]
        found = session.prepare(left, right, inputs).go()
        first = found.faults[0] if found.faults else None
        names: list[str] = []
        for side in (first.left, first.right) if first else ():
            for name in side.split(", "):
                names += [name, *name.split(":"), name.removeprefix("after ")]
        cause = first.cause.key if first and first.cause else None
        verdict = {
            "name": fault["name"] if fault else None,
            "equal": found.equal,
            "seconds": round(found.seconds, 2),
        }
        if fault:
            verdict |= {
                "place": bool(set(names) & set(fault["places"])),
                "cause": cause == fault["cause"],
                "wanted": [*fault["places"], fault["cause"]],
                "got": [first.left, first.right, cause] if first else None,
            }
        print("@@" + json.dumps(verdict), flush=True)


def main() -> None:
    """Check all of them and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--each", type=int, default=1, help="only every so many fault")
    parser.add_argument("--folder", type=Path, default=EXAMPLES)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "ports.json")
    given = parser.parse_args()
    if given.judge:
        judge(given.judge, given.each)
        return
    from paripassu.core import files
    from paripassu.frameworks.registry import FRAMEWORKS

    record: dict[str, Any] = {
        "command": "python benchmarks/ports.py",
        "versions": {k: v for x in FRAMEWORKS.values() for k, v in x.versions.items()},
        "ports": {},
    }
    for path in sorted(given.folder.glob("*.py")):
        right, *faults = judged(path, given.each)
        record["ports"][path.stem] = {"right": right, "faults": faults}
        counts = [
            sum(not x["equal"] for x in faults),
            *(sum(x[key] for x in faults) for key in ("place", "cause")),
        ]
        print(
            f"{path.stem:15} right port {'equal' if right['equal'] else 'NOT EQUAL'}; "
            f"of {len(faults)} faults caught {counts[0]}, place {counts[1]}, "
            f"cause {counts[2]}",
            flush=True,
        )
    files.write_text(given.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
