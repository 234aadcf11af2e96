"""Studies: a grid of recipes, frameworks, seeds and settings, run and reported."""
