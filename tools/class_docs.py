"""The parts of docs/class.md that are made: the two forms' losses, and exercises."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.tolerance import LADDER
from paripassu.analysis.text import display_name


def loops(root: Path) -> str:
    """How far apart the forms and the frameworks are, from results/class-loops.json.

    Args:
        root: of the repository.
    """
    record = json.loads((root / "results" / "class-loops.json").read_text())
    lines = [
        "| | | losses of a step differ by at most | of the first step |",
        "|---|---|---|---|",
        *(_line(x) for x in record["apart"]),
    ]
    versions = ", ".join(f"{name} {x}" for name, x in record["versions"].items())
    return (
        "\n".join(lines)
        + f"\n\nIn nats; {record['steps']} steps on {record['images']:,} images in "
        f"float32, dropout off, one run. {versions}; record: "
        "[results/class-loops.json](../results/class-loops.json), made by "
        f"`{record['command']}`."
    )


def _line(row: dict[str, Any]) -> str:
    cells = row["one"], row["other"], _nats(row["largest"]), _nats(row["first"])
    return f"| {' | '.join(cells)} |"


def _nats(size: float) -> str:
    return f"{size:.0e}" if size else "0: the same bits"


def exercises(root: Path) -> str:
    """Each with its question, and its answer behind a line to open.

    Args:
        root: of the repository.
    """
    text = (root / "examples" / "class" / "exercises.toml").read_text()
    parts: list[str] = []
    for number, exercise in enumerate(tomllib.loads(text)["exercise"], start=1):
        parts += _exercise(number, exercise)
    return "\n\n".join(parts)


def _exercise(number: int, exercise: dict[str, Any]) -> Iterator[str]:
    yield f"### {number}. In {display_name(exercise['framework'])}"
    yield exercise["symptom"]
    yield _code(exercise["after"])
    rung = LADDER[exercise["rung"]]
    place = f", at `{exercise['quantity']}`" if exercise["quantity"] else ""
    answer = [
        "<summary>What breaks, and on which rung?</summary>",
        f"Rung {rung.number}, {rung.name}{place}. {exercise['why']}",
        "As it is in the lesson:",
        _code(exercise["before"]),
    ]
    if fault := exercise.get("fault"):
        framework = exercise["framework"]
        answer.append(
            f"See it found:\n\n```sh\nparipassu verify --frameworks {framework} "
            f"--fault {fault}\n```"
        )
    body = "\n\n".join(answer)
    yield f'<details markdown="1">\n{body}\n\n</details>'


def _code(lines: str) -> str:
    text = lines.rstrip("\n")
    return f"```python\n{text}\n```"
