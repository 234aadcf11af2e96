"""Differences that a user accepts by name: `epsilon@norm*`.

What is accepted is taken out of the right model where that can be done, and the rest is
judged without it. Where it cannot, what lies beyond it was not judged, which is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from paripassu.port_check.acceptance import Acceptance
from paripassu.port_check.results import Accepted, Check, Checked, Fault


def find_accepted(
    faults: Iterable[Fault], accepted: Sequence[Acceptance]
) -> Iterator[tuple[Fault, str]]:
    """The faults that are accepted, all of whose causes are, and by which text."""
    for fault in faults:
        keys = (fault.key, *(fault.cause.also if fault.cause else ()))
        found = [next((x for x in accepted if x.covers(y, fault)), None) for y in keys]
        if found[0] and all(found):
            yield fault, found[0].text


def settle(
    found: Checked, accepted: Sequence[Acceptance], removed: Sequence[Accepted]
) -> Checked:
    """The result without what is accepted.

    Args:
        found: of the models, without what could be taken out of them.
        accepted: what is accepted.
        removed: what was taken out of the right model.
    """
    if not accepted:
        return found
    left = [
        Accepted(by=text, fault=fault, removed=False)
        for fault, text in find_accepted(found.faults, accepted)
    ]
    there = [x.fault for x in left]
    faults = tuple(x for x in found.faults if x not in there)
    everything = (*removed, *left)
    used = {
        x.text
        for x in accepted
        for y in everything
        for key in (y.fault.key, *(y.fault.cause.also if y.fault.cause else ()))
        if x.covers(key, y.fault)
    }
    update: dict[str, object] = {
        "faults": faults,
        "accepted": everything,
        "unused": tuple(x.text for x in accepted if x.text not in used),
    }
    if left and not faults:
        update |= _beyond(found, left)
    return found.model_copy(update=update)


def _beyond(found: Checked, left: Sequence[Accepted]) -> dict[str, object]:
    """What to say where an accepted difference remains in the right model.

    Only a layer whose setting was shown to make all of its error hides nothing in
    evaluation mode: there each other layer was given the left model's input.
    """
    names = ", ".join(dict.fromkeys(x.name for x in left))
    one = len({x.name for x in left}) == 1
    which = "is accepted, but was" if one else "are accepted, but were"
    text = f"what lies beyond {names}, which {which} not taken out of the right model"
    places = {(x.left, x.right) for x in found.places}
    layerwise = all(
        x.fault.phase == "forward"
        and x.fault.cause is not None
        and x.fault.cause.shown
        and (x.fault.left, x.fault.right) in places
        for x in left
    )
    asked = any("gradients" in x for x in found.not_asked)
    checks = tuple(
        Check(name=x.name, state="note", detail=f"{x.detail}; by what is accepted")
        if x.state == "fails"
        else x
        for x in found.checks
    )
    if layerwise and asked and not found.not_compared:
        told = f"{text} (each other layer, given the left model's input, is equal)"
        not_asked = (*found.not_asked, told)
        return {"checks": checks, "verdict": "equal", "not_asked": not_asked}
    told = f"{text}: outputs, gradients, further inputs"
    return {
        "checks": checks,
        "verdict": "undecided",
        "not_compared": (*found.not_compared, told),
    }
