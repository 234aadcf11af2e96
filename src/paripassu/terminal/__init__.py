"""Tables and progress for the terminal: the only place that imports rich."""
