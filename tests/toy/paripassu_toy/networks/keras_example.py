"""The reference computes any network: that this file is here says that the toy does."""
