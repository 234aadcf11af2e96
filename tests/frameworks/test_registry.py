"""What can be said of a framework without importing it, and what it refuses to run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import type_here
from make_records import make_run

from paripassu.cli.base import framework_list
from paripassu.core.errors import UserError
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import Recipe, built_in, load
from paripassu.core.version import from_repository
from paripassu.frameworks.registry import FRAMEWORKS, REFERENCE, Framework, find
from paripassu.training.train import train

NETWORK_FILES = {
    "article": None,
    "keras-example": "keras_example",
    "lenet5": "lenet5",
    "fast": "fast",
}


@pytest.fixture
def make_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a framework's folder, as one would begin it; its library is at hand."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(package: str, *networks: str, library: str = "json") -> Framework:
        (tmp_path / package / "networks").mkdir(parents=True)
        names = ["__init__", "lesson", "trainer", "networks/__init__"]
        for name in (*names, *(f"networks/{network}" for network in networks)):
            path = tmp_path / package / f"{name}.py"
            path.write_text('"""Nothing yet."""\n')
        return Framework(
            name="toy",
            title="Toy",
            package=package,
            import_roots=(library,),
            distributions=("nothing-of-that-name",),
            extra="toy",
        )

    return make


# Networks


def test_every_framework_has_the_networks_of_the_architecture():
    assert set(NETWORKS) == set(NETWORK_FILES)
    for framework in (REFERENCE, *FRAMEWORKS.values()):
        assert framework.networks == set(NETWORKS), framework.name


def test_networks_are_the_lessons_and_a_file_each(make_framework):
    assert make_framework("toy_a").networks == {"article"}
    two = make_framework("toy_b", "lenet5", "keras_example")
    assert two.networks == {"article", "lenet5", "keras-example"}
    (two.folder / "networks" / "lenet5.py").unlink()
    assert two.networks == {"article", "keras-example"}
    (two.folder / "networks" / "__pycache__").mkdir()
    (two.folder / "networks" / "notes.txt").write_text("none of it")
    assert two.networks == {"article", "keras-example"}


def test_asking_for_networks_imports_nothing():
    code = (
        "import sys\n"
        "from paripassu.core.recipe import load\n"
        "from paripassu.frameworks.registry import FRAMEWORKS\n"
        "for framework in FRAMEWORKS.values():\n"
        "    if framework.problem is None:\n"
        "        framework.check(load('lenet5'))\n"
        "print({'torch', 'tensorflow', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Named, or asked by default


def test_what_is_not_asked_by_default_is_taken_where_it_is_named():
    later = {x.name for x in FRAMEWORKS.values() if not x.by_default}
    assert later
    assert set(framework_list(None)) == FRAMEWORKS.keys() - later
    for name in later:
        assert framework_list(f"pytorch,{name}") == ["pytorch", name]
    installed = [name for name, x in FRAMEWORKS.items() if not x.problem]
    assert framework_list("all") == (installed or list(FRAMEWORKS))


# Check


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_recipe_runs_everywhere(name):
    for framework in FRAMEWORKS.values():
        if framework.problem is None:
            framework.check(load(name))
            framework.check(load(name), trains=False)
    REFERENCE.check(load(name), trains=False)


def test_the_reference_trains_nothing():
    expected = r"NumPy is the reference for proofs and trains nothing\. "
    expected += r"Expected one of pytorch, tensorflow, jax\."
    with pytest.raises(UserError, match=expected):
        REFERENCE.check(Recipe())
    REFERENCE.check(Recipe(), trains=False)


def test_a_framework_without_a_network_says_which_it_has(make_framework):
    framework = make_framework("toy_c", "keras_example")
    framework.check(Recipe())
    framework.check(load("keras-example"))
    expected = re.escape(
        "recipe 'lenet5' cannot run in Toy: it has no network 'lenet5', but "
        "article, keras-example."
    )
    for trains in (True, False):
        with pytest.raises(UserError, match=expected):
            framework.check(load("lenet5"), trains=trains)
    (framework.folder / "networks" / "lenet5.py").write_text("")
    framework.check(load("lenet5"))


def test_a_framework_that_is_not_installed_says_what_to_type(make_framework):
    framework = make_framework("toy_d", library="module_that_is_not_there")
    assert framework.version is None
    install = f"pip install '{from_repository('toy')}'"
    expected = re.escape(f"Toy is not installed. Type: {install}")
    for trains in (True, False):
        with pytest.raises(UserError, match=expected):
            framework.check(Recipe(), trains=trains)


def test_find():
    assert find("numpy") is REFERENCE
    for name, framework in FRAMEWORKS.items():
        assert find(name) is framework
        for alias in framework.aliases:
            assert find(alias.upper()) is framework
    expected = r"no framework 'pytorhc'\. Did you mean pytorch\? Known: pytorch, tens"
    with pytest.raises(UserError, match=expected):
        find("pytorhc")
    with pytest.raises(UserError, match=r"no framework 'caffe'\. Known: pytorch"):
        find("caffe")


# The same where one types it


def test_a_training_by_the_reference_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="NumPy is the reference"):
        train("numpy", Recipe(), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "train -f numpy",
        "compare --frameworks pytorch,numpy --out mine",
    ],
)
def test_the_command_refuses_to_train_the_reference(words, tmp_path):
    done = type_here(*words.split(), cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "NumPy is the reference for proofs and trains nothing" in done.stderr
    assert "pytorch, tensorflow" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_to_evaluate_in_the_reference(tmp_path):
    make_run(tmp_path / "run")
    done = type_here("evaluate", tmp_path / "run", "--framework", "numpy")
    assert done.returncode == 2, done.stdout
    assert "NumPy is the reference for proofs and trains nothing" in done.stderr
    assert "Traceback" not in done.stderr
