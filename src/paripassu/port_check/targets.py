"""Finds a user's models and makes their inputs: `file.py:attribute`, `1,3,224,224`."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paripassu.core.errors import UserError
from paripassu.port_check.meanings import meaning_of_input
from paripassu.sides import registry, user_code
from paripassu.sides.recording_place import is_recording
from paripassu.sides.registry import MODEL_TYPES, is_model

if TYPE_CHECKING:
    from paripassu.sides.contract import Arrays, Block

SEED = 20
IMPORTING = "importing"  # begins what is told of imports
EXAMPLE = "models/resnet.py:build"
FORM = "package.module:attribute or file.py:attribute"


@dataclass(frozen=True)
class Target:
    """A user's model: the object, or how to build it."""

    source: str
    model: Any
    build: Callable[[], Any] | None


def find(
    text: str,
    arguments: str | None,
    which: str,
    progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> Target:
    """The model that a user names, or what the function or class that is named makes.

    Args:
        text: `package.module:attribute` or `file.py:attribute`, or a recording.
        arguments: JSON.
        which: "left" or "right", for errors.
        progress: is told that it is imported, and then built.

    Raises:
        UserError: it is not there, or the user's code raised; with the traceback.
    """
    if is_recording(text):
        if arguments:
            raise UserError(
                f"{which}: {text} is a recording and takes no --{which}-args."
            )
        from paripassu.sides.recording import Recording

        return Target(text, Recording(Path(text)), None)
    progress(f"{IMPORTING} {text}", 0.01)
    found = attribute(text, which, EXAMPLE)
    progress(f"building {text}", 0.02)
    args, kwargs = parse_arguments(arguments, which)
    if is_model(found):
        if arguments:
            raise UserError(
                f"{which}: {text} is a model, not a function, and takes no "
                f"--{which}-args."
            )
        return Target(text, found, None)
    if not callable(found):
        raise UserError(
            f"{which}: {text} is an object of type {type(found).__name__}. "
            f"A {MODEL_TYPES}, or a function or class that makes one is expected."
        )
    build = functools.partial(found, *args, **kwargs)
    model = build_noted(build, f"{which} model {text}, building it,")
    return Target(text, model, build)


def build_noted(build: Callable[[], Any], what: str) -> Any:
    """Build a user's model, and note at which lines its layers are made.

    Raises:
        UserError: it raised; `what` names it.
    """
    with registry.lines_noted():
        return user_code.run(build, what)


def attribute(text: str, which: str, example: str) -> Any:
    """The object that a user names, as it is.

    Args:
        text: `package.module:attribute` or `file.py:attribute`.
        which: "left" or "right", for errors.
        example: of what was expected.

    Raises:
        UserError: it is not there, or importing it raised; with the traceback.
    """
    place, name = split(text, which, example)
    module = user_code.run(
        lambda: _module(place, which), f"{which} model {text}, importing it,"
    )
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [
                name
                for name, value in vars(found).items()
                if not name.startswith("_") and (callable(value) or is_model(value))
            ]
            raise UserError(
                f"{which}: {place} has no {name!r}. "
                f"It has {', '.join(names) or 'nothing'}."
            )
        found = getattr(found, part)
    return found


def split(text: str, which: str, example: str) -> tuple[str, str]:
    """Where a target is, and its name there.

    Raises:
        UserError: the text has not that form.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name:
        raise UserError(
            f"{which} is {text!r}, but {FORM} is expected, for example {example}."
        )
    return place, name


def _module(place: str, which: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{which}: there is no file {place}. {FORM} is expected.")
    sys.path.insert(0, str(path.resolve().parent))
    name = f"{re.sub('[^0-9a-zA-Z_]', '_', path.stem)}_of_{which}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def parse_arguments(text: str | None, which: str) -> tuple[list[Any], dict[str, Any]]:
    """Arguments from JSON: a list, or an object of them by name.

    Raises:
        UserError: it is no such JSON.
    """
    if not text:
        return [], {}
    example = f"""--{which}-args '{{"width": 32}}' or --{which}-args '[32]'"""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"--{which}-args is not JSON ({error}). Type: {example}"
        ) from error
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise UserError(f"--{which}-args is {value!r}. Type: {example}")


@dataclass(frozen=True)
class Wanted:
    """What an input is to be: name, shape, type, and for whole numbers their limit."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    below: int | None


def parse_input(text: str, number: int) -> Wanted:
    """Read `1,3,224,224`, `ids=2,16:int:1000` or `mask=2,16:bool`.

    Raises:
        UserError: it is none of those.
    """
    found = re.fullmatch(
        r"(?:([A-Za-z_]\w*)=)?(\d+(?:,\d+)*),?(?::(float|int|bool)(?::(\d+))?)?", text
    )
    if not found and text.endswith(".npz"):
        raise UserError(
            f"--input {text!r}: a file of inputs is given by --inputs {text}"
        )
    if not found or "0" in found[2].split(","):
        raise UserError(
            f"--input {text!r} is not understood. A shape is expected, as in "
            "--input 1,3,224,224; with a name and a type: --input ids=2,16:int:1000 "
            "(whole numbers below 1000), --input mask=2,16:bool."
        )
    shape = tuple(int(x) for x in found[2].split(","))
    below = int(found[4]) if found[4] else None
    if below == 0:
        raise UserError(f"--input {text!r}: there are no integers below 0 here.")
    name = found[1] or f"input{number or ''}"
    return Wanted(name, shape, found[3] or "float", below)


def parse_pair(text: str, option: str) -> tuple[str, str]:
    """Read `left=right`.

    Raises:
        UserError: it is not that.
    """
    found = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([^=\s]+)\s*", text)
    if not found:
        raise UserError(
            f"{option} {text!r} is not understood. Two names are expected, the left "
            f"model's first: {option} input_ids=token_ids."
        )
    return found[1], found[2]


def make_inputs(wanted: Sequence[Wanted], blocks: Sequence[Block]) -> Arrays:
    """Draw inputs: standard normal, or whole numbers below the smallest table.

    Of a mask or of segments by name, zeros and ones.
    """
    import numpy as np  # which refusing what was typed has no need of

    random = np.random.Generator(np.random.Philox(SEED))
    tables = [
        x.spec.weights["table"].shape[0] for x in blocks if "table" in x.spec.weights
    ]
    made: Arrays = {}
    for one in wanted:
        if one.dtype == "float":
            made[one.name] = random.standard_normal(one.shape).astype(np.float32)
        elif one.dtype == "bool":
            made[one.name] = random.random(one.shape) < 0.75
        else:
            binary = meaning_of_input(one.name).endswith(("mask", "segments"))
            below = one.below or (2 if binary else min(tables, default=2))
            made[one.name] = random.integers(0, below, one.shape)
    return made


@contextlib.contextmanager
def explained_inputs(path: Path) -> Iterator[None]:
    """Explain what makes a file unreadable as inputs."""
    from paripassu.core.files import check_regular  # which imports NumPy

    check_regular(path)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # foreign bytes have NumPy raise a dozen kinds
        raise UserError(
            f"{path} cannot be read as inputs ({error}). An .npz file of arrays is "
            "expected: numpy.savez('inputs.npz', input=array)."
        ) from error


def read_inputs(path: Path) -> Arrays:
    """Inputs from an .npz file, by name.

    Raises:
        UserError: it is not one, or holds objects.
    """
    import numpy as np

    # Opened here: of a damaged archive, NumPy leaves the file open.
    with (
        explained_inputs(path),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        found = {name: np.asarray(file[name]) for name in file.files}
    if not found:
        raise UserError(f"{path} holds no array.")
    return {
        name: x.astype(np.float32) if x.dtype == np.float64 else x
        for name, x in found.items()
    }
