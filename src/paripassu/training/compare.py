"""Train the same recipe in several frameworks, in fair turns, and write the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paripassu.analysis import comparison as judge
from paripassu.analysis.plan import RUNS_FOLDER, Plan, run_name
from paripassu.analysis.report import write_report
from paripassu.analysis.schema import Comparison
from paripassu.core import datasets, files, record
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.experiment import identify, read_data
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.executors import Executor, Local
from paripassu.processes.launch import Event
from paripassu.processes.requests import TrainRequest
from paripassu.proof.short_proof import prove_once
from paripassu.training.events import OnEvent, RunEnded, RunStarted, RunTold, Warned

MARGIN = 0.001  # of accuracy: the standard error of 99% on 10,000 images


@dataclass(frozen=True)
class Turn:
    """One run in the order of the comparison."""

    framework: str
    seed: int

    @property
    def name(self) -> str:
        """The run's folder under `runs/`."""
        return run_name(self.framework, self.seed)


def turns(names: Sequence[str], seeds: Sequence[int]) -> list[Turn]:
    """A B, then B A, and so on, so that a drift of the machine favours nobody."""
    return [
        Turn(name, seed)
        for number, seed in enumerate(seeds)
        for name in (names if number % 2 == 0 else list(reversed(names)))
    ]


def compare(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    out: str | Path,
    conditions: Conditions = DEFAULT,
    executor: Executor | None = None,
    on_event: OnEvent = lambda _event: None,
) -> Comparison:
    """Run all that is not yet done, then judge and report what is there.

    Args:
        frameworks: their names; those that are not installed are reported, not run.
        recipe: the experiment; each run has its own seed in place of the recipe's.
        seeds: one run of every framework for each.
        out: the comparison's folder; finished runs in it are used as they are.
        conditions: data, threads and device, the same for all.
        executor: where the runs are made; None: here, one after the other.
        on_event: called with warnings, and with all that goes on.

    Returns:
        What `comparison.json` in `out` holds; `report.html` is beside it.

    Raises:
        UserError: no framework is installed, or data or folder are not usable, or
            the executor's place cannot be reached.
    """
    out = Path(out)
    frameworks = [registry.find(name).name for name in frameworks]
    problems = {name: registry.find(name).problem for name in frameworks}
    unavailable = {name: text for name, text in problems.items() if text}
    usable = [name for name in frameworks if name not in unavailable]
    if not usable:
        raise UserError("no framework to run. " + " ".join(unavailable.values()))
    for name in usable:
        registry.find(name).check(recipe)
    for text in unavailable.values():
        on_event(Warned(f"{text} The others run without it."))
    data, prepared = read_data(recipe, conditions.data)
    dataset = datasets.describe(data, prepared)
    for warning in dataset.warnings:
        on_event(Warned(warning))
    for seed in seeds:
        recipe.changed(seed=seed)  # whatever is wrong with one is said before all
    executor = executor or Local()
    with executor, files.working_in(out):
        plan = Plan(
            command=conditions.command,
            recipe=recipe.model_dump(),
            frameworks=list(frameworks),
            seeds=list(seeds),
            order=[turn.name for turn in turns(frameworks, seeds)],
            margin=MARGIN,
            data=dataset.sha256,
            conditions={
                "threads": conditions.thread_count,
                "device": conditions.device,
            },
            unavailable=unavailable,
        )
        _check_plan(out, plan, recipe)
        _save_plan(out, plan)
        prove_once(
            out / judge.PROOF_FILE,
            usable,
            recipe,
            conditions=conditions,
            on_event=on_event,
        )
        order = turns(usable, seeds)
        failures = _run_all(order, recipe, dataset, out, conditions, executor, on_event)
        _save_plan(out, plan.model_copy(update={"failures": failures}))
        return report(out)


def report(folder: Path) -> Comparison:
    """Judge the records in a comparison's folder anew and rewrite page and JSON.

    Raises:
        UserError: it is no such folder, or its plan is damaged. Other damaged records
            are left out, with a warning.
    """
    result = judge.summarise(folder)
    judge.save(folder, result)
    write_report(folder, result)
    return result


def _save_plan(out: Path, plan: Plan) -> None:
    files.write_text(out / judge.PLAN_FILE, plan.model_dump_json(indent=1) + "\n")


def _check_plan(out: Path, plan: Plan, recipe: Recipe) -> None:
    """Refuse a folder whose finished runs are not those that are asked for."""
    if not (out / judge.PLAN_FILE).exists():
        return
    earlier = judge.load_plan(out)
    if differing := recipe.differing(earlier.recipe):
        raise UserError(
            f"{out} holds a comparison of another recipe: {', '.join(differing)} "
            "differ. Choose another folder with --out, or delete that one."
        )
    if earlier.data and earlier.data != plan.data:
        raise UserError(
            f"{out} holds a comparison on other data. Choose another folder with "
            "--out, or delete that one."
        )
    for name, value in earlier.conditions.items():
        if plan.conditions.get(name) != value:
            raise UserError(
                f"{out} holds a comparison with --{name} {value}, and now there is "
                f"{plan.conditions.get(name)}: figures of both would be mixed. Type "
                f"--{name} {value}, or choose another folder with --out."
            )


def _run_all(
    order: Sequence[Turn],
    recipe: Recipe,
    dataset: record.Dataset,
    out: Path,
    conditions: Conditions,
    executor: Executor,
    on_event: OnEvent,
) -> dict[str, str]:
    """Train what is not yet finished; the messages of the runs that failed, by name."""
    failures: dict[str, str] = {}
    requests: dict[str, TrainRequest] = {}
    numbers = {turn.name: number for number, turn in enumerate(order, start=1)}
    begun: set[str] = set()

    def tell(name: str, told: Event | Exception | None) -> None:
        if name not in begun:
            begun.add(name)
            on_event(RunStarted(name, numbers[name], len(order), recipe.epochs))
        if isinstance(told, WorkerError | UserError):
            failures[name] = str(told)
        elif isinstance(told, Exception):
            raise told
        elif told is not None:
            on_event(RunTold(name, told))
            return
        on_event(RunEnded(name, failures.get(name)))

    for turn in order:
        own = recipe.changed(seed=turn.seed)
        folder = out / RUNS_FOLDER / turn.name
        try:
            if _is_finished(folder, own, dataset):
                tell(turn.name, {"event": "reused"})
                tell(turn.name, None)
                continue
        except UserError as failure:
            tell(turn.name, failure)
            continue
        command = conditions.command or f"train {turn.framework} in {folder}"
        requests[turn.name] = TrainRequest(
            framework=turn.framework,
            conditions=replace(conditions, command=command),
            folder=folder,
            recipe=own,
        )
    executor.run(requests, tell, timed=True)
    return failures


def _is_finished(folder: Path, recipe: Recipe, dataset: record.Dataset) -> bool:
    if not (folder / record.RUN_FILE).exists():
        return False
    try:
        earlier = record.load_record(folder)
        if earlier.status != "finished":
            return False
        files.read_tensors(folder / record.PREDICTIONS_FILE)
    except UserError as error:
        raise UserError(
            f"{error} Delete {folder} and type the same command again: that run is "
            "then repeated."
        ) from None
    record.tidy(folder)
    return earlier.recipe_hash == identify(recipe, dataset)
