"""How far two models may be apart: every bound of a check, and why it is that."""

from __future__ import annotations

import math

import numpy as np

EPS64, EPS32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)

# An error may be this many times what one ulp at its inputs does to the left model:
# kernels sum in other orders, while the control only moves their inputs.
CONTROLS = 64
# The same in eps, at least: where the control happens to round to nothing.
FLOOR = 64
# In float64, a constant or a function that rounds to float32: a layer in which such a
# place was found and measured may be so far off, and the outputs so many times what
# moving those places by what they round does to them.
ROUNDED = 4 * EPS32
ROUNDINGS = 8
# Weights of float32 that were carried through other arithmetic, a product or a sum.
WEIGHT = 2 * EPS32
# A model made anew in float64, beside itself in float32: far more than rounding, unless
# the model is chaotic; far less than another model.
REMADE = 1e-2
# Running statistics after one step: means of a batch, summed in another order.
STATISTICS = 1e-9
# Running statistics that did not move at all: the same bits but for a cast.
UNMOVED = 1e-12
# The factor n / (n - 1) between variances: the same for every channel.
SAME_FACTOR = 1e-6
# Of a block's largest gradient: what cancels to less is rounding.
CANCELLED = 1e-12
# Values that round alike are far closer in float64.
ALIKE = 1e-9
# A function found by trying: TensorFlow's GELU of float64 has constants of float32.
GUESSED = 1e-7
# The same of a function that computes in float32, in the model of float64.
GUESSED_32 = 2e-6
# A weight on which a mistake was tried: float32's rounding, far below what it does.
SAME_WEIGHT = 1e-6
# A correlation below it is that of weights drawn anew.
UNRELATED = 0.5


def allow(control: float, eps: float) -> float:
    """The bound of an error where one ulp does `control` to the left model."""
    return max(CONTROLS * control if math.isfinite(control) else 0.0, FLOOR * eps)


# Layers that agree in float32 with the right weights, but not with others of a layer.
AGREEING = 1e-3
# Ways to pair that are tried by copying the weights and running both models.
TRIES = 24
