"""The picture of a proof: how two trainings part, beside the one-ulp control."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from paripassu.analysis.report import svg
from paripassu.analysis.report.figures import Figure
from paripassu.analysis.report.svg import WIDTH, Scale
from paripassu.analysis.report.words import scientific
from paripassu.analysis.schema import Curve

FLOOR = 1e-16  # nats: what agrees better is drawn here
CEILING = 10.0
TOP, BOTTOM, LEFT = 10.0, 220.0, 52.0
ROW = 17.0  # of the key


def figure(curves: Sequence[Curve]) -> Figure | None:
    """The chart with its heading and caption; None without curves."""
    if not curves:
        return None
    return Figure(
        "How the trainings part",
        chart(curves),
        "The largest difference of a batch loss so far, in nats, by step; both axes "
        "are logarithmic. In float64 the twins stay together. In float32 they part, as "
        "one framework parts from itself when one kernel is moved by a unit in the "
        "last place.",
    )


def chart(curves: Sequence[Curve]) -> Markup:
    """Gaps by step on logarithmic axes, and a key below."""
    last = max(curve.steps[-1] for curve in curves)
    across = Scale(0.0, max(math.log10(last), 0.3), LEFT, WIDTH - 4)
    up = Scale(math.log10(FLOOR), math.log10(CEILING), BOTTOM, TOP)
    parts = []
    for power in range(-16, 2, 4):
        y = up(power)
        parts.append(svg.line((LEFT, y), (WIDTH, y), "grid"))
        label = scientific(10.0**power, 0).removeprefix("1 × ") if power else "1"
        parts.append(svg.text(LEFT - 6, y + 4, label, "tick", "end"))
    for power in range(int(math.log10(last)) + 1):
        label = f"{10**power:,}"
        x = across(power)
        parts.append(svg.text(x, BOTTOM + 16, label, "tick", "middle"))
    middle = (LEFT + WIDTH) / 2
    parts.append(svg.text(middle, BOTTOM + 32, "step", "caption", "middle"))
    y = BOTTOM + 52
    for number, curve in enumerate(curves):
        kind = _kind(curve, curves[:number])
        points = [
            (across(math.log10(step)), up(math.log10(min(max(gap, FLOOR), CEILING))))
            for step, gap in zip(curve.steps, curve.gaps, strict=True)
        ]
        parts.append(svg.path(points, kind))
        parts.append(svg.path([(4, y - 4), (30, y - 4)], kind))
        parts.append(svg.text(38, y, f"{curve.precision}: {curve.label}", "tick"))
        y += ROW
    ends = "; ".join(
        f"{curve.label} in {curve.precision}: {scientific(curve.gaps[-1])} after "
        f"{curve.steps[-1]:,} steps"
        for curve in curves
    )
    title = "Difference of batch losses by step"
    return svg.drawing("divergence", title, ends, y, parts)


def _kind(curve: Curve, before: Sequence[Curve]) -> str:
    """Colours are frameworks', and a curve is of two: it is told by ink and dashes."""
    line = "parting" if curve.kind == "frameworks" else "control"
    own = (curve.kind, curve.precision)
    alike = sum((x.kind, x.precision) == own for x in before)
    return f"{line} {curve.precision} like{alike % 3}"


def picture(curves: Sequence[Curve]) -> str:
    """The chart as an SVG file of its own, for light and for dark pages."""
    return svg.standalone(chart(curves), 720, "divergence.css")
