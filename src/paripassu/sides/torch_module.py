"""Opens any `torch.nn.Module`: its weights, calls and gradients as NumPy arrays."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from paripassu.core.errors import UserError
from paripassu.core.files import replacing
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides import chance, observing, torch_layers, torch_random
from paripassu.sides.contract import (
    ANY,
    Arrays,
    Blind,
    Block,
    Call,
    Declared,
    Draw,
    Drawing,
    Step,
    Watcher,
)
from paripassu.sides.observing import Observer, Part
from paripassu.sides.torch_made import Made, cached

UNNAMED = re.compile(r"input\d*")


class Probe:
    """See `paripassu.sides.contract.Probe`."""

    side = "pytorch"
    own_losses = ()

    def __init__(self, model: nn.Module):
        self.model = model
        self.seed = chance.SEED
        self.drawing: Drawing = "shared"
        self.draws: Sequence[Draw] = ()
        self.dtype = torch.get_default_dtype()  # where it has no weights
        self.names = {module: name for name, module in model.named_modules()}
        self.parts = self._find_parts()

    def _find_parts(self) -> dict[str, Part]:
        return observing.without_repeats(
            part
            for name, module in self.model.named_modules()
            for part in torch_layers.parts(name or "model", module)
        )

    def blocks(self) -> list[Block]:
        weights: list[Any] = [*self.model.parameters(), *self._made()]
        trainable = (x for x in weights if x.requires_grad)
        return observing.blocks_of(self.parts, trainable)

    def _made(self) -> list[Made]:
        holders = (x for part in self.parts.values() for x in part.holders)
        return [x for x in holders if isinstance(x, Made)]

    def write(self, name: str, weights: Arrays) -> None:
        self.parts[name].write(weights)

    def run(
        self,
        inputs: Arrays,
        watcher: Watcher,
        *,
        training: bool = False,
        sources: bool = False,
    ) -> Arrays:
        with torch.no_grad(), _kept(self.model), _mode(self.model, training):
            tensors = {name: self._tensor(x) for name, x in inputs.items()}
            known = list(tensors.values()) if sources else None
            watched = _Watched(self, watcher, known)
            with self._drawing(watched), watched:
                found = self._call(tensors)
            return {
                name: torch_layers.array_of(x)
                for name, x in watched.named(found).items()
            }

    def step(
        self, inputs: Arrays, cotangents: Arrays, *, training: bool = True
    ) -> Step:
        with _kept(self.model), _mode(self.model, training), cached():
            tensors = {name: self._tensor(x) for name, x in inputs.items()}
            for tensor in tensors.values():
                tensor.requires_grad_(tensor.is_floating_point())
            # A model may change what it is given in place, which no leaf allows.
            given = {name: x.clone() for name, x in tensors.items()}
            weights = [x for x in self.model.parameters() if x.requires_grad]
            watched = _Watched(self, Blind())
            with self._drawing(watched), watched:
                outputs = watched.named(self._call(given))
            total = sum(
                (_real(outputs[name]) * self._tensor(x)).sum()
                for name, x in cotangents.items()
            )
            made = {id(x): x.tensor() for x in self._made() if x.requires_grad}
            wanted = [
                *weights,
                *made.values(),
                *(x for x in tensors.values() if x.requires_grad),
            ]
            if isinstance(total, torch.Tensor) and total.requires_grad:
                found = list(torch.autograd.grad(total, wanted, allow_unused=True))
            else:
                found = [torch.zeros_like(x) for x in wanted]
            slopes = {
                id(tensor): torch_layers.array_of(
                    torch.zeros_like(tensor) if slope is None else slope
                )
                for tensor, slope in zip(wanted, found, strict=True)
            }
            slopes |= {key: slopes[id(x)] for key, x in made.items()}
            return Step(
                {name: torch_layers.array_of(x) for name, x in outputs.items()},
                {name: part.read(slopes) for name, part in self.parts.items()},
                {name: slopes[id(x)] for name, x in tensors.items() if id(x) in slopes},
                observing.statistics_of(self.parts),
            )

    def change_settings(
        self, name: str, settings: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        layer = {name: x for x, name in self.names.items()}.get(name)
        if layer is None:
            return None
        undo = observing.change_settings(layer, dict(settings), torch_layers.ATTRIBUTES)
        if undo is not None:
            self.parts = self._find_parts()
        return undo

    def set_dtype(self, dtype: str) -> Callable[[], None]:
        before = str(self.dtype).removeprefix("torch.")
        self.dtype = getattr(torch, dtype)
        self.model.to(self.dtype)
        self.parts = self._find_parts()

        def put_back() -> None:
            self.set_dtype(before)

        return put_back

    @contextlib.contextmanager
    def _drawing(self, watched: _Watched) -> Iterator[None]:
        """While the model computes; `draws` has what it drew, after it."""
        with torch_random.controlled(watched.draws):
            yield
        self.draws = tuple(watched.draws)

    def _tensor(self, array: Array) -> torch.Tensor:
        # Copied, as a model may change what it is given.
        tensor = torch.from_numpy(np.array(array))
        weights = [*self.model.parameters(), *self.model.buffers()]
        if weights:
            tensor = tensor.to(weights[0].device)
        if not tensor.is_floating_point():
            return tensor
        floats = (x.dtype for x in self.model.parameters() if x.is_floating_point())
        return tensor.to(next(floats, self.dtype))

    def _call(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        takes = declared_inputs(self.model)
        takes.pop(ANY, None)
        placed = [name for name, x in takes.items() if x.placed]
        if list(tensors) == placed[: len(tensors)]:
            return self.model(*tensors.values())
        if set(tensors) <= set(takes):
            return self.model(**tensors)
        if all(UNNAMED.fullmatch(name) for name in tensors) or len(takes) == 1 == len(
            tensors
        ):
            return self.model(*tensors.values())
        if len(takes) == 1:
            return self.model(dict(tensors))
        return self.model(**tensors)

    @property
    def float_type(self) -> str:
        """Of its weights, the least precise one."""
        found = {x.dtype for x in self.model.parameters() if x.is_floating_point()}
        types = sorted(found, key=lambda x: torch.finfo(x).eps, reverse=True)
        return str(types[0] if types else self.dtype).removeprefix("torch.")


def check_usable() -> None:
    """Nothing: PyTorch is usable where it is installed."""


def lines_noted() -> contextlib.AbstractContextManager[None]:
    """Nothing: a user's `forward` calls each layer."""
    return contextlib.nullcontext()


