"""Pari passu: the same network in several frameworks, proven equal; and checked ports.

`docs/python.md` shows every name. Each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paripassu.core.version import __version__

if TYPE_CHECKING:
    from paripassu.ablation.ablate import ablate
    from paripassu.analysis.ablation.attribution import Ablation
    from paripassu.analysis.schema import Comparison, Proof
    from paripassu.analysis.study.results import Study
    from paripassu.conversion.convert import Conversion, convert
    from paripassu.core.errors import (
        ConversionError,
        NotebookError,
        PariPassuError,
        UserError,
        WorkerError,
    )
    from paripassu.core.recipe import Recipe
    from paripassu.core.recipe import load as load_recipe
    from paripassu.core.record import RunRecord
    from paripassu.port_check.check import NotEquivalent, assert_equivalent, check
    from paripassu.port_check.optimizer import check_optimizer
    from paripassu.port_check.optimizer_verdict import OptimizerChecked
    from paripassu.port_check.record import Recorded, record
    from paripassu.port_check.results import Checked
    from paripassu.prediction.predict import Prediction, predict
    from paripassu.processes.conditions import Conditions
    from paripassu.processes.on_ray import OnRay
    from paripassu.proof.verify import verify
    from paripassu.studies.plan_file import read as load_study
    from paripassu.studies.study import study
    from paripassu.training.compare import compare
    from paripassu.training.train import train

# Each public name, and where it is.
_PLACES = {
    "Ablation": "analysis.ablation.attribution",
    "Checked": "port_check.results",
    "Comparison": "analysis.schema",
    "Conditions": "processes.conditions",
    "Conversion": "conversion.convert",
    "ConversionError": "core.errors",
    "NotEquivalent": "port_check.check",
    "NotebookError": "core.errors",
    "OnRay": "processes.on_ray",
    "OptimizerChecked": "port_check.optimizer_verdict",
    "PariPassuError": "core.errors",
    "Prediction": "prediction.predict",
    "Proof": "analysis.schema",
    "Recipe": "core.recipe",
    "Recorded": "port_check.record",
    "RunRecord": "core.record",
    "Study": "analysis.study.results",
    "UserError": "core.errors",
    "WorkerError": "core.errors",
    "ablate": "ablation.ablate",
    "assert_equivalent": "port_check.check",
    "check": "port_check.check",
    "check_optimizer": "port_check.optimizer",
    "compare": "training.compare",
    "convert": "conversion.convert",
    "load_recipe": "core.recipe",
    "load_study": "studies.plan_file",
    "predict": "prediction.predict",
    "record": "port_check.record",
    "study": "studies.study",
    "train": "training.train",
    "verify": "proof.verify",
}
_OTHER_NAMES = {"load_recipe": "load", "load_study": "read"}

__all__ = [
    "Ablation",
    "Checked",
    "Comparison",
    "Conditions",
    "Conversion",
    "ConversionError",
    "NotEquivalent",
    "NotebookError",
    "OnRay",
    "OptimizerChecked",
    "PariPassuError",
    "Prediction",
    "Proof",
    "Recipe",
    "Recorded",
    "RunRecord",
    "Study",
    "UserError",
    "WorkerError",
    "__version__",
    "ablate",
    "assert_equivalent",
    "check",
    "check_optimizer",
    "compare",
    "convert",
    "load_recipe",
    "load_study",
    "predict",
    "record",
    "study",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A public name, imported now and kept."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{place}")
    found = globals()[name] = getattr(module, _OTHER_NAMES.get(name, name))
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
