"""TensorFlow: the lesson, its trainer and its twin."""

import os

# Keras and TensorFlow read these once, when they are imported.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
