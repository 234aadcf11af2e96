"""Opens a safetensors file and asks the reference: run in a fresh process.

python trial.py MODEL RECIPE IMAGES OUT
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from paripassu.core.recipe import parse
from paripassu.reference.twin import forward

if __name__ == "__main__":
    model, path, images, out = sys.argv[1:]
    recipe = parse(Path(path).read_text(encoding="utf-8"))
    weights = {k: x.astype(np.float64) for k, x in load_file(model).items()}
    calls = forward(recipe.architecture, recipe, weights, np.load(images), None)
    np.save(out, calls[-1].y)
