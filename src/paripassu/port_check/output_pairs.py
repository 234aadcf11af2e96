"""Which outputs of two models are compared, and in which arrangement of their axes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check import partners
from paripassu.port_check.meanings import (
    MAIN,
    is_unnamed,
    meaning_of_input,
    meaning_of_output,
)
from paripassu.port_check.partners import Partners
from paripassu.port_check.results import Findings, Partner
from paripassu.sides.contract import Arrays

Shape = tuple[int, ...]
ALONE, NOT_ASKED = "has no partner", "not asked for"
TO_LAST = (1, -1)  # of np.moveaxis
BY_POSITION = re.compile(r"output\d*")  # as `sides.observing` names them


@dataclass(frozen=True)
class Way:
    """How an output, or what has its axes, becomes the other model's."""

    title: str
    turn: Callable[[Array], Array]


AS_DECLARED = Way("as declared", lambda x: x)


def _mover(move: tuple[int, int]) -> Callable[[Array], Array]:
    return lambda x: np.moveaxis(x, *move)


@dataclass(frozen=True)
class Outputs:
    """Which outputs are compared.

    Attributes:
        partners: all of both models; one without a partner is not compared.
        move: how channels come from the left model's axis to the right's; None: both
            have them at the same.
        spatial: the left outputs that are images or signals. Only these may have moved
            channels where their shape does not say so, or where they have three axes.
        same_side: whether both models are of one framework. Else a first axis of size
            1 may be there on one side: PyTorch's recurrent layers have one for layers
            before the batch in their states, Keras's have none.
        kept: of left outputs with steps (N, t, ...), which are compared (N, t); of
            others all are.
    """

    partners: tuple[Partner, ...]
    move: tuple[int, int] | None = None
    spatial: frozenset[str] = frozenset()
    same_side: bool = False
    kept: Mapping[str, Array] = field(default_factory=dict)

    def without_padding(self, inputs: Arrays) -> Outputs:
        """The same, but for steps that a mask among the left model's inputs hides."""
        masks = masks_of(inputs)
        two = any(meaning_of_input(x).startswith("decoder") for x in inputs)
        kept = {}
        for name, _ in self.pairs:
            decoded = two and meaning_of_output(name) != "encoder"
            mask = masks.get("decoder mask" if decoded else "mask")
            if mask is not None and not mask.all():
                kept[name] = mask
        return replace(self, kept=kept)

    @property
    def doubt(self) -> str:
        """Which outputs are left over in both models and may be the same, if any."""
        alone = [x for x in self.partners if x.why == ALONE]
        left = [x.left for x in alone if x.left]
        right = [x.right for x in alone if x.right]
        if not (left and right):
            return ""
        return (
            f"outputs of the left model ({_shortened(left)}) and of the right one "
            f"({_shortened(right)}) that nothing pairs. Type: --output LEFT=RIGHT"
        )

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """Names of those that are compared."""
        for one in self.partners:
            if one.left is not None and one.right is not None:
                yield one.left, one.right

    @property
    def exchanged(self) -> list[tuple[str, str]]:
        """Outputs without names that come at another position in the right model.

        Whoever takes them by their position takes another one.
        """
        names = [(x.left or "", x.right or "") for x in self.partners]
        asked = any(x.why == partners.ASKED for x in self.partners)
        if asked or not all(BY_POSITION.fullmatch(x) for pair in names for x in pair):
            return []
        return [pair for pair in names if pair[0] != pair[1]]

    def ways(self, left: Shape, right: Shape, *, spatial: bool) -> list[Way]:
        """How an output may become the right one, as declared first."""
        same = left == right
        found = [AS_DECLARED] if same else []
        if not same and not self.same_side and 2 <= len(left) != len(right) > 1:
            if left == (1, *right) and right[0] > 1:
                found.append(Way("without its first axis", lambda x: x[0]))
            elif right == (1, *left) and left[0] > 1:
                found.append(Way("with a first axis of 1", lambda x: x[None]))
        known = spatial or (len(left) > 3 and not same)
        if self.move is not None and len(left) == len(right) > 2 and known:
            moved = Way("with channels moved", _mover(self.move))
            if _mover(self.move)(np.empty(left, bool)).shape == right:
                found.append(moved)
        return found

    def way(self, name: str, left: Array, right: Array) -> Way | None:
        """How the left output becomes the right one; None: its shape is another.

        Where two ways fit, the nearer one counts, as declared first.
        """
        ways = self.ways(left.shape, right.shape, spatial=name in self.spatial)
        if len(ways) < 2:
            return ways[0] if ways else None
        return min(ways, key=lambda x: relative_error(x.turn(left), right))

    def turned(self, left: Arrays, right: Arrays) -> list[str]:
        """Which outputs are not compared as declared, in words."""
        ways = ((x, self.way(x, left[x], right[y])) for x, y in self.pairs)
        return [f"{x} {way.title}" for x, way in ways if way and way is not AS_DECLARED]


