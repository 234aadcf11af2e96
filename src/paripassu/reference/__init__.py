"""The reference: layers, losses and optimizers in NumPy and float64."""
