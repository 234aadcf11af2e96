"""Walk from one recipe to another, difference by difference, and see what each does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paripassu.analysis.ablation import attribution
from paripassu.analysis.ablation.attribution import Ablation, End, Inquiry, Key
from paripassu.analysis.ablation.differences import Stop, walk
from paripassu.analysis.plan import RUNS_FOLDER
from paripassu.analysis.report import waterfall
from paripassu.analysis.text import display_name
from paripassu.core import datasets, files, record
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.experiment import identify
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.registry import asked_by_default
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.pool import run_all
from paripassu.processes.requests import TrainRequest
from paripassu.proof.short_proof import ProofEvent, prove_once
from paripassu.training.events import RunTold, Warned

PICTURE_FILE = "waterfall.svg"


@dataclass(frozen=True)
class Job:
    """One run of an ablation."""

    key: Key
    recipe: Recipe  # with the run's own seed
    identity: str  # the hash of all that decides the result
    title: str  # for people

    @property
    def name(self) -> str:
        """The run's folder under `runs/`."""
        framework, _stop, seed = self.key
        return attribution.run_name(framework, self.identity, seed)


@dataclass(frozen=True)
class Scheduled:
    """The trainings are about to begin, several at a time."""

    epochs: Mapping[str, int]  # of each run that is missing, by its title
    reused: int  # runs that are finished already


@dataclass(frozen=True)
class RunFinished:
    """A run is over."""

    title: str
    outcome: record.RunRecord | str  # its record, or why it failed


AblationEvent = Warned | ProofEvent | Scheduled | RunTold | RunFinished
OnEvent = Callable[[AblationEvent], None]


def ablate(
    start: Recipe,
    end: Recipe,
    *,
    framework: str,
    seeds: Sequence[int],
    out: str | Path,
    conditions: Conditions = DEFAULT,
    proof: bool = True,
    on_event: OnEvent = lambda _event: None,
) -> Ablation:
    """Train every stop that is not yet trained, and attribute what changes.

    Nothing is timed: each run has one thread, and as many run at once as there are
    cores. A run that fails is reported, and the others go on.

    Args:
        start: FROM.
        end: TO, of the same network; its seed is not used.
        framework: trains all stops; the others that can train FROM and TO.
        seeds: every stop is trained with each, all stops of the first seed first.
        out: the ablation's folder; finished runs in it are used as they are.
        conditions: data and device.
        proof: whether to prove first that the twins are equal on both recipes. A
            proof that fails is reported, and the training goes on.
        on_event: called with warnings and progress; a run is known by its title.

    Returns:
        What `ablation.json` in `out` holds; `waterfall.svg` is beside it.

    Raises:
        UserError: before any training: the recipes cannot be walked between, the
            framework cannot train them, or data or folder are not usable.
    """
    out = Path(out)
    registry.find(framework).check(start)
    way = walk(start, end)
    recipes = [[x.recipe.changed(seed=seed) for x in way.stops] for seed in seeds]
    dataset, warnings = _read_data(way.stops, conditions)
    able, problems = _able(start, framework)
    absent = [f"{text} The gap between the frameworks is unknown." for text in problems]
    for text in (*warnings, *absent):
        on_event(Warned(text))
    inquiry = Inquiry(
        walk=way,
        framework=framework,
        frameworks=tuple(able),
        seeds=tuple(seeds),
        data=dataset.sha256,
        whose_data=dataset.sentence,
        command=conditions.command,
        notes=(*warnings, *absent),
    )
    jobs = []
    for seed, own in zip(seeds, recipes, strict=True):
        for name, stop in inquiry.cells:
            identity = identify(own[stop], dataset)
            title = f"{display_name(name)} seed {seed}, {way.stops[stop].label}"
            jobs.append(Job((name, stop, seed), own[stop], identity, title))
    with files.working_in(out):
        _check_same_ablation(out, start, end, dataset)
        records = _finished(out, jobs)
        attribution.save(out, attribution.attribute(inquiry, records))
        if proof:
            proofs = _prove(able, start, end, out, conditions, on_event)
            inquiry = replace(inquiry, proofs=proofs)
        failures = _train(jobs, records, inquiry, out, conditions, on_event)
        return _publish(out, replace(inquiry, failures=failures), records)


