"""Runs both models on further inputs, and finds where they part on those."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.align import Store
from paripassu.port_check.behaviour import (
    amplify,
    weights_changed,
    with_weights_changed,
)
from paripassu.port_check.examined import ModelError
from paripassu.port_check.input_pairs import carry_inputs
from paripassu.port_check.meanings import meaning_of_input
from paripassu.port_check.output_pairs import (
    masks_of,
    pair_outputs,
    select_steps,
)
from paripassu.port_check.probing import PADDING, Probing, further_inputs
from paripassu.port_check.results import Cause, Findings, describe_error
from paripassu.port_check.runs import Runner, Runs
from paripassu.sides.contract import Arrays, Block

SECONDS = 40.0  # after which no further inputs are tried
LARGER = "larger weights"


@dataclass(frozen=True)
class _Parted:
    """How far the outputs are apart: in all, and where no padding is."""

    error: float
    bound: float
    kept: float


class Prober:
    """Tries further inputs on two models that are equal so far.

    Args:
        runner: of the models; their inputs are the ones that they are equal on.
    """

    def __init__(self, runner: Runner, findings: Findings):
        self.runner, self.findings = runner, findings
        self.models, self.eps = runner.models, runner.eps
        self.tried: list[str] = []

    def go(self, explain: Callable[[Runs], None]) -> None:
        """Add a check, and the faults of the first inputs on which they part.

        Args:
            explain: finds causes, and adds faults, on what `models` has as inputs then.
        """
        recorded = self.models.left.recorded
        if recorded and not recorded.has_further():
            text = "the recording holds none for them"
            self.findings.check("further inputs", "not run", text)
            return
        begin = time.perf_counter()
        probings = list(self.probings())
        left_out: list[str] = []
        for number, probing in enumerate(probings):
            if time.perf_counter() - begin > SECONDS:
                left_out = [*(x.name for x in probings[number:]), LARGER]
                break
            share = 0.65 + 0.1 * number / len(probings)
            self.runner.progress(f"trying {probing.name}", share)
            if self._part_at(probing):
                self._explain(probing, explain)
                if not self._are_positions(probing):
                    return
        skipped = recorded or left_out or self.models.unequal
        if not skipped and self._part_amplified(explain):
            return
        if left_out:
            text = f"further inputs, after {SECONDS:.0f} s: {', '.join(left_out)}"
            self.findings.not_asked.append(text)
        if self.tried:
            self.findings.check("further inputs", "holds", ", ".join(self.tried))

    def _part_amplified(self, explain: Callable[[Runs], None]) -> bool:
        """Whether the models part with larger weights: inputs may not pass a norm."""
        self.runner.progress(f"trying {LARGER}", 0.75)
        found = with_weights_changed(self.runner, amplify)
        if found.equal or not np.isfinite(found.error):
            self.tried.append(LARGER)
            return False
        with weights_changed(self.models, amplify):
            text = f"with {LARGER}, outputs are {describe_error(found.error, self.eps)}"
            why = "clamps may be out of reach: ReLU6, hard swish, clip"
            self.findings.check("further inputs", "fails", f"{text}: {why}")
            self._explain(Probing(LARGER, why, self.models.inputs), explain)
        return True

    def blame_padding(self) -> None:
        """Name the mask as the cause of faults that ids without padding do not show."""
        models, findings = self.models, self.findings
        known = any(
            x.cause and (x.cause.shown or x.cause.key == "position")
            for x in findings.faults
        )
        if known or models.left.recorded or models.right.recorded:
            return
        probings = self.probings()
        padded = any(x.padded for x in probings)
        drawn, ids = probings[0].inputs, self._padding_ids()
        if not padded or all(
            np.array_equal(np.isin(x, ids), np.isin(drawn[k], ids))
            for k, x in models.inputs.items()
        ):
            return
        given = replace(probings[0], inputs=models.inputs)
        try:
            part, unpadded = (self._run(x) for x in (given, probings[0]))
        except ModelError:
            return
        if part.error > part.bound and unpadded.error <= unpadded.bound:
            self._name_mask()

    def _name_mask(self) -> None:
        """One fault in place of those that were found: where the first layer parts."""
        layers, findings = self.models.left_order, self.findings
        order = sorted(findings.found, key=lambda x: (x[1].left not in layers, x[0]))
        at, first = order[0]
        findings.found = [(at, first.model_copy(update={"cause": MASK}))]

    def probings(self) -> list[Probing]:
        """Further inputs of the left model; of a recording, those that it holds."""
        models = self.models
        if recorded := models.left.recorded:
            read = recorded.model
            return [
                Probing(
                    x.name,
                    x.why,
                    read.read_all(f"further/{n}/inputs", recorded.found.inputs),
                    read.read(f"further/{n}/kept") if x.kept else None,
                    padded=x.padded,
                    extreme=x.extreme,
                )
                for n, x in enumerate(recorded.found.further)
            ]
        sides = models.left_blocks.values(), models.right_blocks.values()
        tables = [table_rows(x) for x in sides]
        return probings_of(models.inputs, tables, self._padding_ids())

    def _padding_ids(self) -> list[int]:
        models = self.models
        return padding_ids(
            [*models.left_blocks.values(), *models.right_blocks.values()]
        )

    def _are_positions(self, probing: Probing) -> bool:
        """Whether padding at the beginning moves the positions of one model alone.

        Nobody's fault: who counts positions from the mask, and who does not, agree
        where padding is at the end, as it is in what was given. It is said.
        """
        findings, kept = self.findings, probing.kept
        keys = {x.cause.key for x in findings.faults if x.cause}
        if (
            keys != {"position"}
            or not probing.padded
            or kept is None
            or kept[:, 0].all()
        ):
            return False
        given = masks_of(self.models.inputs).values()
        if not all(x[:, 0].all() for x in given):
            return False
        findings.found.clear()
        findings.checks.pop()
        findings.notes.pop()
        findings.notes.append(
            f"on {probing.name}, the models part: one counts positions from the first "
            "step that is no padding. With padding at the end both compute the same"
        )
        return True

    def _part_at(self, probing: Probing) -> bool:
        """Whether the models part on further inputs, as they must not."""
        try:
            found = self._run(probing)
        except ModelError as failed:
            self.findings.notes.append(
                f"on {probing.name}, the {failed.which} model raised "
                f"{type(failed.error).__name__}: {failed.error}"
            )
            return False
        if found.error <= found.bound:
            self.tried.append(probing.name)
            return False
        text = f"on {probing.name}, outputs are {describe_error(found.error, self.eps)}"
        if found.kept <= found.bound:
            self.tried.append(probing.name)
            self.findings.notes.append(f"{text}, at steps of padding only")
            return False
        if probing.extreme or not np.isfinite(found.error):
            self.findings.notes.append(f"{text}: {probing.why}")
            return False
        self.findings.check("further inputs", "fails", f"{text}: {probing.why}")
        return True

    def _run(self, probing: Probing) -> _Parted:
        """Run and compare both; `ModelError` where one of them raises."""
        with self._given(probing):
            rights = self.models.right.run(self.models.right_inputs)
            if (recorded := self.models.left.recorded) is None:
                lefts = self.models.left.run(self.models.inputs)
                return self._compare(probing, lefts, rights)
            names = [x.name for x in recorded.found.further]
            with recorded.given(names.index(probing.name)):
                lefts = self.models.left.run(self.models.inputs)
                return self._compare(probing, lefts, rights)

    def _compare(self, probing: Probing, lefts: Arrays, rights: Arrays) -> _Parted:
        error = kept = 0.0
        for *_, left, right in pair_outputs(self.models.outputs, lefts, rights):
            error = max(error, _error(left, right))
            kept = max(kept, _error(*select_steps(probing.kept, left, right)))
        return _Parted(error, self.runner.bound(error, lefts, rights), kept)

    def _explain(self, probing: Probing, explain: Callable[[Runs], None]) -> None:
        findings = self.findings
        if self.models.left.recorded:
            # Its layers were not recorded for these inputs.
            cause = OUTPUTS_ONLY
            findings.fault("forward", "output", "output", None, cause, eps=self.eps)
            self._conclude(probing)
            return
        with self._given(probing), closing(Store()) as store:
            runs = self.runner.compare(store, probing.name, 0.75)
            explain(runs)
            if not findings.faults:
                size = runs.output_error(runs.free.outputs)
                findings.fault("forward", "output", "output", size, None, eps=self.eps)
        self._conclude(probing)

    def _conclude(self, probing: Probing) -> None:
        """Blame the mask where padding shows it, and say on which inputs it was."""
        findings = self.findings
        if probing.padded and not any(
            x.cause and (x.cause.shown or x.cause.key == "position")
            for x in findings.faults
        ):
            self._name_mask()
        findings.notes.append(
            f"faults were found on {probing.name}; as they were given, both compute "
            "the same"
        )

    @contextmanager
    def _given(self, probing: Probing) -> Iterator[None]:
        """While both models have other inputs."""
        models = self.models
        before, outputs = (models.inputs, models.right_inputs), models.outputs
        models.right_inputs = carry_inputs(*before, probing.inputs)
        models.inputs = probing.inputs
        if outputs.kept:
            models.outputs = outputs.without_padding(probing.inputs)
        try:
            yield
        finally:
            models.inputs, models.right_inputs = before
            models.outputs = outputs


OUTPUTS_ONLY = Cause(
    key="unknown",
    sentence="of further inputs, the recording holds the outputs and no layer's: where "
    "the models part on them is told by a check of the models themselves",
    write="paripassu check with both models, or record these inputs: --inputs",
)
MASK = Cause(
    key="mask",
    sentence="without padding both compute the same; with it, one masks padded steps "
    "(mask_zero=True, pack_padded_sequence, an attention mask) and the other computes "
    "on through them",
    write="Embedding(mask_zero=False) in Keras, or pack_padded_sequence by length in "
    "PyTorch",
)


def table_rows(blocks: Iterable[Block]) -> set[int]:
    """How many rows a model's tables have."""
    return {x.shapes["table"][0] for x in blocks if x.kind == "embedding"}


