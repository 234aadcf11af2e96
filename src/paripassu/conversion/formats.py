"""The formats that a trained network can be written in: a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paripassu.core.errors import UserError, did_you_mean
from paripassu.frameworks import registry
from paripassu.frameworks.registry import Framework


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: what users type.
        suffixes: of its files; the first is the one proposed.
        trial: a script that opens a file as its user would and asks it images.
        framework: whose own format it is; None: nobody's.
    """

    name: str
    suffixes: tuple[str, ...]
    trial: Path
    framework: Framework | None = None


def all_formats() -> dict[str, Format]:
    """Those of the frameworks, safetensors and ONNX, by name."""
    native = (
        Format(x.name, x.suffixes, x.folder / "trial.py", x)
        for x in registry.FRAMEWORKS.values()
        if x.has("trial")
    )
    neutral = (
        Format(
            "safetensors", (".safetensors",), registry.REFERENCE.folder / "trial.py"
        ),
        Format("onnx", (".onnx",), Path(__file__).parent / "onnx_trial.py"),
    )
    return {x.name: x for x in (*native, *neutral)}


def find_format(name: str) -> Format:
    """The format of that name, or of one of its framework's aliases, in any case.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    formats = all_formats()
    wanted = name.strip().lower()
    known = {x: x for x in formats} | {
        alias: x.name
        for x in formats.values()
        if x.framework
        for alias in x.framework.aliases
    }
    if wanted not in known:
        raise UserError(
            f"--to {name!r}: expected one of {', '.join(formats)}."
            f"{did_you_mean(wanted, known)}"
        )
    return formats[known[wanted]]
