"""The public names: documented, annotated, imported late, and pleasant to call."""

from __future__ import annotations

import builtins
import inspect
import re
import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from helpers import skip_without

import paripassu

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import python_docs  # noqa: E402 (a tool, not a package)

PAGE = (ROOT / "docs" / "python.md").read_text()
HEAVY = ("torch", "tensorflow", "keras", "scipy", "rich", "typer", "numpy", "pydantic")
FUNCTIONS = {
    name: value
    for name in paripassu.__all__
    if isinstance(value := getattr(paripassu, name), types.FunctionType)
}


def faults_of(function: Any) -> list[str]:
    """What is not pleasant in how a function is called."""
    found = []
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        if annotation is parameter.empty:
            found.append(f"{name} has no type")
        if hasattr(builtins, name):
            found.append(f"{name} is a builtin")
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found.append(f"{name} takes anything")
        if "Path" in str(annotation) and "str" not in str(annotation):
            found.append(f"{name} takes no text as path")
    if signature.return_annotation is signature.empty:
        found.append("the result has no type")
    return found


def test_the_page_has_every_public_name_and_no_other():
    headings = set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE))
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert headings == set(FUNCTIONS)
    assert headings | rows | {"__version__"} == set(paripassu.__all__)
    assert not headings & rows


def test_every_name_is_there_and_listed():
    assert list(paripassu.__all__) == sorted(paripassu.__all__)
    assert set(paripassu.__all__) <= set(dir(paripassu))
    for name in paripassu.__all__:
        value = getattr(paripassu, name)
        assert getattr(paripassu, name) is value
        assert name == "__version__" or inspect.getdoc(value)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        paripassu.nonsense  # noqa: B018 (the access is what is tested)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_pleasant_to_call(name):
    assert not faults_of(FUNCTIONS[name])


def test_what_is_not_pleasant_is_found():
    def bad(input: str, out: Path, untyped, **wishes: Any):
        pass

    assert faults_of(bad) == [
        "input is a builtin",
        "out takes no text as path",
        "untyped has no type",
        "wishes takes anything",
        "the result has no type",
    ]


def test_exceptions_share_one_base():
    kinds = [getattr(paripassu, name) for name in paripassu.__all__]
    failures = [
        x for x in kinds if isinstance(x, type) and issubclass(x, BaseException)
    ]
    assert len(failures) > 3
    assert all(issubclass(x, paripassu.PariPassuError) for x in failures)


def test_the_import_is_light_and_quick():
    code = (
        "import sys; before = set(sys.modules); import paripassu;"
        f"print([x for x in {HEAVY} if x in sys.modules and x not in before])"
    )
    times = []
    for _ in range(5):
        # Processor time: what else the machine does must not decide.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(
            after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        )
        assert done.stdout.strip() == "[]"
    assert min(times) < 0.2


@skip_without("pytorch")
@pytest.mark.parametrize("name", python_docs.QUICK)
def test_the_quick_examples_run(name):
    exec(python_docs.EXAMPLES[name], {"paripassu": paripassu})


def test_every_example_is_a_program():
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        if "paripassu" in text:
            compile(text, "docs/python.md", "exec")
