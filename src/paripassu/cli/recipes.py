"""The commands that list and show recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from paripassu.cli.base import JsonOption, app, load_recipe, recipe_names, show

recipes_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(recipes_app, name="recipes")


@recipes_app.callback(
    invoke_without_command=True,
    epilog="**Examples**\n\n"
    "- `paripassu recipes`\n\n"
    "- `paripassu recipes show lenet5 > my.toml`\n\n"
    "- `paripassu compare --recipe my.toml`",
)
def recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in recipes, or show one."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    from paripassu.core.recipe_book import entries
    from paripassu.terminal.summary import recipes_table

    found = entries()
    show(found, as_json, lambda: recipes_table(found))


@recipes_app.command(
    "show",
    epilog="**Examples**\n\n"
    "- `paripassu recipes show keras-example`\n\n"
    "- `paripassu recipes show my.toml --json`",
)
def show_recipe(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A built-in recipe or the path of a TOML file.",
            autocompletion=recipe_names,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print a recipe as TOML: every value, its source and its published accuracy.

    The output is itself a recipe file.
    """
    from paripassu.core.recipe_book import show as as_toml

    recipe = load_recipe(name)
    show(recipe, as_json or context.obj, lambda: as_toml(recipe).rstrip("\n"))
