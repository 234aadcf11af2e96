"""Do two optimizers take the same steps, in a process of their own or here?"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.arguments import check_target
from paripassu.port_check.optimizer_verdict import (
    OptimizerChecked,
    compare_optimizers,
    draw_trial,
)
from paripassu.port_check.requests import CheckOptimizerRequest
from paripassu.processes.launch import work
from paripassu.sides.registry import side_of_optimizer

STEPS = 12
EXAMPLE = "torch.optim:AdamW, keras.optimizers:AdamW or training.py:make_optimizer"


def check_optimizer_sources(request: CheckOptimizerRequest) -> OptimizerChecked:
    """Step two optimizers that are named by where they are, in a process of their own.

    Raises:
        UserError: something that was given cannot be used; the message says what.
        WorkerError: the user's code crashed the process.
    """
    check_target(request.left, request.left_args, "left", EXAMPLE)
    check_target(request.right, request.right_args, "right", EXAMPLE)
    answer = work(request, plain=True)
    return OptimizerChecked.model_validate(answer["result"])


def check_optimizer(left: Any, right: Any, *, steps: int = STEPS) -> OptimizerChecked:
    """Step two optimizers on the same gradients, in this process.

    Args:
        left, right: of each framework, or of one: a class of optimizers; a Keras
            optimizer or an `optax.GradientTransformation`; a function of a list of
            parameters that makes a `torch.optim.Optimizer`, alone or with its
            scheduler; a function of nothing that makes one of the others.
        steps: how many; float64.

    Returns:
        What was found: `.equal`, `.causes`, `.write`.

    Raises:
        UserError: one of them makes no optimizer, or raises.
    """
    return examine((left, "left"), (right, "right"), steps=steps)


def check_request(request: CheckOptimizerRequest) -> OptimizerChecked:
    """Do what `paripassu check-optimizer` asks."""
    left = _found(request.left, request.left_args, "left")
    right = _found(request.right, request.right_args, "right")
    return examine(left, right, steps=request.steps)


def _found(source: str, given: str | None, which: str) -> tuple[Any, str]:
    found = targets.attribute(source, which, EXAMPLE)
    args, kwargs = targets.parse_arguments(given, which)
    if (args or kwargs) and not callable(found):
        raise UserError(
            f"{which}: {source} is an object of type {type(found).__name__}, not a "
            f"function or a class, and takes no --{which}-args."
        )
    if args:
        raise UserError(
            f"--{which}-args: {given} is a list. An object of settings by name is "
            """expected: '{"lr": 0.001}'."""
        )
    if kwargs:
        try:
            inspect.signature(found).bind_partial(**kwargs)
        except TypeError as error:
            raise UserError(
                f"--{which}-args: {source} {error}. It takes "
                f"{', '.join(inspect.signature(found).parameters)}."
            ) from error
    return (functools.partial(found, **kwargs) if kwargs else found), source


def examine(
    left: tuple[Any, str], right: tuple[Any, str], *, steps: int
) -> OptimizerChecked:
    """Step both and compare.

    Args:
        left, right: what makes an optimizer, and how the user named it.
        steps: how many.

    Raises:
        UserError: one of them makes no optimizer, or raises.
    """
    parameters, gradients = draw_trial(steps=steps)
    rules, paths = [], []
    for found, source in (left, right):
        side = side_of_optimizer(found)
        if side is None:
            raise UserError(
                f"{source} is {_said(found)}. An optimizer "
                "is expected: a class of them; a Keras or optax optimizer; a function "
                "of parameters that makes a torch.optim.Optimizer, or of nothing that "
                "makes one of the others."
            )
        module = side.optimizer_module()
        rule, path = module.examine(found, source, parameters, gradients)
        rules.append(rule)
        paths.append(path)
    return compare_optimizers(
        rules[0], rules[1], paths[0], paths[1], parameters, gradients
    )


def _said(found: Any) -> str:
    if isinstance(found, type):
        return f"the class {found.__module__}.{found.__qualname__}"
    return f"an object of type {type(found).__name__}"
