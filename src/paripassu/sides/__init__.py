"""Anybody's models, opened: a module a kind of model, and the contract with them."""
