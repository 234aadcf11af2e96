"""What tells two recipes apart, difference by difference, and the stops between."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paripassu.core.errors import UserError
from paripassu.core.recipe import NOT_DECISIVE, Recipe, validate
from paripassu.core.record import Model

NOT_A_DIFFERENCE = NOT_DECISIVE | {"network", "seed"}
WHOLE = {"decay", "normalization"}  # tables whose parts have a meaning only together


SOFTMAXES = {
    "cross_entropy_on_logits": "twice",
    "cross_entropy_on_probabilities": "once",
}


class Change(Model):
    """One value of a recipe that the other recipe has otherwise."""

    key: str  # "optimizer.rho"; of a table that is changed whole, the table's
    before: Any  # in FROM: a value, or a table
    after: Any  # in TO

    def __str__(self) -> str:
        one, other = self.before, self.after
        if isinstance(one, dict) and isinstance(other, dict):
            if one.get("kind") != other.get("kind"):
                one, other = one["kind"], other["kind"]
            else:
                keys = [key for key in one if one[key] != other.get(key)]
                one, other = ({key: x[key] for key in keys} for x in (one, other))
        return f"{_shown(one)} → {_shown(other)}"


class Difference(Model):
    """One step of the walk: a change, or several that only hold together."""

    changes: list[Change]

    @property
    def name(self) -> str:
        """The keys that it changes: "optimizer.rho", "output + loss"."""
        return " + ".join(change.key for change in self.changes)

    def __str__(self) -> str:
        told = "; ".join(map(str, self.changes))
        if self.name == "loss":  # the output stays, which only a softmax's can
            (change,) = self.changes
            before, after = SOFTMAXES[change.before], SOFTMAXES[change.after]
            told += f", so softmax {before} → {after}"
        return told


@dataclass(frozen=True)
class Stop:
    """A recipe on the walk."""

    label: str  # "FROM", "+ optimizer.rho", "TO", "− optimizer.rho"
    recipe: Recipe  # with FROM's seed
    taken: tuple[int, ...]  # the differences that are as in TO


@dataclass(frozen=True)
class Walk:
    """From one recipe to another and back: forward adds each difference, in order.

    The way back starts at the other recipe and takes the differences away in the same
    order, so that each is seen once among the first recipe's values and once among
    the second's.
    """

    differences: tuple[Difference, ...]
    stops: tuple[Stop, ...]  # all different
    forward: tuple[int, ...]  # indices of stops, from FROM to TO
    back: tuple[int, ...]  # from TO to FROM

    @property
    def start(self) -> int:
        """The index of FROM."""
        return self.forward[0]

    @property
    def end(self) -> int:
        """The index of TO."""
        return self.forward[-1]


def walk(start: Recipe, end: Recipe) -> Walk:
    """All stops between two recipes of the same network.

    Changes that make a recipe contradict itself while others are not yet made are one
    difference together.

    Raises:
        UserError: there is no difference, or the networks are not the same.
    """
    found = differences(start, end)
    count = len(found)
    ahead = [Stop("FROM", start, ())]
    behind = [Stop("TO", end.changed(seed=start.seed), tuple(range(count)))]
    for k in range(1, count):
        name = found[k - 1].name
        ahead.append(Stop(f"+ {name}", _mixed(start, end, found[:k]), tuple(range(k))))
        behind.append(
            Stop(f"− {name}", _mixed(start, end, found[k:]), tuple(range(k, count)))
        )
    return Walk(
        differences=tuple(found),
        stops=(*ahead, *behind),
        forward=(*range(count), count),
        back=(*range(count, 2 * count), 0),
    )


def differences(start: Recipe, end: Recipe) -> list[Difference]:
    """What changes from one recipe to the other, in the order of a recipe's fields.

    Raises:
        UserError: there is no difference, or the networks are not the same.
    """
    if (start.network, start.layers) != (end.network, end.layers):
        raise UserError(
            f"expected two recipes of the same network, got {start.name!r} of "
            f"{start.network!r} and {end.name!r} of {end.network!r}: networks cannot "
            "be exchanged value by value. 'paripassu recipes' lists what there is."
        )
    found = [Difference(changes=[change]) for change in _changes(start, end)]
    if not found:
        raise UserError(
            f"there is nothing to explain: recipes {start.name!r} and {end.name!r} "
            "have the same values. Name two recipes that differ."
        )
    number = 1
    while number < len(found):
        if _holds(start, found[:number]) and _holds(start, found[number:]):
            number += 1
            continue
        one, next_one = found[number - 1 : number + 1]
        merged = Difference(changes=[*one.changes, *next_one.changes])
        found[number - 1 : number + 1] = [merged]
        number = 1
    return found


def applied(start: Recipe, changed: Sequence[Difference]) -> Recipe:
    """`start` with these differences as they are in the other recipe.

    Raises:
        UserError: what comes of it contradicts itself.
    """
    table = start.model_dump()
    for difference in changed:
        for change in difference.changes:
            *outer, last = change.key.split(".", 1)
            here = table[outer[0]] if outer else table
            here[last] = copy.deepcopy(change.after)
    return validate(table)


def _changes(start: Recipe, end: Recipe) -> Iterator[Change]:
    one, other = start.model_dump(), end.model_dump()
    for field in Recipe.model_fields:
        before, after = one[field], other[field]
        if field in NOT_A_DIFFERENCE or before == after:
            continue
        if _changes_part_by_part(field, before, after):
            for key in before:
                if before[key] != after[key]:
                    yield Change(
                        key=f"{field}.{key}", before=before[key], after=after[key]
                    )
        else:
            yield Change(key=field, before=before, after=after)


def _changes_part_by_part(field: str, before: Any, after: Any) -> bool:
    return (
        field not in WHOLE
        and isinstance(before, dict)
        and isinstance(after, dict)
        and before.keys() == after.keys()
        and before.get("kind") == after.get("kind")
    )


def _holds(start: Recipe, changed: Sequence[Difference]) -> bool:
    try:
        applied(start, changed)
    except UserError:
        return False
    return True


def _mixed(start: Recipe, end: Recipe, changed: Sequence[Difference]) -> Recipe:
    """A stop between the ends, as it is run: it has neither's name and source."""
    decisive = applied(start, changed).model_dump(exclude=NOT_DECISIVE)
    keys = ", ".join(difference.name for difference in changed)
    description = f"{start.name} with {keys} of {end.name}"
    return validate({**decisive, "name": "stop", "description": description})


def _shown(value: Any) -> str:
    """A value for people: 60000, 1e-06, "mean 0.1307, std 0.3081"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(x)}" for key, x in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return repr(value).removesuffix(".0")
    return str(value)
