"""Opens a `.keras` file with Keras alone: run as a script, in a fresh process.

python trial.py MODEL RECIPE IMAGES OUT
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

if __name__ == "__main__":
    model, _recipe, images, out = sys.argv[1:]
    network = keras.models.load_model(model)
    np.save(out, network.predict(np.load(images), verbose=0))
    if any(name.partition(".")[0] == "paripassu" for name in sys.modules):
        sys.exit("the file opens only with code of paripassu")
