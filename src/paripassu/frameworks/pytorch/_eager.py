"""Keeps PyTorch's compiler out of processes that compile nothing.

An optimizer of PyTorch 2.13 imports `torch._dynamo` when it is made and at each
step, with SymPy and hundreds of modules: as long as the import of PyTorch. In
eager mode it is asked two things only, to leave a function as it is and to do
nothing. What stands in its place here does these, and imports the compiler for
anything else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


class _Eager(ModuleType):
    """Stands in `torch._dynamo`'s place until more of it is wanted."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Any:
        """Have a function not compiled: it is not."""
        return function

    @staticmethod
    def graph_break() -> None:
        """End a graph: there is none."""

    def __getattr__(self, name: str) -> Any:
        # The machinery of imports asks for these of any module.
        if name.startswith("__") and name not in ("__path__", "__all__"):
            raise AttributeError(name)
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
        return getattr(importlib.import_module(NAME), name)


def without_compiler() -> None:
    """Import nothing of the compiler until it is asked for."""
    if NAME not in sys.modules:
        sys.modules[NAME] = _Eager(NAME)
