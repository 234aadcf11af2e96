"""Gives both models the same inputs: by name, by meaning, with channels where they are.

Keras sorts inputs that come in a dict by name, PyTorch has arguments: a position says
nothing where names do, and is said where it decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array
from paripassu.port_check import partners, targets
from paripassu.port_check.meanings import (
    differ_in_meaning,
    is_unnamed,
    meaning_of_input,
)
from paripassu.port_check.partners import UNDECLARED, Partners
from paripassu.port_check.results import Partner
from paripassu.sides.contract import ANY, Arrays, Declared

Takes = Mapping[str, Declared]
Move = tuple[int, int]  # of an axis, as `np.moveaxis` takes it
Way = Callable[[Array], Array | None]  # to arrange an array; None: it cannot be
DEFAULT = "not given"


@dataclass(frozen=True)
class Layout:
    """Where both models have their channels.

    Attributes:
        left_first, right_first: whether they are at axis 1.
        same_side: whether both models are of one framework.
    """

    left_first: bool
    right_first: bool
    same_side: bool

    @property
    def move(self) -> Move | None:
        """From the left's axis to the right's, as `np.moveaxis` takes it."""
        if self.left_first == self.right_first:
            return None
        return (1, -1) if self.left_first else (-1, 1)


def name_inputs(inputs: Arrays, takes: Takes, which: str) -> tuple[Arrays, list[str]]:
    """A user's inputs under the names of the model, and what has to be said of it.

    Args:
        inputs: by the names that the user gave, or "input", "input1", ...
        takes: what the model takes; empty: unknown.
        which: "left" or "right".

    Raises:
        UserError: the model has no such input.
    """
    takes, others = _named_ones(takes)
    if not takes or set(inputs) <= set(takes):
        made, said = dict(inputs), list[str]()
    elif len(inputs) == 1 and len(takes) == 1:
        # Its own name, and a module's argument for what has none.
        (array,), (name,) = inputs.values(), takes
        made, said = ({name: array} if _shaped(takes) else dict(inputs)), []
    else:
        made, said = _named(inputs, takes, which, others=others)
    more, notes = fill_in(made, takes, which)
    return made | more, said + notes


def _named(
    inputs: Arrays, takes: Takes, which: str, *, others: bool
) -> tuple[Arrays, list[str]]:
    search = Partners(inputs, takes, meaning_of_input, _fitting(inputs, takes, None))
    search.by_name()
    _pair_rest(search, takes)
    said = []
    if search.left:
        if _is_loose(inputs, takes) or all(map(is_unnamed, inputs)):
            return dict(inputs), []  # in a dict or in a list; or by position
        if not others:
            raise UserError(
                f"the {which} model has no input {', '.join(search.left)}. It takes "
                f"{describe_takes(takes)}. Give them by these names: "
                "--input NAME=SHAPE."
            )
        for name in search.left:
            search.found.append(Partner(left=name, right=name, why=UNDECLARED))
        said.append(
            f"the {which} model does not declare {', '.join(search.left)}, but takes "
            f"others by name; it declares {describe_takes(takes)}"
        )
    names = {x.left: x.right for x in search.found}
    made = {str(names[name]): x for name, x in inputs.items()}
    said += [
        f"input {x.left} was given to {x.right} of the {which} model ({x.why})"
        for x in search.found
        if x.left != x.right and not is_unnamed(x.left or "")
    ]
    return made, said


def pair_inputs(
    inputs: Arrays,
    takes: Takes,
    asked: Sequence[str] = (),
    move: Move | None = None,
) -> list[Partner]:
    """Find which input of the right model each of the left's is.

    Args:
        inputs: of the left model, by its names.
        takes: what the right model takes; empty: unknown, the same names then.
        asked: `left=right`, of the user.
        move: how channels may move, see `Layout`.

    Raises:
        UserError: one of them has no partner, or it is in doubt.
    """
    takes, others = _named_ones(takes)
    search = Partners(inputs, takes, meaning_of_input, _fitting(inputs, takes, move))
    for text in asked:
        left, right = targets.parse_pair(text, "--pair")
        if left not in search.left:
            raise UserError(
                f"--pair {text}: the left model was given no input {left!r}, but "
                f"{', '.join(inputs)}."
            )
        if right not in search.right:
            if not (others or _is_loose(inputs, takes)):
                raise UserError(
                    f"--pair {text}: the right model has no input {right!r} (left "
                    f"over). It takes {describe_takes(takes)}."
                )
            search.right.append(right)
        search.join(left, right, partners.ASKED)
    if _is_loose(inputs, takes):
        for left in search.left:
            search.found.append(Partner(left=left, right=left, why=partners.NAME))
        return search.found
    search.by_name()
    _pair_rest(search, takes)
    if search.left and not others:
        raise UserError(_unpaired(search, inputs, takes))
    for left in search.left:
        search.found.append(Partner(left=left, right=left, why=UNDECLARED))
    return search.found


def _pair_rest(search: Partners, takes: Takes) -> None:
    """By shape and type, else by position, where a model has positions."""
    needed = [x for x in search.right if takes[x].required]
    alone = search.right if len(search.right) == 1 else needed
    if len(search.left) == 1 == len(alone):
        if not differ_in_meaning(search.left[0], alone[0]):
            search.join(search.left[0], alone[0], partners.LONE)
        return
    placed = [x for x in search.right if takes[x].placed]
    if search.by_order([x for x in needed if x in placed]):
        return
    if _shaped(takes):
        search.by_shape()
    if all(map(is_unnamed, search.left)):
        search.by_order(placed[: len(search.left)])


def _named_ones(takes: Takes) -> tuple[Takes, bool]:
    """Inputs that have a name, and whether there may be others."""
    return {name: x for name, x in takes.items() if name != ANY}, ANY in takes


def _is_loose(inputs: Arrays, takes: Takes) -> bool:
    """Whether names are the user's: unknown, or of what lies in a list or dict."""
    single = len(takes) == 1 < len(inputs) and not _shaped(takes)
    return not takes or (single and all(x.required for x in takes.values()))


