"""Kinds of machines: times are compared only between runs of the same kind."""

from __future__ import annotations

from collections.abc import Iterable

from paripassu.analysis.text import counted
from paripassu.core.record import Environment, RunRecord


def kind_of(environment: Environment) -> str:
    """What decides how long a run takes, in words."""
    return (
        f"{environment.processor}, {counted(environment.cores, 'core')}, "
        f"{counted(environment.threads, 'thread')} on {environment.device}"
    )


def main_kind(records: Iterable[RunRecord]) -> str | None:
    """The kind with runs of most frameworks, then with most runs; None without any."""
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(kind_of(record.environment), []).append(record.framework)
    return max(found, key=lambda x: (len(set(found[x])), len(found[x])), default=None)
