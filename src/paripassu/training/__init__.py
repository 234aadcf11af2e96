"""Train, evaluate and compare."""
