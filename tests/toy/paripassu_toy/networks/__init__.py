"""The recipe book's networks in the toy, one a file, beside the lesson's."""
