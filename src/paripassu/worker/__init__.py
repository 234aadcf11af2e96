"""What runs in a child process: one framework, one request."""
