"""Small pieces of SVG that follow the page's style sheet, in light and in dark.

In the page everything is drawn 360 units wide, about as wide as a phone and as a third
of the page: text keeps its size. Colours come from classes: `hue0`, `hue1`, ... for a
series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

WIDTH = 360.0
SHAPES = ("circle", "square", "triangle", "diamond")

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A straight map from data (`low` to `high`) to units (`start` to `end`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Three to seven round values, 1, 2 or 5 times a power of ten apart."""
        power = 10.0 ** math.floor(math.log10(self.high - self.low))
        for step in (5 * power, 2 * power, power, power / 2, power / 5):
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            if last - first >= 2:
                break
        return [step * count for count in range(first, last + 1)]


def scale(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    least: float = 1e-9,
) -> Scale:
    """A scale that holds all values, with a little air; at least `least` long."""
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    air = 0.06 * (high - low)
    return Scale(low - air, high + air, start, end)


def decimals_for(ticks: Sequence[float]) -> int:
    """How many decimals tell ticks apart."""
    if len(ticks) < 2:
        return 2
    return max(0, -math.floor(math.log10(abs(ticks[1] - ticks[0])) + 1e-9))


def drawing(
    name: str,
    title: str,
    description: str,
    height: float,
    parts: Iterable[str],
    *,
    width: float = WIDTH,
) -> Markup:
    """A picture with its title and description for those who don't see it."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" '
        'aria-labelledby="{name}-title {name}-desc">'
        '<title id="{name}-title">{title}</title>'
        '<desc id="{name}-desc">{description}</desc>{body}</svg>'
    ).format(
        w=_number(width),
        h=_number(height),
        name=name,
        title=title,
        description=description,
        body=Markup("".join(parts)),
    )


def standalone(drawn: str, width: float, css: str = "standalone.css") -> str:
    """A drawing as a file of its own, with its style, for light and for dark pages."""
    style = (Path(__file__).parent / css).read_text(encoding="utf-8")
    head, _, rest = drawn.partition(">")
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg" width="{width:g}">'
        f"<style>{style}</style>{rest}\n"
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "") -> str:
    """A line of text; `anchor` is "", "middle" or "end"."""
    anchoring = f' text-anchor="{anchor}"' if anchor else ""
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{_number(x)}" y="{_number(y)}"{classes}{anchoring}>'
        f"{escape(content)}</text>"
    )


LEAN = 55.0  # degrees


def leaning(x: float, y: float, content: str, kind: str = "") -> str:
    """A line of text that ends here and comes from below, for names on an axis."""
    turned = f' transform="rotate(-{LEAN:g} {_number(x)} {_number(y)})"'
    return text(x, y, content, kind, "end").replace("<text", f"<text{turned}", 1)


def line(start: Point, end: Point, kind: str) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{_number(x1)}" y1="{_number(y1)}" x2="{_number(x2)}" '
        f'y2="{_number(y2)}" class="{kind}"/>'
    )


def path(points: Sequence[Point], kind: str) -> str:
    """Straight lines from point to point."""
    steps = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return f'<path d="M{steps}" class="{kind}"/>' if points else ""


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A filled box; a negative width reaches to the left."""
    if width < 0:
        x, width = x + width, -width
    return (
        f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" '
        f'height="{_number(height)}" class="{kind}"/>'
    )


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """A filled circle."""
    place = f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
    return f'<circle {place} class="{kind}"/>'


def marker(style: int, x: float, y: float, radius: float = 3.5, kind: str = "") -> str:
    """The mark of a series: circle, square, triangle or diamond."""
    classes = f"mark hue{style} {kind}".rstrip()
    shape = SHAPES[style % len(SHAPES)]
    if shape == "circle":
        return circle(x, y, radius, classes)
    if shape == "square":
        side = 1.8 * radius
        return rectangle(x - side / 2, y - side / 2, side, side, classes)
    reach = 1.25 * radius
    below = [(x + reach, y + 0.8 * reach), (x - reach, y + 0.8 * reach)]
    if shape == "diamond":
        below = [(x + reach, y), (x, y + reach), (x - reach, y)]
    return path([(x, y - reach), *below, (x, y - reach)], classes)


def x_axis(
    across: Scale, top: float, bottom: float, labels: Sequence[str], caption: str
) -> list[str]:
    """Faint lines at the ticks with their labels, and what they mean, below."""
    parts = []
    for value, label in zip(across.ticks(), labels, strict=True):
        x = across(value)
        parts.append(line((x, top), (x, bottom), "grid"))
        parts.append(text(x, bottom + 15, label, "tick", "middle"))
    middle = (across.start + across.end) / 2
    parts.append(text(middle, bottom + 31, caption, "caption", "middle"))
    return parts


def swarm(xs: Sequence[float], radius: float, reach: float) -> list[float]:
    """Offsets that keep marks at `xs` apart, at most `reach` from the middle."""
    rows = [0.0]
    for level in range(1, int(reach / (1.6 * radius)) + 1):
        rows += [-1.6 * radius * level, 1.6 * radius * level]
    offsets = [0.0] * len(xs)
    last = dict.fromkeys(rows, -math.inf)
    for index in sorted(range(len(xs)), key=lambda i: xs[i]):
        free = [row for row in rows if xs[index] - last[row] >= 2.1 * radius]
        row = free[0] if free else min(rows, key=lambda r: last[r])
        last[row] = xs[index]
        offsets[index] = row
    return offsets


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}"  # never "-0"
