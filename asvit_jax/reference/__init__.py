"""Comparison of this implementation with reference numbers of the authors' PyTorch code."""
