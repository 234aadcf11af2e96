"""Judges of ports: which weights are which, where models part, and why."""
