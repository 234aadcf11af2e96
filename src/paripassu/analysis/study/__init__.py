"""Studies: what a grid of runs says, and how long it will take."""
