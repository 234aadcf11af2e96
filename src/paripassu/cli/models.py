"""The commands that use trained models: convert, predict, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    JsonOption,
    NamesOption,
    ThreadsOption,
    app,
    complain,
    exit_unless,
    framework_list,
    framework_names,
    load_recipe,
    recipe_names,
    show,
    terminal,
)


def format_names(start: str) -> list[str]:
    """For completion: the formats of a conversion."""
    from paripassu.conversion.formats import all_formats

    return [name for name in all_formats() if name.startswith(start)]


HeldOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help="The recipe of a file that does not name its network.",
        autocompletion=recipe_names,
    ),
]


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu convert runs/mine --to tensorflow --out model.keras`\n\n"
    "- `paripassu convert model.keras --to pytorch --out model.pt`\n\n"
    "- `paripassu convert runs/mine --to onnx --out model.onnx --json`"
)
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file.",
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="The format to write: a framework's own, safetensors or onnx.",
            autocompletion=format_names,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write or replace.")],
    recipe: HeldOption = None,
    fault: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Seed a known mistake in the file, which must then be refused: "
            "kernel-transposed, flatten-order or rounded.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network as another framework's own file, and check that file.

    The file is opened in a fresh process, as a user would open it, and run on 1,000
    test images: its answers must be the source's and its weights the same bits.
    Otherwise nothing is written, and the exit code is 1.
    """
    from paripassu.conversion.convert import convert as write
    from paripassu.terminal.summary import conversion_lines

    console = terminal(stderr=True)
    with console.status("") as status:
        found = write(
            source,
            target=target,
            out=out,
            recipe=load_recipe(recipe) if recipe else None,
            fault=fault,
            on_phase=lambda text: status.update(f"{text} …"),
        )
    show(found, as_json, lambda: "\n".join(conversion_lines(found)))


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu predict --model runs/mine digit.png`\n\n"
    "- `paripassu predict -m runs/mine -m model.keras photos/ --json`\n\n"
    "- `paripassu predict -m runs/mine -f pytorch -f tensorflow 'photos/**/*.jpg' "
    "--show-preprocessing sheet.png`"
)
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="PNG, JPEG, BMP, GIF or TIFF files, folders, or quoted patterns. Dark "
            "on light or light on dark, up to 64 million pixels.",
        ),
    ],
    models: Annotated[
        list[Path],
        typer.Option(
            "--model",
            "-m",
            metavar="RUN_OR_FILE",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file. "
            "Repeatable, to compare.",
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--framework",
            "-f",
            metavar="NAME",
            help="The framework to use. Repeatable. Default: the model's own, or the "
            "first that is installed",
            autocompletion=framework_names,
        ),
    ] = None,
    recipe: HeldOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--show-preprocessing",
            metavar="FILE.png",
            help="Draw the first 100 pictures, each beside the pixels that the network "
            "gets.",
        ),
    ] = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Recognise the digit on each picture.

    Pictures are preprocessed as MNIST was made: the ink scaled to 20 x 20 pixels,
    anti-aliased, its centre of mass in the middle of 28 x 28. A warning tells when the
    result does not look like a digit or when the network is unsure. A network that
    takes other images gets each picture whole, scaled to its size. If some pictures
    cannot be read, the others are answered, and the exit code is 1.
    """
    from paripassu.conversion.model_source import read_source
    from paripassu.prediction.contact_sheet import SHOWN, check_sheet, write_sheet
    from paripassu.prediction.predict import answer, ask_which, gather
    from paripassu.terminal import prediction as view

    console = terminal(stderr=True)
    pictures, skipped = gather(images)
    if sheet:
        check_sheet(sheet)
    chosen = load_recipe(recipe) if recipe else None
    with view.watching(console, len(pictures)) as on_progress:
        sources = [read_source(path, chosen) for path in models]
        asked = ask_which(sources, names or [])
        found = list(
            answer(
                asked,
                pictures,
                threads=threads,
                keep_images=SHOWN if sheet else 0,
                on_progress=on_progress,
            )
        )
    if as_json:
        for part in view.as_json(found, asked):
            typer.echo(part, nl=False)
    else:
        output = terminal()
        for line in view.table(found, asked, [x.path for x in pictures]):
            if line.style and output.is_terminal:
                output.print(line)
            else:
                typer.echo(line.plain)
    if sheet:
        write_sheet(sheet, found, asked)
        console.print(f"pictures: {sheet}", markup=False, highlight=False)
    console.print(view.summary(found, skipped), markup=False, highlight=False)
    exit_unless(not any(x.problem for x in found))


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu serve --model runs/mine`\n\n"
    "- `paripassu serve --model runs/mine --frameworks all`\n\n"
    "- `paripassu serve --model runs/mine --model model.keras --port 8080`\n\n"
    "- `curl -H 'Content-Type: image/png' --data-binary @digit.png "
    "http://127.0.0.1:8000/predict`"
)
def serve(
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            "-m",
            metavar="PATH",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file. One "
            "model runs in several frameworks; several (repeat the option) run each "
            "in its own.",
        ),
    ],
    frameworks: NamesOption = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; 0.0.0.0 lets other machines connect."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any free port.")
    ] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Per framework.")] = 1,
) -> None:
    """Serve a page to draw digits on, answered side by side, and an HTTP API.

    The page is at /, the API documentation at /docs. Ctrl-C stops the server after
    the current requests.
    """
    from paripassu.serve import check_installed

    check_installed()
    from paripassu.serve.server import serve as run

    status = terminal(stderr=True).status("starting each framework …")

    def announce(address: str, ours_alone: bool) -> None:
        status.stop()
        if not ours_alone:
            complain(
                f"others on the network can reach it: {host} is not the loopback. It "
                "asks nobody for a password."
            )
        typer.echo(address)

    with status:
        run(
            model,
            frameworks=framework_list(frameworks) if frameworks is not None else (),
            host=host,
            port=port,
            threads=threads,
            tell=complain,
            announce=announce,
        )