def is_built(_model: nn.Module) -> bool:
    """Whether it has its weights: always, in PyTorch."""
    return True


def build(model: nn.Module, inputs: Arrays) -> None:
    """Nothing: a module has its weights when it is made."""


def declared_inputs(model: nn.Module) -> dict[str, Declared]:
    """The arguments of its `forward`; a module says nothing of their shapes."""
    try:
        found = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return {}
    return observing.declared_arguments(found)


def has_channels_first(_model: nn.Module) -> bool:
    """Yes: PyTorch's layers do."""
    return True


def open_model(model: nn.Module, *_how_to_build: Any) -> Probe:
    """Open a module; another float type is set in place."""
    return Probe(model)


def own_copy(model: nn.Module) -> nn.Module:
    """A model of the same weights that may be changed."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserError(
            f"the PyTorch model cannot be copied ({type(error).__name__}: {error}), so "
            "it was not touched. Give a function that builds it."
        ) from error


@contextlib.contextmanager
def float_type_kept(model: nn.Module) -> Iterator[None]:
    """Leave a module in the float type in which it came."""
    before = {name: x.dtype for name, x in _weights(model)}
    try:
        yield
    finally:
        for name, tensor in _weights(model):
            tensor.data = tensor.data.to(before[name])


def _weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def save(model: nn.Module, path: Path) -> None:
    """Write a model's state, whole or not at all: .safetensors, else `torch.save`."""
    state = {name: x.detach().contiguous() for name, x in model.state_dict().items()}
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(state, temporary)
        else:
            torch.save(state, temporary)


