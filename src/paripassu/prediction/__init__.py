"""Pictures in, digits out."""
