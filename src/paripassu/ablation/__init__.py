"""From one recipe to another, one difference at a time."""