def _shaped(takes: Takes) -> bool:
    return all(x.shape is not None for x in takes.values())


def _fitting(inputs: Arrays, takes: Takes, move: Move | None) -> partners.Fits:
    def fits(left: str, right: str) -> bool:
        if differ_in_meaning(left, right):
            return False
        array, declared = inputs[left], takes[right]
        integer = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
        if declared.integer is not None and declared.integer > integer:
            return False
        if declared.shape is not None and declared.integer is False and integer:
            return False
        return bool(list(ways(array, declared.shape, move)))

    return fits


def fill_in(given: Arrays, takes: Takes, which: str) -> tuple[Arrays, list[str]]:
    """What a model needs and was not given, where its meaning has a usual value.

    Returns:
        Masks of ones, segments of zeros, positions that count; and what was given.

    Raises:
        UserError: it needs something else.
    """
    named, others = _named_ones(takes)
    if len(named) == 1 or not (others or set(given) <= set(named)):
        return {}, []
    made: Arrays = {}
    said, missing = [], []
    for name in [x for x, y in takes.items() if y.required and x not in given]:
        kind = meaning_of_input(name).removeprefix("decoder ")
        decoder = meaning_of_input(name).startswith("decoder ")
        shape = _ids_shape(given, decoder=decoder)
        if shape is None or kind not in ("mask", "segments", "positions"):
            missing.append(name)
            continue
        dtype = np.dtype(np.float32 if takes[name].integer is False else np.int64)
        value = {
            "mask": np.ones(shape, dtype),
            "segments": np.zeros(shape, dtype),
            "positions": np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape),
        }
        words = {"mask": "ones", "segments": "zeros", "positions": "0, 1, 2, ..."}
        made[name] = value[kind]
        said.append(
            f"input {name} of the {which} model was not given: it got {words[kind]}"
        )
    if missing:
        raise UserError(
            f"the {which} model needs {', '.join(missing)} as well: it takes "
            f"{describe_takes(takes)}, but {', '.join(given)} came. "
            "Give each with --input NAME=SHAPE."
        )
    return made, said


def _ids_shape(given: Arrays, *, decoder: bool) -> tuple[int, ...] | None:
    wanted = "decoder ids" if decoder else "ids"
    found = [x.shape for name, x in given.items() if meaning_of_input(name) == wanted]
    found += [x.shape for x in given.values() if x.ndim == 2 and x.dtype.kind in "iu"]
    return found[0] if found else None


def ways(
    array: Array,
    declared: Sequence[int | None] | None,
    move: Move | None,
    *,
    other: bool = False,
) -> Iterator[Array]:
    """How an input may be given to the other model: what its declared shape allows.

    Args:
        array: as the left model takes it.
        declared: the right's shape, or None.
        move: the way of channels between the models, or None.
        other: whether it may move although the models have channels at one axis.
    """
    found = [array]
    if array.ndim > 2 and np.issubdtype(array.dtype, np.floating):
        moves = [move] if move else [(1, -1), (-1, 1)] if other else []
        moved = [np.ascontiguousarray(np.moveaxis(array, *x)) for x in moves]
        # Images move, sequences stay, unless something else is known.
        found = [*moved, array] if move and array.ndim > 3 else [array, *moved]
    if declared is not None:
        # Sound as (n, t), and as (n, t, 1): an axis of size 1 more, or fewer.
        found += [x for way in LONE_AXES if (x := way(array)) is not None]
    for one in found:
        if declared is None or _fits(one.shape, declared):
            yield one


def _added(axis: int) -> Way:
    return lambda array: np.expand_dims(array, axis) if array.ndim > 1 else None


