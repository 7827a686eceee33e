"""Reading and writing of weights: published ones, those of a run, and this package's own files."""

from asvit_jax.weights.names import from_timm, to_timm

__all__ = ["from_timm", "to_timm"]
