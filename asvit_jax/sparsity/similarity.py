"""How alike tokens are, by their keys."""

import jax.numpy as jnp


def cosine_similarity(keys):
  """(b, n, c) keys -> (b, n, n) float32 cosines of all pairs."""
  keys = keys.astype(jnp.float32)
  keys = keys / (jnp.linalg.norm(keys, axis=-1, keepdims=True) + 1e-6)
  return jnp.einsum("bic,bjc->bij", keys, keys)
