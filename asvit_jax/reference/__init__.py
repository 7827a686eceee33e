"""Holds the implementation against reference numbers of the authors' PyTorch code."""
