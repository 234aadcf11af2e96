"""Opens an ONNX file with onnxruntime alone: run as a script, in a fresh process.

python onnx_trial.py MODEL RECIPE IMAGES OUT
"""

import sys

import numpy as np
import onnxruntime

if __name__ == "__main__":
    model, _recipe, images, out = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"images": np.load(images).transpose(0, 3, 1, 2)})
    np.save(out, answers)
