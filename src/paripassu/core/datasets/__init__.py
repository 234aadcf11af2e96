"""Images and labels: found, checked, and made the same numbers for every framework.

`load` reads and checks, `prepare` splits and normalises, `describe` makes the part of
a record that says what was trained on.
"""

from paripassu.core.datasets.loading import ImageData, load
from paripassu.core.datasets.preparation import (
    Constant,
    Prepared,
    Split,
    describe,
    normalise,
    prepare,
)

__all__ = [
    "Constant",
    "ImageData",
    "Prepared",
    "Split",
    "describe",
    "load",
    "normalise",
    "prepare",
]
