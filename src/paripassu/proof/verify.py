"""The proof that the twins are one training: every rung of the ladder, live."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from paripassu.analysis.comparison import summarise
from paripassu.analysis.proof.causes import likely_cause
from paripassu.analysis.proof.ladder import (
    CONTROL_RUNG,
    all_curves,
    rungs_of,
    shortened,
)
from paripassu.analysis.proof.parity import (
    beside_control,
    compare_traces,
    first_divergence,
)
from paripassu.analysis.proof.tolerance import LADDER, bound_of
from paripassu.analysis.schema import (
    Curve,
    Divergence,
    Proof,
    ProofRow,
    RungResult,
    WholeRun,
)
from paripassu.core import machine
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.files import read_tensors
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import Event
from paripassu.processes.pool import EVIDENCE, hear

STEPS = 60
SHORT_STEPS = 20
CONTROL_STEPS = 100  # in float32: by then the controls have parted
TRAJECTORY_RUNG = 5
ALL_RUNGS = tuple(rung.number for rung in LADDER)

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Progress:
    """What a proof tells while it runs."""

    rungs: list[RungResult]
    doing: dict[str, str]  # framework -> what it is at


@dataclass(frozen=True)
class _Subject:
    """What is proven."""

    recipe: Recipe
    count: int  # of training images
    rungs: tuple[int, ...]


@dataclass
class _Found:
    """What has been found so far."""

    rows: list[ProofRow] = field(default_factory=list)
    losses: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    divergence: Divergence | None = None
    trajectories: dict[str, Arrays] = field(default_factory=dict)
    rungs: list[RungResult] = field(default_factory=lambda: rungs_of([]))

    @property
    def needs_control(self) -> bool:
        """Whether trajectories part, and nothing that comes before does."""
        wrong = {row.rung for row in self.rows if not row.holds}
        return wrong == {TRAJECTORY_RUNG} and not self.failures


def verify(
    names: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions,
    steps: int = STEPS,
    precisions: Sequence[str] = ("float64", "float32"),
    rungs: Sequence[int] = ALL_RUNGS,
    fault: tuple[str, str] | None = None,
    pairs_of: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Proof:
    """Take the twins up the ladder against the reference.

    Each framework works in its own process, on the CPU, two at a time with one thread
    each: a proof is not timed. The reference goes first.

    Args:
        names: frameworks, at least one.
        recipe: the experiment; its precision is replaced by the proof's own.
        conditions: data; the device is always the CPU.
        steps: of the trajectory in float64, at most those of the whole recipe; in
            float32 at least 100.
        precisions: "float64" for the same mathematics, "float32" for the arithmetic.
        rungs: those to climb.
        fault: the name of a seeded fault and the framework to put it into; such a
            proof is in float64 alone.
        pairs_of: the folder of a comparison, for rung 7; None leaves it out.
        on_progress: called after every step forward.

    Returns:
        What was found. A framework that crashes fails the proof.

    Raises:
        UserError: data or recipe are not usable.
    """
    _data, prepared = read_data(
        recipe, str(conditions.data) if conditions.data else None
    )
    subject = _Subject(recipe, len(prepared.training.labels), tuple(rungs))
    total = recipe.epochs * steps_per_epoch(recipe, subject.count)
    steps = min(steps, total)
    for name in names:
        registry.find(name).check(recipe, trains=False)
    pairs = summarise(pairs_of).pairs if pairs_of and 7 in rungs else []
    exact = recipe.changed(precision="float64")
    found = _Found()
    doing: dict[str, str] = {}

    def tell() -> None:
        on_progress(Progress(found.rungs, dict(doing)))

    with tempfile.TemporaryDirectory(prefix="paripassu-") as folder:
        alone = conditions.with_threads(1)
        own: dict[str, Arrays] = {}

        def listen(requests: dict[str, dict[str, Any]]) -> None:
            base = {"recipe": exact.model_dump(), "steps": steps, "folder": folder}
            asked = {
                name: alone.request("prove", name, **{**EVIDENCE, **base, **more})
                for name, more in requests.items()
            }
            for name, event in hear(asked):
                if isinstance(event, Exception):
                    if not isinstance(event, WorkerError | UserError):
                        raise event
                    found.failures.append(str(event))
                elif event is None:
                    doing.pop(name, None)
                elif event["event"] == "step":
                    doing[name] = (
                        f"{event['precision']} step {event['done']}/{event['steps']}"
                    )
                elif event["event"] == "evidence":
                    _take(event, name, own, found, subject)
                    found.rungs = rungs_of(found.rows, all_curves(found.losses))
                tell()

        tell()
        if fault:
            precisions = ("float64",)
        single = "float32" in precisions and bool({1, 2, 3} & set(rungs))
        curves = "float32" in precisions and CONTROL_RUNG in rungs
        states = str(Path(folder) / "states.safetensors")
        listen({REFERENCE.name: {}})
        if single and not found.failures:
            listen({REFERENCE.name: {"states": states, "only_single": True}})
        if not found.failures:
            listen(
                {
                    name: {
                        "faults": [fault[0]] if fault and fault[1] == name else [],
                        "states": states if single else None,
                        "only_single": "float64" not in precisions,
                        "curves": max(CONTROL_STEPS, steps) if curves else 0,
                    }
                    for name in names
                }
            )
            if found.needs_control:
                listen({REFERENCE.name: {"control": True}})
    drawn = all_curves(found.losses)
    judged = rungs_of(found.rows, drawn, pairs)
    failed = any(rung.status == "fails" for rung in judged)
    return Proof(
        precision=" and ".join(precisions),
        holds=any(x.status == "holds" for x in judged)
        and not failed
        and not found.failures,
        rows=shortened(found.rows),
        message="\n".join(found.failures) or None,
        command=conditions.command,
        recipe=recipe.model_dump(),
        versions={
            name: str(registry.find(name).version) for name in (REFERENCE.name, *names)
        },
        environment={
            "processor": machine.processor(),
            "platform": machine.system(),
            "threads": "1",
        },
        rungs=judged,
        divergence=found.divergence,
        curves=drawn,
    )


def _take(
    event: Event, name: str, own: dict[str, Arrays], found: _Found, proof: _Subject
) -> None:
    """Hold a file of evidence against the reference's, and delete it."""
    path, precision = Path(event["file"]), event["precision"]
    arrays, _metadata = read_tensors(path)
    path.unlink()
    if precision == "curves":
        for nudge, losses in arrays.items():
            key = name, "float32", "" if nudge == "losses" else nudge
            found.losses[key] = losses
        return
    if precision == "control":
        _judge_anew(found, own["float64"], arrays)
        return
    if precision == "float64":
        found.losses[name, "float64", ""] = arrays["losses"]
        found.trajectories[name] = {
            key: array
            for key, array in arrays.items()
            if key == "losses" or key.startswith("final.")
        }
    if name == REFERENCE.name:
        own[precision] = arrays
        return
    right = own[precision]
    network = proof.recipe.architecture
    rows = [
        row
        for row in compare_traces(
            REFERENCE.name, name, right, arrays, precision=precision, network=network
        )
        if row.rung in proof.rungs
    ]
    found.rows += rows
    divergence = first_divergence(rows)
    if divergence and found.divergence is None:
        cause = likely_cause(
            divergence, right, arrays, recipe=proof.recipe, count=proof.count
        )
        found.divergence = divergence.model_copy(update={"cause": cause})


