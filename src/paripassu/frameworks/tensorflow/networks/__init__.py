"""The recipe book's networks in Keras, one a file, beside the lesson's."""
