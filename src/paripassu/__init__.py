"""Pari passu: the same network in PyTorch and TensorFlow, proven equal."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from paripassu.port_check import (
        NotEquivalent,
        assert_equivalent,
        check,
        check_optimizer,
    )

LAZY = ("NotEquivalent", "assert_equivalent", "check", "check_optimizer")
__all__ = [
    "NotEquivalent",
    "__version__",
    "assert_equivalent",
    "check",
    "check_optimizer",
]


def __getattr__(name: str) -> Any:
    """`check` and its like, imported when they are first asked for."""
    if name in LAZY:
        from paripassu import port_check

        return getattr(port_check, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