def padding_ids(blocks: Iterable[Block]) -> list[int]:
    """Which ids tables name as padding, and 0."""
    rows = (x.spec.settings.get("_untrained_row") for x in blocks)
    return sorted({PADDING, *(int(x) for x in rows if x is not None)})


def probings_of(
    inputs: Arrays, tables: Sequence[set[int]], paddings: Collection[int]
) -> list[Probing]:
    """Further inputs beyond those of a model.

    Args:
        inputs: by name.
        tables: of each model that gets them, how many rows its tables have.
        paddings: ids that are padding.
    """
    masks = [
        name
        for name, x in inputs.items()
        if x.dtype == np.bool_ or "mask" in meaning_of_input(name)
    ]
    # Of several tables it is not known which is whose.
    rows = min(map(min, tables)) if all(len(x) == 1 for x in tables) else 0
    below = {
        name: max(rows, int(x.max(initial=0)) + 1)
        for name, x in inputs.items()
        if np.issubdtype(x.dtype, np.integer)
        and name not in masks
        and meaning_of_input(name) != "positions"
    }
    return further_inputs(inputs, ids_below=below, masks=masks, paddings=paddings)


def _error(left: Array, right: Array) -> float:
    """How far two outputs are apart; not finite at the same places is the same."""
    if left.shape != right.shape or left.dtype.kind != "f":
        return relative_error(left, right)
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)):
        return float("inf")
    return relative_error(left[finite], right[finite])
