"""Floor 0, framework-free: what every framework agrees on."""
