"""Two models whose blocks are paired: which weights are which, and are they equal?"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check import splitting
from paripassu.port_check.align import Group, group_layers, turn_rows
from paripassu.port_check.examined import CallOrder, ExaminedModel
from paripassu.port_check.fold_finding import (
    Which,
    find_folds,
    find_mistake,
    find_norms,
)
from paripassu.port_check.folding import Fold, fits_before, fold_norm_before
from paripassu.port_check.match import INPUT, Pair, squeezed
from paripassu.port_check.output_pairs import Outputs
from paripassu.port_check.results import Cause, Findings, Pairing, Weight, finite
from paripassu.port_check.splitting import BlockMap
from paripassu.port_check.tolerance import SAME_WEIGHT, WEIGHT
from paripassu.port_check.weights import have_same_values
from paripassu.sides.advice import advise
from paripassu.sides.contract import Arrays, Blind, Block, Call

# Weights that a layer may do without, and what they are where they do nothing.
CHANGED = 8  # blocks without a partner that are tried, of each side
NEUTRAL = {"bias": 0.0, "beta": 0.0, "gamma": 1.0}
WITHOUT = ("dense", "conv", "conv_transpose", "batch_norm", "layer_norm", "group_norm")


@dataclass(frozen=True)
class LoneWeights:
    """Weights of a layer of one model that its partner in the other one lacks."""

    which: str
    names: str
    left: str
    right: str


class PairedModels:
    """Both models, their inputs, and which blocks are which.

    Args:
        left, right: the models.
        inputs: of the left one and of the right one, by name.
        block_map: pairs of blocks, or of pieces of them, that are not to be questioned;
            see `splitting`.

    Attributes:
        choices: between pairs that only what the models compute can decide.
        pairs: of blocks; groups: of layers that are compared as they work.
        left_blocks, right_blocks: blocks by name, with their weights as they are.
        left_order, right_order: when layers are called.
        lines: of the code that calls layers.
        ran: what both gave at first, and drew.
        outputs: which outputs are compared.
        unequal: names of weights that differ, by the left block's name.
        unrelated: whether so many differ that they were not copied at all.
    """

    def __init__(
        self,
        left: ExaminedModel,
        right: ExaminedModel,
        inputs: tuple[Arrays, Arrays],
        block_map: BlockMap,
    ):
        self.left, self.right = left, right
        self.inputs, self.right_inputs = inputs
        self.outputs = Outputs(())
        self.unequal: dict[str, list[str]] = {}
        self.unrelated = False
        calls = CallOrder(), CallOrder()
        self.ran = (
            left.run_noting_draws(self.inputs, calls[0], sources=True),
            right.run_noting_draws(self.right_inputs, calls[1], sources=True),
        )
        self.left_order, self.right_order = calls[0].order, calls[1].order
        self.lines = calls[0].lines, calls[1].lines
        self.pairs, self.choices = splitting.pair_blocks(left, right, calls, block_map)
        self.calls = calls
        self.groups: list[Group] = []
        self.regroup()
        blocks = self.left_blocks, self.right_blocks
        for which, fold in list(find_norms(self.pairs, blocks, calls)):
            self.fold(which, fold)

    def regroup(self, *, afresh: bool = False) -> None:
        """Read the blocks again, and make the groups of the pairs as they are now.

        Args:
            afresh: forget in which order the right model flattens.
        """
        self.left_blocks = {x.name: x for x in self.left.blocks()}
        self.right_blocks = {x.name: x for x in self.right.blocks()}
        old_groups = [] if afresh else self.groups
        before = {(*x.left, "", *x.right): x for x in old_groups}
        self.groups = group_layers(
            self.pairs,
            self.left_blocks,
            self.right_blocks,
            self.left_order,
            self.right_order,
        )
        for group in self.groups:
            if old := before.get((*group.left, "", *group.right)):
                group.rows, group.flattened = old.rows, old.flattened
                group.steps = old.steps

    def fold(self, which: Which, fold: Fold) -> None:
        """Take a block that has a partner, and what it is folded with, for one."""
        model = self.left if which == "left" else self.right
        model.folds[fold.name] = fold
        pairs = []
        for pair in self.pairs:
            name = pair.left if which == "left" else pair.right
            if name == fold.base:
                left, right = pair.left, pair.right
                if which == "left":
                    left = fold.name
                else:
                    right = fold.name
                why = "folded"
                pairs.append(replace(pair, left=left, right=right, why=why, doubt=""))
            elif name is None or name != fold.other:
                pairs.append(pair)
        self.pairs = pairs
        self.regroup()

    def fold_products(self) -> bool:
        """Fold what makes unequal weights equal; for models that compute the same.

        Returns:
            Whether anything was.
        """
        count = len(self.left.folds) + len(self.right.folds)
        for pair, left, right in list(self.block_pairs()):
            if left.name not in self.unequal or pair.shapes_differ:
                continue
            before = list(self.pairs)
            for which, fold in self._possible_folds(left, right):
                model = self.left if which == "left" else self.right
                self.fold(which, fold)
                compare_weights(self)
                name = fold.name if which == "left" else left.name
                if name not in self.unequal:
                    break
                del model.folds[fold.name]
                self.pairs = before
                self.regroup()
                compare_weights(self)
        return len(self.left.folds) + len(self.right.folds) > count

    def _possible_folds(
        self, left: Block, right: Block
    ) -> Iterator[tuple[Which, Fold]]:
        """The same with a factor on the left as with its inverse on the right: left."""
        sides: tuple[Which, Which] = ("left", "right")
        for here, which in enumerate(sides):
            own, other = (left, right)[:: 1 - 2 * here]
            alone = {(x.left, x.right)[here] for x in self.pairs if not x.whole} - {
                None
            }
            blocks = (self.left_blocks, self.right_blocks)[here]
            model = (self.left, self.right)[here]
            folded = {x.other for x in model.folds.values()}
            parents = self.calls[here].parents.get(own.layer)
            first = parents == frozenset((INPUT,))
            for norm in model.unfolded():
                feeds = parents == frozenset((norm.layer,))
                if feeds and norm.name in alone | folded and fits_before(norm, own):
                    yield which, fold_norm_before(norm, own)
            for fold in find_folds(
                own, other, [blocks[x] for x in sorted(map(str, alone))], first=first
            ):
                yield which, fold

    def unpair_guesses(self) -> bool:
        """Undo pairs of pieces and of blocks in doubt whose weights are unequal.

        For models that compute the same: then it is the pairing that is wrong.

        Returns:
            Whether there was any.
        """
        pieces = {
            x.name
            for model in (self.left, self.right)
            for cut in model.cuts.values()
            for x in cut
        }
        pairs: list[Pair] = []
        for pair in self.pairs:
            guessed = pair.doubt or {pair.left, pair.right} & pieces
            if guessed and pair.left in self.unequal and not pair.shapes_differ:
                pairs += [Pair(pair.left, None), Pair(None, pair.right)]
            else:
                pairs.append(pair)
        if len(pairs) == len(self.pairs):
            return False
        self.pairs = pairs
        self.regroup(afresh=True)
        return True

    def block_pairs(self) -> Iterator[tuple[Pair, Block, Block]]:
        """The pairs with both of their blocks."""
        for pair in self.pairs:
            if pair.left is not None and pair.right is not None:
                blocks = self.left_blocks[pair.left], self.right_blocks[pair.right]
                yield pair, *blocks

    @property
    def left_names(self) -> dict[str, str]:
        """The left model's layers with weights, by the right's."""
        return {right.layer: left.layer for _, left, right in self.block_pairs()}

    def copy_weights(self, direction: str, but: Collection[Pair] = ()) -> None:
        """Give one model the other's weights, but those of some pairs."""
        for pair, left, right in self.block_pairs():
            if pair in but:
                continue
            if direction == "left-to-right":
                fresh = _neutral(right, left) | self.carry_to_right(left, right)
                self.right.write(right.name, fresh)
            else:
                fresh = _neutral(left, right) | self._carry_to_left(left, right)
                self.left.write(left.name, fresh)
        self.reread()

    def reread(self) -> None:
        """Read the weights again."""
        self.left_blocks = {x.name: x for x in self.left.blocks()}
        self.right_blocks = {x.name: x for x in self.right.blocks()}
        for group in self.groups:
            group.blocks = [
                (self.left_blocks[left.name], self.right_blocks[right.name])
                for left, right in group.blocks
            ]

    def group_of(self, left: str) -> Group | None:
        """The group that holds a left block."""
        return next(
            (x for x in self.groups for block, _ in x.blocks if block.name == left),
            None,
        )

    def weight_names(self, left: Block, right: Block) -> dict[str, str]:
        """Names of weights, left to right: the same, or by shape where one is loose."""
        weights, others = left.spec.weights, right.spec.weights
        if left.kind == right.kind or weights.keys() & others.keys():
            names = {x: x for x in weights if x in others}
            if left.kind == "gru" and len(weights) != len(others):
                names.pop("input_bias", None)  # with two biases, and with one
            return names
        found: dict[str, str] = {}
        for name, shape in left.shapes.items():
            for other, its in right.shapes.items():
                same = squeezed(its) == squeezed(shape)
                if same and other not in found.values():
                    found[name] = other
                    break
        return found

    def carrier(self, left: str) -> Callable[[str, Array], Array]:
        """What gives a left block's weight, by name, the rows of the right one."""
        group = self.group_of(left)
        return group.carry_weight if group else lambda _name, x: x

    def carry_to_right(self, left: Block, right: Block) -> Arrays:
        """The left block's weights as the right block has them."""
        carry = self.carrier(left.name)
        found: Arrays = {}
        for name, other in self.weight_names(left, right).items():
            array = carry(name, left.spec.weights[name])
            found |= fit_weight(other, array, right)
        return found

    def _carry_to_left(self, left: Block, right: Block) -> Arrays:
        """The right block's weights as the left block has them."""
        group = self.group_of(left.name)
        rows = None if group is None else group.rows
        found: Arrays = {}
        for name, other in self.weight_names(left, right).items():
            array = right.spec.weights[other]
            if rows is not None and name in ("kernel", "gamma", "beta"):
                array = turn_rows(array, np.argsort(rows))
            found |= fit_weight(name, array, left)
        return found

    def lone_weights(self) -> list[LoneWeights]:
        """Weights that are trained and may do nothing, and that a partner lacks."""
        found = []
        for _, left, right in self.block_pairs():
            known = self.weight_names(left, right)
            pairs = (("left", left, known), ("right", right, known.values()))
            for which, block, partners in pairs:
                more = [x for x in block.shapes if x in NEUTRAL and x not in partners]
                if more and block.trainable:
                    names = " and ".join(more)
                    found.append(LoneWeights(which, names, left.layer, right.layer))
        return found

    def remove_rounding(self) -> None:
        """Make weights that differ by float32's rounding the same bits."""
        for _, left, right in self.block_pairs():
            if left.name in self.unequal:
                continue
            fresh = {
                name: x
                for name, x in self.carry_to_right(left, right).items()
                if not np.array_equal(x, right.spec.weights[name])
            }
            if fresh:
                self.right.write(right.name, fresh)
        self.reread()


