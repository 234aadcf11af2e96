"""Frameworks that train: a folder each, a contract, and the table of them."""
