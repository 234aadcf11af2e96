"""What the benchmarks measure in JAX alone, in its own words."""

from __future__ import annotations

from typing import Any

# For choose.py. The names that a lesson uses the framework and its libraries by.
DISTRIBUTIONS = ["jax", "flax", "optax", "orbax-checkpoint"]
ROOTS = {"jax", "nnx", "optax", "ocp", "network", "optimizer", "checkpointer"}
PARTS = {
    "imports": "import jax, numpy\nfrom flax import nnx\n"
    "from paripassu.frameworks.jax.lesson import Network",
    "build": "n = Network(rngs=nnx.Rngs(0))\nn.eval()\n"
    "x = numpy.zeros((1, 28, 28, 1), 'float32')\n"
    "answer = nnx.jit(lambda n, x: n(x))\nnumpy.asarray(answer(n, x))",
    "answer": "numpy.asarray(answer(n, x))",
}

# Each writes into the current folder, and prints what it wrote.
FORMATS = {
    "Orbax checkpoint, folder": "from paripassu.frameworks.jax import lesson\n"
    "lesson.save(n, 'a')",
    "Flax, .msgpack": "from flax import serialization\n"
    "state = nnx.to_pure_dict(nnx.state(n, nnx.Param))\n"
    "open('a.msgpack', 'wb').write(serialization.msgpack_serialize(state))",
    "exported program, StableHLO": "from jax import export\n"
    "made = export.export(jax.jit(lambda x: n(x)))(x)\n"
    "open('a.stablehlo', 'wb').write(made.serialize())",
}

# A picture of 27 x 27 is given to a network for 28 x 28.
MISTAKE = "n(numpy.zeros((1, 27, 27, 1), 'float32'))"

# For speedups.py: what is said of each.
VARIANTS = {
    "as it is": "as it is",
    "own convolution": "without: convolutions as matrix products, `nnx.Conv` instead",
    "own dropout": "without: masks of bytes, `nnx.Dropout` instead",
    "own pool": "without: pools by slices, `nnx.max_pool` instead",
    "allocator": "without: memory kept by the allocator, glibc's defaults instead",
}


def prepare(_variant: str) -> None:
    """Change what must be changed before a trainer is made: nothing."""


def change(variant: str, trainer: Any) -> None:
    """Change a trainer of JAX."""
    import jax
    from flax import nnx

    from paripassu.frameworks.jax import lesson, recipes

    for name, layer in list(vars(trainer.network).items()):
        if variant == "own pool" and layer is recipes.max_pool:
            setattr(trainer.network, name, lesson.max_pool)
        elif variant == "own convolution" and isinstance(layer, nnx.Conv):
            layer.conv_general_dilated = jax.lax.conv_general_dilated
        elif variant == "own dropout" and isinstance(layer, nnx.Dropout):
            layer.__class__ = nnx.Dropout