def _neutral(block: Block, other: Block) -> Arrays:
    """What weights of a block are to be that its partner does without."""
    if block.kind != other.kind or block.kind not in WITHOUT:
        return {}
    return {
        name: np.full(shape, NEUTRAL[name], np.float32)
        for name, shape in block.shapes.items()
        if name in NEUTRAL and name not in other.shapes
    }


def fit_weight(name: str, array: Array, block: Block) -> Arrays:
    """A weight with the axes of a block that it can be written to; else nothing."""
    shape = block.shapes[name]
    if array.shape == shape:
        return {name: array}
    # Kernels of windows that do not overlap are those of dense layers.
    flat = array.shape[-1:] == shape[-1:] and 2 in (array.ndim, len(shape))
    if squeezed(array.shape) == squeezed(shape) or (
        name == "kernel" and flat and array.size == math.prod(shape)
    ):
        return {name: array.reshape(shape)}
    return {}


Unpaired = tuple[str, str, Cause, float]  # see `find_unpaired`


def find_unpaired(models: PairedModels) -> list[Unpaired]:
    """Blocks without a partner, or whose shapes differ: names, cause and when called.

    No fault by itself: models that compute the same may be written otherwise.
    """
    found = []
    for pair in models.pairs:
        if pair.right is None:
            key, text = "layer-missing", "only the left model has it"
        elif pair.left is None:
            key, text = "layer-extra", "only the right model has it"
        elif pair.shapes_differ:
            key, text = "weights-shape", pair.doubt
        else:
            continue
        layer = models.left_blocks[pair.left].layer if pair.left else ""
        at = models.left_order.get(layer, math.inf if layer else -1)
        slopes = key == "weights-shape" and (
            models.left_blocks[pair.left or ""].kind == "prelu"
        )
        write = advise("slopes") if slopes else ""
        cause = Cause(key=key, sentence=text, write=write)
        found.append((layer or "-", pair.right or "-", cause, at))
    return found


