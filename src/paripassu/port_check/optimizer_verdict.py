"""Whether two optimizers take the same steps; if not, by which settings and forms."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from paripassu.reference.optimizers import (
    CONSTANTS,
    GATES,
    Floats,
    OptimizerRule,
    Path,
    step_all,
)

BOUND = 1e-9  # of the largest step that a parameter takes
FLOAT32 = 5e-7  # of a constant: it may have passed through float32
CLOSES = 1e-8  # what is left of a difference that is closed, rounding included
TOGETHER = 3  # how many differences are tried together


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class OptimizerSide(_Frozen):
    """One of the two: `reproduced` says whether its rule, by hand, takes its steps."""

    name: str
    family: str
    settings: dict[str, Any]
    forms: dict[str, str]
    because: str
    reproduced: float | None


class OptimizerParting(_Frozen):
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


class OptimizerDifference(_Frozen):
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


class OptimizerChecked(_Frozen):
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


def trial(seed: int = 20, steps: int = 12) -> tuple[dict[str, Floats], Path]:
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
    found = []
    scales = {
        name: max(_largest_step(path, name, x) for path in (left, right))
        for name, x in begin.items()
    }
    for step, (one, other) in enumerate(zip(left, right, strict=True), start=1):
        apart = {}
        for name in begin:
            here, there = one[name], other[name]
            if not np.array_equal(np.isfinite(here), np.isfinite(there)):
                apart[name] = float("inf")
                continue
            whole = np.isfinite(here)
            gap = float(np.max(np.abs(here[whole] - there[whole]), initial=0.0))
            weight = float(np.max(np.abs(here)[whole], initial=0.0))
            gap = max(0.0, gap - 4 * np.finfo(np.float64).eps * step * weight)
            apart[name] = gap / scales[name] if gap else 0.0
        found.append(apart)
    return found


def _largest_step(path: Path, name: str, start: Floats) -> float:
    points = [start, *(x[name] for x in path)]
    with np.errstate(invalid="ignore", over="ignore"):
        moves = [
            float(np.max(np.abs(after - before), initial=0.0))
            for before, after in itertools.pairwise(points)
        ]
    return max((x for x in moves if np.isfinite(x)), default=0.0)


def judge(
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
    return _Judge(left, right, left_path, right_path, parameters, gradients).go()


class _Judge:
    def __init__(
        self,
        left: OptimizerRule,
        right: OptimizerRule,
        left_path: Path,
        right_path: Path,
        parameters: Mapping[str, Any],
        gradients: Sequence[Mapping[str, Any]],
    ):
        self.left, self.right = left, right
        self.left_path, self.right_path = left_path, right_path
        self.parameters, self.gradients = parameters, gradients
        self.notes: list[str] = []

    def go(self) -> OptimizerChecked:
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

    def _worst(self, one: Path, other: Path) -> float:
        found = distances(one, other, self.parameters)
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
        return OptimizerSide(
            name=rule.name,
            family=rule.family,
            settings=dict(rule.settings),
            forms=dict(rule.forms),
            because=rule.because,
            reproduced=reproduced,
        )

    def _exact(self, keys: Iterable[str] = ()) -> Path:
        """The right's rule with some of the left's, and all that is but rounding."""
        small = [
            key
            for key in {*self.left.settings, *self.right.settings, "clip_form"}
            if key == "clip_form"
            or alike(_value(self.left, key), _value(self.right, key))
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
            left=shown(_value(self.left, key)),
            right=shown(_value(self.right, key)),
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
            one, other = self.left.learning_rate(step), self.right.learning_rate(step)
            if not alike(one, other):
                return OptimizerParting(
                    step=step,
                    parameter="learning rate",
                    rates=None,
                    relative=abs(one - other) / max(abs(one), abs(other)),
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
                one, other = _value(self.left, key), _value(self.right, key)
                self.notes.append(
                    f"{key} differs ({shown(one)}, {shown(other)}) and makes no "
                    "difference with these gradients."
                )


def _meeting(one: Any, other: Any) -> Any:
    """The right's rates, with the left's where they agree to float32."""
    if not isinstance(other, Sequence):
        return other
    given = one if isinstance(one, Sequence) else [one] * len(other)
    pairs = zip(given, other, strict=False)
    return [
        *(mine if alike(mine, theirs) else theirs for mine, theirs in pairs),
        *other[len(given) :],
    ]


def _value(rule: OptimizerRule, key: str) -> Any:
    """A setting or a form; of what is not set, what that is the same as."""
    value = rule.get(key)
    if value is not None:
        return value
    return "" if key.endswith("_form") else 0.0


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, or are numbers that agree to float32."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    first, second = np.atleast_1d(one), np.atleast_1d(other)
    if len(first) > 1 and len(second) > 1 and len(first) != len(second):
        return False
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    size = np.maximum(np.abs(first), np.abs(second))
    return bool(np.all(np.abs(first - second) <= FLOAT32 * size))


def differing(left: OptimizerRule, right: OptimizerRule) -> list[str]:
    """The settings and forms that differ, but for those that do nothing in either.

    The 1e-6 in PyTorch's clipping by norm is no difference: it is always noted.
    """
    keys = [*left.settings, *right.settings, *left.forms, *right.forms]
    found = []
    for key in dict.fromkeys(keys):
        if key == "constants" or alike(_value(left, key), _value(right, key)):
            continue
        gate = GATES.get(key)
        if key != "clip_form" and (
            gate is None or _value(left, gate) or _value(right, gate)
        ):
            found.append(key)
    return found


def shown(value: Any) -> str:
    """A value for a reader; a schedule by its first and last rates."""
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Sequence):
        first = ", ".join(f"{x:.6g}" for x in value[:4])
        return f"{first}, ... {value[-1]:.6g}" if len(value) > 4 else first
    text = f"{value:.10g}"
    return text if set(text) & set(".ein") else f"{text}.0"


# What to write

TORCH = {
    "learning_rate": "lr",
    "epsilon": "eps",
    "accumulator": "initial_accumulator_value",
    "learning_rate_decay": "lr_decay",
}
KERAS = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "accumulator": "initial_accumulator_value",
    "clip_norm": "clipnorm",
    "clip_global_norm": "global_clipnorm",
    "clip_value": "clipvalue",
}
NOT_KERAS = {
    "dampening": "dampening. Keep v = momentum * v + (1 - dampening) * g in a subclass",
    "learning_rate_decay": "lr_decay. Give keras.optimizers.schedules.InverseTimeDecay("
    "rate, 1, lr_decay) as the learning rate",
    "maximize": "maximize. Turn the sign of the loss",
    "momentum_decay": "momentum_decay: its Nadam is PyTorch's NAdam with "
    "momentum_decay=1.0. Write that on the other side, or a subclass here",
}
CLIPS_TORCH = {
    "clip_norm": "for p in parameters: p.grad.mul_(c / p.grad.norm().clamp(min=c))",
    "clip_global_norm": "torch.nn.utils.clip_grad_norm_(parameters, c)",
    "clip_value": "torch.nn.utils.clip_grad_value_(parameters, c)",
}
SUBCLASSES = "paripassu.frameworks.{}.optimizers"


def advice(
    causes: Sequence[str], left: OptimizerRule, right: OptimizerRule
) -> tuple[str, ...]:
    """What to write on the right for it to do as the left does."""
    keras = right.name.startswith(("keras.", SUBCLASSES.format("tensorflow")))
    found = []
    for key in causes:
        form = {"epsilon": "epsilon_form", "weight_decay": "decay_form"}.get(key)
        if form in causes:  # whose advice says both
            continue
        if key == "family":
            found.append(
                f"{right.name or 'the right'} is another method ({right.family}) than "
                f"{left.name or 'the left'} ({left.family}). Write one of that family."
            )
        elif key.endswith("_form"):
            found.append(_form(key, left, right, keras))
        else:
            found.append(_setting(key, left, right, keras))
    return tuple(found)


def _setting(key: str, left: OptimizerRule, right: OptimizerRule, keras: bool) -> str:
    value = _value(left, key)
    if key == "learning_rate":
        return _rate(left, right, keras)
    name = right.name or "the right"
    if key.startswith("clip_") and not keras:
        if not value:
            return f"Take the clipping by {key.removeprefix('clip_')} out of {name}."
        return (
            f"Before each step of {name}, with c = {shown(value)}: {CLIPS_TORCH[key]}"
        )
    if key in KERAS and key.startswith("clip_") and not value:
        return f"{name}({KERAS[key]}=None): the left does not clip so."
    if keras and key in NOT_KERAS:
        return f"Keras has no {NOT_KERAS[key]}."
    if keras and key == "amsgrad" and not right.name.endswith(("Adam", "AdamW")):
        return f"{name} has no amsgrad: keras.optimizers.Adam has."
    if not keras and key in ("beta1", "beta2"):
        betas = shown(left.get("beta1")), shown(left.get("beta2"))
        return f"{name}(betas=({', '.join(betas)}))"
    spelled = (KERAS if keras else TORCH).get(key, key)
    if key == "rho" and not keras and right.family == "rmsprop":
        spelled = "alpha"
    if key == "weight_decay" and keras and not value:
        return f"{name}(weight_decay=None)"
    if key == "weight_decay" and left.forms.get("decay_form") == "l2" and keras:
        return f"{name}: the left's weight decay is {shown(value)}, in the gradient."
    text = repr(value) if isinstance(value, bool) else shown(value)
    return f"{name}({spelled}={text})"


def _rate(left: OptimizerRule, right: OptimizerRule, keras: bool) -> str:
    rate, other = left.settings["learning_rate"], right.settings["learning_rate"]
    name = "learning_rate" if keras else "lr"
    if not isinstance(rate, Sequence):
        also = " and no schedule" if isinstance(other, Sequence) else ""
        return f"{right.name or 'the right'}({name}={shown(rate)}){also}"
    if not isinstance(other, Sequence):
        return (
            f"The left's rate changes: {shown(rate)}. Give the right a schedule of it."
        )
    drops = [i for i in range(1, len(rate)) if rate[i] != rate[i - 1]]
    ladder = len(drops) < len(rate) - 1
    smooth = all(x != y for x, y in itertools.pairwise(other))
    meet = all(i < len(other) and alike(rate[i], other[i]) for i in [0, *drops])
    if ladder and smooth and meet:
        if keras:
            return (
                "keras.optimizers.schedules.ExponentialDecay(..., staircase=True): the "
                f"left's rate stays for {drops[0]} steps and then falls at once; Keras "
                "counts steps, and lets it fall with each."
            )
        return (
            f"Step the schedule once in {drops[0]} steps, not in each, with the whole "
            "factor."
        )
    at = next(
        i
        for i in range(max(len(rate), len(other)))
        if not alike(left.learning_rate(i + 1), right.learning_rate(i + 1))
    )
    one, two = left.learning_rate(at + 1), right.learning_rate(at + 1)
    return (
        f"The schedules part at step {at + 1}: {shown(one)} and {shown(two)}. "
        "PyTorch's move when scheduler.step() is called, Keras's with every step of "
        "the optimizer."
    )


def _form(key: str, left: OptimizerRule, right: OptimizerRule, keras: bool) -> str:
    here = right.name or "the right"
    epsilon = shown(left.get("epsilon") or 0.0)
    module = SUBCLASSES.format("tensorflow" if keras else "pytorch")
    if key == "momentum_form":
        inside = left.forms[key] == "rate_inside"
        subclass = {
            ("sgd", True): f"{module}.SGD(rate, momentum, rate_outside=True)",
            ("sgd", False): f"{module}.SGD(parameters, rate, momentum, weight_decay, "
            "rate_inside=True, decoupled=False)",
        }.get((right.family, keras), "a subclass with the other line")
        mine, theirs = "v = m * v + g, w -= lr * v", "v = m * v + lr * g, w -= v"
        mine, theirs = (theirs, mine) if inside else (mine, theirs)
        return (
            f"{here} has {theirs}; the left has {mine}. They part when the rate "
            "changes; to map the state, multiply v by the new rate over the old at "
            f"each change. Write {subclass}."
        )
    if key == "decay_form":
        return _decay_form(left, right, keras, module)
    if right.family == "adam":
        l2 = left.forms.get("decay_form") == "l2"
        decay = ""
        if left.number("weight_decay"):
            name = "l2" if l2 else "weight_decay"
            decay = f", {name}={shown(left.number('weight_decay'))}"
        other = (
            f"{module}.Adam(..., epsilon={epsilon}, epsilon_outside=True{decay})"
            if keras
            else f"{module}.AdamHat(parameters, rate, betas, {epsilon}, "
            f"{shown(left.number('weight_decay'))}, decoupled={not l2})"
        )
        outside = left.forms[key] == "outside"
        mapping = (
            f"epsilon = {epsilon} * sqrt(1 - beta2**t) at step t"
            if outside
            else f"epsilon = {epsilon} / sqrt(1 - beta2**t) at step t"
        )
        place = "after the correction of the mean square" if outside else "before it"
        return (
            f"{here}(epsilon={epsilon}) is not the left's: the left adds it {place}, "
            f"{here} does not. The same steps need {mapping}, which no one number is. "
            f"Write {other}."
        )
    if right.family == "adamax":
        return (
            "PyTorch's Adamax takes max(beta2 * u, |g| + epsilon), Keras's divides by "
            "max(beta2 * u, |g|) + epsilon; no number maps one to the other. Write "
            "epsilon=1e-30 on both sides, where it does nothing but keep 0 / 0 away, "
            "or a subclass."
        )
    inside = left.forms[key] == "inside"
    mine, theirs = "sqrt(v + epsilon)", "sqrt(v) + epsilon"
    mine, theirs = (mine, theirs) if inside else (theirs, mine)
    subclass = "a subclass with the left's line"
    if right.family == "rmsprop":
        name = "RMSpropOutside(..., epsilon=" if keras else "RMSpropInside(..., eps="
        subclass = f"{module}.{name}{epsilon})"
    return (
        f"{here} divides by {theirs}, the left by {mine} with epsilon={epsilon}. At "
        "v = 0 they agree where the one inside is the square of the one outside; "
        f"elsewhere no number maps one to the other. Write {subclass}."
    )


def _decay_form(
    left: OptimizerRule, right: OptimizerRule, keras: bool, module: str
) -> str:
    here, decay = right.name or "the right", left.number("weight_decay")
    if left.forms["decay_form"] == "l2":
        if keras:
            return (
                f"Keras's weight_decay goes past the gradient, the left's "
                f"{shown(decay)} into it. Write weight_decay=None and "
                f"kernel_regularizer=keras.regularizers.L2({shown(decay / 2)}), half "
                "of it, for each weight; or for SGD and Adam "
                f"{module}.SGD or .Adam with l2={shown(decay)}."
            )
        return (
            f"{here} decays past the gradient, the left in it. Write "
            f"torch.optim.Adam(weight_decay={shown(decay)}), not AdamW."
        )
    ways = {
        "adam": f"torch.optim.AdamW(weight_decay={shown(decay)})",
        "nadam": f"torch.optim.NAdam(weight_decay={shown(decay)}, "
        "decoupled_weight_decay=True)",
        "sgd": f"{SUBCLASSES.format('pytorch')}.SGD(parameters, rate, momentum, "
        f"{shown(decay)}, rate_inside=False, decoupled=True)",
    }
    way = ways.get(
        right.family,
        f"weight_decay=0, and before each step p.mul_(1 - rate * {shown(decay)})",
    )
    return (
        f"{here} has weight decay in the gradient, the left's {shown(decay)} goes past "
        f"it. Write {way}."
    )
