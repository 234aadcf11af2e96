"""The bounds, the ladder and the causes of the proof."""
