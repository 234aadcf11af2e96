"""The formats that a trained network can be written in: a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paripassu.core.errors import UserError, did_you_mean
from paripassu.frameworks import registry
from paripassu.frameworks.registry import Framework


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    name: str  # what users type
    suffixes: tuple[str, ...]  # of its files; the first is the one proposed
    trial: Path  # a script that opens a file as its user would and asks it images
    framework: Framework | None = None  # whose own format it is; None: nobody's


def all_formats() -> dict[str, Format]:
    """Those of the frameworks, safetensors and ONNX, by name."""
    trial = registry.REFERENCE.folder / "trial.py"
    formats = (
        *(
            Format(x.name, x.suffixes, x.folder / "trial.py", x)
            for x in registry.FRAMEWORKS.values()
            if x.has("trial")
        ),
        Format("safetensors", (".safetensors",), trial),
        Format("onnx", (".onnx",), Path(__file__).parent / "onnx_trial.py"),
    )
    return {x.name: x for x in formats}


def find_format(name: str) -> Format:
    """The format of that name, or of one of its framework's aliases, in any case.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    formats = all_formats()
    wanted = name.strip().lower()
    known = {x: x for x in formats}
    for x in formats.values():
        known |= dict.fromkeys(x.framework.aliases if x.framework else (), x.name)
    if wanted not in known:
        raise UserError(
            f"--to {name!r}: expected one of {', '.join(formats)}."
            f"{did_you_mean(wanted, known)}"
        )
    return formats[known[wanted]]