@dataclass(frozen=True)
class Paired:
    """Which inputs and outputs are the same, and what has to be said of that."""

    inputs: tuple[Partner, ...]
    outputs: Outputs
    notes: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    def tell(self, findings: Findings) -> None:
        """Add what has to be said, and what is not compared, to the findings."""
        findings.notes += self.notes
        findings.not_compared += self.gaps
        if self.outputs.doubt:
            findings.not_compared.append(self.outputs.doubt)
        if any(x.why == NOT_ASKED for x in self.outputs.partners):
            findings.not_asked.append("other outputs")


def pair_outputs(
    plan: Outputs, left: Arrays, right: Arrays
) -> Iterator[tuple[str, str, Array, Array]]:
    """Pairs of outputs: both names, the left as the right model has it, the right."""
    for name, other in plan.pairs:
        way = plan.way(name, left[name], right[other]) or AS_DECLARED
        wanted, got = way.turn(left[name]), right[other]
        if (kept := plan.kept.get(name)) is not None:
            wanted, got = select_steps(kept, wanted, got)
        yield name, other, wanted, got


def masks_of(inputs: Arrays) -> dict[str, Array]:
    """Which steps count (N, t), by the meanings of the masks that say it."""
    return {
        meaning: x != 0
        for name, x in inputs.items()
        if (meaning := meaning_of_input(name)) in ("mask", "decoder mask")
        and x.ndim == 2
        and np.isin(x, (0, 1)).all()
    }


def select_steps(kept: Array | None, left: Array, right: Array) -> tuple[Array, Array]:
    """Two arrays without steps of padding, if they have a value for each step."""
    if kept is None or left.shape != right.shape:
        return left, right
    if left.ndim < 3 or left.shape[:2] != kept.shape:
        return left, right
    return left[kept], right[kept]


def find_outputs(
    left: Mapping[str, Array],
    right: Mapping[str, Array],
    asked: Sequence[str] = (),
    *,
    move: tuple[int, int] | None = None,
    spatial: frozenset[str] = frozenset(),
    same_side: bool = False,
) -> Outputs:
    """Find which outputs are the same: by name, by meaning, by shape, by position.

    Args:
        left, right: what the models returned, by name.
        asked: `name` or `left=right`: only these are to be compared.
        move, spatial, same_side: see `Outputs`.

    Raises:
        UserError: nothing can be paired, or an output that was asked for is not there.
    """
    loose = Outputs((), move, same_side=same_side)

    def fits(one: str, other: str) -> bool:
        numbers = [x.dtype.kind in "fcV" for x in (left[one], right[other])]
        ways = loose.ways(left[one].shape, right[other].shape, spatial=True)
        return bool(ways) and numbers[0] == numbers[1]

    search = Partners(left, right, meaning_of_output, fits)
    if asked:
        found = [_asked(x, search, left, right) for x in asked]
        rest = _rest(search, NOT_ASKED)
        return Outputs((*found, *rest), move, spatial, same_side)
    search.by_name()
    _pair_main(search)
    if not search.by_order():
        search.by_shape()
        _pair_rest(search)
    if not search.found:
        raise UserError(_unpaired(left, right))
    rest = _rest(search, ALONE)
    return Outputs((*search.found, *rest), move, spatial, same_side)


def _pair_main(search: Partners) -> None:
    """A single output without a name is what the other model gives above all."""
    for names, others, turned in (
        (search.left, search.right, False),
        (search.right, search.left, True),
    ):
        if search.found or len(names) != 1 or not is_unnamed(names[0]):
            continue
        if len(others) < 2:
            continue
        for meaning in MAIN:
            for other in others:
                pair = (other, names[0]) if turned else (names[0], other)
                if meaning_of_output(other) == meaning and search.fits(*pair):
                    search.join(*pair, partners.MEANING)
                    return


