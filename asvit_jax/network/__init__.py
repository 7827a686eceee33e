"""`Network`, and the functions that create or load one."""

from asvit_jax.network.held import Network
from asvit_jax.network.loading import create, load, load_configured

__all__ = ["Network", "create", "load", "load_configured"]
