"""A recurrent layer that runs backwards, beside one whose steps are reversed before it.

Both compute the same; what may differ is in which order their steps come out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paripassu.core.layer_spec import LayerSpec, relative_error
from paripassu.port_check.results import Cause
from paripassu.port_check.seen import Seen
from paripassu.port_check.tolerance import SAME_WEIGHT


def one_runs_backwards(
    left: Sequence[LayerSpec], right: Sequence[LayerSpec], begins: tuple[Seen, Seen]
) -> bool:
    """Whether one layer runs backwards, and the other is given reversed steps.

    Args:
        left, right: the parts of the layers.
        begins: their calls, with what each model gave them.
    """
    if len(left) != 1 or len(right) != 1:
        return False
    backwards = [bool(x[0].settings.get("reverse")) for x in (left, right)]
    one, two = (x.inputs[0] for x in begins)
    if backwards[0] == backwards[1] or one.ndim != 3 or one.shape != two.shape:
        return False
    return relative_error(one[:, ::-1], two) <= SAME_WEIGHT


def compare_orders(
    specs: tuple[LayerSpec, LayerSpec],
    ends: tuple[Seen, Seen],
    calls: tuple[Sequence[Seen], Sequence[Seen]],
) -> Cause | None:
    """Whether the steps of two such layers are used in other orders.

    Args:
        specs: the layers.
        ends: their calls.
        calls: all of the left and the right model.
    """
    if any(x.outputs[0].ndim != 3 for x in ends):
        return None  # the last step of both
    as_taken = []
    for spec, end, every in zip(specs, ends, calls, strict=True):
        in_time = spec.settings.get("reverse") and not spec.settings.get("flipped")
        turned = any(_reverses(x) for x in every if end.call.serial in x.call.sources)
        as_taken.append(bool(in_time) == turned)
    if as_taken[0] == as_taken[1]:
        return None
    which = "left" if as_taken[1] else "right"
    return Cause(
        key="direction",
        sentence="a reversed input and a layer that runs backwards compute the same, "
        f"but the order of the steps is reversed after it: only the {which} model puts "
        "them back into the order of time",
        write="Keras: go_backwards=True gives the steps in the order in which it took "
        "them; keras.ops.flip(x, axis=1) puts them back",
    )


def _reverses(seen: Seen) -> bool:
    """Whether a call reverses steps (N, t, c)."""
    if not seen.inputs or not seen.outputs or seen.inputs[0].ndim != 3:
        return False
    return np.array_equal(seen.inputs[0][:, ::-1], seen.outputs[0])
