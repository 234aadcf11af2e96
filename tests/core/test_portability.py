"""Nothing needs POSIX: the commands run without what Windows does not have.

There is no Windows here. A `sitecustomize` that every process of a test loads takes
away the modules and functions that Windows lacks; the frameworks are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paripassu.core import draws, files
from paripassu.core.datasets import load
from paripassu.core.files import owned
from paripassu.core.recipe import Recipe
from paripassu.frameworks.registry import FRAMEWORKS

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
FUNCTIONS = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "fork", "getpgid"),
    *("getuid", "geteuid", "killpg", "nice", "posix_spawn", "pread", "pwrite"),
    *("sched_getaffinity", "sched_setaffinity", "setsid"),
    *("fchmod", "wait3", "wait4", "mkfifo"),
)
# What itself chooses by the operating system, and so does not need them on Windows.
CHOOSERS = ("psutil", "torch", "tensorflow", "keras", "asyncio", "multiprocessing")

SITE = f"""
import os, shutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {MODULES}:
            frame = sys._getframe(1)
            while frame and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            importer = frame.f_globals.get("__name__", "") if frame else ""
            if importer.partition(".")[0] not in {CHOOSERS}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {MODULES}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
shutil._use_fd_functions = False
for name in {FUNCTIONS}:
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture
def elsewhere(tmp_path):
    """The environment of a process that has nothing of POSIX."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    return {**os.environ, "PYTHONPATH": str(site), "USERNAME": "someone"}


def python(environment: dict[str, str], *arguments: str, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def paripassu(environment, *arguments, cwd=None) -> str:
    code = "from paripassu.cli import main; main()"
    done = python(environment, "-c", code, *map(str, arguments), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def weights(tmp_path):
    """A file of the article's network, as it begins."""
    recipe = Recipe()
    path = tmp_path / "weights.safetensors"
    drawn = draws.initial_weights(recipe.architecture, recipe)
    files.write_tensors(path, {name: x.astype("f4") for name, x in drawn.items()})
    return path


@pytest.mark.parametrize("name", MODULES)
def test_the_simulation_takes_the_modules_away(elsewhere, name):
    done = python(elsewhere, "-c", f"import {name}")
    assert "ModuleNotFoundError" in done.stderr


def test_the_simulation_would_show_the_old_lock(elsewhere):
    old = "import os\nos.open('.', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)"
    assert "AttributeError" in python(elsewhere, "-c", old).stderr


@pytest.mark.parametrize("command", [["--help"], ["recipes"], ["train", "--help"]])
def test_a_command_without_a_framework(elsewhere, command):
    assert paripassu(elsewhere, *command)


def test_everything_is_imported(elsewhere):
    code = """
import importlib, pkgutil, paripassu
for module in pkgutil.walk_packages(paripassu.__path__, "paripassu."):
    if not module.name.startswith(("paripassu.frameworks.", "paripassu.sides.",
                                   "paripassu.worker.__main__")):
        importlib.import_module(module.name)
paripassu.check
"""
    done = python(elsewhere, "-c", code)
    assert done.returncode == 0, done.stderr


def test_a_folder_has_one_owner(elsewhere, tmp_path):
    take = "from pathlib import Path; from paripassu.core.files import owned\n"
    take += "with owned(Path('.'), patience=0.2): print('mine', flush=True)"
    assert "mine" in python(elsewhere, "-c", take, cwd=tmp_path).stdout
    hold = take.replace("print('mine', flush=True)", "print(flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        env=elsewhere,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout
        owner.stdout.readline()
        refused = python(elsewhere, "-c", take, cwd=tmp_path)
        assert f"in use by another process (number {owner.pid})" in refused.stderr
        owner.kill()
    assert "mine" in python(elsewhere, "-c", take, cwd=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.skipif(bool(FRAMEWORKS["pytorch"].problem), reason="PyTorch is needed")
def test_convert_predict_and_train(elsewhere, weights, tmp_path):
    model = tmp_path / "model.pt"
    paripassu(elsewhere, "convert", weights, "--to", "pytorch", "--out", model)
    digit = tmp_path / "seven.png"
    Image.fromarray(load().test_images[0, ..., 0]).save(digit)
    said = json.loads(paripassu(elsewhere, "predict", "-m", model, digit, "--json"))
    assert said
    data, out = tmp_path / "small.npz", tmp_path / "run"
    images, labels = load().test_images[:300, ..., 0], load().test_labels[:300]
    np.savez(
        data, x_train=images, y_train=labels, x_test=images[:50], y_test=labels[:50]
    )
    few = ["--epochs", "1", "--set", "validation_size=0", "--data", data]
    paripassu(elsewhere, "train", "-f", "pytorch", *few, "--out", out)
    assert (out / "weights.safetensors").exists()


@pytest.mark.skipif(bool(FRAMEWORKS["pytorch"].problem), reason="PyTorch is needed")
def test_check(elsewhere, tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\n\n\ndef build():\n"
        "    torch.manual_seed(0)\n    return torch.nn.Linear(4, 3)\n"
    )
    arguments = ["check", "net.py:build", "net.py:build", "--input", "2,4"]
    paripassu(elsewhere, *arguments, cwd=tmp_path)


LAUNCHER = """
import os, subprocess, sys
if os.environ.pop("LAUNCH", ""):
    sys.exit(subprocess.run([sys.executable, *sys.orig_argv[1:]]).returncode)
from paripassu.core.machine import starter
print(starter().pid)
"""


@pytest.mark.parametrize("launched", ["", "yes"])
def test_the_starter_is_not_the_launcher_of_a_virtual_environment(launched):
    done = python({**os.environ, "LAUNCH": launched}, "-c", LAUNCHER)
    assert int(done.stdout) == os.getpid()


def test_ownership_ends_after_an_error_and_leaves_no_name(tmp_path):
    with pytest.raises(ZeroDivisionError), owned(tmp_path):
        1 / int((tmp_path / ".owner").read_text() != str(os.getpid()))
    with owned(tmp_path, patience=0):
        pass
    assert not (tmp_path / ".owner").exists()
