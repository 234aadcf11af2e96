"""Makes a web site of docs/, which is written to be read on a plain git host, too.

mkdocs calls the functions `on_...`. Pages from elsewhere in the repository join, a link
that leads out of docs/ finds a copy of what it leads to, and a table of columns for
frameworks becomes tabs. Nothing of the package is imported, and no framework.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ASSETS = ("iframe-worker.js", "site.css")
# Pages of the site that are not in docs/, by their place in the repository.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
NOTEBOOKS = "notebooks/"
COPIES = "files/"  # of what pages link to
MADE = (COPIES, "reference/", "tutorials/")  # pages whose links are the site's own
SHOWN = {".py": "python", ".toml": "toml", ".cff": "yaml", "": "text"}
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
COLUMNS = re.compile(
    r"^<table>\n<tr>(?P<heads>.*?)</tr>\n<tr valign=\"top\">\n(?P<cells>.*?)\n</tr>\n"
    r"</table>$",
    re.MULTILINE | re.DOTALL,
)
MODULES = {
    "frameworks": ("paripassu.frameworks.contract", "What a framework's folder offers"),
    "layers": ("paripassu.core.layer_spec", "Layers, as no framework calls them"),
    "recipe": ("paripassu.core.recipe", "Recipes"),
    "numpy-layers": ("paripassu.reference.layers", "The reference: layers"),
    "numpy-losses": ("paripassu.reference.losses", "The reference: losses"),
    "numpy-optimizers": ("paripassu.reference.optimizers", "The reference: optimizers"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and copies of what all pages link to."""
    made: dict[str, str | bytes] = {
        place: (ROOT / source).read_text() for source, place in PAGES.items()
    }
    for path in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        made |= notebook(path)
    made |= reference()
    made |= {f"assets/{x}": (HERE / x).read_text() for x in ASSETS}
    pages = {x.src_uri: x.content_string for x in files.documentation_pages()}
    pages |= {key: str(x) for key, x in made.items() if key.endswith(".md")}
    for place, text in pages.items():
        if not place.startswith(MADE):
            made |= linked(text, place)
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """The page with tabs, and with links to where their targets are on the site."""
    own = page.file.src_uri
    text = markdown if own.startswith(MADE) else relinked(markdown, own)
    return tabbed(text, config.extra["tabs"])


# ---- links


def repository_path(place: str, link: str) -> str:
    """Where a link of a page leads, from the repository's root; "" if elsewhere."""
    target = link.partition("#")[0]
    if not target or re.match(r"[a-z]+:", target):
        return ""
    sources = {to: source for source, to in PAGES.items()}
    source = sources.get(place, f"docs/{place}")
    if place.startswith("tutorials/"):
        source = NOTEBOOKS + posixpath.basename(place)
    found = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if found.startswith(".."):
        raise ValueError(f"{source}: {link} leads out of the repository")
    return found


def site_place(path: str) -> str:
    """Where the site has what is at a path of the repository: a page, or a file."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(NOTEBOOKS) and path.endswith(".ipynb"):
        return f"tutorials/{Path(path).stem}.md"
    source = ROOT / path
    if source.is_dir():
        return f"{COPIES}{path}/index.md"
    return f"{COPIES}{path}" + (".md" if source.suffix in SHOWN else "")


def linked(text: str, own: str) -> dict[str, str | bytes]:
    """Copies of what a page links to outside of its code."""
    made: dict[str, str | bytes] = {}
    for part in FENCE.split(text)[::2]:
        for link in LINK.findall(part):
            made |= copied(repository_path(own, link))
    return made


def relinked(text: str, own: str) -> str:
    """The page with links from its place on the site."""

    def moved(match: re.Match[str]) -> str:
        path = repository_path(own, match[1])
        if not path:
            return match[1]
        _, hash_, anchor = match[1].partition("#")
        place = posixpath.relpath(site_place(path), posixpath.dirname(own) or ".")
        return place + hash_ + anchor

    return outside_code(text, lambda part: LINK.sub(moved, part))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with all but its blocks of code changed."""
    parts = FENCE.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


