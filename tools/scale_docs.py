"""The tables of docs/scale.md, from results/scale.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe_docs import markdown_table

from paripassu.analysis.text import mebibytes


def measured(root: Path) -> str:
    """What a run costs on a real Ray, and how far one driver reaches."""
    told = json.loads((root / "results" / "scale.json").read_text())
    versions = told["versions"]
    real = [
        [
            f"{x['nodes']}",
            f"{x['runs']:,}",
            f"{x['seconds']:.0f} s",
            f"{x['ideal_seconds']:.0f} s",
            f"{x['overhead_seconds_per_run']:.2f} s",
            f"{1000 * x['ask_seconds']:.2f} ms, {1000 * x['take_seconds']:.2f} ms",
            mebibytes(x["driver_peak_bytes"]),
        ]
        for x in told["ray"]
    ]
    simulated = [_simulated(x) for x in told["simulated"]]
    seconds = told["run_seconds"]
    return f"""\
A fake run sleeps, and leaves the files of a run with a checkpoint of
{mebibytes(told["checkpoint_bytes"])} after each of {told["epochs"]} epochs. One run of
each; {told["processor"]}, {told["cores"]} cores, Python {versions["python"]}, Ray
{versions["ray"]}. Record: [results/scale.json](../results/scale.json), made by
`{told["command"]}`.

On a real Ray, all its nodes on this machine, runs of {seconds["ray"]:g} s:

{
        markdown_table(
            [
                "nodes",
                "runs",
                "took",
                "at best",
                "a run costs beside its own time",
                "one question, one answer, in the driver",
                "driver's memory, at most",
            ],
            real,
        )
    }

Simulated nodes, and a real driver that writes every file, runs of
{seconds["simulated"]:g} s; to each call is added what it cost on the real Ray:

{
        markdown_table(
            [
                "nodes",
                "runs",
                "took",
                "at best",
                "runs a second",
                "driver busy",
                "processor time a run",
                "driver's memory, at most",
            ],
            simulated,
        )
    }
"""


def _simulated(x: dict[str, Any]) -> list[str]:
    return [
        f"{x['nodes']:,}",
        f"{x['runs']:,}",
        f"{x['seconds']:,.0f} s",
        f"{x['ideal_seconds']:,.0f} s",
        f"{x['runs_per_second']:.1f}",
        f"{x['driver_busy']:.0%}",
        f"{1000 * x['driver_seconds_per_run']:.1f} ms",
        mebibytes(x["driver_peak_bytes"]),
    ]
