"""Refuses what was typed wrongly, before a process starts and imports a framework."""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.acceptance import parse_acceptance
from paripassu.sides.recording_place import is_recording
from paripassu.sides.registry import SIDES

if TYPE_CHECKING:
    from paripassu.port_check.requests import CheckRequest

OUTPUT = re.compile(r"[^=\s]+(=[^=\s]+)?")
DYNAMIC = {"globals", "exec", "setattr", "vars", "locals"}


def check_request(request: CheckRequest, *, elsewhere: tuple[bool, bool]) -> None:
    """Check what can be checked of a request without the models.

    Args:
        request: of `paripassu check`.
        elsewhere: whether the left and the right model run in another interpreter,
            which may have other modules.

    Raises:
        UserError: something is not there, or is no such thing; what to type.
    """
    if request.save is not None and request.copy_weights is None:
        raise UserError("--save writes the model that was given weights: add --copy.")
    check_target(request.left, request.left_args, "left", elsewhere=elsewhere[0])
    check_target(request.right, request.right_args, "right", elsewhere=elsewhere[1])
    check_inputs(request.shapes, request.inputs)
    for text in request.pairs:
        targets.parse_pair(text, "--pair")
    for text in request.outputs:
        if not OUTPUT.fullmatch(text):
            raise UserError(
                f"--output {text!r} is not understood. A name is expected, or a pair "
                "of names: --output logits, --output pooler_output=pooled_output."
            )
    for text in request.accept:
        parse_acceptance(text)
    suffixes = [x for side in SIDES for x in side.suffixes]
    if request.save and not request.save.name.endswith(tuple(suffixes)):
        raise UserError(
            f"--save {request.save}: files of models end in {', '.join(suffixes)}."
        )


def check_inputs(shapes: Sequence[str], file: Path | None) -> None:
    """Check that inputs can be read.

    Raises:
        UserError: they cannot, or come in two ways.
    """
    if file is not None and shapes:
        raise UserError("give either --input or --inputs, not both.")
    names = [targets.parse_input(x, n).name for n, x in enumerate(shapes)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--input: {name} is given twice.")
    if file is not None:
        import numpy as np

        with targets.explained_inputs(file), np.load(file) as content:
            if not content.files:
                raise UserError(f"{file} holds no array.")


def check_target(
    text: str,
    arguments: str | None,
    which: str,
    example: str = targets.EXAMPLE,
    *,
    elsewhere: bool = False,
) -> None:
    """Check that what a user names may be there.

    Args:
        text: `package.module:attribute` or `file.py:attribute`, or a recording.
        arguments: JSON.
        which: "left" or "right", for errors.
        example: of what was expected.
        elsewhere: whether another interpreter imports it.

    Raises:
        UserError: it is not there.
    """
    targets.parse_arguments(arguments, which)
    if is_recording(text):
        if not Path(text).exists():
            raise UserError(f"{which}: there is no recording {text}.")
        return
    place, name = targets.split(text, which, example)
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise UserError(
                f"{which}: there is no file {place}. {targets.FORM} is expected."
            )
        names = _names_in(path)
        if names is not None and name.partition(".")[0] not in names:
            public = [x for x in names if not x.startswith("_")]
            raise UserError(
                f"{which}: {place} has no {name!r}. "
                f"It has {', '.join(public) or 'nothing'}."
            )
        return
    root = place.partition(".")[0]
    known = root in sys.modules or root in sys.builtin_module_names
    finder = importlib.machinery.PathFinder
    if not (elsewhere or known or finder.find_spec(root, [str(Path.cwd()), *sys.path])):
        raise UserError(
            f"{which}: there is no module {root!r}, here or installed. "
            f"{targets.FORM} is expected, for example {example}."
        )


def _names_in(path: Path) -> list[str] | None:
    """Names that a file defines; None: only running it can tell."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # which running it tells, with the line
    names: list[str] = []
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [x.asname or x.name.partition(".")[0] for x in node.names]
        else:
            parts = [x for y in _own(node) for x in ast.walk(y)]
            found = [x for x in parts if isinstance(x, ast.Name)]
            names += [x.id for x in found if isinstance(x.ctx, ast.Store)]
            if any(x.id in DYNAMIC for x in found):
                return None
    return None if {"*", "__getattr__"} & {*names} else list(dict.fromkeys(names))


def _own(node: ast.stmt) -> list[ast.AST]:
    """A statement, without those that it holds."""
    if not hasattr(node, "body"):
        return [node]
    held = ("body", "orelse", "finalbody", "handlers", "cases")
    fields = (x for name, x in ast.iter_fields(node) if name not in held)
    return [
        x
        for value in fields
        for x in (value if isinstance(value, list) else [value])
        if isinstance(x, ast.AST)
    ]


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under `if`, `try` and their like."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)
