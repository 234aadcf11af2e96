"""Finds which inputs, or which outputs, of two models are the same: by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from paripassu.port_check import meanings
from paripassu.port_check.results import Partner

ASKED = "asked for"
NAME = "same name"
MEANING = "same meaning"
SHAPE = "the only one of its shape and type"
ORDER = "same position"
LONE = "the only one"
UNDECLARED = "same name, which the model does not declare"

Fits = Callable[[str, str], bool]


class Partners:
    """Pairs of names, found step by step; each step looks at what is left over.

    Args:
        left, right: the names, in order.
        meaning: the same text for names of one meaning.
        fits: whether a left one could be a right one, by shape and type.
    """

    def __init__(
        self,
        left: Iterable[str],
        right: Iterable[str],
        meaning: Callable[[str], str],
        fits: Fits,
    ):
        self.left, self.right = list(left), list(right)
        self.meaning, self.fits = meaning, fits
        self.found: list[Partner] = []

    def join(self, left: str, right: str, why: str) -> None:
        """Take two for the same."""
        self.left.remove(left)
        self.right.remove(right)
        self.found.append(Partner(left=left, right=right, why=why))

    def by_name(self) -> None:
        """The same name, or one of the same meaning, where that says something."""
        keys: list[tuple[str, Callable[[str], str]]] = [
            (NAME, str),
            (MEANING, lambda x: f"{x.startswith('encoder')} {self.meaning(x)}"),
            (MEANING, self.meaning),
        ]
        for why, key in keys:
            for left in [x for x in self.left if not meanings.is_unnamed(x)]:
                same = [x for x in self.right if key(x) == key(left)]
                # A meaning may come twice on one side: then it says nothing.
                alone = sum(key(x) == key(left) for x in self.left) == 1
                if len(same) == 1 and alone:
                    self.join(left, same[0], why)

    def by_order(self, right: Sequence[str] | None = None) -> bool:
        """All that are left over in their order, where all fit."""
        rights = self.right if right is None else right
        pairs = list(zip(self.left, rights, strict=False))
        if not pairs or len(self.left) != len(rights):
            return False
        if not all(self.fits(*x) for x in pairs):
            return False
        for left, other in pairs:
            self.join(left, other, LONE if len(pairs) == 1 else ORDER)
        return True

    def by_shape(self) -> None:
        """Those that fit only each other."""
        fits = {x: [y for y in self.right if self.fits(x, y)] for x in self.left}
        for left, rights in fits.items():
            if len(rights) == 1 and sum(rights[0] in x for x in fits.values()) == 1:
                self.join(left, rights[0], SHAPE)
