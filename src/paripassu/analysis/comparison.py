"""From a folder of runs to `comparison.json`; reads records only."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

from paripassu.analysis.ensembles import ensemble_accuracy
from paripassu.analysis.pairs import judge_pair
from paripassu.analysis.plan import Plan, run_name
from paripassu.analysis.proof.ladder import with_accuracy
from paripassu.analysis.reading import (
    check_same_experiment,
    checked,
    load_runs,
)
from paripassu.analysis.schema import Comparison, Proof
from paripassu.analysis.summaries import summarise_framework
from paripassu.analysis.warnings import collect_warnings
from paripassu.core.errors import UserError
from paripassu.core.files import write_text

PLAN_FILE = "plan.json"
PROOF_FILE = "proof.json"
COMPARISON_FILE = "comparison.json"


def summarise(folder: Path, created: str | None = None) -> Comparison:
    """Read the plan and the runs of a comparison folder, and judge them.

    Args:
        folder: holds `plan.json`, `runs/<framework>-seed<seed>/` and perhaps
            `proof.json`. Runs that are unfinished, absent or damaged are left out,
            and so is a damaged proof; warnings name them.
        created: ISO 8601 time to write into the comparison; now, if not given.

    Raises:
        UserError: `plan.json` is missing or damaged, or runs do not belong together.
    """
    plan = load_plan(folder)
    path = folder / PROOF_FILE
    proof, without_proof = None, []
    try:
        proof = load_proof(path) if path.exists() else None
    except UserError as error:
        without_proof = [f"The proof is left out. {error}"]
    records, runs, damage = load_runs(folder, plan)
    check_same_experiment(runs)
    first = next(iter(runs.values()), None)
    several = len({run.record.framework for run in runs.values()}) > 1
    pairs = [
        judge_pair(plan, left, right, runs)
        for left, right in itertools.combinations(plan.frameworks, 2)
    ]
    return Comparison(
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        command=plan.command,
        recipe=plan.recipe,
        dataset=first.record.dataset if first else None,
        environment=first.record.environment if first else None,
        seeds=plan.seeds,
        order=plan.order,
        frameworks={
            framework: summarise_framework(plan, framework, records, runs, damage)
            for framework in plan.frameworks
        },
        ensemble_accuracy=ensemble_accuracy([*runs.values()]) if several else None,
        pairs=pairs,
        proof=proof and with_accuracy(proof, pairs),
        warnings=without_proof + collect_warnings(plan, records, runs, damage),
    )


def save(folder: Path, comparison: Comparison) -> None:
    """Write `comparison.json`, whole or not at all."""
    write_text(folder / COMPARISON_FILE, comparison.model_dump_json(indent=1) + "\n")


def load(folder: Path) -> Comparison:
    """Read `comparison.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return checked(Comparison, folder / COMPARISON_FILE)


def load_proof(path: Path) -> Proof:
    """Read a proof, as `verify --json` and `compare` write it.

    Raises:
        UserError: it is damaged.
    """
    return checked(Proof, path)


def load_plan(folder: Path) -> Plan:
    """Read `plan.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not (folder / PLAN_FILE).exists():
        raise UserError(
            f"{folder} is not a comparison folder: it has no {PLAN_FILE}. Make one "
            f"with 'paripassu compare --out {folder}'."
        )
    plan = checked(Plan, folder / PLAN_FILE)
    known = {run_name(*pair) for pair in itertools.product(plan.frameworks, plan.seeds)}
    strangers = [name for name in plan.order if name not in known]
    if strangers:
        raise UserError(
            f"{folder / PLAN_FILE} is damaged: its order names {', '.join(strangers)}, "
            "which its frameworks and seeds do not make."
        )
    return plan
