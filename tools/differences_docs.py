"""docs/framework-differences.md, from results/differences.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOPICS = (
    "Convolution",
    "Normalisation",
    "Pooling and resizing",
    "Activations",
    "Recurrent layers",
    "Attention and embeddings",
    "Initialisers",
    "Losses",
    "Optimizers",
    "Numbers",
)
HEAD = """\
# Known differences of PyTorch, Keras and JAX

What PyTorch and Keras do differently as they come, what makes them equal, and what JAX
does there: Flax NNX, optax and `jax.image`. Each row is a function in
[examples/differences](../examples/differences), which computes the same thing in
PyTorch and Keras, and one that runs JAX and tells what it found; a dash where JAX has
no such thing. Defaults are read from the installed versions, the sizes are measured, in
float64 where the framework has it.
`tests/port_check/test_framework_differences.py` measures them again.

- **apart**: the largest difference of PyTorch and Keras with the defaults, over the
  largest value; for initialisers, of the spread; for optimizers, over the largest step
  of [`paripassu check-optimizer`](check.md#optimizers).
- **equal**: the same with what the last column says. What is about 1e-7 has constants
  that pass through float32 in one framework.
- **check**: the cause under which [`paripassu check`](check.md) or `check-optimizer`
  names it; a dash where it shows outside a model.
"""


def page(root: Path) -> str:
    """The page.

    Args:
        root: of the repository.
    """
    record = json.loads((root / "results" / "differences.json").read_text())
    rows: list[dict[str, Any]] = record["differences"]
    sides: dict[str, str] = record["sides"]
    heads = " | ".join(sides.values())
    unknown = {x["topic"] for x in rows} - set(TOPICS)
    if unknown:
        raise ValueError(f"topics without a place: {unknown}")
    versions = ", ".join(f"{name} {x}" for name, x in record["versions"].items())
    parts = [
        HEAD,
        f"{len(rows)} differences; {versions}; record: "
        "[results/differences.json](../results/differences.json), made by "
        f"`{record['command']}`.",
    ]
    for topic in TOPICS:
        parts += [
            f"## {topic}",
            "\n".join(
                [
                    f"| what | {heads} | apart | equal | check | write |",
                    f"|{'---|' * (len(sides) + 5)}",
                    *(_row(x, sides) for x in rows if x["topic"] == topic),
                ]
            ),
        ]
    return "\n\n".join(x.strip() for x in parts) + "\n"


def _row(row: dict[str, Any], sides: Iterable[str]) -> str:
    equal = "no setting" if row["rest"] >= 1 and row["equal"] else f"{row['equal']:.0e}"
    cause = f"`{row['cause']}`" if row["cause"] else "–"
    cells = [
        row["title"],
        *(row[side] for side in sides),
        f"{row['default']:.2g}",
        "0" if not row["equal"] else equal,
        cause,
        row["write"],
    ]
    return f"| {' | '.join(cells)} |"
