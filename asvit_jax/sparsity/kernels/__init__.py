"""Pallas kernels for accelerators: what the backends of flat execution compute with."""
