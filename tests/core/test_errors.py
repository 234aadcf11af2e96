"""Exceptions: one base class, and the exit code that each kind ends a command with."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from paripassu.core import errors
from paripassu.core.errors import PariPassuError

SOURCE = Path(errors.__file__).parents[1]


def foreign_exceptions(text: str) -> list[str]:
    """Exceptions that are defined on Python's own and not on `PariPassuError`."""
    return [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(x).endswith(("Error", "Exception")) for x in node.bases)
        and not any(
            ast.unparse(x) in vars(errors) or ast.unparse(x) == "PariPassuError"
            for x in node.bases
        )
    ]


def test_every_exception_of_ours_has_the_one_base_class():
    found = {
        path: names
        for path in SOURCE.rglob("*.py")
        if path != Path(errors.__file__)
        and (names := foreign_exceptions(path.read_text()))
    }
    assert not found


@pytest.mark.parametrize("base", ["Exception", "AssertionError", "ValueError"])
def test_an_exception_without_the_base_class_is_found(base):
    assert foreign_exceptions(f"class Broken({base}): pass") == ["Broken"]
    assert not foreign_exceptions(f"class Fine(UserError, {base}): pass")


def test_each_kind_can_be_caught_alone_or_with_all():
    kinds = [x for x in vars(errors).values() if isinstance(x, type)]
    assert all(
        x is PariPassuError or PariPassuError in x.__bases__
        for x in kinds
        if issubclass(x, Exception)
    )
    assert not issubclass(errors.WorkerError, errors.UserError)


@pytest.mark.parametrize(
    ("kind", "command", "code", "again"),
    [
        ("UserError", "train", 2, False),
        ("WorkerError", "train", 1, True),
        ("WorkerError", "predict", 1, False),
        ("ConversionError", "convert", 1, False),
    ],
)
def test_a_command_ends_with_the_code_of_its_error(kind, command, code, again):
    script = f"""
import sys
from paripassu import cli
from paripassu.core import errors
def app(): raise errors.{kind}("the reason.")
cli.app = app
sys.argv = ["paripassu", "{command}"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith("paripassu: the reason.")
    assert ("same command again" in done.stderr) == again