def _dropped(axis: int) -> Way:
    def drop(array: Array) -> Array | None:
        lone = array.ndim > 2 and array.shape[axis] == 1
        return np.squeeze(array, axis) if lone else None

    return drop


LONE_AXES: tuple[Way, ...] = (_added(-1), _added(1), _dropped(-1), _dropped(1))


def arrangements(
    inputs: Arrays, found: Sequence[Partner], takes: Takes, layout: Layout
) -> list[Arrays]:
    """The right model's inputs, in each arrangement that its declared shapes allow.

    The first one is the likeliest. There is more than one where channels may be at
    either axis.

    Raises:
        UserError: no arrangement fits.
    """
    every: list[list[Array]] = []
    names = []
    for pair in found:
        assert pair.left is not None
        assert pair.right is not None
        array = inputs[pair.left]
        declared = takes[pair.right].shape if pair.right in takes else None
        fitting = list(ways(array, declared, layout.move, other=not layout.same_side))
        if not fitting:
            raise UserError(
                f"the right model's input {pair.right} has shape "
                f"{_dims(declared or ())}, but the left's {pair.left} is "
                f"{_dims(array.shape)}. Give the left model's with --input."
            )
        names.append(pair.right)
        every.append(fitting)
    return [dict(zip(names, x, strict=True)) for x in itertools.product(*every)]


def same_inputs(left: Arrays, right: Arrays) -> Iterator[tuple[str, str, Way]]:
    """Which inputs of both models are the same, and how they were arranged.

    Args:
        left, right: what the models are given, by name: the same values but for the
            place of channels, and axes of size 1.

    Yields:
        The left name, the right name, and what arranges an array of the left so.
    """
    for name, array in right.items():
        # Of two with equal values, that of the same meaning.
        meaning = meaning_of_input(name)
        others = [x for x in left if meaning_of_input(x) == meaning]
        others += [x for x in left if x not in others]
        for other in others:
            way = _find_way(left[other], array)
            if way is not None:
                yield other, name, way
                break


def _find_way(left: Array, right: Array) -> Way | None:
    """How the left input was made the right one; None: that is another one."""
    ways: list[Way] = [lambda x: x]
    if left.ndim > 1:
        ways += [lambda x: np.moveaxis(x, 1, -1), lambda x: np.moveaxis(x, -1, 1)]
        ways += LONE_AXES
    for way in ways:
        made = way(left)
        if made is not None and np.array_equal(made, right):
            return way
    return None


def carry_inputs(left: Arrays, right: Arrays, fresh: Arrays) -> Arrays:
    """The right model's inputs for other ones of the left.

    Args:
        left, right: see `same_inputs`.
        fresh: the left model's.
    """
    made = dict(right)
    for name, other, way in same_inputs(left, right):
        if (turned := way(fresh[name])) is not None:
            made[other] = np.ascontiguousarray(turned).astype(right[other].dtype)
    return made


def describe_pairs(found: Sequence[Partner], takes: Takes) -> list[str]:
    """What has to be said of pairs of inputs: what neither name nor meaning decides."""
    said = [
        f"{x.left} to {x.right} ({x.why})"
        for x in found
        if x.why in (partners.SHAPE, partners.ORDER, UNDECLARED)
        and not (is_unnamed(x.left or "") and is_unnamed(x.right or ""))
    ]
    named, _ = _named_ones(takes)
    if len(named) == 1 < len(found) and not {x.right for x in found} & set(named):
        order = ", ".join(x.right or "" for x in found)
        return [
            f"the right model takes its inputs together, as {next(iter(named))}: they "
            f"were given in a dict by name, or in a list in this order: {order}"
        ]
    if not said:
        return []
    return [
        f"inputs were given by what fits: {', '.join(said)}. "
        "To name a pair yourself: --pair LEFT=RIGHT"
    ]


def describe_takes(takes: Takes) -> str:
    """Names, and shapes where they are declared."""
    told = [
        name if x.shape is None else f"{name} {_dims(x.shape)}"
        for name, x in takes.items()
        if name != ANY and (x.required or len(takes) < 8)
    ]
    return ", ".join(told)


def _unpaired(search: Partners, inputs: Arrays, takes: Takes) -> str:
    left = ", ".join(f"{x} {_dims(inputs[x].shape)}" for x in search.left)
    over = {x: takes[x] for x in search.right}
    if not over:
        return (
            f"the right model has no input for the left's {left}: it takes "
            f"{describe_takes(takes)}. Leave that input out."
        )
    return (
        f"which input of the right model the left's {left} is, is in doubt: left over "
        f"are {describe_takes(over)}. Name the pair: --pair "
        f"{search.left[0]}={next(iter(over))}."
    )


def _fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(shape) == len(declared) and all(
        wanted is None or wanted == one
        for one, wanted in zip(shape, declared, strict=True)
    )


def _dims(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if x is None else str(x) for x in shape) + ")"
