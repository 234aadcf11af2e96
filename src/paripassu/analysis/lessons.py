"""Lessons as text: their cells by heading, without importing a framework."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files

from paripassu.frameworks.registry import FRAMEWORKS

OPENING = "Imports"  # what stands before the first heading
CELL = re.compile(r"^# %%(?P<kind>[^\n]*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """All between one heading and the next; the cells of a kind are joined."""

    heading: str  # without its number signs
    prose: str  # markdown without the heading, "" if there is none
    code: str  # without blank lines around, "" if there is none
    level: int = 2  # 1: the title of the lesson, 2: one of its headings


def sections(text: str) -> list[Section]:
    """The sections of a lesson in jupytext's percent format, in their order.

    A markdown cell that starts with a heading opens a section; any other cell
    belongs to the section before it. Code before the first heading is in a section
    without one.
    """
    found: list[tuple[str, int, list[str], list[str]]] = []
    for kind, content in _cells(text):
        prose = kind == "[markdown]"
        lines = [re.sub(r"^# ?", "", line) for line in content.splitlines()]
        heading = re.match(r"(#+)\s+(.*)", lines[0]) if prose else None
        if heading:
            found.append((heading[2].strip(), len(heading[1]), [], []))
            lines = lines[1:]
        elif not found:
            found.append(("", 1, [], []))
        if prose:
            found[-1][2].append("\n".join(lines).strip())
        else:
            found[-1][3].append(content)
    return [
        Section(
            heading=heading,
            prose="\n\n".join(filter(None, texts)),
            code="\n\n\n".join(code),
            level=level,
        )
        for heading, level, texts, code in found
    ]


def by_heading(text: str) -> dict[str, Section]:
    """The sections of a lesson by heading; what is under its title as `OPENING`."""
    return {
        OPENING if part.level == 1 else part.heading: part for part in sections(text)
    }


def lesson_text(framework: str) -> str | None:
    """The lesson of a framework, None if there is none of that name."""
    known = FRAMEWORKS.get(framework)
    return known.text("lesson.py") if known else None


def differences(frameworks: Collection[str]) -> dict[str, str]:
    """What differs between the lessons that are shown, heading by heading, as markdown.

    The notes speak of the frameworks that their first line names: there are none unless
    all of these are shown. What others have in `differences.md` is added to them.
    """
    path = files("paripassu") / "analysis" / "side-by-side.md"
    head, found = _notes(path.read_text(encoding="utf-8"))
    spoken_of = head.partition("<!-- of: ")[2].partition(".")[0].split(", ")
    if not set(spoken_of) <= set(frameworks):
        return {}
    for name in frameworks:
        known = FRAMEWORKS.get(name)
        _head, own = _notes((known and known.text("differences.md")) or "")
        for heading in own.keys() & found.keys():
            found[heading] += f"\n\n{own[heading]}"
    return found


def _notes(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first heading, and the text under each."""
    head, *parts = text.split("\n## ")
    pairs = (part.partition("\n") for part in parts)
    return head, {heading.strip(): words.strip() for heading, _line, words in pairs}


def _cells(text: str) -> list[tuple[str, str]]:
    """Kind ("" for code) and content of each cell; what comes before is code too."""
    marks = list(CELL.finditer(text))
    start = marks[0].start() if marks else len(text)
    cells = [("", text[:start].strip())]
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        end = following.start() if following else len(text)
        cells.append((mark["kind"].strip(), text[mark.end() : end].strip("\n")))
    return [(kind, content.rstrip()) for kind, content in cells if content.strip()]
