"""Similarity of tokens, from their keys or from the tokens themselves."""

import jax.numpy as jnp


def cosine_similarity(keys, others=None):
  """(b, n, c) keys and (b, m, c) other keys, by default the same -> (b, n, m) float32 cosines."""
  keys = _unit(keys)
  others = keys if others is None else _unit(others)
  return jnp.einsum("bic,bjc->bij", keys, others)


def _unit(keys):
  keys = keys.astype(jnp.float32)
  return keys / (jnp.linalg.norm(keys, axis=-1, keepdims=True) + 1e-6)
