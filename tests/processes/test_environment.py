"""The environment of workers: ours, unless the user has set it otherwise."""

from __future__ import annotations

import pytest

from paripassu.core import machine
from paripassu.processes.launch import worker_environment


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def test_threads_soon_sleep_at_a_barrier_beside_other_programs():
    assert worker_environment(2)["GOMP_SPINCOUNT"] == "10000"


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_has_set_is_kept_and_recorded(name, value, monkeypatch):
    assert machine.waiting_of_threads() == "default"
    monkeypatch.setenv(name, value)
    made = worker_environment(2)
    assert made[name] == value
    assert made.get("GOMP_SPINCOUNT") == (value if name == "GOMP_SPINCOUNT" else None)
    assert machine.waiting_of_threads() == f"{name}={value}"
