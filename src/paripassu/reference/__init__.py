"""The referee: forward and backward by hand, in float64."""
