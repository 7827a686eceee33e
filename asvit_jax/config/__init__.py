"""The configuration of a run: keys and defaults, rules, what follows from them, named recipes."""

from asvit_jax.config.defaults import base

__all__ = ["base"]
