"""`Network`, the object that a user holds, and where it comes from."""

from asvit_jax.network.held import Network
from asvit_jax.network.loading import create, load, load_configured

__all__ = ["Network", "create", "load", "load_configured"]
