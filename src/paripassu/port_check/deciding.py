"""Decides between pairs that shapes and names leave open, by what the models compute.

Where weights are copied, each way is copied and run, and the one whose layers agree at
the most places is kept, of two such the one with the smaller errors. Where the models
came with their weights, a way is taken for which those are equal, but not by the
weights alone: the order of two layers whose weights were exchanged by mistake would
look right. The models compute the same, or do not come nearer to each other with the
weights that the first way would give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from paripassu.core.layer_spec import relative_error
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.match import Pair
from paripassu.port_check.output_pairs import pair_outputs
from paripassu.port_check.pairing import PairedModels, compare_weights
from paripassu.port_check.runs import Runner
from paripassu.port_check.splitting import Choice
from paripassu.port_check.tolerance import AGREEING, TRIES
from paripassu.sides.contract import Arrays


def decide(models: PairedModels, runner: Runner, copy: str | None) -> None:
    """Settle all choices, and copy the weights.

    Args:
        models: whose pairs are settled.
        runner: runs them.
        copy: "left-to-right" or "right-to-left", or None.
    """
    if copy:
        _decide_by_copying(models, runner, copy)
    elif models.choices:
        _decide_by_weights(models, runner)


def _decide_by_copying(models: PairedModels, runner: Runner, copy: str) -> None:
    given = models.right if copy == "left-to-right" else models.left
    own = _weights_to_be_cut(models, given)
    models.copy_weights(copy)
    if not models.choices:
        return
    least, tries = runner.measure_parting(AGREEING), 0
    for choice in models.choices:
        for number in range(len(choice.cuts) or len(choice.partners)):
            if not least[0] or tries == TRIES:
                return
            tries += 1
            before = _State(models)
            take_way(models, choice, number)
            _copy_changed(models, before.pairs, given, own)
            found = runner.measure_parting(AGREEING)
            if found < least:
                least = found
                continue
            others = models.pairs
            before.put_back(models)
            _copy_changed(models, others, given, own)


def _weights_to_be_cut(
    models: PairedModels, given: ExaminedModel
) -> Mapping[str, Arrays]:
    """The weights of blocks of which a way leaves some as they were."""
    names = {
        name
        for choice in models.choices
        if choice.which == given.which
        for way in choice.cuts
        for name in way
    }
    return {
        block.name: {key: np.array(x) for key, x in block.spec.weights.items()}
        for block in given.probe.blocks()
        if block.name in names
    }


def _copy_changed(
    models: PairedModels,
    copied: Sequence[Pair],
    given: ExaminedModel,
    own: Mapping[str, Arrays],
) -> None:
    """Copy the weights of pairs that are not those that have been copied."""
    for name, arrays in own.items():
        given.probe.write(name, arrays)
    to_left = given is models.left
    anew = {x.name for block in own for x in given.cuts.get(block, ())}
    done = [x for x in copied if (x.left if to_left else x.right) not in anew]
    models.copy_weights("right-to-left" if to_left else "left-to-right", but=done)


def _decide_by_weights(models: PairedModels, runner: Runner) -> None:
    left = models.left.run(models.inputs)
    right = models.right.run(models.right_inputs)
    pairs = pair_outputs(models.outputs, left, right)
    agree = all(relative_error(x, y) <= AGREEING for *_, x, y in pairs)
    least = _count_unequal(models)
    for choice in models.choices:
        trusted = agree or choice.telling
        if choice.cuts and not trusted:
            continue
        for number in range(len(choice.cuts) or len(choice.partners)):
            before = _State(models)
            take_way(models, choice, number)
            count = _count_unequal(models)
            if count < least and not trusted:
                before.put_back(models)
                _count_unequal(models)
                if _come_nearer(models, runner, choice.partners[number]):
                    break  # weights were exchanged, not layers
                take_way(models, choice, number)
            if count < least:
                least = count
            else:
                before.put_back(models)


def _come_nearer(models: PairedModels, runner: Runner, lefts: Collection[str]) -> bool:
    """Whether the models do with the left's weights in the right blocks of a way."""
    _, before = runner.measure_parting(0.0)
    own = {}
    for _, left, right in models.block_pairs():
        if left.name in lefts and left.name in models.unequal:
            own[right.name] = {k: np.array(x) for k, x in right.spec.weights.items()}
            models.right.write(right.name, models.carry_to_right(left, right))
    _, after = runner.measure_parting(0.0)
    for name, arrays in own.items():
        models.right.write(name, arrays)
    models.reread()
    return after < before


def _count_unequal(models: PairedModels) -> int:
    compare_weights(models)
    return sum(map(len, models.unequal.values()))


class _State:
    """Which pairs and cuts there are, to be put back."""

    def __init__(self, models: PairedModels) -> None:
        self.pairs = list(models.pairs)
        self.left, self.right = dict(models.left.cuts), dict(models.right.cuts)

    def put_back(self, models: PairedModels) -> None:
        """As it was."""
        models.pairs = self.pairs
        models.left.cuts, models.right.cuts = self.left, self.right
        models.regroup()


def take_way(models: PairedModels, choice: Choice, number: int) -> None:
    """Pair as one of a choice's other ways has it."""
    names: dict[str | None, str] = {}
    partners: Mapping[str, str] = {}
    if choice.cuts:
        model = models.left if choice.which == "left" else models.right
        for block, pieces in choice.cuts[number].items():
            old = [x.name for x in model.cuts[block]]
            names |= zip(old, (x.name for x in pieces), strict=True)
        model.cuts = model.cuts | choice.cuts[number]
    else:
        partners = choice.partners[number]
    pairs = []
    for pair in models.pairs:
        if choice.which == "left":
            left, right = names.get(pair.left, pair.left), pair.right
        else:
            left, right = pair.left, names.get(pair.right, pair.right)
        right = partners.get(left or "", right or "") or None
        changed = replace(pair, left=left, right=right)
        if changed != pair:
            changed = replace(changed, why="what they compute", doubt="")
        pairs.append(changed)
    models.pairs = pairs
    models.regroup()
