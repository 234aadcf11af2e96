"""Weights that a PyTorch module makes of others: `weight_norm` and `spectral_norm`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

WEIGHT, SPECTRAL = "weight_norm", "spectral_norm"
PARAMETRIZATIONS = {
    parametrizations._WeightNorm: WEIGHT,
    parametrizations._SpectralNorm: SPECTRAL,
}
# The older ones make a weight in a hook before each call.
HOOKS = {
    weight_norm.__globals__["WeightNorm"]: WEIGHT,
    spectral_norm.__globals__["SpectralNorm"]: SPECTRAL,
}


class Made:
    """A weight as a module uses it; it is written so that it has given values.

    Args:
        module: the layer.
        name: of its weight.
        by: "weight_norm" (Salimans and Kingma 2016) or "spectral_norm" (Miyato et al.
            2018).
        hook: of the older functions; None: a parametrization.
    """

    def __init__(self, module: nn.Module, name: str, by: str, hook: Any = None):
        self.module, self.name, self.by, self.hook = module, name, by, hook
        self.shape = tuple(self.value().shape)

    @property
    def originals(self) -> dict[str, nn.Parameter]:
        """The parameters that it is made of, by their names in the module."""
        own = dict(self.module.named_parameters())
        if self.hook is None:
            start = f"parametrizations.{self.name}."
            return {key: x for key, x in own.items() if key.startswith(start)}
        ends = ("_g", "_v", "_orig")
        names = {f"{self.name}{end}" for end in ends} & own.keys()
        return {key: own[key] for key in sorted(names)}

    @property
    def requires_grad(self) -> bool:
        """Whether training changes it."""
        return any(x.requires_grad for x in self.originals.values())

    def tensor(self) -> torch.Tensor:
        """As the last call made it; of a parametrization, within `cached`."""
        found: torch.Tensor = getattr(self.module, self.name)
        return found

    def value(self) -> torch.Tensor:
        """As evaluation mode makes it, which changes nothing in the module."""
        with torch.no_grad(), _evaluating(self.module):
            if self.hook is None:
                return self.tensor()
            more = (False,) if self.by == SPECTRAL else ()
            found: torch.Tensor = self.hook.compute_weight(self.module, *more)
            return found

    def copy_(self, value: torch.Tensor) -> None:
        """Give what it is made of values of which this comes."""
        kept = [x for key, x in self.originals.items() if not key.endswith("_u")]
        if self.by == SPECTRAL:
            kept[0].copy_(value)
            if value.any():
                # It is divided by u.T W v, whose vectors training makes anew.
                found = self.value()
                _vector(self, "v").mul_((found * value).sum() / (value * value).sum())
            return
        dim = self.hook.dim if self.hook else self._list()[0].dim
        size, direction = kept
        norm = torch.norm_except_dim(value, 2, -1 if dim is None else dim)
        size.copy_(norm.reshape(size.shape))
        direction.copy_(torch.where(norm == 0, 1.0, value))  # any, where it is nought

    def _list(self) -> Any:
        found: Any = self.module.parametrizations
        return found[self.name]


def cached() -> contextlib.AbstractContextManager[None]:
    """While each parametrization makes its weight once."""
    return parametrize.cached()


def made_by(module: nn.Module) -> dict[str, Made]:
    """The weights of a module that are made, by their names."""
    found = {}
    for name, each in getattr(module, "parametrizations", {}).items():
        if by := _only_norm(each):
            found[name] = Made(module, name, by)
    hooks: list[Any] = [*module._forward_pre_hooks.values()]
    for hook in hooks:
        if older := HOOKS.get(type(hook)):
            found[hook.name] = Made(module, hook.name, older, hook)
    return found


def is_made(module: nn.Module) -> bool:
    """Whether all children of a module only make its weights."""
    inside = getattr(module, "parametrizations", None)
    return inside is not None and all(
        x is inside and all(map(_only_norm, x.values())) for x in module.children()
    )


def makes(module: nn.Module) -> bool:
    """Whether a module holds what a layer's weight is made of."""
    return isinstance(module, parametrize.ParametrizationList) and bool(
        _only_norm(module)
    )


def _only_norm(each: Any) -> str:
    return PARAMETRIZATIONS.get(type(each[0]), "") if len(each) == 1 else ""


def _vector(made: Made, name: str) -> torch.Tensor:
    holder = made.module if made.hook else made._list()[0]
    start = made.name if made.hook else ""
    found: torch.Tensor = getattr(holder, f"{start}_{name}")
    return found


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(x, x.training) for x in module.modules()]
    for x, _ in modes:
        x.training = False
    try:
        yield
    finally:
        for x, mode in modes:
            x.training = mode
