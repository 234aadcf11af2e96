"""A framework that has the reference compute: for tests, and to be copied."""
