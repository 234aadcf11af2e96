"""docs/layers.md, from results/layers.json and results/differences.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = """\
# This PyTorch layer in Keras and JAX

How a layer of PyTorch is written in Keras and in Flax NNX so that it computes the same,
and how its weights are taken over. Every row is executed (`python examples/layers`): in
float64, with random weights, the outputs of all three agree; and each setting is left
out, to see by how much they part without it. Optimizers, losses and initialisers are
under [known differences](framework-differences.md); whole models are for
[`paripassu check`](check.md).

Keras's layers have weights once they have been called: do that before `set_weights`.
`w` has the arrays of PyTorch's `state_dict`, in NumPy:

```python
w = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
rngs = nnx.Rngs(0)
```

Images are `(N, h, w, c)` in Keras and Flax, and `(N, c, h, w)` in PyTorch. As imported
here: `from torch import nn`, `import keras`, `from keras import layers, ops`,
`from flax import nnx`, `import jax`, `import jax.numpy as jnp`, `import numpy as np`.
"""


def page(root: Path) -> str:
    """The page.

    Args:
        root: of the repository.
    """
    record = json.loads((root / "results" / "layers.json").read_text())
    known = json.loads((root / "results" / "differences.json").read_text())
    differences = {row["key"]: row for row in known["differences"]}
    rows: list[dict[str, Any]] = record["layers"]
    versions = ", ".join(f"{name} {x}" for name, x in record["versions"].items())
    parts = [
        HEAD,
        f"{len(rows)} layers; {versions}; record: "
        "[results/layers.json](../results/layers.json), made by "
        f"`{record['command']}` from [layers.toml](../examples/layers/layers.toml).",
    ]
    for topic in dict.fromkeys(row["topic"] for row in rows):
        parts.append(f"## {topic}")
        for row in rows:
            if row["topic"] == topic:
                parts += _row(row, record["sides"], differences)
    return "\n\n".join(x.strip() for x in parts) + "\n"


def _row(
    row: dict[str, Any], titles: dict[str, str], differences: dict[str, Any]
) -> Iterator[str]:
    first, *others = titles
    yield f"### `{row[first]}`"
    sides = [side for side in others if side in row]
    heads = "".join(
        f'<th width="{100 // len(sides)}%">{titles[side]}</th>' for side in sides
    )
    cells = "\n".join(f"<td>\n\n{_cell(row, side)}\n\n</td>" for side in sides)
    yield f'<table>\n<tr>{heads}</tr>\n<tr valign="top">\n{cells}\n</tr>\n</table>'
    notes = [row["note"]] if "note" in row else []
    if keys := row.get("differs"):
        links = [
            f"[{differences[key]['title']}]"
            f"(framework-differences.md#{_anchor(differences[key]['topic'])})"
            for key in keys
        ]
        notes.append(f"Known differences: {'; '.join(links)}.")
    if notes:
        yield " ".join(notes)


def _cell(row: dict[str, Any], side: str) -> str:
    code = [f"layer = {row[side].strip()}"]
    if call := row.get(f"{side}_call"):
        code.append(f"y = {call}")
    if weights := row.get(f"{side}_weights"):
        code.append(weights.strip())
    text = "```python\n" + "\n".join(code) + "\n```"
    if told := [_told(*item) for item in row["without"][side].items()]:
        text += f"\n\nNeeded: {'; '.join(told)}."
    return text


def _told(setting: str, apart: float | None) -> str:
    if apart is None:
        return f"`{setting}` (another shape without it)"
    return f"`{setting}` ({apart:.1g} apart without it)"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
