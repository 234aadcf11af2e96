"""The table of docs/check.md: how well ports of known faults are judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def families(record: dict[str, Any]) -> str:
    """The table of pairs of public libraries, and an empty line.

    Args:
        record: of results/ports.json.
    """
    if not record.get("families"):
        return ""
    lines = [
        "| libraries | as they come | left to right | right to left | faults | caught "
        "| first place right | cause right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = [0] * 5
    for name, family in record["families"].items():
        faults = family["faults"]
        counts = [
            sum(x["right"] for x in family["pairs"]),
            len(faults),
            sum(x["verdict"] == "differs" for x in faults),
            sum(x["place"] for x in faults),
            sum(x["cause"] for x in faults),
        ]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        told = [_verdict(x) for x in family["pairs"]]
        link = f"[{name}](../benchmarks/families/{family['file']}.py)"
        lines.append(f"| {' | '.join([link, *told, *map(str, counts[1:])])} |")
    pairs = 3 * len(record["families"])
    cells = f"{total[0]} of {pairs} right | | | {' | '.join(map(str, total[1:]))}"
    lines.append(f"| all {len(record['families'])} | {cells} |")
    versions = ", ".join(f"{name} {x}" for name, x in record["libraries"].items())
    return (
        "\n".join(lines) + f"\n\n{versions}, small models with random weights, which "
        "differ until they are copied. Bold is wrong. A verdict names what truly "
        "remains after copying.\n\n"
    )


def _verdict(row: dict[str, Any]) -> str:
    """A verdict with its causes; in bold where it is not the true one."""
    causes = f": {', '.join(dict.fromkeys(row['causes']))}" if row["causes"] else ""
    text = f"{row['verdict']}{causes}"
    return text if row["right"] else f"**{text}**"


def measured(root: Path) -> str:
    """The table, from results/ports.json.

    Args:
        root: of the repository.
    """
    record = json.loads((root / "results" / "ports.json").read_text())
    ports: dict[str, Any] = record["ports"]
    lines = [
        "| port | right one | faults | caught | first place right | cause right |",
        "|---|---|---|---|---|---|",
    ]
    total = [0, 0, 0, 0]
    for name, port in ports.items():
        faults = port["faults"]
        counts = [
            len(faults),
            sum(not x["equal"] for x in faults),
            sum(x["place"] for x in faults),
            sum(x["cause"] for x in faults),
        ]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        verdict = "equal" if port["right"]["equal"] else "not equal"
        cells = " | ".join(map(str, counts))
        lines.append(f"| [{name}](../examples/ports/{name}.py) | {verdict} | {cells} |")
    right = sum(x["right"]["equal"] for x in ports.values())
    shares = " | ".join(f"{x} ({x / total[0]:.1%})" for x in total[1:])
    lines.append(f"| all | {right} of {len(ports)} | {total[0]} | {shares} |")
    versions = ", ".join(f"{name} {x}" for name, x in record["versions"].items())
    missed = [
        f"`{x['name']}`"
        for port in ports.values()
        for x in port["faults"]
        if not (x["place"] and x["cause"])
    ]
    return (
        families(record)
        + "\n".join(lines)
        + f"\n\n{versions}; record: [results/ports.json](../results/ports.json). What "
        "a reader would accept as place and cause is in each port's file, and was "
        "written by the same people as the tool: other people's faults may do worse."
        + (f" Not named rightly: {', '.join(missed)}." if missed else "")
    )


def speed(root: Path) -> str:
    """How long checks take, from results/check-speed.json.

    Args:
        root: of the repository.
    """
    record = json.loads((root / "results" / "check-speed.json").read_text())
    rounds = record["rounds"]
    lines = [
        "| what | parameters of one model | seconds | peak memory | n |",
        "|---|---|---|---|---|",
    ]
    for name, title in (
        ("imports", "`import torch, keras`, no check"),
        ("small", "two dense layers"),
        ("bert", "BERT-base, 64 tokens, copied, gradients included"),
        ("convnext", "ConvNeXt-Tiny, 224 x 224, copied, gradients included"),
    ):
        taken = sorted(x["seconds"] for x in rounds[name])
        seconds = f"{record['median_seconds'][name]:.1f}"
        if len(taken) > 1:
            seconds += f" ({taken[0]:.1f} to {taken[-1]:.1f})"
        peaks = [x["peak_memory_mib"] for x in rounds[name] if "peak_memory_mib" in x]
        count = rounds[name][0].get("parameters")
        cells = [
            title,
            f"{count:,}" if count else "",
            seconds,
            f"{max(peaks):,.0f} MiB" if peaks else "",
            str(len(taken)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {x}" for name, x in record["versions"].items())
    return (
        "\n".join(lines)
        + f"\n\n{record['cores']} cores of an {record['processor']}; {versions}; "
        f"medians and ranges of whole commands, in turns: `{record['command']}`. "
        f"The small pair takes {record['ratio_to_imports']:.2f} times the imports. "
        "Record: [results/check-speed.json](../results/check-speed.json).\n"
    )
