"""The folder of every framework against `contract.MODULES`, without importing it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from paripassu.frameworks.contract import MODULES
from paripassu.frameworks.registry import FRAMEWORKS

Signature = list[str]


def promised(protocol: Any) -> dict[str, Any]:
    """What a protocol has: name -> parameters, members of a made object, or None."""
    found: dict[str, Any] = {
        name: parameters(inspect.signature(value))
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    for name, annotation in protocol.__annotations__.items():
        maker = vars(inspect.getmodule(protocol)).get(annotation)
        if maker is None:
            found[name] = None
            continue
        call = inspect.signature(maker.__call__)
        made = vars(inspect.getmodule(protocol))[call.return_annotation]
        found[name] = {"__init__": parameters(call), **promised(made)}
    return found


def parameters(signature: inspect.Signature) -> Signature:
    marks = {inspect.Parameter.KEYWORD_ONLY: "*"}
    return [
        f"{marks.get(x.kind, '')}{x.name}"
        for x in signature.parameters.values()
        if x.name != "self"
    ]


def offered(text: str) -> dict[str, Any]:
    """What a module has, read as text: functions, classes and names."""
    return _members(ast.parse(text).body)


def _members(body: list[ast.stmt]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            names = [x.arg for x in node.args.args if x.arg != "self"]
            found[node.name] = [*names, *(f"*{x.arg}" for x in node.args.kwonlyargs)]
            if node.name == "__init__":
                found |= {
                    x.attr: None
                    for x in ast.walk(node)
                    if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)
                }
        elif isinstance(node, ast.ClassDef):
            found[node.name] = _members(node.body)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {x.id: None for x in targets if isinstance(x, ast.Name)}
    return found


def missing(wanted: dict[str, Any], given: dict[str, Any], place: str) -> list[str]:
    """What of a protocol a module lacks or has otherwise."""
    bad = []
    for name, value in wanted.items():
        if name not in given:
            bad.append(f"{place} has no {name}")
        elif isinstance(value, dict):
            bad += missing(value, given[name] or {}, f"{place}.{name}")
        elif value is not None and given[name] != value:
            bad.append(f"{place}.{name} takes {given[name]}, expected {value}")
    return bad


def offences(folder: Path) -> list[str]:
    """All that is wrong with a framework's folder."""
    files = (x for x in folder.iterdir() if x.suffix == ".py" or x.is_dir())
    there = {x.stem for x in files if x.stem[0] != "_"}
    bad = [f"no protocol for {name}" for name in there - set(MODULES)]
    for name, module in MODULES.items():
        if name not in there:
            bad += [f"no {name}"] if module.required else []
        elif module.offers:
            text = (folder / f"{name}.py").read_text()
            bad += missing(promised(module.offers), offered(text), name)
    return bad


TOY = Path(__file__).parents[1] / "toy" / "paripassu_toy"
FOLDERS = [*(x.folder for x in FRAMEWORKS.values()), TOY]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_a_folder_has_what_the_contract_says(folder):
    assert offences(folder) == []


@pytest.mark.parametrize(
    ("module", "old", "new", "said"),
    [
        ("trainer", "def evaluate(self, split", "def test(self, split", "no evaluate"),
        ("trainer", "threads: int,", "cores: int,", "takes"),
        ("trainer", "self.device = ", "self.place_name = ", "no device"),
        ("files", "path: Path, ", "file: Path, ", "files.write takes"),
        ("faults", "NATIVE:", "OWN:", "no NATIVE"),
        ("twin", "def advance", "def go_on", "no advance"),
        ("benchmark", "def accuracy", "def right", "benchmark.Notebook has no"),
    ],
)
def test_a_module_that_breaks_the_contract_is_found(tmp_path, module, old, new, said):
    folder = FRAMEWORKS["pytorch"].folder
    for path in folder.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "networks").mkdir()
    assert offences(tmp_path) == []
    path = tmp_path / f"{module}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(said in line for line in offences(tmp_path))


def test_a_module_too_few_or_too_many_is_found(tmp_path):
    for name in MODULES:
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "lesson.py").unlink()
    (tmp_path / "helpers.py").touch()
    assert {"no lesson", "no protocol for helpers"} <= set(offences(tmp_path))
