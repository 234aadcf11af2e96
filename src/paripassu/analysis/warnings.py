"""Warnings: whatever makes the figures less than fair."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from statistics import median

from paripassu.analysis.kinds import kind_of, main_kind
from paripassu.analysis.plan import Plan, planned_runs
from paripassu.analysis.reading import Runs
from paripassu.analysis.text import counted, fate
from paripassu.core.record import Environment, RunRecord

BUSY = 0.10  # share of the machine that other programs may use during an epoch
NOT_QUITE = "they are not quite comparable."
BUSY_WARNING = "Other programs used more than"  # how the warning of it begins


def is_busy(load: float) -> bool:
    """Whether other programs used so much of the machine that times mean little."""
    return load > BUSY


def busy_warning(load: float, threads: int) -> str | None:
    """Before a training: what others use of the machine, and what helps.

    Args:
        load: the share of all cores that others use, 0..1.
        threads: those of the training, which wait for each other in every layer.
    """
    if not is_busy(load):
        return None
    helps = "Close them" if threads == 1 else "Close them, or type --threads 1"
    return (
        f"Other programs use {load:.0%} of the machine: epochs will take longer, and "
        f"figures of time are not to be trusted. {helps}."
    )


def median_load(record: RunRecord) -> float:
    """What other programs used of the machine during a run's median epoch, 0..1."""
    return median([epoch.other_load for epoch in record.epochs] or [0.0])


def collect_warnings(
    plan: Plan,
    records: Mapping[str, RunRecord],
    runs: Runs,
    damage: Mapping[str, str],
) -> list[str]:
    """Whatever makes the figures less than fair, in plain words, each once."""
    candidates: list[str | None] = [
        *plan.warnings,
        *(text for run in runs.values() for text in run.record.dataset.warnings),
        *damage.values(),
        _unfinished_warning(plan, records, {**runs, **damage}),
        _resumed_warning(runs),
        _other_load_warning(runs),
        _shared_warning(runs),
        *_differing_machines(runs),
        *_differing_versions(runs),
    ]
    return list(dict.fromkeys(text for text in candidates if text))


def _unfinished_warning(
    plan: Plan, records: Mapping[str, RunRecord], told: Container[str]
) -> str | None:
    """Of all planned runs but those that are told of elsewhere."""
    left_out = [
        f"{name} ({fate(plan, name, records).splitlines()[0].rstrip(':')})"
        for framework, _, name in planned_runs(plan)
        if framework not in plan.unavailable and name not in told
    ]
    if not left_out:
        return None
    return f"Left out, because they did not finish: {', '.join(left_out)}."


def _resumed_warning(runs: Runs) -> str | None:
    resumed = [
        f"{run.name} ({len(run.record.sessions)} sessions)"
        for run in runs.values()
        if len(run.record.sessions) > 1
    ]
    if not resumed:
        return None
    return (
        f"Interrupted and resumed: {', '.join(resumed)}. Every session started up, "
        "loaded data and warmed up anew; the times of all sessions are counted."
    )


def _other_load_warning(runs: Runs) -> str | None:
    disturbed = []
    for run in runs.values():
        worst = max((epoch.other_load for epoch in run.record.epochs), default=0.0)
        if is_busy(worst):
            middle = median_load(run.record)
            disturbed.append(
                (middle, f"{run.name} (median epoch {middle:.0%}, worst {worst:.0%})")
            )
    if not disturbed:
        return None
    consequence = "their times are not to be trusted, though a run's median epoch is"
    if any(is_busy(middle) for middle, _ in disturbed):
        consequence = (
            "figures of time are not to be trusted, and no verdict on speed rests on "
            "them"
        )
    return (
        f"{BUSY_WARNING} {BUSY:.0%} of the machine during epochs of "
        f"{', '.join(text for _, text in disturbed)}: {consequence}. Close them and "
        "compare again into a new folder with --out."
    )


def _shared_warning(runs: Runs) -> str | None:
    """Of nodes of a cluster that a run did not have for itself."""
    sharing = [
        run.name
        for run in runs.values()
        if any(x.node and x.node.shared for x in run.record.sessions)
    ]
    if not sharing:
        return None
    return (
        f"{counted(len(sharing), 'run')} of {len(runs)} had a part of a node, and "
        "others may have used the rest meanwhile: figures of time are of that. For "
        "times of whole nodes type --exclusive, and a new folder with --out."
    )


def _of_one_kind(runs: Runs) -> str:
    """What follows where runs were made on several kinds of machines."""
    kind = main_kind(run.record for run in runs.values())
    kinds = {x.name: kind_of(x.record.environment) for x in runs.values()}
    others = [name for name, own in kinds.items() if own != kind]
    return (
        f"figures of time are of the {counted(len(runs) - len(others), 'run')} on one "
        f"kind of machine ({kind}), and those of {', '.join(others)} are left out. "
        "Accuracy is of all."
    )


def _differing_machines(runs: Runs) -> list[str | None]:
    aspects: dict[str, Callable[[Environment], str | int]] = {
        "numbers of threads": lambda x: x.threads,
        "devices": lambda x: x.device,
        "processors": lambda x: x.processor,
        "numbers of cores": lambda x: x.cores,
        "versions of Python": lambda x: x.python,
        "platforms": lambda x: x.platform,
    }
    where = {run.name: run.record.environment for run in runs.values()}
    of_a_kind = ("numbers of threads", "devices", "processors", "numbers of cores")
    return [
        _differing(
            what,
            {name: str(value(x)) for name, x in where.items()},
            _of_one_kind(runs) if what in of_a_kind else NOT_QUITE,
        )
        for what, value in aspects.items()
    ]


def _differing_versions(runs: Runs) -> list[str | None]:
    """Of each library among the runs that use it; of settings within a framework."""
    warnings = []
    versions = {run.name: run.record.environment.versions for run in runs.values()}
    for library in sorted({name for each in versions.values() for name in each}):
        values = {n: each[library] for n, each in versions.items() if library in each}
        warnings.append(_differing(f"versions of {library}", values))
    for framework in dict.fromkeys(run.record.framework for run in runs.values()):
        values = {
            run.name: _settings(run.record)
            for run in runs.values()
            if run.record.framework == framework
        }
        warnings.append(_differing("settings", values))
    return warnings


def _settings(record: RunRecord) -> str:
    settings = record.environment.settings
    return ", ".join(f"{key}={settings[key]}" for key in sorted(settings)) or "none"


def _differing(what: str, values: Mapping[str, str], so: str = NOT_QUITE) -> str | None:
    """A warning if runs differ in something that ought to be the same for all."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    if len(groups) < 2:
        return None
    listed = "; ".join(f"{value}: {', '.join(x)}" for value, x in groups.items())
    return f"The runs had different {what} ({listed}): {so}"
