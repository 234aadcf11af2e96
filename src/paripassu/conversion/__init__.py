"""A trained network in any format."""