def _judge_anew(found: _Found, right: Arrays, control: Arrays) -> None:
    """Judge the trajectories beside the reference's own, after a nudge of one ulp."""
    for name, arrays in found.trajectories.items():
        if name == REFERENCE.name:
            continue
        own = [row for row in found.rows if row.right == name]
        others = [row for row in found.rows if row.right != name]
        found.rows = [*others, *beside_control(own, right, arrays, control)]
    if all(row.holds for row in found.rows):
        found.divergence = None


def short_proof(
    names: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Proof:
    """The proof of a comparison: the whole ladder on fewer steps."""
    return verify(
        names,
        recipe,
        conditions=conditions,
        steps=SHORT_STEPS,
        on_progress=on_progress,
    )


def with_whole_runs(
    proof: Proof, runs: Sequence[WholeRun], curves: Sequence[Curve]
) -> Proof:
    """A proof with whole trainings added: rung 5 and 6 are judged on all their steps.

    In float64, losses must agree to the bound of rung 5 and all answers be the same.
    """
    bound = bound_of("later", "float64").size
    rows = [
        ProofRow(
            left=run.left,
            right=run.right,
            quantity=quantity,
            difference=gap,
            bound=allowed,
            holds=gap <= allowed,
            rung=5,
            step=None,
            precision="float64",
        )
        for run in runs
        if run.precision == "float64"
        for quantity, gap, allowed in (
            ("losses of the whole run", run.largest_loss_gap, bound),
            ("weights of the whole run", run.largest_weight_gap, bound),
            (
                "answers after the whole run",
                1 - run.equal_predictions / run.test_count,
                0.0,
            ),
        )
    ]
    whole = rungs_of([*proof.rows, *rows], curves)
    judged = [
        old if old.rung not in (5, 6) or new.status == "not run" else new
        for old, new in zip(proof.rungs, whole, strict=True)
    ]
    return proof.model_copy(
        update={
            "rows": [*proof.rows, *rows],
            "rungs": judged,
            "holds": proof.holds and not any(x.status == "fails" for x in judged),
            "curves": list(curves),
            "whole_runs": list(runs),
        }
    )


def check_rungs(text: str) -> tuple[int, ...]:
    """Read `"0-3,6"`.

    Raises:
        UserError: there is no such rung; the message lists those there are.
    """
    chosen: set[int] = set()
    known = {str(rung.number) for rung in LADDER}
    for part in filter(None, text.replace(" ", "").split(",")):
        low, dash, high = part.partition("-")
        high = high if dash else low
        if low not in known or high not in known or int(low) > int(high):
            listed = ", ".join(f"{rung.number} {rung.name}" for rung in LADDER)
            raise UserError(f"no rung {part!r}; the ladder has {listed}.")
        chosen |= set(range(int(low), int(high) + 1))
    return tuple(sorted(chosen))
