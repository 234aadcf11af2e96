"""Numbers as the report writes them."""

from __future__ import annotations

from collections.abc import Sequence

from paripassu.analysis.schema import Estimate, Spread
from paripassu.analysis.text import counted

METHODS = {
    "wilson": "Wilson 95% interval for one run: over other test images, not seeds",
    "student t": "Student’s t, 95% interval of the mean over seeds",
    "bca bootstrap": "BCa bootstrap, 95% interval of the mean over paired seeds",
    "all values equal": "all values are equal: no spread to make an interval of",
    "single value": "one value has no interval",
}


def percent(fraction: float, decimals: int = 2) -> str:
    """0.99123 -> "99.12%"."""
    return f"{100 * fraction:.{decimals}f}%"


def seconds(value: float) -> str:
    """Three digits or so, in the unit that suits: "38.2 s", "0.41 ms"."""
    if value >= 600:
        return f"{value / 60:.1f} min"
    if value <= 0:
        return "0 s"
    value = float(f"{value:.3g}")  # first, so that 0.9996 becomes a second
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{_three_digits(value * 1e6)} µs"


def memory(count: float) -> str:
    """Bytes as MiB, or GiB from one on."""
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.0f} MiB"


def scientific(value: float, decimals: int = 1) -> str:
    """8.2e-16 -> "8.2 × 10⁻¹⁶"."""
    mantissa, _, power = f"{value:.{decimals}e}".partition("e")
    if not value:
        return "0"
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{raised}"


def n(count: int, noun: str) -> str:
    """Such as "n = 10 runs", on one line wherever it stands."""
    return f"n = {counted(count, noun)}".replace(" ", "\N{NO-BREAK SPACE}")


def for_each(notes: Sequence[tuple[str, str]]) -> str:
    """Who and what, told once if it is the same for all: "Each: n = 10 runs."."""
    if len(notes) > 1 and len({note for _, note in notes}) == 1:
        return f"Each: {notes[0][1]}."
    return " ".join(f"{who}: {note}." for who, note in notes)


def accuracy_interval(estimate: Estimate) -> str:
    """Such as "99.05 to 99.18%", "" without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.2f} to {percent(estimate.high)}"


def seconds_range(spread: Spread) -> str:
    """Such as "37.9 s to 39.0 s", "" for a single value."""
    low, high = seconds(spread.low), seconds(spread.high)
    if spread.n == 1 or low == high:
        return ""
    value, unit = low.split(" ")
    return f"{value} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def method(estimate: Estimate) -> str:
    """The name of the method behind an interval, in words."""
    return METHODS.get(estimate.method, estimate.method)


def _three_digits(value: float) -> str:
    decimals = 0 if value > 99.9 else 1 if value > 9.99 else 2
    return f"{value:.{decimals}f}"
