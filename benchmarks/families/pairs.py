"""Pairs of a PyTorch and a Keras model, with mistakes that are known.

A pair has `left()`, which makes the PyTorch model, `right(**mistakes)`, which makes the
Keras model, with a mistake where one is given, and `inputs` of the left model. `truth`
is what remains after the weights have been copied: "equal", or the keys of the causes
that the two libraries really have, sorted. A fault is a mistake, the places that a
reader would accept and the key of its cause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch


def family(
    name: str,
    left: Callable[[], torch.nn.Module],
    right: Callable[..., keras.Model],
    inputs: Any,
    *faults: dict[str, Any],
    truth: str | list[str] = "equal",
) -> dict[str, Any]:
    """A pair with its faults, as benchmarks/ports.py reads it."""
    return {
        "name": name,
        "left": left,
        "right": right,
        "inputs": inputs,
        "truth": truth,
        "faults": list(faults),
    }


def made(model: Callable[..., keras.Model], **given: Any) -> Callable[..., keras.Model]:
    """Make a Keras model, with other arguments or with layers' attributes changed.

    A mistake is an argument of the model, or `change`: triples of a part of a layer's
    path, the attribute, and its value.
    """

    def build(
        change: tuple[tuple[str, str, Any], ...] = (), **mistakes: Any
    ) -> keras.Model:
        result = model(**(given | mistakes))
        layers = result._flatten_layers(include_self=False)
        for where, attribute, value in change:
            fitting = [
                x
                for x in layers
                if where in (x.path or x.name) and hasattr(x, attribute)
            ]
            if not fitting:
                raise ValueError(f"no layer {where} with {attribute}")
            for layer in fitting:
                setattr(layer, attribute, value)
        return result

    return build


def fault(name: str, cause: str, places: list[str], **mistakes: Any) -> dict[str, Any]:
    """A mistake in the right model."""
    return {"name": name, "cause": cause, "places": places, "mistakes": mistakes}


def setting(layer: str, cause: str, value: Any, *places: str) -> dict[str, Any]:
    """Another value of an attribute, of which the cause has the name."""
    return fault(
        f"{cause} of {layer}", cause, [layer, *places], change=((layer, cause, value),)
    )


def activation(layer: str, value: Any, *places: str) -> dict[str, Any]:
    """Another activation in a dense layer, another form of GELU, or none."""
    function = keras.activations.get(value)
    causes = {
        keras.activations.gelu: "gelu-form",
        gelu_tanh: "gelu-form",
        keras.activations.linear: "activation-missing",
    }
    return fault(
        f"activation of {layer}",
        causes.get(function, "activation-kind"),
        [layer, *places],
        change=((layer, "activation", function),),
    )


def gelu_tanh(x: Any) -> Any:
    """GELU by its tanh form."""
    return keras.activations.gelu(x, approximate=True)