def copied(path: str) -> dict[str, str | bytes]:
    """What the site needs for a link to a path of the repository, by place."""
    place = site_place(path) if path else ""
    if not place.startswith(COPIES):
        return {}
    source = ROOT / path
    if not source.exists():
        raise FileNotFoundError(f"{path}, to which a page links")
    if source.is_dir():
        return folder(source, path)
    if source.suffix not in SHOWN:
        return {place: source.read_bytes()}
    text = source.read_text()
    code = f"`````{SHOWN[source.suffix]}\n{text.rstrip()}\n`````"
    return {place: unsearched(f"# {source.name}\n\n`{path}`\n\n{code}\n")}


def folder(source: Path, path: str) -> dict[str, str | bytes]:
    """A page that lists a folder's files, and the files."""
    made: dict[str, str | bytes] = {}
    rows = []
    for file in sorted(x for x in source.rglob("*") if x.is_file()):
        below = file.relative_to(source)
        if {"__pycache__", "runs"} & set(below.parts):
            continue  # runs are beside what is made of them, and large
        made |= copied(f"{path}/{below.as_posix()}")
        link = posixpath.relpath(
            site_place(f"{path}/{below.as_posix()}"), COPIES + path
        )
        rows.append(f"- [{below.as_posix()}]({link})")
    page = f"# {source.name}/\n\n`{path}/`\n\n" + "\n".join(rows) + "\n"
    return made | {f"{COPIES}{path}/index.md": unsearched(page)}


def unsearched(text: str) -> str:
    """A page that the search leaves out."""
    return f"---\nsearch:\n  exclude: true\n---\n\n{text}"


# ---- tabs


def tabbed(text: str, names: Mapping[str, str]) -> str:
    """The page with a tab for each column of a table of frameworks.

    Args:
        text: of the page, in markdown.
        names: of tabs, by the heading of a column, where they are others.
    """
    return COLUMNS.sub(lambda match: "\n".join(_tabs(match, names)), text)


def _tabs(match: re.Match[str], names: Mapping[str, str]) -> Iterator[str]:
    heads = re.findall(r"<th[^>]*>(.*?)</th>", match["heads"])
    cells = re.findall(r"<td>\n(.*?)\n</td>", match["cells"], re.DOTALL)
    for head, cell in zip(heads, cells, strict=True):
        yield f'=== "{names.get(head, head)}"\n'
        yield from (f"    {line}".rstrip() for line in cell.strip().splitlines())
        yield ""


# ---- notebooks and the reference


def notebook(path: Path) -> dict[str, str | bytes]:
    """A page of a notebook's cells and their outputs, its pictures, and itself."""
    made: dict[str, str | bytes] = {}
    name = path.stem
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            place = f"tutorials/{name}.md"
            made |= linked(source, place)
            parts.append(relinked(source, place))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                picture = f"{name}-{len(parts)}.png"
                made[f"tutorials/{picture}"] = b64decode(data["image/png"])
                parts.append(f"![What the cell draws]({picture})")
            elif text := "".join(data["text/plain"]).rstrip():
                parts.append(f"```text\n{text}\n```")
    download = f"[Download the notebook]({path.name})"
    first, _, rest = parts[0].partition("\n")
    text = "\n\n".join([first, download, rest.strip(), *parts[1:]])
    made[f"tutorials/{path.name}"] = path.read_bytes()
    return made | {f"tutorials/{name}.md": text + "\n"}


def reference() -> dict[str, str | bytes]:
    """Pages that mkdocstrings fills from docstrings."""
    tree = ast.parse((ROOT / "src/paripassu/__init__.py").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    public = [x for x in names if not x.startswith("_")]
    functions = [x for x in public if x.islower()]
    errors = [x for x in public if x.endswith(("Error", "NotEquivalent"))]
    data = [x for x in public if x not in (*functions, *errors)]
    parts = ["# The package\n\n[From Python](../python.md) has an example of each.\n"]
    for title, group in (
        ("Functions", functions),
        ("What they take and give", data),
        ("Exceptions", errors),
    ):
        parts.append(f"## {title}\n")
        parts += [
            f"::: paripassu.{name}\n    options:\n      heading_level: 3\n"
            for name in group
        ]
    made: dict[str, str | bytes] = {"reference/index.md": "\n".join(parts)}
    for name, (module, title) in MODULES.items():
        made[f"reference/{name}.md"] = f"# {title}\n\n`{module}`\n\n::: {module}\n"
    return made
