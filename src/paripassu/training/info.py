"""What this machine is and which frameworks work on it."""

from __future__ import annotations

import sys
from typing import Any

from paripassu.core import machine
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.version import __version__
from paripassu.frameworks import registry
from paripassu.processes.conditions import DEFAULT
from paripassu.processes.launch import work
from paripassu.processes.requests import DescribeRequest


def info() -> dict[str, Any]:
    """Describe machine and frameworks; each framework is tried in its own process.

    Returns:
        Plain values: `paripassu`, `python`, `platform`, `processor`, `cores`,
        `memory_bytes`, `load_average`, and `frameworks`, by name: `usable`, `version`,
        `by_default`, `device`, `versions`, `settings`, and where it is not usable
        `problem`.
    """
    return {
        "paripassu": __version__,
        "python": sys.version.split()[0],
        "platform": machine.system(),
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "memory_bytes": machine.memory_bytes(),
        "load_average": machine.load_average(),
        "frameworks": {
            name: _try(framework) for name, framework in registry.FRAMEWORKS.items()
        },
    }


def _try(framework: registry.Framework) -> dict[str, Any]:
    description: dict[str, Any] = {
        "title": framework.title,
        "by_default": framework.by_default,
        "version": framework.version,
        "usable": False,
    }
    if framework.problem:
        return {**description, "problem": framework.problem}
    request = DescribeRequest(framework=framework.name, conditions=DEFAULT)
    try:
        return {**description, "usable": True, **work(request)}
    except (WorkerError, UserError) as failure:
        return {**description, "problem": str(failure)}
