"""Walk from one recipe to another, difference by difference, and see what each does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paripassu.analysis.ablation import attribution
from paripassu.analysis.ablation.attribution import Ablation, End, Inquiry, Key
from paripassu.analysis.ablation.differences import walk
from paripassu.analysis.report import waterfall
from paripassu.analysis.text import display_name
from paripassu.core import files, record
from paripassu.core.errors import UserError
from paripassu.core.experiment import identify
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.registry import asked_by_default
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.executors import Executor, Local
from paripassu.proof.short_proof import ProofEvent, prove_once
from paripassu.training.events import RunFinished, RunTold, Scheduled, Warned
from paripassu.training.jobs import Job, finished, read_for_all, train_all

PICTURE_FILE = "waterfall.svg"


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
    executor: Executor | None = None,
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
        executor: where the runs are made; None: here, one for each core.
        on_event: called with warnings and progress; a run is known by its title.

    Returns:
        What `ablation.json` in `out` holds; `waterfall.svg` is beside it.

    Raises:
        UserError: before any training: the recipes cannot be walked between, the
            framework cannot train them, data or folder are not usable, or the
            executor's place cannot be reached.
    """
    out = Path(out)
    registry.find(framework).check(start)
    way = walk(start, end)
    recipes = [[x.recipe.changed(seed=seed) for x in way.stops] for seed in seeds]
    dataset, warnings = read_for_all((x.recipe for x in way.stops), conditions)
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
            jobs.append(Job((name, stop, seed), name, own[stop], identity, title))
    executor = executor or Local()
    with executor, files.working_in(out):
        _check_same_ablation(out, start, end, dataset)
        records = finished(out, jobs)
        attribution.save(out, attribution.attribute(inquiry, records))
        if proof:
            proofs = _prove(able, start, end, out, conditions, on_event)
            inquiry = replace(inquiry, proofs=proofs)

        def on_end(job: Job[Key], failures: Mapping[str, str]) -> None:
            if _seed_is_over(job, jobs, records, failures):
                # Whoever stops us now has the ablation of the seeds so far.
                _publish(out, replace(inquiry, failures=failures), records)

        failures = train_all(jobs, records, out, conditions, executor, on_event, on_end)
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


def _seed_is_over(
    last: Job[Key],
    jobs: Sequence[Job[Key]],
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
