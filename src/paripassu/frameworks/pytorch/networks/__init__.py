"""The recipe book's networks in PyTorch, one a file, beside the lesson's."""
