"""Notebooks made from the lessons."""
