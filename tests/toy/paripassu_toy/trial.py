"""Opens a file as its user would: run as a script, in a fresh process.

python trial.py MODEL RECIPE IMAGES OUT
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from paripassu.core.recipe import parse
from paripassu.reference.twin import Twin
from paripassu_toy.weights import to_common

if __name__ == "__main__":
    model, path, images, out = sys.argv[1:]
    recipe = parse(Path(path).read_text(encoding="utf-8"))
    weights = to_common(recipe, load_file(model))
    twin = Twin(recipe, weights=weights, threads=1, device="cpu")
    last = recipe.architecture.layers[-1].name
    np.save(out, twin.evaluate(np.load(images))[last])
