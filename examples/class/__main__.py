"""Run `loops.py` and write what came out, for docs/class.md.

python examples/class
"""

from __future__ import annotations

import argparse
import json
import runpy
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "results" / "class-loops.json"
KEYS = ("one", "other", "largest", "first")


def main() -> None:
    """Train, compare, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    found = runpy.run_path(str(HERE / "loops.py"), run_name="__main__")

    from paripassu.core import files

    rows = []
    for one, other, *sizes in found["table"]():
        rounded = [float(f"{size:.0e}") for size in sizes]
        rows.append(dict(zip(KEYS, (one, other, *rounded), strict=True)))
    names = ("torch", "keras", "tensorflow-cpu", "jax", "flax", "optax")
    record = {
        "command": "python examples/class",
        "versions": {name: version(name) for name in names},
        "images": found["IMAGES"],
        "steps": len(found["order"]),
        "apart": rows,
    }
    files.write_text(given.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
