"""Check a port: whether two models, of whatever framework, compute the same."""
