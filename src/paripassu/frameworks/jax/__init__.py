"""JAX: the lesson in Flax NNX and optax, its trainer and its twin."""
