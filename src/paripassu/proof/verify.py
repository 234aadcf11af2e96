"""The proof that the twins are one training: every rung of the ladder, live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from paripassu.analysis.proof.tolerance import LADDER
from paripassu.analysis.schema import Divergence, Proof, ProofRow, RungResult
from paripassu.core import datasets, machine
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.files import read_tensors, scratch
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.frameworks.faults import find_fault
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.pool import run_all
from paripassu.processes.requests import ProveRequest

STEPS = 60
CONTROL_STEPS = 100  # in float32: by then the controls have parted
TRAJECTORY_RUNG = 5
ALL_RUNGS = tuple(rung.number for rung in LADDER)


@dataclass(frozen=True)
class Progress:
    """What a proof tells while it runs."""

    rungs: list[RungResult]
    doing: dict[str, str]  # framework -> what it is at


def verify(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions = DEFAULT,
    steps: int = STEPS,
    precisions: Sequence[str] = ("float64", "float32"),
    rungs: Sequence[int] = ALL_RUNGS,
    fault: str | None = None,
    fault_in: str | None = None,
    pairs_of: str | Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Proof:
    """Take the twins up the ladder against the reference.

    Each framework works in its own process, on the CPU, as many at a time as there are
    cores, with one thread each: a proof is not timed. The reference goes first.

    Args:
        frameworks: their names, at least one.
        recipe: the experiment; its precision is replaced by the proof's own.
        conditions: data; the device is always the CPU.
        steps: of the trajectory in float64, at most those of the whole recipe; in
            float32 at least 100.
        precisions: "float64" for the same mathematics, "float32" for the arithmetic.
        rungs: those to climb.
        fault: the name of a fault to seed; such a proof is in float64 alone.
        fault_in: the framework to put it into; None for the last.
        pairs_of: the folder of a comparison, for rung 7; None leaves it out.
        on_progress: called after every step forward.

    Returns:
        What was found. A framework that crashes fails the proof.

    Raises:
        UserError: data, recipe or fault are not usable.
    """
    frameworks = [registry.find(name).name for name in frameworks]
    for name in frameworks:
        registry.find(name).check(recipe, trains=False)
    seeded: dict[str, tuple[str, ...]] = {}
    if fault:
        precisions = ("float64",)
        fault_in = registry.find(fault_in or frameworks[-1]).name
        _check_fault(fault, fault_in, frameworks, recipe)
        seeded[fault_in] = (fault,)
    pairs = summarise(Path(pairs_of)).pairs if pairs_of and 7 in rungs else []
    climb = _Climb(recipe, conditions, steps, rungs, on_progress)
    with scratch() as folder:
        climb.run(frameworks, precisions, folder, seeded)
    drawn = all_curves(climb.losses)
    judged = rungs_of(climb.rows, drawn, pairs)
    failed = any(rung.status == "fails" for rung in judged)
    return Proof(
        precision=" and ".join(precisions),
        holds=any(x.status == "holds" for x in judged)
        and not failed
        and not climb.failures,
        rows=shortened(climb.rows),
        message="\n".join(climb.failures) or None,
        command=conditions.command,
        recipe=recipe.model_dump(),
        whose_data=climb.whose_data,
        versions={
            name: str(registry.find(name).version)
            for name in (REFERENCE.name, *frameworks)
        },
        environment={
            "processor": machine.processor(),
            "platform": machine.system(),
            "threads": "1",
        },
        rungs=judged,
        divergence=climb.divergence,
        curves=drawn,
    )


def _check_fault(
    fault: str, framework: str, frameworks: Sequence[str], recipe: Recipe
) -> None:
    if framework not in frameworks:
        raise UserError(
            f"--fault-in {framework}: it is not among --frameworks "
            f"{','.join(frameworks)}."
        )
    if not find_fault(fault).applies_to(recipe):
        raise UserError(
            f"--fault {fault} changes nothing in recipe {recipe.name!r}. "
            "'paripassu faults' lists all faults."
        )


class _Climb:
    """A proof while it is made: asks for traces, compares them, keeps what it finds."""

    def __init__(
        self,
        recipe: Recipe,
        conditions: Conditions,
        steps: int,
        rungs: Sequence[int],
        on_progress: Callable[[Progress], None],
    ) -> None:
        data, prepared = read_data(recipe, conditions.data)
        self.whose_data = datasets.describe(data, prepared).sentence
        self._recipe, self._rungs = recipe, rungs
        self._conditions = conditions.for_proofs()
        self._count = len(prepared.training.labels)
        length = steps_per_epoch(recipe, self._count)
        self._steps = min(steps, recipe.epochs * length)
        self._on_progress = on_progress
        self._doing: dict[str, str] = {}
        self._reference: dict[str, Arrays] = {}  # its traces, by precision
        self._trajectories: dict[str, Arrays] = {}
        self._judged = rungs_of([])
        self.rows: list[ProofRow] = []
        self.losses: dict[tuple[str, str, str], Any] = {}
        self.failures: list[str] = []
        self.divergence: Divergence | None = None

    def run(
        self,
        frameworks: Sequence[str],
        precisions: Sequence[str],
        folder: Path,
        seeded: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Go up; the first failure of a process ends it."""
        recipe = self._recipe.changed(precision="float64")
        single = "float32" in precisions and not {1, 2, 3}.isdisjoint(self._rungs)
        curves = "float32" in precisions and CONTROL_RUNG in self._rungs

        def request(name: str) -> ProveRequest:
            return ProveRequest(
                framework=name,
                conditions=self._conditions,
                recipe=recipe,
                steps=self._steps,
                folder=folder,
                starts=not seeded,
                rehearsal=not seeded,
            )

        reference = request(REFERENCE.name)
        self._tell()
        self._ask([reference])
        if single and not self.failures:
            only = {"single": True, "only_single": True}
            self._ask([reference.model_copy(update=only)])
        if self.failures:
            return
        asked = {
            "single": single,
            "only_single": "float64" not in precisions,
            "curves": max(CONTROL_STEPS, self._steps) if curves else 0,
        }
        self._ask(
            [
                request(x).model_copy(update={**asked, "faults": seeded.get(x, ())})
                for x in frameworks
            ]
        )
        if self._needs_control:
            self._ask([reference.model_copy(update={"control": True})])

    @property
    def _needs_control(self) -> bool:
        """Whether trajectories part, and nothing that comes before does."""
        wrong = {row.rung for row in self.rows if not row.holds}
        return wrong == {TRAJECTORY_RUNG} and not self.failures

    def _tell(self) -> None:
        self._on_progress(Progress(self._judged, dict(self._doing)))

    def _ask(self, requests: Sequence[ProveRequest]) -> None:
        for name, event in run_all({x.framework: x for x in requests}):
            if isinstance(event, Exception):
                if not isinstance(event, WorkerError | UserError):
                    raise event
                self.failures.append(str(event))
            elif event is None:
                self._doing.pop(name, None)
            elif event["event"] == "step":
                self._doing[name] = (
                    f"{event['precision']} step {event['done']}/{event['steps']}"
                )
            else:
                self._take(name, event["precision"], taken(Path(event["file"])))
                self._judged = rungs_of(self.rows, all_curves(self.losses))
            self._tell()

    def _take(self, name: str, precision: str, arrays: Arrays) -> None:
        """Hold a framework's traces against the reference's."""
        if precision == "curves":
            for weights, losses in arrays.items():
                key = name, "float32", "" if weights == "losses" else weights
                self.losses[key] = losses
            return
        if precision == "control":
            self._judge_anew(arrays)
            return
        if precision == "float64":
            self.losses[name, "float64", ""] = arrays["losses"]
            self._trajectories[name] = {
                key: array
                for key, array in arrays.items()
                if key == "losses" or key.startswith("final.")
            }
        if name == REFERENCE.name:
            self._reference[precision] = arrays
            return
        left = self._reference[precision]
        rows = compare_traces(
            REFERENCE.name,
            name,
            left,
            arrays,
            precision=precision,
            network=self._recipe.architecture,
        )
        rows = [row for row in rows if row.rung in self._rungs]
        self.rows += rows
        if self.divergence is None:
            self.divergence = find_divergence(
                rows, left, arrays, self._recipe, self._count
            )

    def _judge_anew(self, control: Arrays) -> None:
        """Judge the trajectories beside the reference's own, perturbed by one ulp."""
        reference = self._reference["float64"]
        for name, arrays in self._trajectories.items():
            if name == REFERENCE.name:
                continue
            own = [row for row in self.rows if row.right == name]
            others = [row for row in self.rows if row.right != name]
            self.rows = [*others, *beside_control(own, reference, arrays, control)]
        if all(row.holds for row in self.rows):
            self.divergence = None


def taken(path: Path) -> Arrays:
    """The arrays in a file of traces, which is deleted."""
    arrays, _metadata = read_tensors(path)
    path.unlink()
    return arrays


def find_divergence(
    rows: Sequence[ProofRow],
    reference: Arrays,
    arrays: Arrays,
    recipe: Recipe,
    count: int,
) -> Divergence | None:
    """Where a framework parts from the reference first, with the likely cause.

    Args:
        rows: of the comparison of both traces.
        reference: the traces of the reference.
        arrays: those of the framework.
        recipe: the experiment.
        count: of training images.
    """
    found = first_divergence(rows)
    if found is None:
        return None
    cause = likely_cause(found, reference, arrays, recipe=recipe, count=count)
    return found.model_copy(update={"cause": cause})


def parse_rungs(text: str) -> tuple[int, ...]:
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