class Idle(Blind):
    """Which of some layers give back what they are given.

    Args:
        layers: their names.
    """

    def __init__(self, layers: Collection[str]):
        self.left = set(layers)
        self.given: dict[int, Array] = {}

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Keep what a layer is given."""
        if call.name in self.left and inputs:
            self.given[call.serial] = inputs[0].copy()

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Compare it with what it gives."""
        given = self.given.pop(call.serial, None)
        if given is not None and not (outputs and np.array_equal(given, outputs[0])):
            self.left.discard(call.name)


def find_idle(models: PairedModels, unpaired: Sequence[Unpaired]) -> set[str]:
    """Of blocks without a partner, those that do nothing for what is compared.

    Training leaves one alone that gives what it is given, as a normalisation of inputs
    without statistics; or other weights leave every compared output as it is, as in
    a head of which the other model has none.
    """
    sides = (
        (models.left, models.left_blocks, models.inputs),
        (
            models.right,
            models.right_blocks,
            models.right_inputs,
        ),
    )
    found = set()
    for side, ((model, blocks, inputs), names) in enumerate(
        zip(sides, zip(*(x[:2] for x in unpaired), strict=True), strict=True)
    ):
        alone = [x for x in blocks.values() if x.layer in names or x.name in names]
        if not alone or model.recorded:
            continue
        untrained = {x.layer: x.name for x in alone if not x.trainable}
        watcher = Idle(untrained)
        before = model.run(inputs, watcher)
        found |= {y for x in watcher.left for y in (x, untrained[x])}
        compared = [pair[side] for pair in models.outputs.pairs]
        useless = set()
        for block in [x for x in alone if x.trainable][:CHANGED]:
            own = {key: np.array(x) for key, x in block.spec.weights.items()}
            model.write(block.name, {k: x / 2 + 0.25 for k, x in own.items()})
            after = model.run(inputs)
            model.write(block.name, own)
            if all(np.array_equal(before[x], after[x]) for x in compared):
                useless.add(block.name)
        others = {x.layer for x in alone if x.name not in useless}
        found |= useless | {x.layer for x in alone} - others
    models.reread()
    return found


