"""The tables of docs/scale.md, from results/scale.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe_docs import markdown_table

from paripassu.analysis.text import mebibytes

REAL = [
    "nodes",
    "runs",
    "took",
    "at best",
    "a run costs beside its own time",
    "one question, one answer, in the driver",
    "driver's memory, at most",
]
SIMULATED = [
    "nodes",
    "runs",
    "took",
    "at best",
    "runs a second",
    "driver busy",
    "its processor time a run",
    "driver's memory, at most",
]


def measured(root: Path) -> str:
    """What a run costs on a real Ray, and how far one driver reaches."""
    told = json.loads((root / "results" / "scale.json").read_text())
    real, simulated = told["ray"], told["simulated"]
    return f"""\
A fake run sleeps, and leaves the files of a run, with a checkpoint of
{mebibytes(real["checkpoint_bytes"])} after each of {real["epochs"]} epochs.
One measurement of each, beside other work of the machine: {real["processor"]},
{real["cores"]} cores, Python {real["versions"]["python"]},
Ray {real["versions"]["ray"]}.
Record: [results/scale.json](../results/scale.json).

On a real Ray, all its nodes on this machine, runs of {real["run_seconds"]:g} s
(`{real["command"]}`):

{markdown_table(REAL, [_real(x) for x in real["measured"]])}

Simulated nodes, and a real driver that writes every file, runs of
{simulated["run_seconds"]:g} s (`{simulated["command"]}`). To each question is added
{1000 * simulated["call_seconds"][0]:.1f} ms and to each answer
{1000 * simulated["call_seconds"][1]:.1f} ms, which they cost on a real Ray:

{markdown_table(SIMULATED, [_simulated(x) for x in simulated["measured"]])}

So one driver keeps a thousand nodes busy with runs of about
{1000 / max(x["runs_per_second"] for x in simulated["measured"]):.0f} s and more.
"""


def _real(x: dict[str, Any]) -> list[str]:
    return [
        f"{x['nodes']}",
        f"{x['runs']:,}",
        f"{x['seconds']:.0f} s",
        f"{x['ideal_seconds']:.0f} s",
        f"{x['overhead_seconds_per_run']:.2f} s",
        f"{1000 * x['ask_seconds']:.1f} ms, {1000 * x['take_seconds']:.1f} ms",
        mebibytes(x["driver_peak_bytes"]),
    ]


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
