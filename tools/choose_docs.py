"""The table of docs/choose.md, from the records in results/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paripassu.analysis.benchmark import BENCH_FILE, Bench
from paripassu.analysis.comparison import load
from paripassu.analysis.text import display_name, mebibytes
from paripassu.frameworks.registry import FRAMEWORKS

MISSING = "not measured"
ARTICLE = "[results/article](../results/article/comparison.json)"
BENCH = "[results/bench/float32](../results/bench/float32/bench.json)"
CHOOSE = "[results/choose.json](../results/choose.json)"


def measured(root: Path) -> str:
    """The table, with a link to the record of each row."""
    found = json.loads((root / "results" / "choose.json").read_text())
    names = list(found["frameworks"])
    path = root / "results" / "bench" / "float32" / BENCH_FILE
    bench = Bench.model_validate_json(path.read_text())
    rounds = f"median of {len(bench.rounds)}"
    article = load(root / "results" / "article")
    each = [found["frameworks"][name] for name in names]
    trained = [article.frameworks.get(name) for name in names]
    timed = [name if name in bench.frameworks else None for name in names]
    rows = [
        "test accuracy, `article`, 10 epochs, mean and 95% interval"
        + _cells(
            [_accuracy(x.test_accuracy) if x else MISSING for x in trained],
            f"n = 3; {ARTICLE}",
        ),
        f"one epoch of training, 60,000 images, the lesson, {rounds}"
        + _cells(
            [
                f"{bench.epoch_seconds(x, 'lesson').median:.1f} s" if x else MISSING
                for x in timed
            ],
            BENCH,
        ),
        f"peak memory of that process, {rounds}"
        + _cells(
            [
                mebibytes(bench.memory(x, "lesson").median) if x else MISSING
                for x in timed
            ],
            BENCH,
        ),
        "from the start of Python's imports to the first answer"
        + _start_up(each, "first_answer_seconds", "{:.1f} s".format),
        "one image, over and over, on a warm network"
        + _start_up(each, "one_image_seconds", lambda x: f"{1000 * x:.2f} ms"),
        "memory of a process that answers images"
        + _start_up(each, "peak_bytes", mebibytes),
        "installed files of the framework and all it requires (CPU builds)"
        + _cells(
            [
                f"{mebibytes(x['installed']['bytes'])}, "
                f"{x['installed']['distributions']} packages"
                for x in each
            ],
            CHOOSE,
        ),
        "the lesson: lines of code, different names of the framework in it"
        + _cells(
            [
                f"{x['code']['all_lines']} lines, {x['code']['name_count']} names"
                for x in each
            ],
            CHOOSE,
        ),
        "its own files of the network, each tried"
        + _cells(
            [
                "<br>".join(_wrote(kind, y) for kind, y in x["formats"].items())
                for x in each
            ],
            CHOOSE,
        ),
        "a picture of the wrong size: stack frames shown, and what is said"
        + _cells(
            [f"{x['mistake']['frames']}; {_said(x['mistake']['says'])}" for x in each],
            CHOOSE,
        ),
    ]
    versions = ", ".join(
        f"{name} {version}" for x in each for name, version in x["versions"].items()
    )
    machine = found["machine"]
    return "\n".join(
        [
            f"{versions}; Python {machine['python']}; {machine['cores']} cores of an "
            f"{machine['processor']}, no GPU. The rows of {CHOOSE} were made by",
            f"`{found['command']}`: fresh processes, in turns, medians of "
            f"{each[0]['start_up']['import_seconds']['n']}.",
            "",
            f"| | {' | '.join(map(display_name, names))} | record |",
            f"|{'---|' * (len(names) + 2)}",
            *(f"| {row}" for row in rows),
            *_absent(names),
        ]
    )


def _absent(names: list[str]) -> list[str]:
    """Of frameworks that these records lack: that nothing was measured."""
    absent = " and ".join(x.title for x in FRAMEWORKS.values() if x.name not in names)
    return ["", f"{absent}: not measured in these records."] if absent else []


def _cells(values: list[str], record: str) -> str:
    return f" | {' | '.join(values)} | {record} |"


def _start_up(each: list[Any], key: str, said: Callable[[float], str]) -> str:
    return _cells([said(x["start_up"][key]["median"]) for x in each], CHOOSE)


def _accuracy(estimate: Any) -> str:
    return (
        f"{estimate.mean:.2%} ({100 * estimate.low:.2f} to {100 * estimate.high:.2f})"
    )


def _wrote(kind: str, what: dict[str, Any]) -> str:
    if "error" in what:
        return f"{kind}: fails"
    return f"{kind}: {what['bytes'] / 2**20:.1f} MiB"


def _said(text: str) -> str:
    """The line that names the sizes."""
    plain = re.sub(r"\x1b\[\d*m", "", text)
    return f"“{next(line for line in plain.splitlines() if '7744' in line)}”"
