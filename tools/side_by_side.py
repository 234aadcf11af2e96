"""The lessons in columns, for docs/side-by-side.md."""

from __future__ import annotations

from collections.abc import Iterator

from paripassu.analysis.lessons import Section, by_heading, differences, lesson_text
from paripassu.analysis.text import display_name
from paripassu.frameworks.registry import FRAMEWORKS

NAMES = [name for name, x in FRAMEWORKS.items() if x.has("lesson")]
INTRODUCTION = """\
# Side by side

The lessons under the same headings, with what differs in thinking, in defaults
and in traps. The seven differences between the article's two notebooks, which it calls
minor, are named where they arise; [article.md](article.md) says what each does.

This page is made from the lessons by `python tools/generate_docs.py`; they are the code
that trains. To run them cell by cell, with pictures, take the notebooks:
"""


def page() -> str:
    """The page: for each heading what differs, and every lesson's code."""
    lessons = [_parts(name) for name in NAMES]
    notes = differences(NAMES)
    headings = list(dict.fromkeys(key for parts in lessons for key in parts))
    if headings != list(notes):
        raise ValueError(f"expected notes on {headings}, got {list(notes)}")
    notebooks = [f"[{display_name(x)}](../notebooks/{x}.ipynb)" for x in NAMES]
    blocks = [f"{INTRODUCTION}{', '.join(notebooks)}."]
    for heading in headings:
        blocks += [f"## {heading}", notes[heading]]
        blocks.append("\n".join(_table([parts[heading] for parts in lessons])))
    return "\n\n".join(blocks) + "\n"


def _parts(framework: str) -> dict[str, Section]:
    text = lesson_text(framework)
    assert text is not None
    return by_heading(text)


def _table(parts: list[Section]) -> Iterator[str]:
    """A table in HTML, in which GitHub reads markdown after an empty line."""
    yield "<table>"
    width = 100 // len(NAMES)
    heads = [f'<th width="{width}%">{display_name(name)}</th>' for name in NAMES]
    yield f"<tr>{''.join(heads)}</tr>"
    yield '<tr valign="top">'
    for part in parts:
        yield f"<td>\n\n{part.prose}\n\n```python\n{part.code}\n```\n\n</td>"
    yield "</tr>"
    yield "</table>"
