"""A third framework costs a folder and a line: no other code names one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import built_in
from paripassu.frameworks.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
SOURCE = Path("src") / "paripassu"
TABLES = {
    SOURCE / f"{name}.py"
    for name in (
        "frameworks/registry",
        "sides/registry",
        "sides/advice",
        "port_check/optimizer_advice",
    )
} | {
    Path("benchmarks") / "check_speed.py",
    Path("benchmarks") / "kills.py",
    Path("benchmarks") / "ports.py",
    Path("tools") / "mutate.py",
}
FAMILIES = Path("benchmarks") / "families"  # of libraries of models, which it names
NAMES = {x.name for x in BUILT_IN}
WORDS = {
    word.lower()
    for x in BUILT_IN
    for word in (x.name, x.title, *x.import_roots, *x.distributions)
}
SUFFIXES = {suffix for x in BUILT_IN for suffix in x.suffixes}
# Networks and recipes that bear a framework's name, after whoever published them.
PUBLISHED = {*NETWORKS, *built_in()}


def is_its_own(path: Path) -> bool:
    """Whether a file is of one framework: in a folder of its name, or called so.

    Those of a side, in `sides/`, begin with what its users import.
    """
    if path.parent.name == "sides" and path.stem.partition("_")[0] in WORDS:
        return True
    return bool(NAMES & {*path.parts, path.stem})


def names_one(text: str) -> bool:
    """Whether a string is data that names a framework; prose has spaces."""
    if text in PUBLISHED or (re.search(r"\s", text) and not text.startswith("|")):
        return False
    return text in SUFFIXES or bool(WORDS & set(re.findall(r"[a-z]+", text.lower())))


def literals(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of each string, keyword and variable that names a framework."""
    tree = ast.parse(text)
    statements = (x for x in ast.walk(tree) if isinstance(x, ast.Expr))
    docstrings = {id(x.value) for x in statements}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings and names_one(node.value):
                yield node.lineno, node.value
        elif isinstance(node, ast.keyword) and node.arg in NAMES:
            yield node.value.lineno, node.arg
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node.lineno, node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in NAMES:
            yield node.lineno, node.name


def test_no_code_but_its_own_names_a_framework():
    found = {}
    for folder in ("src", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            own = path.relative_to(ROOT)
            if own in TABLES or own.parent == FAMILIES or is_its_own(own):
                continue
            if lines := list(literals(path.read_text())):
                found[str(own)] = lines
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "names = ('pytorch', 'tensorflow')",
        "if framework == 'PyTorch': pass",
        "TITLES = {'pytorch': 1}",
        "library = 'torch'",
        "path = 'frameworks/tensorflow/trial.py'",
        "path = f'{folder}/pytorch.md'",
        "out = path.with_suffix('.keras')",
        "found = versions.get('tensorflow-cpu')",
        "table = '| | PyTorch | TensorFlow |'",
        "names: str = 'pytorch,tensorflow'",
        "class Target:\n    pytorch = 1",
        "make(tensorflow=2)",
        "import_module('keras.layers')",
    ],
)
def test_a_literal_is_found(text):
    assert list(literals(text))


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    'pytorch'",
        "raise ValueError('PyTorch is not there. Type: pip install torch')",
        "parser.add_option(help='pytorch or tensorflow')",
        "recipe = 'article-pytorch-notebook'",
        "for framework in FRAMEWORKS: pass",
        "name = 'torchvision'",
    ],
)
def test_prose_and_recipes_are_none(text):
    assert not list(literals(text))


def test_files_of_one_framework_are_its_own():
    assert is_its_own(Path("src/paripassu/frameworks/pytorch/twin.py"))
    assert is_its_own(Path("benchmarks/parts/tensorflow.py"))
    assert is_its_own(Path("src/paripassu/sides/keras_model.py"))
    assert not is_its_own(Path("src/paripassu/port_check/keras_model.py"))
    assert not is_its_own(Path("src/paripassu/frameworks/faults.py"))
    assert not is_its_own(Path("src/paripassu/analysis/pytorch_text.py"))
