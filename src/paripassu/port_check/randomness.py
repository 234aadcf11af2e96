"""What is random in two models, and whether both drop alike.

Models are run with draws that are the same in both (`sides.chance`), so that their
values can be compared while they drop. What each drew says where, and at which rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from paripassu.port_check.results import Cause, finite, list_some
from paripassu.sides.contract import Draw

NONE = "none"


@dataclass(frozen=True)
class Randomness:
    """Of a model in one mode.

    Attributes:
        draws: what it drew, in order.
        unshared: where it remains random, because what it draws there cannot be given
            to it; None: nowhere that its outputs show.
    """

    draws: tuple[Draw, ...]
    unshared: str | None


@dataclass(frozen=True)
class DropoutDifference:
    """A dropout that the other model has not, or has at another rate or shape."""

    left: Draw | None
    right: Draw | None

    @property
    def is_rate(self) -> bool:
        """Whether the rates differ, or one is not there."""
        left, right = self.left, self.right
        return not (left and right and left.rate == right.rate)

    @property
    def places(self) -> tuple[str, str]:
        """Where it is, for readers."""
        left, right = (x.place if x else NONE for x in (self.left, self.right))
        return left, right

    def cause(
        self, *, training: bool, before: float | None, after: float | None
    ) -> Cause:
        """Why the models part.

        Args:
            training: whether in training mode; else at inference.
            before: the models' difference.
            after: the same with dropout off in both, where that is rounding.
        """
        left, right = self.left, self.right
        if left and right and not self.is_rate:
            return Cause(
                key="dropout-mask",
                sentence=f"both drop at rate {left.rate:g}, but the left model draws "
                f"{left.size} numbers, the right one {right.size}: one of them drops "
                "whole channels or steps",
            )
        told = (f"left {_rate(left)}, right {_rate(right)}",)
        if training or (left and right):
            key, sentence = "dropout-rate", f"dropout: {told[0]}"
        else:
            which = "left" if left else "right"
            key = "dropout-at-inference"
            sentence = (
                f"dropout at inference: only the {which} model drops in evaluation "
                f"mode, {_rate(left or right)}"
            )
        return Cause(
            key=key,
            sentence=sentence,
            write=_advice(key),
            before=finite(before),
            after=finite(after),
            settings={"rate": left.rate} if left and right else {},
        )


def _advice(key: str) -> str:
    if key == "dropout-rate":
        return "the left model's rate, at the same place"
    return (
        "F.dropout(x, rate, training=self.training) in PyTorch; no training=True in "
        "Keras"
    )


def _rate(draw: Draw | None) -> str:
    if draw is None:
        return "none"
    line = f" ({draw.line})" if draw.line else ""
    return f"rate {draw.rate:g} at {draw.place}{line}"


def compare_dropout(
    left: Sequence[Draw], right: Sequence[Draw], names: Mapping[str, str]
) -> list[DropoutDifference]:
    """The dropouts of which one model has more than the other, in order.

    Args:
        left, right: all that each drew.
        names: of the left model's layers with weights, by the right's.
    """
    lefts, rights = _dropouts(left), _dropouts(right)
    rates = Counter(x.rate for x in lefts), Counter(x.rate for x in rights)
    if rates[0] == rates[1]:
        return list(_of_other_shapes(lefts, rights))
    too_many = {*(rates[0] - rates[1]), *(rates[1] - rates[0])}
    keys = (
        [(x.after, x.rate) for x in lefts],
        [(names.get(x.after, x.after), x.rate) for x in rights],
    )
    found = []
    matcher = SequenceMatcher(None, *keys, autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            continue
        found += list(_paired(lefts[a:b], rights[c:d], names))
    return [x for x in found if {y.rate for y in (x.left, x.right) if y} & too_many]


def compare_inference(
    left: Sequence[Draw], right: Sequence[Draw], names: Mapping[str, str]
) -> list[tuple[tuple[str, str], Cause]]:
    """Where only one model is random in evaluation mode, and why."""
    found = [
        (x.places, x.cause(training=False, before=None, after=None))
        for x in compare_dropout(left, right, names)
    ]
    for which, draws, others in (("left", left, right), ("right", right, left)):
        if others or any(x.kind == "dropout" for x in draws):
            continue
        for draw in draws[:1]:
            places = (draw.place, NONE) if which == "left" else (NONE, draw.place)
            text = f"only the {which} model is random in evaluation mode: "
            text += describe_draws(draws)
            found.append((places, Cause(key="random-at-inference", sentence=text)))
    return found


def _dropouts(draws: Sequence[Draw]) -> list[Draw]:
    """Dropouts; of the masks that a layer draws for its gates, the first."""
    found: list[Draw] = []
    for draw in draws:
        drops = draw.kind in ("dropout", "bernoulli") and draw.rate is not None
        if drops and draw not in found[-1:]:
            found.append(draw)
    return found


def _paired(
    lefts: Sequence[Draw], rights: Sequence[Draw], names: Mapping[str, str]
) -> Iterator[DropoutDifference]:
    """Those after the same layer together, the others alone."""
    rest = list(rights)
    for left in lefts:
        same = [x for x in rest if names.get(x.after, x.after) == left.after]
        right = same[0] if same else None
        if right is not None:
            rest.remove(right)
        if right is None or right.rate != left.rate:
            yield DropoutDifference(left, right)
    for right in rest:
        yield DropoutDifference(None, right)


def _of_other_shapes(
    lefts: Sequence[Draw], rights: Sequence[Draw]
) -> Iterator[DropoutDifference]:
    sizes = [Counter((x.rate, x.size) for x in y) for y in (lefts, rights)]
    if sizes[0] == sizes[1]:
        return
    for left, right in zip(lefts, rights, strict=True):
        if left.rate == right.rate and left.size != right.size:
            yield DropoutDifference(left, right)


def has_unknown_rates(*draws: Sequence[Draw]) -> bool:
    """Whether a model draws numbers that it may drop by, at a rate that is not said."""
    return any(x.rate is None and x.kind != "normal" for y in draws for x in y)


def describe_draws(draws: Sequence[Draw]) -> str:
    """What a model draws, in a line: "dropout at fc (rate 0.5), uniform after conv"."""
    told = dict.fromkeys(
        f"{x.kind} at {x.place}"
        + (f" (rate {x.rate:g})" if x.rate is not None else "")
        + (f", {x.line}" if x.line else "")
        for x in draws
    )
    return list_some([*told], "; ")