class _Watched(Observer, TorchFunctionMode):
    """Tells a watcher of each layer's call, and of functions called between layers."""

    title = "PyTorch"

    def __init__(self, probe: Probe, watcher: Watcher, inputs: list[Any] | None = None):
        TorchFunctionMode.__init__(self)
        Observer.__init__(self, watcher, inputs)
        self.probe = probe
        self.draws = chance.Draws(self, probe.seed, probe.drawing)
        self.open: list[Call] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> Self:
        for module in torch_layers.leaves(self.probe.model):
            before = module.register_forward_pre_hook(self._before, with_kwargs=True)
            after = module.register_forward_hook(self._after)
            self.hooks += [before, after]
        for module in torch_layers.containers(self.probe.model):
            before = module.register_forward_pre_hook(self._open)
            after = module.register_forward_hook(self._close, always_call=True)
            self.hooks += [before, after]
        # In evaluation, the fast path of nn.TransformerEncoderLayer and
        # nn.MultiheadAttention would call no layer at all.
        self.fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self.fast)
        for hook in self.hooks:
            hook.remove()

    def is_tensor(self, value: Any) -> bool:
        """Of any type and layout."""
        return isinstance(value, torch.Tensor)

    def attention_inputs(self, tensors: list[Any]) -> list[Any]:
        """Given as query, key and value."""
        return [tensors[0], *tensors[2:3], *tensors[1:2]]

    def to_last(self, tensor: Any, spec: LayerSpec, layer: Any) -> Array:
        """An array with channels last, where the kind says that they are first."""
        array = torch_layers.array_of(tensor)
        if torch_layers.time_first(layer, array.ndim):
            return array.swapaxes(0, 1).copy()
        if torch_layers.channels_first(spec, array.ndim):
            return np.ascontiguousarray(np.moveaxis(array, 1, -1))
        return array.copy()

    def from_last(self, array: Array, spec: LayerSpec, layer: Any, like: Any) -> Any:
        """The other way round."""
        if torch_layers.time_first(layer, array.ndim):
            array = array.swapaxes(0, 1)
        elif torch_layers.channels_first(spec, array.ndim):
            array = np.moveaxis(array, -1, 1)
        fresh = torch.from_numpy(observing.contiguous(array))
        return fresh.to(device=like.device, dtype=like.dtype)

    def _open(self, module: nn.Module, _args: Any) -> None:
        self.inside.append(self.probe.names.get(module) or "model")

    def _close(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        if self.inside:
            self.inside.pop()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self.depth += 1
        if self.depth > 1:
            return None
        with torch._C.DisableTorchFunction():
            name = self.probe.names.get(module, type(module).__name__)
            spec = torch_layers.describe(module)
            if spec.kind == "attention":
                spec.settings["causal"] = _causal(kwargs.get("attn_mask"))
            call = self.begin(name or "model", str(module), spec, (args, kwargs))
            self.open.append(call)
            return self.enter(call, module, (args, kwargs))

    def _after(self, module: nn.Module, _args: Any, result: Any) -> Any:
        self.depth -= 1
        if self.depth:
            return None
        with torch._C.DisableTorchFunction():
            return self.leave(self.open.pop(), module, result)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        with self.draws.calling(name):
            return self._function(func, name, args, kwargs)

    def _function(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if self.depth or not self.tensors((args, kwargs)):
            return func(*args, **kwargs)
        if name in torch_layers.QUIET:
            return self.pass_on((args, kwargs), func(*args, **kwargs))
        spec, title, args, kwargs = torch_layers.function(name, args, kwargs)
        call = self.begin(title.partition("(")[0], title, spec, (args, kwargs))
        self.depth += 1
        try:
            with torch._C.DisableTorchFunction():
                # Before it computes: it may change its input in place.
                self.enter(call, None, (args, kwargs))
            result = func(*args, **kwargs)
        finally:
            self.depth -= 1
        if not self.tensors(result):
            return result
        with torch._C.DisableTorchFunction():
            return self.leave(call, None, result)


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """The same of a complex tensor: the sum of its real and its imaginary part."""
    return tensor.real + tensor.imag if tensor.is_complex() else tensor


def _causal(mask: Any) -> bool:
    """Whether a mask hides what comes later, and nothing else."""
    if mask is None or mask.ndim != 2:
        return False
    hidden = mask if mask.dtype == torch.bool else mask == -torch.inf
    return bool(torch.equal(hidden, torch.ones_like(hidden).triu(1)))


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Put buffers, such as running statistics, back to what they were."""
    buffers = [(x, x.clone()) for x in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextlib.contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode, as the model's own `train` and `eval` set it."""
    modes = [(module, module.training) for module in model.modules()]
    if training:
        model.train()
    else:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
