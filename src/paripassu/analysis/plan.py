"""What a comparison sets out to run: `plan.json`, and the names of its runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from paripassu.core.record import Model

RUNS_FOLDER = "runs"


class Plan(Model):
    """What a comparison set out to run, and what came in its way: `plan.json`."""

    kind: Literal["plan"] = "plan"
    version: Literal[1] = 1
    command: str
    recipe: dict[str, Any]
    frameworks: list[str]
    seeds: list[int]
    order: list[str]  # run names, A B B A
    margin: float  # of equivalence in test accuracy, fraction 0..1
    data: dict[str, str] = Field(default_factory=dict)  # file -> SHA-256
    # Threads and device, the same for all runs.
    conditions: dict[str, str | int] = Field(default_factory=dict)
    unavailable: dict[str, str] = Field(default_factory=dict)  # why, by framework
    failures: dict[str, str] = Field(default_factory=dict)  # what, by run name
    warnings: list[str] = Field(default_factory=list)  # of the recipe, passed through


def run_name(framework: str, seed: int) -> str:
    """The folder of a run, below `runs/`."""
    return f"{framework}-seed{seed}"


def run_name_by_hash(framework: str, identity: str, seed: int) -> str:
    """The folder of a run, below `runs/`, where recipes are many: it has its hash."""
    return f"{framework}-{identity}-seed{seed}"


def planned_runs(plan: Plan) -> list[tuple[str, int, str]]:
    """Framework, seed and name of every run, in the order of the plan."""
    known = {
        run_name(framework, seed): (framework, seed)
        for framework in plan.frameworks
        for seed in plan.seeds
    }
    return [(*known[name], name) for name in dict.fromkeys([*plan.order, *known])]
