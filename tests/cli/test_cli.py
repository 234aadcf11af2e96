"""The command line: its commands, its output for programs, its errors."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from helpers import type_here

import paripassu
from paripassu import cli
from paripassu.core import errors

PRINTS_NO_RESULT = {"serve"}


def commands(group: Any, *outer: str) -> Iterator[tuple[str, Any]]:
    """Every command by what is typed for it."""
    for name, command in group.commands.items():
        typed = " ".join((*outer, name))
        yield typed, command
        if hasattr(command, "commands"):
            yield from commands(command, *outer, name)


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def test_there_are_commands():
    assert {"train", "verify", "faults check", "recipes show"} <= set(COMMANDS)


@pytest.mark.parametrize("typed", sorted(set(COMMANDS) - PRINTS_NO_RESULT))
def test_every_command_prints_json_by_a_flag(typed):
    (option,) = [x for x in COMMANDS[typed].params if "--json" in x.opts]
    assert option.is_flag


@pytest.mark.parametrize("typed", sorted(COMMANDS))
def test_every_command_and_option_is_explained(typed):
    command = COMMANDS[typed]
    assert command.help
    for option in command.params:
        if option.name != "as_json" and option.param_type_name == "option":
            assert option.help, option.name


@pytest.mark.parametrize(
    "typed",
    [
        "recipes --json",
        "recipes show article --json",
        "recipes --json show article",
        "faults --json",
    ],
)
def test_json_is_one_document_on_standard_output(typed):
    done = type_here(*typed.split())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("typed", "meant"), [("ledger", "ablate"), ("bnech", "bench"), ("verfy", "verify")]
)
def test_an_unknown_command_is_told_what_was_meant(typed, meant):
    done = type_here(typed)
    assert done.returncode == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in done.stderr


def kinds(of: type[errors.PariPassuError]) -> Iterator[type[errors.PariPassuError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("kind", list(kinds(errors.PariPassuError)))
def test_an_error_of_ours_is_a_message_and_an_exit_code(kind, monkeypatch, capsys):
    def fail() -> None:
        raise kind.__new__(kind, "expected this, got that")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == kind.exit_code
    shown = capsys.readouterr()
    assert shown.err.startswith("paripassu: expected this, got that")
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_an_error_that_is_none_of_ours_is_not_hidden(monkeypatch):
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_package_runs_as_a_module():
    words = [sys.executable, "-m", "paripassu", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"paripassu {paripassu.__version__}"


def test_all_faults_have_a_command():
    done = type_here("verify", "--fault", "all")
    assert done.returncode == 2
    assert "paripassu faults check" in " ".join(done.stderr.split())
