"""The one table of frameworks: what can be said of each without importing it.

A framework is a package with the modules of `contract`. Those in this folder
are listed in `BUILT_IN`; any other installed package adds its own by an entry
point in the group `paripassu.frameworks` that names a `Framework`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paripassu.core.errors import UserError, did_you_mean
from paripassu.core.networks import NETWORKS, OWN
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, TwinStep
from paripassu.core.version import from_repository
from paripassu.frameworks.contract import (
    BenchmarkModule,
    FaultsModule,
    FilesModule,
    ScriptModule,
    Trainer,
    TrainerModule,
    Twin,
    TwinModule,
)

GROUP = "paripassu.frameworks"


@dataclass(frozen=True)
class Framework:
    """A framework, as far as it is known before it is imported.

    Attributes:
        name: what users type, and what records hold.
        title: the name as its makers write it.
        package: where the modules of `contract` are.
        import_roots: what its users import; it is there if the first one is.
        distributions: whose version counts, whichever is there.
        suffixes: of its own model files; the first is the one written.
        extra: the extra of `paripassu` that installs it; "" for none.
        aliases: other names that users type.
        by_default: whether commands take it where none is named.
        needless: what its libraries import where it is installed, and can do
            without; it stays out, which saves a quarter of TensorFlow's start.
    """

    name: str
    title: str
    package: str
    import_roots: tuple[str, ...]
    distributions: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    extra: str = ""
    aliases: tuple[str, ...] = ()
    by_default: bool = True
    needless: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its modules are.

        Raises:
            UserError: the package is not there.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"the package {self.package} of {self.title} is missing."
            )
        return Path(next(iter(spec.submodule_search_locations)))

    @property
    def version(self) -> str | None:
        """The installed version, None if there is none."""
        return next(iter(self.versions.values()), None)

    @property
    def versions(self) -> dict[str, str]:
        """Of whatever is installed of its distributions and import roots."""
        found = {}
        for name in dict.fromkeys((*self.distributions, *self.import_roots)):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        return found

    @property
    def problem(self) -> str | None:
        """Why it can't be used, and what to type; None if it can."""
        if importlib.util.find_spec(self.import_roots[0]) is not None:
            return None
        wanted = (
            f"'{from_repository(self.extra)}'"
            if self.extra
            else self.distributions[0]
        )
        return f"{self.title} is not installed. Type: pip install {wanted}"

    @property
    def trains(self) -> bool:
        """Whether it trains; the reference only proves."""
        return self.has("trainer")

    @property
    def networks(self) -> set[str]:
        """The named networks that it has; the reference computes any."""
        if not self.has("lesson"):
            return set(NETWORKS)
        files = (self.folder / "networks").glob("[a-z]*.py")
        return {"article", *(file.stem.replace("_", "-") for file in files)}

    @property
    def takes_layers(self) -> bool:
        """Whether it makes any network of a recipe's own layers."""
        return not self.has("lesson") or self.has("layers")

    def has(self, module: str) -> bool:
        """Whether its folder has one of `contract.MODULES`."""
        return (self.folder / f"{module}.py").exists()

    def text(self, file: str) -> str | None:
        """The text of a file in its folder, such as `lesson.py`; None: none."""
        path = self.folder / file
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def version_in(self, versions: Mapping[str, str]) -> str | None:
        """Its version among those of a record, which have libraries' names."""
        libraries = (*self.import_roots, *self.distributions)
        return next((versions[x] for x in libraries if x in versions), None)

    def module(self, name: str) -> Any:
        """Import one of its modules; later calls find it imported."""
        with _without(self.needless):
            return importlib.import_module(f"{self.package}.{name}")

    @property
    def files(self) -> FilesModule:
        """What writes and reads its own files."""
        return self.module("files")

    @property
    def faults(self) -> FaultsModule:
        """Its seeded faults."""
        return self.module("faults")

    @property
    def benchmark(self) -> BenchmarkModule:
        """Its work in other styles."""
        return self.module("benchmark")

    def check(self, recipe: Recipe, *, trains: bool = True) -> None:
        """Check that it is there and can run a recipe, without importing it.

        Args:
            recipe: any.
            trains: whether a training is wanted; the reference only proves.

        Raises:
            UserError: it is not installed, does not have the recipe's network,
                or does not train.
        """
        if problem := self.problem:
            raise UserError(problem)
        if trains and not self.trains:
            raise UserError(
                f"{self.title} is the reference for proofs and trains nothing. "
                f"Expected one of {', '.join(FRAMEWORKS)}."
            )
        if recipe.network == OWN and self.takes_layers:
            return
        if recipe.network not in self.networks:
            raise UserError(
                f"recipe {recipe.name!r} cannot run in {self.title}: it has no "
                f"network {recipe.network!r}, but "
                f"{', '.join(sorted(self.networks))}."
            )

    def code(self, recipe: Recipe) -> str:
        """A recipe as a script that imports nothing of ours.

        Raises:
            UserError: its folder has no `script.py`, or that has no words for
                what the recipe asks.
        """
        if not self.has("script"):
            names = [x.name for x in FRAMEWORKS.values() if x.has("script")]
            raise UserError(
                f"{self.title} has no script.py, which would write the code. "
                f"Expected one of {', '.join(names)}."
            )
        module: ScriptModule = self.module("script")
        return module.code(recipe)

    def make_trainer(self, recipe: Recipe, **options: Any) -> Trainer:
        """Build the recipe's network: see `Trainer` for the options."""
        module: TrainerModule = self.module("trainer")
        return module.Trainer(recipe, **options)

    def make_twin(self, recipe: Recipe, **options: Any) -> Twin:
        """Build the recipe's network step by step: see `Twin`."""
        module: TwinModule = self.module("twin")
        return module.Twin(recipe, **options)

    def trace(
        self, recipe: Recipe, *, steps: Sequence[TwinStep], **options: Any
    ) -> Arrays:
        """What the twin computes in the first steps: named arrays.

        For step s, counted from 0: `s.activation.<layer>` as the layer leaves
        it, `s.loss`, `s.gradient.<weight>`, and `s.weight.<weight>` after the
        optimizer's step; and `logits` of the first images before all steps,
        dropout off. All steps belong to the first epoch.

        Args:
            recipe: its precision is the one to compute in.
            steps: images, labels and masks of each.
            options: `weights` to start from, canonical; `threads`; `device`.
        """
        twin = self.make_twin(recipe, **options)
        arrays: Arrays = {"logits": twin.logits(steps[0].images)}
        for number, step in enumerate(steps):
            found = twin.step(step)
            found |= {
                name: array
                for name, array in twin.state().items()
                if name.startswith("weight.")
            }
            arrays |= {f"{number}.{name}": x for name, x in found.items()}
        return arrays


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Modules as if not installed; what is imported already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


