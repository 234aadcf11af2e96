"""Where defaults of PyTorch and Keras differ, and what JAX does, each by running it.

Every function of this folder is one difference: it makes both frameworks compute the
same thing, first as they come, then with the settings that make them equal, in float64,
and returns how far they are apart each time. The defaults that it tells are read from
the installed versions. What JAX does there, `jax_column.py` finds.
`python examples/differences` writes them to `results/differences.json`, from which
`docs/framework-differences.md` is made.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import activations  # noqa: F401
import attention  # noqa: F401
import convolution  # noqa: F401
import initialisers  # noqa: F401
import losses  # noqa: F401
import normalisation  # noqa: F401
import numerics  # noqa: F401
import pooling  # noqa: F401
import recurrence  # noqa: F401
import steps  # noqa: F401
from jax_column import COLUMN
from shared import KNOWN

from paripassu.core import files

OUT = Path(__file__).parents[2] / "results" / "differences.json"


def main() -> None:
    """Measure them all and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows = []
    for known in KNOWN:
        torch.manual_seed(0)
        found = known.show()
        print(f"{known.key:30} {found.default:9.2e} {found.equal:9.2e}", flush=True)
        rows.append(
            {
                "key": known.key,
                "topic": known.topic,
                "title": known.title,
                "pytorch": str(found.pytorch),
                "keras": str(found.keras),
                "jax": COLUMN[known.key](),
                "write": known.write,
                "cause": known.cause,
                "default": float(f"{found.default:.1e}"),
                "equal": float(f"{found.equal:.0e}"),
                "rest": known.rest,
            }
        )
    names = ("torch", "keras", "tensorflow-cpu", "jax", "flax", "optax")
    record = {
        "command": "python examples/differences",
        "versions": {name: version(name) for name in names},
        "sides": {"pytorch": "PyTorch", "keras": "Keras", "jax": "JAX"},
        "differences": rows,
    }
    files.write_text(given.out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
