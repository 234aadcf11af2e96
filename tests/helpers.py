"""What several tests share: the frameworks that are here, commands, processes."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from paripassu import cli
from paripassu.core import draws
from paripassu.core.recipe import Recipe
from paripassu.frameworks.registry import FRAMEWORKS

Arrays = dict[str, npt.NDArray[Any]]
# The folder of a name, and what fills it where no process of the tests has yet.
Once = Callable[[str, Callable[[Path], None]], Path]

PATIENCE = 900  # seconds before what takes up to 60 on an idle machine is given up
BOTH = tuple(FRAMEWORKS)[:2]  # where a test needs a pair
MODULES = {name: framework.import_roots[0] for name, framework in FRAMEWORKS.items()}
OTHER = {name: next(x for x in BOTH if x != name) for name in FRAMEWORKS}
TESTS = Path(__file__).parent
COMMAND = [sys.executable, "-P", "-c", "from paripassu.cli import main; main()"]
LOOK = {"COLUMNS": "200", "NO_COLOR": "1"}  # of what commands print


def skip_without(*names: str) -> pytest.MarkDecorator:
    """Skip where one of the frameworks is not installed, with the line to type."""
    problems = [text for name in names if (text := FRAMEWORKS[name].problem)]
    return pytest.mark.skipif(bool(problems), reason=" ".join(problems))


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    """Of tests in one framework: those not asked by default take their time."""
    slow = [] if FRAMEWORKS[name].by_default else [pytest.mark.slow]
    return [skip_without(name), *slow]


EACH = [pytest.param(name, marks=marks_of(name)) for name in FRAMEWORKS]
# Where one framework is enough to see most faults soon, and the others take their time.
FIRST_FAST = [
    EACH[0],
    *(pytest.param(*x.values, marks=[*x.marks, pytest.mark.slow]) for x in EACH[1:]),
]
needs_both = skip_without(*BOTH)


def run_paripassu(
    *arguments: object, cwd: Path | None = None, path: Path | str | None = None
) -> subprocess.CompletedProcess[str]:
    """Type a command and wait; `path` stands first on the PYTHONPATH."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def type_here(
    *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Type a command in this process, which has its modules: two seconds less.

    What it starts are processes, as ever. Where the process itself is what is tested
    (signals, modules that are hidden, what is imported), `run_paripassu` starts one.
    """
    words = [*map(str, arguments)]
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.chdir(cwd or Path.cwd())
        patch.setattr(sys, "argv", ["paripassu", *words])
        for name, text in LOOK.items():
            patch.setenv(name, text)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = (
                    end.code if isinstance(end.code, int) else int(end.code is not None)
                )
            except Exception:
                traceback.print_exc()
                code = 1
    for stream in (out, errors):
        stream.flush()
    said = [stream.buffer.getvalue().decode() for stream in (out, errors)]
    return subprocess.CompletedProcess(words, code, *said)


def environment(path: Path | str | None = None) -> dict[str, str]:
    env = {**os.environ, **LOOK}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(
            [str(path), *filter(None, [env.get("PYTHONPATH")])]
        )
    return env


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until `condition` gives something true, and give it back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.002)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


def break_module(folder: Path, module: str) -> Path:
    """A folder for the PYTHONPATH in which `module` is there but cannot start."""
    package = folder / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise ImportError("broken on purpose")\n')
    return folder


def hide_module(folder: Path, *modules: str) -> Path:
    """A folder for the PYTHONPATH by which modules are as if not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "def without(finder):\n"
        "    class Finder:\n"
        "        @staticmethod\n"
        "        def find_spec(name, path=None, target=None):\n"
        f"            if name.partition('.')[0] in {modules!r}:\n"
        "                return None\n"
        "            return finder.find_spec(name, path, target)\n"
        "        def __getattr__(self, name):\n"
        "            return getattr(finder, name)\n"
        "    return Finder()\n"
        "sys.meta_path[:] = [without(finder) for finder in sys.meta_path]\n"
    )
    return folder


