"""The documented shape of `comparison.json`: what a compare leaves for programs.

Accuracies and losses: fractions 0..1 and nats per image. Times: wall-clock seconds.
Memory: bytes. `None` stands for "not measured" or "too few runs to say".

`python -m paripassu.analysis.schema` prints the JSON schema that is kept in
`docs/comparison.schema.json`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from paripassu.core.record import Dataset, Environment, Model


class Estimate(Model):
    """A figure with the interval that `method` gives it at 95% confidence."""

    mean: float
    low: float | None  # None: one value has no interval of this kind
    high: float | None
    n: int  # how many runs stand behind it
    method: str  # "wilson", "bca bootstrap", ...


class Spread(Model):
    """Measured values around their median."""

    median: float
    low: float  # the smallest
    high: float  # the largest
    n: int


class InferenceTime(Model):
    """Latency of a forward pass, NumPy in to NumPy out."""

    single_seconds: Spread
    batch_seconds: Spread
    batch_size: int


class SeedSpread(Model):
    """Standard deviations of test accuracy between seeds, as fractions 0..1."""

    measured: float
    expected: float  # if seeds erred on each image independently of the others


class FrameworkSummary(Model):
    """One framework's runs together."""

    status: Literal["ok", "missing", "failed"]
    message: str | None  # why it is missing or failed, and what to type
    runs: list[str]  # folders of finished runs, relative to the comparison
    seeds: list[int]  # of the finished runs, same order
    version: str | None  # of the framework
    test_accuracy: Estimate | None
    # Of all seeds' networks together, by their mean probabilities; n networks.
    ensemble_accuracy: Estimate | None = None
    seed_spread: SeedSpread | None = None
    test_loss: Estimate | None
    epoch_seconds: Spread | None  # training alone, warm-up and compilation apart
    evaluation_seconds: Spread | None
    start_up_seconds: Spread | None  # process start to framework ready
    data_seconds: Spread | None
    build_seconds: Spread | None
    warm_up_seconds: Spread | None  # first steps: compilation, allocation
    peak_memory_bytes: int | None  # median over runs
    peak_accelerator_bytes: int | None
    inference: InferenceTime | None


class Equivalence(Model):
    """Two one-sided t tests (Schuirmann 1987) on paired differences."""

    margin: float  # fraction 0..1
    p: float
    low: float  # the 90% interval, inside +-margin exactly when p < 0.05
    high: float


class Disagreement(Model):
    """A test image that two frameworks answer differently."""

    index: int  # in the test set, from 0
    label: int
    seed: int
    left: int
    right: int
    left_probability: float  # of the left's own answer
    right_probability: float


class Pair(Model):
    """Two frameworks over the seeds that both finished."""

    left: str
    right: str
    seeds: list[int]
    difference: Estimate | None  # test accuracy, left - right, fraction
    equivalence: Equivalence | None
    sign_flip_p: float | None  # exact sign-flip permutation test of "no difference"
    mcnemar_p: float | None  # exact, on one seed: only when there is just one
    verdict: Literal["equivalent", "different", "undecided"]
    more_seeds: int | None  # about how many more would decide, when undecided
    sentence: str  # the verdict in words, with n
    churn: Estimate | None  # share of test images answered differently
    disagreements: list[Disagreement]
    disagreement_count: int  # over all seeds; the list may be shorter


class ProofRow(Model):
    """One quantity of the proof: how far two twins are apart in it."""

    left: str  # the yardstick: the reference, "numpy"
    right: str
    quantity: str  # "logits", "loss", "gradient conv1.kernel", ...
    difference: float  # relative to the size of the left's; 1e300 for infinite
    bound: float
    holds: bool
    rung: int | None = None  # of the ladder in `analysis/tolerance.py`
    step: int | None = None  # counted from 0
    start: str = ""  # "moved" or "amplified" weights; "": as the recipe says
    precision: str = "float64"


class RungResult(Model):
    """One rung of the ladder in one precision."""

    rung: int
    name: str
    claim: str
    precision: str
    status: Literal["holds", "fails", "not run"]
    count: int  # comparisons made
    quantity: str | None  # the one nearest its bound, or farthest over it
    difference: float | None
    bound: float | None
    note: str | None  # in words, where a difference and a bound do not say it


class Divergence(Model):
    """Where the twins part first."""

    framework: str
    rung: int
    precision: str
    step: int | None  # counted from 0; None: of no step
    start: str = ""  # "moved" or "amplified" weights; "": as the recipe says
    layer: str | None
    quantity: str
    difference: float
    bound: float
    cause: str | None  # a known fault that gives just these numbers


class Curve(Model):
    """How far two trainings have parted: the largest gap of batch losses so far."""

    label: str
    precision: str
    kind: Literal["frameworks", "control"]
    steps: list[int]  # counted from 1
    gaps: list[float]  # in nats; the running maximum


class WholeRun(Model):
    """Two whole trainings in lockstep, from the same draws."""

    left: str
    right: str  # the left itself, where it is the control
    precision: str
    control: bool  # the same framework, perturbed by one ulp in one kernel
    steps: int
    largest_loss_gap: float  # nats, over all batches
    largest_loss_step: int  # where, counted from 1
    weight_count: int
    largest_weight_gap: float  # absolute
    fewest_digits: float  # leading decimal digits in which every weight agrees
    median_digits: float
    equal_digits: dict[str, float]  # share of weights that agree to so many and more
    test_count: int
    equal_predictions: int
    left_accuracy: float
    right_accuracy: float
    seconds: float  # of both, computing


class FaultResult(Model):
    """A seeded fault, and what the proof made of it."""

    fault: str
    summary: str
    framework: str
    rung: int  # where it must be found
    quantity: str  # what must be named, or how its name begins
    located: bool  # found, and there
    divergence: Divergence | None  # what was found; None: the proof held


class Proof(Model):
    """Same weights, same images, same masks: the same numbers?"""

    precision: str
    holds: bool
    rows: list[ProofRow]  # of each quantity; only the worst step of those that hold
    message: str | None  # a framework that could not take part, and why
    command: str | None = None
    recipe: dict[str, Any] | None = None
    whose_data: str = ""  # and how many; older records do not say it
    versions: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    rungs: list[RungResult] = Field(default_factory=list)
    divergence: Divergence | None = None
    curves: list[Curve] = Field(default_factory=list)
    whole_runs: list[WholeRun] = Field(default_factory=list)


class Comparison(Model):
    """Everything that a report says, for programs."""

    kind: Literal["comparison"] = "comparison"
    version: Literal[1] = 1
    created: str  # ISO 8601, UTC
    command: str
    recipe: dict[str, Any]
    dataset: Dataset | None
    environment: Environment | None  # of the first finished run
    seeds: list[int]  # that were asked for
    order: list[str]  # run names in the order they were planned: A B B A
    frameworks: dict[str, FrameworkSummary]
    ensemble_accuracy: Estimate | None = None  # of the networks of all frameworks
    pairs: list[Pair]
    proof: Proof | None
    warnings: list[str]  # whatever makes the figures less than fair


def document(model: type[Model] = Comparison) -> str:
    """The JSON schema of a record, as text."""
    schema = model.model_json_schema()
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | schema, indent=1) + "\n"


if __name__ == "__main__":
    print(document(), end="")
