"""Opens a file of Flax's as its user would: run as a script, on its own.

python trial.py MODEL RECIPE IMAGES OUT
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization

from paripassu.core.recipe import parse
from paripassu.frameworks.jax import recipes

if __name__ == "__main__":
    model, recipe, images, out = sys.argv[1:]
    experiment = parse(Path(recipe).read_text(encoding="utf-8"))
    recipes.set_precision(experiment)  # a float64 file wants float64 allowed
    network = recipes.make_network(experiment)
    content = serialization.msgpack_restore(Path(model).read_bytes())
    for name in ("params", "batch_stats"):
        nnx.update(network, jax.tree.map(jnp.asarray, content.get(name, {})))
    network.eval()
    np.save(out, network(jnp.asarray(np.load(images))))
