"""The house: rooms on floors, imports that lead down, nothing loaded early."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paripassu.frameworks.registry import BUILT_IN

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "paripassu"

# Lowest first; a room imports rooms of lower floors, and itself.
FLOORS = (
    ("core",),
    ("reference",),
    ("frameworks", "sides"),
    ("analysis",),
    ("processes",),
    ("worker",),
    ("conversion", "notebooks", "port_check", "proof"),
    ("prediction", "training"),
    ("ablation", "benchmark", "studies"),
    ("serve", "terminal"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What other rooms may use of `frameworks`: facts and contracts, no framework.
NEUTRAL = ("registry", "contract", "faults")
# Rooms that must not import a room, although it is below.
FORBIDDEN = {("worker", "analysis"), ("processes", "analysis")}
# Libraries that only some places may import, by the beginning of a module's name.
OWNERS: dict[str, tuple[str, ...]] = {
    "rich": ("terminal", "cli"),
    "typer": ("cli",),
    "ray": ("processes.on_ray",),
    **{root: (f"frameworks.{x.name}",) for x in BUILT_IN for root in x.import_roots},
}
OWNERS["torch"] += ("sides.torch_",)
OWNERS["keras"] += ("sides.keras_",)
OWNERS["tensorflow"] += ("sides.keras_",)
OWNERS["jax"] += ("sides.optax_",)
OWNERS["optax"] += ("sides.optax_",)


def imports_of(text: str) -> Iterator[str]:
    """Every module that a text imports, at its top or later, by statement or name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and node.args:
                first = node.args[0]
                if isinstance(first, ast.JoinedStr):
                    first = first.values[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value


def offences(module: str, text: str) -> list[str]:
    """What `module`, such as `core.draws`, must not import but does."""
    room, _, rest = module.partition(".")
    bad = []
    for name in imports_of(text):
        top, _, inner = name.partition(".")
        if top in OWNERS and not module.startswith(OWNERS[top]):
            bad.append(name)
        if top != "paripassu" or not inner:
            continue
        other, _, place = inner.partition(".")
        own = rest.partition(".")[0]
        if other == room:
            if room == "frameworks" and place.partition(".")[0] not in (*NEUTRAL, own):
                bad.append(name)
        elif room in ("__init__", "__main__"):
            continue
        elif (
            other not in FLOOR
            or FLOOR[other] >= FLOOR[room]
            or (room, other) in FORBIDDEN
            or (other == "frameworks" and place.partition(".")[0] not in NEUTRAL)
        ):
            bad.append(name)
    return bad


def test_imports_lead_down_only():
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if bad := offences(".".join(parts), path.read_text()):
            found["/".join(parts)] = bad
    assert not found


def test_every_room_has_a_floor():
    rooms = {x.name for x in SOURCE.iterdir() if x.is_dir() and x.name != "__pycache__"}
    assert rooms == set(FLOOR)
    loose = {x.stem for x in SOURCE.glob("*.py")}
    assert loose <= {"__init__", "__main__"}


def rooms_in(text: str) -> list[tuple[int, str]]:
    """Floor and name of each room in the table of `ARCHITECTURE.md`."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)/` \|", text, re.MULTILINE)
    return [(int(floor), room) for floor, room in rows]


def test_the_table_of_rooms_is_true():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert sorted(rooms_in(text)) == sorted((n, room) for room, n in FLOOR.items())
    assert rooms_in(text.replace("| 3 | `analysis/`", "| 2 | `analysis/`")) != sorted(
        (n, room) for room, n in FLOOR.items()
    )
    starts = re.findall(r"^\| \d+ \| `(\w+)/` .*\| `([\w.]+)`[^|]*\|$", text, re.M)
    assert len(starts) == len(FLOOR)
    assert not [x for x in starts if not SOURCE.joinpath(*x).exists()]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("core.draws", "import torch"),
        ("core.draws", "from paripassu.analysis import text"),
        ("core.draws", "from paripassu.reference import layers"),
        ("reference.twin", "from paripassu.frameworks import registry"),
        ("analysis.text", "from paripassu.frameworks.pytorch import trainer"),
        ("analysis.text", "from paripassu.training import compare"),
        ("frameworks.pytorch.twin", "import keras"),
        ("frameworks.pytorch.twin", "from paripassu.frameworks.tensorflow import twin"),
        ("frameworks.pytorch.twin", "from paripassu.sides import torch_module"),
        ("sides.torch_module", "from paripassu.frameworks.pytorch import optimizers"),
        ("sides.torch_module", "import keras"),
        ("worker.run", "from paripassu.analysis import statistics"),
        ("worker.run", "def f():\n    from paripassu.port_check import examine"),
        ("worker.run", "import_module('paripassu.port_check.examine')"),
        ("worker.run", "importlib.import_module(f'paripassu.proof.{name}')"),
        ("training.compare", "import tensorflow as tf"),
        ("training.compare", "from rich.console import Console"),
        ("training.compare", "from paripassu.terminal import progress"),
        ("training.compare", "from paripassu.ablation import ablate"),
        ("proof.verify", "from paripassu.port_check import results"),
        ("terminal.proof", "from paripassu.cli import base"),
        ("processes.pool", "from paripassu.worker import run"),
    ],
)
def test_an_import_that_leads_up_is_found(module, text):
    assert offences(module, text)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("training.compare", "from paripassu.proof import short_proof"),
        ("analysis.text", "from paripassu.frameworks import registry"),
        ("sides.torch_module", "import torch"),
        ("frameworks.pytorch.twin", "from paripassu.frameworks.contract import Twin"),
        ("terminal.proof", "from rich.table import Table"),
    ],
)
def test_an_import_that_leads_down_is_allowed(module, text):
    assert not offences(module, text)


def test_no_framework_is_loaded_before_it_is_needed():
    code = (
        "import sys, paripassu.cli, paripassu.training.compare, paripassu.worker.run;"
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
    assert min(times) < 0.75  # 0.45 on the slowest processor that was tried


def test_lessons_have_the_same_headings_and_fit_a_pane():
    headings = []
    for framework in BUILT_IN:
        lines = (framework.folder / "lesson.py").read_text().splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 175
        headings.append([x[5:] for x in lines if x.startswith("# ## ")])
    expected = "Data; Network; Loss, optimizer and schedule; "
    expected += "Train and evaluate; Predict; Save and load; All together"
    assert headings == [expected.split("; ")] * len(BUILT_IN)
