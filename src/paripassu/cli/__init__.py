"""The command line: reads what was typed, calls one verb, prints what it returns.

Exit codes: 0 done; 1 a check or a run failed; 2 wrong usage or input; 3 reserved for
undecided checks; 130 interrupted. Results go to standard output, progress and errors to
standard error.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from paripassu.cli import (
    ablation,
    benchmark,
    check,
    code,
    models,
    notebooks,
    proof,
    recipes,
    record,
    study,
    training,
)
from paripassu.cli.base import INTERRUPTED, JsonOption, app, complain, show, terminal
from paripassu.core.errors import PariPassuError, WorkerError

# Each has added its commands to `app`.
PARTS = (
    training,
    proof,
    ablation,
    study,
    recipes,
    code,
    models,
    check,
    record,
    benchmark,
    notebooks,
)
RESUMABLE = ("train", "compare", "verify", "ablate", "study", "bench", "race")


def main() -> None:
    """Run the command line and turn known errors into messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe on Windows may have no "≤": better another sign than no answer.
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")
    resumable = any(word in RESUMABLE for word in sys.argv[1:2])
    try:
        app()
    except PariPassuError as error:
        again = isinstance(error, WorkerError) and resumable
        advice = "\nType the same command again to go on." if again else ""
        complain(f"{error}{advice}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        from paripassu.core.files import trouble_with_disk

        trouble = trouble_with_disk(error)
        if not trouble:
            raise
        complain(f"{error.filename or 'a file'}: {trouble}.")
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            kept = "What is finished is kept: type the same command again to go on."
            complain(f"interrupted. {kept}" if resumable else "interrupted.")
        raise


@app.command(epilog="**Example**\n\n- `paripassu info --json`")
def info(as_json: JsonOption = False) -> None:
    """Describe this machine and which frameworks work on it."""
    from paripassu.terminal.summary import info_table
    from paripassu.training.info import info as describe

    with terminal(stderr=True).status("trying each framework …"):
        found = describe()
    show(found, as_json, lambda: info_table(found))


def _version(wanted: bool) -> None:
    if wanted:
        from paripassu.core.version import __version__

        typer.echo(f"paripassu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version