def check_layers(
    models: PairedModels,
    findings: Findings,
    unpaired: Sequence[Unpaired],
    *,
    same_function: bool,
) -> None:
    """Say which blocks are not paired.

    Args:
        models: the pairs.
        findings: gets the check, and faults.
        unpaired: what `find_unpaired` gives.
        same_function: whether the models have been shown to compute the same, so that
            they are only written otherwise.
    """
    count = len(models.pairs)
    if not unpaired:
        findings.check("layers", "holds", f"{count} of {count} blocks paired")
        return
    parts = []
    for side, key in (("left", "layer-missing"), ("right", "layer-extra")):
        alone = [
            left if side == "left" else right
            for left, right, cause, _ in unpaired
            if cause.key == key
        ]
        if alone:
            parts.append(f"only {side}: {', '.join(alone)}")
    parts += [
        f"{left} and {right}: {cause.sentence}"
        for left, right, cause, _ in unpaired
        if cause.key == "weights-shape"
    ]
    detail = f"{count - len(unpaired)} of {count} blocks paired; {'; '.join(parts)}"
    if same_function:
        findings.check("layers", "note", f"{detail}. Both compute the same")
        return
    idle = find_idle(models, unpaired)
    faulty = [x for x in unpaired if not idle & {*x[:2]}]
    findings.check("layers", "fails" if faulty else "note", detail)
    for left, right, cause, at in faulty:
        findings.fault("layers", left, right, None, cause, at=at)


def note_doubts(models: PairedModels, findings: Findings) -> None:
    """Say which pairs another one would do as well for: models that part."""
    for pair in models.pairs:
        if pair.doubt and not pair.shapes_differ:
            findings.notes.append(
                f"{pair.left} was taken for {pair.right}; {pair.doubt}. "
                "To decide it yourself, write the map: --write-map map.toml"
            )


def compare_weights(models: PairedModels) -> tuple[Pairing, ...]:
    """Compare all weights; which of them are unequal, the models keep."""
    models.unequal = {}
    pairings = []
    for pair in models.pairs:
        left = models.left_blocks.get(pair.left or "")
        right = models.right_blocks.get(pair.right or "")
        found: tuple[Weight, ...] = ()
        if left and right:
            found = tuple(_compare_block(models, left, right))
            if bad := [x.name for x in found if x.state == "differs"]:
                models.unequal[left.name] = bad
        block = left or right
        pairings.append(
            Pairing(
                left=pair.left,
                right=pair.right,
                kind=block.kind if block else "",
                why=pair.why,
                doubt=pair.doubt,
                weights=found,
            )
        )
    return tuple(pairings)