REFERENCE = Framework(
    "numpy", "NumPy", "paripassu.reference", ("numpy",), ("numpy",)
)
BUILT_IN = (
    Framework(
        name="pytorch",
        title="PyTorch",
        package="paripassu.frameworks.pytorch",
        import_roots=("torch",),
        distributions=("torch",),
        suffixes=(".pt", ".pth"),
        extra="pytorch",
        aliases=("torch", "pt"),
    ),
    Framework(
        name="tensorflow",
        title="TensorFlow",
        package="paripassu.frameworks.tensorflow",
        import_roots=("tensorflow", "keras"),
        distributions=("tensorflow", "tensorflow-cpu"),
        suffixes=(".keras",),
        extra="tensorflow",
        aliases=("tf", "keras"),
        needless=("jax", "matplotlib"),
    ),
    Framework(
        name="jax",
        title="JAX",
        package="paripassu.frameworks.jax",
        import_roots=("jax", "flax", "optax"),
        distributions=("jax", "jaxlib"),
        suffixes=(".msgpack",),
        extra="jax",
        aliases=("flax",),
        by_default=False,
    ),
)


class _Frameworks(Mapping[str, Framework]):
    """By name: those built in, and those of other packages, once one asks.

    Not before: such a package may be what imports this module.
    """

    @functools.cached_property
    def _found(self) -> dict[str, Framework]:
        found = {framework.name: framework for framework in BUILT_IN}
        for entry in importlib.metadata.entry_points(group=GROUP):
            try:
                framework: Framework = entry.load()
            except Exception as error:  # whatever another package may raise
                warnings.warn(
                    f"the framework {entry.name} is left out: {entry.value} "
                    f"cannot be imported ({error}). Repair or uninstall it.",
                    stacklevel=2,
                )
            else:
                found.setdefault(framework.name, framework)
        return found

    def __getitem__(self, name: str) -> Framework:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


FRAMEWORKS: Mapping[str, Framework] = _Frameworks()


def asked_by_default() -> list[Framework]:
    """Those that commands take where none is named."""
    return [x for x in FRAMEWORKS.values() if x.by_default]


def first_installed() -> str:
    """The first framework that is installed; the first of all where none is."""
    installed = [name for name, x in FRAMEWORKS.items() if not x.problem]
    return next(iter(installed or FRAMEWORKS))


def find(name: str) -> Framework:
    """The framework of that name, or of one of its aliases, in any case.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    wanted = name.strip().lower()
    if wanted == REFERENCE.name:
        return REFERENCE
    names = {
        alias: x for x in FRAMEWORKS.values() for alias in (x.name, *x.aliases)
    }
    if wanted in names:
        return names[wanted]
    raise UserError(
        f"no framework {name!r}.{did_you_mean(wanted, names)} "
        f"Known: {', '.join(FRAMEWORKS)}."
    )


def of_suffix(suffix: str) -> Framework | None:
    """The framework whose model files end so; None: nobody's."""
    for framework in FRAMEWORKS.values():
        if suffix in framework.suffixes:
            return framework
    return None


def title_of(name: str) -> str:
    """How a framework's makers write its name, as far as it is known."""
    return FRAMEWORKS[name].title if name in FRAMEWORKS else name.title()
