"""`Network`, and the functions that create or load one."""

from asvit_jax.network.loading import create, load, load_configured
from asvit_jax.network.network import Network

__all__ = ["Network", "create", "load", "load_configured"]