def _compare_block(models: PairedModels, left: Block, right: Block) -> Iterator[Weight]:
    names = models.weight_names(left, right)
    carried = models.carry_to_right(left, right)
    for name, shape in left.shapes.items():
        other = names.get(name)
        if other is None:
            yield Weight(name=name, shape=shape, state="only left")
        elif other not in carried:
            yield Weight(name=name, shape=shape, state="other shape")
        else:
            error = relative_error(carried[other], right.spec.weights[other])
            limit = WEIGHT
            if {"_fold"} & (left.spec.settings.keys() | right.spec.settings.keys()):
                limit = SAME_WEIGHT
                if name == "bias" and error > limit:  # sums that cancel
                    error = _beside_kernel(carried, right)
            yield Weight(
                name=name,
                shape=shape,
                state="equal" if error <= limit else "differs",
                relative_error=finite(error),
            )
    for name, shape in right.shapes.items():
        if name not in names.values():
            yield Weight(name=name, shape=shape, state="only right")


def _beside_kernel(carried: Arrays, right: Block) -> float:
    """How far biases are apart, relative to the kernel as well."""
    apart = np.abs(carried["bias"] - right.spec.weights["bias"]).max()
    sizes = (np.abs(right.spec.weights[x]).max() for x in ("bias", "kernel"))
    return float(apart / max(*sizes, np.finfo(np.float32).tiny))


def _are_rearranged(models: PairedModels) -> bool:
    """Whether most unequal weights are the other one's, changed in a known way."""
    found = []
    for _, left, right in models.block_pairs():
        names, carried = (
            models.weight_names(left, right),
            models.carry_to_right(left, right),
        )
        for name in models.unequal.get(left.name, ()):
            wanted, got = carried[names[name]], right.spec.weights[names[name]]
            found.append(
                find_mistake(left, right, name, wanted, got) is not None
                or (wanted.size > 1 and have_same_values(wanted, got, SAME_WEIGHT))
            )
    return 2 * sum(found) > len(found)


def check_weights(
    models: PairedModels, pairings: tuple[Pairing, ...], findings: Findings
) -> None:
    """Check that weights are finite, equal, and trained on both sides or on none."""
    for side, blocks in (("left", models.left_blocks), ("right", models.right_blocks)):
        for block in blocks.values():
            for name, array in block.spec.weights.items():
                if not np.isfinite(array).all():
                    text = f"{name} of {block.name} in the {side} model "
                    text += "holds NaN or infinity"
                    findings.check("weights", "fails", text)
                    places = block.name, "-"
                    places = places if side == "left" else places[::-1]
                    cause = Cause(key="not-finite", sentence=text)
                    findings.fault("weights", *places, None, cause, at=-1)
    states = [x.state for pairing in pairings for x in pairing.weights]
    equal, unequal = states.count("equal"), states.count("differs")
    total = equal + unequal
    many = bool(total) and unequal >= max(2, 0.9 * total)
    models.unrelated = many and not _are_rearranged(models)
    text = f"{unequal} of {total} differ"
    if not unequal:
        findings.check("weights", "holds", f"{equal} of {total} equal")
    elif models.unrelated:
        text += ": the models were not given the same weights. "
        text += "To give them, type: --copy left-to-right"
        findings.check("weights", "fails", text)
    else:
        names = ", ".join(f"{x}.{'/'.join(y)}" for x, y in models.unequal.items())
        findings.check("weights", "fails", f"{text}: {names}")
    findings.notes += [
        f"only the {x.which} model has {x.names} at {x.left}: where it does nothing, "
        "training may change it"
        for x in models.lone_weights()
    ]
    for _, left, right in models.block_pairs():
        made = [x.spec.settings.get("_made_by") for x in (left, right)]
        if made[0] != made[1]:
            told = zip(("left", "right"), made, strict=True)
            sides = " and ".join(f"{x} the {which} model's" for which, x in told if x)
            findings.notes.append(
                f"at {left.layer}, a weight is made of others: by {sides}. It was "
                "compared as the layer uses it, and so was its gradient; a step of "
                "training moves what it is made of, and so moves it otherwise"
            )
        known = models.weight_names(left, right)
        if left.trainable != right.trainable and {*known} - {"mean", "variance"}:
            words = ["trained" if x.trainable else "frozen" for x in (left, right)]
            cause = Cause(
                key="frozen",
                sentence=f"left is {words[0]}, right is {words[1]}",
                write=advise("frozen"),
            )
            findings.fault("layers", left.layer, right.layer, None, cause)
