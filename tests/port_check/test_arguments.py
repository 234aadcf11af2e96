"""What is typed wrongly is refused before a process starts and loads a framework."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from paripassu.core.errors import UserError
from paripassu.port_check.arguments import check_request, check_target
from paripassu.port_check.requests import CheckRequest

NET = """
import os
from os import path as way
if os:
    def build():
        inner = 1
        return inner
class Net:
    attribute = 1
made, (other,) = 1, (2,)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "star.py").write_text("from os import *\n")
    (tmp_path / "dynamic.py").write_text("globals()['build'] = 1\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "package").mkdir()
    np.savez(tmp_path / "inputs.npz", x=np.ones(3))
    np.savez(tmp_path / "empty.npz")


def request(**changed) -> CheckRequest:
    usual = {"left": "net.py:build", "right": "net.py:Net", "shapes": ("2,3",)}
    return CheckRequest(**(usual | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"left": "nothing.py:build"}, "left: there is no file nothing.py"),
        ({"left": "net.py"}, "is expected, for example models/resnet.py:build"),
        ({"right": "net.py:bild"}, "right: net.py has no 'bild'.*build, Net, made"),
        ({"right": "net.py:inner"}, "no 'inner'"),
        ({"right": "net.py:attribute"}, "no 'attribute'"),
        ({"left": "no_such_module.net:build"}, "no module 'no_such_module'"),
        ({"left": "gone.recording"}, "no recording gone.recording"),
        ({"left_args": "{a"}, "--left-args is not JSON"),
        ({"right_args": "3"}, "--right-args is 3"),
        ({"shapes": ("2,x",)}, "'2,x' is not understood"),
        ({"shapes": ("a=2", "a=3")}, "a is given twice"),
        ({"shapes": ("inputs.npz",)}, "is given by --inputs inputs.npz"),
        ({"accept": ("epsilom@norm",)}, "no cause 'epsilom'. Near are: epsilon"),
        ({"inputs": "inputs.npz"}, "--input or --inputs"),
        ({"shapes": (), "inputs": "gone.npz"}, "gone.npz cannot be read"),
        ({"shapes": (), "inputs": "net.py"}, "net.py cannot be read"),
        ({"shapes": (), "inputs": "empty.npz"}, "holds no array"),
        ({"pairs": ("a",)}, "--pair 'a' is not understood"),
        ({"outputs": ("a=b=c",)}, "--output 'a=b=c' is not understood"),
        ({"save": "net.keras"}, "add --copy"),
        ({"save": "net.txt", "copy_weights": "left-to-right"}, "end in .safetensors"),
    ],
)
def test_what_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        check_request(request(**changed), elsewhere=(False, False))


def test_what_may_be_there_is_let_through():
    check_request(request(), elsewhere=(False, False))
    check_request(request(shapes=(), inputs="inputs.npz"), elsewhere=(False, False))
    names = ("build", "Net", "Net.attribute", "made", "other", "way", "os")
    targets = [f"net.py:{x}" for x in names]
    targets += ["star.py:any", "dynamic.py:build", "broken.py:build", "package.a:b"]
    for target in (*targets, "json:loads"):
        check_target(target, None, "left")
    check_target("no_such_module:build", None, "left", elsewhere=True)


def test_no_framework_is_imported():
    code = (
        "import sys\n"
        "from paripassu.cli import main\n"
        "sys.argv = ['paripassu', 'check', 'net.py:bild', 'net.py:Net', '-i', '2,3']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2\n"
        "slow = {'torch', 'keras', 'tensorflow', 'jinja2', 'numpy', 'rich.progress'}\n"
        "assert not slow & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    assert "no 'bild'" in done.stderr
