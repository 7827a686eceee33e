"""Kernels in Pallas for flat rows, see `executions.flat`: for a TPU, and interpreted in tests.

Rows that belong to no token may have any value, in and out.
"""
