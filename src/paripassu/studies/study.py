"""Run a study: whatever of its grid is not yet done, then one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from paripassu.analysis.report import study_page
from paripassu.analysis.study.forecast import Forecast, forecast
from paripassu.analysis.study.results import STUDY_FILE, Key, Plan, Study, judge
from paripassu.analysis.text import display_name
from paripassu.core import files, record
from paripassu.core.errors import UserError
from paripassu.core.experiment import identify
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.executors import Executor, Local
from paripassu.training.events import RunFinished, RunTold, Scheduled, Warned
from paripassu.training.jobs import Job, finished, read_for_all, train_all

PICTURE_FILE = "study.svg"
PAGE_FILE = "report.html"
EVERY = 20  # runs between two reports of an unfinished study


@dataclass(frozen=True)
class Planned:
    """What is to be run, before the first run begins.

    Attributes:
        plan: the whole.
        done: how many runs are finished.
        forecast: of those that are not.
        places: how many runs go on at once.
    """

    plan: Plan
    done: int
    forecast: Forecast
    places: int


StudyEvent = Warned | Planned | Scheduled | RunTold | RunFinished
OnEvent = Callable[[StudyEvent], None]


def prepare(
    plan: Plan,
    *,
    out: str | Path,
    conditions: Conditions = DEFAULT,
    executor: Executor | None = None,
) -> Planned:
    """How much of a plan is done, and how long the rest will take; nothing is run.

    Raises:
        UserError: data or folder are not usable, or the executor's place cannot be
            reached.
    """
    executor = executor or Local()
    jobs, dataset, _ = _jobs(plan, conditions)
    with executor:
        return _planned(plan, jobs, Path(out), dataset, conditions, executor)


def study(
    plan: Plan,
    *,
    out: str | Path,
    conditions: Conditions = DEFAULT,
    executor: Executor | None = None,
    on_event: OnEvent = lambda _event: None,
) -> Study:
    """Train whatever is not yet trained, and report what is there.

    A run that fails is reported, and the others go on.

    Args:
        plan: from `plan_file.read`.
        out: the study's folder; finished runs in it are used as they are.
        conditions: data and device; threads only where times matter, else one.
        executor: where the runs are made; None: here.
        on_event: called with warnings and progress; a run is known by its title.

    Returns:
        What `study.json` in `out` holds; `report.html` and `study.svg` are beside it.

    Raises:
        UserError: before any training: data or folder are not usable, or the
            executor's place cannot be reached.
    """
    out, executor = Path(out), executor or Local()
    jobs, dataset, warnings = _jobs(plan, conditions)
    for text in (*plan.absent, *warnings):
        on_event(Warned(text))
    with executor, files.working_in(out):
        _check_same_data(out, dataset)
        records = finished(out, jobs)
        on_event(_planned(plan, jobs, out, dataset, conditions, executor))

        def publish(failures: Mapping[str, str]) -> Study:
            result = judge(
                plan,
                records,
                data=dataset.sha256,
                notes=warnings,
                failures=failures,
            )
            files.write_text(out / STUDY_FILE, result.model_dump_json(indent=1) + "\n")
            files.write_text(out / PICTURE_FILE, study_page.picture(result))
            files.write_text(out / PAGE_FILE, study_page.page(result))
            return result

        ended = 0

        def on_end(_job: Job[Key], failures: Mapping[str, str]) -> None:
            nonlocal ended
            ended += 1
            if ended % EVERY == 0:
                publish(failures)

        publish({})
        failures = train_all(
            jobs,
            records,
            out,
            conditions,
            executor,
            on_event,
            on_end,
            timed=plan.timed,
        )
        return publish(failures)


def _jobs(
    plan: Plan, conditions: Conditions
) -> tuple[list[Job[Key]], record.Dataset, list[str]]:
    dataset, warnings = read_for_all((x.recipe for x in plan.variants), conditions)
    jobs = []
    for key in plan.keys:
        number, framework, seed = key
        variant = plan.variants[number]
        recipe = variant.recipe.changed(seed=seed)
        title = f"{variant.title}, {display_name(framework)}, seed {seed}"
        identity = identify(recipe, dataset)
        jobs.append(Job(key, framework, recipe, identity, title))
    return jobs, dataset, warnings


def _planned(
    plan: Plan,
    jobs: list[Job[Key]],
    out: Path,
    dataset: record.Dataset,
    conditions: Conditions,
    executor: Executor,
) -> Planned:
    records = finished(out, jobs)
    threads = conditions.thread_count if plan.timed else 1
    images = dataset.train_size + dataset.validation_size
    return Planned(
        plan,
        len(records),
        forecast(plan, records, images, threads),
        executor.places(threads, timed=plan.timed),
    )


def _check_same_data(out: Path, dataset: record.Dataset) -> None:
    """Refuse to put runs on other data beside those of an earlier study there."""
    path = out / STUDY_FILE
    if not path.exists():
        return
    try:
        earlier = Study.model_validate(files.read_json(path))
    except (UserError, ValueError):
        return  # damaged: it is made anew
    if earlier.data != dataset.sha256:
        raise UserError(
            f"{out} holds a study on other data. Choose another folder with --out, or "
            "delete that one."
        )
