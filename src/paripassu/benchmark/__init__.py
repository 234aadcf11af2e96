"""How near training comes to the ceiling of the machine."""
