"""The recipe book's networks in Flax, one a file, beside the lesson's."""
