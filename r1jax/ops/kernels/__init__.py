"""Pallas kernels for TPU, each beside the reference that it is held against."""
