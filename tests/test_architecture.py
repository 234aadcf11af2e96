"""Imports lead down only, and importing the package loads no framework."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FRAMEWORK_MODULES = {
    "torch": "pytorch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
}


def imports_of(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(module: str, text: str) -> list[str]:
    """What `module`, such as `core.draws`, must not import but does."""
    floor, _, rest = module.partition(".")
    bad = []
    for name in imports_of(text):
        top, _, inner = name.partition(".")
        if top in FRAMEWORK_MODULES:
            if not module.startswith(f"frameworks.{FRAMEWORK_MODULES[top]}."):
                bad.append(name)
        elif top == "paripassu":
            below = {
                "core": ("core",),
                "analysis": ("core", "analysis"),
                "frameworks": ("core", "frameworks"),
            }.get(floor)
            if below and inner and not inner.startswith(below):
                bad.append(name)
            own = rest.partition(".")[0]
            if floor == "frameworks" and inner.startswith("frameworks."):
                other = inner.split(".")[1]
                if other.islower() and other != own:
                    bad.append(name)
    return bad


def test_imports_lead_down_only():
    found = {}
    for path in (SOURCE / "paripassu").rglob("*.py"):
        parts = path.relative_to(SOURCE / "paripassu").with_suffix("").parts
        if bad := offences(".".join(parts), path.read_text()):
            found[str(path)] = bad
    assert not found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("core.draws", "import torch"),
        ("core.draws", "from paripassu.analysis import parity"),
        ("analysis.parity", "from paripassu.frameworks import find"),
        ("frameworks.pytorch.twin", "import keras"),
        ("frameworks.pytorch.twin", "from paripassu.reference import layers"),
        ("compare", "import tensorflow as tf"),
    ],
)
def test_an_import_that_leads_up_is_found(module, text):
    assert offences(module, text)


def test_no_framework_is_loaded_before_it_is_needed():
    code = (
        "import sys, paripassu.cli, paripassu.compare, paripassu.worker;"
        "print([m for m in ('torch','tensorflow','keras','scipy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_help_is_quick():
    words = [sys.executable, "-c", "from paripassu.cli import main; main()", "--help"]
    times = []
    for _ in range(5):
        # Processor time: what else the machine does must not decide.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = (
            after.ru_utime - before.ru_utime,
            after.ru_stime - before.ru_stime,
        )
        times.append(user + system)
    assert min(times) < 0.5


def test_lessons_have_the_same_headings_and_fit_a_pane():
    headings = []
    for name in ("pytorch", "tensorflow"):
        path = SOURCE / "paripassu" / "frameworks" / name / "lesson.py"
        lines = path.read_text().splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 175
        headings.append([x[5:] for x in lines if x.startswith("# ## ")])
    expected = "Data; Network; Loss, optimizer and schedule; "
    expected += "Train and evaluate; Predict; Save and load; All together"
    assert headings == [expected.split("; ")] * 2
