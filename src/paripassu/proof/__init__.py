"""The proof that twins compute the same, rung by rung, and that it can fail."""
