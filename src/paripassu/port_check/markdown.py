"""A check of a port as Markdown: short enough to paste into a review."""

from __future__ import annotations

from pathlib import Path

from paripassu.core import files
from paripassu.port_check.results import PLACES_SHOWN, CauseGroup, Checked, list_some


def write(path: Path, found: Checked) -> None:
    """Write the text, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    files.write_text(path, render(found))


def render(found: Checked) -> str:
    """The verdict, its causes, what was compared and what was not."""
    left, right = found.left, found.right
    lines = [
        f"**{found.headline}**: {_code(left.source)} and {_code(right.source)}",
        "",
    ]
    for number, cause in enumerate(found.causes, 1):
        lines += _cause(cause, number)
    for cause in found.accepted_causes:
        lines.append(f"- accepted: {cause}, at {_places(cause)}")
    lines += [f"- {found.unused_told}"] if found.unused else []
    lines += [f"- not compared: {x}" for x in found.not_compared]
    if found.causes or found.accepted or found.unused or found.not_compared:
        lines.append("")
    versions = left.versions | right.versions
    lines += [
        f"Compared: {'; '.join(found.compared) or 'nothing'}. "
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}.",
        "",
    ]
    if found.command:
        lines += ["```console", f"$ {found.command}", "```", ""]
    return "\n".join(lines)


def _cause(cause: CauseGroup, number: int) -> list[str]:
    lines = [f"{number}. {cause}", f"   - at {_places(cause)}"]
    if cause.write:
        lines.append(f"   - write: {cause.write}")
    return lines


def _places(cause: CauseGroup) -> str:
    places = [
        " and ".join(
            f"{_code(name)} ({line})" if line else _code(name)
            for name, line in zip(names, lines, strict=True)
        )
        for names, lines in zip(cause.places, cause.sources, strict=True)
    ]
    return list_some(places, shown=PLACES_SHOWN)


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
