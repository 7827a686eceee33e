"""Attention, the only place that mixes tokens: pure functions of (q, k, v).

Each returns `(context, scores)`: what every token receives, and how much the class token cares for
every patch token. `jit` drops the scores where nobody reads them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax import pruning

# The mass that pruned tokens share, so that the softmax of a token that sees nothing is defined.
EPSILON = 1e-6
# Bounds exp() at pruned keys, which may exceed every kept one. They are multiplied by zero, so the
# bound changes no output; it only keeps inf · 0 and its gradient away.
MAX_LOGIT = 20.0


def dense(q, k, v):
  """Every token attends to every token.

  Args:
    q: (b, n, h, c) queries; token 0 is the class token.
    k: (b, n, h, c) keys.
    v: (b, n, h, c) values.

  Returns:
    (b, n, h, c) context and (b, n - 1) float32 scores of the patch tokens.
  """
  context = jax.nn.dot_product_attention(q, k, v)
  class_attention = jax.nn.softmax(_logits(q[:, :1], k), axis=-1)  # (b, h, 1, n)
  return context, _patch_scores(class_attention, context)


def masked(q, k, v, keep):
  """Kept tokens attend to kept tokens; shapes stay fixed and gradients reach the mask.

  The mask multiplies the numerators of the softmax, `(e·m + ε/n) / (Σ e·m + ε)`, which is how
  DynamicViT (arXiv:2106.02034, Eq. 11) and Adaptive Sparse ViT train. The exponent is taken
  relative to the largest *kept* logit, so a pruned token never moves a kept one by more than ε
  however large its own logit is. A pruned token still sees itself: its row stays finite.

  Args:
    q: (b, n, h, c) queries; token 0 is the class token.
    k: (b, n, h, c) keys.
    v: (b, n, h, c) values.
    keep: (b, n) float32, 1 for kept tokens and 0 for pruned ones; 1 for the class token.

  Returns:
    (b, n, h, c) context and (b, n - 1) float32 scores of the patch tokens.
  """
  n = q.shape[1]
  logits = _logits(q, k)  # (b, h, n, n)
  visible = jnp.where(np.eye(n, dtype=bool), 1.0, keep[:, None, None, :])
  peak = jnp.max(jnp.where(visible > 0, logits, -jnp.inf), axis=-1, keepdims=True)
  peak = jax.lax.stop_gradient(peak)
  mass = jnp.exp(jnp.minimum(logits - peak, MAX_LOGIT)) * visible
  attention = (mass + EPSILON / n) / (mass.sum(axis=-1, keepdims=True) + EPSILON)
  context = jnp.einsum("bhqk,bkhc->bqhc", attention.astype(v.dtype), v)
  return context, _patch_scores(attention, context)


def prefix(q, k, v, count):
  """Attention among the first `count` tokens of every image; what comes after them is undefined.

  Args:
    q: (b, n, h, c) queries; token 0 is the class token.
    k: (b, n, h, c) keys.
    v: (b, n, h, c) values.
    count: (b,) tokens of every image, at least 1.

  Returns:
    (b, n, h, c) context and (b, n) float32 scores; those of the class tokens are infinite.
  """
  valid = jnp.arange(k.shape[1]) < count[:, None]  # (b, n)
  logits = jnp.where(valid[:, None, None, :], _logits(q, k), -jnp.inf)
  attention = jax.nn.softmax(logits, axis=-1)
  context = jnp.einsum("bhqk,bkhc->bqhc", attention.astype(v.dtype), v)
  scores = _patch_scores(attention, context)
  return context, jnp.pad(scores, ((0, 0), (1, 0)), constant_values=jnp.inf)


def packed(q, k, v, layout, widths, rung):
  """Attention within every image of a packed batch.

  Args:
    q: (rows, h, c) queries of all images, back to back.
    k: (rows, h, c) keys.
    v: (rows, h, c) values.
    layout: `packing.Layout`.
    widths: ladder of static widths.
    rung: () int32, index of the smallest of them that holds the longest image.

  Returns:
    (rows, h, c) context and (rows,) float32 scores; those of the class tokens are infinite.
  """
  rows = len(q)
  image = layout.image[:rows]
  place = jnp.arange(rows) - layout.start[image]  # in its image

  def attend(width, q, k, v):
    index = jnp.minimum(layout.start[:, None] + jnp.arange(width), rows - 1)  # (b, width)
    context, scores = prefix(q[index], k[index], v[index], layout.count)
    back = image * width + jnp.minimum(place, width - 1)
    return context.reshape(-1, *context.shape[2:])[back], scores.reshape(-1)[back]

  branches = [functools.partial(attend, width) for width in widths]
  return jax.lax.switch(rung, branches, q, k, v)


def _logits(q, k):
  """(b, q, h, c), (b, k, h, c) -> (b, h, q, k), float32 whatever the compute type."""
  scale = q.shape[-1] ** -0.5
  return jnp.einsum("bqhc,bkhc->bhqk", q * scale, k, preferred_element_type=jnp.float32)


def _patch_scores(attention, context):
  """Scores from (b, h, q, n) attention whose first row is the class token's."""
  class_attention = jnp.swapaxes(attention[:, :, 0, 1:], 1, 2)  # (b, n - 1, h)
  return pruning.token_scores(class_attention, context[:, 1:])
