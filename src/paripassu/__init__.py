"""Pari passu: the same network in PyTorch and TensorFlow, proven equal."""

__version__ = "0.1.0"
