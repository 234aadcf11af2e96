"""Many runs of one inquiry: which are finished already, and the rest trained."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from paripassu.analysis.plan import RUNS_FOLDER, run_name_by_hash
from paripassu.core import datasets, record
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.recipe import Recipe
from paripassu.processes.conditions import Conditions
from paripassu.processes.executors import Executor
from paripassu.processes.launch import Event
from paripassu.processes.requests import TrainRequest
from paripassu.training.events import RunFinished, RunTold, Scheduled

Key = TypeVar("Key", bound=Hashable)
Told = Scheduled | RunTold | RunFinished


@dataclass(frozen=True)
class Job(Generic[Key]):
    """One run.

    Attributes:
        key: what the inquiry knows it by.
        framework: trains it.
        recipe: with the run's own seed.
        identity: the hash of all that decides the result.
        title: for people.
    """

    key: Key
    framework: str
    recipe: Recipe
    identity: str
    title: str

    @property
    def name(self) -> str:
        """The run's folder under `runs/`: any inquiry there finds it again."""
        return run_name_by_hash(self.framework, self.identity, self.recipe.seed)


def read_for_all(
    recipes: Iterable[Recipe], conditions: Conditions
) -> tuple[record.Dataset, list[str]]:
    """What the data are, and warnings, once they have been prepared for every recipe.

    Raises:
        UserError: the data are damaged, or do not fit a recipe.
    """
    data = datasets.load(conditions.data)
    found: dict[tuple[object, ...], record.Dataset] = {}
    for recipe in recipes:
        mean, std = recipe.normalization.mean, recipe.normalization.std
        key = str(mean), str(std), recipe.validation_size
        data.check_fits(recipe.architecture)
        if key not in found:
            prepared = datasets.prepare(
                data, mean=mean, std=std, validation_size=recipe.validation_size
            )
            found[key] = datasets.describe(data, prepared)
    warnings = dict.fromkeys(text for x in found.values() for text in x.warnings)
    return next(iter(found.values())), list(warnings)


def finished(out: Path, jobs: Sequence[Job[Key]]) -> dict[Key, record.RunRecord]:
    """The runs that need not be made, known by their `run.json` alone.

    Raises:
        UserError: a record is damaged, or is another run's.
    """
    found = {}
    for job in jobs:
        folder = out / RUNS_FOLDER / job.name
        if not (folder / record.RUN_FILE).exists():
            continue
        try:
            earlier = record.load_record(folder)
        except UserError as error:
            raise UserError(
                f"{error} Delete {folder} and type the same command again: that run is "
                "then repeated."
            ) from None
        if _is_finished(earlier, job):
            record.tidy(folder)
            found[job.key] = earlier
        elif earlier.status == "finished":
            raise UserError(
                f"{folder} holds another run than its name says. Delete it and type "
                "the same command again: that run is then repeated."
            )
    return found


def _is_finished(earlier: record.RunRecord, job: Job[Key]) -> bool:
    return (
        earlier.status == "finished"
        and earlier.result is not None
        and bool(earlier.epochs)
        and earlier.framework == job.framework
        and earlier.recipe_hash == job.identity
    )


def train_all(
    jobs: Sequence[Job[Key]],
    records: dict[Key, record.RunRecord],
    out: Path,
    conditions: Conditions,
    executor: Executor,
    on_event: Callable[[Told], None],
    on_end: Callable[[Job[Key], Mapping[str, str]], None] = lambda _job, _failed: None,
    *,
    timed: bool = False,
) -> dict[str, str]:
    """Train what is missing in `records`, which grows by each run that finishes.

    Args:
        jobs: all runs; those named first begin first.
        records: the finished runs by their keys.
        out: the inquiry's folder.
        conditions: of every run.
        executor: where they are made.
        on_event: told of progress; a run is known by its title.
        on_end: called after each run, with the failures so far.
        timed: whether times matter; otherwise each run has one thread.

    Returns:
        The messages of the runs that failed, by the names of their folders.
    """
    missing = {job.name: job for job in jobs if job.key not in records}
    threads = conditions.threads if timed else 1
    requests = {
        name: TrainRequest(
            framework=job.framework,
            conditions=replace(conditions, threads=threads),
            folder=out / RUNS_FOLDER / name,
            recipe=job.recipe,
        )
        for name, job in missing.items()
    }
    failures: dict[str, str] = {}
    epochs = {job.title: job.recipe.epochs for job in missing.values()}
    on_event(Scheduled(epochs, reused=len(records)))

    def tell(name: str, told: Event | Exception | None) -> None:
        job = missing[name]
        if isinstance(told, WorkerError | UserError):
            failures[name] = f"{job.title}: {told}"
            on_event(RunFinished(job.title, str(told)))
        elif isinstance(told, Exception):
            raise told
        elif told is not None:
            on_event(RunTold(job.title, told))
            return
        else:
            records[job.key] = record.load_record(out / RUNS_FOLDER / name)
            on_event(RunFinished(job.title, records[job.key]))
        on_end(job, failures)

    executor.run(requests, tell, timed=timed)
    return failures
