"""Whether two optimizers take the same steps; if not, by which settings and forms."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from paripassu.port_check.optimizer_advice import advice, alike, shown
from paripassu.port_check.results import Frozen
from paripassu.reference.optimizers import (
    CONSTANTS,
    GATES,
    Floats,
    OptimizerRule,
    Path,
    step_all,
)

BOUND = 1e-9  # of the largest step that a parameter takes
CLOSES = 1e-8  # what is left of a difference that is closed, rounding included
TOGETHER = 3  # how many differences are tried together


class OptimizerSide(Frozen):
    """One of the two: `reproduced` says whether its rule, by hand, takes its steps."""

    name: str
    family: str
    settings: dict[str, Any]
    forms: dict[str, str]
    because: str
    reproduced: float | None


class OptimizerParting(Frozen):
    """Where they part first: the step counted from 1, the parameter, and how far.

    Attributes:
        rates: the difference of a weight in learning rates of that step, None where
            it is not known.
        relative: the same over the parameter's largest step.
    """

    step: int
    parameter: str
    rates: float | None
    relative: float


class OptimizerDifference(Frozen):
    """A setting or a form that differs.

    Attributes:
        key: its name in `OptimizerRule`, or "family".
        left: its value there.
        right: its value there.
        before: how far the rules are apart, None if it cannot be tried.
        after: the same with the left's value in the right's rule.
        cause: whether it is one of the smallest set that closes the difference.
    """

    key: str
    kind: Literal["setting", "form", "family"]
    left: str
    right: str
    before: float | None = None
    after: float | None = None
    cause: bool = False


class OptimizerChecked(Frozen):
    """The whole of it; `together` is what is left with all causes replaced at once."""

    schema_version: Literal[1] = 1
    equal: bool
    left: OptimizerSide
    right: OptimizerSide
    steps: int
    apart: float
    bound: float = BOUND
    parted: OptimizerParting | None
    differences: tuple[OptimizerDifference, ...]
    together: float | None
    write: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def causes(self) -> tuple[str, ...]:
        """The keys of the differences that are shown to be the cause."""
        return tuple(x.key for x in self.differences if x.cause)


def draw_trial(seed: int = 20, steps: int = 12) -> tuple[dict[str, Floats], Path]:
    """Parameters and gradients that bring out what optimizers differ in.

    Returns:
        Parameters by name, float64: kernel (3, 4), bias (4,), tiny (5,), zero (2,),
        sign (3,), large (4,), mixed (6,). Gradients of each step: ordinary ones; some
        of 1e-6; zeros; the same size with changing sign; some of 100; and some that
        change from 1 to 1e-3 and back.
    """
    random = np.random.Generator(np.random.Philox(seed))
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (3, 4),
        "bias": (4,),
        "tiny": (5,),
        "zero": (2,),
        "sign": (3,),
        "large": (4,),
        "mixed": (6,),
    }
    parameters = {name: random.standard_normal(x) for name, x in shapes.items()}
    gradients: Path = []
    for step in range(steps):
        drawn = {name: random.standard_normal(x) for name, x in shapes.items()}
        drawn["tiny"] = drawn["tiny"] * 1e-6
        drawn["zero"] = np.zeros(shapes["zero"])
        drawn["sign"] = np.full(shapes["sign"], 0.5 * (-1.0) ** step)
        drawn["large"] = drawn["large"] * 100
        drawn["mixed"] = drawn["mixed"] * (1.0 if step % 4 == 0 else 1e-3)
        gradients.append(drawn)
    return parameters, gradients


def distances(
    left: Path, right: Path, start: Mapping[str, Any]
) -> list[dict[str, float]]:
    """How far two paths are apart after each step, for every parameter.

    Over the largest step that either takes with that parameter, after what float64
    rounds of its weights is taken off. Infinite where one is a number and one is not.
    """
    begin = {name: np.asarray(x, np.float64) for name, x in start.items()}
    scales = {
        name: max(_largest_step(path, name, x) for path in (left, right))
        for name, x in begin.items()
    }

    def distance(name: str, here: Floats, there: Floats, step: int) -> float:
        whole = np.isfinite(here)
        if not np.array_equal(whole, np.isfinite(there)):
            return float("inf")
        gap = float(np.max(np.abs(here[whole] - there[whole]), initial=0.0))
        weight = float(np.max(np.abs(here)[whole], initial=0.0))
        gap = max(0.0, gap - 4 * np.finfo(np.float64).eps * step * weight)
        return gap / scales[name] if gap else 0.0

    return [
        {name: distance(name, here[name], there[name], step) for name in begin}
        for step, (here, there) in enumerate(zip(left, right, strict=True), start=1)
    ]


def _largest_step(path: Path, name: str, start: Floats) -> float:
    points = [start, *(x[name] for x in path)]
    with np.errstate(invalid="ignore", over="ignore"):
        moves = [
            float(np.max(np.abs(after - before), initial=0.0))
            for before, after in itertools.pairwise(points)
        ]
    return max((x for x in moves if np.isfinite(x)), default=0.0)


def compare_optimizers(
    left: OptimizerRule,
    right: OptimizerRule,
    left_path: Path,
    right_path: Path,
    parameters: Mapping[str, Any],
    gradients: Sequence[Mapping[str, Any]],
) -> OptimizerChecked:
    """Compare the steps that two optimizers took, and say what parts them.

    Args:
        left: the rule that the left was described by.
        right: the right's.
        left_path: the parameters after each step, as the framework took it.
        right_path: the right's.
        parameters: where both began.
        gradients: what both were given.
    """
    return _Comparison(
        left, right, left_path, right_path, parameters, gradients
    ).result()


@dataclass
class _Comparison:
    left: OptimizerRule
    right: OptimizerRule
    left_path: Path
    right_path: Path
    parameters: Mapping[str, Any]
    gradients: Sequence[Mapping[str, Any]]
    notes: list[str] = field(default_factory=list)

    def result(self) -> OptimizerChecked:
        apart = self._worst(self.left_path, self.right_path)
        sides = [
            self._side(self.left, self.left_path, "left"),
            self._side(self.right, self.right_path, "right"),
        ]
        known = all(x.reproduced is not None and x.reproduced <= BOUND for x in sides)
        same_family = self.left.family == self.right.family != "other"
        keys = differing(self.left, self.right) if same_family else []
        equal = apart <= BOUND or (known and same_family and self._only_rounding(apart))
        parted = None if equal else self._parting(by_rule=known)
        causes: tuple[str, ...] = ()
        rows: list[OptimizerDifference] = []
        together = None
        if not equal and known and same_family:
            causes, together = self._search(keys)
            rows = [self._row(key, key in causes) for key in keys]
        elif not equal and known:
            causes, together = ("family",), 0.0
            rows = [self._family()]
        else:
            rows = [self._row(key, False, tried=known) for key in keys]
        later = self._rates_later()
        if equal and later:
            equal, parted = False, later
            rows = [
                x.model_copy(update={"cause": x.key == "learning_rate"}) for x in rows
            ]
            causes = ("learning_rate",)
        if equal:
            self._cautions(keys)
        elif not known:
            self.notes.append(
                "No cause is named, since what an optimizer does is not known from "
                "what it is made of; its steps were followed all the same."
            )
        elif not causes:
            self.notes.append("No set of differing settings and forms closes the gap.")
        write = advice(causes, self.left, self.right)
        return OptimizerChecked(
            equal=equal,
            left=sides[0],
            right=sides[1],
            steps=len(self.gradients),
            apart=apart,
            parted=parted,
            differences=tuple(rows),
            together=together,
            write=write,
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _worst(self, left: Path, right: Path) -> float:
        found = distances(left, right, self.parameters)
        return max((x for step in found for x in step.values()), default=0.0)

    def _path(self, rule: OptimizerRule) -> Path:
        return step_all(rule, self.parameters, self.gradients)

    def _side(self, rule: OptimizerRule, path: Path, which: str) -> OptimizerSide:
        reproduced = None
        if rule.family != "other":
            tried = [self._worst(path, self._path(rule.rounded(x))) for x in CONSTANTS]
            exact, reproduced = tried[0], min(tried)
            if reproduced <= BOUND < exact:
                self.notes.append(
                    f"{rule.name or which} has constants that pass through float32: "
                    f"{exact:.1e} of its largest step, shown by its rule with and "
                    "without. This is not counted."
                )
            elif reproduced > BOUND:
                self.notes.append(
                    f"{rule.name or which} does not take the steps that its settings "
                    f"say: {reproduced:.1e} of the largest apart. Is its step, or a "
                    "hook of it, changed?"
                )
        elif rule.because:
            self.notes.append(f"The {which} is followed and compared: {rule.because}.")
        return OptimizerSide(**vars(rule), reproduced=reproduced)

    def _exact(self, keys: Iterable[str] = ()) -> Path:
        """The right's rule with some of the left's, and all that is but rounding."""
        small = [
            key
            for key in {*self.left.settings, *self.right.settings, "clip_form"}
            if key == "clip_form" or alike(self.left.get(key), self.right.get(key))
        ]
        rule = self.right.taking([*small, *keys], self.left)
        rates = _meeting(self.left.get("learning_rate"), rule.get("learning_rate"))
        return self._path(
            replace(rule, settings={**rule.settings, "learning_rate": rates})
        )

    def _only_rounding(self, apart: float) -> bool:
        """Whether the rules are one, but for float32 and the 1e-6 in PyTorch's clip."""
        if self._worst(self._path(self.left), self._exact()) > BOUND:
            return False
        clips = {x.forms.get("clip_form") for x in (self.left, self.right)}
        what = "constants in float32"
        if len(clips - {None}) > 1:
            what = (
                "constants in float32 and the 1e-6 that clip_grad_norm_ adds to the "
                "norm and Keras does not"
            )
        self.notes.append(
            f"The steps are {apart:.1e} of the largest apart, which is no more than "
            f"{what}: the rules without that are one. It is not counted."
        )
        return True

    def _search(self, keys: Sequence[str]) -> tuple[tuple[str, ...], float | None]:
        """The smallest set of differences that closes the gap, and what is left."""
        aim = self._path(self.left)
        for size in range(1, min(TOGETHER, len(keys)) + 1):
            tried = [
                (self._worst(aim, self._exact(chosen)), chosen)
                for chosen in itertools.combinations(keys, size)
            ]
            after, best = min(tried)
            if after <= CLOSES:
                return best, after
        chosen = list(keys)
        after = self._worst(aim, self._exact(chosen))
        if not keys or after > CLOSES:
            return (), None
        for key in keys:  # the smallest set is larger: leave out what is not needed
            fewer = [x for x in chosen if x != key]
            left = self._worst(aim, self._exact(fewer))
            if left <= CLOSES:
                chosen, after = fewer, left
        return tuple(chosen), after

    def _row(self, key: str, cause: bool, *, tried: bool = True) -> OptimizerDifference:
        aim = self._path(self.left) if tried else None
        return OptimizerDifference(
            key=key,
            kind="form" if key.endswith("_form") else "setting",
            left=shown(self.left.get(key)),
            right=shown(self.right.get(key)),
            before=None if aim is None else self._worst(aim, self._exact()),
            after=None if aim is None else self._worst(aim, self._exact([key])),
            cause=cause,
        )

    def _family(self) -> OptimizerDifference:
        return OptimizerDifference(
            key="family",
            kind="family",
            left=self.left.family,
            right=self.right.family,
            before=self._worst(self._path(self.left), self._path(self.right)),
            after=0.0,
            cause=True,
        )

    def _parting(self, *, by_rule: bool) -> OptimizerParting:
        """Where they part; by their rules where these are known, without rounding."""
        left, right = self.left_path, self.right_path
        if by_rule:
            same = self.left.family == self.right.family
            left = self._path(self.left)
            right = self._exact() if same else self._path(self.right)
        found = distances(left, right, self.parameters)
        for step, apart in enumerate(found, start=1):
            name = max(apart, key=lambda x: apart[x])
            if apart[name] <= BOUND:
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                gap = np.max(np.abs(left[step - 1][name] - right[step - 1][name]))
            rate = None
            if "learning_rate" in self.left.settings:
                rate = self.left.learning_rate(step)
            return OptimizerParting(
                step=step,
                parameter=name,
                rates=float(gap) / rate if rate and np.isfinite(gap) else None,
                relative=apart[name],
            )
        raise AssertionError("paths that are apart part somewhere")

    def _rates_later(self) -> OptimizerParting | None:
        """Where schedules part after the last step that was followed."""
        lists = [x.settings.get("learning_rate") for x in (self.left, self.right)]
        if any(x is None for x in lists):
            return None
        length = max((len(x) for x in lists if isinstance(x, Sequence)), default=0)
        for step in range(len(self.gradients) + 1, length + 1):
            left, right = self.left.learning_rate(step), self.right.learning_rate(step)
            if not alike(left, right):
                return OptimizerParting(
                    step=step,
                    parameter="learning rate",
                    rates=None,
                    relative=abs(left - right) / max(abs(left), abs(right)),
                )
        return None

    def _cautions(self, keys: Sequence[str]) -> None:
        """What differs and makes no difference here."""
        for key in keys:
            if key == "momentum_form":
                self.notes.append(
                    "Momentum has another form, which is the same as long as the "
                    "learning rate stays: where a schedule or a callback changes it, "
                    "they part."
                )
            elif key == "decay_form" and self.left.family == "sgd":
                self.notes.append(
                    "Weight decay has another form, which is the same as long as there "
                    "is no momentum."
                )
            else:
                left, right = shown(self.left.get(key)), shown(self.right.get(key))
                self.notes.append(
                    f"{key} differs ({left}, {right}) and makes no difference with "
                    "these gradients."
                )


def _meeting(left: Any, right: Any) -> Any:
    """The right's rates, with the left's where they agree to float32."""
    if not isinstance(right, Sequence):
        return right
    given = left if isinstance(left, Sequence) else [left] * len(right)
    pairs = zip(given, right, strict=False)
    return [*(x if alike(x, y) else y for x, y in pairs), *right[len(given) :]]


def differing(left: OptimizerRule, right: OptimizerRule) -> list[str]:
    """The settings and forms that differ, but for those that do nothing in either.

    The 1e-6 in PyTorch's clipping by norm is no difference: it is always noted.
    """
    keys = [*left.settings, *right.settings, *left.forms, *right.forms]
    found = []
    for key in dict.fromkeys(keys):
        if key == "constants" or alike(left.get(key), right.get(key)):
            continue
        gate = GATES.get(key)
        if key != "clip_form" and (gate is None or left.get(gate) or right.get(gate)):
            found.append(key)
    return found
