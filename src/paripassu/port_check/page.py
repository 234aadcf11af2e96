"""The page of a check of a port: the verdict, where the models part, the curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from paripassu.analysis.report import svg
from paripassu.analysis.report.svg import Scale
from paripassu.analysis.report.templates import style, templates
from paripassu.core import files
from paripassu.port_check.results import Checked, Place

WIDTH, LEFT, TOP = 720.0, 56.0, 12.0
HEIGHT, FLOOR, CEILING = 220.0, 1e-17, 10.0
MOST_PLACES = 4  # of a cause; the others can be opened
NAME_ROOM = 14.0  # between the beginnings of two leaning names
MOST_LETTERS = 24
LETTER = 6.4  # the width of one
HERE = Path(__file__).parent
Value = Callable[[Place], float | None]
SERIES: tuple[tuple[str, str, Value], ...] = (
    ("float64, the two models", "parting float64", lambda x: x.total),
    ("float64, one ulp in the left one", "control float64", lambda x: x.control),
    ("float32, the two models", "parting float32", lambda x: x.total_float32),
    (
        "float32, one ulp in the left one",
        "control float32",
        lambda x: x.control_float32,
    ),
)


def write(path: Path, found: Checked) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    files.write_text(path, render(found))


def render(found: Checked) -> str:
    """The page as HTML, with nothing to load."""
    return (
        templates(HERE)
        .get_template("page.html")
        .render(
            found=found,
            css=style(HERE / "page.css"),
            curve=curve(found.places),
            marks={"holds": "✓", "fails": "✗", "note": "!", "not run": "–"},
            shown_places=MOST_PLACES,
            sized=_sized,
        )
    )


def _sized(value: float | None) -> str:
    return "no size" if value is None else f"{value:.1e}"


def curve(places: Sequence[Place]) -> Markup:
    """Errors of layers' outputs on a logarithmic axis, in the order of the calls."""
    across = Scale(0.0, max(len(places) - 1.0, 1.0), LEFT + 8, WIDTH - 8)
    up = Scale(math.log10(FLOOR), math.log10(CEILING), HEIGHT, TOP)
    parts = []
    for power in range(-16, 1, 4):
        y = up(power)
        parts.append(svg.line((LEFT, y), (WIDTH, y), "grid"))
        label = f"1e{power}" if power else "1"
        parts.append(svg.text(LEFT - 6, y + 4, label, "tick", "end"))
    for place_number, place in enumerate(places):
        if _faulty(place):
            x = across(place_number)
            parts.append(svg.line((x, TOP), (x, HEIGHT), "fault"))
    named = _named(places)
    for place_number in named:
        place = places[place_number]
        kind = "tick faulty" if _faulty(place) else "tick"
        x = across(place_number)
        parts.append(svg.line((x, HEIGHT), (x, HEIGHT + 4), "grid"))
        parts.append(svg.leaning(x + 4, HEIGHT + 14, _short(place.left), kind))
    longest = max((len(_short(places[x].left)) for x in named), default=0)
    below = HEIGHT + 20 + longest * LETTER * math.sin(math.radians(svg.LEAN))
    y = below + 40
    for label, kind, value in SERIES:
        known = [(n, v) for n, x in enumerate(places) if (v := value(x)) is not None]
        if not known:
            continue
        points = [
            (across(n), up(math.log10(min(max(v, FLOOR), CEILING)))) for n, v in known
        ]
        parts.append(svg.path(points, kind))
        if "parting" in kind:
            parts += [
                svg.circle(x, z, 2.4, f"point {kind.split()[1]}") for x, z in points
            ]
        parts.append(svg.path([(LEFT, y - 4), (LEFT + 28, y - 4)], kind))
        parts.append(svg.text(LEFT + 36, y, label, "tick"))
        y += 17
    middle = (LEFT + WIDTH) / 2
    caption = "layers with weights of the left model, in the order of their calls"
    parts.append(svg.text(middle, below + 14, caption, "caption", "middle"))
    worst = max((x.total for x in places if x.total is not None), default=0.0)
    said = f"{len(places)} layers; in float64 at most {worst:.1e} apart"
    return svg.drawing("curve", "Divergence by layer", said, y, parts, width=WIDTH)


def _named(places: Sequence[Place]) -> list[int]:
    """The places whose names stand on the axis: all that have room, faulty ones first.

    Names that would overlap one of these are left out; the table below has them all.
    """
    if not places:
        return []
    room = (WIDTH - LEFT - 16) / max(len(places) - 1, 1)
    apart = math.ceil(NAME_ROOM / room)
    taken: list[int] = []
    order = sorted(range(len(places)), key=lambda x: not _faulty(places[x]))
    for number in order:
        if all(abs(number - other) >= apart for other in taken):
            taken.append(number)
    return sorted(taken)


def _short(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    if len(name) <= MOST_LETTERS:
        return name
    return f"…{name[1 - MOST_LETTERS :].lstrip('./')}"


def _faulty(place: Place) -> bool:
    ends = (place.own, place.bound), (place.entering, place.entering_bound)
    return any(
        bound is not None and (error is None or error > bound) for error, bound in ends
    )
