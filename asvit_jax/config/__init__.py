"""The configuration of a run: keys and defaults, their rules, and the `Plan` resolved from them."""

from asvit_jax.config.defaults import base

__all__ = ["base"]
