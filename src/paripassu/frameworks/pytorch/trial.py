"""Opens a `state_dict` as its user would: run as a script, in a fresh process.

python trial.py MODEL RECIPE IMAGES OUT
"""

import sys
from pathlib import Path

import numpy as np
import torch

from paripassu.core.recipe import parse
from paripassu.frameworks.pytorch import recipes

if __name__ == "__main__":
    model, recipe, images, out = sys.argv[1:]
    network = recipes.make_network(
        parse(Path(recipe).read_text(encoding="utf-8"))
    )
    state = torch.load(model, weights_only=True)
    # A float64 file wants a float64 network.
    network.to(next(iter(state.values())).dtype).load_state_dict(state)
    network.eval()
    with torch.inference_mode():
        x = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2)
        np.save(out, network(x).numpy())
