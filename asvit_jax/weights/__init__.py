"""Reads and writes weights: published, of a run, or in this package's files; strict both ways."""

from asvit_jax.weights.names import from_timm, to_timm

__all__ = ["from_timm", "to_timm"]
