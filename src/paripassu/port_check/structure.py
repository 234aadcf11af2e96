"""Are all layers and weights there, and equal?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from paripassu.core.layer_spec import relative_error
from paripassu.port_check.findings import EPS32, Findings, finite
from paripassu.port_check.mapping import Models
from paripassu.port_check.results import Cause, Pairing, Weight
from paripassu.sides.contract import Block

EQUAL = 2 * EPS32  # of weights


class Structure:
    """Compares what the models are made of."""

    def __init__(self, models: Models, findings: Findings):
        self.models, self.findings = models, findings
        self.pairings: list[Pairing] = []

    def layers(self) -> None:
        """Check that all blocks are paired."""
        alone_left = [x.left for x in self.models.pairs if x.right is None and x.left]
        alone_right = [x.right for x in self.models.pairs if x.left is None and x.right]
        shapes = [x for x in self.models.pairs if x.doubt.startswith("shapes differ")]
        if alone_left or alone_right or shapes:
            parts = []
            if alone_left:
                parts.append(f"only left: {', '.join(alone_left)}")
            if alone_right:
                parts.append(f"only right: {', '.join(alone_right)}")
            parts += [f"{x.left} and {x.right}: {x.doubt}" for x in shapes]
            self.findings.check("layers", "fails", "; ".join(parts))
            for name in alone_left:
                self._unpaired(name, "-", "layer-missing", "only the left model has it")
            for name in alone_right:
                self._unpaired("-", name, "layer-extra", "only the right model has it")
            for pair in shapes:
                key = "weights-shape"
                self._unpaired(pair.left or "-", pair.right or "-", key, pair.doubt)
        else:
            count = len(self.models.pairs)
            self.findings.check("layers", "holds", f"{count} of {count} blocks paired")

    def doubts(self) -> None:
        """Say which pairs another one would do as well for: models that part."""
        for pair in self.models.pairs:
            if not pair.doubt or pair.doubt.startswith("shapes differ"):
                continue
            self.findings.notes.append(
                f"{pair.left} was taken for {pair.right}; {pair.doubt}. "
                "To decide it yourself, write the map: --write-map map.toml"
            )

    def _unpaired(self, left: str, right: str, key: str, text: str) -> None:
        layer = self.models.left_blocks[left].layer if left != "-" else ""
        left = layer or left
        at = self.models.left_order.get(layer, math.inf if left != "-" else -1)
        cause = Cause(key=key, sentence=text)
        self.findings.fault("layers", left, right, None, cause, at=at)

    def weights(self, *, again: bool = False) -> None:
        """Compare the weights; `again`: in float64, without saying so twice."""
        self.pairings, self.models.unequal = [], {}
        count = 0
        for pair in self.models.pairs:
            one = self.models.left_blocks.get(pair.left or "")
            two = self.models.right_blocks.get(pair.right or "")
            found: list[Weight] = []
            if one and two:
                found = list(self._weights(one, two))
                count += sum(x.state == "equal" for x in found)
                bad = [x.name for x in found if x.state == "differs"]
                if bad:
                    self.models.unequal[one.name] = bad
            kind = one.kind if one else two.kind if two else ""
            self.pairings.append(
                Pairing(
                    left=pair.left,
                    right=pair.right,
                    kind=kind,
                    why=pair.why,
                    doubt=pair.doubt,
                    weights=tuple(found),
                )
            )
        if again:
            return
        for side, blocks in (
            ("left", self.models.left_blocks),
            ("right", self.models.right_blocks),
        ):
            for name, block in blocks.items():
                for key, array in block.described.weights.items():
                    if not np.isfinite(array).all():
                        text = (
                            f"{key} of {name} in the {side} model holds NaN or infinity"
                        )
                        self.findings.check("weights", "fails", text)
                        places = (name, "-") if side == "left" else ("-", name)
                        cause = Cause(key="not-finite", sentence=text)
                        self.findings.fault("weights", *places, None, cause, at=-1)
        total = sum(
            x.state in ("equal", "differs") for p in self.pairings for x in p.weights
        )
        unequal = sum(map(len, self.models.unequal.values()))
        self.models.unrelated = bool(total) and unequal >= max(2, 0.9 * total)
        if not unequal:
            self.findings.check("weights", "holds", f"{count} of {total} equal")
        elif self.models.unrelated:
            self.findings.check(
                "weights",
                "fails",
                f"{unequal} of {total} differ: the models were not given the same "
                "weights. To give them, type: --copy left-to-right",
            )
        else:
            names = ", ".join(
                f"{x}.{'/'.join(y)}" for x, y in self.models.unequal.items()
            )
            self.findings.check(
                "weights", "fails", f"{unequal} of {total} differ: {names}"
            )
        self._trainable()

    def _trainable(self) -> None:
        for pair in self.models.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = (
                self.models.left_blocks[pair.left],
                self.models.right_blocks[pair.right],
            )
            if one.trainable != two.trainable:
                words = [
                    "is trained" if x.trainable else "is frozen" for x in (one, two)
                ]
                sentence = f"left {words[0]}, right {words[1]}"
                write = "trainable=True (Keras), requires_grad_(True) (PyTorch)"
                cause = Cause(key="frozen", sentence=sentence, write=write)
                self.findings.fault("layers", one.layer, two.layer, None, cause)

    def _weights(self, one: Block, two: Block) -> Iterator[Weight]:
        mine, other = one.described.weights, two.described.weights
        keys = self.models.keys(one, two)
        carried = self.models.carried(one, two)
        for name, array in mine.items():
            if name not in keys:
                yield Weight(name=name, shape=array.shape, state="only left")
            elif keys[name] not in carried:
                yield Weight(name=name, shape=array.shape, state="other shape")
            else:
                apart = relative_error(carried[keys[name]], other[keys[name]])
                yield Weight(
                    name=name,
                    shape=array.shape,
                    state="equal" if apart <= EQUAL else "differs",
                    apart=finite(apart),
                )
        for name, array in other.items():
            if name not in keys.values():
                yield Weight(name=name, shape=array.shape, state="only right")