class Running:
    """A command that runs; its standard error is read from a file."""

    def __init__(self, *arguments: object, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers():
            worker.kill()
        self.process.kill()
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def worker(self) -> psutil.Process:
        """The worker, as soon as there is one."""
        found: list[psutil.Process] = wait_for(self.workers, "a worker")
        return found[0]

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for `condition`, or for the end of the command."""
        return wait_for(lambda: condition() or self.ended(), what)

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE)


def start_weights(recipe: Recipe) -> Arrays:
    return dict(draws.initial_weights(recipe.architecture, recipe))


class Child:
    """A framework in a process of its own, asked over the contract's verbs."""

    def __init__(self, framework: str, folder: Path) -> None:
        self.framework = framework
        self._folder = folder
        self._asked = 0
        self._log = (folder / "stderr.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "framework_child.py"), framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ask(
        self,
        verb: str,
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        **more: Any,
    ) -> tuple[dict[str, Any], Arrays]:
        """Values and arrays that `verb` of framework_child.py answers with."""
        assert self._process.stdin
        assert self._process.stdout
        self._asked += 1
        there = self._folder / f"{self._asked}.in.safetensors"
        back = self._folder / f"{self._asked}.out.safetensors"
        if arrays:
            save_file(_contiguous(arrays), there)
        request = {"verb": verb, "in": str(there), "out": str(back), **more}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise AssertionError(f"{self.framework} fell silent:\n{self._log.read()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        found = load_file(back) if back.exists() else {}
        there.unlink(missing_ok=True)
        back.unlink(missing_ok=True)
        return answer, found

    def make(self, recipe: Recipe, weights: Arrays | None = None) -> dict[str, Any]:
        """A new trainer; by default from the recipe's own initial weights."""
        weights = start_weights(recipe) if weights is None else weights
        return self.ask("make", weights, recipe=recipe.model_dump())[0]

    def train(
        self,
        training: tuple[npt.NDArray[Any], npt.NDArray[Any]],
        monitored: tuple[npt.NDArray[Any], npt.NDArray[Any]],
        first_epoch: int = 0,
    ) -> tuple[list[dict[str, Any]], list[list[float]]]:
        """Reports of the epochs, and what `on_step` got."""
        answer, _ = self.ask(
            "train",
            {
                "images": training[0],
                "labels": training[1],
                "monitored.images": monitored[0],
                "monitored.labels": monitored[1],
            },
            first_epoch=first_epoch,
        )
        return answer["epochs"], answer["steps"]

    def evaluate(
        self, split: tuple[npt.NDArray[Any], npt.NDArray[Any]]
    ) -> tuple[float, float]:
        answer, _ = self.ask("evaluate", {"images": split[0], "labels": split[1]})
        return answer["loss"], answer["accuracy"]

    def warm_up(self, split: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> None:
        self.ask("warm_up", {"images": split[0], "labels": split[1]})

    def logits(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.ask("logits", {"images": images})[1]["logits"]

    def weights(self) -> Arrays:
        return self.ask("weights")[1]

    def state(self) -> Arrays:
        return self.ask("state")[1]

    def load_state(self, state: Arrays) -> None:
        self.ask("load_state", state)

    def save(self, path: Path) -> None:
        self.ask("save", path=str(path))

    def load(self, path: Path) -> None:
        self.ask("load", path=str(path))

    def trace(
        self,
        recipe: Recipe,
        steps: list[dict[str, Any]],
        weights: Arrays | None = None,
    ) -> Arrays:
        """What the twin computes; a step has images, labels and masks by name."""
        weights = start_weights(recipe) if weights is None else weights
        arrays = {f"weights.{name}": array for name, array in weights.items()}
        for number, step in enumerate(steps):
            arrays[f"{number}.images"] = step["images"]
            arrays[f"{number}.labels"] = step["labels"]
            for name, mask in step["masks"].items():
                arrays[f"{number}.mask.{name}"] = mask
        options = {"recipe": recipe.model_dump(), "steps": len(steps)}
        return self.ask("trace", arrays, **options)[1]


def _contiguous(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def same_bits(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether names, types, shapes and every bit are equal."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def all_kept(recipe: Recipe, size: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks that drop nothing."""
    layers = recipe.architecture.layers_of("dropout")
    return {x.name: np.ones((size, *x.output_shape), np.bool_) for x in layers}


def cross_entropy_by_hand(rows: list[list[float]], labels: list[int]) -> float:
    """Mean of log(sum of exp(z[j] - z[right])), with exact sums."""
    terms = [
        math.log(math.fsum(math.exp(min(z - row[right], 700)) for z in row))
        for row, right in zip(rows, labels, strict=True)
    ]
    return math.fsum(terms) / len(terms)


def random(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Numbers between -1 and 1."""
    return 2 * draws.uniform(shape, seed, "test of the reference") - 1


def slope(
    function: Callable[[], float], array: npt.NDArray[np.float64], index: Any, h: float
) -> float:
    """The central difference of `function` as `array[index]` moves by h."""
    kept = array[index]
    array[index] = kept + h
    above = function()
    array[index] = kept - h
    below = function()
    array[index] = kept
    return (above - below) / (2 * h)


def slopes(
    function: Callable[[], float], array: npt.NDArray[np.float64], h: float = 1e-4
) -> npt.NDArray[np.float64]:
    numbers = [slope(function, array, index, h) for index in np.ndindex(array.shape)]
    return np.array(numbers).reshape(array.shape)
