"""Weights in and out: published ones, a run's, our own files. Strict both ways."""

from asvit_jax.weights.names import from_timm, to_timm

__all__ = ["from_timm", "to_timm"]
