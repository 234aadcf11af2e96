"""From a folder of runs to `comparison.json`: figures, verdicts and warnings.

Reads records only; the runs themselves are neither needed nor touched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from paripassu.analysis.schema import (
    Comparison,
    Disagreement,
    Estimate,
    FrameworkSummary,
    InferenceTime,
    Pair,
    Proof,
    Spread,
)
from paripassu.analysis.statistics import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    TYPICAL_SD,
    Decision,
    bootstrap_estimate,
    churn,
    decide,
    discordant,
    mcnemar_p,
    mean_estimate,
    spread,
    wilson,
)
from paripassu.core.errors import UserError
from paripassu.core.files import read_json, read_tensors, write_text
from paripassu.core.record import (
    PREDICTIONS_FILE,
    RUN_FILE,
    Dataset,
    Inference,
    Model,
    Result,
    RunRecord,
    load_record,
)

PLAN_FILE = "plan.json"
PROOF_FILE = "proof.json"
COMPARISON_FILE = "comparison.json"
RUNS_FOLDER = "runs"

MOST_DISAGREEMENTS = 24
BUSY = 0.10  # share of the machine that other programs may use during an epoch
LOADED = 0.5  # load average per core that is noticeably high at the start

DISPLAY_NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}

Checked = TypeVar("Checked", bound=Model)


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
    unavailable: dict[str, str] = Field(
        default_factory=dict
    )  # framework -> why, and what to type
    failures: dict[str, str] = Field(
        default_factory=dict
    )  # run name -> what went wrong
    warnings: list[str] = Field(default_factory=list)  # of the recipe, passed through


@dataclass(frozen=True)
class Run:
    """A finished run: its record, and its answers to the test images."""

    name: str
    record: RunRecord
    result: Result
    labels: npt.NDArray[np.int64]  # (N,)
    answers: npt.NDArray[np.int64]  # (N,)
    correct: npt.NDArray[np.bool_]  # (N,)
    probabilities: npt.NDArray[np.float64]  # (N,), of the own answer, 0..1


Runs = Mapping[str, Run]  # finished runs by name, in the order of the plan


def summarise(folder: Path, created: str | None = None) -> Comparison:
    """Read the plan and the runs of a comparison folder, and judge them.

    Args:
        folder: holds `plan.json`, `runs/<framework>-seed<seed>/` and perhaps
            `proof.json`. Runs that are unfinished or absent are left out, and named.
        created: ISO 8601 time to write into the comparison; now, if not given.

    Raises:
        UserError: a file is missing or damaged, or runs do not belong together.
    """
    plan = load_plan(folder)
    proof_path = folder / PROOF_FILE
    proof = _checked(Proof, proof_path) if proof_path.exists() else None
    records = _load_records(folder, plan)
    runs = {
        name: _load_run(folder, name, record)
        for name, record in records.items()
        if record.status == "finished"
    }
    _check_same_experiment(runs)
    first = next(iter(runs.values()), None)
    return Comparison(
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        command=plan.command,
        recipe=plan.recipe,
        dataset=first.record.dataset if first else None,
        environment=first.record.environment if first else None,
        seeds=plan.seeds,
        order=plan.order,
        frameworks={
            framework: _framework(plan, framework, records, runs)
            for framework in plan.frameworks
        },
        pairs=[
            _pair(plan, left, right, runs)
            for left, right in itertools.combinations(plan.frameworks, 2)
        ],
        proof=proof,
        warnings=_warnings(plan, records, runs),
    )


def save(folder: Path, comparison: Comparison) -> None:
    """Write `comparison.json`, whole or not at all."""
    write_text(folder / COMPARISON_FILE, comparison.model_dump_json(indent=1) + "\n")


def load(folder: Path) -> Comparison:
    """Read `comparison.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return _checked(Comparison, folder / COMPARISON_FILE)


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
    plan = _checked(Plan, folder / PLAN_FILE)
    known = {run_name(*pair) for pair in itertools.product(plan.frameworks, plan.seeds)}
    strangers = [name for name in plan.order if name not in known]
    if strangers:
        raise UserError(
            f"{folder / PLAN_FILE} is damaged: its order names {', '.join(strangers)}, "
            "which its frameworks and seeds do not make."
        )
    return plan


def display_name(framework: str) -> str:
    """A framework's name as its makers write it: "pytorch" -> "PyTorch"."""
    return DISPLAY_NAMES.get(framework, framework.title())


def run_name(framework: str, seed: int) -> str:
    """The folder of a run, below `runs/`."""
    return f"{framework}-seed{seed}"


def points(fraction: float, decimals: int = 2) -> str:
    """A signed fraction as percentage points: 0.0012 -> "+0.12", and never "-0.00"."""
    value = round(100 * fraction, decimals)
    if value == 0:
        return f"{0:.{decimals}f}"
    return f"{value:+.{decimals}f}".replace("-", "−")


# Reading


def _checked(model: type[Checked], path: Path) -> Checked:
    content = read_json(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(
            f"{path} is damaged: {where}: {first['msg']}. Delete it and run the "
            "comparison again: finished runs are kept."
        ) from error


def _load_records(folder: Path, plan: Plan) -> dict[str, RunRecord]:
    """The records of all planned runs that were at least begun."""
    records = {}
    for framework, seed, name in _planned(plan):
        path = folder / RUNS_FOLDER / name
        if framework in plan.unavailable or not (path / RUN_FILE).exists():
            continue
        record = load_record(path)
        if (record.framework, record.seed) != (framework, seed):
            raise UserError(
                f"{path / RUN_FILE}: expected {framework} with seed {seed}, came "
                f"{record.framework} with seed {record.seed}. Delete {path} and run "
                "the comparison again."
            )
        records[name] = record
    return records


def _planned(plan: Plan) -> list[tuple[str, int, str]]:
    """Framework, seed and name of every run, in the order of the plan."""
    known = {
        run_name(framework, seed): (framework, seed)
        for framework in plan.frameworks
        for seed in plan.seeds
    }
    return [(*known[name], name) for name in dict.fromkeys([*plan.order, *known])]


def _load_run(folder: Path, name: str, record: RunRecord) -> Run:
    path = folder / RUNS_FOLDER / name / PREDICTIONS_FILE
    if record.result is None:
        raise UserError(
            f"{path.with_name(RUN_FILE)} says that the run is finished, but has no "
            f"result. Delete {path.parent} and run the comparison again."
        )
    tensors, _ = read_tensors(path)
    problem = _problem_of(tensors, record.result)
    if problem:
        raise UserError(
            f"{path} is damaged: {problem}. Delete {path.parent} and run the "
            "comparison again."
        )
    logits = tensors["logits"].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    labels = tensors["labels"].astype(np.int64)
    answers = logits.argmax(axis=1)
    return Run(
        name=name,
        record=record,
        result=record.result,
        labels=labels,
        answers=answers,
        correct=answers == labels,
        probabilities=1 / np.exp(logits).sum(axis=1),
    )


def _problem_of(tensors: Mapping[str, npt.NDArray[Any]], result: Result) -> str | None:
    """What is wrong with the tensors of a predictions file, if anything."""
    missing = {"logits", "labels"} - tensors.keys()
    if missing:
        return f"expected logits and labels, {' and '.join(sorted(missing))} missing"
    logits, labels = tensors["logits"], tensors["labels"]
    count = result.test_count
    fits = logits.ndim == 2 and len(logits) == count and labels.shape == (count,)
    if count < 1 or not fits:
        return (
            f"expected logits ({count}, classes) and labels ({count},), came "
            f"{logits.shape} and {labels.shape}"
        )
    if not np.isfinite(logits).all():
        return "some logits are not finite"
    if not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        return f"expected labels 0..{logits.shape[1] - 1}, came others"
    own = logits[np.arange(count), labels.astype(np.int64)]
    among_best = own == logits.max(axis=1)
    alone = (logits == own[:, np.newaxis]).sum(axis=1) == 1
    if not (among_best & alone).sum() <= result.test_correct <= among_best.sum():
        return (
            f"{among_best.sum()} of its answers are right, but {RUN_FILE} says "
            f"{result.test_correct}"
        )
    return None


def _check_same_experiment(runs: Runs) -> None:
    first = next(iter(runs.values()), None)
    if first is None:
        return
    by_seed: dict[int, Run] = {}
    for run in runs.values():
        if _images(run.record.dataset) != _images(first.record.dataset) or (
            not np.array_equal(run.labels, first.labels)
        ):
            raise UserError(
                f"{run.name} was trained or tested on other images than {first.name}: "
                "they cannot be compared. Compare into a new folder with --out."
            )
        same_seed = by_seed.setdefault(run.record.seed, run)
        if run.record.recipe_hash != same_seed.record.recipe_hash:
            raise UserError(
                f"{run.name} followed another recipe than {same_seed.name}: they "
                "cannot be compared. Compare into a new folder with --out."
            )


def _images(dataset: Dataset) -> tuple[object, ...]:
    return (
        dataset.sha256,
        dataset.train_size,
        dataset.validation_size,
        dataset.test_size,
    )


# One framework


def _framework(
    plan: Plan, framework: str, records: Mapping[str, RunRecord], runs: Runs
) -> FrameworkSummary:
    finished = [run for run in runs.values() if run.record.framework == framework]
    epochs = [epoch for run in finished for epoch in run.record.epochs]
    return FrameworkSummary(
        status=_status(plan, framework, finished),
        message=_message(plan, framework, records, finished),
        runs=[f"{RUNS_FOLDER}/{run.name}" for run in finished],
        seeds=[run.record.seed for run in finished],
        version=_version(framework, finished),
        test_accuracy=_accuracy(finished),
        test_loss=mean_estimate([run.result.test_loss for run in finished])
        if finished
        else None,
        epoch_seconds=_spread(epoch.seconds for epoch in epochs),
        evaluation_seconds=_spread(epoch.evaluation_seconds for epoch in epochs),
        start_up_seconds=_session_seconds(finished, "start_up"),
        data_seconds=_session_seconds(finished, "data"),
        build_seconds=_session_seconds(finished, "build"),
        warm_up_seconds=_session_seconds(finished, "warm_up"),
        peak_memory_bytes=_median_bytes(
            run.record.peak_memory_bytes for run in finished
        ),
        peak_accelerator_bytes=_median_bytes(
            run.record.peak_accelerator_bytes for run in finished
        ),
        inference=_inference(finished),
    )


def _status(
    plan: Plan, framework: str, finished: Sequence[Run]
) -> Literal["ok", "missing", "failed"]:
    if framework in plan.unavailable:
        return "missing"
    return "ok" if finished else "failed"


def _message(
    plan: Plan,
    framework: str,
    records: Mapping[str, RunRecord],
    finished: Sequence[Run],
) -> str | None:
    if framework in plan.unavailable:
        return plan.unavailable[framework]
    done = {run.name for run in finished}
    planned = [name for kind, _, name in _planned(plan) if kind == framework]
    if done.issuperset(planned):
        return None
    reasons = [
        f"{name}: {_fate(plan, name, records)}" for name in planned if name not in done
    ]
    again = f"To go on, type again: {plan.command}"
    return "\n".join([f"{len(done)} of {len(planned)} runs finished.", *reasons, again])


def _fate(plan: Plan, name: str, records: Mapping[str, RunRecord]) -> str:
    """Why a run is not finished."""
    if name in plan.failures:
        return f"failed: {plan.failures[name]}"
    if name in records:
        return f"stopped after {_counted(len(records[name].epochs), 'epoch')}"
    return "not started"


def _version(framework: str, finished: Sequence[Run]) -> str | None:
    library = {"pytorch": "torch"}.get(framework, framework)
    for run in finished:
        if library in run.record.environment.versions:
            return run.record.environment.versions[library]
    return None


def _accuracy(finished: Sequence[Run]) -> Estimate | None:
    if not finished:
        return None
    if len(finished) == 1:
        result = finished[0].result
        return wilson(result.test_correct, result.test_count)
    return _share(
        mean_estimate(
            [run.result.test_correct / run.result.test_count for run in finished]
        )
    )


def _share(estimate: Estimate) -> Estimate:
    """An estimate whose interval ends at 0 and 1."""
    if estimate.low is None or estimate.high is None:
        return estimate
    bounds = {"low": max(0.0, estimate.low), "high": min(1.0, estimate.high)}
    return estimate.model_copy(update=bounds)


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
    measured: list[Inference] = [
        run.record.inference for run in finished if run.record.inference is not None
    ]
    if not measured:
        return None
    size = measured[0].batch_size
    alike = [one.batch_seconds for one in measured if one.batch_size == size]
    return InferenceTime(
        single_seconds=spread([one.single_seconds for one in measured]),
        batch_seconds=spread(alike),
        batch_size=size,
    )


# Two frameworks


def _pair(plan: Plan, left: str, right: str, runs: Runs) -> Pair:
    couples = [
        (runs[run_name(left, seed)], runs[run_name(right, seed)])
        for seed in dict.fromkeys(plan.seeds)
        if run_name(left, seed) in runs and run_name(right, seed) in runs
    ]
    differences = [
        (one.result.test_correct - other.result.test_correct) / one.result.test_count
        for one, other in couples
    ]
    decision = decide(differences, plan.margin, _assumed_sd(couples))
    single = couples[0] if len(couples) == 1 else None
    found = [item for couple in couples for item in _disagreements(*couple)]
    return Pair(
        left=left,
        right=right,
        seeds=[one.record.seed for one, _ in couples],
        difference=decision.difference,
        equivalence=decision.equivalence,
        sign_flip_p=decision.sign_flip_p,
        mcnemar_p=mcnemar_p(single[0].correct, single[1].correct) if single else None,
        verdict=decision.verdict,
        more_seeds=decision.more_seeds,
        sentence=sentence(left, right, decision),
        churn=_churn(couples),
        disagreements=_most_confident(found),
        disagreement_count=len(found),
    )


def _assumed_sd(couples: Sequence[tuple[Run, Run]]) -> float:
    """What to expect of the spread over seeds, before two pairs have shown it.

    The usual 0.0008 of 10,000 MNIST images or, on a small or hard test set, the
    larger sqrt(discordant) / images: McNemar's variance if neither side is better.
    """
    if not couples:
        return TYPICAL_SD
    one, other = couples[0]
    images = sum(discordant(one.correct, other.correct))
    return max(TYPICAL_SD, math.sqrt(images) / len(one.labels))


def _churn(couples: Sequence[tuple[Run, Run]]) -> Estimate | None:
    if not couples:
        return None
    if len(couples) == 1:
        one, other = couples[0]
        return wilson(int(np.sum(one.answers != other.answers)), len(one.answers))
    shares = [churn(one.answers, other.answers) for one, other in couples]
    return _share(bootstrap_estimate(shares))


def _disagreements(one: Run, other: Run) -> list[Disagreement]:
    return [
        Disagreement(
            index=int(index),
            label=int(one.labels[index]),
            seed=one.record.seed,
            left=int(one.answers[index]),
            right=int(other.answers[index]),
            left_probability=float(one.probabilities[index]),
            right_probability=float(other.probabilities[index]),
        )
        for index in np.flatnonzero(one.answers != other.answers)
    ]


def _most_confident(found: Sequence[Disagreement]) -> list[Disagreement]:
    """Up to 24 images, each once, where the less sure of the two is the surest."""
    by_confidence = sorted(
        found,
        key=lambda x: (-min(x.left_probability, x.right_probability), x.index, x.seed),
    )
    distinct: dict[int, Disagreement] = {}
    for item in by_confidence:
        distinct.setdefault(item.index, item)
    return list(distinct.values())[:MOST_DISAGREEMENTS]


# Words


def sentence(left: str, right: str, decision: Decision) -> str:
    """A verdict in two or three plain sentences, with n and in percentage points."""
    one, other = display_name(left), display_name(right)
    if decision.difference is None:
        return (
            f"No seed was finished in both {one} and {other}: there is nothing to "
            f"compare. At least {FEWEST_SEEDS} paired seeds are needed for a verdict."
        )
    write = {"equivalent": _equivalent, "different": _different}.get(
        decision.verdict, _undecided
    )
    return write(one, other, decision, decision.difference)


def _equivalent(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    test = decision.equivalence
    assert test is not None
    decimals = _decimals(decision.margin)
    text = (
        f"Over {estimate.n} paired seeds, {one} and {other} are equivalent: the mean "
        f"difference in test accuracy ({one} − {other}) is "
        f"{points(estimate.mean, decimals)} points (90% interval "
        f"{points(test.low, decimals)} to {points(test.high, decimals)}), inside the "
        f"margin of {_margin(decision)} points (two one-sided t tests, {_p(test.p)})."
    )
    if decision.small_but_there:
        text += (
            " A difference of such a size is there (sign-flip test, "
            f"{_p(decision.sign_flip_p)}), but it is smaller than the margin."
        )
    return text


def _different(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    better = one if estimate.mean > 0 else other
    return (
        f"Over {estimate.n} paired seeds, {one} and {other} differ: the mean "
        f"difference in test accuracy ({one} − {other}) is "
        f"{_with_interval(decision, estimate)}, so that {better} is the more accurate "
        f"(sign-flip test, {_p(decision.sign_flip_p)}). Equivalence within "
        f"{_margin(decision)} points is not shown."
    )


def _undecided(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    seen = f"in test accuracy ({one} − {other}) is {_with_interval(decision, estimate)}"
    more = _more(decision.more_seeds)
    if estimate.n == 1:
        return (
            f"One seed is not enough for a verdict (at least {FEWEST_SEEDS} are "
            f"needed): the difference {seen}. {more}, if the two are equally good and "
            f"their difference varies by {100 * decision.assumed_sd:.2f} points "
            "(standard deviation) from seed to seed, which is an assumption."
        )
    if estimate.n < FEWEST_SEEDS:
        return (
            f"{_WORDS[estimate.n]} paired seeds are not enough for a verdict (at least "
            f"{FEWEST_SEEDS} are needed): the mean difference {seen}. {more}, if mean "
            "and spread stay as they are."
        )
    return (
        f"Over {estimate.n} paired seeds, nothing is decided between {one} and "
        f"{other}: the mean difference {seen}. That shows neither equivalence within "
        f"{_margin(decision)} points nor a difference. {more}, if mean and spread stay "
        "as they are."
    )


_WORDS = {2: "Two", 3: "Three", 4: "Four"}


def _more(seeds: int | None) -> str:
    if seeds is None:
        return f"Even {MOST_SEEDS} seeds would hardly decide"
    return f"About {seeds} more {'seed' if seeds == 1 else 'seeds'} would decide"


def _with_interval(decision: Decision, estimate: Estimate) -> str:
    decimals = _decimals(decision.margin)
    text = f"{points(estimate.mean, decimals)} points"
    if estimate.low is None or estimate.high is None:
        return text
    return (
        f"{text} (95% interval {points(estimate.low, decimals)} to "
        f"{points(estimate.high, decimals)})"
    )


def _decimals(margin: float) -> int:
    return 2 if margin >= 0.0005 else 3


def _margin(decision: Decision) -> str:
    return f"±{100 * decision.margin:.{_decimals(decision.margin)}f}"


def _p(value: float | None) -> str:
    assert value is not None
    return "p < 0.001" if value < 0.001 else f"p = {value:.3g}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# Warnings


def _warnings(plan: Plan, records: Mapping[str, RunRecord], runs: Runs) -> list[str]:
    """Whatever makes the figures less than fair, in plain words, each once."""
    candidates: list[str | None] = [
        *plan.warnings,
        *(text for run in runs.values() for text in run.record.dataset.warnings),
        _unfinished_warning(plan, records, runs),
        _resumed_warning(runs),
        _other_load_warning(runs),
        _load_average_warning(records),
        *_differing_machines(runs),
        *_differing_versions(runs),
    ]
    return list(dict.fromkeys(text for text in candidates if text))


def _unfinished_warning(
    plan: Plan, records: Mapping[str, RunRecord], runs: Runs
) -> str | None:
    left_out = [
        f"{name} ({_fate(plan, name, records).splitlines()[0].rstrip(':')})"
        for framework, _, name in _planned(plan)
        if framework not in plan.unavailable and name not in runs
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
    busy = []
    for run in runs.values():
        loads = [epoch.other_load for epoch in run.record.epochs]
        if loads and max(loads) > BUSY:
            middle, worst = np.median(loads), max(loads)
            busy.append(f"{run.name} (median epoch {middle:.0%}, worst {worst:.0%})")
    if not busy:
        return None
    return (
        f"Other programs used more than {BUSY:.0%} of the machine during epochs of "
        f"{', '.join(busy)}: figures of time are not to be trusted. Close them and "
        "compare again into a new folder with --out."
    )


def _load_average_warning(records: Mapping[str, RunRecord]) -> str | None:
    """Of the first session alone: later ones follow on the load of our own runs."""
    starts = [
        (record.sessions[0].started, name)
        for name, record in records.items()
        if record.sessions
    ]
    if not starts:
        return None
    name = min(starts)[1]
    load = records[name].sessions[0].load_average
    cores = records[name].environment.cores
    if load <= LOADED * cores:
        return None
    return (
        f"The machine was already busy when the first run, {name}, started: its load "
        f"average was {load:.1f} on {_counted(cores, 'core')}. Figures of time may "
        "suffer."
    )


def _differing_machines(runs: Runs) -> list[str | None]:
    aspects: dict[str, Callable[[RunRecord], str]] = {
        "numbers of threads": lambda record: str(record.environment.threads),
        "devices": lambda record: record.environment.device,
        "processors": lambda record: record.environment.processor,
        "numbers of cores": lambda record: str(record.environment.cores),
        "versions of Python": lambda record: record.environment.python,
        "platforms": lambda record: record.environment.platform,
    }
    return [
        _differing(what, {run.name: value(run.record) for run in runs.values()})
        for what, value in aspects.items()
    ]


def _differing_versions(runs: Runs) -> list[str | None]:
    """Of each library among the runs that use it; of settings within a framework."""
    warnings = []
    libraries = sorted(
        {name for run in runs.values() for name in run.record.environment.versions}
    )
    for library in libraries:
        values = {
            run.name: run.record.environment.versions[library]
            for run in runs.values()
            if library in run.record.environment.versions
        }
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


def _differing(what: str, values: Mapping[str, str]) -> str | None:
    """A warning if runs differ in something that ought to be the same for all."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    if len(groups) < 2:
        return None
    listed = "; ".join(
        f"{value}: {', '.join(names)}" for value, names in groups.items()
    )
    return f"The runs had different {what} ({listed}): they are not quite comparable."
