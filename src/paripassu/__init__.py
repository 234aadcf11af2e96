"""Pari passu: the same network in PyTorch and TensorFlow, proven equal."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from paripassu.port import NotEquivalent, assert_equivalent, check

__all__ = ["NotEquivalent", "__version__", "assert_equivalent", "check"]


def __getattr__(name: str) -> Any:
    """`check` and `assert_equivalent`, imported when they are first asked for."""
    if name in ("NotEquivalent", "assert_equivalent", "check"):
        from paripassu import port

        return getattr(port, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
