"""The ladder of the proof: what is compared on each rung, how closely, and why.

Differences are relative to the size of the array, so that one bound serves arrays of
any scale. In float64 and for activations, losses and rates it is the largest
difference over the largest value, `max|a - b| / max|a|`: no element is excused by a
mean. In float32, gradients, optimizer slots and weights are compared by their norms,
`|a - b| / |a|`: see `FLIPS`.
"""

from __future__ import annotations

from dataclasses import dataclass

EPS: dict[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23}

FLIPS = (
    "a value that rounding moves across a tie flips one ReLU or one maximum and with "
    "it a whole term of a gradient: one element may be far off, the norm may not"
)


@dataclass(frozen=True)
class Bound:
    """The largest relative difference that rounding explains."""

    size: float
    reason: str
    norm: bool = False  # compare by norms, not by the largest element


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; `bounds` by kind of quantity and precision."""

    number: int
    name: str
    claim: str
    bounds: dict[str, dict[str, Bound]]


EQUAL = Bound(0.0, "bytes of a pure function of seed and position: nothing rounds")

LADDER = (
    Rung(
        0,
        "draws",
        "initial weights, batch order, dropout masks, images and labels are the same "
        "bytes in all frameworks, and so is every batch that a trainer feeds",
        {"draws": {"float64": EQUAL}},
    ),
    Rung(
        1,
        "forward",
        "every activation, layer by layer, dropout off and on; from initial, moved and "
        "amplified weights",
        {
            kind: {
                "float64": Bound(1e-12, "sums of up to 9,216 products, eps 2.2e-16"),
                "float32": Bound(1e-5, "the same sums, eps 1.2e-7: 84 eps"),
            }
            for kind in ("evaluation", "logits", "activation")
        },
    ),
    Rung(
        2,
        "loss and gradients",
        "the loss and the gradient of every weight",
        {
            "loss": {
                "float64": Bound(1e-12, "a mean of logits that agree to 1e-12"),
                "float32": Bound(1e-5, "a mean of logits that agree to 84 eps"),
            },
            "gradient": {
                "float64": Bound(
                    1e-10, "sums over images and pixels, with cancellation"
                ),
                "float32": Bound(1e-3, FLIPS, norm=True),
            },
        },
    ),
    Rung(
        3,
        "one step",
        "weights and the optimizer's state after one step",
        {
            "slot": {
                "float64": Bound(1e-10, "squares of gradients that agree to 1e-10"),
                "float32": Bound(2e-3, "squares of gradients; " + FLIPS, norm=True),
            },
            "weight": {
                "float64": Bound(1e-10, "one update by such gradients"),
                "float32": Bound(1e-4, "one update by such gradients", norm=True),
            },
        },
    ),
    Rung(
        4,
        "schedule",
        "the learning rate of every step of the whole recipe",
        {
            "rate": {
                "float64": Bound(
                    1e-12, "a power, or a product of as many factors: at least n eps"
                ),
            }
        },
    ),
    Rung(
        5,
        "trajectory",
        "the loss of every step, dropout on, and the weights at the end; what a "
        "trainer's own loop reports and ends at",
        {
            "trained": {
                "float64": Bound(1e-9, "some twenty steps, as for any other"),
            },
            "later": {
                "float64": Bound(1e-9, "what one step may differ by, grown by others"),
            },
        },
    ),
    Rung(
        6,
        "one-ulp control",
        "in float32 the frameworks part no faster than one framework parts from "
        "itself when a kernel is moved by a unit in the last place",
        {},
    ),
    Rung(
        7,
        "accuracy",
        "paired over seeds, the difference lies within the margin (two one-sided t "
        "tests)",
        {},
    ),
)

RUNG_OF = {kind: rung.number for rung in LADDER for kind in rung.bounds}

# Rung 5. Some recipes enlarge rounding step by step: without shuffling and with a
# second softmax, an ulp in one kernel has grown to 1e-9 of the loss after 37 steps.
# Where a trajectory leaves its bound, the reference is trained again with one kernel
# moved by an ulp of float64, and the frameworks may be farther from it than it is from
# itself by this factor: their rounding enters at every step and in every array, the
# control's once.
TRAJECTORY_CONTROL = 1e3

# Rung 6. Trainings part when rounding flips a first ReLU or maximum, and when that is,
# is luck: waiting times of one rate often differ by a factor of two or three. So there
# are several controls, and a pair may part four times as early as the first of them.
CONTROL_SIZE = 10.0
CONTROL_TIME = 4.0
CONTROL_FLOOR = 8 * EPS["float32"]  # losses that agree to 8 eps have not parted


def rate_bound(steps: int) -> float:
    """Of the learning rates of so many steps: products of as many factors round so."""
    return max(bound_of("rate", "float64").size, steps * EPS["float64"])


def bound_of(kind: str, precision: str) -> Bound:
    """The bound of a kind of quantity, such as `"gradient"`."""
    return LADDER[RUNG_OF[kind]].bounds[kind][precision]
