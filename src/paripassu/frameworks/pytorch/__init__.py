"""PyTorch: the lesson, its trainer and its twin."""
