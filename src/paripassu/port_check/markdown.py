"""A check of a port as Markdown: short enough to paste into a review."""

from __future__ import annotations

from pathlib import Path

from paripassu.core import files
from paripassu.port_check.results import PLACES_SHOWN, CauseGroup, Checked


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
    lines += [f"- not compared: {x}" for x in found.not_compared]
    if found.causes or found.not_compared:
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
    shown = [f"{_code(x)} and {_code(y)}" for x, y in cause.places[:PLACES_SHOWN]]
    if (more := len(cause.places) - len(shown)) > 0:
        shown.append(f"{more} more")
    lines = [f"{number}. {cause}", f"   - at {', '.join(shown)}"]
    if cause.write:
        lines.append(f"   - write: {cause.write}")
    return lines


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
