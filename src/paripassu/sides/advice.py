"""What to write in each framework: texts by cause, and how its optimizers are spelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Advice:
    """A side's words for what a check finds.

    Attributes:
        title: of the framework.
        causes: what to write, by the key of a cause.
        settings: an optimizer's settings that it spells in its own way.
        missing: settings that its optimizers lack, and what to do instead.
        clips: what to write before a step to clip, where no optimizer does.
        subclasses: the module of ours that has other forms of its optimizers.
        schedule: what falls by a factor and counts steps, where it has that.
    """

    title: str
    causes: Mapping[str, str]
    settings: Mapping[str, str]
    subclasses: str
    missing: Mapping[str, str] = field(default_factory=dict)
    clips: Mapping[str, str] = field(default_factory=dict)
    schedule: str = ""


EPSILON_ROOT = (
    "eps_root, which optax adds under the root. Write eps_root=0.0 there, or "
)
KERAS = Advice(
    title="Keras",
    causes={
        "bias-missing": "use_bias=True",
        "gelu-form": "keras.activations.gelu(x, approximate=...)",
        "reset-after": "reset_after=True (PyTorch's GRU resets after the product)",
        "frozen": "trainable=True",
        "running-momentum": "momentum={kept:.6g}",
        "slopes": "PReLU(shared_axes=[1, 2]) has one slope a channel, as nn.PReLU(C); "
        "without shared_axes it has one for each place",
        "same-padding": "'same' pads the end more than the beginning where the stride "
        "does not fit; write keras.layers.ZeroPadding2D with the left's padding, then "
        "padding='valid'",
    },
    settings={
        "beta1": "beta_1",
        "beta2": "beta_2",
        "accumulator": "initial_accumulator_value",
        "clip_norm": "clipnorm",
        "clip_global_norm": "global_clipnorm",
        "clip_value": "clipvalue",
    },
    subclasses="paripassu.frameworks.tensorflow.optimizers",
    schedule="keras.optimizers.schedules.ExponentialDecay",
    missing={
        "epsilon_root": f"{EPSILON_ROOT}paripassu.frameworks.tensorflow.optimizers."
        "Adam(..., epsilon_outside=True, epsilon_root=...)",
        "dampening": "dampening. Keep v = momentum * v + (1 - dampening) * g in a "
        "subclass",
        "learning_rate_decay": "lr_decay. Give "
        "keras.optimizers.schedules.InverseTimeDecay(rate, 1, lr_decay) as the "
        "learning rate",
        "maximize": "maximize. Turn the sign of the loss",
        "momentum_decay": "momentum_decay: its Nadam is PyTorch's NAdam with "
        "momentum_decay=1.0. Write that on the other side, or a subclass here",
    },
)
PYTORCH = Advice(
    title="PyTorch",
    causes={
        "bias-missing": "bias=True",
        "gelu-form": "nn.GELU(approximate='none' or 'tanh')",
        "frozen": "requires_grad_(True)",
        "running-momentum": "momentum={new:.6g} (the share of the new)",
    },
    settings={
        "learning_rate": "lr",
        "epsilon": "eps",
        "accumulator": "initial_accumulator_value",
        "learning_rate_decay": "lr_decay",
    },
    subclasses="paripassu.frameworks.pytorch.optimizers",
    missing={
        "epsilon_root": f"{EPSILON_ROOT}paripassu.frameworks.pytorch.optimizers."
        "AdamRoot(..., epsilon_root=...)",
    },
    clips={
        "clip_norm": "for p in parameters: p.grad.mul_(c / p.grad.norm().clamp(min=c))",
        "clip_global_norm": "torch.nn.utils.clip_grad_norm_(parameters, c)",
        "clip_value": "torch.nn.utils.clip_grad_value_(parameters, c)",
    },
)
OPTAX = Advice(
    title="optax",
    causes={},
    settings={
        "beta1": "b1",
        "beta2": "b2",
        "epsilon": "eps",
        "epsilon_root": "eps_root",
        "accumulator": "initial_accumulator_value",
    },
    subclasses="paripassu.frameworks.jax.optimizers",
    schedule="optax.exponential_decay",
    missing={
        "dampening": "dampening. Scale the gradient before optax.trace, but for the "
        "first step",
        "learning_rate_decay": "lr_decay. Give lambda n: rate / (1 + lr_decay * n) as "
        "the learning rate",
        "maximize": "maximize. Turn the sign of the loss, or optax.scale(-1.0) before "
        "it in a chain",
        "momentum_decay": "momentum_decay: its nadam is PyTorch's NAdam with one so "
        "large that its momentum is the same in each step. Write that on the other "
        "side",
        "clip_norm": "clipping by the norm of each gradient. Scale them before",
    },
    clips={
        "clip_global_norm": "optax.clip_by_global_norm({})",
        "clip_value": "optax.clip({})",
    },
)


def advise(cause: str, **values: Any) -> str:
    """What to write in each framework that has a word for a cause; "" for none."""
    return "; ".join(
        f"{x.title}: {x.causes[cause].format(**values)}"
        for x in (KERAS, PYTORCH)
        if cause in x.causes
    )
