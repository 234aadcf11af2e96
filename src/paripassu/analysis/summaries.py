"""One framework's runs together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from paripassu.analysis.ensembles import ensemble_accuracy, seed_spread
from paripassu.analysis.kinds import kind_of, main_kind
from paripassu.analysis.plan import RUNS_FOLDER, Plan, planned_runs
from paripassu.analysis.reading import Run, Runs
from paripassu.analysis.schema import (
    Estimate,
    FrameworkSummary,
    InferenceTime,
    Spread,
)
from paripassu.analysis.statistics import as_share, mean_estimate, spread, wilson
from paripassu.analysis.text import fate
from paripassu.core.record import RunRecord
from paripassu.frameworks.registry import FRAMEWORKS


def summarise_framework(
    plan: Plan,
    framework: str,
    records: Mapping[str, RunRecord],
    runs: Runs,
    damage: Mapping[str, str],
) -> FrameworkSummary:
    """What the page and the table tell of a framework, missing or failed too.

    Times are those of the runs on one kind of machine; all else is of all runs.
    """
    finished = [run for run in runs.values() if run.record.framework == framework]
    kind = main_kind(run.record for run in runs.values())
    timed = [run for run in finished if kind_of(run.record.environment) == kind]
    epochs = [epoch for run in timed for epoch in run.record.epochs]
    missing = framework in plan.unavailable
    return FrameworkSummary(
        status="missing" if missing else "ok" if finished else "failed",
        message=_message(plan, framework, records, finished, damage),
        runs=[f"{RUNS_FOLDER}/{run.name}" for run in finished],
        seeds=[run.record.seed for run in finished],
        version=_version(framework, finished),
        test_accuracy=_accuracy(finished),
        ensemble_accuracy=ensemble_accuracy(finished),
        seed_spread=seed_spread(finished),
        test_loss=mean_estimate([run.result.test_loss for run in finished])
        if finished
        else None,
        epoch_seconds=_spread(epoch.seconds for epoch in epochs),
        evaluation_seconds=_spread(epoch.evaluation_seconds for epoch in epochs),
        start_up_seconds=_session_seconds(timed, "start_up"),
        data_seconds=_session_seconds(timed, "data"),
        build_seconds=_session_seconds(timed, "build"),
        warm_up_seconds=_session_seconds(timed, "warm_up"),
        peak_memory_bytes=_median_bytes(
            run.record.peak_memory_bytes for run in finished
        ),
        peak_accelerator_bytes=_median_bytes(
            run.record.peak_accelerator_bytes for run in finished
        ),
        inference=_inference(timed),
    )


def _message(
    plan: Plan,
    framework: str,
    records: Mapping[str, RunRecord],
    finished: Sequence[Run],
    damage: Mapping[str, str],
) -> str | None:
    if framework in plan.unavailable:
        return plan.unavailable[framework]
    done = {run.name for run in finished}
    planned = [name for kind, _, name in planned_runs(plan) if kind == framework]
    left = [name for name in planned if name not in done]
    if not left:
        return None
    reasons = [f"{name}: {fate(plan, name, records, damage)}" for name in left]
    again = f"To go on, type again: {plan.command}"
    readable = " and can be read" if damage.keys() & set(planned) else ""
    count = f"{len(done)} of {len(planned)} runs finished{readable}."
    return "\n".join([count, *reasons, again])


def _version(framework: str, finished: Sequence[Run]) -> str | None:
    if framework not in FRAMEWORKS:
        return None
    find = FRAMEWORKS[framework].version_in
    versions = (find(run.record.environment.versions) for run in finished)
    return next(filter(None, versions), None)


def _accuracy(finished: Sequence[Run]) -> Estimate | None:
    if not finished:
        return None
    if len(finished) == 1:
        result = finished[0].result
        return wilson(result.test_correct, result.test_count)
    shares = [run.result.test_correct / run.result.test_count for run in finished]
    return as_share(mean_estimate(shares))


def _spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    return spread(known) if known else None


def _session_seconds(finished: Sequence[Run], stage: str) -> Spread | None:
    return _spread(
        session.seconds[stage]
        for run in finished
        for session in run.record.sessions
        if stage in session.seconds
    )


def _median_bytes(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known))) if known else None


def _inference(finished: Sequence[Run]) -> InferenceTime | None:
    measured = [x for run in finished if (x := run.record.inference)]
    if not measured:
        return None
    size = measured[0].batch_size
    alike = [one.batch_seconds for one in measured if one.batch_size == size]
    return InferenceTime(
        single_seconds=spread([one.single_seconds for one in measured]),
        batch_seconds=spread(alike),
        batch_size=size,
    )