def _pair_rest(search: Partners) -> None:
    """As many on both sides: in their order, whatever their shapes; or the first."""
    pairs = list(zip(search.left, search.right, strict=False))
    unnamed = any(all(map(is_unnamed, x)) for x in (search.left, search.right))
    alone = not search.found and len(pairs) == 1
    if len(search.left) == len(search.right) and (unnamed or alone):
        for pair in pairs:
            search.join(*pair, partners.LONE if alone else partners.ORDER)
    elif not search.found:
        every = [*pairs, *itertools.product(search.left, search.right)]
        if first := next((x for x in every if search.fits(*x)), None):
            search.join(*first, "the first that fits")


def _asked(
    text: str, search: Partners, left: Mapping[str, Array], right: Mapping[str, Array]
) -> Partner:
    name, equals, other = text.partition("=")
    if not equals:
        name, other = _named(name, left, right)
    for one, has, which in ((name, left, "left"), (other, right, "right")):
        if one not in has:
            raise UserError(
                f"--output {text}: the {which} model has no output {one!r}. It has "
                f"{describe_outputs(has)}."
            )
    found = Partner(left=name, right=other, why=partners.ASKED)
    for names, one in ((search.left, name), (search.right, other)):
        if one not in names:
            raise UserError(f"--output {text}: {one} is asked for twice.")
        names.remove(one)
    return found


def _named(
    name: str, left: Mapping[str, Array], right: Mapping[str, Array]
) -> tuple[str, str]:
    """The output of that name and its partner among all."""
    if name not in left and name not in right:
        meant = [x for x in left if meaning_of_output(x) == meaning_of_output(name)]
        if len(meant) != 1:
            raise UserError(
                f"--output {name}: no model has it. The left one has "
                f"{describe_outputs(left)}, the right one {describe_outputs(right)}."
            )
        name = meant[0]
    for one in find_outputs(left, right, move=TO_LAST).partners:
        if name in (one.left, one.right) and one.left and one.right:
            return one.left, one.right
    mine, its = (left, right) if name in left else (right, left)
    if len(its) == 1:
        return (name, next(iter(its))) if mine is left else (next(iter(its)), name)
    raise UserError(
        f"--output {name}: which output of the other model it is, is in doubt. "
        f"Type: --output LEFT=RIGHT. The left model has "
        f"{describe_outputs(left)}, the right one {describe_outputs(right)}."
    )


def _rest(search: Partners, why: str) -> tuple[Partner, ...]:
    return (
        *(Partner(left=x, right=None, why=why) for x in search.left),
        *(Partner(left=None, right=x, why=why) for x in search.right),
    )


def describe_outputs(outputs: Mapping[str, Array]) -> str:
    """Names and shapes, for messages."""
    return ", ".join(f"{name} {x.shape}" for name, x in outputs.items())


def _unpaired(left: Mapping[str, Array], right: Mapping[str, Array]) -> str:
    return (
        f"the left model returns {describe_outputs(left)}, the right one "
        f"{describe_outputs(right)}: none of them could be paired by name, meaning or "
        "shape. Name the pair: --output LEFT=RIGHT."
    )


def _shortened(names: Sequence[str]) -> str:
    """Names; those of one nest, such as a cache, as one."""
    counts = Counter(x.partition(".")[0] for x in names)
    return ", ".join(x if n == 1 else f"{x} ({n} arrays)" for x, n in counts.items())


def _is_obvious(pair: Partner) -> bool:
    if pair.why == partners.ORDER:
        return is_unnamed(pair.left or "") and is_unnamed(pair.right or "")
    return pair.why in (partners.NAME, partners.MEANING, partners.LONE, partners.ASKED)


def describe_partners(plan: Outputs) -> list[str]:
    """What has to be said of the pairing, for notes: what is not obvious."""
    said = []
    pairs = [x for x in plan.partners if x.left and x.right]
    if len(pairs) < len(plan.partners) or not all(map(_is_obvious, pairs)):
        told = ", ".join(f"{x.left} with {x.right} ({x.why})" for x in pairs)
        said.append(f"outputs compared: {told}")
    for which in ("left", "right"):
        alone = [
            name
            for x in plan.partners
            if not (x.left and x.right) and (name := getattr(x, which))
        ]
        if alone:
            said.append(
                f"outputs of the {which} model that were not compared: "
                f"{_shortened(alone)}. To name what is meant: --output LEFT=RIGHT"
            )
    return said
