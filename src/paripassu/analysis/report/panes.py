"""The lessons side by side: prose and highlighted code, aligned by heading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from pygments import (  # type: ignore[import-untyped, unused-ignore]
    formatters,
    highlight,
    lexers,
)

from paripassu.analysis.lessons import Section, by_heading, differences, lesson_text


@dataclass(frozen=True)
class Pane:
    """One framework's part under a heading; empty where it has none."""

    framework: str
    prose: Markup
    code: Markup


@dataclass(frozen=True)
class Row:
    """One heading and everybody's part under it, in the order of the frameworks.

    `note` says what differs; it is empty unless all that it speaks of are there.
    """

    heading: str
    note: Markup
    panes: list[Pane]


def align(frameworks: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of all lessons, and the frameworks that have none.

    Headings keep the order of the first lesson; those that only a later one has
    follow at the end.
    """
    texts = {name: lesson_text(name) for name in frameworks}
    lessons = {name: by_heading(x) for name, x in texts.items() if x is not None}
    headings = dict.fromkeys(heading for parts in lessons.values() for heading in parts)
    notes = differences(lessons)
    rows = [
        Row(
            heading,
            _prose(notes.get(heading, "")),
            [_pane(name, parts.get(heading)) for name, parts in lessons.items()],
        )
        for heading in headings
    ]
    return rows, [name for name, text in texts.items() if text is None]


def _pane(framework: str, section: Section | None) -> Pane:
    if section is None:
        return Pane(framework, Markup(), Markup())
    return Pane(framework, _prose(section.prose), highlighted(section.code))


def _prose(text: str) -> Markup:
    """Paragraphs, with `code` and **bold** marked up: no other markdown is used."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(paragraph)))
        marked = re.sub(r"\*\*([^*`]+)\*\*", r"<strong>\1</strong>", marked)
        paragraphs.append(f"<p>{marked}</p>" if paragraph else "")
    return Markup("".join(paragraphs))


def highlighted(code: str) -> Markup:
    """Code with classes for the style sheet, escaped."""
    if not code:
        return Markup()
    lexer = lexers.get_lexer_by_name("python", stripnl=False)
    formatter = formatters.HtmlFormatter(nowrap=True)
    return Markup(highlight(code, lexer, formatter).rstrip())