def _able(recipe: Recipe, own: str) -> tuple[list[str], list[str]]:
    """The frameworks that can train a recipe, `own` too, and why others can't."""
    able, problems = [], []
    for name in dict.fromkeys([*(x.name for x in asked_by_default()), own]):
        try:
            registry.find(name).check(recipe)
            able.append(name)
        except UserError as error:
            problems.append(str(error))
    return able, problems


def _read_data(
    stops: Sequence[Stop], conditions: Conditions
) -> tuple[record.Dataset, list[str]]:
    """What the data are, and warnings, once they have been prepared for every stop."""
    data = datasets.load(conditions.data)
    found: dict[tuple[object, ...], record.Dataset] = {}
    for recipe in (stop.recipe for stop in stops):
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


def _check_same_ablation(
    out: Path, start: Recipe, end: Recipe, dataset: record.Dataset
) -> None:
    """Refuse to put this ablation in another one's place; its runs are no matter."""
    if not (out / attribution.ABLATION_FILE).exists():
        return
    try:
        earlier = attribution.load(out)
    except UserError:
        return  # damaged: it is made anew
    differing = [
        f"{key} of {side}"
        for side, old, new in (("FROM", earlier.start, start), ("TO", earlier.end, end))
        for key in new.differing(old)
    ]
    if earlier.data != dataset.sha256:
        differing.append("the data")
    if differing:
        raise UserError(
            f"{out} holds another ablation: {', '.join(differing)} differ. Choose "
            "another folder with --out, or delete that one."
        )


def _finished(out: Path, jobs: Sequence[Job]) -> dict[Key, record.RunRecord]:
    """The runs that need not be made, known by their `run.json` alone."""
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


def _is_finished(earlier: record.RunRecord, job: Job) -> bool:
    return (
        earlier.status == "finished"
        and earlier.result is not None
        and bool(earlier.epochs)
        and earlier.framework == job.key[0]
        and earlier.recipe_hash == job.identity
    )


def _prove(
    names: Sequence[str],
    start: Recipe,
    end: Recipe,
    out: Path,
    conditions: Conditions,
    on_event: OnEvent,
) -> dict[End, bool]:
    sides: dict[End, Recipe] = {"FROM": start, "TO": end}
    return {
        side: prove_once(
            out / f"proof-{side.lower()}.json",
            names,
            recipe,
            conditions=conditions,
            title=f"proof on {recipe.name}",
            on_event=on_event,
        ).holds
        for side, recipe in sides.items()
    }


def _train(
    jobs: Sequence[Job],
    records: dict[Key, record.RunRecord],
    inquiry: Inquiry,
    out: Path,
    conditions: Conditions,
    on_event: OnEvent,
) -> dict[str, str]:
    """Train what is missing in `records`; the messages of the runs that failed."""
    open_jobs = {job.name: job for job in jobs if job.key not in records}
    requests = {
        name: TrainRequest(
            framework=job.key[0],
            conditions=replace(conditions, threads=1),
            folder=out / RUNS_FOLDER / name,
            recipe=job.recipe,
        )
        for name, job in open_jobs.items()
    }
    failures: dict[str, str] = {}
    epochs = {job.title: job.recipe.epochs for job in open_jobs.values()}
    on_event(Scheduled(epochs, reused=len(records)))
    for name, event in run_all(requests):
        job = open_jobs[name]
        if isinstance(event, WorkerError | UserError):
            failures[name] = f"{job.title}: {event}"
            on_event(RunFinished(job.title, str(event)))
        elif isinstance(event, Exception):
            raise event
        elif event is not None:
            on_event(RunTold(job.title, event))
            continue
        else:
            records[job.key] = record.load_record(out / RUNS_FOLDER / name)
            on_event(RunFinished(job.title, records[job.key]))
        if _seed_is_over(job, jobs, records, failures):
            # Whoever stops us now has the ablation of the seeds so far.
            _publish(out, replace(inquiry, failures=failures), records)
    return failures


def _seed_is_over(
    last: Job,
    jobs: Sequence[Job],
    records: Mapping[Key, record.RunRecord],
    failures: Mapping[str, str],
) -> bool:
    return all(
        job.key in records or job.name in failures
        for job in jobs
        if job.key[2] == last.key[2]
    )


def _publish(
    out: Path, inquiry: Inquiry, records: Mapping[Key, record.RunRecord]
) -> Ablation:
    result = attribution.attribute(inquiry, records)
    attribution.save(out, result)
    files.write_text(out / PICTURE_FILE, waterfall.picture(result))
    return result
